"""Boxes: how they move with their image as it is cut, resized, mirrored and padded.

A box is (x1, y1, x2, y2), its left upper and right lower corner in pixels: keras-cv's "xyxy".
"""

from collections.abc import Sequence

import tensorflow as tf

FORMAT = "xyxy"
"""What keras-cv's `bounding_box_format` must be."""
SCALES = (0.8, 1.25)
"""What "jitter" multiplies the scale by at which an image fits."""
VISIBLE = 0.25
"""The share of a box that a cut must leave for the object to count."""
_LEAST = 1.0  # pixels a side


def augmentations() -> tuple[str, ...]:
    """Return the names of the augmentations for detection.

    "flip" mirrors an image left to right with probability 1/2: not for what means something else
    then, such as digits. "jitter" scales it by a random factor of 0.8 to 1.25 beside the scale at
    which it fits, and cuts it at random where it is larger then. "jitter_flip" does both.

    Returns:
        A tuple of names.

    Example:
        >>> augmentations()
        ('none', 'flip', 'jitter', 'jitter_flip')

    References:
        Liu et al. 2016, "SSD: single shot multibox detector", section 2.2; keras-cv's
        JitteredResize.
    """
    return ("none", "flip", "jitter", "jitter_flip")


def fit(
    sides: tf.Tensor, size: Sequence[int], shorter_side: int = 0, longest_side: int = 0
) -> tf.Tensor:
    """Return the sides that an image is resized to, its aspect ratio kept.

    Without `shorter_side` the image becomes as large as fits into `size`. With it the image is
    multiplied by::

        scale = shorter_side / min(height, width)
        scale = longest_side / max(height, width)   if round(scale · max(height, width)) is more

    as in Detectron, and the sides are rounded to whole pixels.

    Args:
        sides: The image's (height, width) in pixels, an integer tensor.
        size: The canvas's (height, width) in pixels.
        shorter_side: Pixels of the shorter side, or 0.
        longest_side: The most pixels of the longer side, which goes with `shorter_side`.

    Returns:
        An int32 tensor (height, width), within `size`.

    Example:
        >>> fit(tf.constant([480, 640]), (512, 512)).numpy()
        array([384, 512], dtype=int32)
        >>> fit(tf.constant([480, 640]), (1344, 1344), 800, 1333).numpy()
        array([ 800, 1067], dtype=int32)
        >>> fit(tf.constant([640, 360]), (1344, 1344), 800, 1333).numpy()
        array([1333,  750], dtype=int32)

    References:
        Detectron, `detectron/utils/blob.py`, `prep_im_for_blob`.
    """
    sides, size = tf.cast(sides, tf.float64), tf.constant(size, tf.float64)
    out = tf.round(sides * _scale(sides, size, shorter_side, longest_side))
    return tf.cast(tf.clip_by_value(out, 1.0, size), tf.int32)


def _scale(sides, size, shorter_side, longest_side):
    """Return what an image's sides are multiplied by, before augmentation; all are float64."""
    if not shorter_side:
        return tf.reduce_min(size / sides)
    longer, scale = tf.reduce_max(sides), shorter_side / tf.reduce_min(sides)
    return tf.where(tf.round(scale * longer) > longest_side, longest_side / longer, scale)


def jitter(
    sides: tf.Tensor,
    size: Sequence[int],
    draw: tf.Tensor,
    shorter_side: int = 0,
    longest_side: int = 0,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Return what is cut out of an image, and the sides to which that is resized.

    Args:
        sides: The image's (height, width), an integer tensor.
        size: The canvas's (height, width) in pixels.
        draw: 63 random bits, an int64 tensor, that alone decide.
        shorter_side: As for `fit`, whose scale is the one that is changed at random.
        longest_side: As for `fit`.

    Returns:
        (an int32 tensor (top, left, height, width), an int32 tensor (height, width)).

    Example:
        >>> window, out = jitter(tf.constant([480, 640]), (512, 512), tf.constant(7, tf.int64))
        >>> window.numpy(), out.numpy()
        (array([  0, ...], dtype=int32), array([...], dtype=int32))
    """
    # The algorithm is named: the default one may differ by device.
    uniform = tf.random.stateless_uniform((3,), [draw, tf.zeros_like(draw)], alg="philox")
    uniform = tf.cast(uniform, tf.float64)
    sides, size = tf.cast(sides, tf.float64), tf.constant(size, tf.float64)
    scale = _scale(sides, size, shorter_side, longest_side)
    scale *= SCALES[0] + (SCALES[1] - SCALES[0]) * uniform[0]
    cut = tf.clip_by_value(tf.round(size / scale), 1.0, sides)
    corner = tf.minimum(tf.floor(uniform[1:] * (sides - cut + 1)), sides - cut)
    out = tf.clip_by_value(tf.round(cut * scale), 1.0, size)
    return tf.cast(tf.concat([corner, cut], 0), tf.int32), tf.cast(out, tf.int32)


def move(boxes: tf.Tensor, window: tf.Tensor, out: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return boxes in the coordinates of what is cut out and resized, and which are seen there.

    Args:
        boxes: A float32 tensor (n, 4) in pixels of the whole image.
        window: An int32 tensor (top, left, height, width).
        out: An int32 tensor (height, width) that the window is resized to.

    Returns:
        (boxes clipped to (0, 0, width, height), bool (n,): whether a quarter of the box is left,
        and a pixel a side).

    Example:
        >>> boxes = tf.constant([[0.0, 0.0, 10.0, 10.0], [30.0, 0.0, 42.0, 10.0]])
        >>> boxes, seen = move(boxes, tf.constant([0, 0, 40, 32]), tf.constant([20, 16]))
        >>> boxes.numpy().tolist(), seen.numpy()
        ([[0.0, 0.0, 5.0, 5.0], [15.0, 0.0, 16.0, 5.0]], array([ True, False]))
    """
    window, out = tf.cast(window, tf.float32), tf.cast(out, tf.float32)
    corner, limit = tf.tile(window[1::-1], [2]), tf.tile(out[::-1], [2])
    scale = tf.tile((out / window[2:])[::-1], [2])
    whole = (boxes - corner) * scale
    boxes = tf.clip_by_value(whole, 0.0, limit)
    sides = boxes[:, 2:] - boxes[:, :2]
    area = tf.reduce_prod(whole[:, 2:] - whole[:, :2], 1)
    seen = tf.reduce_prod(sides, 1) >= VISIBLE * area
    return boxes, seen & tf.reduce_all(sides >= _LEAST, 1)


def mirror(boxes: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
    """Return the boxes of a mirrored image.

    Args:
        boxes: A float32 tensor (n, 4).
        width: The image's, a float32 tensor.

    Returns:
        A tensor of the same kind.

    Example:
        >>> mirror(tf.constant([[1.0, 2.0, 5.0, 6.0]]), 20.0).numpy()
        array([[15.,  2., 19.,  6.]], dtype=float32)
    """
    x1, y1, x2, y2 = tf.unstack(boxes, axis=1)
    return tf.stack([width - x2, y1, width - x1, y2], axis=1)


def pad(values: tf.Tensor, count: int) -> tf.Tensor:
    """Return the first dimension filled up with −1, as keras-cv pads boxes and classes.

    Args:
        values: A tensor (n, …), n at most `count`.
        count: A number.

    Returns:
        A tensor (count, …).

    Example:
        >>> pad(tf.constant([3.0]), 3).numpy()
        array([ 3., -1., -1.], dtype=float32)
    """
    more = [[0, count - tf.shape(values)[0]], *[[0, 0]] * (len(values.shape) - 1)]
    values = tf.pad(values, more, constant_values=-1.0)
    return tf.ensure_shape(values, (count, *values.shape[1:]))
