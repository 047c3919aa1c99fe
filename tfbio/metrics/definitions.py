"""Angle, norm ratio and sign agreement of two matrices: their definitions."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf


def angle(w: Any, b: Any) -> float:
    """Return the angle between two matrices taken as vectors, in degrees.

    ``∠(W, B) = arccos(⟨vec W, vec B⟩ / (‖W‖‖B‖))``, computed in float64 as
    ``2·atan2(‖u − v‖, ‖u + v‖)`` of the unit vectors u and v, which stays exact near 0° and 180°.

    Args:
        w: An array or tensor.
        b: One of the same number of entries.

    Returns:
        Degrees of 0 to 180, a float; NaN where either is all zero, since it has no direction.

    Example:
        >>> angle([1.0, 0.0], [0.0, 2.0])
        90.0

    References:
        Kahan 2006, "How futile are mindless assessments of roundoff in floating-point
        computation?", section 12.
    """
    u, v = (np.asarray(each, np.float64).ravel() for each in (w, b))
    norms = np.linalg.norm(u), np.linalg.norm(v)
    if not all(norms):
        return math.nan
    u, v = u / norms[0], v / norms[1]
    return math.degrees(2.0 * math.atan2(np.linalg.norm(u - v), np.linalg.norm(u + v)))


def norm_ratio(w: Any, b: Any) -> float:
    """Return ``‖B‖ / ‖W‖``, Frobenius norms in float64; NaN where W is all zero.

    Example:
        >>> norm_ratio([3.0, 4.0], [10.0, 0.0])
        2.0
    """
    w, b = (np.linalg.norm(np.asarray(each, np.float64)) for each in (w, b))
    return float(b / w) if w else math.nan


def agreement(w: Any, b: Any) -> float:
    """Return the share of entries with ``sign(B) = sign(W)``.

    Example:
        >>> agreement([1.0, -1.0, 2.0, 0.0], [5.0, 1.0, 1.0, 0.0])
        0.75
    """
    return float(np.mean(np.sign(np.asarray(w)) == np.sign(np.asarray(b))))


def angle_of_tensors(us: Sequence[tf.Tensor], vs: Sequence[tf.Tensor]) -> tf.Tensor:
    """Return `angle` where the data are, in TensorFlow's operations, for vectors given in pieces.

    Args:
        us: A list of tensors, which make up one vector together.
        vs: A list of as many, of the same shapes.

    Returns:
        Degrees, a float64 scalar tensor; NaN where either vector is all zero.

    Example:
        >>> print(angle_of_tensors([tf.ones(1), tf.zeros(1)], [tf.zeros(1), tf.ones(1)]).numpy())
        90.0
    """
    us, vs = ([tf.cast(tf.reshape(t, [-1]), tf.float64) for t in each] for each in (us, vs))
    us, vs = ([t / norm for t in each] for each, norm in ((us, norm_of(us)), (vs, norm_of(vs))))
    apart = norm_of([u - v for u, v in zip(us, vs, strict=True)])
    together = norm_of([u + v for u, v in zip(us, vs, strict=True)])
    return 2.0 * tf.atan2(apart, together) * (180.0 / math.pi)


def norm_of(tensors: Sequence[tf.Tensor]) -> tf.Tensor:
    """Return the Frobenius norm of tensors taken together, a float64 scalar tensor.

    Args:
        tensors: A list of tensors.

    Example:
        >>> print(norm_of([tf.constant([3.0]), tf.constant([[4.0]])]).numpy())
        5.0
    """
    squares = [tf.reduce_sum(tf.square(tf.cast(tensor, tf.float64))) for tensor in tensors]
    return tf.sqrt(tf.add_n(squares))
