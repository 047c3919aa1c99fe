"""The LeNet that Sanfiz and Akrout 2021 trained on CIFAR-10."""

import keras


def lenet_cifar(num_classes: int, input_shape: tuple[int, int, int]) -> keras.Model:
    """Return convolutions 32-64-128 of 3×3, a global average, dense 256, with ReLU.

    Nothing is padded, and max pooling halves the map after the first two convolutions: of images of
    32×32 the last convolution makes a map of 4×4×128. Kernels start as Keras's Glorot uniform
    ("Xavier"), biases at zero. All of this is as in the authors' code, BioTorch.

    Args:
        num_classes: The number of outputs (logits).
        input_shape: (height, width, channels), 18 or more a side.

    Returns:
        An uncompiled `keras.Model` from images to logits.

    Raises:
        ValueError: If a side is under 18.

    Example:
        >>> lenet_cifar(10, (32, 32, 3)).count_params()
        128842

    References:
        Sanfiz and Akrout 2021, "Benchmarking the accuracy and robustness of feedback alignment
        algorithms"; https://github.com/jsalbert/biotorch, `biotorch/models/le_net.py`.
    """
    if min(input_shape[:2]) < 18:
        raise ValueError(
            "`input_shape` of lenet_cifar must have 18 or more pixels a side. "
            f"Received: {input_shape}."
        )
    return keras.Sequential(
        [
            keras.Input(input_shape),
            keras.layers.Conv2D(32, 3, activation="relu", name="conv1"),
            keras.layers.MaxPooling2D(name="pool1"),
            keras.layers.Conv2D(64, 3, activation="relu", name="conv2"),
            keras.layers.MaxPooling2D(name="pool2"),
            keras.layers.Conv2D(128, 3, activation="relu", name="conv3"),
            keras.layers.GlobalAveragePooling2D(name="average"),
            keras.layers.Dense(256, activation="relu", name="dense1"),
            keras.layers.Dense(num_classes, name="logits"),
        ],
        name="lenet_cifar",
    )
