"""A split: the images and labels of one part of a dataset, and the batches that an epoch takes."""

import abc
import copy
import math
import numbers
from types import MappingProxyType

import numpy as np
import tensorflow as tf

from tfbio.data import augmentation as augment
from tfbio.data import chance

# How a map is run: fast, and in order all the same.
PARALLEL = MappingProxyType({"num_parallel_calls": tf.data.AUTOTUNE, "deterministic": True})


class Split(abc.ABC):
    """Examples by index; subclasses say how the images of some indices are read.

    Args:
        labels: The integer labels (N,).
        image_shape: (height, width, channels) of an image as `batches` gives it.

    Attributes:
        size: The number of examples.
        labels: Their labels, int64.
        image_shape: (height, width, channels).
    """

    def __init__(self, labels, image_shape):
        self._labels = np.asarray(labels, np.int64)
        self._chosen = np.arange(len(self._labels))
        self.image_shape = tuple(int(side) for side in image_shape)

    @property
    def size(self):
        """The number of examples."""
        return len(self._chosen)

    @property
    def labels(self):
        """The labels, int64 (N,), in stored order."""
        return self._labels[self._chosen]

    @abc.abstractmethod
    def _images(self, rows, batch_size, drop_remainder):
        """Return a tf.data.Dataset of the float32 images at `rows`, in order, in batches."""

    @abc.abstractmethod
    def check(self):
        """Refuse a damaged image now, rather than when its batch comes.

        Raises:
            ValueError: If an image is damaged.
        """

    def hold_out(self, fraction, seed):
        """Split a part off at random, for validation.

        Args:
            fraction: The share held out, 0 or more and less than 1.
            seed: An integer, 0 or more, that alone decides which examples are held out.

        Returns:
            (the `Split` to train on, the `Split` held out), each in stored order; their images are
            shared with this split, not copied. The second is empty where `fraction` is 0.

        Raises:
            ValueError: If the fraction is out of range, or leaves either part without an example.

        Example:
            >>> from tfbio import data
            >>> train, validation = data.load("digits").train.hold_out(0.2, seed=0)
            >>> train.size, validation.size
            (1150, 287)
        """
        if not 0 <= fraction < 1:
            raise ValueError(
                f"--validation_fraction must be 0 or more and less than 1. Received: {fraction!r}."
            )
        order = chance.permutation(self.size, *_checked((seed, 0)), chance.HOLD_OUT)
        count = round(fraction * self.size)
        parts = copy.copy(self), copy.copy(self)
        for part, indices in zip(parts, (order[count:], order[:count]), strict=True):
            part._chosen = self._chosen[np.sort(indices)]
        if not parts[0].size or (fraction and not parts[1].size):
            raise ValueError(
                f"--validation_fraction={fraction} leaves {parts[0].size} of {self.size} images "
                f"to train on and {parts[1].size} to validate on: both need one, or give 0 to "
                "train on all."
            )
        return parts

    def steps(self, batch_size, multiple=1):
        """Return the number of batches of an epoch.

        Args:
            batch_size: Examples per batch.
            multiple: As for `batches`.

        Returns:
            An integer.

        Example:
            >>> from tfbio import data
            >>> test = data.load("digits").test  # 5 batches of 64, and 40 images
            >>> test.steps(64), test.steps(64, multiple=64)
            (6, 5)
        """
        return math.ceil(self._limit(batch_size, multiple) / batch_size)

    def _limit(self, batch_size, multiple):
        for name, value in (("batch_size", batch_size), ("multiple", multiple)):
            if not isinstance(value, numbers.Integral) or value < 1:
                raise ValueError(f"`{name}` must be an integer of 1 or more. Received: {value!r}.")
        if batch_size % multiple:
            raise ValueError(
                f"--batch_size={batch_size} must be a multiple of the {multiple} replicas."
            )
        return self.size - self.size % batch_size % multiple

    def batches(
        self,
        batch_size,
        order=None,
        start=0,
        augmentation="none",
        multiple=1,
        pad=False,
        shard=(0, 1),
    ):
        """Return one epoch's batches, or a worker's part of each of them.

        What comes is a pure function of the arguments: the same in another process, and whatever
        the parallelism.

        Args:
            batch_size: Examples per batch, B; the last batch may be smaller.
            order: (seed, epoch), two integers of 0 or more that decide permutation and
                augmentation, or None for stored order.
            start: How many batches to skip, unread; the others are what they would have been.
            augmentation: One of `augmentations()`; anything but "none" needs an order.
            multiple: The last batch is trimmed to a multiple of it, and left out if nothing
                remains: the number of replicas.
            pad: Whether to fill the last batch up, for evaluation: nothing is trimmed, and what
                fills it has weight 0.
            shard: (index, count) of a worker among several. Worker i of n gets the i-th of n equal
                parts of every batch, so that together they take the batches of one process. n must
                divide the batch size, and where not `pad`, `multiple`.

        Returns:
            A `tf.data.Dataset` of (images, labels), float32 of 0 to 1 (B, height, width, channels)
            and int64 (B,), or of (images, labels, weights), float32 (B,), where `pad`.

        Raises:
            ValueError: If an argument is out of range, or the augmentation lacks an order.

        Example:
            >>> from tfbio import data
            >>> test = data.load("digits").test
            >>> [len(labels) for _, labels in test.batches(100, order=(0, 7), start=2)]
            [100, 60]
            >>> [int(sum(weights)) for *_, weights in test.batches(100, pad=True)]
            [100, 100, 100, 60]
        """
        limit = self._limit(batch_size, multiple)
        limit = self.size if pad else limit
        steps = math.ceil(limit / batch_size)
        if not isinstance(start, numbers.Integral) or not 0 <= start <= steps:
            raise ValueError(
                f"`start` must be an integer, 0 to the {steps} batches. Received: {start!r}."
            )
        augment.check(augmentation, order)
        rows = self._chosen
        if order is not None:
            order = _checked(order)
            rows = rows[chance.permutation(self.size, *order, chance.ORDER)]
        part = _positions(start * batch_size, limit, batch_size, shard, multiple, pad)
        batch_size //= shard[1]
        # Where every batch is full, the model sees static shapes.
        full = len(part) % batch_size == 0

        def batched(array):
            return tf.data.Dataset.from_tensor_slices(array).batch(batch_size, full)

        with tf.device("CPU:0"):  # on a GPU, indices would travel back for every batch
            images = self._images(rows[part], batch_size, full)
            if augmentation != "none":
                draws = chance.bits(self.size, *order, chance.AUGMENTATION)[part] >> np.uint64(1)
                images = tf.data.Dataset.zip(images, batched(draws.astype(np.int64))).map(
                    lambda *batch: augment.apply(augmentation, *batch), **PARALLEL
                )
            dataset = tf.data.Dataset.zip(images, batched(self._labels[rows[part]]))
            if pad:
                dataset = dataset.map(lambda *batch: _padded(*batch, batch_size))
                # A worker has nothing of a last batch that others fill.
                missing = steps - start - math.ceil(len(part) / batch_size)
                empty = tf.nest.map_structure(
                    lambda spec: tf.zeros((missing, *spec.shape), spec.dtype), dataset.element_spec
                )
                if missing:
                    dataset = dataset.concatenate(tf.data.Dataset.from_tensor_slices(empty))
            return dataset.prefetch(tf.data.AUTOTUNE)


def _positions(begin, limit, batch_size, shard, multiple, pad):
    """Return which of an epoch's positions, from `begin` to `limit`, a worker takes."""
    index, count = shard
    if count < 1 or not 0 <= index < count:
        raise ValueError(f"`shard` must be (index, count), index < count. Received: {shard!r}.")
    if batch_size % count or (multiple % count and not pad):
        raise ValueError(
            f"--batch_size={batch_size} and the {multiple} replicas must be multiples of the "
            f"{count} workers."
        )
    positions = np.arange(begin, limit)
    # The last batch may be smaller, and is parted evenly all the same.
    last = limit - limit % batch_size
    sizes = np.where((positions < last) | pad, batch_size, limit - last)
    return positions[positions % batch_size * count // np.maximum(sizes, 1) == index]


def _checked(order):
    """Return `order` as two integers that fit Philox's key and TensorFlow's seeds."""
    try:
        seed, epoch = order
    except (TypeError, ValueError):
        seed = epoch = None
    for value in (seed, epoch):
        if not isinstance(value, numbers.Integral) or not 0 <= value < 2**63:
            raise ValueError(
                f"`order` must be (seed, epoch), two integers of 0 to 2⁶³ − 1. Received: {order!r}."
            )
    return int(seed), int(epoch)


def _padded(images, labels, batch_size):
    count = tf.shape(labels)[0]
    missing = batch_size - count
    weights = tf.cast(tf.range(batch_size) < count, tf.float32)
    images = tf.pad(images, [[0, missing], [0, 0], [0, 0], [0, 0]])
    labels = tf.pad(labels, [[0, missing]])
    images.set_shape([batch_size, *images.shape[1:]])
    labels.set_shape([batch_size])
    return images, labels, weights
