"""Feedback layers whose operation is a convolution with one kernel."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import keras

from tfbio.layers.mixin import FeedbackMixin, feedback_twin
from tfbio.rules import Fans

if TYPE_CHECKING:
    import tensorflow as tf


class AnyConvolution(FeedbackMixin):
    """A layer ``y = activation(conv(x, W) + b)`` with a bias per channel; see `FeedbackMixin`."""

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Compute the layer's output from `inputs`."""
        if self.symmetric:
            return super().call(inputs)
        return self.respond(self.convolve(inputs))

    def respond(self, outputs: tf.Tensor) -> tf.Tensor:
        """Return ``activation(outputs + b)``, b the layer's bias per channel."""
        bias = self.clipped(self.bias_of_outputs())
        outputs = outputs if bias is None else keras.ops.add(outputs, bias)
        return outputs if self.activation is None else self.activation(outputs)

    def bias_of_outputs(self) -> tf.Tensor | None:
        """Return the bias per channel, shaped to be added to the outputs; None for none."""
        if self.bias is None:
            return None
        channels = self.bias.shape[0]
        last = self.data_format == "channels_last"
        shape = (1,) * (self.rank + 1) + (channels,)
        return keras.ops.reshape(self.bias, shape if last else (1, channels) + (1,) * self.rank)

    def convolve(self, inputs: tf.Tensor) -> tf.Tensor:
        """Return the convolution of `inputs`, before bias and activation."""
        return self.propagate(self.linear, inputs, self.sites()[0])


class Convolution(AnyConvolution):
    """A convolution with kernels of shape (…, channels in / groups, filters)."""

    def linear(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        """Return the convolution of `inputs` with `kernel`."""
        padding = self.padding
        if padding == "causal":
            before = self.dilation_rate[0] * (self.kernel_size[0] - 1)
            last = self.data_format == "channels_last"
            steps, channels = (before, 0), (0, 0)
            paddings = [(0, 0), steps, channels] if last else [(0, 0), channels, steps]
            inputs = keras.ops.pad(inputs, paddings)
            padding = "valid"
        return keras.ops.conv(
            inputs,
            kernel,
            strides=list(self.strides),
            padding=padding,
            dilation_rate=self.dilation_rate,
            data_format=self.data_format,
        )

    def fans(self, kernel_name: str) -> Fans:
        """Return (k·Cin/groups, k·Cout/groups), with k kernel positions."""
        *window, channels, filters = self.kernel.shape
        k = math.prod(window)
        return Fans(k * channels, k * filters // self.groups, self.groups, convolution=True)


class TransposedConvolution(AnyConvolution):
    """A transposed convolution, with kernels of shape (…, filters, channels in)."""

    def linear(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        """Return the transposed convolution of `inputs` with `kernel`."""
        return keras.ops.conv_transpose(
            inputs,
            kernel,
            strides=list(self.strides),
            padding=self.padding,
            output_padding=self.output_padding,
            dilation_rate=self.dilation_rate,
            data_format=self.data_format,
        )

    def fans(self, kernel_name: str) -> Fans:
        """Return (k·in, k·out), with k kernel positions."""
        *window, filters, channels = self.kernel.shape
        k = math.prod(window)
        return Fans(k * channels, k * filters, convolution=True)


class DepthwiseConvolution(AnyConvolution):
    """A depthwise convolution, with kernels of shape (…, channels, multiplier)."""

    def linear(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        """Return the depthwise convolution of `inputs` with `kernel`."""
        return keras.ops.depthwise_conv(
            inputs,
            kernel,
            strides=self.strides,
            padding=self.padding,
            dilation_rate=self.dilation_rate,
            data_format=self.data_format,
        )

    def fans(self, kernel_name: str) -> Fans:
        """Return (k, k·multiplier) in as many groups as channels."""
        *window, channels, multiplier = getattr(self, kernel_name).shape
        k = math.prod(window)
        return Fans(k, k * multiplier, groups=channels, convolution=True)


@feedback_twin
class FeedbackConv1D(Convolution, keras.layers.Conv1D):
    """`keras.layers.Conv1D` under a learning rule: ``∂x = conv_transpose(e, B)``.

    Shapes: x (N, steps, channels), W and B (width, channels/groups, filters). Takes the arguments
    of `keras.layers.Conv1D` and `rule`; see `FeedbackMixin` for the equations and errors.

    Example:
        >>> import keras
        >>> layer = FeedbackConv1D(4, 3, padding="causal", rule="sign_symmetry")
        >>> layer(keras.ops.ones((1, 8, 2))).shape, layer.feedback.shape
        (TensorShape([1, 8, 4]), TensorShape([3, 2, 4]))

    References:
        Liao, Leibo and Poggio 2016; Xiao et al. 2018.
    """


@feedback_twin
class FeedbackConv2D(Convolution, keras.layers.Conv2D):
    """`keras.layers.Conv2D` under a learning rule: ``∂x = conv_transpose(e, B)``.

    Shapes: x (N, height, width, channels), W and B (height, width, channels/groups, filters).
    Takes the arguments of `keras.layers.Conv2D` and `rule`; see `FeedbackMixin` for the equations
    and errors.

    Example:
        >>> import keras
        >>> layer = FeedbackConv2D(4, 3, strides=2, rule="sign_symmetry(scale='xiao')")
        >>> layer(keras.ops.ones((1, 8, 8, 2))).shape, layer.feedback.shape
        (TensorShape([1, 3, 3, 4]), TensorShape([3, 3, 2, 4]))

    References:
        Liao, Leibo and Poggio 2016; Xiao et al. 2018.
    """


@feedback_twin
class FeedbackConv3D(Convolution, keras.layers.Conv3D):
    """`keras.layers.Conv3D` under a learning rule: ``∂x = conv_transpose(e, B)``.

    Shapes: x (N, d1, d2, d3, channels), W and B (k1, k2, k3, channels/groups, filters). Takes the
    arguments of `keras.layers.Conv3D` and `rule`; see `FeedbackMixin` for the equations and errors.

    Example:
        >>> import keras
        >>> layer = FeedbackConv3D(4, 2, rule="feedback_alignment")
        >>> layer(keras.ops.ones((1, 3, 3, 3, 2))).shape, layer.feedback.shape
        (TensorShape([1, 2, 2, 2, 4]), TensorShape([2, 2, 2, 2, 4]))

    References:
        Liao, Leibo and Poggio 2016; Xiao et al. 2018.
    """


@feedback_twin
class FeedbackConv1DTranspose(TransposedConvolution, keras.layers.Conv1DTranspose):
    """`keras.layers.Conv1DTranspose` under a learning rule: ``∂x = conv(e, B)``.

    Shapes: x (N, steps, channels), W and B (width, filters, channels). Takes the arguments of
    `keras.layers.Conv1DTranspose` and `rule`; see `FeedbackMixin` for the equations and errors.

    Example:
        >>> import keras
        >>> layer = FeedbackConv1DTranspose(4, 3, strides=2, rule="sign_symmetry")
        >>> layer(keras.ops.ones((1, 8, 2))).shape, layer.feedback.shape
        (TensorShape([1, 17, 4]), TensorShape([3, 4, 2]))

    References:
        Liao, Leibo and Poggio 2016.
    """


@feedback_twin
class FeedbackConv2DTranspose(TransposedConvolution, keras.layers.Conv2DTranspose):
    """`keras.layers.Conv2DTranspose` under a learning rule: ``∂x = conv(e, B)``.

    Shapes: x (N, height, width, channels), W and B (height, width, filters, channels). Takes the
    arguments of `keras.layers.Conv2DTranspose` and `rule`; see `FeedbackMixin` for the equations
    and errors.

    Example:
        >>> import keras
        >>> layer = FeedbackConv2DTranspose(4, 3, strides=2, padding="same", rule="frsf")
        >>> layer(keras.ops.ones((1, 8, 8, 2))).shape, layer.feedback.shape
        (TensorShape([1, 16, 16, 4]), TensorShape([3, 3, 4, 2]))

    References:
        Liao, Leibo and Poggio 2016.
    """


@feedback_twin
class FeedbackConv3DTranspose(TransposedConvolution, keras.layers.Conv3DTranspose):
    """`keras.layers.Conv3DTranspose` under a learning rule: ``∂x = conv(e, B)``.

    Shapes: x (N, d1, d2, d3, channels), W and B (k1, k2, k3, filters, channels). Takes the
    arguments of `keras.layers.Conv3DTranspose` and `rule`; see `FeedbackMixin` for the equations
    and errors.

    Example:
        >>> import keras
        >>> layer = FeedbackConv3DTranspose(4, 2, rule="brsf")
        >>> layer(keras.ops.ones((1, 3, 3, 3, 2))).shape, layer.feedback.shape
        (TensorShape([1, 4, 4, 4, 4]), TensorShape([2, 2, 2, 4, 2]))

    References:
        Liao, Leibo and Poggio 2016.
    """


@feedback_twin
class FeedbackDepthwiseConv1D(DepthwiseConvolution, keras.layers.DepthwiseConv1D):
    """`keras.layers.DepthwiseConv1D` under a learning rule, channel by channel.

    Shapes: x (N, steps, channels), W and B (width, channels, multiplier). Takes the arguments of
    `keras.layers.DepthwiseConv1D` and `rule`; see `FeedbackMixin` for the equations and errors.

    Example:
        >>> import keras
        >>> layer = FeedbackDepthwiseConv1D(3, depth_multiplier=2, rule="sign_symmetry")
        >>> layer(keras.ops.ones((1, 8, 2))).shape, layer.feedback.shape
        (TensorShape([1, 6, 4]), TensorShape([3, 2, 2]))

    References:
        Liao, Leibo and Poggio 2016.
    """


@feedback_twin
class FeedbackDepthwiseConv2D(DepthwiseConvolution, keras.layers.DepthwiseConv2D):
    """`keras.layers.DepthwiseConv2D` under a learning rule, channel by channel.

    Shapes: x (N, height, width, channels), W and B (height, width, channels, multiplier). Takes
    the arguments of `keras.layers.DepthwiseConv2D` and `rule`; see `FeedbackMixin` for the
    equations and errors.

    Example:
        >>> import keras
        >>> layer = FeedbackDepthwiseConv2D(3, rule="sign_symmetry")
        >>> layer(keras.ops.ones((1, 8, 8, 2))).shape, layer.feedback.shape
        (TensorShape([1, 6, 6, 2]), TensorShape([3, 3, 2, 1]))

    References:
        Liao, Leibo and Poggio 2016.
    """
