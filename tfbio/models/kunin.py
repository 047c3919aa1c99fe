"""The residual network of Kunin et al. 2020, as in their code."""

import keras

from tfbio.models.parts import conv_norm


def kunin_resnet18(num_classes: int, input_shape: tuple[int, int, int]) -> keras.Model:
    """Return ResNet-18 as Kunin et al. 2020 have it.

    It differs from `resnet18` in four places:

    - The shortcut of each stage's first block is a convolution, the first stage's too.
    - The maximum pads as TensorFlow's "same": for 224 pixels on the far sides only.
    - Kernels of convolutions start at N(0, 1/fan_in), cut off at two standard deviations and scaled
      back to that variance; those of the logits at N(0, 0.01²), their biases at 0.
    - The γ of each block's last batch norm starts at 0: the block begins as its shortcut.

    Args:
        num_classes: The number of outputs (logits).
        input_shape: (height, width, channels).

    Returns:
        An uncompiled `keras.Model` from images to logits.

    Example:
        >>> kunin_resnet18(1000, (224, 224, 3)).get_layer("pool").output.shape
        (None, 56, 56, 64)

    References:
        Kunin et al. 2020, "Two routes to scalable credit assignment without weight symmetry";
        `Models/resnet_model_v1.py` of https://github.com/neuroailab/Neural-Alignment.
    """
    images = keras.Input(input_shape, name="images")
    x = _convolve(images, 64, 7, 2, "stem")
    x = keras.layers.ReLU(name="stem_relu")(x)
    x = keras.layers.MaxPooling2D(3, 2, "same", name="pool")(x)
    for stage in range(1, 5):
        for index in (1, 2):
            strides = 2 if stage > 1 and index == 1 else 1
            x = _block(x, 32 * 2**stage, strides, index == 1, f"stage{stage}_block{index}")
    x = keras.layers.GlobalAveragePooling2D(name="average")(x)
    normal = keras.initializers.RandomNormal(0.0, 0.01)
    x = keras.layers.Dense(num_classes, kernel_initializer=normal, name="logits")(x)
    return keras.Model(images, x, name="kunin_resnet18")


def _block(x, filters, strides, projects, name):
    y = _convolve(x, filters, 3, strides, f"{name}_1")
    y = keras.layers.ReLU(name=f"{name}_1_relu")(y)
    y = _convolve(y, filters, 3, 1, f"{name}_2", gamma="zeros")
    if projects:
        x = _convolve(x, filters, 1, strides, f"{name}_shortcut")
    x = keras.layers.Add(name=f"{name}_add")([x, y])
    return keras.layers.ReLU(name=f"{name}_relu")(x)


def _convolve(x, filters, size, strides, name, gamma="ones"):
    initializer = keras.initializers.VarianceScaling(1.0, "fan_in", "truncated_normal")
    return conv_norm(x, filters, size, strides, size // 2, initializer, name, gamma=gamma)
