"""The networks of Bartunov et al. 2018: fully connected, locally connected and convolutional.

All hidden units are tanh, kernels start as Glorot uniform and biases at zero. Maps get smaller by
strides: there is no pooling. Convolutions have the shapes of the locally connected layers.
"""

import keras

from tfbio.layers import LocallyConnected2D


def bartunov_fc_mnist(num_classes: int, input_shape: tuple[int, int, int]) -> keras.Model:
    """Return five hidden layers of 256 tanh units, and the logits.

    Args:
        num_classes: The number of outputs (logits).
        input_shape: (height, width, channels).

    Returns:
        An uncompiled `keras.Model` from images to logits.

    Example:
        >>> bartunov_fc_mnist(10, (28, 28, 1)).count_params()
        466698

    References:
        Bartunov et al. 2018, "Assessing the scalability of biologically-motivated deep learning
        algorithms and architectures".
    """
    return _network("bartunov_fc_mnist", num_classes, input_shape, None, (), 5 * (256,))


def bartunov_fc_cifar(num_classes: int, input_shape: tuple[int, int, int]) -> keras.Model:
    """Return three hidden layers of 1024 tanh units, and the logits; see `bartunov_fc_mnist`.

    Example:
        >>> bartunov_fc_cifar(10, (32, 32, 3)).count_params()
        5256202
    """
    return _network("bartunov_fc_cifar", num_classes, input_shape, None, (), 3 * (1024,))


def bartunov_lc_mnist(num_classes: int, input_shape: tuple[int, int, int]) -> keras.Model:
    """Return two locally connected layers, a dense one of 1024 units, and the logits.

    3×3 windows, 32 filters, stride 2; 3×3, 64, stride 2. See `bartunov_fc_mnist`.

    Example:
        >>> bartunov_lc_mnist(10, (28, 28, 1)).count_params()
        4191562
    """
    return _mnist("bartunov_lc_mnist", num_classes, input_shape, LocallyConnected2D)


def bartunov_conv_mnist(num_classes: int, input_shape: tuple[int, int, int]) -> keras.Model:
    """Return the same with convolutions; see `bartunov_lc_mnist`.

    Example:
        >>> bartunov_conv_mnist(10, (28, 28, 1)).count_params()
        3241354
    """
    return _mnist("bartunov_conv_mnist", num_classes, input_shape, keras.layers.Conv2D)


def bartunov_lc_cifar(num_classes: int, input_shape: tuple[int, int, int]) -> keras.Model:
    """Return three locally connected layers, a dense one of 1024 units, and the logits.

    5×5 windows, 64 filters, stride 2; 5×5, 128, stride 2; 3×3, 256. See `bartunov_fc_mnist`.

    Example:
        >>> bartunov_lc_cifar(10, (32, 32, 3)).name
        'bartunov_lc_cifar'
    """
    return _cifar("bartunov_lc_cifar", num_classes, input_shape, LocallyConnected2D)


def bartunov_conv_cifar(num_classes: int, input_shape: tuple[int, int, int]) -> keras.Model:
    """Return the same with convolutions; see `bartunov_lc_cifar`.

    Example:
        >>> bartunov_conv_cifar(10, (32, 32, 3)).name
        'bartunov_conv_cifar'
    """
    return _cifar("bartunov_conv_cifar", num_classes, input_shape, keras.layers.Conv2D)


def bartunov_lc_imagenet(num_classes: int, input_shape: tuple[int, int, int]) -> keras.Model:
    """Return seven locally connected layers, and the logits.

    9×9 windows, 48 filters, stride 4; 3×3, 48, 2; 5×5, 96, 1; 3×3, 96, 2; 3×3, 192, 1; 3×3, 192,
    2; 3×3, 384, 1. See `bartunov_fc_mnist`.

    Example:
        >>> bartunov_lc_imagenet(10, (32, 32, 3)).name
        'bartunov_lc_imagenet'
    """
    return _imagenet("bartunov_lc_imagenet", num_classes, input_shape, LocallyConnected2D)


def bartunov_conv_imagenet(num_classes: int, input_shape: tuple[int, int, int]) -> keras.Model:
    """Return the same with convolutions; see `bartunov_lc_imagenet`.

    Example:
        >>> bartunov_conv_imagenet(1000, (224, 224, 3)).name
        'bartunov_conv_imagenet'
    """
    return _imagenet("bartunov_conv_imagenet", num_classes, input_shape, keras.layers.Conv2D)


_IMAGENET = (
    *((9, 48, 4), (3, 48, 2), (5, 96, 1), (3, 96, 2)),
    *((3, 192, 1), (3, 192, 2), (3, 384, 1)),
)


def _mnist(name, num_classes, input_shape, kind):
    return _network(name, num_classes, input_shape, kind, ((3, 32, 2), (3, 64, 2)), (1024,))


def _cifar(name, num_classes, input_shape, kind):
    maps = ((5, 64, 2), (5, 128, 2), (3, 256, 1))
    return _network(name, num_classes, input_shape, kind, maps, (1024,))


def _imagenet(name, num_classes, input_shape, kind):
    return _network(name, num_classes, input_shape, kind, _IMAGENET, ())


def _network(name, num_classes, input_shape, kind, maps, units):
    layers = [keras.Input(input_shape)]
    for index, (size, filters, stride) in enumerate(maps, start=1):
        layers.append(
            kind(
                filters, size, stride, padding="same", activation="tanh", name=f"hidden{index}"
            )
        )  # fmt: skip
    layers.append(keras.layers.Flatten(name="flatten"))
    for index, width in enumerate(units, start=len(maps) + 1):
        layers.append(keras.layers.Dense(width, activation="tanh", name=f"hidden{index}"))
    layers.append(keras.layers.Dense(num_classes, name="logits"))
    return keras.Sequential(layers, name=name)
