"""Initialization: each scheme's variance, its fans, and draws that are each kernel's own."""

import math
import re

import keras
import numpy as np
import pytest

import tfbio
from tfbio import models
from tfbio.layers import LocallyConnected2D
from tfbio.layers.sites import find_layers, find_sites
from tfbio.models import initialization


def network():
    """Return a network with a layer of every kind that has a kernel."""
    layers = keras.layers
    images = keras.Input((8, 8, 16))
    x = layers.Conv2D(48, 3, groups=4, name="grouped")(images)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.DepthwiseConv2D(3, depth_multiplier=2, name="depthwise")(x)
    x = layers.Conv2DTranspose(20, 5, name="transposed")(x)
    x = layers.SeparableConv2D(24, 3, depth_multiplier=3, name="separable")(x)
    x = LocallyConnected2D(30, 3, 2, name="local")(x)
    x = layers.Reshape((4, 30))(layers.MaxPooling2D(1, name="pool")(x)[:, :2, :2])
    x = layers.Conv1D(40, 2, name="line")(x)
    x = layers.EinsumDense("abc,cde->abde", (3, 4, 50), name="einsum")(x)
    x = layers.EinsumDense("abcd,bde->abce", (3, 4, 60), bias_axes="e", name="batched")(x)
    x = layers.Dense(200, name="dense1")(layers.Flatten()(x))
    return keras.Model(images, layers.Dense(200, name="dense2")(x))


FANS = {
    # A convolution's fan_in is that of one group, its fan_out that of all of them.
    "grouped": (9 * 4, 9 * 48),
    "depthwise": (9, 9 * 96),
    # PyTorch takes these of the convolution that is transposed.
    "transposed": (25 * 20, 25 * 96),
    "separable/depthwise": (9, 9 * 60),
    "separable/pointwise": (60, 24),
    # At each of its positions.
    "local": (9 * 24, 30),
    "line": (2 * 30, 2 * 40),
    "einsum": (40, 4 * 50),
    # A matrix for each b.
    "batched": (50, 60),
    "dense1": (3 * 4 * 60, 200),
    "dense2": (200, 200),
}
VARIANCES = {
    "xavier_uniform": lambda fan_in, fan_out: 2 / (fan_in + fan_out),
    "xavier_normal": lambda fan_in, fan_out: 2 / (fan_in + fan_out),
    "he_fan_in": lambda fan_in, fan_out: 2 / fan_in,
    "he_fan_out": lambda fan_in, fan_out: 2 / fan_out,
    "lecun_normal": lambda fan_in, fan_out: 1 / fan_in,
    "pytorch": lambda fan_in, fan_out: 1 / fan_in / 3,
}
UNIFORM = ("xavier_uniform", "pytorch")


def read_kernels(model):
    """Return a dict from name to kernel, and one to the bias beside it."""
    kernels, biases = {}, {}
    for name, layer in find_layers(model).items():
        if name.startswith("separable"):
            kernels[f"{name}/depthwise"] = layer.depthwise_kernel.numpy()
            kernels[f"{name}/pointwise"] = layer.pointwise_kernel.numpy()
            biases[f"{name}/pointwise"] = layer.bias.numpy()
        elif hasattr(layer, "kernel"):
            kernels[name] = layer.kernel.numpy()
            if layer.bias is not None:
                biases[name] = layer.bias.numpy()
    return kernels, biases


def assert_has_variance(values, variance, flat):
    """Assert it within five standard errors, and the kind of the distribution."""
    values = values.ravel().astype("float64")
    # The variance of a square is 4/5 v² if it is of a uniform draw, 2 v² of a normal one.
    error = math.sqrt((0.8 if flat else 2) / values.size)
    assert abs(np.mean(values**2) / variance - 1) < 5 * error
    assert abs(np.mean(values)) < 5 * math.sqrt(variance / values.size)
    largest = np.abs(values).max() / math.sqrt(variance)
    if flat:
        assert math.sqrt(3) * (1 - 30 / values.size) < largest < math.sqrt(3) * (1 + 1e-6)
    elif values.size > 4000:
        assert largest > 2.5  # it is not truncated at two standard deviations


@pytest.mark.parametrize("name", initialization.names())
def test_kernels_and_biases_have_the_schemes_variance(name):
    keras.utils.set_random_seed(3)
    model = network()
    for layer in model.layers:
        if getattr(layer, "bias", None) is not None:
            layer.bias.assign(keras.ops.ones_like(layer.bias))
    gamma = model.get_layer("norm").gamma.numpy() * 1
    assert models.initialize(model, name) is model
    kernels, biases = read_kernels(model)
    assert kernels.keys() == FANS.keys()
    flat = name in UNIFORM
    for path, kernel in kernels.items():
        assert_has_variance(kernel, VARIANCES[name](*FANS[path]), flat)
    assert biases.keys() == FANS.keys() - {"separable/depthwise", "einsum"}
    for path, bias in biases.items():
        limit = FANS[path][0] ** -0.5 if name == "pytorch" else 0
        assert np.abs(bias).max() <= limit * (1 + 1e-6)
        assert limit / 2 <= np.abs(bias).max()
    np.testing.assert_array_equal(model.get_layer("norm").gamma, gamma)


def test_every_kernel_has_draws_of_its_own_that_the_seed_determines():
    def draw(seed):
        keras.utils.set_random_seed(seed)
        layers = [keras.layers.Dense(40, name=f"dense{i}") for i in range(3)]
        model = keras.Sequential([keras.Input((40,)), *layers])
        return read_kernels(models.initialize(model, "xavier_uniform"))[0]

    first, same, other = draw(1), draw(1), draw(2)
    for name, kernel in first.items():
        np.testing.assert_array_equal(kernel, same[name])
        for different in [other[name], *(k for n, k in first.items() if n != name)]:
            assert abs(np.corrcoef(kernel.ravel(), different.ravel())[0, 1]) < 5 / 40


@pytest.mark.parametrize("rule", ["fa(scale='xavier')", "frsf(scale='xavier')", "fa(seed=7)"])
def test_kernels_are_independent_of_their_feedback(rule):
    keras.utils.set_random_seed(7)
    model = models.initialize(models.build("lenet", 10, (32, 32, 1)), "xavier_uniform")
    tfbio.convert(model, rule)
    magnitudes = {path: (abs(site.kernel.numpy()), abs(site.feedback.numpy()))
                  for path, site in find_sites(model).items()}  # fmt: skip
    for path, (kernel, feedback) in magnitudes.items():
        others = [w for w, _ in magnitudes.values() if w.shape == kernel.shape]
        for each in others:
            correlation = np.corrcoef(each.ravel(), feedback.ravel())[0, 1]
            assert abs(correlation) < 5 / math.sqrt(kernel.size), path


class Own(keras.layers.Layer):
    """A layer of one's own."""

    def build(self, input_shape):
        self.matrix = self.add_weight(shape=(input_shape[-1], 3))

    def call(self, inputs):
        return inputs @ self.matrix


class Whole(keras.Model):
    """A model with a kernel that belongs to no layer below it."""

    def build(self, input_shape):
        self.matrix = self.add_weight(shape=(input_shape[-1], 3))

    def call(self, inputs):
        return inputs @ self.matrix


def with_lora():
    layer = keras.layers.Dense(3, name="adapted")
    model = keras.Sequential([keras.Input((4,)), layer])
    layer.enable_lora(2)
    return model


REFUSED = [
    (lambda: keras.Sequential([keras.Input((4,)), Own(name="own")]),
     "Layer 'own', of class Own, has a kernel of which fan_in and fan_out are not known."),
    (lambda: keras.Sequential([keras.Input((4, 2)), keras.layers.Dense(3), keras.layers.LSTM(3)]),
     "of class LSTMCell, has a kernel"),
    (with_lora, "Layer 'adapted' has LoRA or is quantized"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "message"), REFUSED, ids=["own", "recurrent", "adapted"])
def test_a_kernel_without_known_fans_is_refused_and_nothing_changed(make, message):
    model = make()
    before = model.get_weights()
    with pytest.raises(ValueError, match=re.escape(message)):
        models.initialize(model, "pytorch")
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_a_kernel_of_the_model_itself_is_refused():
    model = Whole()
    model.build((None, 4))
    with pytest.raises(ValueError, match="The model itself, of class Whole, has a kernel"):
        models.initialize(model, "pytorch")


def test_an_unknown_scheme_is_refused_with_a_hint():
    message = "Unknown scheme 'he_fanin'. Did you mean 'he_fan_in'? Schemes: xavier_uniform, "
    with pytest.raises(ValueError, match=re.escape(message)):
        models.initialize(models.build("lenet", 10, (32, 32, 1)), "he_fanin")
