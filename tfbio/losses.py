"""Losses of classifiers, from logits: the softmax's cross-entropy, and two of sigmoid outputs.

With logits z, the one-hot target y and C classes, an example's loss is

===========================  ==============  ===================================================
name                         prediction p    loss
===========================  ==============  ===================================================
`cross_entropy`              softmax(z)      ``−Σ_j y_j log p_j``
`binary_cross_entropy`       σ(z)            ``−(1/C) Σ_j [y_j log p_j + (1 − y_j) log(1 − p_j)]``
`binary_cross_entropy_sum`   σ(z)            ``−Σ_j [y_j log p_j + (1 − y_j) log(1 − p_j)]``
`squared_error`              σ(z)            ``(1/C) Σ_j (p_j − y_j)²``
===========================  ==============  ===================================================

and its gradient with respect to the logits ``p − y``, ``(p − y)/C``, ``p − y`` and
``2(p − y)p(1 − p)/C``. All are computed from the logits in float32 or better, and never from a
rounded probability.

A network under a rule that learns from the targets themselves (`sign_dfa`,
`direct_random_target_projection`) puts a `Handover` on its outputs. These losses find it there and
hand over the targets, so that no target is lost where a float rounds the gradient to 0.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from tfbio import _keras

NAMES = ("cross_entropy", "binary_cross_entropy", "binary_cross_entropy_sum", "squared_error")


@keras.saving.register_keras_serializable("tfbio")
class ClassificationLoss(keras.losses.Loss):
    """One of the losses above, for `compile` or to call with (labels, logits).

    Args:
        kind: One of `NAMES`.
        name: The name that Keras gives the loss; None for `kind`.
        reduction: As Keras has it: "sum_over_batch_size" is the mean over the examples.
        dtype: The dtype of the computation; None for Keras's `floatx`, float32. The logits of a
            mixed-precision network are cast to it.

    Raises:
        ValueError: If there is no loss of that name.

    Example:
        >>> logits = tf.constant([[0.0, 0.0]])
        >>> [round(float(ClassificationLoss(name)([1], logits)), 4) for name in NAMES]
        [0.6931, 0.6931, 1.3863, 0.25]
    """

    def __init__(
        self,
        kind: str = "cross_entropy",
        name: str | None = None,
        reduction: str = "sum_over_batch_size",
        dtype: Any = None,
    ):
        if kind not in NAMES:
            raise ValueError(f"`loss` must be one of {', '.join(NAMES)}. Received: {kind!r}.")
        super().__init__(name=name or kind, reduction=reduction, dtype=dtype)
        self.kind = kind

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> tf.Tensor:
        """Return the reduced loss, and hand the targets over to a network that asks for them.

        Args:
            y_true: Labels: integers (B,) or (B, 1), or distributions (B, C).
            y_pred: Logits (B, C).
            sample_weight: Weights of the examples (B,), or None.
        """
        y_true = tf.convert_to_tensor(y_true)
        loss = super().__call__(y_true, y_pred, sample_weight)
        handover = Handover.find(y_pred)
        if handover is None:
            return loss
        return loss + handover.accept(self, y_true, sample_weight)

    def call(self, y_true: Any, y_pred: Any) -> tf.Tensor:
        """Return each example's loss (B,)."""
        return example_losses(self.kind, y_true, y_pred)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments."""
        return {**super().get_config(), "kind": self.kind}


def example_losses(kind: str, labels: Any, logits: tf.Tensor) -> tf.Tensor:
    """Return each example's loss.

    Args:
        kind: One of `NAMES`.
        labels: Integers (B,) or (B, 1), or distributions (B, C).
        logits: (B, C).

    Returns:
        A tensor (B,), float64 if the logits are, else float32.

    Example:
        >>> logits = tf.constant([[100.0, -100.0]])
        >>> print(example_losses("binary_cross_entropy_sum", [1], logits).numpy())
        [200.]
    """
    labels, logits = tf.convert_to_tensor(labels), _at_least_float32(logits)
    if kind == "cross_entropy":
        if len(labels.shape) < 2:
            return keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)
        y = to_targets(labels, logits)
        return keras.losses.categorical_crossentropy(y, logits, from_logits=True)
    y = to_targets(labels, logits)
    if kind == "squared_error":
        # 1 − σ(z) would lose what σ(−z) has.
        difference = tf.where(y == 1, -_sigmoid(-logits), _sigmoid(logits) - y)
        return tf.reduce_mean(tf.square(difference), axis=-1)
    each = y * tf.nn.softplus(-logits) + (1 - y) * tf.nn.softplus(logits)
    reduce = tf.reduce_sum if kind == "binary_cross_entropy_sum" else tf.reduce_mean
    return reduce(each, axis=-1)


def predictions(kind: str, logits: tf.Tensor) -> tf.Tensor:
    """Return the probabilities that a loss compares with the targets: softmax or sigmoid.

    Args:
        kind: One of `NAMES`.
        logits: (B, C).

    Example:
        >>> print(predictions("squared_error", tf.zeros((1, 3))).numpy())
        [[0.5 0.5 0.5]]
    """
    logits = _at_least_float32(logits)
    return tf.nn.softmax(logits) if kind == "cross_entropy" else tf.sigmoid(logits)


def log_slopes(kind: str, labels: Any, logits: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the gradient of each example's loss by its logits, as its sign and its logarithm.

    No entry underflows: the gradient is ``sign · exp(logarithm)``, but for a constant factor. That
    of `cross_entropy` is `tfbio.attacks`' margin.

    Args:
        kind: One of the losses of sigmoid outputs.
        labels: Integers (B,).
        logits: (B, C).

    Returns:
        (signs, logarithms), each (B, C).

    Example:
        >>> sign, log = log_slopes("binary_cross_entropy", [0], tf.constant([[200.0, -200.0]]))
        >>> print(sign.numpy(), log.numpy())
        [[-1.  1.]] [[-200. -200.]]
    """
    logits = _at_least_float32(logits)
    target = to_targets(labels, logits) == 1
    sign = tf.where(target, -tf.ones_like(logits), tf.ones_like(logits))
    away, towards = tf.math.log_sigmoid(sign * logits), tf.math.log_sigmoid(-sign * logits)
    return sign, 2 * away + towards if kind == "squared_error" else away


def to_targets(labels: Any, logits: tf.Tensor) -> tf.Tensor:
    """Return labels as targets in the logits' shape and dtype.

    Args:
        labels: Integers (B,) or (B, 1), or distributions (B, C) already.
        logits: (B, C).

    Returns:
        The targets. A label that is none of 0 to C − 1 gives NaN, as TensorFlow's own
        cross-entropy does on a GPU: a graph that XLA compiles cannot raise an error.

    Raises:
        ValueError: In eager mode, for such a label.

    Example:
        >>> print(to_targets([1, 0], tf.zeros((2, 3))).numpy())
        [[0. 1. 0.]
         [1. 0. 0.]]
    """
    labels, classes = tf.convert_to_tensor(labels), logits.shape[-1]
    if len(labels.shape) == 2 and labels.shape[1] == classes and classes > 1:
        return tf.cast(labels, logits.dtype)
    labels = tf.reshape(labels, [-1])
    classed = tf.cast(labels, tf.int64)
    known = (tf.cast(classed, labels.dtype) == labels) & (classed >= 0) & (classed < classes)
    if tf.executing_eagerly() and not tf.reduce_all(known):
        raise ValueError(
            f"Labels must be integers of 0 to {classes - 1}, for {classes} classes. "
            f"Received: {tf.boolean_mask(labels, ~known)[0].numpy()}."
        )
    targets = tf.one_hot(classed, classes, dtype=logits.dtype)
    return tf.where(known[:, None], targets, tf.constant(math.nan, logits.dtype))


class Given(NamedTuple):
    """What a loss hands over to a network; c is the factor that the objective puts on an example.

    Attributes:
        targets: ``c·y``, (B, C).
        factor: c, (B, 1): the mean over the batch, weights of examples, the loss scale.
        predictions: p, (B, C).
    """

    targets: tf.Tensor
    factor: tf.Tensor
    predictions: tf.Tensor


class Handover:
    """Zeros on a network's logits, along whose gradient a loss hands over targets and factor.

    The loss adds ``Σ_j y_j·0_j + 0_{C+1}`` to each example's, which is 0, and whose gradient with
    respect to the zeros is ``(c·y, c)``: c arrives exactly, whatever reduces, weights or scales the
    loss later.

    Args:
        zeros: A tensor (B, C + 1) of zeros.

    Attributes:
        loss: The `ClassificationLoss` that has handed its targets over, or None.

    Example:
        >>> logits, zeros = tf.constant([[90.0, 0.0]]), tf.zeros((1, 3))
        >>> with tf.GradientTape() as tape:
        ...     tape.watch(zeros)
        ...     handover = Handover(zeros)
        ...     handover.attach(logits)
        ...     loss = ClassificationLoss("cross_entropy")([0], logits)
        >>> float(loss), handover.given(logits, tape.gradient(loss, zeros)).targets.numpy()
        (0.0, array([[1., 0.]], dtype=float32))
    """

    attribute = "_tfbio_handover"

    def __init__(self, zeros: tf.Tensor):
        self.zeros = zeros
        self.loss: ClassificationLoss | None = None

    @classmethod
    def find(cls, outputs: Any) -> Handover | None:
        """Return the handover of a network's outputs, or None."""
        return getattr(outputs, cls.attribute, None)

    def attach(self, logits: tf.Tensor) -> None:
        """Put it on a network's outputs."""
        self.logits = logits
        setattr(logits, self.attribute, self)

    def accept(self, loss: ClassificationLoss, labels: Any, weights: Any) -> tf.Tensor:
        """Return 0, reduced as the loss is, whose gradient hands the targets over."""
        self.loss = loss
        y = to_targets(labels, self.zeros[:, :-1])
        rows = tf.concat([y, tf.ones_like(y[:, :1])], axis=1)
        zeros = self.zeros
        mask = _keras.get_mask(self.logits)
        if mask is not None:
            zeros = tf.identity(zeros)
            _keras.set_mask(zeros, mask)
        row_sum = _RowSum(name="handover", reduction=loss.reduction, dtype=loss.dtype)
        return row_sum(rows, zeros, weights)

    def given(self, logits: tf.Tensor, gradient: tf.Tensor) -> Given | None:
        """Return what arrived, or None if no loss of this module has been called."""
        if self.loss is None:
            return None
        p = predictions(self.loss.kind, logits)
        return Given(gradient[:, :-1], gradient[:, -1:], tf.cast(p, gradient.dtype))


class _RowSum(keras.losses.Loss):
    """``Σ_j y_j·x_j`` of each example, reduced as another loss."""

    def call(self, y_true, y_pred):
        return tf.reduce_sum(y_true * y_pred, axis=-1)


@tf.custom_gradient
def _sigmoid(x):
    """Return σ(x), whose derivative σ(x)σ(−x) does not round to 0 where σ(x) is 1."""
    y = tf.sigmoid(x)
    return y, lambda upstream: upstream * y * tf.sigmoid(-x)


def _at_least_float32(x):
    x = tf.convert_to_tensor(x)
    return x if x.dtype == tf.float64 else tf.cast(x, tf.float32)
