"""The sigmoid networks of Akrout et al. 2019: one hidden layer, fully connected."""

import keras


def akrout_mnist(num_classes: int, input_shape: tuple[int, int, int]) -> keras.Model:
    """Return a hidden layer of 500 sigmoid units, and the logits.

    Kernels start as Keras's Glorot uniform, biases at zero; how the authors' began is not known to
    us, nor their loss: here the logits are linear, for a softmax.

    Args:
        num_classes: The number of outputs (logits).
        input_shape: (height, width, channels).

    Returns:
        An uncompiled `keras.Model` from images to logits.

    Example:
        >>> akrout_mnist(10, (28, 28, 1)).count_params()
        397510

    References:
        Akrout et al. 2019, "Deep learning without weight transport".
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
    return keras.Sequential(
        [
            keras.Input(input_shape),
            keras.layers.Flatten(name="flatten"),
            keras.layers.Dense(units, activation="sigmoid", name="hidden"),
            keras.layers.Dense(num_classes, name="logits"),
        ],
        name=name,
    )
