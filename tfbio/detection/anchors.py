"""Anchors: the boxes that a detector starts from, and what predictions make of them."""

import math
from collections.abc import Sequence
from typing import Any

import keras_cv
import tensorflow as tf

_STRIDES = (8, 16, 32, 64, 128)
_SCALES = (1.0, 2 ** (1 / 3), 2 ** (2 / 3))
_ASPECT_RATIOS = (0.5, 1.0, 2.0)


class AnchorGenerator(keras_cv.layers.AnchorGenerator):
    """keras_cv's generator, in float32 under every policy and for images of any size.

    At each position of level l of the pyramid, in the middle of its stride of 2ˡ pixels, stand
    nine boxes: three scales, 1, 2^(1/3) and 2^(2/3) times the level's size, of three ratios of
    width to height, ½, 1 and 2. As in the paper they may stick out of the image; keras_cv's
    RetinaNet clips them.

    keras_cv's own follows the policy (under mixed precision corners are off by up to two pixels in
    512), and wants sizes that are known when a function is compiled.

    Args:
        bounding_box_format: keras_cv's name of the format.
        sizes: The side in pixels of the smallest square anchor of each level, from P3 to P7.

    Raises:
        ValueError: If there are not five sizes, each above 0.

    Example:
        >>> levels = AnchorGenerator("xyxy", (32, 64, 128, 256, 512))(image_shape=(64, 64, 3))
        >>> levels[0].shape, levels[0][1].numpy()
        (TensorShape([576, 4]), array([-12., -12.,  20.,  20.], dtype=float32))
    """

    def __init__(self, bounding_box_format: str, sizes: Sequence[float]):
        sizes = [float(size) for size in sizes]
        if len(sizes) != len(_STRIDES) or min(sizes) <= 0:
            raise ValueError(
                f"`anchor_sizes` must be {len(_STRIDES)} numbers above 0, for the levels P3 to P7. "
                f"Received: {sizes}."
            )
        super().__init__(
            bounding_box_format, sizes, _SCALES, _ASPECT_RATIOS, _STRIDES, dtype="float32"
        )
        self.sizes = sizes

    def __call__(self, image=None, image_shape=None):
        """Return a dict from level, 0 for P3, to its boxes, a tensor (number, 4).

        Args:
            image: An image (height, width, channels), or
            image_shape: its shape, whose first two entries may be tensors.
        """
        height, width = (tf.shape(image) if image_shape is None else image_shape)[:2]
        size = tf.cast(tf.stack([width, height]), tf.float32)
        levels = {}
        for level, (stride, side) in enumerate(zip(_STRIDES, self.sizes, strict=True)):
            shapes = [
                (side * scale * math.sqrt(ratio), side * scale / math.sqrt(ratio))
                for scale in _SCALES
                for ratio in _ASPECT_RATIOS
            ]
            columns, rows = tf.unstack(tf.math.ceil(size / stride))
            x, y = ((tf.range(count) + 0.5) * stride for count in (columns, rows))
            centers = tf.stack(tf.meshgrid(x, y), axis=-1)[:, :, None]
            halves = tf.constant(shapes) / 2
            corners = tf.concat([centers - halves, centers + halves], axis=-1)
            levels[level] = keras_cv.bounding_box.convert_format(
                tf.reshape(corners, (-1, 4)),
                source="xyxy",
                target=self.bounding_box_format,
                image_shape=image_shape,
            )
        return levels


def decoded(
    anchors: tf.Tensor,
    deltas: tf.Tensor,
    bounding_box_format: str,
    box_variance: Sequence[float],
    height: Any,
    width: Any,
) -> tf.Tensor:
    """Return the boxes that predictions stand for, within the image.

    Args:
        anchors: A tensor (number, 4), as an `AnchorGenerator` of the same format makes them.
        deltas: The predictions, a tensor (batch, number, 4), relative to the anchors as
            `tfbio.detection.matching.AnchorMatcher` says. A box gets no more than 1000/16 times as
            high or wide as its anchor, as in the paper's code.
        bounding_box_format: keras_cv's name of the format.
        box_variance: As in `AnchorMatcher`.
        height: The image's, in pixels.
        width: The image's, in pixels.

    Returns:
        A float32 tensor (batch, number, 4): corners x, y, x, y.

    Example:
        >>> anchors = tf.constant([[8.0, 8.0, 24.0, 24.0]])
        >>> deltas = tf.constant([[[0.5, 0.0, 9.0, 0.0]]])
        >>> print(decoded(anchors, deltas, "xyxy", (1.0,) * 4, 64, 64).numpy())
        [[[ 8.  0. 24. 64.]]]
    """
    anchors = keras_cv.bounding_box.convert_format(
        anchors, source=bounding_box_format, target="center_yxhw", image_shape=(height, width, 3)
    )
    deltas = tf.cast(deltas, tf.float32) * tf.constant(box_variance)
    centers = deltas[..., :2] * anchors[:, 2:] + anchors[:, :2]
    halves = tf.exp(tf.minimum(deltas[..., 2:], math.log(1000 / 16))) * anchors[:, 2:] / 2
    corners = tf.concat([centers - halves, centers + halves], axis=-1)
    limits = tf.cast(tf.stack([height, width, height, width]), tf.float32)
    corners = tf.clip_by_value(corners, 0.0, limits)
    return tf.gather(corners, [1, 0, 3, 2], axis=-1)
