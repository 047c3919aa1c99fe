"""Locally connected layers: convolutions with a kernel of its own at every position."""

import math
import operator
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from tfbio.layers.initialization import PerPosition
from tfbio.layers.windows import Windows, to_map, to_rows


def _to_tuple(value, count, name):
    """Return a positive integer, or a tuple of as many as asked for, as a tuple."""
    try:
        values = (value,) * count if isinstance(value, int) else tuple(map(operator.index, value))
    except (TypeError, ValueError):
        values = ()
    if len(values) != count or min(values) <= 0:
        raise ValueError(
            f"The `{name}` argument must be a tuple of {count} integers > 0. "
            f"Received: {name}={value!r}."
        )
    return values


class LocallyConnected(keras.layers.Layer):
    """A layer ``y_p = activation(W_pᵀ x_p + b_p)`` at each position p; see the classes below."""

    rank: int

    def __init__(
        self,
        filters: int,
        kernel_size: int | Sequence[int],
        strides: int | Sequence[int] = 1,
        padding: str = "valid",
        data_format: str | None = None,
        activation: Any = None,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        **kwargs: Any,
    ):
        super().__init__(activity_regularizer=activity_regularizer, **kwargs)
        (self.filters,) = _to_tuple(filters, 1, "filters")
        self.kernel_size = _to_tuple(kernel_size, self.rank, "kernel_size")
        self.strides = _to_tuple(strides, self.rank, "strides")
        if padding not in ("valid", "same"):
            raise ValueError(f"`padding` must be 'valid' or 'same'. Received: padding={padding!r}.")
        self.padding = padding
        self.data_format = str(data_format or keras.config.image_data_format()).lower()
        if self.data_format not in ("channels_first", "channels_last"):
            raise ValueError(
                "`data_format` must be 'channels_first' or 'channels_last'. "
                f"Received: data_format={data_format!r}."
            )
        self.activation = keras.activations.get(activation)
        self.use_bias = use_bias
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.bias_regularizer = keras.regularizers.get(bias_regularizer)
        self.kernel_constraint = keras.constraints.get(kernel_constraint)
        self.bias_constraint = keras.constraints.get(bias_constraint)
        self.input_spec = keras.layers.InputSpec(ndim=self.rank + 2)

    def make_windows(self, size: Sequence[int]) -> Windows:
        """Return the `Windows` of the layer's kernel on an input of spatial extents `size`."""
        windows = Windows(size, self.kernel_size, self.strides, self.padding)
        if not all(windows.positions):
            raise ValueError(
                f"Layer {self.name!r} of class {type(self).__name__} has no position where its "
                "kernel fits: under padding='valid', `kernel_size` must be no larger than the "
                f"input. Received: kernel_size={self.kernel_size} for an input of extents {size}."
            )
        return windows

    def linear(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        """Return ``W_pᵀ x_p`` at each position p."""
        patches = self.windows.extract(to_rows(inputs, self.data_format))
        outputs = tf.matmul(kernel, patches, transpose_a=True)
        return to_map(outputs, self.windows.positions, self.data_format)

    def build(self, input_shape: Sequence[int | None]) -> None:
        """Make the weights for inputs of one shape, all but the batch known."""
        size, channels = self._split(input_shape)
        self.windows = self.make_windows(size)
        patch = math.prod(self.kernel_size) * channels
        self.kernel = self.add_weight(
            name="kernel",
            shape=(math.prod(self.windows.positions), patch, self.filters),
            initializer=PerPosition(self.kernel_initializer),
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
        )
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(
                name="bias",
                shape=(*self.windows.positions, self.filters),
                initializer=self.bias_initializer,
                regularizer=self.bias_regularizer,
                constraint=self.bias_constraint,
            )
        self.input_spec = keras.layers.InputSpec(shape=(None, *input_shape[1:]))

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Compute the layer's output from `inputs`."""
        return self.activate(self.linear(inputs, self.kernel), self.bias)

    def activate(self, outputs: tf.Tensor, bias: Any) -> tf.Tensor:
        """Return ``activation(outputs + b)``, b of every position and filter, or None for none."""
        if bias is not None:
            last = self.data_format == "channels_last"
            outputs += bias if last else keras.ops.moveaxis(bias, -1, 0)
        return outputs if self.activation is None else self.activation(outputs)

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tuple[int | None, ...]:
        """Return the shape of the output for an input shape; errors are `build`'s."""
        size, _ = self._split(input_shape)
        extents = self.make_windows(size).positions
        if self.data_format == "channels_last":
            return (input_shape[0], *extents, self.filters)
        return (input_shape[0], self.filters, *extents)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments, from which `from_config` makes the layer again."""
        plain = ("filters", "kernel_size", "strides", "padding", "data_format", "use_bias")
        config = {**super().get_config(), **{name: getattr(self, name) for name in plain}}
        config["activation"] = keras.activations.serialize(self.activation)
        for part in ("kernel", "bias"):
            for kind in ("initializer", "regularizer", "constraint"):
                of_kind = getattr(keras, f"{kind}s")
                name = f"{part}_{kind}"
                config[name] = of_kind.serialize(getattr(self, name))
        regularizer = keras.regularizers.serialize(self.activity_regularizer)
        return {**config, "activity_regularizer": regularizer}

    def _split(self, input_shape) -> tuple[Any, Any]:
        """Return spatial extents and channels of an input shape, all of them known."""
        shape = tuple(input_shape)
        if len(shape) != self.rank + 2 or not all(shape[1:]):
            axes = {1: ["steps"], 2: ["height", "width"]}[self.rank]
            last = self.data_format == "channels_last"
            names = [*axes, "channels"] if last else ["channels", *axes]
            raise ValueError(
                f"Layer {self.name!r} of class {type(self).__name__} has weights for every "
                "position, and needs an input whose extents are all known and not 0: "
                f"(batch, {', '.join(names)}). Received: an input of shape {shape}."
            )
        *size, channels = shape[1:] if self.data_format == "channels_last" else (
            *shape[2:], shape[1]
        )  # fmt: skip
        return tuple(size), channels


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
