"""The residual networks that He et al. 2015 trained on ImageNet, as torchvision defines them."""

from collections.abc import Sequence

import keras

from tfbio.models.parts import conv_norm, he_normal, logits, max_pool

_BLOCKS = {10: (1, 1, 1, 1), 18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}
_BLOCKS |= {101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


def resnet18(num_classes: int, input_shape: tuple[int, int, int]) -> keras.Model:
    """Return ResNet-18, of 11.7 million parameters at 1000 classes; see `resnet`.

    Example:
        >>> resnet18(10, (32, 32, 3)).name
        'resnet18'
    """
    return resnet(18, num_classes, input_shape)


def resnet18_zero_gamma(num_classes: int, input_shape: tuple[int, int, int]) -> keras.Model:
    """Return ResNet-18 whose blocks begin as the identity; see `resnet`.

    The γ of each block's last batch norm starts at 0 instead of 1.

    Example:
        >>> model = resnet18_zero_gamma(10, (32, 32, 3))
        >>> float(model.get_layer("stage1_block1_2_norm").gamma[0])
        0.0

    References:
        Goyal et al. 2017, "Accurate, large minibatch SGD"; Kunin et al. 2020, "Two routes to
        scalable credit assignment without weight symmetry".
    """
    model = resnet18(num_classes, input_shape)
    for layer in model.layers:
        if layer.name.endswith("_2_norm"):
            layer.gamma.assign(keras.ops.zeros_like(layer.gamma))
    return model


def resnet34(num_classes: int, input_shape: tuple[int, int, int]) -> keras.Model:
    """Return ResNet-34, of 21.8 million parameters at 1000 classes; see `resnet`.

    Example:
        >>> resnet34(10, (32, 32, 3)).name
        'resnet34'
    """
    return resnet(34, num_classes, input_shape)


def resnet50(num_classes: int, input_shape: tuple[int, int, int]) -> keras.Model:
    """Return ResNet-50, of 25.6 million parameters at 1000 classes; see `resnet`.

    Example:
        >>> resnet50(10, (32, 32, 3)).name
        'resnet50'
    """
    return resnet(50, num_classes, input_shape)


def resnet101(num_classes: int, input_shape: tuple[int, int, int]) -> keras.Model:
    """Return ResNet-101, of 44.5 million parameters at 1000 classes; see `resnet`.

    Example:
        >>> resnet101(10, (32, 32, 3)).name
        'resnet101'
    """
    return resnet(101, num_classes, input_shape)


def resnet152(num_classes: int, input_shape: tuple[int, int, int]) -> keras.Model:
    """Return ResNet-152, of 60.2 million parameters at 1000 classes; see `resnet`.

    Example:
        >>> resnet152(10, (32, 32, 3)).name
        'resnet152'
    """
    return resnet(152, num_classes, input_shape)


def resnet(
    depth: int, num_classes: int, input_shape: Sequence[int | None], fan: str = "fan_out"
) -> keras.Model:
    """Return a residual network for images of 224×224, or any other size.

    A 7×7 convolution and a 3×3 maximum, each with stride 2; four stages of blocks, 64, 128, 256
    and 512 wide, all but the first of which begin with stride 2; the global average and the
    logits. A block is ``y = relu(shortcut(x) + f(x))``, its shortcut the identity, or where the
    shape changes a normalized 1×1 convolution. f is, each convolution followed by batch norm and
    all but the last by ReLU, two of 3×3 (18 and 34), or 1×1, 3×3 and 1×1, the last one four times
    as wide, with the stride in the 3×3 one (50 and more).

    Convolutions pad alike on all sides, have no bias and start at N(0, 2/fan); the dense layer
    starts as PyTorch's, U(−1/√n, 1/√n) from n features. Batch norm has ε = 1e-5 and a momentum of
    0.9, in Keras's sense.

    Args:
        depth: 18, 34, 50, 101 or 152; or 10, with one block per stage, for small experiments.
        num_classes: The number of outputs (logits).
        input_shape: (height, width, channels).
        fan: "fan_out", k·Cout with k kernel positions, as torchvision and Xiao et al. have it, or
            "fan_in", k·Cin.

    Returns:
        An uncompiled `keras.Model` from images to logits.

    Raises:
        ValueError: If the depth is another.

    Example:
        >>> resnet(18, 1000, (224, 224, 3)).get_layer("stage4_block2_relu").output.shape
        (None, 7, 7, 512)

    References:
        He et al. 2015, "Deep residual learning for image recognition", table 1; the stride in the
        3×3 convolution is Goyal et al.'s 2017, "Accurate, large minibatch SGD".
    """
    images = keras.Input(input_shape, name="images")
    x = stages(images, depth, fan)[-1]
    x = keras.layers.GlobalAveragePooling2D(name="average")(x)
    return keras.Model(images, logits(x, num_classes), name=f"resnet{depth}")


def stages(images: keras.KerasTensor, depth: int, fan: str = "fan_out") -> list[keras.KerasTensor]:
    """Return the outputs of a residual network's four stages, below images; see `resnet`.

    Args:
        images: A Keras tensor (batch, height, width, channels).
        depth: As in `resnet`.
        fan: As in `resnet`.

    Returns:
        A list of four Keras tensors, 4, 8, 16 and 32 times smaller in height and width.

    Raises:
        ValueError: If the depth is another.

    Example:
        >>> [stage.shape for stage in stages(keras.Input((64, 64, 3)), 18)][1:3]
        [(None, 8, 8, 128), (None, 4, 4, 256)]
    """
    if depth not in _BLOCKS:
        known = ", ".join(map(str, _BLOCKS))
        raise ValueError(f"`depth` must be one of {known}. Received: {depth}.")
    initializer = he_normal(fan)
    block = _basic if depth < 50 else _bottleneck
    x = conv_norm(images, 64, 7, 2, 3, initializer, "stem")
    x = max_pool(keras.layers.ReLU(name="stem_relu")(x), "pool", padding=1)
    outputs = []
    for stage, blocks in enumerate(_BLOCKS[depth], start=1):
        for index in range(1, blocks + 1):
            strides = 2 if stage > 1 and index == 1 else 1
            x = block(x, 32 * 2**stage, strides, initializer, f"stage{stage}_block{index}")
        outputs.append(x)
    return outputs


def _basic(x, filters, strides, initializer, name):
    y = conv_norm(x, filters, 3, strides, 1, initializer, f"{name}_1")
    y = keras.layers.ReLU(name=f"{name}_1_relu")(y)
    y = conv_norm(y, filters, 3, 1, 1, initializer, f"{name}_2")
    return _joined(x, y, strides, initializer, name)


def _bottleneck(x, filters, strides, initializer, name):
    y = conv_norm(x, filters, 1, 1, 0, initializer, f"{name}_1")
    y = keras.layers.ReLU(name=f"{name}_1_relu")(y)
    y = conv_norm(y, filters, 3, strides, 1, initializer, f"{name}_2")
    y = keras.layers.ReLU(name=f"{name}_2_relu")(y)
    y = conv_norm(y, 4 * filters, 1, 1, 0, initializer, f"{name}_3")
    return _joined(x, y, strides, initializer, name)


def _joined(x, y, strides, initializer, name):
    """Return a block's output, from its input x and what its convolutions made of it, y."""
    if strides > 1 or x.shape[-1] != y.shape[-1]:
        x = conv_norm(x, y.shape[-1], 1, strides, 0, initializer, f"{name}_shortcut")
    x = keras.layers.Add(name=f"{name}_add")([x, y])
    return keras.layers.ReLU(name=f"{name}_relu")(x)
