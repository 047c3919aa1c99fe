"""Photographs: a split of encoded images of any size, streamed from files, that may be damaged."""

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfbio.data import augmentation, chance, crops, decoding
from tfbio.data.damage import Damage, count_damage, read_images
from tfbio.data.examples import PARALLEL
from tfbio.data.split import Split

_STATISTICS = 5000  # images that channel statistics are computed from


class Files:
    """A source of encoded images: a file each.

    Args:
        paths: The files, on disk or in any place that `tf.io.gfile` reads.
        labels: The integer labels.

    Attributes:
        labels: The labels, int64.

    Example:
        >>> tf.io.write_file("ram://files/one.jpg", b"...")
        >>> files = Files(["ram://files/one.jpg"], [0])
        >>> files.content(0).numpy(), files.name(0)
        (b'...', 'ram://files/one.jpg')
    """

    def __init__(self, paths: Sequence[str], labels: Any):
        self.labels = np.asarray(labels, np.int64)
        with tf.device("CPU:0"):
            self._paths = tf.constant(paths, tf.string)

    def content(self, row: tf.Tensor) -> tf.Tensor:
        """Return a file's bytes, a string tensor."""
        return tf.io.read_file(self._paths[row])

    def name(self, row: int) -> str:
        """Return a file's path."""
        return self._paths[row].numpy().decode()


class Contents:
    """A source of encoded images: their bytes in memory.

    Args:
        contents: The bytes of each.
        labels: The integer labels.
        names: What they are called in messages.

    Attributes:
        labels: The labels, int64.

    Example:
        >>> Contents([b"..."], [0], ["one"]).content(0).numpy()
        b'...'
    """

    def __init__(self, contents: Any, labels: Any, names: Sequence[str]):
        self.labels = np.asarray(labels, np.int64)
        self._names = names
        with tf.device("CPU:0"):
            self._contents = tf.constant(contents, tf.string)

    def content(self, row: tf.Tensor) -> tf.Tensor:
        """Return an image's bytes, a string tensor."""
        return self._contents[row]

    def name(self, row: int) -> str:
        """Return what an image is called."""
        return self._names[row]


class Photographs(Split):
    """Encoded images that are cropped: at random for training, centrally for evaluation.

    Its batches are uint8. With "resized_crop_flip" they hold `crops.training_crop` of the images,
    otherwise `crops.evaluation_crops`.

    An image that cannot be read is left out. In training the next one in the epoch's order that
    can be read takes its place, too: so batches stay full, and depend neither on where they begin
    nor on the workers. In evaluation (`pad`) it has weight 0. `Damage` counts and names it.

    Args:
        source: `Files`, `records.Records` or `Contents`.
        image_size: Pixels a side of what comes out, in three channels.
        max_corrupt: The share of the images that may be damaged, in one pass and on one worker,
            before an error is raised; one always may, unless this is 0.
        statistics: (mean, std) by channel to use instead of the images' own, or None.

    Example:
        >>> jpeg = tf.io.encode_jpeg(tf.fill((40, 30, 3), tf.constant(128, tf.uint8))).numpy()
        >>> split = Photographs(Contents([jpeg, b"?"], [0, 1], ["a", "b"]), image_size=8)
        >>> for images, labels, weights in split.batches(2, pad=True):
        ...     print(images.shape, images.dtype, labels.numpy(), weights.numpy())
        (2, 8, 8, 3) <dtype: 'uint8'> [0 1] [1. 0.]
    """

    def __init__(
        self,
        source: Any,
        image_size: int,
        max_corrupt: float = 0.001,
        statistics: Any = None,
    ):
        super().__init__(source.labels, (image_size, image_size, 3))
        self._source = source
        self.max_corrupt, self.statistics = max_corrupt, statistics

    def check_crops(self, crops: int) -> None:
        """Refuse any number but 1 and 10."""
        if crops not in (1, 10):
            raise ValueError(f"`crops` must be 1 or 10. Received: {crops!r}.")

    def check(self) -> None:
        """Refuse nothing: a damaged image is left out and counted when its batch comes."""

    def for_statistics(self) -> Split:
        """Return the part that statistics are computed from: 5,000 images, always the same."""
        part = copy.copy(self)
        order = chance.permutation(self.size, 0, 0, chance.TEST)[:_STATISTICS]
        part._chosen = self._chosen[np.sort(order)]
        return part

    def _content(self, row):
        return self._source.content(row).numpy()

    def _images(self, rows, draws, batch_size, drop_remainder):
        # `_examples` gives images and what became of them together.
        raise NotImplementedError

    def _image(self, content, plan, draw):
        size = self.image_shape[0]
        if plan.augmentation == augmentation.CROP:
            image = decoding.training_crop(content, 3, draw, (size, size))
        else:
            image = crops.evaluation_crops(decoding.decode(content, 3), size, plan.crops)
        image = crops.as_bytes(image)
        shape = self.image_shape if plan.crops == 1 else (plan.crops, *self.image_shape)
        return tf.ensure_shape(image, shape)

    def _examples(self, plan):
        """Return batches of (images, position wanted, position found, or -1)."""

        def read(row, draw):
            return self._image(self._source.content(row), plan, draw)

        def blank():
            shape = self.image_shape if plan.crops == 1 else (plan.crops, *self.image_shape)
            return tf.zeros(shape, tf.uint8)

        def cropped(rows, draws):
            contents = [self._source.content(row) for row in tf.unstack(rows)]
            return decoding.training_crops(contents, 3, draws, self.image_shape[:2])

        several = None
        if plan.augmentation == augmentation.CROP and self._first_is_jpeg():
            several = cropped
        dataset = read_images(plan, read, blank, several)
        if plan.augmentation in ("none", augmentation.CROP):
            return dataset

        def augmented(batch, draws):
            images, *positions = batch
            return augmentation.apply(plan.augmentation, images, draws), *positions

        dataset = tf.data.Dataset.zip(dataset, plan.batched(plan.draws))
        return dataset.map(augmented, **PARALLEL)

    def _first_is_jpeg(self):
        """Return whether the first image is a JPEG: then all usually are, which is read faster."""
        try:
            return bool(decoding.is_whole_jpeg(self._source.content(self._chosen[0])))
        except (tf.errors.NotFoundError, tf.errors.InvalidArgumentError):
            return False

    def _checked_examples(self, dataset, plan):
        """Return (images, labels), or (images, labels, weights) for evaluation; count damage."""
        damage = Damage(self._source.name, len(plan.rows), self.max_corrupt)

        def checked(images, wanted, found):
            rows = count_damage(plan, damage, wanted, found)
            with tf.control_dependencies([rows]):
                images = tf.identity(images)
            labels = tf.gather(self._labels, rows)
            if plan.evaluation:
                return images, labels, tf.cast(found >= 0, tf.float32)
            return images, labels

        return dataset.map(checked)
