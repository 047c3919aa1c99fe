"""The residual networks that He et al. 2015 trained on CIFAR-10: 6n + 2 layers, 16-32-64 wide."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from tfbio.models.parts import conv_norm, he_normal


@keras.saving.register_keras_serializable("tfbio")
class IdentityShortcut(keras.layers.Layer):
    """A shortcut without parameters into a wider, coarser map: option A of He et al. 2015.

    It keeps every `strides`-th pixel, from the first, and adds channels of zeros, half of them
    before the present ones and half after::

        y[n, i, j, c] = x[n, s·i, s·j, c − (filters − channels) // 2], 0 outside

    Args:
        filters: The number of channels it returns, no fewer than it gets.
        strides: s.
        **kwargs: Those of every Keras layer.

    Raises:
        ValueError: When built, if `filters` is less than the number of its input's channels.

    Example:
        >>> IdentityShortcut(4, 2)(tf.ones((1, 3, 3, 2))).numpy()[0, 0]
        array([[0., 1., 1., 0.],
               [0., 1., 1., 0.]], dtype=float32)
    """

    def __init__(self, filters: int, strides: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.filters = filters
        self.strides = strides

    def build(self, input_shape: Sequence[Any]) -> None:
        """Check that the channels are not to become fewer."""
        if input_shape[-1] > self.filters:
            raise ValueError(
                "`filters` must be no less than the number of channels, which is "
                f"{input_shape[-1]}. Received: {self.filters}."
            )

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Return the shortcut's map."""
        more = self.filters - inputs.shape[-1]
        kept = inputs[:, :: self.strides, :: self.strides]
        return tf.pad(kept, [(0, 0), (0, 0), (0, 0), (more // 2, more - more // 2)])

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tuple[int | None, ...]:
        """Return the shape of the map."""
        sides = [side and -(-side // self.strides) for side in input_shape[1:3]]
        return (input_shape[0], *sides, self.filters)

    def get_config(self) -> dict[str, Any]:
        """Return the layer's config."""
        return {**super().get_config(), "filters": self.filters, "strides": self.strides}


def resnet20(num_classes: int, input_shape: tuple[int, int, int]) -> keras.Model:
    """Return ResNet-20 for CIFAR, of 0.27 million parameters; see `residual`.

    Example:
        >>> resnet20(10, (32, 32, 3)).count_params()
        271098
    """
    return residual(20, num_classes, input_shape)


def resnet32(num_classes: int, input_shape: tuple[int, int, int]) -> keras.Model:
    """Return ResNet-32 for CIFAR, of 0.46 million parameters; see `residual`.

    Example:
        >>> resnet32(10, (32, 32, 3)).name
        'resnet32'
    """
    return residual(32, num_classes, input_shape)


def resnet56(num_classes: int, input_shape: tuple[int, int, int]) -> keras.Model:
    """Return ResNet-56 for CIFAR, of 0.85 million parameters; see `residual`.

    Example:
        >>> resnet56(10, (32, 32, 3)).name
        'resnet56'
    """
    return residual(56, num_classes, input_shape)


def residual(depth: int, num_classes: int, input_shape: Sequence[int]) -> keras.Model:
    """Return a residual network for small images: 3×3 convolutions, 16, 32 and 64 wide.

    A first convolution, three stages of (depth − 2) / 6 blocks, the second and third of which begin
    with stride 2, the global average and the logits. A block is
    ``y = relu(shortcut(x) + norm(conv(relu(norm(conv(x))))))``, its shortcut the identity or an
    `IdentityShortcut`.

    Convolutions pad by one pixel, on all sides also where they stride, so that they stay aligned
    with the shortcut (Keras's "same" would pad on one side), and have no bias. The paper leaves
    open: the initial weights, here N(0, 2/fan_in) for every kernel, biases at 0; batch norm's
    constants, here a momentum of 0.9 and an epsilon of 1e-5, PyTorch's; and on which side channels
    are added.

    Args:
        depth: The number of layers with weights, 6n + 2.
        num_classes: The number of outputs (logits).
        input_shape: (height, width, channels), 4 or more a side.

    Returns:
        An uncompiled `keras.Model` from images to logits.

    Raises:
        ValueError: If the depth is not 6n + 2, or a side under 4.

    Example:
        >>> residual(8, 10, (32, 32, 3)).get_layer("stage3_block1_relu").output.shape
        (None, 8, 8, 64)

    References:
        He et al. 2015, "Deep residual learning for image recognition", section 4.2.
    """
    if depth < 8 or (depth - 2) % 6:
        raise ValueError(f"`depth` must be 6n + 2, n 1 or more. Received: {depth}.")
    if min(input_shape[:2]) < 4:
        raise ValueError(
            f"`input_shape` of resnet{depth} must have 4 or more pixels a side. "
            f"Received: {input_shape}."
        )
    initializer = he_normal("fan_in")
    inputs = keras.Input(input_shape)
    x = conv_norm(inputs, 16, 3, 1, 1, initializer, "stem")
    x = keras.layers.ReLU(name="stem_relu")(x)
    for stage, filters in enumerate((16, 32, 64), start=1):
        for block in range(1, (depth - 2) // 6 + 1):
            strides = 2 if stage > 1 and block == 1 else 1
            x = _block(x, filters, strides, initializer, f"stage{stage}_block{block}")
    x = keras.layers.GlobalAveragePooling2D(name="average")(x)
    x = keras.layers.Dense(num_classes, kernel_initializer=initializer, name="logits")(x)
    return keras.Model(inputs, x, name=f"resnet{depth}")


def _block(x, filters, strides, initializer, name):
    shortcut = x
    if strides > 1:
        shortcut = IdentityShortcut(filters, strides, name=f"{name}_shortcut")(x)
    x = conv_norm(x, filters, 3, strides, 1, initializer, f"{name}_1")
    x = keras.layers.ReLU(name=f"{name}_1_relu")(x)
    x = conv_norm(x, filters, 3, 1, 1, initializer, f"{name}_2")
    x = keras.layers.Add(name=f"{name}_add")([shortcut, x])
    return keras.layers.ReLU(name=f"{name}_relu")(x)
