"""Untied layers: a matrix of its own at every position, where a convolution has one for all."""

import math

import keras
from keras.src.backend import standardize_data_format
from keras.src.utils.argument_validation import standardize_tuple

from tfbio.layers.initialization import PerPosition


class Untied(keras.layers.Layer):
    """What locally connected layers and their transposes share: arguments, weights, bias.

    A subclass has a `rank` and defines `make_windows`, `matrix_shape`, `result` and `linear`; see
    `tfbio.layers.LocallyConnected2D` for the arguments.
    """

    rank = None
    _transposed = False  # whether a position's matrix maps its last dimension to its first

    def __init__(
        self,
        filters,
        kernel_size,
        strides=1,
        padding="valid",
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
        super().__init__(activity_regularizer=activity_regularizer, **kwargs)
        (self.filters,) = standardize_tuple(filters, 1, "filters")
        self.kernel_size = standardize_tuple(kernel_size, self.rank, "kernel_size")
        self.strides = standardize_tuple(strides, self.rank, "strides")
        if padding not in ("valid", "same"):
            raise ValueError(f"`padding` must be 'valid' or 'same'. Received: padding={padding!r}.")
        self.padding = padding
        self.data_format = standardize_data_format(data_format)
        self.activation = keras.activations.get(activation)
        self.use_bias = use_bias
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.bias_regularizer = keras.regularizers.get(bias_regularizer)
        self.kernel_constraint = keras.constraints.get(kernel_constraint)
        self.bias_constraint = keras.constraints.get(bias_constraint)
        self.input_spec = keras.layers.InputSpec(ndim=self.rank + 2)

    def make_windows(self, size):
        """Return the `Windows` of the layer for an input of spatial extents `size`."""
        raise NotImplementedError(f"{type(self).__name__} must define `make_windows(size)`.")

    def matrix_shape(self, channels):
        """Return the shape of one position's matrix, for an input of so many channels."""
        raise NotImplementedError(f"{type(self).__name__} must define `matrix_shape(channels)`.")

    def result(self, windows):
        """Return the spatial extents of the output."""
        raise NotImplementedError(f"{type(self).__name__} must define `result(windows)`.")

    def linear(self, inputs, kernel):
        """Return the layer's output for `inputs` with `kernel`, before bias and activation."""
        raise NotImplementedError(f"{type(self).__name__} must define `linear(inputs, kernel)`.")

    def build(self, input_shape):
        """Make the weights for inputs of one shape, all but the batch known."""
        size, channels = self._split(input_shape)
        self.windows = self.make_windows(size)
        matrix = self.matrix_shape(channels)
        self.kernel = self.add_weight(
            name="kernel",
            shape=(math.prod(self.windows.positions), *matrix),
            initializer=PerPosition(self.kernel_initializer, self._transposed),
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
        )
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(
                name="bias",
                shape=(*self.result(self.windows), self.filters),
                initializer=self.bias_initializer,
                regularizer=self.bias_regularizer,
                constraint=self.bias_constraint,
            )
        self.input_spec = keras.layers.InputSpec(shape=(None, *input_shape[1:]))

    def call(self, inputs):
        """Compute the layer's output from `inputs`."""
        return self.activate(self.linear(inputs, self.kernel))

    def activate(self, outputs):
        """Return ``activation(outputs + b)``, b the layer's bias of every position and filter."""
        if self.bias is not None:
            last = self.data_format == "channels_last"
            outputs += self.bias if last else keras.ops.moveaxis(self.bias, -1, 0)
        return outputs if self.activation is None else self.activation(outputs)

    def compute_output_shape(self, input_shape):
        """Return the shape of the output for an input shape; errors are `build`'s."""
        size, _ = self._split(input_shape)
        extents = self.result(self.make_windows(size))
        if self.data_format == "channels_last":
            return (input_shape[0], *extents, self.filters)
        return (input_shape[0], self.filters, *extents)

    def get_config(self):
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

    def _split(self, input_shape):
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
