"""The networks of Ernoult et al. 2022, as their public code has them."""

import itertools
import math

import keras

from tfbio.models.parts import pytorch_uniform
from tfbio.models.pooling import PaddedMaxPooling2D


def ernoult_lenet(num_classes: int, input_shape: tuple[int, int, int]) -> keras.Model:
    """Return two convolutions with ELU and max pooling, a dense layer of 512 ELU units, and logits.

    5×5 windows, 32 and 64 filters, each followed by a maximum over 3×3 with stride 2 and a margin
    of 1. Kernels and biases start as PyTorch's do, U(−1/√fan_in, 1/√fan_in). Their code fixes the
    dense layer's inputs at 4,096, those of 32×32 images; here their number is the map's.

    Args:
        num_classes: The number of outputs (logits).
        input_shape: (height, width, channels).

    Returns:
        An uncompiled `keras.Model` from images to logits.

    Example:
        >>> ernoult_lenet(10, (32, 32, 3)).count_params()
        2156490

    References:
        Ernoult et al. 2022, "Towards scaling difference target propagation by learning backprop
        targets".
    """
    layers = []
    channels = (input_shape[-1], 32, 64)
    for index, (below, filters) in enumerate(itertools.pairwise(channels), start=1):
        layers.append(_convolution(index, below, filters, 5))
        layers.append(PaddedMaxPooling2D(3, 2, margin=1, name=f"pool{index}"))
    rows, columns = (math.ceil(side / 4) for side in input_shape[:2])
    layers.append(keras.layers.Flatten(name="flatten"))
    layers.append(_dense(rows * columns * 64, 512, "hidden", activation="elu"))
    layers.append(_dense(512, num_classes, "logits"))
    return keras.Sequential([keras.Input(input_shape), *layers], name="ernoult_lenet")


def ernoult_vgg(num_classes: int, input_shape: tuple[int, int, int]) -> keras.Model:
    """Return five convolutions with ELU and max pooling, and the logits: their SimpleVGG.

    3×3 windows, 128, 128, 256, 256 and 512 filters, each followed by a maximum over 2×2. A side
    must have 32 pixels or more. See `ernoult_lenet`.

    Raises:
        ValueError: If a side is under 32.

    Example:
        >>> ernoult_vgg(10, (32, 32, 3)).count_params()
        2221706
    """
    if min(input_shape[:2]) < 32:
        raise ValueError(
            "`input_shape` of ernoult_vgg must have 32 or more pixels a side. "
            f"Received: {input_shape}."
        )
    layers = []
    channels = (input_shape[-1], 128, 128, 256, 256, 512)
    for index, (below, filters) in enumerate(itertools.pairwise(channels), start=1):
        layers.append(_convolution(index, below, filters, 3))
        layers.append(keras.layers.MaxPooling2D(2, 2, name=f"pool{index}"))
    rows, columns = (side // 32 for side in input_shape[:2])
    layers.append(keras.layers.Flatten(name="flatten"))
    layers.append(_dense(rows * columns * 512, num_classes, "logits"))
    return keras.Sequential([keras.Input(input_shape), *layers], name="ernoult_vgg")


def _convolution(index, below, filters, size):
    return keras.layers.Conv2D(
        filters, size, padding="same", activation="elu", name=f"conv{index}",
        **_pytorch(size**2 * below),
    )  # fmt: skip


def _dense(below, units, name, **options):
    return keras.layers.Dense(units, name=name, **options, **_pytorch(below))


def _pytorch(fan_in):
    """Return PyTorch's default initializers, under which biases depend on the kernel's fan_in."""
    limit = fan_in**-0.5
    return {
        "kernel_initializer": pytorch_uniform(),
        "bias_initializer": keras.initializers.RandomUniform(-limit, limit),
    }
