"""Feedback layers with two kernels: a depthwise convolution, then a pointwise one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import keras

from tfbio.layers.convolution import DepthwiseConvolution
from tfbio.layers.mixin import feedback_twin
from tfbio.rules import Fans

if TYPE_CHECKING:
    import tensorflow as tf


class SeparableConvolution(DepthwiseConvolution):
    """``y = activation(pointwise(depthwise(x, W_d), W_p) + b)``, each kernel with its own B.

    The error e reaches the depthwise output through B_p and the input through B_d.
    """

    kernel_names = ("depthwise_kernel", "pointwise_kernel")

    def convolve(self, inputs: tf.Tensor) -> tf.Tensor:
        """Return the separable convolution of `inputs`, before bias and activation."""
        depthwise, pointwise = self.sites()
        hidden = self.propagate(self.linear, inputs, depthwise)
        return self.propagate(self.pointwise, hidden, pointwise)

    def pointwise(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        """Return the 1×1 convolution of `inputs` with `kernel`."""
        # TensorFlow convolves channels_first on a GPU only; Keras transposes here as well.
        if self.data_format == "channels_first":
            inputs = keras.ops.moveaxis(inputs, 1, -1)
        outputs = keras.ops.conv(inputs, kernel, data_format="channels_last")
        if self.data_format == "channels_first":
            outputs = keras.ops.moveaxis(outputs, -1, 1)
        return outputs

    def fans(self, kernel_name: str) -> Fans:
        """Return (k, k·multiplier) for the depthwise kernel, (in, filters) for the pointwise."""
        if kernel_name == "depthwise_kernel":
            return super().fans(kernel_name)
        return Fans(*self.pointwise_kernel.shape[-2:], convolution=True)

    @property
    def depthwise_feedback(self) -> tf.Tensor:
        """The effective feedback matrix of the depthwise kernel, in its layout."""
        return self.sites()[0].feedback

    @property
    def pointwise_feedback(self) -> tf.Tensor:
        """The effective feedback matrix of the pointwise kernel, in its layout."""
        return self.sites()[1].feedback


@feedback_twin
class FeedbackSeparableConv1D(SeparableConvolution, keras.layers.SeparableConv1D):
    """`keras.layers.SeparableConv1D` under a learning rule, a feedback matrix for either kernel.

    Shapes: x (N, steps, channels), W_d and B_d (width, channels, multiplier), W_p and B_p
    (1, channels·multiplier, filters). Takes the arguments of `keras.layers.SeparableConv1D` and
    `rule`; see `FeedbackMixin` for the equations and errors.

    Example:
        >>> import keras
        >>> layer = FeedbackSeparableConv1D(4, 3, rule="sign_symmetry")
        >>> layer(keras.ops.ones((1, 8, 2))).shape, layer.pointwise_feedback.shape
        (TensorShape([1, 6, 4]), TensorShape([1, 2, 4]))

    References:
        Liao, Leibo and Poggio 2016.
    """


@feedback_twin
class FeedbackSeparableConv2D(SeparableConvolution, keras.layers.SeparableConv2D):
    """`keras.layers.SeparableConv2D` under a learning rule, a feedback matrix for either kernel.

    Shapes: x (N, height, width, channels), W_d and B_d (height, width, channels, multiplier), W_p
    and B_p (1, 1, channels·multiplier, filters). Takes the arguments of
    `keras.layers.SeparableConv2D` and `rule`; see `FeedbackMixin` for the equations and errors.

    Example:
        >>> import keras
        >>> layer = FeedbackSeparableConv2D(4, 3, rule="sign_symmetry")
        >>> layer(keras.ops.ones((1, 8, 8, 2))).shape, layer.depthwise_feedback.shape
        (TensorShape([1, 6, 6, 4]), TensorShape([3, 3, 2, 1]))

    References:
        Liao, Leibo and Poggio 2016.
    """
