"""The networks of the papers on target propagation, beside what the authors' public code says."""

import functools
import math
import pathlib
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfbio
from tests.cases import random
from tfbio import models, rules
from tfbio.metrics.gradients import GradientCollector
from tfbio.networks.target_propagation import step
from tfbio.rules import draws

CONFIGS = pathlib.Path(__file__).parents[2] / "configs"


@pytest.mark.parametrize(
    ("name", "size", "last_map", "parameters"),
    [
        # ernoult/scalingDTP 19b0880, target_prop/networks/lenet.py:45,54: in_features=4096.
        ("ernoult_lenet", (32, 32, 3), (8, 8, 64), 2_156_490),
        # The same on 28×28 images of one channel, which their in_features does not fit.
        ("ernoult_lenet", (28, 28, 1), (7, 7, 64), 1_663_370),
        # The same, simple_vgg.py:27,48,56: five halvings of 32 pixels, and a lazy linear layer.
        ("ernoult_vgg", (32, 32, 3), (1, 1, 512), 2_221_706),
    ],
)
def test_ernoults_networks_are_the_published_ones(name, size, last_map, parameters):
    model = models.build(name, 10, size)
    assert model.count_params() == parameters
    assert model.get_layer("flatten").input.shape == (None, *last_map)
    for layer in model.layers:
        if hasattr(layer, "kernel"):
            # torch.nn.Linear and Conv2d: kernel and bias from U(−1/√fan_in, 1/√fan_in).
            limit = np.prod(layer.kernel.shape[:-1]) ** -0.5
            assert 0.9 * limit < abs(layer.kernel.numpy()).max() <= limit
            assert 0.4 * limit < abs(layer.bias.numpy()).max() <= limit
            std = layer.kernel.numpy().std()
            assert std == pytest.approx(limit / np.sqrt(3), rel=0.1)


def test_ernoults_lenet_computes_what_theirs_does():
    model = models.build("ernoult_lenet", 10, (32, 32, 3))
    w = [*map(tf.constant, model.get_weights())]
    x = random((2, 32, 32, 3), "float32")

    def pool(x):
        sides = [[0, 0], [1, 1], [1, 1], [0, 0]]
        return tf.nn.max_pool2d(tf.pad(x, sides, constant_values=-1e9), 3, 2, "VALID")

    y = pool(tf.nn.elu(tf.nn.conv2d(x, w[0], 1, "SAME") + w[1]))
    y = pool(tf.nn.elu(tf.nn.conv2d(y, w[2], 1, "SAME") + w[3]))
    y = tf.nn.elu(tf.reshape(y, (2, 4096)) @ w[4] + w[5]) @ w[6] + w[7]
    np.testing.assert_allclose(model(x), y, atol=1e-5)


LEE = [240] * 7
"""donghyunlee/dtp 9daa5b2, conti_dtp.py:18: units of the hidden layers."""
MNIST = [(3, 32, 2), (3, 64, 2), 1024]
"""Bartunov et al. 2018, the networks: (window, filters, stride) of maps, and dense units."""
CIFAR = [(5, 64, 2), (5, 128, 2), (3, 256, 1), 1024]
IMAGENET = [
    *((9, 48, 4), (3, 48, 2), (5, 96, 1), (3, 96, 2)),
    *((3, 192, 1), (3, 192, 2), (3, 384, 1)),
]


@pytest.mark.parametrize(
    ("name", "size", "layers", "before_logits"),
    [
        ("lee_mnist", (28, 28, 1), LEE, 240),
        ("bartunov_fc_mnist", (28, 28, 1), [256] * 5, 256),
        ("bartunov_fc_cifar", (32, 32, 3), [1024] * 3, 1024),
        ("bartunov_lc_mnist", (28, 28, 1), MNIST, 1024),
        ("bartunov_conv_mnist", (28, 28, 1), MNIST, 1024),
        ("bartunov_lc_cifar", (32, 32, 3), CIFAR, 1024),
        ("bartunov_conv_cifar", (32, 32, 3), CIFAR, 1024),
        # 64 pixels, as the locally connected network has 260 million weights at 224.
        ("bartunov_lc_imagenet", (64, 64, 3), IMAGENET, 2 * 2 * 384),
        ("bartunov_conv_imagenet", (64, 64, 3), IMAGENET, 2 * 2 * 384),
    ],
)
def test_networks_of_layers_in_a_row_are_the_published_ones(name, size, layers, before_logits):
    side, channels, parameters = size[0], size[-1], 0
    for layer in layers:
        if isinstance(layer, tuple):
            window, filters, stride = layer
            side = math.ceil(side / stride)  # zeros pad the map
            places = side**2 if "_lc_" in name else 1  # each with weights of its own, or all alike
            parameters += places * (window**2 * channels * filters + filters)
            channels = filters
        else:
            parameters += (side**2 * channels + 1) * layer
            side, channels = 1, layer
    assert side**2 * channels == before_logits
    model = models.build(name, 10, size)
    assert model.get_layer("logits").input.shape == (None, before_logits)
    assert model.count_params() == parameters + (before_logits + 1) * 10
    nonlinearities = {
        layer.activation.__name__ for layer in model.layers if hasattr(layer, "kernel")
    }
    assert nonlinearities == {"tanh", "linear"}


@pytest.fixture
def double():
    """Let what is built compute in float64."""
    policy, floatx = keras.config.dtype_policy(), keras.config.floatx()
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_floatx(floatx)
    keras.config.set_dtype_policy(policy)


def read_rule(config):
    """Return the rule of a config."""
    (line,) = re.findall("^--rule=(.*)$", (CONFIGS / config).read_text(), re.MULTILINE)
    return rules.get(line)


def learned(model, x, y):
    """Return the gradients that a step applies, by the variable's path."""
    model.compile(
        "sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True, dtype="float64")
    )
    collector = GradientCollector(model)
    with collector.in_place():
        return {variable.path: gradient for gradient, variable in collector.gradients(x, y)}


def norm(gradient):
    return float(tf.norm(tf.reshape(gradient, [-1])))


def test_lees_targets_teach_the_first_layer_what_theirs_do(double):
    keras.utils.set_random_seed(0)
    rule = read_rule("lee2015/mnist_dtp.cfg")
    rule.schedule = "parallel"  # for both turns' gradients in one step
    model = tfbio.convert(models.build("lee_mnist", 10, (28, 28, 1)), rule)
    n = 100
    x = tf.abs(random((n, 28, 28, 1), "float64"))
    y = tf.constant(np.arange(n) % 10)
    layers = model.layers[1:]
    gradients = learned(model, x, y)
    w = [tf.constant(layer.kernel.numpy()) for layer in layers]
    v = [tf.constant(layer.rule.inverse_kernel.numpy()) for layer in layers[1:-1]]
    # donghyunlee/dtp 9daa5b2, conti_dtp.py:60-74,93-100, whose biases are 0 at first.
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(w)
        h = [tf.reshape(x, (n, 784))]
        for kernel in w[:-1]:
            h.append(tf.tanh(h[-1] @ kernel))
        logits = h[-1] @ w[-1]
        cost = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(y, logits))
        target = h[7] - 0.327736332653 * tape.gradient(cost, h[7])
        for index in range(6, 0, -1):
            missed = tf.tanh(h[index + 1] @ tf.transpose(v[index - 1]))
            target = h[index] - missed + tf.tanh(target @ tf.transpose(v[index - 1]))
        alone = tf.tanh(h[0] @ w[0])
        local = tf.reduce_mean(tf.reduce_sum((alone - tf.stop_gradient(target)) ** 2, 1))
    theirs, backprop = tape.gradient(local, w[0]), tape.gradient(cost, w[0])
    ours = gradients[layers[0].kernel.path]
    np.testing.assert_allclose(ours, theirs, rtol=1e-8, atol=1e-12)
    # A squared error's gradient is twice, and the target moves by 0.0033 of an example's gradient.
    assert norm(ours) / norm(backprop) == pytest.approx(0.00852, rel=1e-2)


def their_pool(x):
    """Return torch.nn.MaxPool2d(3, 2, padding=1) of an array, and each maximum's place."""
    rows, columns = x.shape[1:3]
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-np.inf)
    windows = np.stack([
        padded[:, i : i + rows : 2, j : j + columns : 2] for i in range(3) for j in range(3)
    ])  # fmt: skip
    which = windows.argmax(0)
    i, j = (2 * grid[None, :, :, None] for grid in np.mgrid[: which.shape[1], : which.shape[2]])
    return windows.max(0), (i + which // 3 - 1, j + which % 3 - 1)


def unpool(y, places, shape, keeps_last):
    """Return what torch.nn.MaxUnpool2d does, which keeps the last of the values for one place.

    Args:
        y: Values.
        places: Where they go, rows and columns.
        shape: The result's.
        keeps_last: False for the mean of the values instead, as this library has it.
    """
    x, count = np.zeros(shape), np.zeros(shape)
    examples, _, _, channels = np.indices(y.shape)
    index = (examples, *places, channels)
    if keeps_last:
        x[index] = y
        return x
    np.add.at(x, index, y)
    np.add.at(count, index, 1.0)
    return x / np.maximum(count, 1.0)


def draw(index, number, like):
    return draws.normal(tf.shape(like), (index + 1, number), like.dtype == tf.float64)


@pytest.mark.parametrize("keeps_last", [False, True])
def test_ernoults_targets_teach_the_first_layer_what_theirs_do(keeps_last, double, monkeypatch):
    monkeypatch.setattr(
        step.Step, "draw_noise", lambda self, index, number, like: draw(index, number, like)
    )
    keras.utils.set_random_seed(0)
    rule = read_rule("ernoult2022/cifar10_lenet_l_drl.cfg")
    rule.iterations = (4, 5, 2)  # a tenth of theirs
    model = tfbio.convert(models.build("ernoult_lenet", 10, (16, 16, 3)), rule)
    n = 8
    x, y = random((n, 16, 16, 3), "float64"), tf.constant(np.arange(n) % 10)
    layers = [layer for layer in model.layers if hasattr(layer, "kernel")]
    w = [layer.kernel.numpy() for layer in layers]
    b = [layer.bias.numpy() for layer in layers]
    weights = [
        [layer.rule.inverse_kernel.numpy(), layer.rule.inverse_bias.numpy()] for layer in layers[1:]
    ]
    gradients = learned(model, x, y)

    # ernoult/scalingDTP 19b0880: networks/lenet.py, backward_layers.py, feedback_loss.py:38-73,
    # models/dtp.py:469-531.
    def convolve(h, index):
        return tf.nn.elu(tf.nn.conv2d(h, w[index], 1, "SAME") + b[index])

    def forward(index, h):
        """Return a block's output, and where its maxima were."""
        if index < 2:
            return their_pool(convolve(h, index).numpy())
        if index == 2:
            return tf.nn.elu(tf.reshape(h, (n, -1)) @ w[2] + b[2]).numpy(), None
        return (h @ w[3] + b[3]), None

    def backward(index, outputs, places, v, c):
        if index == 1:
            h = tf.nn.elu(unpool(outputs, places, (n, 8, 8, 64), keeps_last))
            return tf.nn.conv2d_transpose(h, v, (n, 8, 8, 32), 1, "SAME") + c
        h = tf.nn.elu(outputs) if index == 2 else tf.constant(outputs)
        back = h @ tf.transpose(v) + c
        return tf.reshape(back, (n, 4, 4, 64)) if index == 2 else back

    h, places = [x.numpy()], []
    for index in range(4):
        output, place = forward(index, h[-1])
        h.append(output)
        places.append(place)
    for index, pair in enumerate(weights, start=1):
        v, c = pair
        if index == 2:
            c = c.reshape(-1)
        momenta = [0.0, 0.0]
        noise, rate = rule.noise[index - 1], rule.rate[index - 1]
        for k in range(rule.iterations[index - 1]):
            dx = noise * draw(index, 2 * k, tf.constant(h[index])).numpy()
            dy = noise * draw(index, 2 * k + 1, tf.constant(h[index + 1])).numpy()
            moved, moved_places = forward(index, h[index] + dx)
            v, c = tf.constant(v), tf.constant(c)
            with tf.GradientTape() as tape:
                tape.watch([v, c])
                r = backward(index, h[index + 1], places[index], v, c)
                dr = backward(index, moved, moved_places, v, c) - r
                dr_y = backward(index, h[index + 1] + dy, places[index], v, c) - r
                loss = tf.reduce_sum(dr_y**2 - 2 * dx * dr) / n
            for part, gradient in enumerate(tape.gradient(loss, [v, c])):
                momenta[part] = 0.9 * momenta[part] + gradient.numpy()
            v, c = v.numpy() - rate * momenta[0], c.numpy() - rate * momenta[1]
        pair[:] = v, c
    error = tf.nn.softmax(h[4]).numpy() - np.eye(10)[y]
    target = h[4] - rule.beta * error
    for index in (3, 2, 1):
        back = functools.partial(backward, index, places=places[index])
        v, c = weights[index - 1]
        missed = back(h[index + 1], v=v, c=c)
        target = (h[index] + back(target, v=v, c=c) - missed).numpy()
    kernel = tf.constant(w[0])
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(kernel)
        rho = tf.nn.elu(tf.nn.conv2d(x, kernel, 1, "SAME") + b[0])
        pooled = tf.nn.max_pool2d(
            tf.pad(rho, [[0, 0], [1, 1], [1, 1], [0, 0]], constant_values=-1e9), 3, 2, "VALID"
        )
        local = 0.5 * tf.reduce_sum((pooled - target) ** 2) / n
        hidden = tf.nn.max_pool2d(
            tf.pad(
                tf.nn.elu(tf.nn.conv2d(pooled, w[1], 1, "SAME") + b[1]),
                [[0, 0], [1, 1], [1, 1], [0, 0]],
                constant_values=-1e9,
            ),
            3, 2, "VALID",
        )  # fmt: skip
        logits = tf.nn.elu(tf.reshape(hidden, (n, -1)) @ w[2] + b[2]) @ w[3] + b[3]
        cost = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(y, logits))
    theirs, backprop = tape.gradient(local, kernel), tape.gradient(cost, kernel)
    ours = gradients[layers[0].kernel.path]
    ratios = norm(ours) / norm(backprop), norm(theirs) / norm(backprop)
    if keeps_last:
        assert ratios == pytest.approx((3.463, 3.825), abs=1e-3)
    else:
        np.testing.assert_allclose(ours, theirs, rtol=1e-8, atol=1e-12)
