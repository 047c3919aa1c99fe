"""Chance: all random numbers of data, pure functions of a seed, an epoch and a purpose."""

import numpy as np
import tensorflow as tf

# The last word of Philox's counter keeps the streams for different purposes apart.
ORDER, AUGMENTATION, HOLD_OUT, TEST, SHARE, CANVAS = range(6)


def bits(size: int, seed: int, epoch: int, purpose: int) -> np.ndarray:
    """Return random 64-bit integers, Philox's under the key (seed, epoch).

    NumPy promises that a bit generator's stream never changes, and promises no such thing of
    `numpy.random.Generator`: an epoch that is resumed elsewhere must meet the same order.

    Args:
        size: How many.
        seed: An integer of 0 to 2⁶⁴ − 1.
        epoch: Another.
        purpose: One of ORDER, AUGMENTATION, HOLD_OUT, TEST, SHARE and CANVAS.

    Returns:
        A uint64 array (size,).

    Example:
        >>> bits(3, seed=0, epoch=1, purpose=AUGMENTATION) % 9
        array([8, 2, 6], dtype=uint64)
    """
    return np.random.Philox(key=[seed, epoch], counter=[0, 0, 0, purpose]).random_raw(size)


def permutation(size: int, seed: int, epoch: int, purpose: int) -> np.ndarray:
    """Return a random order: the stable argsort of `bits`.

    Args:
        size: The number of examples.
        seed: As for `bits`.
        epoch: As for `bits`.
        purpose: As for `bits`.

    Returns:
        An int64 array of 0 to size − 1.

    Example:
        >>> permutation(8, seed=0, epoch=1, purpose=ORDER)
        array([5, 3, 7, 2, 4, 1, 0, 6])
    """
    return np.argsort(bits(size, seed, epoch, purpose), kind="stable")


class Draws:
    """Random numbers one after the other, of one thing that is drawn.

    Args:
        seed: An integer of 0 to 2⁶⁴ − 1.
        number: The thing's number, another such integer.
        purpose: As for `bits`.

    Example:
        >>> draws = Draws(0, 1, CANVAS)
        >>> 2 <= draws.between(2, 3) < 3, draws.below(5) in range(5)
        (True, True)
    """

    def __init__(self, seed: int, number: int, purpose: int):
        self._bits = iter(bits(4096, seed, number, purpose).tolist())

    def between(self, low: float, high: float) -> float:
        """Return a uniform number of [low, high)."""
        return low + (high - low) * (next(self._bits) >> 11) * 2.0**-53

    def below(self, count: int) -> int:
        """Return an integer of 0 to count − 1."""
        return next(self._bits) % count


def uniform(draws: tf.Tensor, count: int) -> tf.Tensor:
    """Return several uniform numbers from each of some random integers, by SplitMix64.

    Args:
        draws: 63 random bits each, an int64 tensor (N,).
        count: How many numbers to derive from each.

    Returns:
        A float32 tensor (N, count) of [0, 1).

    Example:
        >>> uniform(tf.constant([7], tf.int64), 2).numpy()
        array([[0.3898297 , 0.01678824]], dtype=float32)

    References:
        Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators".
    """
    steps = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    mixed = tf.cast(draws, tf.uint64)[:, None] + steps
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = tf.bitwise.bitwise_xor(mixed, tf.bitwise.right_shift(mixed, np.uint64(shift)))
        mixed *= np.uint64(factor)
    mixed = tf.bitwise.bitwise_xor(mixed, tf.bitwise.right_shift(mixed, np.uint64(31)))
    # As many bits as float32 holds.
    return tf.cast(tf.bitwise.right_shift(mixed, np.uint64(40)), tf.float32) * 2.0**-24


def choose_test(labels: np.ndarray, fraction: float) -> np.ndarray:
    """Return which examples are the test split of a dataset that has none: of each class alike.

    Args:
        labels: Integers (N,).
        fraction: The share of each class, rounded.

    Returns:
        A boolean array (N,), always the same for the same arguments.

    Example:
        >>> choose_test(np.array([0, 0, 0, 0, 1, 1, 1, 1]), 0.25)
        array([ True, False, False, False, False,  True, False, False])
    """
    chosen = np.zeros(len(labels), bool)
    for label in np.unique(labels).tolist():
        (members,) = np.nonzero(labels == label)
        order = permutation(len(members), 0, label, TEST)
        chosen[members[order[: round(fraction * len(members))]]] = True
    return chosen
