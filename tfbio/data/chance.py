"""Chance: random integers and orders that are pure functions of a seed, an epoch and a purpose."""

import numpy as np

# The last word of Philox's counter keeps the streams for different purposes apart.
ORDER, AUGMENTATION, HOLD_OUT, TEST, SHARE, CANVAS = range(6)


def bits(size, seed, epoch, purpose):
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


def permutation(size, seed, epoch, purpose):
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


def fixed_test(labels, fraction):
    """Return which examples are the test split of a dataset that has none: of each class alike.

    Args:
        labels: Integers (N,).
        fraction: The share of each class, rounded.

    Returns:
        A boolean array (N,), always the same for the same arguments.

    Example:
        >>> fixed_test(np.array([0, 0, 0, 0, 1, 1, 1, 1]), 0.25)
        array([ True, False, False, False, False,  True, False, False])
    """
    chosen = np.zeros(len(labels), bool)
    for label in np.unique(labels).tolist():
        (members,) = np.nonzero(labels == label)
        order = permutation(len(members), 0, label, TEST)
        chosen[members[order[: round(fraction * len(members))]]] = True
    return chosen
