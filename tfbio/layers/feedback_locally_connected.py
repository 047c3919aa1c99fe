"""Feedback layers with a kernel of its own at every position."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import keras
import numpy as np

from tfbio.layers.locally_connected import LocallyConnected1D, LocallyConnected2D
from tfbio.layers.mixin import FeedbackMixin, feedback_twin
from tfbio.rules import Fans

if TYPE_CHECKING:
    import tensorflow as tf


class LocalConnection(FeedbackMixin):
    """A layer with a matrix W_p, and a B_p, at each position p; see `FeedbackMixin`."""

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Compute the layer's output from `inputs`."""
        if self.symmetric:
            return super().call(inputs)
        return self.respond(self.propagate(self.linear, inputs, self.sites()[0]))

    def respond(self, outputs: tf.Tensor) -> tf.Tensor:
        """Return ``activation(outputs + b)``, b the layer's bias of every position and filter."""
        return self.activate(outputs, self.clipped(self.bias))

    def bias_of_outputs(self) -> tf.Tensor | None:
        """Return the bias of every position and filter, as the outputs have them; None for none."""
        bias = super().bias_of_outputs()
        if bias is None or self.data_format == "channels_last":
            return bias
        return keras.ops.moveaxis(bias, -1, 0)

    def fans(self, kernel_name: str) -> Fans:
        """Return (k·in, k·filters), k kernel positions: a convolution's of the same shape.

        How many inputs an output sums over, and how many outputs an input reaches, does not depend
        on whether positions share their weights.
        """
        k = math.prod(self.kernel_size)
        _, patch, filters = self.kernel.shape
        return Fans(patch, k * filters, convolution=True)

    def acting(self, kernel_name: str) -> np.ndarray | None:
        """Return which entries act: not those that meet the zeros around the map alone."""
        _, patch, filters = self.kernel.shape
        inside = np.repeat(self.windows.inside, patch // self.windows.inside.shape[1], axis=1)
        return None if inside.all() else np.repeat(inside[..., None], filters, axis=2)


@feedback_twin
class FeedbackLocallyConnected1D(LocalConnection, LocallyConnected1D):
    """`LocallyConnected1D` under a learning rule: the error at each step goes back by its B_p.

    Shapes: x (N, steps, channels), W and B (positions, width·channels, filters). Takes the
    arguments of `LocallyConnected1D` and `rule`; see `FeedbackMixin` for the equations and errors.

    Example:
        >>> import keras
        >>> layer = FeedbackLocallyConnected1D(4, 3, rule="sign_symmetry")
        >>> layer(keras.ops.ones((1, 8, 2))).shape, layer.feedback.shape
        (TensorShape([1, 6, 4]), TensorShape([6, 6, 4]))

    References:
        Lillicrap et al. 2016; Bartunov et al. 2018.
    """


@feedback_twin
class FeedbackLocallyConnected2D(LocalConnection, LocallyConnected2D):
    """`LocallyConnected2D` under a learning rule: ``∂x = Σ_p place_p(B_p e_p)``.

    Shapes: x (N, height, width, channels), W and B (positions, patch, filters). Takes the arguments
    of `LocallyConnected2D` and `rule`; see `FeedbackMixin` for the equations and errors.

    Example:
        >>> import keras
        >>> layer = FeedbackLocallyConnected2D(4, 3, strides=2, rule="feedback_alignment")
        >>> layer(keras.ops.ones((1, 8, 8, 2))).shape, layer.feedback.shape
        (TensorShape([1, 3, 3, 4]), TensorShape([9, 18, 4]))

    References:
        Lillicrap et al. 2016; Bartunov et al. 2018.
    """
