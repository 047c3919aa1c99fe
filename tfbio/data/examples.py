"""Examples: one part of a dataset by index, and the batches of them that an epoch takes."""

import abc
import copy
import math
from types import MappingProxyType
from typing import Any, NamedTuple, Self

import numpy as np
import tensorflow as tf

from tfbio._arguments import check_integer, is_integer
from tfbio.data import augmentation as augment
from tfbio.data import chance
from tfbio.data.service import Service

_SAMPLE = 64  # images that a fingerprint looks at
# How a map is run: fast, and in order all the same.
PARALLEL = MappingProxyType({"num_parallel_calls": tf.data.AUTOTUNE, "deterministic": True})


class Plan(NamedTuple):
    """What an epoch, or a worker's part of it, takes.

    Attributes:
        rows: The indices of all the epoch's examples, in its order.
        part: The positions among them that are taken.
        draws: 63 random bits for each of those, int64, or None without augmentation.
        augmentation: One of `augmentations()`.
        batch_size: Examples per batch.
        full: Whether every batch is full, so that the model sees static shapes.
        evaluation: Whether a damaged image has no substitute.
        crops: Crops of each image, 1 or 10.
    """

    rows: np.ndarray
    part: np.ndarray
    draws: np.ndarray | None
    augmentation: str
    batch_size: int
    full: bool
    evaluation: bool
    crops: int

    def batched(self, array: Any) -> tf.data.Dataset:
        """Return a dataset of an array's entries in batches."""
        return tf.data.Dataset.from_tensor_slices(array).batch(self.batch_size, self.full)


class Examples(abc.ABC):
    """Examples by index; subclasses say how those of some indices are read.

    Args:
        count: The number of examples.
        image_shape: (height, width, channels) of an image as `batches` gives it.

    Attributes:
        size: The number of examples.
        image_shape: (height, width, channels).
        augmentations: The names of what may be done to training images.
    """

    augmentations = augment.augmentations()

    def __init__(self, count: int, image_shape: tuple[int, ...]):
        self._chosen = np.arange(count)
        self.image_shape = tuple(int(side) for side in image_shape)

    @property
    def size(self) -> int:
        """The number of examples."""
        return len(self._chosen)

    @property
    def rows(self) -> np.ndarray:
        """Where each one stands among all that were stored, int64 (N,): its own in every part."""
        return self._chosen.astype(np.int64)

    @property
    @abc.abstractmethod
    def fingerprint(self) -> str:
        """A digest of the examples, but only of some of their images: other data have another."""

    @abc.abstractmethod
    def _content(self, row) -> bytes:
        """Return the bytes of the image at a row as they are stored."""

    def _sample(self):
        """Yield the bytes of 64 images, or of all if there are fewer."""
        for index in np.unique(np.linspace(0, self.size - 1, _SAMPLE).round().astype(int)):
            try:
                yield self._content(self._chosen[index])
            except tf.errors.OpError:
                # Its batch raises an error if this is one damaged image too many.
                yield b"cannot be read"

    @abc.abstractmethod
    def _examples(self, plan) -> Any:
        """Return a dataset of what `_checked_examples` makes batches of."""

    @abc.abstractmethod
    def _checked_examples(self, dataset, plan) -> Any:
        """Return a dataset of batches, with weights where some are not to count."""

    def _fill(self, dataset, batch_size, missing) -> Any:
        """Return batches filled up with zeros, and after them so many empty ones."""
        dataset = dataset.map(
            lambda *batch: tf.nest.map_structure(lambda part: _pad(part, batch_size), batch)
        )
        empty = tf.nest.map_structure(
            lambda spec: tf.zeros((missing, *spec.shape), spec.dtype), dataset.element_spec
        )
        if missing:
            dataset = dataset.concatenate(tf.data.Dataset.from_tensor_slices(empty))
        return dataset

    def check_crops(self, crops: int) -> None:
        """Refuse a number of evaluation crops that the images do not admit.

        Args:
            crops: 1 or 10.

        Raises:
            ValueError: If it is refused.
        """
        if crops != 1:
            raise ValueError(
                "`crops` must be 1 for these images, which are used as a whole. Only photographs, "
                f"such as those of imagenet2012, are cropped for evaluation. Received: {crops!r}."
            )

    @abc.abstractmethod
    def check(self) -> None:
        """Refuse a damaged image now, rather than when its batch comes.

        Raises:
            ValueError: If an image is damaged.
        """

    def hold_out(self, fraction: float, seed: int) -> tuple[Self, Self]:
        """Split a part off at random, for validation.

        Args:
            fraction: The share held out, 0 or more and less than 1.
            seed: An integer, 0 or more, that alone decides which examples are held out.

        Returns:
            (the examples to train on, those held out), each in stored order; their images are
            shared with these, not copied. The second is empty where `fraction` is 0.

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
                f"`fraction` must be 0 or more and less than 1. Received: {fraction!r}."
            )
        order = chance.permutation(self.size, *_check_order((seed, 0)), chance.HOLD_OUT)
        count = round(fraction * self.size)
        parts = copy.copy(self), copy.copy(self)
        for part, indices in zip(parts, (order[count:], order[:count]), strict=True):
            part._chosen = self._chosen[np.sort(indices)]
        if not parts[0].size or (fraction and not parts[1].size):
            raise ValueError(
                "`fraction` must leave at least one image to train on and one to validate on, or "
                f"be 0 to train on all. Received: {fraction}, which leaves {parts[0].size} and "
                f"{parts[1].size} of {self.size} images."
            )
        return parts

    def share(self, fraction: float, seed: int) -> Self:
        """Return a part at random, to see what is learned from fewer examples, or in less time.

        Args:
            fraction: The share, more than 0 and at most 1.
            seed: An integer, 0 or more, that alone decides which examples it has. A greater share
                has those of a smaller one.

        Returns:
            Examples in stored order, that share their images with these.

        Raises:
            ValueError: If the fraction is out of range, or leaves no example.

        Example:
            >>> from tfbio import data
            >>> data.load("digits").train.share(0.1, seed=0).size
            144
        """
        count = round(fraction * self.size) if 0 < fraction <= 1 else 0
        if not count:
            raise ValueError(
                "`fraction` must be more than 0, at most 1, and leave an image to train on. "
                f"Received: {fraction!r} of {self.size} images."
            )
        order = chance.permutation(self.size, *_check_order((seed, 0)), chance.SHARE)
        part = copy.copy(self)
        part._chosen = self._chosen[np.sort(order[:count])]
        return part

    def steps(self, batch_size: int, multiple: int = 1) -> int:
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
        return math.ceil(self.taken(batch_size, multiple) / batch_size)

    def taken(self, batch_size: int, multiple: int = 1) -> int:
        """Return the number of examples in the batches of an epoch.

        Args:
            batch_size: Examples per batch.
            multiple: As for `batches`.

        Returns:
            An integer.

        Example:
            >>> from tfbio import data
            >>> test = data.load("digits").test  # 360 images
            >>> test.taken(64), test.taken(64, multiple=64)
            (360, 320)
        """
        for name, value in (("batch_size", batch_size), ("multiple", multiple)):
            check_integer(name, value, low=1)
        if batch_size % multiple:
            raise ValueError(
                f"`batch_size` must be a multiple of the {multiple} replicas. "
                f"Received: {batch_size}."
            )
        return self.size - self.size % batch_size % multiple

    def batches(
        self,
        batch_size: int,
        order: tuple[int, int] | None = None,
        start: int = 0,
        augmentation: str = "none",
        multiple: int = 1,
        pad: bool = False,
        shard: tuple[int, int] = (0, 1),
        crops: int = 1,
        shuffle: bool = True,
        service: Service | None = None,
    ) -> tf.data.Dataset:
        """Return one epoch's batches, or a worker's part of each of them.

        What comes is a pure function of the arguments: the same in another process, and whatever
        the parallelism.

        Args:
            batch_size: Examples per batch, B; the last batch may be smaller.
            order: (seed, epoch), two integers of 0 or more that decide permutation and
                augmentation, or None for stored order.
            start: How many batches to skip, unread; the others are what they would have been.
            augmentation: One of `augmentations`; anything but "none" needs an order.
            multiple: The last batch is trimmed to a multiple of it, and left out if nothing
                remains: the number of replicas.
            pad: Whether to fill the last batch up, for evaluation: nothing is trimmed, and what
                fills it has weight 0.
            shard: (index, count) of a worker among several. Worker i of n gets the i-th of n equal
                parts of every batch, so that together they take the batches of one process. n must
                divide the batch size, and where not `pad`, `multiple`.

            crops: 1, or for photographs, which are cropped for evaluation, 10: ten crops each.

            shuffle: Whether the order permutes the examples; if not, it decides the augmentation
                alone.
            service: A `Service` to make the batches, or None to make them in this process.

        Returns:
            A `tf.data.Dataset` of (images, labels), float32 of 0 to 1, or uint8 of 0 to 255 where
            photographs are streamed, (B, height, width, channels), or with ten crops (B, 10, ...),
            and int64 (B,); or of (images, labels, weights), float32 (B,), where `pad`.

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
        limit = self.taken(batch_size, multiple)
        limit = self.size if pad else limit
        steps = math.ceil(limit / batch_size)
        if not is_integer(start, 0, steps):
            raise ValueError(
                f"`start` must be an integer, 0 to the {steps} batches. Received: {start!r}."
            )
        augment.check(augmentation, order, self.augmentations)
        self.check_crops(crops)
        rows = self._chosen
        if order is not None:
            order = _check_order(order)
        if order is not None and shuffle:
            rows = rows[chance.permutation(self.size, *order, chance.ORDER)]
        part = _positions(start * batch_size, limit, batch_size, shard, multiple, pad)
        batch_size //= shard[1]
        draws = None
        if augmentation != "none":
            seed, epoch = _check_order(order)
            draws = chance.bits(self.size, seed, epoch, chance.AUGMENTATION)[part] >> np.uint64(1)
            draws = draws.astype(np.int64)
        full = len(part) % batch_size == 0
        plan = Plan(rows, part, draws, augmentation, batch_size, full, pad, crops)
        with tf.device("CPU:0"):  # on a GPU, indices would travel back for every batch
            dataset = self._examples(plan)
            if service is not None:
                dataset = service.stream(dataset)
            dataset = self._checked_examples(dataset, plan)
            if pad:
                # A worker has nothing of a last batch that others fill.
                missing = steps - start - math.ceil(len(part) / batch_size)
                dataset = self._fill(dataset, batch_size, missing)
            return dataset.prefetch(tf.data.AUTOTUNE)


def _positions(begin, limit, batch_size, shard, multiple, pad):
    """Return which of an epoch's positions, from `begin` to `limit`, a worker takes."""
    index, count = shard
    if count < 1 or not 0 <= index < count:
        raise ValueError(f"`shard` must be (index, count), index < count. Received: {shard!r}.")
    if batch_size % count or (multiple % count and not pad):
        raise ValueError(
            f"`batch_size` and the number of replicas must be multiples of the {count} workers. "
            f"Received: {batch_size} and {multiple}."
        )
    positions = np.arange(begin, limit)
    # The last batch may be smaller, and is parted evenly all the same.
    last = limit - limit % batch_size
    sizes = np.where((positions < last) | pad, batch_size, limit - last)
    return positions[positions % batch_size * count // np.maximum(sizes, 1) == index]


def _check_order(order) -> tuple[int, int]:
    """Return `order` as two integers that fit Philox's key and TensorFlow's seeds."""
    try:
        seed, epoch = order
    except (TypeError, ValueError):
        seed = epoch = None
    if is_integer(seed, 0, 2**63 - 1) and is_integer(epoch, 0, 2**63 - 1):
        return int(seed), int(epoch)  # pyright: ignore[reportArgumentType]
    raise ValueError(
        f"`order` must be (seed, epoch), two integers of 0 to 2⁶³ − 1. Received: {order!r}."
    )


def _pad(part, batch_size):
    missing = batch_size - tf.shape(part)[0]
    full = tf.pad(part, [[0, missing], *[[0, 0]] * (len(part.shape) - 1)])
    return tf.ensure_shape(full, (batch_size, *part.shape[1:]))
