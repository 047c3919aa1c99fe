"""Every family of keras.applications converts, with every kernel accounted for."""

import gc
import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfbio
from tests.cases import long_but, random
from tfbio.layers.sites import find_sites

# The smallest of each family: the others have more of the same layers.
ARCHITECTURES = [
    "ConvNeXtTiny",
    "DenseNet121",
    "EfficientNetB0",
    "EfficientNetV2B0",
    "InceptionResNetV2",
    "InceptionV3",
    "MobileNet",
    "MobileNetV2",
    "MobileNetV3Small",
    "NASNetMobile",
    "ResNet50",
    "ResNet50V2",
    "VGG16",
    "VGG19",
    "Xception",
]
KERNELS = {
    "ResNet50": 54,
    "MobileNetV2": 53,
    "DenseNet121": 121,
    "Xception": 6 + 2 * 34 + 1,
    "VGG16": 16,
    "ConvNeXtTiny": 4 + 3 * 18 + 1,
}


def test_no_family_is_left_out():
    # The architectures are functions that return a model; each family has a module.
    every = [getattr(keras.applications, name) for name in dir(keras.applications)]
    families = {each.__module__ for each in every if inspect.isfunction(each)}
    assert len(families) >= 14
    assert {getattr(keras.applications, name).__module__ for name in ARCHITECTURES} == families


@pytest.fixture
def instant_weights(monkeypatch):
    """Make kernels cheap: 350 million random numbers prove no more than a constant does."""

    def filled(self, shape, dtype=None):
        return tf.fill(tuple(shape), tf.constant(0.05, dtype or "float32"))

    for name in ("GlorotUniform", "VarianceScaling", "TruncatedNormal", "RandomNormal"):
        monkeypatch.setattr(getattr(keras.initializers, name), "__call__", filled)


def assert_converts_every_kernel(model, name, rule):
    matrices = {v.path for v in model.trainable_variables if len(v.shape) > 1}
    weights = {v.path: v.shape for v in model.weights}
    tfbio.convert(model, rule)
    sites = find_sites(model)
    assert {site.kernel.path for site in sites.values()} == matrices
    assert {site.rule.alias for site in sites.values()} == {"sign_symmetry"}
    assert weights.items() <= {v.path: v.shape for v in model.weights}.items()
    if name in KERNELS:
        assert len(sites) == KERNELS[name]


# MobileNetV2's are counted in the next test, too.
@pytest.mark.parametrize("name", long_but(["ConvNeXtTiny"], ARCHITECTURES))
def test_every_kernel_of_an_architecture_is_put_under_the_rule(name, instant_weights):
    model = getattr(keras.applications, name)(weights=None)
    assert_converts_every_kernel(model, name, "sign_symmetry(scale='unit')")
    del model
    keras.backend.clear_session()
    gc.collect()


@pytest.mark.parametrize(
    "name", long_but(["MobileNetV2"], ["MobileNetV2", "ConvNeXtTiny", "EfficientNetV2B0"])
)
def test_an_architecture_computes_the_same_and_only_its_last_layer_sees_the_error(name):
    model = getattr(keras.applications, name)(
        weights=None, input_shape=(64, 64, 3), classes=5, classifier_activation=None
    )
    x = random((2, 64, 64, 3), "float32")
    before = model(x)
    assert_converts_every_kernel(model, name, "sign_symmetry(scale=0)")
    np.testing.assert_array_equal(model(x), before)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(tf.square(model(x, training=True)))
    gradients = tape.gradient(loss, model.trainable_variables)
    reached = {
        v.path.split("/")[0]
        for v, g in zip(model.trainable_variables, gradients, strict=True)
        if np.any(g)
    }
    assert reached == {list(find_sites(model))[-1]}


def test_a_network_of_nested_models_is_cloned_under_its_rules(instant_weights):
    whole = keras.applications.ConvNeXtTiny(weights=None, input_shape=(32, 32, 3), classes=5)
    # The stem and a downsampling block are models of their own.
    top = whole.get_layer("convnext_tiny_downsampling_block_0").output
    top = keras.layers.Dense(5)(keras.layers.GlobalAveragePooling2D()(top))
    model = keras.Model(whole.input, top)
    tfbio.convert(model, "sign_symmetry(scale='unit')", last_layer="backprop")
    clone = keras.models.clone_model(model)
    rules = {name: repr(site.rule) for name, site in find_sites(model).items()}
    assert {name: repr(site.rule) for name, site in find_sites(clone).items()} == rules
