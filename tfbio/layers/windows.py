"""Windows: which entries of a map each position of a kernel sees, and which windows see an entry.

Both ways are tables of indices, made once for a map of fixed extents. To extract the windows and to
add them up where they overlap are each other's transpose, and so each other's gradient.
"""

import itertools
import math
from collections.abc import Sequence

import numpy as np
import tensorflow as tf


class Windows:
    """The windows of a kernel that moves over a map, as a convolution without dilation has them.

    Attributes:
        size: The map's spatial extents.
        positions: How many windows there are along each axis.
        inside: An array (windows, taps) that is False where a window hangs over the map's edge;
            windows and taps in row-major order.

    Args:
        size: The map's spatial extents, a tuple of integers.
        kernel_size: A window's extents, a tuple as long.
        strides: The steps between two windows, a tuple as long.
        padding: "valid", or "same" with TensorFlow's zeros: what is odd goes to the far side.

    Example:
        >>> windows = Windows((3,), (2,), (1,), "same")
        >>> windows.positions, windows.inside.tolist()
        ((3,), [[True, True], [True, True], [True, False]])
        >>> map_of_one_channel = tf.reshape([1.0, 2.0, 3.0], (3, 1, 1))
        >>> patches = windows.extract(map_of_one_channel)
        >>> print(patches[..., 0].numpy())
        [[1. 2.]
         [2. 3.]
         [3. 0.]]
        >>> print(windows.overlap(patches)[:, 0, 0].numpy())
        [1. 4. 6.]
    """

    def __init__(
        self, size: Sequence[int], kernel_size: Sequence[int], strides: Sequence[int], padding: str
    ):
        self.size = tuple(size)
        axes = [_axis(*each, padding) for each in zip(size, kernel_size, strides, strict=True)]
        self.positions = tuple(len(axis) for axis in axes)
        count, taps = int(np.prod(self.positions)), int(np.prod(kernel_size))
        # Each axis (windows, taps) in a pair of dimensions of its own; all windows then come first.
        order = [*range(0, 2 * len(axes), 2), *range(1, 2 * len(axes), 2)]
        entry, inside = np.zeros((), int), np.ones((), bool)
        for axis, extent in zip(axes, size, strict=True):
            entry = np.add.outer(entry * extent, axis)
            inside = np.logical_and.outer(inside, (axis >= 0) & (axis < extent))
        self.inside = inside.transpose(order).reshape(count, taps)
        entry = entry.transpose(order).reshape(count, taps)
        entries = int(np.prod(self.size))
        # One past the end stands for a row of zeros, see `_rows`.
        self._seen = np.where(self.inside, entry, entries).astype(np.int32)
        self._seeing = _inverse(self._seen.ravel(), entries)

    def extract(self, entries: tf.Tensor) -> tf.Tensor:
        """Return what each window sees of a map.

        Args:
            entries: A tensor (entries of the map in row-major order, channels, N).

        Returns:
            A tensor (windows, taps · channels, N), zero outside of the map. Example and order: see
            the class.
        """

        @tf.custom_gradient
        def extracted(entries):
            patches = _rows(entries, self._seen)
            windows, taps = self._seen.shape
            shape = (windows, taps * entries.shape[1], -1)
            # TensorFlow's own gradient would scatter: slow under XLA, and in no order on a GPU.
            return tf.reshape(patches, shape), self.overlap

        return extracted(entries)

    def overlap(self, patches: tf.Tensor) -> tf.Tensor:
        """Return the map that windows add up to, the transpose of `extract`.

        Args:
            patches: A tensor (windows, taps · channels, N).

        Returns:
            A tensor (entries of the map, channels, N).
        """

        @tf.custom_gradient
        def overlapped(patches):
            windows, taps = self._seen.shape
            rows = tf.reshape(patches, (windows * taps, patches.shape[1] // taps, -1))
            return tf.reduce_sum(_rows(rows, self._seeing), axis=1), self.extract

        return overlapped(patches)


def to_rows(inputs: tf.Tensor, data_format: str) -> tf.Tensor:
    """Return a batch of maps as a tensor (entries, channels, N).

    With the batch last, what belongs together is contiguous: to take an entry for a window copies
    all of its channels and examples at once, and every window is then a matrix (patch, N).

    Args:
        inputs: A tensor of maps, in one or two dimensions.
        data_format: "channels_last" or "channels_first".

    Example:
        >>> to_rows(tf.zeros((2, 5, 6, 3)), "channels_last").shape
        TensorShape([30, 3, 2])
    """
    rank = inputs.shape.rank
    first, channels = (1, rank - 1) if data_format == "channels_last" else (2, 1)
    spatial = range(first, first + rank - 2)
    rows = tf.transpose(inputs, (*spatial, channels, 0))
    entries = math.prod(inputs.shape[axis] for axis in spatial)
    return tf.reshape(rows, (entries, inputs.shape[channels], -1))


def to_map(rows: tf.Tensor, size: Sequence[int], data_format: str) -> tf.Tensor:
    """Return a batch of maps from what `to_rows` makes of them.

    Args:
        rows: A tensor (entries, channels, N).
        size: The maps' spatial extents.
        data_format: "channels_last" or "channels_first".

    Example:
        >>> to_map(tf.zeros((30, 3, 2)), (5, 6), "channels_first").shape
        TensorShape([2, 3, 5, 6])
    """
    if data_format == "channels_last":
        return tf.reshape(tf.transpose(rows, (2, 0, 1)), (-1, *size, rows.shape[1]))
    return tf.reshape(tf.transpose(rows, (2, 1, 0)), (-1, rows.shape[1], *size))


def _axis(size, kernel_size, stride, padding):
    """Return, for each window along one axis, the places that its taps fall on."""
    if padding == "same":
        count = -(-size // stride)
        before = max((count - 1) * stride + kernel_size - size, 0) // 2
    else:
        count, before = max((size - kernel_size) // stride + 1, 0), 0
    return stride * np.arange(count)[:, None] + np.arange(kernel_size) - before


def _inverse(seen, entries):
    """Return, for each entry, its places in `seen`, filled up with len(seen)."""
    order = np.argsort(seen, kind="stable")
    counts = np.bincount(seen, minlength=entries + 1)[:entries]
    table = np.full((entries, max(counts, default=0)), len(seen), np.int32)
    starts = itertools.accumulate(counts, initial=0)
    for row, start, count in zip(table, starts, counts, strict=False):
        row[:count] = order[start : start + count]
    return table


def _rows(tensor, indices):
    """Return the rows of a tensor, of which the one past the end is zero."""
    return tf.gather(tf.concat([tensor, tf.zeros_like(tensor[:1])], 0), indices)
