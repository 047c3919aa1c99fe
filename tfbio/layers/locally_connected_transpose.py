"""Transposed locally connected layers: from a locally connected layer's output to its input."""

import math

import keras
import tensorflow as tf
from keras.src.utils.argument_validation import standardize_tuple

from tfbio.layers.locally_connected import to_map, to_rows
from tfbio.layers.untied import Untied
from tfbio.layers.windows import Windows


class LocallyConnectedTranspose(Untied):
    """A layer that adds up ``V_p y_p`` where windows overlap; see the classes below."""

    _transposed = True

    def __init__(
        self,
        filters,
        kernel_size,
        strides=1,
        padding="valid",
        output_size=None,
        data_format=None,
        activation=None,
        use_bias=True,
        kernel_initializer="glorot_uniform",
        bias_initializer="zeros",
        kernel_regularizer=None,
        bias_regularizer=None,
        activity_regularizer=None,
        kernel_constraint=None,
        bias_constraint=None,
        **kwargs,
    ):
        super().__init__(
            filters,
            kernel_size,
            strides=strides,
            padding=padding,
            data_format=data_format,
            activation=activation,
            use_bias=use_bias,
            kernel_initializer=kernel_initializer,
            bias_initializer=bias_initializer,
            kernel_regularizer=kernel_regularizer,
            bias_regularizer=bias_regularizer,
            activity_regularizer=activity_regularizer,
            kernel_constraint=kernel_constraint,
            bias_constraint=bias_constraint,
            **kwargs,
        )
        if output_size is None:
            raise ValueError(
                f"{type(self).__name__} needs `output_size`, the spatial extents of its output: "
                "strides and padding leave them open. Received: output_size=None."
            )
        self.output_size = standardize_tuple(output_size, self.rank, "output_size")

    def make_windows(self, size):
        """Return the `Windows` on the output; the input must have one entry for each."""
        windows = Windows(self.output_size, self.kernel_size, self.strides, self.padding)
        if windows.positions != size:
            raise ValueError(
                f"Layer {self.name!r} of class {type(self).__name__} must have an input with one "
                f"entry for each window on its output, of extents {windows.positions} for "
                f"output_size={self.output_size}, kernel_size={self.kernel_size}, "
                f"strides={self.strides}, padding={self.padding!r}. "
                f"Received: an input of extents {size}."
            )
        return windows

    def matrix_shape(self, channels):
        """Return (patch, channels): kernel positions times filters, channels of the input."""
        return math.prod(self.kernel_size) * self.filters, channels

    def result(self, windows):
        """Return `output_size`."""
        return windows.size

    def linear(self, inputs, kernel):
        """Return the sum over all positions p of ``V_p y_p``, each where its window lies."""
        patches = tf.matmul(kernel, to_rows(inputs, self.data_format))
        return to_map(self.windows.overlap(patches), self.windows.size, self.data_format)

    def get_config(self):
        """Return the arguments, from which `from_config` makes the layer again."""
        return {**super().get_config(), "output_size": self.output_size}


@keras.saving.register_keras_serializable("tfbio")
class LocallyConnected1DTranspose(LocallyConnectedTranspose):
    """The transpose of `LocallyConnected1D`: from its output's shape to its input's.

    Shapes: y (N, positions, channels), V (positions, width·filters, channels), bias and result
    (…, steps, filters). For the equation, arguments and errors see `LocallyConnected2DTranspose`.

    Example:
        >>> layer = LocallyConnected1DTranspose(2, 3, strides=2, output_size=9)
        >>> layer(keras.ops.ones((1, 4, 4))).shape, layer.kernel.shape
        (TensorShape([1, 9, 2]), TensorShape([4, 6, 4]))

    References:
        Bartunov et al. 2018, "Assessing the scalability of biologically-motivated deep learning
        algorithms and architectures".
    """

    rank = 1


@keras.saving.register_keras_serializable("tfbio")
class LocallyConnected2DTranspose(LocallyConnectedTranspose):
    """The transpose of `LocallyConnected2D`: from its output's shape to its input's.

    What target propagation takes for the inverse of a locally connected layer. ``V_p y_p`` is a
    patch of the result, for each position p; patches add up where they overlap, and what hangs over
    the edge is dropped::

        x = activation(Σ_p place_p(V_p y_p) + c)

    V has the shape of the locally connected layer's W, and with V = W, no bias and no activation
    the two are adjoint: ``⟨f(x), y⟩ = ⟨x, g(y)⟩``.

    Shapes: y (N, *positions along either axis, channels), V (positions, patch, channels), result
    (N, *output_size, filters), bias (*output_size, filters). A patch is kernel height · width ·
    filters long, in that order.

    Args:
        filters: The number of channels of the result.
        kernel_size, strides, padding: Those of the locally connected layer.
        output_size: The spatial extents of the result, an integer or one per axis.
        kernel_initializer: Initializes each V_p as the transposed kernel (channels, patch) of a
            dense layer: its inputs are the channels of one position. Glorot's are then those of the
            locally connected layer with V's shape.
        data_format, activation, use_bias, bias_initializer, kernel_regularizer, bias_regularizer,
            activity_regularizer, kernel_constraint, bias_constraint, **kwargs: As for
            `LocallyConnected2D`.

    Raises:
        ValueError: If an argument is out of its range or `output_size` is left out; when the layer
            is built, if not all extents of the input are known, or they are not the number of
            positions on the result.

    Example:
        >>> layer = LocallyConnected2DTranspose(2, 3, 2, "same", output_size=(7, 8))
        >>> layer(keras.ops.ones((1, 4, 4, 4))).shape, layer.kernel.shape, layer.bias.shape
        (TensorShape([1, 7, 8, 2]), TensorShape([16, 18, 4]), TensorShape([7, 8, 2]))

    References:
        Bartunov et al. 2018, "Assessing the scalability of biologically-motivated deep learning
        algorithms and architectures".
    """

    rank = 2
