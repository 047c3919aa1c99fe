"""Backpropagation: B = W, the control of every experiment."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tfbio.rules.layer_rule import LayerRule
from tfbio.rules.registry import register

if TYPE_CHECKING:
    import tensorflow as tf


@register("backprop", aliases=("bp", "sham"))
class Backprop(LayerRule):
    """Backpropagation: ``B = W``, so that ``∂x = e Wᵀ``.

    A layer under this rule equals its Keras twin to the last bit, in outputs and gradients.

    Example:
        >>> import keras
        >>> Backprop().feedback(keras.ops.ones((1, 1))).shape
        TensorShape([1, 1])

    References:
        Rumelhart, Hinton and Williams 1986, "Learning representations by back-propagating errors".
    """

    symmetric = True

    def feedback(self, kernel: tf.Tensor) -> tf.Tensor:
        """Return W itself."""
        return kernel
