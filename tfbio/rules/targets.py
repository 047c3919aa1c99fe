"""Targets: the labels and the loss's scale, read from the error of a softmax cross-entropy."""

import tensorflow as tf

MISTAKEN = (
    "`sign_dfa`, `direct_random_target_projection` and direct feedback of `error='outputs'` read "
    "the targets from the error at the logits, unless a loss of tfbio.losses gives them. The error "
    "must be that of a softmax cross-entropy with one class per example as target. It is not: take "
    "tfbio.losses.ClassificationLoss, called with the network's own outputs, or "
    "keras.losses.SparseCategoricalCrossentropy or CategoricalCrossentropy, without label "
    "smoothing or mixed labels, with from_logits=True unless the model ends in a softmax; or the "
    "rule direct_feedback_alignment, which takes any error."
)

# Of each type's normal numbers; below it digits are lost, or all of them.
_SMALLEST = {"float16": 2.0**-14, "bfloat16": 2.0**-126, "float32": 2.0**-126}
_SMALLEST |= {"float64": 2.0**-1022}


def recover(error: tf.Tensor, logits: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Return the one-hot targets behind an error, and the factor that the loss put on it.

    With p = softmax(logits), the error of example n is ``e_n = c_n (p_n − y_n)``. c holds the
    mean over the batch, weights of examples, the number of replicas and the loss scale. As
    ``e_nj = c_n p_nj`` off the target, whatever the precision, the ratio of the two sums off the
    target gives c_n without cancellation, however well the example is learned already. Where c_n
    is the batch's own ratio within rounding, or the example's error has underflowed, it is the
    batch's: equal weights give factors that are equal to the bit.

    The target is where e is negative; where no entry is, 1 − p has been rounded to 0 and it is
    the largest of the logits.

    Args:
        error: (N, classes), ∂L/∂logits.
        logits: (N, classes).

    Returns:
        (one-hot targets, c of shape (N, 1), whether the error is that of a softmax cross-entropy),
        the first two float32, or float64 if the logits are. An error that is not finite counts as
        one: an overflow under loss scaling is no mistake.

    Example:
        >>> logits = tf.constant([[2.0, 1.0, -1.0], [0.0, 0.5, 0.3]])
        >>> error = 0.5 * (tf.nn.softmax(logits) - tf.one_hot([0, 2], 3))
        >>> targets, factor, fits = recover(error, logits)
        >>> print(targets.numpy().tolist(), factor.numpy().ravel(), fits.numpy())
        [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]] [0.5 0.5] True
    """
    narrow = min(tf.as_dtype(error.dtype).size, tf.as_dtype(logits.dtype).size) < 4
    smallest = _SMALLEST[tf.as_dtype(error.dtype).name]
    dtype = tf.float64 if logits.dtype == tf.float64 else tf.float32
    e, z = tf.cast(error, dtype), tf.cast(logits, dtype)
    p = tf.nn.softmax(z)
    classes = z.shape[-1]
    found = tf.where(tf.reduce_min(e, -1) < 0, tf.argmin(e, -1), tf.argmax(z, -1))
    targets = tf.one_hot(found, classes, dtype=dtype)
    tails = [tf.reduce_sum((1 - targets) * each, -1, keepdims=True) for each in (e, p)]
    own = tf.math.divide_no_nan(*tails)
    batch = tf.math.divide_no_nan(*map(tf.reduce_sum, tails))
    # Keras computes its losses in float32, whatever the type of the logits.
    single = classes * _SMALLEST["float32"]
    known = (batch * tails[1] > max(classes * smallest, single)) & (tails[1] > single)
    close = tf.abs(own - batch) <= (0.03 if narrow else 1e-3) * batch
    factor = tf.where(known & ~close, own, tf.broadcast_to(batch, tf.shape(own)))
    rest = tf.reduce_sum(tf.abs(e - tf.where(known, own, batch) * (p - targets)))
    total = tf.reduce_sum(tf.abs(e))
    fits = (rest <= (0.05 if narrow else 0.01) * total) | ~tf.math.is_finite(total)
    return targets, factor, fits
