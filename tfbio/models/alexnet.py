"""AlexNet as Xiao et al. 2018 trained it on ImageNet: with batch norm, and without dropout."""

import keras

from tfbio.models.parts import batch_norm, conv_norm, logits, max_pool, pytorch_uniform

# Filters, kernel size, stride, padding, and whether a maximum follows.
_CONVOLUTIONS = (
    (64, 11, 4, 2, True),
    (192, 5, 1, 2, True),
    (384, 3, 1, 1, False),
    (256, 3, 1, 1, False),
    (256, 3, 1, 1, True),
)


def alexnet(num_classes: int, input_shape: tuple[int, int, int]) -> keras.Model:
    """Return AlexNet: convolutions 64-192-384-256-256, dense 4096-4096, of 61.1 million parameters.

    Its layout is that of "one weird trick". Batch norm (ε = 1e-5, a momentum of 0.9 in Keras's
    sense) comes before every ReLU, so that what comes before it has no bias; there is no dropout
    and no local response normalization. Images of 224×224 leave the last convolution's maximum
    6×6 positions.

    All weights start as PyTorch 1.1 and earlier, which the authors' code requires, draws them:
    kernels and the last layer's biases from U(−1/√n, 1/√n) with n = fan_in, batch norm's γ from
    U(0, 1), its β at 0. (The authors' ResNet sets γ to 1, their AlexNet does not. PyTorch 1.2 and
    later start γ at 1.)

    Args:
        num_classes: The number of outputs (logits).
        input_shape: (height, width, channels), 63 or more a side.

    Returns:
        An uncompiled `keras.Model` from images to logits.

    Raises:
        ValueError: If a side is under 63.

    Example:
        >>> alexnet(1000, (224, 224, 3)).get_layer("pool5").output.shape
        (None, 6, 6, 256)

    References:
        Krizhevsky 2014, "One weird trick for parallelizing convolutional neural networks"; Xiao,
        Chen, Liao and Poggio 2018, "Biologically-plausible learning algorithms can scale to large
        datasets".
    """
    if min(input_shape[:2]) < 63:
        raise ValueError(
            f"`input_shape` of alexnet must have 63 or more pixels a side. Received: {input_shape}."
        )
    x = images = keras.Input(input_shape, name="images")
    for index, (filters, size, strides, padding, pools) in enumerate(_CONVOLUTIONS, start=1):
        x = conv_norm(
            x, filters, size, strides, padding, pytorch_uniform(), f"block{index}", _gamma()
        )
        x = keras.layers.ReLU(name=f"block{index}_relu")(x)
        if pools:
            x = max_pool(x, f"pool{index}")
    x = keras.layers.Flatten(name="flatten")(x)
    for index in (1, 2):
        x = keras.layers.Dense(
            4096, use_bias=False, kernel_initializer=pytorch_uniform(), name=f"dense{index}"
        )(x)
        x = keras.layers.ReLU(name=f"dense{index}_relu")(batch_norm(x, f"dense{index}", _gamma()))
    return keras.Model(images, logits(x, num_classes), name="alexnet")


def _gamma():
    # An instance draws the same numbers at every call, so each layer has one of its own.
    return keras.initializers.RandomUniform(0.0, 1.0)
