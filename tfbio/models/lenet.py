"""LeNet as Sanfiz and Akrout 2021 trained it on MNIST and Fashion-MNIST."""

import keras


def lenet(num_classes: int, input_shape: tuple[int, int, int]) -> keras.Model:
    """Return LeNet: convolutions 6-16-120 of 5×5, dense 84, with ReLU and max pooling.

    Kernels start as Keras's Glorot uniform ("Xavier"), biases at zero. The published experiments
    give it 32×32 images, which leave the last convolution one position.

    Args:
        num_classes: The number of outputs (logits).
        input_shape: (height, width, channels), 32 or more a side.

    Returns:
        An uncompiled `keras.Model` from images to logits.

    Raises:
        ValueError: If a side is under 32.

    Example:
        >>> lenet(10, (32, 32, 1)).count_params()
        61706

    References:
        LeCun et al. 1998; Sanfiz and Akrout 2021, "Benchmarking the accuracy and robustness of
        feedback alignment algorithms".
    """
    return _lenet(num_classes, input_shape, "relu", "lenet")


def lenet_tanh(num_classes: int, input_shape: tuple[int, int, int]) -> keras.Model:
    """Return `lenet` with tanh for ReLU: activations that are bounded, whatever a rule does.

    Under sign_dfa and direct_random_target_projection hidden layers never stop learning, since
    their signals do not vanish as the output gets right: ReLUs then grow without bound.

    Args:
        num_classes: The number of outputs (logits).
        input_shape: (height, width, channels), 32 or more a side.

    Returns:
        An uncompiled `keras.Model` from images to logits.

    Raises:
        ValueError: If a side is under 32.

    Example:
        >>> lenet_tanh(10, (32, 32, 1)).get_layer("conv1").activation.__name__
        'tanh'

    References:
        LeCun et al. 1998.
    """
    return _lenet(num_classes, input_shape, "tanh", "lenet_tanh")


def _lenet(num_classes, input_shape, activation, name):
    if min(input_shape[:2]) < 32:
        raise ValueError(
            f"`input_shape` of {name} must have 32 or more pixels a side. Received: {input_shape}."
        )
    return keras.Sequential(
        [
            keras.Input(input_shape),
            keras.layers.Conv2D(6, 5, activation=activation, name="conv1"),
            keras.layers.MaxPooling2D(name="pool1"),
            keras.layers.Conv2D(16, 5, activation=activation, name="conv2"),
            keras.layers.MaxPooling2D(name="pool2"),
            keras.layers.Conv2D(120, 5, activation=activation, name="conv3"),
            keras.layers.Flatten(name="flatten"),
            keras.layers.Dense(84, activation=activation, name="dense1"),
            keras.layers.Dense(num_classes, name="logits"),
        ],
        name=name,
    )
