"""The networks of the papers: as many parameters as theirs, and the same map before the classifier.

A row's numbers come from the authors' code or the paper, which it names, and not from ours.
"""

from typing import NamedTuple

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfbio
from tests.cases import long_but, random
from tfbio import models
from tfbio.layers.sites import find_sites


def conv(channels, filters, size, bias=True):
    return size * size * channels * filters + bias * filters


def dense(inputs, units, bias=True):
    return inputs * units + bias * units


def norm(channels):
    return 2 * channels


def basic_blocks(channels, filters, count, projected):
    """Return the parameters of a stage: two convolutions of 3×3 a block, each with batch norm."""
    total = 0
    for _ in range(count):
        total += conv(channels, filters, 3, bias=False) + norm(filters)
        total += conv(filters, filters, 3, bias=False) + norm(filters)
        if projected and channels != filters:
            total += conv(channels, filters, 1, bias=False) + norm(filters)
        channels = filters
    return total


def residual(blocks):
    """Return the parameters of a residual network for CIFAR-10, without projections."""
    stem = conv(3, 16, 3, bias=False) + norm(16)
    stages = [basic_blocks(*widths, blocks, False) for widths in ((16, 16), (16, 32), (32, 64))]
    return stem + sum(stages) + dense(64, 10)


class Network(NamedTuple):
    """A network of a paper.

    Attributes:
        name: What `models.build` takes.
        classes: The number of outputs.
        images: Their shape.
        parameters: How many of them learn.
        before: The layer whose output is what the classifier averages, flattens or multiplies.
        shape: That output's shape without the batch.
        source: Where parameters and shape were read.
    """

    name: str
    classes: int
    images: tuple
    parameters: int
    before: str
    shape: tuple
    source: str


NETWORKS = [
    # Sanfiz & Akrout 2021: jsalbert/biotorch at 74fad0d.
    Network(
        *("lenet", 10, (32, 32, 1)),
        conv(1, 6, 5) + conv(6, 16, 5) + conv(16, 120, 5) + dense(120, 84) + dense(84, 10),
        *("conv3", (1, 1, 120), "biotorch/models/le_net.py:9-19"),
    ),
    Network(
        *("lenet_cifar", 10, (32, 32, 3)),
        conv(3, 32, 3) + conv(32, 64, 3) + conv(64, 128, 3) + dense(128, 256) + dense(256, 10),
        *("conv3", (4, 4, 128), "biotorch/models/le_net.py:44-54"),
    ),
    Network(
        *("resnet20", 10, (32, 32, 3), residual(3), "stage3_block3_relu", (8, 8, 64)),
        "biotorch/models/small_resnet.py:85-91,116",
    ),
    Network(
        *("resnet56", 10, (32, 32, 3), residual(9), "stage3_block9_relu", (8, 8, 64)),
        "biotorch/models/small_resnet.py:85-91,128",
    ),
    Network(
        *("resnet18", 1000, (224, 224, 3)),
        conv(3, 64, 7, bias=False)
        + norm(64)
        + sum(basic_blocks(*widths, 2, True) for widths in ((64, 64), (64, 128)))
        + sum(basic_blocks(*widths, 2, True) for widths in ((128, 256), (256, 512)))
        + dense(512, 1000),
        *("stage4_block2_relu", (7, 7, 512)),
        "biotorch/models/usf/resnet.py:22, torchvision's resnet18",
    ),
]


@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.name)
def test_a_papers_network_has_its_parameters_and_its_last_map(network):
    model = models.build(network.name, network.classes, network.images)
    assert sum(int(np.prod(w.shape)) for w in model.trainable_weights) == network.parameters
    assert model.get_layer(network.before).output.shape[1:] == network.shape


def measure_first_gradient(model, batch_size):
    """Return the norm of the first kernel's gradient on random images, in training mode."""
    x = tf.cast(random((batch_size, *model.input_shape[1:])), "float32")
    y = np.arange(batch_size) % model.output_shape[-1]
    kernel = next(layer for layer in model.layers if hasattr(layer, "kernel")).kernel.value
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(kernel)
        value = loss(y, model(x, training=True))
    return float(tf.norm(tf.cast(tape.gradient(value, kernel), "float64")))


# Sanfiz & Akrout 2021 draw kernels from Xavier's uniform distribution and scale signs by its
# standard deviation (biotorch/layers/fa_constructor/conv.py:89-92): the error keeps its size. With
# the kernels of He et al. it would shrink at every layer, to 0.13 of backprop's in ResNet-20.
SIDES = {"lenet_cifar": 32, "resnet20": 32, "lenet": 32, "resnet56": 32, "resnet18": 64}


@pytest.mark.parametrize("name", long_but(["lenet_cifar", "resnet20"], SIDES))
def test_biotorchs_sign_feedback_keeps_the_size_of_the_error(name):
    def measure():
        backprop = measure_first_gradient(tfbio.convert(model, "backprop"), batch_size=16)
        tfbio.convert(model, "sign_symmetry(scale='xavier')")
        return measure_first_gradient(model, batch_size=16) / backprop

    keras.utils.set_random_seed(0)
    model = models.build(name, 10, (SIDES[name], SIDES[name], 1 if name == "lenet" else 3))
    if name.startswith("resnet"):
        assert measure() < 0.3
    models.initialize(model, "xavier_uniform")
    ratio = measure()
    for site in find_sites(model).values():
        kernel = site.kernel.numpy()
        *window, inputs, outputs = kernel.shape
        fans = np.prod(window, dtype=int) * (inputs + outputs)
        assert np.abs(kernel).max() <= np.sqrt(6 / fans) * (1 + 1e-6)
        scale = np.sqrt(2 / fans)
        np.testing.assert_allclose(site.feedback.numpy(), scale * np.sign(kernel), rtol=1e-6)
    assert 0.85 < ratio < 1.15
