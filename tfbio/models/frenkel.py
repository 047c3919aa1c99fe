"""The convolutional network that Frenkel et al. 2021 trained on MNIST."""

import keras

from tfbio.models.parts import pytorch_uniform


def frenkel_mnist(num_classes: int, input_shape: tuple[int, int, int]) -> keras.Model:
    """Return a convolution of 32 5×5 filters, max pooling, a dense layer of 1000, and the logits.

    CONV_32_5_1_2-FC_1000 with tanh, the default of the authors' code, whose outputs are sigmoid
    units; their logits are here: train them by the loss ``binary_cross_entropy`` or
    ``squared_error``. The convolution is padded by 2, so that 28×28 images keep their size, and
    pooling by 2 leaves 14×14×32. Kernels and biases start as PyTorch's, U(−1/√n, 1/√n) with
    n = fan_in.

    Args:
        num_classes: The number of outputs (logits).
        input_shape: (height, width, channels), 2 or more a side.

    Returns:
        An uncompiled `keras.Model` from images to logits.

    Raises:
        ValueError: If a side is under 2.

    Example:
        >>> frenkel_mnist(10, (28, 28, 1)).count_params()
        6283842

    References:
        Frenkel, Lefebvre and Bol 2021, "Learning without feedback: fixed random learning signals
        allow for feedforward training of deep neural networks", and the authors' code.
    """
    if min(input_shape[:2]) < 2:
        raise ValueError(
            "`input_shape` of frenkel_mnist must have 2 or more pixels a side. "
            f"Received: {input_shape}."
        )
    height, width, channels = input_shape
    conv, flat = 25 * channels, (height // 2) * (width // 2) * 32
    return keras.Sequential(
        [
            keras.Input(input_shape),
            keras.layers.Conv2D(
                32, 5, padding="same", activation="tanh", name="conv", **_uniform(conv)
            ),
            keras.layers.MaxPooling2D(name="pool"),
            keras.layers.Flatten(name="flatten"),
            keras.layers.Dense(1000, activation="tanh", name="hidden", **_uniform(flat)),
            keras.layers.Dense(num_classes, name="logits", **_uniform(1000)),
        ],
        name="frenkel_mnist",
    )


def _uniform(fan_in):
    limit = fan_in**-0.5
    return {
        "kernel_initializer": pytorch_uniform(),
        "bias_initializer": keras.initializers.RandomUniform(-limit, limit),
    }
