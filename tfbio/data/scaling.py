"""Scaling: bytes of 0 to 255 stand for numbers of 0 to 1."""

import tensorflow as tf

WHITE = 255.0
"""What the number 1 is as a byte."""


def to_float(images: tf.Tensor, dtype: str = "float32") -> tf.Tensor:
    """Return images as floating-point numbers of 0 to 1.

    Args:
        images: A uint8 tensor of 0 to 255, or a floating-point one of 0 to 1.
        dtype: The type that bytes are converted to.

    Returns:
        A tensor of the same shape. Floating-point images are returned unchanged.

    Example:
        >>> to_float(tf.constant([0, 255], tf.uint8)).numpy(), to_float(tf.constant([0.5])).numpy()
        (array([0., 1.], dtype=float32), array([0.5], dtype=float32))
    """
    return tf.cast(images, dtype) / WHITE if images.dtype == tf.uint8 else images
