"""The box loss of RetinaNet, as its authors' code has it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras

if TYPE_CHECKING:
    import tensorflow as tf


@keras.saving.register_keras_serializable("tfbio")
class SmoothL1(keras.losses.Loss):
    """The smooth L1 loss of the four coordinates of a box, summed over them.

    For a difference d between a target and a prediction::

        loss(d) = d²/(2β) where |d| < β, else |d| − β/2

    and a box's loss is the sum over its coordinates. keras_cv's own ("smoothl1") has β = 1, and
    is the mean over the coordinates: a quarter.

    Args:
        beta: β, above 0. 0.11 is that of the RetinaNet paper's published code.
        **kwargs: Those of `keras.losses.Loss`; `reduction` is "sum" unless given, because
            `RetinaNet` gives each box the weight 1/(number of positive anchors).

    Raises:
        ValueError: If β is not above 0.

    Example:
        >>> loss = SmoothL1(beta=1.0)
        >>> float(loss([[0.0, 0.0, 0.0, 0.0]], [[0.5, -3.0, 0.0, 0.0]]))
        2.625

    References:
        Girshick 2015, "Fast R-CNN"; Lin et al. 2017, "Focal loss for dense object detection", and
        its code, Detectron.
    """

    def __init__(self, beta: float = 0.11, **kwargs: Any):
        kwargs = {"reduction": "sum", "name": "smooth_l1", **kwargs}
        super().__init__(**kwargs)
        if not beta > 0:
            raise ValueError(f"`beta` must be above 0. Received: {beta}.")
        self.beta = beta

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        """Return the loss of every box."""
        d = keras.ops.abs(keras.ops.subtract(y_true, y_pred))
        inner, outer = d * d / (2 * self.beta), d - self.beta / 2
        return keras.ops.sum(keras.ops.where(d < self.beta, inner, outer), axis=-1)

    def get_config(self) -> dict[str, Any]:
        """Return the loss's config."""
        return {**super().get_config(), "beta": self.beta}
