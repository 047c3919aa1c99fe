"""Random draws: pure functions of a saved key and of the step, alike on every device and replica.

Nothing here has a state. A rule saves a key, counts its steps (`LayerRule.make_draws`) and folds
the one into the other, so that all calls within a step see the same numbers, a loaded model goes on
with those it would have seen, and XLA draws what eager execution draws.
"""

import math
from typing import Any

import tensorflow as tf

_SPREAD = 0x1E3779B97F4A7C15
"""An odd number, whose multiples differ in all bits: the keys of micro-batches."""


def fold(key: Any, index: Any) -> tf.Tensor:
    """Return the key of the `index`-th draw.

    Args:
        key: Two integers, a tensor, variable or tuple.
        index: A scalar integer, of the step or of whatever is counted.

    Returns:
        Two integers, a tensor.

    Example:
        >>> bool(tf.reduce_all(fold((1, 2), 0) == fold((1, 2), 1)))
        False
    """
    return tf.random.experimental.stateless_fold_in(
        tf.convert_to_tensor(key), index, alg=tf.random.Algorithm.PHILOX
    )


def place(key: Any, step: Any, draw: Any, replica: Any = 0, part: Any = 0) -> tf.Tensor:
    """Return the key of one of many draws within a step; another one for each combination.

    Args:
        key: An integer, int64.
        step: The optimizer's steps before it.
        draw: The number of the draw within the step, less than 4096.
        replica: The replica that draws, less than 4096.
        part: The micro-batch of an accumulated gradient.

    Returns:
        Two integers, an int64 tensor.

    Example:
        >>> place(tf.constant(7, tf.int64), step=1, draw=2).numpy().tolist()
        [7, 16785408]
    """
    index = (tf.cast(step, tf.int64) * 4096 + tf.cast(draw, tf.int64)) * 4096
    return tf.stack([key + _SPREAD * part, index + tf.cast(replica, tf.int64)])


def uniform(shape: Any, key: Any, double: bool = False) -> tf.Tensor:
    """Draw from the open interval (−1, 1), alike eagerly, compiled and under XLA.

    Made from the generator's bits: TensorFlow's own floating-point draws differ between XLA and
    the rest for one and the same key, its bits do not.

    Args:
        shape: The shape to draw.
        key: Two integers, the seed of the stateless generator.
        double: Whether to draw 52 bits as float64, instead of 23 as float32.

    Returns:
        A tensor.

    Example:
        >>> bool(tf.reduce_all(tf.abs(uniform((100,), (1, 2))) < 1))
        True
    """
    integer, drop, dtype = (tf.uint64, 12, tf.float64) if double else (tf.uint32, 9, tf.float32)
    keep = 8 * integer.size - drop
    bits = tf.random.stateless_uniform(
        # Named, because "auto" may choose another generator on another kind of device.
        shape,
        key,
        minval=None,
        maxval=None,
        dtype=integer,
        alg=tf.random.Algorithm.PHILOX,
    )
    bits = tf.bitwise.right_shift(bits, tf.constant(drop, integer))
    return (tf.cast(bits, dtype) + 0.5) * 2.0 ** (1 - keep) - 1.0


def normal(shape: Any, key: Any, double: bool = False) -> tf.Tensor:
    """Draw from N(0, 1), by way of `uniform`, whose arguments and promise it has.

    Example:
        >>> abs(float(tf.math.reduce_std(normal((10000,), (1, 2)))) - 1) < 0.05
        True
    """
    return math.sqrt(2.0) * tf.math.erfinv(uniform(shape, key, double))
