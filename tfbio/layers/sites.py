"""Sites: the layers and kernels of a model, by names that say where they stand."""

from __future__ import annotations

import fnmatch
from typing import TYPE_CHECKING

import keras

from tfbio import _keras
from tfbio.layers.mixin import FeedbackMixin

if TYPE_CHECKING:
    from tfbio.layers.mixin import Site
    from tfbio.rules.rule import Rule

# Their matrices meet no error on its way down: an embedding's input is an index, the others act
# entry by entry, and activations and normalization keep their true derivatives.
_WITHOUT_KERNEL = (
    keras.layers.Embedding,
    keras.layers.PReLU,
    keras.layers.BatchNormalization,
    keras.layers.LayerNormalization,
    keras.layers.GroupNormalization,
    keras.layers.RMSNormalization,
)


def find_layers(model: keras.layers.Layer) -> dict[str, keras.layers.Layer]:
    """Return the layers below a model, at any depth and of any kind of model, each one once.

    Args:
        model: A Keras model or layer: functional, sequential, subclassed or nested.

    Returns:
        A dict from a unique name, the names on the way down joined by "/", to the layer, in the
        order in which the model tracks them.

    Raises:
        TypeError: If `model` is neither.

    Example:
        >>> import keras
        >>> inner = keras.Sequential([keras.layers.Dense(2, name="a")], name="inner")
        >>> list(find_layers(keras.Sequential([inner, keras.layers.Dense(1, name="b")])))
        ['inner', 'inner/a', 'b']
    """
    if not isinstance(model, keras.layers.Layer):
        raise TypeError(
            f"`model` must be a Keras model or layer. Received: {model!r} of type "
            f"{type(model).__name__}."
        )
    found, seen = {}, set()

    def visit(parent, prefix):
        for layer in _keras.get_sublayers(parent):
            if id(layer) in seen:
                continue
            seen.add(id(layer))
            name = unique = prefix + layer.name
            count = 1
            while unique in found:
                count += 1
                unique = f"{name}#{count}"
            found[unique] = layer
            visit(layer, unique + "/")

    visit(model, "")
    return found


def match_layers(model: keras.layers.Layer, pattern: str) -> dict[str, keras.layers.Layer]:
    """Return the layers with weights to train whose name matches a pattern.

    Args:
        model: A Keras model or layer.
        pattern: A name pattern as in a shell, such as "block2_*", matched against the names that
            `find_layers` returns.

    Returns:
        A dict from name to layer. The rules of feedback layers, which Keras counts as layers, are
        left out.

    Example:
        >>> import keras
        >>> layers = [keras.layers.Dense(2, name="a1"), keras.layers.ReLU(name="a2")]
        >>> list(match_layers(keras.Sequential([keras.Input((2,)), *layers]), "a*"))
        ['a1']
    """
    rules = {id(rule) for rule in find_rules(model)}
    return {
        name: layer
        for name, layer in find_layers(model).items()
        if fnmatch.fnmatchcase(name, pattern) and layer.trainable_variables
        if id(layer) not in rules
    }


def find_sites(model: keras.layers.Layer) -> dict[str, Site]:
    """Return the kernels of all feedback layers of a model.

    Args:
        model: A Keras model or layer.

    Returns:
        A dict from the layer's name (for a separable convolution, followed by "/depthwise" or
        "/pointwise") to its `tfbio.layers.Site`.

    Raises:
        ValueError: If the model has no feedback layer, or one that is not built.

    Example:
        >>> import keras, tfbio
        >>> layer = tfbio.layers.FeedbackDense(1, name="out")
        >>> list(find_sites(keras.Sequential([keras.Input((2,)), layer])))
        ['out']
    """
    found = {}
    candidates = {"": model} if isinstance(model, FeedbackMixin) else find_layers(model)
    for name, layer in candidates.items():
        if isinstance(layer, FeedbackMixin):
            if not layer.built:
                raise ValueError(
                    f"Layer {name or layer.name!r} is not built, so that it has no kernel yet. "
                    "Call the model on data, or model.build(input_shape)."
                )
            for site in layer.sites():
                found["/".join(filter(None, (name or layer.name, site.part)))] = site
    if not found:
        raise ValueError(
            f"{type(model).__name__} {model.name!r} has no feedback layer. Put it under a rule "
            "first, with tfbio.convert(model, rule)."
        )
    return found


def has_kernel(layer: keras.layers.Layer) -> bool:
    """Return whether a layer's own weights include a matrix that its error passes through.

    Args:
        layer: A built Keras layer or model; the layers below it are not looked at.

    Returns:
        True for a weight that is called a kernel or has two dimensions or more, unless the layer
        is of a kind known to pass no error through it.

    Example:
        >>> import keras
        >>> layer = keras.layers.BatchNormalization()
        >>> layer.build((None, 3))
        >>> has_kernel(layer)
        False
    """
    # Exactly these: a subclass may use its matrix in other ways (keras.layers.ReversibleEmbedding).
    if type(layer) in _WITHOUT_KERNEL:
        return False
    return any(
        "kernel" in variable.name or len(variable.shape) >= 2
        for variable in _keras.get_shallow_trainable_variables(layer)
    )


def find_without_twin(model: keras.Model) -> dict[str, keras.layers.Layer]:
    """Return the layers that have a kernel and are no feedback layers, the model itself included.

    Args:
        model: A built Keras model.

    Returns:
        A dict from name to layer, as `find_layers` names them; the model itself is "model:" and its
        name.

    Example:
        >>> import keras
        >>> list(find_without_twin(keras.Sequential([keras.Input((3, 2)), keras.layers.LSTM(1)])))
        ['lstm/lstm_cell']
    """
    layers = find_layers(model)
    rules = {id(rule) for rule in _rules_of([model, *layers.values()])}
    return {
        name: layer
        # A model's own name may be that of one of its layers; theirs have no colon.
        for name, layer in {f"model:{model.name}": model, **layers}.items()
        if has_kernel(layer) and not isinstance(layer, FeedbackMixin) and id(layer) not in rules
    }


def find_rules(model: keras.layers.Layer) -> list[Rule]:
    """Return the rules of all kernels below a model, built or not.

    Args:
        model: A Keras model or layer.

    Returns:
        A list of `tfbio.rules.Rule`.

    Example:
        >>> import keras, tfbio
        >>> layer = tfbio.layers.FeedbackDense(1, rule="brsf(seed=1)")
        >>> find_rules(keras.Sequential([keras.Input((2,)), layer]))
        [brsf(scale='match', seed=1)]
    """
    return _rules_of(find_layers(model).values())


def _rules_of(layers):
    layers = [layer for layer in layers if isinstance(layer, FeedbackMixin)]
    return [site.rule for layer in layers for site in layer.sites()]
