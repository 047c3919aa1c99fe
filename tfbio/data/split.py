"""A split: the images and labels of one part of a classification dataset."""

from __future__ import annotations

import abc
import hashlib
from typing import Any

import numpy as np
import tensorflow as tf

from tfbio.data import augmentation as augment
from tfbio.data.examples import PARALLEL, Examples


class Split(Examples):
    """Images with a label each; subclasses say how the images of some indices are read.

    Args:
        labels: The integer labels (N,).
        image_shape: (height, width, channels) of an image as `batches` gives it.

    Attributes:
        size: The number of examples.
        labels: Their labels, int64.
        image_shape: (height, width, channels).
        statistics: (mean, std) by channel to use instead of the images' own, or None.

    Example:
        >>> from tfbio import data
        >>> data.load("digits").test.check_crops(10)
        Traceback (most recent call last):
        ValueError: `crops` must be 1 for these images, which are used as a whole. ...
    """

    statistics = None

    def __init__(self, labels: Any, image_shape: tuple[int, ...]):
        self._labels = np.asarray(labels, np.int64)
        super().__init__(len(self._labels), image_shape)

    @property
    def labels(self) -> np.ndarray:
        """The labels, int64 (N,), in stored order."""
        return self._labels[self._chosen]

    @property
    def fingerprint(self) -> str:
        """A digest of all labels and of 64 of the images: other data have another."""
        digest = hashlib.blake2b(digest_size=16)
        digest.update(np.array([self.size, *self.labels], np.int64).tobytes())
        for content in self._sample():
            digest.update(content)
        return digest.hexdigest()

    @abc.abstractmethod
    def _images(self, rows, draws, batch_size, drop_remainder):
        """Return a tf.data.Dataset of the float32 images at `rows`, in order, in batches.

        Where `draws` are given, the images are random-resized crops by them.
        """

    def _examples(self, plan):
        """Return a dataset of what `_checked_examples` makes batches of (images, labels) of."""
        cropped = plan.augmentation == augment.CROP
        draws = plan.draws if cropped else None
        rows = plan.rows[plan.part]
        images = self._images(rows, draws, plan.batch_size, plan.full)
        if plan.augmentation != "none" and not cropped:
            images = tf.data.Dataset.zip(images, plan.batched(plan.draws)).map(
                lambda *batch: augment.apply(plan.augmentation, *batch), **PARALLEL
            )
        return tf.data.Dataset.zip(images, plan.batched(self._labels[rows]))

    def _checked_examples(self, dataset, plan):
        """Return batches of (images, labels), or of (images, labels, weights) if some weigh 0."""
        return dataset

    def _fill(self, dataset, batch_size, missing):
        def weighted(images, labels, weights=None):
            weights = tf.ones_like(labels, tf.float32) if weights is None else weights
            return images, labels, weights

        return super()._fill(dataset.map(weighted), batch_size, missing)

    def for_statistics(self) -> Split:
        """Return the `Split` that statistics are computed from: all images."""
        return self
