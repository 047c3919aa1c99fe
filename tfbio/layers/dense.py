"""Feedback layers whose operation is a matrix product."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import keras

from tfbio.layers.mixin import FeedbackMixin, feedback_twin
from tfbio.rules import Fans

if TYPE_CHECKING:
    import tensorflow as tf


class MatrixProduct(FeedbackMixin):
    """A layer ``y = activation(x W + b)`` whose bias Keras adds as it is; see `FeedbackMixin`."""

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """Compute the layer's output from `inputs`."""
        if self.symmetric:
            return super().call(inputs, training=training)
        return self.respond(self.propagate(self.linear, inputs, self.sites()[0]))

    def respond(self, outputs: tf.Tensor) -> tf.Tensor:
        """Return ``activation(outputs + b)``, b the layer's bias."""
        if self.bias is not None:
            outputs = keras.ops.add(outputs, self.clipped(self.bias))
        return outputs if self.activation is None else self.activation(outputs)


@feedback_twin
class FeedbackDense(MatrixProduct, keras.layers.Dense):
    """`keras.layers.Dense` under a learning rule: ``y = xW + b``, ``∂x = e Bᵀ``.

    Shapes: x (…, in), W and B (in, units), y (…, units). Takes the arguments of
    `keras.layers.Dense` and `rule`; see `FeedbackMixin` for the equations and errors.

    Example:
        >>> import keras
        >>> layer = FeedbackDense(3, rule="feedback_alignment(scale='xavier')")
        >>> layer(keras.ops.ones((2, 4))).shape, layer.feedback.shape
        (TensorShape([2, 3]), TensorShape([4, 3]))

    References:
        Lillicrap et al. 2016; Liao, Leibo and Poggio 2016.
    """

    def linear(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        """Return ``inputs @ kernel``."""
        return keras.ops.matmul(inputs, kernel)

    def fans(self, kernel_name: str) -> Fans:
        """Return the kernel's dimensions (in, units)."""
        return Fans(*self.kernel.shape)


@feedback_twin
class FeedbackEinsumDense(MatrixProduct, keras.layers.EinsumDense):
    """`keras.layers.EinsumDense` under a learning rule: ``y = einsum(x, W) + b``.

    The error goes back by the same einsum's transpose, taken at B. Takes the arguments of
    `keras.layers.EinsumDense` and `rule`; see `FeedbackMixin` for the equations and errors.

    Example:
        >>> import keras
        >>> layer = FeedbackEinsumDense("abc,cd->abd", (None, 5), rule="sign_symmetry")
        >>> layer(keras.ops.ones((2, 3, 4))).shape, layer.feedback.shape
        (TensorShape([2, 3, 5]), TensorShape([4, 5]))

    References:
        Lillicrap et al. 2016; Liao, Leibo and Poggio 2016.
    """

    def linear(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        """Return the layer's einsum of `inputs` and `kernel`."""
        return keras.ops.einsum(self.equation, inputs, kernel)

    def fans(self, kernel_name: str) -> Fans:
        """Return the product of the dimensions summed over, and of the kernel's others."""
        operands, output = self.equation.replace(" ", "").split("->")
        labels = operands.split(",")[1].replace("...", "")
        sizes = dict(zip(labels, self.kernel.shape, strict=True))
        return Fans(
            math.prod(size for label, size in sizes.items() if label not in output),
            math.prod(size for label, size in sizes.items() if label in output),
        )
