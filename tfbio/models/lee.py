"""The network of Lee et al. 2015, as their public code has it."""

import keras


def lee_mnist(num_classes: int, input_shape: tuple[int, int, int]) -> keras.Model:
    """Return seven hidden layers of 240 tanh units, and the logits.

    Kernels start orthogonal, biases at zero. Theirs are the orthogonal factors of uniform
    matrices, these of normal ones.

    Args:
        num_classes: The number of outputs (logits).
        input_shape: (height, width, channels).

    Returns:
        An uncompiled `keras.Model` from images to logits.

    Example:
        >>> lee_mnist(10, (28, 28, 1)).count_params()
        537850

    References:
        Lee et al. 2015, "Difference target propagation".
    """
    layers = [keras.Input(input_shape), keras.layers.Flatten(name="flatten")]
    for index in range(1, 8):
        layers.append(_dense(240, f"hidden{index}", activation="tanh"))
    layers.append(_dense(num_classes, "logits"))
    return keras.Sequential(layers, name="lee_mnist")


def _dense(units, name, **options):
    return keras.layers.Dense(units, kernel_initializer="orthogonal", name=name, **options)
