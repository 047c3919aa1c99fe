"""The networks of Bartunov et al. 2018: fully connected, locally connected and convolutional.

All hidden units are tanh, kernels start as Glorot uniform and biases at zero. Maps get smaller by
strides: there is no pooling. Convolutions have the shapes of the locally connected layers.
"""

import keras


def bartunov_fc_mnist(num_classes, input_shape):
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


def bartunov_fc_cifar(num_classes, input_shape):
    """Return three hidden layers of 1024 tanh units, and the logits; see `bartunov_fc_mnist`.

    Example:
        >>> bartunov_fc_cifar(10, (32, 32, 3)).count_params()
        5256202
    """
    return _network("bartunov_fc_cifar", num_classes, input_shape, None, (), 3 * (1024,))


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
