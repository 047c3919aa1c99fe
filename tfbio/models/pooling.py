"""Pooling: the maximum over windows that reach beyond the map, as PyTorch pads it."""

import math
from typing import Any

import keras

from tfbio._arguments import check_integer


@keras.saving.register_keras_serializable("tfbio")
class PaddedMaxPooling2D(keras.layers.MaxPooling2D):
    """The maximum over windows, after −∞ was put around the map, alike on all sides.

    Of n pixels a side remain ``⌊(n + 2·margin − pool_size)/strides⌋ + 1``. Zeros, which
    `keras.layers.ZeroPadding2D` pads with, would be the maximum of windows whose values are less,
    as after ELU or tanh; and "same" pads the far sides first.

    Args:
        pool_size: The window's height and width.
        strides: The steps between two windows.
        margin: The pixels of −∞ on each side, 0 to half the window: each window then has a value.
        **kwargs: Those of every Keras layer.

    Raises:
        ValueError: If `margin` is out of its range.

    Example:
        >>> x = keras.ops.reshape(-keras.ops.arange(1.0, 6.0), (1, 1, 5, 1))
        >>> PaddedMaxPooling2D(3, 2, margin=1)(x)[0, 0, :, 0].numpy().tolist()
        [-1.0, -2.0, -4.0]

    References:
        The padding of torch.nn.MaxPool2d.
    """

    def __init__(self, pool_size: int, strides: int, margin: int, **kwargs: Any):
        super().__init__(pool_size, strides, "valid", "channels_last", **kwargs)
        self.margin = check_integer("margin", margin, low=0, high=min(self.pool_size) // 2)

    def call(self, inputs: Any) -> Any:
        """Return the maxima of images (batch, height, width, channels)."""
        sides = ((0, 0), (self.margin, self.margin), (self.margin, self.margin), (0, 0))
        return super().call(keras.ops.pad(inputs, sides, constant_values=-math.inf))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Return the shape of the maxima."""
        batch, *sides, channels = input_shape
        padded = (side if side is None else side + 2 * self.margin for side in sides)
        return super().compute_output_shape((batch, *padded, channels))

    def get_config(self) -> dict[str, Any]:
        """Return the arguments."""
        config = super().get_config()
        for name in ("padding", "data_format"):
            del config[name]
        return {**config, "margin": self.margin}
