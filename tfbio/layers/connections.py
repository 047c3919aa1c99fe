"""Connections: which kernel layers stand directly below which, in any kind of model."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import keras
import tensorflow as tf

from tfbio import _keras
from tfbio.layers import context
from tfbio.layers.mixin import TWINS, FeedbackMixin
from tfbio.layers.sites import find_layers, find_without_twin

if TYPE_CHECKING:
    from collections.abc import Mapping


class Connections(NamedTuple):
    """How the kernel layers of a model stand to each other.

    Attributes:
        layers: A dict from name, as in `tfbio.layers.sites.find_layers`, to kernel layer. A
            recurrent layer counts as one with its cell.
        below: A dict from name to the names of the kernel layers directly below: those that the
            layer's input depends on without another kernel layer in between.
        learning_below: The names of the layers directly below which trainable weights of other
            layers stand, such as those of batch normalization or an embedding.
        last: The names of the layers directly below an output of the model.
    """

    layers: dict[str, keras.layers.Layer]
    below: dict[str, set[str]]
    learning_below: set[str]
    last: set[str]

    def above(self, name: str) -> set[str]:
        """Return the names of the kernel layers directly above one.

        Args:
            name: A kernel layer's name.
        """
        return {other for other, below in self.below.items() if name in below}


def find_connections(model: keras.Model) -> Connections:
    """Return how the kernel layers of a built model stand to each other.

    The model is traced as in training, never run, with a stop at the input of every kernel layer:
    the weights that a gradient still reaches from there are directly below. That holds for any kind
    of model, under a rule or not.

    Args:
        model: A built `keras.Model`.

    Returns:
        The `Connections`. A kernel layer called inside a `tf.while_loop` or `tf.map_fn` is taken to
        stand above all others.

    Raises:
        ValueError: If the model is not built, or cannot be traced.

    Example:
        >>> import keras
        >>> layers = [keras.layers.Dense(3, name=name) for name in ("first", "hidden", "out")]
        >>> found = find_connections(keras.Sequential([keras.Input((4,)), *layers]))
        >>> found.below, found.last
        ({'first': set(), 'hidden': {'first'}, 'out': {'hidden'}}, {'out'})
    """
    layers = find_kernel_layers(model)
    owner = {id(v): name for name, layer in layers.items() for v in layer.variables}
    # Of a recurrent layer and its cell, the weights are the outer layer's.
    for name, layer in layers.items():
        if isinstance(layer, keras.layers.RNN):
            owner.update((id(v), name) for v in layer.variables)
    variables = {id(v): v for layer in layers.values() for v in layer.variables}
    variables |= {id(v): v for v in model.trainable_variables}
    floats = {k: v for k, v in variables.items() if tf.as_dtype(v.dtype).is_floating}
    watched = {key: variable.value for key, variable in floats.items()}
    below: dict[str, set[str]] = {name: set() for name in layers}
    learning_below, last = set(), set()

    def differentiate(arguments, keywords):
        seen: list[tuple[str, Any]] = []
        with (
            tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape,
            stopped_inputs(layers, lambda name, inputs: seen.append((name, inputs))),
        ):
            tape.watch(watched)
            with context.within(rewired=False):
                outputs = model(*arguments, **keywords, training=True)
        graph = tf.compat.v1.get_default_graph()
        for name, inputs in [*seen, ("", outputs)]:
            tensors = [x for x in tf.nest.flatten(inputs, expand_composites=True) if _is_float(x)]
            if any(x.graph is not graph for x in tensors):
                below[name].update(set(layers) - {name})
                continue
            gradients = tape.gradient(tensors, watched) if tensors else {}
            reached = [key for key, gradient in gradients.items() if gradient is not None]
            names = {owner[key] for key in reached if key in owner}
            if not name:
                last.update(names)
                continue
            below[name].update(names)
            if any(key not in owner for key in reached):
                learning_below.add(name)

    trace(model, differentiate)
    return Connections(layers, below, learning_below, last)


def _is_float(x):
    return tf.is_tensor(x) and x.dtype.is_floating


def find_kernel_layers(model: keras.Model) -> dict[str, keras.layers.Layer]:
    """Return the layers of a model that have a kernel, the recurrent ones among them.

    Args:
        model: A built `keras.Model`.

    Returns:
        A dict from name, as in `tfbio.layers.sites.find_layers`, to layer.

    Example:
        >>> import keras
        >>> layers = [keras.Input((4,)), keras.layers.Dense(2, name="out"), keras.layers.ReLU()]
        >>> list(find_kernel_layers(keras.Sequential(layers)))
        ['out']
    """
    below = find_layers(model)
    found = {
        name: layer
        for name, layer in below.items()
        if isinstance(layer, FeedbackMixin) or (type(layer) in TWINS and layer.built)
    }
    others = find_without_twin(model).items()
    found |= {name: layer for name, layer in others if layer is not model}
    # A loop gives zeros for gradients that are stopped within it: stop before the loop.
    found |= {n: layer for n, layer in below.items() if isinstance(layer, keras.layers.RNN)}
    return {name: found[name] for name in below if name in found}


@contextlib.contextmanager
def stopped_inputs(
    layers: Mapping[str, keras.layers.Layer],
    see: Callable[[str, Any], Any] = lambda name, inputs: None,
) -> Iterator[None]:
    """Let no gradient pass below the input of layers that are called within.

    Args:
        layers: A dict from name to layer.
        see: Called with a layer's name and its inputs at each call, before the stop.

    Example:
        >>> import keras, tensorflow as tf
        >>> layer, x = keras.layers.Dense(1), tf.ones((1, 2))
        >>> _ = layer(x)
        >>> with stopped_inputs({"layer": layer}), tf.GradientTape() as tape:
        ...     tape.watch(x)
        ...     y = layer(x)
        >>> tape.gradient(y, x) is None
        True
    """

    def stopping(name, call):
        def stopped(inputs, *args, **kwargs):
            see(name, inputs)
            return call(tf.nest.map_structure(tf.stop_gradient, inputs), *args, **kwargs)

        return stopped

    kept = {name: vars(layer).get("call") for name, layer in layers.items()}
    try:
        for name, layer in layers.items():
            layer.call = stopping(name, layer.call)
        yield
    finally:
        for name, layer in layers.items():
            del layer.call
            if kept[name] is not None:
                layer.call = kept[name]


def trace(model: keras.Model, function: Callable[[tuple, dict], Any]) -> None:
    """Trace a function of what a model is called with; nothing is run.

    Args:
        model: A built `keras.Model`.
        function: A function of the positional arguments, a tuple of tensors or structures of them,
            and the keyword arguments.

    Raises:
        ValueError: If the model is not built, what it is called with is not known, or it cannot be
            traced.

    Example:
        >>> import keras
        >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        >>> trace(model, lambda arguments, keywords: print(arguments[0].shape))
        (None, 3)
    """
    if not model.built:
        raise ValueError(
            f"Model {model.name!r} cannot be traced: it is not built, so that it has no kernels "
            "yet. Call it on data, or model.build(input_shape), before."
        )

    @tf.function(autograph=False)
    def traced(arguments, keywords):
        # In a strategy's scope, variables have gradients on its replicas only.
        tf.distribute.get_strategy().run(function, (arguments, keywords))

    try:
        traced.get_concrete_function(*_input_specs(model))
    except (TypeError, ValueError, AttributeError, NotImplementedError) as error:
        raise ValueError(
            f"Model {model.name!r} cannot be traced with the inputs that it was built with "
            f"({type(error).__name__}: {error})."
        ) from error
    finally:
        # What the trace added to model.losses is a tensor of the trace.
        _keras.clear_losses(model)


def _input_specs(model):
    """Return what `model` is called with, as specs: positional arguments and keywords."""

    def spec(shape, dtype=model.input_dtype):
        return tf.TensorSpec(shape, dtype)

    if getattr(model, "inputs", None):
        inputs = model.inputs[0] if isinstance(model, keras.Sequential) else model.input
        return (keras.tree.map_structure(lambda x: spec(x.shape, x.dtype), inputs),), {}
    shapes = model.get_build_config() or {}
    if "input_shape" in shapes:
        return (_map_shapes(spec, shapes["input_shape"]),), {}
    if "shapes_dict" in shapes:
        return (), {
            name.removesuffix("_shape"): _map_shapes(spec, shape)
            for name, shape in shapes["shapes_dict"].items()
        }
    raise ValueError("what it is called with is not known; call it on data once before")


def _map_shapes(spec, shapes):
    return keras.tree.map_shape_structure(spec, shapes)
