"""Metrics of feedback: how far each B is from its W, in angle, norm and sign; pure functions."""

import math

import numpy as np
import tensorflow as tf

from tfbio import walk


def angle(w, b):
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


def norm_ratio(w, b):
    """Return ``‖B‖ / ‖W‖``, Frobenius norms in float64; NaN where W is all zero.

    Example:
        >>> norm_ratio([3.0, 4.0], [10.0, 0.0])
        2.0
    """
    w, b = (np.linalg.norm(np.asarray(each, np.float64)) for each in (w, b))
    return float(b / w) if w else math.nan


def agreement(w, b):
    """Return the share of entries with ``sign(B) = sign(W)``.

    Example:
        >>> agreement([1.0, -1.0, 2.0, 0.0], [5.0, 1.0, 1.0, 0.0])
        0.75
    """
    return float(np.mean(np.sign(np.asarray(w)) == np.sign(np.asarray(b))))


def weight_angles(model):
    """Return the angle between W and the effective B of every kernel, in degrees.

    Args:
        model: A built model with feedback layers.

    Returns:
        A dict from layer name, as `tfbio.summary` prints it, to degrees: 0 under backprop, about
        90 for a random B before training. Layers under direct feedback, which has no B of W's
        shape, are left out.

    Raises:
        ValueError: If the model has no feedback layer.

    Example:
        >>> import keras, tfbio
        >>> layer = tfbio.layers.FeedbackDense(2, rule="backprop", name="out")
        >>> weight_angles(keras.Sequential([keras.Input((2,)), layer]))
        {'out': 0.0}

    References:
        Lillicrap et al. 2016; Akrout et al. 2019, "Deep learning without weight transport".
    """
    return _per_site(model, angle)


def norm_ratios(model):
    """Return ``‖B‖ / ‖W‖`` of every kernel; see `weight_angles` for arguments and errors.

    Example:
        >>> import keras, tfbio
        >>> layer = tfbio.layers.FeedbackDense(2, rule="backprop", name="out")
        >>> norm_ratios(keras.Sequential([keras.Input((2,)), layer]))
        {'out': 1.0}
    """
    return _per_site(model, norm_ratio)


def sign_agreement(model):
    """Return the share of equal signs of every kernel; see `weight_angles`.

    Example:
        >>> import keras, tfbio
        >>> layer = tfbio.layers.FeedbackDense(2, rule="sign_symmetry", name="out")
        >>> sign_agreement(keras.Sequential([keras.Input((2,)), layer]))
        {'out': 1.0}
    """
    return _per_site(model, agreement)


def _per_site(model, measure):
    return {
        name: measure(tf.convert_to_tensor(site.kernel).numpy(), site.feedback.numpy())
        for name, site in walk.sites(model).items()
        # Direct feedback has no B of W's shape.
        if not site.rule.of_network
    }
