"""Locally connected layers: convolutions with a kernel of its own at every position."""

import math

import keras
import tensorflow as tf

from tfbio.layers.untied import Untied
from tfbio.layers.windows import Windows


class LocallyConnected(Untied):
    """A layer ``y_p = activation(W_pᵀ x_p + b_p)`` at each position p; see the classes below."""

    def make_windows(self, size):
        """Return the `Windows` of the layer's kernel on its input."""
        windows = Windows(size, self.kernel_size, self.strides, self.padding)
        if not all(windows.positions):
            raise ValueError(
                f"Layer {self.name!r} of class {type(self).__name__} has no position where its "
                "kernel fits: under padding='valid', `kernel_size` must be no larger than the "
                f"input. Received: kernel_size={self.kernel_size} for an input of extents {size}."
            )
        return windows

    def matrix_shape(self, channels):
        """Return (patch, filters)."""
        return math.prod(self.kernel_size) * channels, self.filters

    def result(self, windows):
        """Return the number of positions along each axis."""
        return windows.positions

    def linear(self, inputs, kernel):
        """Return ``W_pᵀ x_p`` at each position p."""
        patches = self.windows.extract(to_rows(inputs, self.data_format))
        outputs = tf.matmul(kernel, patches, transpose_a=True)
        return to_map(outputs, self.windows.positions, self.data_format)


def to_rows(inputs, data_format):
    """Return a batch of maps as a tensor (entries, channels, N).

    With the batch last, what belongs together is contiguous: to take an entry for a window copies
    all of its channels and examples at once, and every window is then a matrix (patch, N).

    Args:
        inputs: A tensor of maps, in one or two dimensions.
        data_format: "channels_last" or "channels_first".

    Example:
        >>> to_rows(tf.zeros((2, 5, 6, 3)), "channels_last").shape
        TensorShape([30, 3, 2])
    """
    rank = inputs.shape.rank
    first, channels = (1, rank - 1) if data_format == "channels_last" else (2, 1)
    spatial = range(first, first + rank - 2)
    rows = tf.transpose(inputs, (*spatial, channels, 0))
    entries = math.prod(inputs.shape[axis] for axis in spatial)
    return tf.reshape(rows, (entries, inputs.shape[channels], -1))


def to_map(rows, size, data_format):
    """Return a batch of maps from what `to_rows` makes of them.

    Args:
        rows: A tensor (entries, channels, N).
        size: The maps' spatial extents.
        data_format: "channels_last" or "channels_first".

    Example:
        >>> to_map(tf.zeros((30, 3, 2)), (5, 6), "channels_first").shape
        TensorShape([2, 3, 5, 6])
    """
    if data_format == "channels_last":
        return tf.reshape(tf.transpose(rows, (2, 0, 1)), (-1, *size, rows.shape[1]))
    return tf.reshape(tf.transpose(rows, (2, 1, 0)), (-1, rows.shape[1], *size))


@keras.saving.register_keras_serializable("tfbio")
class LocallyConnected1D(LocallyConnected):
    """A one-dimensional convolution with a kernel of its own at every step.

    Shapes: x (N, steps, channels), W (positions, width·channels, filters), bias
    (positions, filters), y (N, positions, filters). For the equation, arguments, errors and costs
    see `LocallyConnected2D`.

    Example:
        >>> layer = LocallyConnected1D(4, 3, strides=2)
        >>> layer(keras.ops.ones((1, 9, 2))).shape, layer.kernel.shape
        (TensorShape([1, 4, 4]), TensorShape([4, 6, 4]))

    References:
        Bartunov et al. 2018, "Assessing the scalability of biologically-motivated deep learning
        algorithms and architectures".
    """

    rank = 1


@keras.saving.register_keras_serializable("tfbio")
class LocallyConnected2D(LocallyConnected):
    """A two-dimensional convolution with a kernel of its own at every position.

    At each position p of the output, x_p the patch of the input that its window sees::

        y_p = activation(W_pᵀ x_p + b_p)

    With all W_p alike and all b_p alike it is `keras.layers.Conv2D`.

    Shapes: x (N, height, width, channels), W (positions, patch, filters), bias (*positions along
    either axis, filters), y (N, *positions along either axis, filters). Positions are in row-major
    order; a patch is kernel height · width · channels long, in that order; kernel and bias are the
    same under "channels_first". Weights that meet nothing but the zeros of "same" never act: they
    keep their first values.

    Cost: every entry of W is used N times in a step, by each example once, where a convolution's
    is used at every position as well. To read W, and to write its gradient, is what bounds the
    step at small batches; to copy the patches, kernel height · width / strides² times the input, is
    what it takes beside the arithmetic.

    Args:
        filters: The number of filters at each position.
        kernel_size, strides: An integer, or one per axis.
        padding: "valid", or "same": zeros around the input as TensorFlow's convolutions have them.
        data_format: "channels_last" or "channels_first"; None for Keras's setting.
        activation: Anything that `keras.activations.get` takes.
        use_bias: Whether there is a bias.
        kernel_initializer: Initializes each W_p as the kernel (patch, filters) of a dense layer.
        bias_initializer: Initializes the bias.
        kernel_regularizer, bias_regularizer, activity_regularizer: As in Keras.
        kernel_constraint, bias_constraint: As in Keras, of the whole arrays.
        **kwargs: Those of `keras.layers.Layer`.

    Raises:
        ValueError: If an argument is out of its range; when the layer is built, if not all extents
            of the input are known, or no window fits.

    Example:
        >>> layer = LocallyConnected2D(4, 3, strides=2, padding="same")
        >>> layer(keras.ops.ones((1, 7, 8, 2))).shape, layer.kernel.shape, layer.bias.shape
        (TensorShape([1, 4, 4, 4]), TensorShape([16, 18, 4]), TensorShape([4, 4, 4]))

    References:
        Bartunov et al. 2018, "Assessing the scalability of biologically-motivated deep learning
        algorithms and architectures".
    """

    rank = 2
