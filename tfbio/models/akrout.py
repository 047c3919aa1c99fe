"""The sigmoid networks of Akrout et al. 2019: one hidden layer, fully connected."""

import math

import keras


def akrout_mnist(num_classes: int, input_shape: tuple[int, int, int]) -> keras.Model:
    """Return a hidden layer of 500 sigmoid units, and the logits.

    Kernels and biases start as N(0, 1/(inputs + outputs)) of their layer, as in the authors' code.
    The outputs are sigmoid units there, whose logits are here: train them by the loss
    ``binary_cross_entropy_sum``.

    Args:
        num_classes: The number of outputs (logits).
        input_shape: (height, width, channels).

    Returns:
        An uncompiled `keras.Model` from images to logits.

    Example:
        >>> akrout_mnist(10, (28, 28, 1)).count_params()
        397510

    References:
        Akrout et al. 2019, "Deep learning without weight transport", and the authors' code.
    """
    return _network(500, num_classes, input_shape, "akrout_mnist")


def akrout_cifar(num_classes: int, input_shape: tuple[int, int, int]) -> keras.Model:
    """Return a hidden layer of 1000 sigmoid units, and the logits; see `akrout_mnist`.

    Example:
        >>> akrout_cifar(10, (32, 32, 3)).count_params()
        3083010
    """
    return _network(1000, num_classes, input_shape, "akrout_cifar")


def _network(units, num_classes, input_shape, name):
    pixels = math.prod(input_shape)
    return keras.Sequential(
        [
            keras.Input(input_shape),
            keras.layers.Flatten(name="flatten"),
            _dense(pixels, units, activation="sigmoid", name="hidden"),
            _dense(units, num_classes, name="logits"),
        ],
        name=name,
    )


def _dense(inputs, units, **options):
    """Return a dense layer whose kernel and biases start as N(0, 1/(inputs + units))."""
    std = (inputs + units) ** -0.5
    return keras.layers.Dense(
        units,
        kernel_initializer=keras.initializers.RandomNormal(stddev=std),
        bias_initializer=keras.initializers.RandomNormal(stddev=std),
        **options,
    )
