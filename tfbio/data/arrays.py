"""Arrays: a split whose images are all in memory, as they were stored, and made ready by batch."""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from tfbio.data import crops
from tfbio.data.examples import PARALLEL
from tfbio.data.scaling import WHITE, to_float
from tfbio.data.split import Split


class Arrays(Split):
    """Images in memory; also unpacks as ``images, labels = split``.

    The images are kept once, as they are, and turned into float32 of the size wanted batch by
    batch: that costs some microseconds an image, and 60,000 images of 28×28 stay 47 MB.

    Args:
        images: An array (N, height, width, channels): uint8, which stands for 0 to 1 in steps of
            1/255, or float32 of 0 to 1.
        labels: The integer labels (N,).
        image_size: Pixels a side of the images that come out, or 0 to leave them as they are.

    Example:
        >>> split = Arrays(np.zeros((5, 28, 28, 1), "uint8"), np.arange(5), image_size=32)
        >>> images, labels = split
        >>> images.shape, images.dtype, split.image_shape, split.size
        ((5, 32, 32, 1), dtype('float32'), (32, 32, 1), 5)
    """

    def __init__(self, images: np.ndarray, labels: Sequence[int], image_size: int = 0):
        shape = images.shape[1:]
        super().__init__(labels, (image_size, image_size, shape[2]) if image_size else shape)
        # Captured by the pipelines by reference; on a GPU each batch would travel back.
        with tf.device("CPU:0"):
            self._stored = tf.convert_to_tensor(images)

    def _take(self, rows):
        return resize(tf.gather(self._stored, rows), self.image_shape[:2])

    def _content(self, row):
        return self._stored[row].numpy().tobytes()

    def _images(self, rows, draws, batch_size, drop_remainder):
        dataset = tf.data.Dataset.from_tensor_slices(rows)
        if draws is None:
            return dataset.batch(batch_size, drop_remainder).map(self._take, **PARALLEL)

        def crop(row, draw):
            image = crops.training_crop(self._stored[row], draw, self.image_shape[:2])
            return image / WHITE if self._stored.dtype == tf.uint8 else image

        draws = tf.data.Dataset.from_tensor_slices(draws)
        cropped = tf.data.Dataset.zip(dataset, draws).map(crop, **PARALLEL)
        return cropped.batch(batch_size, drop_remainder)

    def check(self) -> None:
        """Do nothing: what is in memory was decoded."""

    def __iter__(self):
        with tf.device("CPU:0"):
            parts = [
                self._take(self._chosen[start : start + 4096]).numpy()
                for start in range(0, self.size, 4096)
            ]
        yield np.concatenate(parts) if parts else np.zeros((0, *self.image_shape), np.float32)
        yield self.labels


def resize(images: tf.Tensor, size: tuple[int, ...]) -> tf.Tensor:
    """Return images as float32 of 0 to 1, resized.

    Args:
        images: A tensor (…, height, width, channels): uint8, or float32 of 0 to 1.
        size: (height, width). Bilinear, and smoothed first where that makes an image smaller.

    Returns:
        A float32 tensor (…, *size, channels).

    Example:
        >>> resize(tf.constant([[[0], [255]]], tf.uint8), (1, 4)).numpy().ravel()
        array([0.  , 0.25, 0.75, 1.  ], dtype=float32)
    """
    images = to_float(images)
    height, width = images.shape[-3:-1]
    if (height, width) == tuple(size):
        return images
    smaller = None in (height, width) or height > size[0] or width > size[1]
    # antialias changes nothing where an image grows, and is slower.
    images = tf.image.resize(images, size, antialias=smaller)
    # Its weights sum to 1 up to rounding.
    return tf.clip_by_value(images, 0.0, 1.0) if smaller else images
