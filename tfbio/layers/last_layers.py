"""The last layers: every kernel layer with no other kernel layer between it and an output."""

import keras
import tensorflow as tf

from tfbio import _keras
from tfbio.layers import context
from tfbio.layers.mixin import TWINS, FeedbackMixin
from tfbio.layers.sites import find_layers, find_without_twin


def find_last_layers(model: keras.Model) -> dict[str, keras.layers.Layer]:
    """Return the layers of a built model that stand last before its outputs.

    The model is traced, never run, with a stop at the input of every layer that has a kernel:
    those that the outputs still depend on, in training or not, are the last ones, whatever kind of
    model it is and whether or not it is under a rule or compiled.

    Args:
        model: A built `keras.Model`.

    Returns:
        A dict from name, as in `tfbio.layers.sites.find_layers`, to layer. A recurrent layer counts
        as one with its cell. Kernel layers inside a `tf.while_loop`, `tf.map_fn` or
        `tf.recompute_grad` all count as last if one does.

    Raises:
        TypeError: If `model` is no Keras model.
        ValueError: If the model is not built, or cannot be called because its inputs are not
            known, or no output depends on a kernel in a way that can be traced.

    Example:
        >>> import keras
        >>> x = keras.Input((4,))
        >>> h = keras.layers.Dense(3, "relu", name="hidden")(x)
        >>> heads = [keras.layers.Dense(2, name=name)(h) for name in ("a", "b")]
        >>> list(find_last_layers(keras.Model(x, heads)))
        ['a', 'b']
    """
    if not isinstance(model, keras.Model):
        raise TypeError(
            f"`model` must be a keras.Model. Received: {model!r} of type {type(model).__name__}."
        )
    if not model.built:
        raise ValueError(
            f"The last layers of model {model.name!r} cannot be found: it is not built, so that it "
            "has no kernels yet. Call it on data, or model.build(input_shape), before."
        )
    below = find_layers(model)
    stopped = {
        name: layer
        for name, layer in below.items()
        if isinstance(layer, FeedbackMixin) or (type(layer) in TWINS and layer.built)
    }
    others = find_without_twin(model).items()
    stopped |= {name: layer for name, layer in others if layer is not model}
    # A loop gives zeros for gradients that are stopped within it: stop before the loop.
    stopped |= {n: layer for n, layer in below.items() if isinstance(layer, keras.layers.RNN)}
    reached = _depends_directly(model, stopped)
    if not reached:
        raise ValueError(
            f"The last layers of model {model.name!r} cannot be found: no output has a gradient "
            "for any kernel, as where it is rounded or an index, or where `call` is compiled by "
            "itself."
        )
    return {name: stopped[name] for name in reached}


def _depends_directly(model, kernel_layers):
    """Return the names of those of `kernel_layers` that an output of `model` depends on directly.

    Traced, never run: each layer's input is stopped for the time of the trace, so that a gradient
    reaches only the weights that lie between the outputs and the next kernel layers.
    """
    reached = []
    variables = {name: [v.value for v in layer.variables] for name, layer in kernel_layers.items()}

    def differentiate(training, arguments, keywords):
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(variables)
            # Under direct feedback every hidden layer would hear from the output.
            with context.within(rewired=False):
                outputs = tf.nest.flatten(model(*arguments, **keywords, training=training))
            outputs = [output for output in outputs if output.dtype.is_floating]
        for name, gradients in tape.gradient(outputs, variables).items():
            if name not in reached and any(gradient is not None for gradient in gradients):
                reached.append(name)

    @tf.function(autograph=False)
    def trace(*inputs):
        # In a strategy's scope, variables have gradients on its replicas only.
        tf.distribute.get_strategy().run(differentiate, inputs)

    specs = _input_specs(model)
    kept = {name: vars(layer).get("call") for name, layer in kernel_layers.items()}
    try:
        for layer in kernel_layers.values():
            layer.call = _with_stopped_input(layer.call)
        for training in (False, True):  # an auxiliary head may be there in training only
            trace.get_concrete_function(training, *specs)
    except (TypeError, ValueError, AttributeError, NotImplementedError) as error:
        raise ValueError(
            f"The last layers of model {model.name!r} cannot be found: it cannot be traced with "
            f"the inputs that it was built with ({type(error).__name__}: {error})."
        ) from error
    finally:
        for name, layer in kernel_layers.items():
            del layer.call
            if kept[name] is not None:
                layer.call = kept[name]
        # What the trace added to model.losses is a tensor of the trace.
        _keras.clear_losses(model)
    return reached


def _with_stopped_input(call):
    def stopped(inputs, *args, **kwargs):
        return call(tf.nest.map_structure(tf.stop_gradient, inputs), *args, **kwargs)

    return stopped


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
    raise ValueError(
        f"The last layers of model {model.name!r} cannot be found: what it is called with is not "
        "known. Call it on data once before."
    )


def _map_shapes(spec, shapes):
    return keras.tree.map_shape_structure(spec, shapes)
