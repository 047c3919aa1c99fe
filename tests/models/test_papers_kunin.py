"""The network of Kunin et al. 2020 against their code, neuroailab/Neural-Alignment at d83defb."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfbio
from tests.cases import random
from tfbio import models
from tfbio.layers.sites import find_sites


def test_kunins_network_has_theirs_weights():
    """Models/resnet_model_v1.py:322-425: the weights layer by layer, from the arguments there."""
    model = models.build("kunin_resnet18", 1000, (224, 224, 3))
    expected, before = [(7, 7, 3, 64), (64,), (64,)], 64
    for filters in (64, 128, 256, 512):
        for block in range(2):
            convolutions = [(3, 3, before, filters), (3, 3, filters, filters)]
            if block == 0:  # use_projection=True in every group, line 284
                convolutions.append((1, 1, before, filters))
            for shape in convolutions:
                expected += [shape, (filters,), (filters,)]
            before = filters
    expected += [(512, 1000), (1000,)]
    assert sorted(tuple(v.shape) for v in model.trainable_variables) == sorted(expected)
    # ResNet-18's, and the first stage's shortcut with its normalization.
    assert sum(map(np.prod, expected)) == 11_689_512 + 64 * 64 + 2 * 64
    assert model.get_layer("average").input.shape == (None, 7, 7, 512)
    assert model.get_layer("pool").output.shape == (None, 56, 56, 64)


def test_kunins_network_starts_as_theirs():
    model = models.build("kunin_resnet18", 1000, (32, 32, 3))
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D):
            # tf.variance_scaling_initializer(): truncated at two deviations before scaling.
            kernel = layer.kernel.numpy()
            std = np.prod(kernel.shape[:-1]) ** -0.5
            assert kernel.std() == pytest.approx(std, rel=0.05)
            assert 1.9 * std < abs(kernel).max() <= 2 / 0.8796 * std
        if isinstance(layer, keras.layers.BatchNormalization):
            assert (layer.epsilon, layer.momentum) == (1e-5, 0.9)
            zero = layer.name.endswith("_2_norm")
            assert (layer.gamma.numpy() == (0 if zero else 1)).all()
    logits = model.get_layer("logits")
    assert logits.kernel.numpy().std() == pytest.approx(0.01, rel=0.02)
    assert abs(logits.kernel.numpy()).max() > 0.03  # not truncated
    assert not logits.bias.numpy().any()


def test_kunins_network_computes_what_theirs_does():
    """The same, written out: explicit padding and VALID where strides are 2, else SAME."""
    model = models.build("kunin_resnet18", 10, (36, 36, 3))
    for index, layer in enumerate(model.layers):
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.gamma.assign(1 + 0.3 * random(layer.gamma.shape, "float32", index))

    def conv(x, name, size, stride):
        kernel = model.get_layer(f"{name}_conv").kernel.value
        if stride > 1:
            begin = (size - 1) // 2
            x = tf.pad(x, [[0, 0], [begin, size - 1 - begin], [begin, size - 1 - begin], [0, 0]])
        y = tf.nn.conv2d(x, kernel, stride, "SAME" if stride == 1 else "VALID")
        norm = model.get_layer(f"{name}_norm")
        mean, variance = tf.nn.moments(y, [0, 1, 2])
        gamma, beta = norm.gamma.value, norm.beta.value
        return tf.nn.batch_normalization(y, mean, variance, beta, gamma, 1e-5)

    x = inputs = random((3, 36, 36, 3), "float32")
    x = tf.nn.max_pool2d(tf.nn.relu(conv(x, "stem", 7, 2)), 3, 2, "SAME")
    for stage in range(1, 5):
        for block in (1, 2):
            name, stride = f"stage{stage}_block{block}", 2 if stage > 1 and block == 1 else 1
            shortcut = conv(x, f"{name}_shortcut", 1, stride) if block == 1 else x
            y = tf.nn.relu(conv(x, f"{name}_1", 3, stride))
            x = tf.nn.relu(conv(y, f"{name}_2", 3, 1) + shortcut)
    x = tf.reduce_mean(x, [1, 2]) @ model.get_layer("logits").kernel.value
    np.testing.assert_allclose(model(inputs, training=True), x, atol=2e-4)


def first_gradient(model, x, y):
    kernel = model.get_layer("stem_conv").kernel.value
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(kernel)
        value = loss(y, model(x, training=True))
    return float(tf.norm(tape.gradient(value, kernel)))


def test_the_first_gradient_starts_as_with_their_feedback():
    """Theirs draws B as the kernel (Layers/layers.py:42-47,126-130), ours N(0, rms²)."""
    keras.utils.set_random_seed(0)
    model = models.build("kunin_resnet18", 10, (64, 64, 3))
    x, y = random((4, 64, 64, 3), "float32"), np.arange(4)
    backprop = first_gradient(tfbio.convert(model, "backprop"), x, y)
    tfbio.convert(model, "symmetric_alignment(seed=1)")
    ours = first_gradient(model, x, y) / backprop
    for site in find_sites(model).values():
        drawn = site.layer.kernel_initializer.clone()(site.kernel.shape)
        site.rule.matrix.assign(drawn)
        assert np.std(drawn) == pytest.approx(site.kernel.numpy().std(), rel=0.1)
    theirs = first_gradient(model, x, y) / backprop
    print(f"first convolution's gradient over backpropagation's: ours {ours}, theirs {theirs}")
    assert 0.5 < ours / theirs < 2
