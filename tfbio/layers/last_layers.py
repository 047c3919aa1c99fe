"""The last layers: every kernel layer with no other kernel layer between it and an output."""

import functools

import keras
import tensorflow as tf

from tfbio.layers import context
from tfbio.layers.connections import find_kernel_layers, stopped_inputs, trace


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
    found = find_kernel_layers(model) if model.built else {}
    try:
        reached = _depends_directly(model, found)
    except ValueError as error:
        raise ValueError(
            f"The last layers of model {model.name!r} cannot be found: {error}"
        ) from error
    if not reached:
        raise ValueError(
            f"The last layers of model {model.name!r} cannot be found: no output has a gradient "
            "for any kernel, as where it is rounded or an index, or where `call` is compiled by "
            "itself."
        )
    return {name: found[name] for name in reached}


def _depends_directly(model, layers):
    """Return the names of those of `layers` that an output of `model` depends on directly.

    Traced, never run: each layer's input is stopped for the time of the trace, so that a gradient
    reaches only the weights that lie between the outputs and the next kernel layers.
    """
    reached = []
    variables = {name: [v.value for v in layer.variables] for name, layer in layers.items()}

    def differentiate(arguments, keywords, training):
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(variables)
            # Under direct feedback every hidden layer would hear from the output.
            with context.within(rewired=False):
                outputs = tf.nest.flatten(model(*arguments, **keywords, training=training))
            outputs = [output for output in outputs if output.dtype.is_floating]
        for name, gradients in tape.gradient(outputs, variables).items():
            if name not in reached and any(gradient is not None for gradient in gradients):
                reached.append(name)

    with stopped_inputs(layers):
        for training in (False, True):  # an auxiliary head may be there in training only
            trace(model, functools.partial(differentiate, training=training))
    return reached
