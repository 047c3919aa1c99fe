"""Parts: what several networks are made of, as PyTorch's models have it."""

import keras

from tfbio.models.batch_normalization import BatchNormalization


def conv_norm(
    x: keras.KerasTensor,
    filters: int,
    size: int,
    strides: int,
    padding: int,
    initializer: keras.Initializer,
    name: str,
    gamma: keras.Initializer | str = "ones",
) -> keras.KerasTensor:
    """Return the normalized convolution of x, without a bias.

    It pads alike on all sides: Keras's "same" with a stride pads the far sides only, and shifts
    the map against a shortcut.

    Args:
        x: A Keras tensor (batch, height, width, channels).
        filters: The number of channels that come out.
        size: The kernel's height and width.
        strides: The steps between two positions.
        padding: Zeros on each side.
        initializer: The kernel's. Each layer draws from a copy: Keras's initializers give the same
            numbers at every call.
        name: What the names of the layers begin with.
        gamma: The initializer of batch norm's γ.

    Returns:
        A Keras tensor.

    Example:
        >>> images = keras.Input((224, 224, 3))
        >>> conv_norm(images, 64, 7, 2, 3, he_normal("fan_out"), "stem").shape
        (None, 112, 112, 64)
    """
    if padding:
        x = keras.layers.ZeroPadding2D(padding, name=f"{name}_pad")(x)
    x = keras.layers.Conv2D(
        filters,
        size,
        strides,
        use_bias=False,
        kernel_initializer=initializer.clone(),
        name=f"{name}_conv",
    )(x)
    return batch_norm(x, name, gamma)


def batch_norm(
    x: keras.KerasTensor, name: str, gamma: keras.Initializer | str = "ones"
) -> keras.KerasTensor:
    """Return batch norm of x with PyTorch's constants: ε = 1e-5, and a momentum of 0.9.

    Args:
        x: A Keras tensor.
        name: What the layer's name begins with.
        gamma: The initializer of γ; β starts at 0.

    Returns:
        A Keras tensor of the same shape.

    Example:
        >>> batch_norm(keras.Input((8,)), "dense1").shape
        (None, 8)
    """
    return BatchNormalization(
        momentum=0.9, epsilon=1e-5, gamma_initializer=gamma, name=f"{name}_norm"
    )(x)


def max_pool(x: keras.KerasTensor, name: str, padding: int = 0) -> keras.KerasTensor:
    """Return the maximum over 3×3 pixels, with stride 2, of a map without negative values.

    Args:
        x: A Keras tensor that comes from a ReLU, so that zeros around it are never the maximum
            where there is another.
        name: The layer's name.
        padding: Zeros on each side.

    Returns:
        A Keras tensor.

    Example:
        >>> max_pool(keras.Input((112, 112, 64)), "pool", padding=1).shape
        (None, 56, 56, 64)
    """
    if padding:
        x = keras.layers.ZeroPadding2D(padding, name=f"{name}_pad")(x)
    return keras.layers.MaxPooling2D(3, 2, name=name)(x)


def logits(x: keras.KerasTensor, num_classes: int) -> keras.KerasTensor:
    """Return logits, the dense layer as PyTorch initializes it: all from U(−1/√n, 1/√n).

    Args:
        x: A Keras tensor (batch, n).
        num_classes: The number of logits.

    Returns:
        A Keras tensor.

    Example:
        >>> logits(keras.Input((512,)), 1000).shape
        (None, 1000)
    """
    limit = x.shape[-1] ** -0.5
    return keras.layers.Dense(
        num_classes,
        kernel_initializer=pytorch_uniform(),
        bias_initializer=keras.initializers.RandomUniform(-limit, limit),
        name="logits",
    )(x)


def he_normal(fan: str) -> keras.Initializer:
    """Return the initializer N(0, 2/fan).

    Args:
        fan: "fan_in", k·Cin with k kernel positions, or "fan_out", k·Cout.

    Returns:
        An initializer. Keras's own HeNormal is cut off at two standard deviations.

    Example:
        >>> round(float(he_normal("fan_out")((3, 3, 8, 512)).numpy().std()), 2)
        0.02

    References:
        He et al. 2015, "Delving deep into rectifiers".
    """
    return keras.initializers.VarianceScaling(2.0, fan, "untruncated_normal")


def pytorch_uniform() -> keras.Initializer:
    """Return PyTorch's default for kernels, U(−1/√fan_in, 1/√fan_in).

    Example:
        >>> round(float(abs(pytorch_uniform()((100, 1000))).numpy().max()), 3)
        0.1
    """
    return keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform")
