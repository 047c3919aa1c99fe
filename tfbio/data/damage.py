"""Damage: the images of an epoch that cannot be read, counted, named, and stopped at a limit."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from tfbio.data.errors import UNREADABLE, BatchError

if TYPE_CHECKING:
    from tfbio.data.examples import Plan

_LOG = logging.getLogger("tfbio")
_SUBSTITUTES = 32  # images that may be damaged in a row
_TOGETHER = 16  # images whose damage is looked for at once


class Damage:
    """Counts the damaged images that a pass over a split meets.

    Args:
        name: A function from an example's index to what it is called.
        size: The number of images in a pass.
        share: How many of them may be damaged. One always may, unless it is 0.
        reason: The end of a message about a damaged image, after its name.

    Attributes:
        name: The same function.
        reason: The same text.

    Example:
        >>> damage = Damage("image {}".format, size=5000, share=0.001)
        >>> for row in (7, 7, 9, 12, 1, 3):
        ...     damage.add([row])
        >>> damage.add([4])
        Traceback (most recent call last):
        tfbio.data.errors.BatchError: `max_corrupt=0.001` admits 5 damaged images of 5,000 ...
    """

    def __init__(
        self, name: Callable[[int], str], size: int, share: float, reason: str = UNREADABLE
    ):
        self.name, self.reason, self._size, self._share = name, reason, size, share
        self._limit = max(1, int(share * size)) if share else 0
        self._rows = set()

    def add(self, rows: Iterable[int]) -> None:
        """Count damaged images by their index; each one counts once.

        Raises:
            BatchError: If there are more than are admitted.
        """
        for row in map(int, np.asarray(rows)):
            if row in self._rows:
                continue
            self._rows.add(row)
            count = len(self._rows)
            _LOG.warning("%s%s It is left out; %d so far", self.name(row), self.reason, count)
            if count > self._limit:
                admitted = (
                    "1 damaged image" if self._limit == 1 else f"{self._limit} damaged images"
                )
                raise BatchError(
                    f"`max_corrupt={self._share:g}` admits {admitted} of {self._size:,} in a "
                    f"pass. Received: {count}, the last of which is {self.name(row)}."
                )


def read_images(
    plan: Plan, read: Callable[..., Any], blank: Any, several: Callable[..., Any] | None = None
) -> tf.data.Dataset:
    """Return what is read of each image of a plan, or where it cannot be, of the next that can.

    In training an image that cannot be read is replaced by the next one in the epoch's order that
    can: so batches stay full, and depend neither on where they begin nor on the workers. In
    evaluation it is blank.

    Args:
        plan: A `tfbio.data.examples.Plan`.
        read: A function of an image's index and its random bits that returns tensors, in TensorFlow
            alone; it fails where the image is damaged.
        blank: A function that returns tensors of the same kind, and shape.
        several: A function of several images' indices and random bits, int64 tensors (16,), that
            returns the same as `read` of each, stacked, and fails where one of them is damaged; or
            None to read one after another.

    Returns:
        A `tf.data.Dataset` of batches of (what `read` returns, position wanted, position found, or
        −1), as many in each as the plan says.

    Example:
        >>> import tfbio.data.examples as examples
        >>> plan = examples.Plan(np.arange(3), np.arange(3), None, "none", 2, False, False, 1)
        >>> def read(row, draw):
        ...     with tf.control_dependencies([tf.debugging.Assert(row > 0, ["damaged"])]):
        ...         return row * 10
        >>> for batch in read_images(plan, read, lambda: tf.constant(0, tf.int64)):
        ...     print(*(each.numpy() for each in batch))
        [10 10] [0 1] [1 1]
        [20] [2] [2]
    """
    rows, count, reach = tf.constant(plan.rows), len(plan.rows), _reach(plan)
    draws = plan.draws if plan.draws is not None else np.zeros(len(plan.part), np.int64)
    part, draws = tf.constant(plan.part, tf.int64), tf.constant(draws, tf.int64)
    several = several or _one_after_another(read, blank)
    # What fails takes its element of a dataset with it, and to make a dataset for each image would
    # cost a third of an image's time. So several images are an element, and where that is gone,
    # they alone are read one by one.
    groups = len(part) // _TOGETHER
    # AUTOTUNE stays at one processor for the first ten thousand images at times.
    parallel = {"num_parallel_calls": os.cpu_count(), "deterministic": True}

    def together(group):
        here = slice(group * _TOGETHER, (group + 1) * _TOGETHER)
        positions, bits = (tf.ensure_shape(each[here], _TOGETHER) for each in (part, draws))
        return group, (several(tf.gather(rows, positions), bits), positions, positions)

    def alone(index):
        position, draw = part[index], draws[index]

        def found(candidate):
            candidate %= count
            return read(rows[candidate], draw), position, candidate

        # Candidates are read until one can be.
        candidates = tf.data.Dataset.range(position, position + reach)
        missing = tf.data.Dataset.range(1).map(lambda _: (blank(), position, np.int64(-1)))
        return candidates.map(found).ignore_errors().concatenate(missing).take(1)

    def after(begin, element):
        group, batch = element
        end = tf.minimum(group * _TOGETHER, len(plan.part))
        return end + tf.size(batch[1], tf.int64), (begin, end, batch)

    def complete(begin, end, batch):
        there = tf.data.Dataset.from_tensors(batch)

        def filled():
            missing = tf.data.Dataset.range(begin, end).interleave(alone, **parallel)
            missing = missing.batch(_TOGETHER)
            return tf.data.experimental.to_variant(missing.concatenate(there))

        # As a rule nothing is missing.
        which = tf.cond(begin < end, filled, lambda: tf.data.experimental.to_variant(there))
        return tf.data.experimental.from_variant(which, there.element_spec)

    dataset = tf.data.Dataset.range(groups).map(together, **parallel).ignore_errors()
    nothing = tf.nest.map_structure(
        lambda spec: tf.zeros((0, *spec.shape[1:]), spec.dtype), dataset.element_spec[1]
    )
    # What is missing is known by what comes after it; at the end that is an empty group.
    end = tf.data.Dataset.from_tensors((np.int64(groups + 1), nothing))
    dataset = dataset.concatenate(end).scan(np.int64(0), after).flat_map(complete)
    dataset = dataset.rebatch(plan.batch_size, plan.full)
    batches = len(plan.part) / plan.batch_size
    batches = math.floor(batches) if plan.full else math.ceil(batches)
    return dataset.apply(tf.data.experimental.assert_cardinality(batches))


def count_damage(plan: Plan, damage: Damage, wanted: tf.Tensor, found: tf.Tensor) -> tf.Tensor:
    """Return the indices of a batch's images, once those that cannot be read are counted.

    Args:
        plan: The `tfbio.data.examples.Plan`.
        damage: A `Damage`, which names them and counts them.
        wanted: The positions wanted, an int64 tensor.
        found: The positions found, or −1.

    Returns:
        An int64 tensor: in training the images found, in evaluation those wanted. Running it
        raises a ValueError where too many are damaged.

    Example:
        >>> import tfbio.data.examples as examples
        >>> plan = examples.Plan(np.array([5, 6]), np.arange(2), None, "none", 2, True, False, 1)
        >>> damage = Damage("image {}".format, size=2, share=0.5)
        >>> wanted, found = tf.constant([0, 1], tf.int64), tf.constant([1, 1], tf.int64)
        >>> count_damage(plan, damage, wanted, found).numpy()
        array([6, 6])
    """
    count, reach = len(plan.rows), _reach(plan)
    evaluation, order = plan.evaluation, tf.constant(plan.rows)

    # TensorFlow keeps this function for ever: it must hold no array of an epoch's length.
    def note(wanted, found, candidates):
        for position, place, rows in zip(wanted, found, candidates, strict=True):
            damage.add(rows[: reach if place < 0 else (place - position) % count])
            if place < 0 and not evaluation:
                raise BatchError(
                    f"{damage.name(rows[0])}{damage.reason} The {reach - 1} images after it are "
                    "damaged, too."
                )
        return np.int64(0)

    def damaged():
        candidates = tf.gather(order, (wanted[:, None] + np.arange(reach)) % count)
        return tf.numpy_function(note, [wanted, found, candidates], tf.int64)

    whole = tf.cond(tf.reduce_all(wanted == found), lambda: tf.constant(0, tf.int64), damaged)
    with tf.control_dependencies([whole]):  # an index of -1 would be an error of its own
        return tf.gather(order, wanted if evaluation else found)


def _one_after_another(read, blank):
    """Return the function `several` of `read_images` that reads one image after another."""
    kind = tf.nest.map_structure(tf.type_spec_from_value, blank())

    def several(rows, draws):
        return tf.map_fn(lambda each: read(*each), (rows, draws), fn_output_signature=kind)

    return several


def _reach(plan):
    return 1 if plan.evaluation else min(_SUBSTITUTES, len(plan.rows))
