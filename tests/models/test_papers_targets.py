"""The networks of the papers on target propagation, beside what the authors' public code says."""

import numpy as np
import pytest
import tensorflow as tf

from tests.cases import random
from tfbio import models


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
