"""The networks: their published shapes and arithmetic, sizes, weights, and users' own."""

import itertools
import socket

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfbio
from tests.cases import long_but, random
from tfbio import models

SMALLEST = {
    "frenkel_mnist": 2,
    "digits_cnn": 4,
    "lenet": 32,
    "lenet_tanh": 32,
    "lenet_cifar": 18,
    "akrout_mnist": 1,
    "akrout_cifar": 1,
    "alexnet": 63,
    "resnet18": 1,
    "resnet18_zero_gamma": 1,
    "kunin_resnet18": 1,
    "resnet20": 4,
    "resnet32": 4,
    "resnet34": 1,
    "resnet50": 1,
    "resnet56": 4,
    "resnet101": 1,
    "resnet152": 1,
    "lee_mnist": 1,
    "ernoult_lenet": 1,
    "ernoult_vgg": 32,
    "keras:MobileNetV2": 32,
    **{
        f"bartunov_{kind}_{data}": 1
        for kind, data in (
            *(("fc", "mnist"), ("lc", "mnist"), ("conv", "mnist")),
            *(("fc", "cifar"), ("lc", "cifar"), ("conv", "cifar")),
            *(("lc", "imagenet"), ("conv", "imagenet")),
        )
    },
}
"""Every registered network's least number of pixels a side."""


def test_lenet_is_the_published_one():
    model = models.build("lenet", 10, (32, 32, 1))
    kernels = [tuple(layer.kernel.shape) for layer in model.layers if hasattr(layer, "kernel")]
    assert kernels == [(5, 5, 1, 6), (5, 5, 6, 16), (5, 5, 16, 120), (120, 84), (84, 10)]
    assert model.get_layer("conv3").output.shape == (None, 1, 1, 120)
    assert [type(layer).__name__ for layer in model.layers].count("MaxPooling2D") == 2
    for layer in model.layers:
        if hasattr(layer, "kernel"):
            assert isinstance(layer.kernel_initializer, keras.initializers.GlorotUniform)
            assert not layer.bias.numpy().any()


def test_lees_network_starts_with_the_orthogonal_factors_of_uniform_matrices(monkeypatch):
    drawn = []
    original = keras.initializers.RandomUniform.__call__

    def draw(self, *arguments):
        drawn.append(original(self, *arguments))
        return drawn[-1]

    monkeypatch.setattr(keras.initializers.RandomUniform, "__call__", draw)
    model = models.build("lee_mnist", 10, (28, 28, 1))
    kernels = [layer.kernel.numpy() for layer in model.layers if hasattr(layer, "kernel")]
    assert [k.shape for k in kernels] == [(784, 240), *6 * [(240, 240)], (240, 10)]
    assert not any(layer.bias.numpy().any() for layer in model.layers[1:])
    for kernel, uniform in zip(kernels, drawn, strict=True):
        np.testing.assert_allclose(kernel.T @ kernel, np.eye(kernel.shape[1]), atol=1e-5)
        # The factor of A is the orthogonal matrix for which QᵀA is symmetric and positive.
        rest = kernel.astype("float64").T @ uniform.numpy()
        np.testing.assert_allclose(rest, rest.T, atol=1e-4)
        assert np.linalg.eigvalsh(rest).min() > -1e-4


@pytest.mark.parametrize("size", [(8, 7), (5, 6), (1, 2)])
def test_the_padded_maximum_is_that_of_windows_around_every_second_pixel(size):
    x = random((2, *size, 3), "float64") - 3.0
    layer = models.PaddedMaxPooling2D(3, 2, margin=1, dtype="float64")
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x)
    rows, columns = (range(0, side, 2) for side in size)
    expected = [
        [x.numpy()[:, max(i - 1, 0) : i + 2, max(j - 1, 0) : j + 2].max((1, 2)) for j in columns]
        for i in rows
    ]
    np.testing.assert_array_equal(y, np.moveaxis(expected, 2, 0))
    assert layer.compute_output_shape(x.shape) == y.shape
    assert layer.compute_output_shape((None, None, *x.shape[2:])) == (None, None, *y.shape[2:])
    # Each window's error goes to its maximum, none is lost on the margin.
    np.testing.assert_allclose(tf.reduce_sum(tape.gradient(y, x), (1, 2)), len(rows) * len(columns))
    again = models.PaddedMaxPooling2D.from_config(layer.get_config())
    np.testing.assert_array_equal(again(x), y)


def test_a_margin_of_more_than_half_the_window_is_refused():
    with pytest.raises(ValueError, match="`margin` must be an integer of 0 to 1"):
        models.PaddedMaxPooling2D(3, 2, margin=2)


def test_lenet_for_cifar_is_the_published_one():
    model = models.build("lenet_cifar", 10, (32, 32, 3))
    kernels = [tuple(layer.kernel.shape) for layer in model.layers if hasattr(layer, "kernel")]
    assert kernels == [(3, 3, 3, 32), (3, 3, 32, 64), (3, 3, 64, 128), (128, 256), (256, 10)]
    x = random((2, 32, 32, 3), "float32")
    w = [*map(tf.constant, model.get_weights())]
    y = tf.nn.max_pool2d(tf.nn.relu(tf.nn.conv2d(x, w[0], 1, "VALID") + w[1]), 2, 2, "VALID")
    y = tf.nn.max_pool2d(tf.nn.relu(tf.nn.conv2d(y, w[2], 1, "VALID") + w[3]), 2, 2, "VALID")
    y = tf.reduce_mean(tf.nn.relu(tf.nn.conv2d(y, w[4], 1, "VALID") + w[5]), (1, 2))
    y = tf.nn.relu(y @ w[6] + w[7]) @ w[8] + w[9]
    np.testing.assert_allclose(model(x), y, 1e-4, 1e-5)


@pytest.mark.parametrize(("name", "units"), [("akrout_mnist", 500), ("akrout_cifar", 1000)])
def test_the_sigmoid_networks_are_the_published_ones(name, units):
    model = models.build(name, 10, (6, 5, 2))
    w, b, v, c = map(tf.constant, model.get_weights())
    assert w.shape == (60, units)
    x = random((3, 6, 5, 2), "float32")
    y = tf.nn.sigmoid(tf.reshape(x, (3, 60)) @ w + b) @ v + c
    np.testing.assert_allclose(model(x), y, rtol=1e-5, atol=1e-6)


def test_blocks_with_a_gamma_of_zero_begin_as_their_shortcut():
    model = models.build("resnet18_zero_gamma", 10, (32, 32, 3))
    plain = models.build("resnet18", 10, (32, 32, 3))
    gammas = [
        (a, b) for a, b in zip(model.layers, plain.layers, strict=True) if hasattr(a, "gamma")
    ]
    changed = [a.name for a, b in gammas if float(a.gamma[0]) != float(b.gamma[0])]
    assert changed == [f"stage{s}_block{b}_2_norm" for s in range(1, 5) for b in (1, 2)]
    inner = keras.Model(
        model.input, [model.get_layer(f"stage1_{n}").output for n in ("block1_relu", "block2_relu")]
    )
    before, after = inner(random((1, 32, 32, 3), "float32"))
    np.testing.assert_array_equal(before, after)


def forward_resnet(model, x, training):
    """He et al. 2015, in tf.nn, from the model's weights in order; option A by hand."""
    weights = iter([tf.constant(v) for v in model.trainable_variables])
    moving = iter([tf.constant(v) for v in model.non_trainable_variables])

    def conv_norm(x, strides):
        kernel, gamma, beta = next(weights), next(weights), next(weights)
        mean, variance = next(moving), next(moving)
        x = tf.nn.conv2d(x, kernel, strides, [[0, 0], [1, 1], [1, 1], [0, 0]])
        if training:
            mean, variance = tf.nn.moments(x, (0, 1, 2))
        return (x - mean) / tf.sqrt(variance + 1e-5) * gamma + beta

    def block(x, filters, strides):
        channels = x.shape[-1]
        if strides == 2:
            shortcut = np.zeros((*(-(-side // 2) for side in x.shape[1:3]), filters))
            shortcut = np.stack([shortcut] * x.shape[0])
            first = (filters - channels) // 2
            shortcut[..., first : first + channels] = x.numpy()[:, ::2, ::2]
        else:
            shortcut = x
        x = conv_norm(tf.nn.relu(conv_norm(x, strides)), 1)
        return tf.nn.relu(x + tf.cast(shortcut, x.dtype))

    x = tf.nn.relu(conv_norm(x, 1))
    depth = int(model.name.removeprefix("resnet"))
    for filters in (16, 32, 64):
        for index in range((depth - 2) // 6):
            x = block(x, filters, 2 if filters > 16 and index == 0 else 1)
    x = tf.reduce_mean(x, (1, 2)) @ next(weights) + next(weights)
    assert next(weights, None) is next(moving, None) is None
    return x


@pytest.mark.parametrize(
    ("depth", "side"),
    long_but([(20, 32), (20, 7), (32, 8)], [(20, 32), (20, 7), (32, 8), (56, 8)]),
)
def test_resnet_is_the_published_one(depth, side):
    model = models.build(f"resnet{depth}", 10, (side, side, 3))
    convolutions = [x for x in model.layers if isinstance(x, keras.layers.Conv2D)]
    assert len(convolutions) + 1 == depth
    millions = sum(np.prod(v.shape) for v in model.trainable_variables) / 1e6
    assert round(millions, 2) == {20: 0.27, 32: 0.46, 56: 0.85}[depth]  # table 6
    for v in model.weights:
        if v.name in ("beta", "gamma", "moving_mean", "moving_variance"):
            v.assign(tf.random.uniform(v.shape, 0.5, 1.5))
    x = random((3, side, side, 3), "float32")
    for training in (True, False):
        expected = forward_resnet(model, x, training)
        values = [v.numpy() for v in model.non_trainable_variables]
        actual = model(x, training=training)
        np.testing.assert_allclose(actual, expected, 1e-3, 1e-3 * np.abs(expected).max())
        for v, value in zip(model.non_trainable_variables, values, strict=True):
            if training:
                assert np.abs(v.numpy() - value).max() > 0
            v.assign(value)


def test_resnet_starts_as_the_docstring_says():
    model = models.build("resnet20", 10, (32, 32, 3))
    kernel = model.get_layer("stage3_block2_1_conv").kernel.numpy()
    assert abs(kernel.std() / np.sqrt(2 / (9 * 64)) - 1) < 0.02
    assert np.abs(kernel).max() > 3 * kernel.std()  # not truncated
    norm = model.get_layer("stage3_block2_1_norm")
    assert (norm.momentum, norm.epsilon) == (0.9, 1e-5)
    with pytest.raises(ValueError, match=r"`depth` must be 6n \+ 2, n 1 or more. Received: 21."):
        models.residual(21, 10, (32, 32, 3))


@pytest.mark.parametrize(
    "name",
    long_but(
        ["resnet20", "resnet18", "resnet50", "alexnet", "ernoult_vgg", "lee_mnist", "lenet_cifar"],
        [name for name in SMALLEST if ":" not in name],
    ),
)
def test_no_two_kernels_start_from_the_same_numbers(name):
    # One initializer object gives every layer the same numbers, also in kernels of other shapes.
    side = SMALLEST[name]
    model = models.build(name, 10, (side, side, 3))
    kernels = [layer.kernel.numpy().ravel() for layer in model.layers if hasattr(layer, "kernel")]
    starts = [kernel[:100] / np.linalg.norm(kernel[:100]) for kernel in kernels]
    for one, other in itertools.combinations([s for s in starts if len(s) == 100], 2):
        assert abs(one @ other) < 0.6  # six standard deviations of a chance likeness


def test_the_shortcut_keeps_every_second_pixel_between_channels_of_zeros(tmp_path):
    layer = models.IdentityShortcut(5, 2)
    x = random((2, 5, 4, 2))
    y = layer(tf.cast(x, "float32")).numpy()
    assert y.shape == layer.compute_output_shape((2, 5, 4, 2)) == (2, 3, 2, 5)
    assert layer.compute_output_shape((None, None, 4, 2)) == (None, None, 2, 5)
    np.testing.assert_array_equal(
        y[..., 1:3], x.numpy().astype("float32")[:, [0, 2, 4]][:, :, [0, 2]]
    )
    assert not y[..., [0, 3, 4]].any()
    assert not layer.weights
    with pytest.raises(ValueError, match=r"`filters` must be no less .* is 2. Received: 1."):
        models.IdentityShortcut(1, 2)(x)
    model = models.residual(8, 3, (8, 8, 3))
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    images = random((2, 8, 8, 3), "float32")
    np.testing.assert_array_equal(again(images), model(images))


ALIKE = (
    *("resnet32", "resnet56", "resnet18_zero_gamma", "kunin_resnet18", "resnet34"),
    *("resnet101", "resnet152"),
)
"""Others with more of the same blocks or another start, which take long."""

PARAMETERS = {
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
    "alexnet": 61_110_184,
}
"""Of the networks for ImageNet at 1000 classes: torchvision's documentation; Xiao et al.'s code."""


@pytest.mark.parametrize(
    "name", long_but([name for name in PARAMETERS if name not in ALIKE], PARAMETERS)
)
def test_a_network_for_imagenet_has_the_published_size(name):
    model = models.build(name, 1000, (224, 224, 3))
    assert sum(np.prod(v.shape) for v in model.trainable_variables) == PARAMETERS[name]
    alexnet = name == "alexnet"
    features = model.get_layer("pool5").output if alexnet else model.get_layer("average").input
    expected = {"alexnet": (6, 6, 256), "resnet18": (7, 7, 512), "resnet34": (7, 7, 512)}
    assert features.shape[1:] == expected.get(name, (7, 7, 2048))


class Reference:
    """PyTorch's layers in tf.nn, on a model's weights by name."""

    def __init__(self, model, training):
        self.model, self.training = model, training

    def conv(self, x, name, strides=1, padding=0):
        pad = [[0, 0], [padding] * 2, [padding] * 2, [0, 0]]
        return tf.nn.conv2d(x, self.model.get_layer(f"{name}_conv").kernel, strides, pad)

    def norm(self, x, name):
        gamma, beta, mean, variance = self.model.get_layer(f"{name}_norm").get_weights()
        if self.training:
            mean, variance = tf.nn.moments(x, list(range(len(x.shape) - 1)))
        return (x - mean) / tf.sqrt(variance + 1e-5) * gamma + beta

    def unit(self, x, name, strides=1, padding=0):
        return self.norm(self.conv(x, name, strides, padding), name)

    def dense(self, x, name):
        return x @ self.model.get_layer(name).kernel

    def logits(self, x):
        return self.dense(x, "logits") + self.model.get_layer("logits").bias

    @staticmethod
    def pool(x, padding):
        pad = [[0, 0], [padding] * 2, [padding] * 2, [0, 0]]
        return tf.nn.max_pool2d(tf.pad(x, pad, constant_values=-np.inf), 3, 2, "VALID")


def torchvision_resnet(reference, x, blocks, bottleneck):
    """The forward pass of torchvision.models.ResNet."""
    x = reference.pool(tf.nn.relu(reference.unit(x, "stem", 2, 3)), 1)
    for stage, count in enumerate(blocks, 1):
        for block in range(1, count + 1):
            name, strides = f"stage{stage}_block{block}", 2 if stage > 1 and block == 1 else 1
            if bottleneck:
                y = tf.nn.relu(reference.unit(x, f"{name}_1"))
                y = tf.nn.relu(reference.unit(y, f"{name}_2", strides, 1))
                y = reference.unit(y, f"{name}_3")
            else:
                y = tf.nn.relu(reference.unit(x, f"{name}_1", strides, 1))
                y = reference.unit(y, f"{name}_2", 1, 1)
            if block == 1 and (stage > 1 or bottleneck):
                x = reference.unit(x, f"{name}_shortcut", strides)
            x = tf.nn.relu(x + y)
    return reference.logits(tf.reduce_mean(x, (1, 2)))


def xiao_alexnet(reference, x):
    """One weird trick's layers, each with batch norm before its ReLU."""
    x = reference.pool(tf.nn.relu(reference.unit(x, "block1", 4, 2)), 0)
    x = reference.pool(tf.nn.relu(reference.unit(x, "block2", 1, 2)), 0)
    for name in ("block3", "block4", "block5"):
        x = tf.nn.relu(reference.unit(x, name, 1, 1))
    x = tf.reshape(reference.pool(x, 0), (len(x), -1))
    for name in ("dense1", "dense2"):
        x = tf.nn.relu(reference.norm(reference.dense(x, name), name))
    return reference.logits(x)


FORWARD = {
    "resnet18": lambda reference, x: torchvision_resnet(reference, x, (2, 2, 2, 2), False),
    "resnet34": lambda reference, x: torchvision_resnet(reference, x, (3, 4, 6, 3), False),
    "resnet50": lambda reference, x: torchvision_resnet(reference, x, (3, 4, 6, 3), True),
    "alexnet": xiao_alexnet,
}


@pytest.mark.parametrize("name", long_but(["resnet18", "resnet50", "alexnet"], FORWARD))
def test_a_network_for_imagenet_is_the_published_one(name):
    shape = (70, 67, 3)  # at 67, the far sides' padding matters, at 70 it does not
    model = models.build(name, 5, shape)
    for v in model.weights:
        if v.name in ("beta", "gamma", "moving_mean", "moving_variance"):
            v.assign(tf.random.uniform(v.shape, 0.5, 1.5))
    x = random((4, *shape), "float32")
    for training in (False, True):
        expected = FORWARD[name](Reference(model, training), x)
        actual = model(x, training=training)
        np.testing.assert_allclose(actual, expected, 1e-3, 1e-3 * np.abs(expected).max())


def test_the_networks_for_imagenet_start_as_published():
    model = models.build("resnet18", 1000, (32, 32, 3))
    kernel = model.get_layer("stage4_block1_shortcut_conv").kernel.numpy()  # 1×1, 256 to 512
    assert abs(kernel.std() / np.sqrt(2 / 512) - 1) < 0.01
    assert np.abs(kernel).max() > 3 * kernel.std()  # not truncated
    last = model.get_layer("logits")
    for weights in (last.kernel, last.bias):
        assert 0.99 < np.abs(weights.numpy()).max() * np.sqrt(512) <= 1.0001
    model = models.build("alexnet", 10, (63, 63, 3))
    for name, fan_in in (("block2_conv", 64 * 25), ("dense1", 256), ("logits", 4096)):
        kernel = model.get_layer(name).kernel.numpy()
        assert 0.99 < np.abs(kernel).max() * np.sqrt(fan_in) <= 1.0001
        assert abs(kernel.std() * np.sqrt(3 * fan_in) - 1) < 0.02
        assert (model.get_layer(name).bias is None) == (name != "logits")
    gammas = [layer.gamma.numpy() for layer in model.layers if hasattr(layer, "gamma")]
    assert [len(gamma) for gamma in gammas] == [64, 192, 384, 256, 256, 4096, 4096]
    for gamma in gammas:
        assert 0 <= gamma.min() < 0.05
        assert 0.95 < gamma.max() <= 1
        assert abs(gamma.mean() - 0.5) < 0.1
    assert np.abs(gammas[-1] - gammas[-2]).max() > 0.5  # a draw for each layer
    with pytest.raises(ValueError, match=r"`depth` must be one of 10, 18, .* Received: 20."):
        models.resnet(20, 10, (32, 32, 3))


POLICIES = list(
    itertools.product([False, True], ["float32", "mixed_bfloat16", "mixed_float16", "float64"])
)


@pytest.mark.parametrize(
    ("jit", "policy"),
    long_but([*POLICIES[:4], (True, "float32"), (True, "mixed_float16")], POLICIES),
)
def test_fused_batch_norm_is_keras_own(policy, jit):
    x = tf.cast(3 * random((4, 5, 6, 8)) + 1, "float64" if policy == "float64" else "float32")
    e = tf.cast(random((4, 5, 6, 8), seed=1), x.dtype)
    results = []
    for kind in (keras.layers.BatchNormalization, models.BatchNormalization):
        layer = kind(momentum=0.9, epsilon=1e-3, dtype=policy)
        layer.build(x.shape)
        layer.gamma.assign(np.linspace(0.5, 2, 8))

        @tf.function(jit_compile=jit)
        def step(layer=layer):
            with tf.GradientTape() as tape:
                tape.watch(x)
                loss = tf.reduce_sum(tf.cast(layer(x, training=True), x.dtype) * e)
            gradients = tape.gradient(loss, [x, layer.gamma.value, layer.beta.value])
            return *gradients, layer.moving_mean.value, layer.moving_variance.value

        step()
        results.append([layer(x, training=True), *step(), layer(x)])
    tolerance = 2e-5 if policy in ("float32", "float64") else 2e-2
    for expected, ours in zip(*results, strict=True):
        expected, ours = tf.cast(expected, "float64"), tf.cast(ours, "float64")
        np.testing.assert_allclose(ours, expected, tolerance, tolerance * np.abs(expected).max())


@pytest.mark.parametrize(
    "options", [{"axis": 1}, {"scale": False, "center": False}, {"trainable": False}]
)
def test_batch_norm_with_other_options_is_keras_own(options):
    x = tf.cast(random((4, 5, 6, 8)), "float32")
    expected, ours = (
        kind(**options)(x, training=True)
        for kind in (keras.layers.BatchNormalization, models.BatchNormalization)
    )
    np.testing.assert_allclose(ours, expected, 1e-5, 1e-5)
    dense = tf.cast(random((4, 8)), "float32")
    layer = models.BatchNormalization()
    np.testing.assert_allclose(
        layer(dense, training=True),
        keras.layers.BatchNormalization()(dense, training=True),
        1e-5,
        1e-5,
    )


def test_the_sizes_are_all_stated():
    assert {name for name in SMALLEST if ":" not in name} == set(models.names())


SLOW = ("keras:MobileNetV2", "resnet20", "resnet50", *(
    name for name in SMALLEST if name.startswith("bartunov") and not name.endswith("_mnist")
))  # fmt: skip
"""Keras's own are in test_applications.py, too; a resnet20's blocks are a resnet18's; a detector on
a resnet50 takes a step in detection/test_retinanet.py; Bartunov's for MNIST are like the others."""
SIZES = [(name, wide) for name in SMALLEST if name not in ALIKE for wide in (False, True)]
WIDE = [name for name in SMALLEST if name not in (*FORWARD, "lenet_tanh")]
"""Those of FORWARD are computed at another size above, and lenet_tanh is lenet with a tanh."""


@pytest.mark.parametrize(
    ("name", "wide"),
    long_but(
        [(name, wide) for name, wide in SIZES if name not in SLOW and (name in WIDE or not wide)],
        SIZES,
    ),
)
def test_every_network_trains_under_a_rule_at_its_smallest_size(name, wide):
    side = SMALLEST[name]
    for shape in [(side - 1, side, 1), (side, side - 1, 3)] if side > 1 and not wide else []:
        with pytest.raises(ValueError, match=rf"{side}.*Received: \({shape[0]}, |at least {side}x"):
            models.build(name, 7, shape)
    shape = (side + 5, side, 3) if wide else (side, side, 1)
    model = models.build(name, 7, shape)
    assert model.output_shape == (None, 7)
    assert not model.compiled
    tfbio.convert(model, "sign_symmetry", last_layer="backprop")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    # Eagerly: a compilation would take longer than the step.
    model.compile(tfbio.optimizers.get("sgd", 0.01), loss, run_eagerly=True)
    assert np.isfinite(model.train_on_batch(tf.random.uniform((4, *shape)), np.arange(4)))
    assert all(np.isfinite(w).all() for w in model.get_weights())


# One architecture of each way of preprocessing, in numpy from an image in 0..1.
IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
PREPROCESSED = {
    "ResNet50": lambda x: 255 * x[..., ::-1] - [103.939, 116.779, 123.68],
    "MobileNetV2": lambda x: 2 * x - 1,
    "DenseNet121": lambda x: (x - IMAGENET[0]) / IMAGENET[1],
    "EfficientNetB0": lambda x: 255 * x,  # the network rescales itself
    "ConvNeXtTiny": lambda x: 255 * x,
    "MobileNetV3Small": lambda x: 255 * x,
}


@pytest.mark.parametrize("name", PREPROCESSED)
def test_an_application_preprocesses_images_in_0_to_1(name, tmp_path):
    keras.config.set_dtype_policy("mixed_float16")
    layer = models.Preprocess(name)
    keras.config.set_dtype_policy("float32")
    x = np.random.default_rng(0).uniform(size=(2, 4, 4, 3)).astype("float32")
    np.testing.assert_allclose(layer(x), PREPROCESSED[name](x), 1e-5, 1e-4)
    gray = np.repeat(x[..., :1], 3, -1)
    np.testing.assert_array_equal(layer(x[..., :1]), layer(gray))


def test_an_application_is_keras_own_behind_the_preprocessing(tmp_path):
    model = models.build("keras:MobileNet", 5, (33, 32, 3))
    keras_own = keras.applications.MobileNet(
        weights=None, input_shape=(33, 32, 3), classes=5, classifier_activation=None
    )
    keras_own.set_weights(model.get_weights())
    x = np.random.default_rng(0).uniform(size=(2, 33, 32, 3)).astype("float32")
    expected = keras_own(keras.applications.mobilenet.preprocess_input(255 * x))
    np.testing.assert_allclose(model(x), expected, 1e-4, 1e-4)
    model.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(keras.models.load_model(tmp_path / "model.keras")(x), model(x))


def test_every_application_can_be_asked_for():
    for name in models.application_names():
        assert callable(models.find(f"keras:{name}"))
        assert models.Preprocess(name).get_config()["application"] == name
    assert len(models.application_names()) >= 38


def test_imagenet_weights_are_asked_of_keras_or_refused_at_once(monkeypatch):
    asked, timeouts = [], []

    def fails(*args, **kwargs):
        asked.append(kwargs.get("weights"))
        timeouts.append(socket.getdefaulttimeout())
        raise Exception("URL fetch failure on https://x: None -- Name or service not known")

    fails.__module__ = keras.applications.MobileNetV2.__module__
    monkeypatch.setattr(keras.applications, "MobileNetV2", fails)
    with pytest.raises(ValueError, match=r"keras:MobileNetV2 cannot be downloaded, .*: URL fetch"):
        models.build("keras:MobileNetV2", 1000, (224, 224, 3), weights="imagenet")
    assert (asked, timeouts) == (["imagenet"], [20])
    assert socket.getdefaulttimeout() is None
    with pytest.raises(ValueError, match=r"`num_classes` must be 1000. Received: 10. Give"):
        models.build("keras:MobileNetV2", 10, (224, 224, 3), weights="imagenet")
    with pytest.raises(ValueError, match=r"for the networks of keras.applications only, .*'lenet'"):
        models.build("lenet", 1000, (32, 32, 3), weights="imagenet")


@pytest.mark.parametrize("ending", [".weights.h5", ".keras"])
def test_weights_are_loaded_from_a_file(ending, tmp_path):
    trained = models.build("digits_cnn", 10, (8, 8, 1))
    path = tmp_path / f"trained{ending}"
    (trained.save_weights if ending == ".weights.h5" else trained.save)(path)
    model = models.build("digits_cnn", 10, (8, 8, 1), weights=path)
    for ours, expected in zip(model.get_weights(), trained.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, expected)
    for other in (("digits_cnn", 9, (8, 8, 1)), ("lenet_cifar", 10, (18, 18, 1))):
        with pytest.raises(ValueError, match=f"does not hold those of model '{other[0]}'"):
            models.build(*other, weights=str(path))
    tfbio.convert(trained, "sign_symmetry")
    (trained.save_weights if ending == ".weights.h5" else trained.save)(path)
    with pytest.raises(ValueError, match=r"saved under a rule are loaded after tfbio.convert"):
        models.build("digits_cnn", 10, (8, 8, 1), weights=path)
    path.write_bytes(b"no such thing")
    with pytest.raises(ValueError, match="does not hold those of model 'digits_cnn'"):
        models.build("digits_cnn", 10, (8, 8, 1), weights=path)


OWN = """
import keras

def sequential(num_classes, input_shape):
    flat = [keras.layers.Flatten(), keras.layers.Dense(num_classes)]
    return keras.Sequential([keras.Input(input_shape), *flat])

class Sub(keras.Model):
    def __init__(self, num_classes):
        super().__init__()
        self.conv = keras.layers.Conv2D(4, 3, activation="relu")
        self.flat, self.out = keras.layers.Flatten(), keras.layers.Dense(num_classes)

    def call(self, x):
        return self.out(self.flat(self.conv(x)))

def subclassed(num_classes, input_shape):
    return Sub(num_classes)

def compiled(num_classes, input_shape):
    model = sequential(num_classes, input_shape)
    model.compile("sgd")
    return model

def fails(num_classes, input_shape):
    return 1 / 0

def nothing(num_classes, input_shape):
    pass

def wrong_input(num_classes, input_shape):
    return sequential(num_classes, (3, *input_shape[1:]))

def wrong_output(num_classes, input_shape):
    return sequential(num_classes + 1, input_shape)

def two(num_classes, input_shape):
    x = keras.Input(input_shape)
    y = keras.layers.Flatten()(x)
    return keras.Model(x, [keras.layers.Dense(num_classes)(y) for _ in range(2)])

def scores(num_classes, input_shape):
    x = keras.Input(input_shape)
    return keras.Model(x, keras.layers.Dense(num_classes)(x))

constant = 3
"""


@pytest.fixture
def own(tmp_path):
    path = tmp_path / "own.py"
    path.write_text(OWN)
    return path


@pytest.mark.parametrize("function", ["sequential", "subclassed"])
def test_a_network_of_ones_own_is_built_and_trains_under_a_rule(function, own):
    model = models.build(f"{own}:{function}", 3, (6, 6, 1))
    tfbio.convert(model, "sign_symmetry", last_layer="backprop")
    last = tfbio.optimizers.LastLayer.of(model, learning_rate_scale=0.1)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer = tfbio.optimizers.get("sgd", 0.01, last_layer=last)
    model.compile(optimizer, loss, run_eagerly=True)
    assert np.isfinite(model.train_on_batch(random((3, 6, 6, 1), "float32"), np.arange(3)))


@pytest.mark.parametrize(
    ("function", "message", "cause"),
    [
        ("fails", "failed for num_classes=3, input_shape=(6, 6, 1): ZeroDivisionError: ", "Zero"),
        ("nothing", "must return a keras.Model. Received: None of type NoneType.", ""),
        ("wrong_input", "failed for num_classes=3, input_shape=(6, 6, 1): ValueError: ", "Value"),
        ("wrong_output", "of shape (None, 3). Received: (None, 4).", ""),
        ("two", "one output, the logits, of shape (None, 3). Received: [(None, 3), (None, 3)]", ""),
        ("scores", "of shape (None, 3). Received: (None, 6, 6, 3).", ""),
        ("compiled", "must return an uncompiled model.", ""),
        ("missing", "has no function 'missing'. Received: ", ""),
        ("constant", "Functions in it: sequential, Sub, subclassed, compiled, fails", ""),
        ("a b", "must be named path/to/file.py:function. Received: ", ""),
    ],
)
def test_a_faulty_network_of_ones_own_is_refused(function, message, cause, own):
    with pytest.raises(ValueError, match=r".") as caught:
        models.build(f"{own}:{function}", 3, (6, 6, 1))
    assert message in str(caught.value)
    assert type(caught.value.__cause__).__name__.startswith(cause or "NoneType")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("lenett", 10, (32, 32, 1)), "Unknown model 'lenett'. Did you mean 'lenet'?"),
        (("ResNet20", 10, (32, 32, 1)), "Did you mean 'resnet20'?"),
        (("keras:resnet50", 10, (32, 32, 1)), "Did you mean 'keras:ResNet50'?"),
        (("MOBILENETV2", 10, (32, 32, 1)), "Did you mean 'keras:MobileNetV2'?"),
        (("keras:", 10, (32, 32, 1)), "Unknown model 'keras:'."),
        (("nothing.py:net", 10, (32, 32, 1)), "There is no file 'nothing.py'"),
        (("nothing.py", 10, (32, 32, 1)), "must be named path/to/file.py:function."),
        (("keras:VGG16", 10, (32, 32, 4)), "must have 1 or 3 channels. Received: (32, 32, 4)"),
        (("keras:VGG16", 10, (31, 32, 3)), "keras:VGG16 cannot be built for images of (31, 32, 3)"),
        (("lenet", 0, (32, 32, 1)), "`num_classes` must be an integer of 1 or more. Received: 0"),
        (("lenet", 10, (32, 32)), "`input_shape` must be (height, width, channels)"),
        (("lenet", 10, (32, 32, 1), "no.weights.h5"), "there is no file 'no.weights.h5'"),
        (("lenet", 10, (32, 32, 1), "net.ckpt"), "ending in .weights.h5 or .keras. Received"),
    ],
)
def test_a_bad_request_is_refused(arguments, message):
    with pytest.raises(ValueError, match=r".") as caught:
        models.build(*arguments)
    assert message in str(caught.value)
