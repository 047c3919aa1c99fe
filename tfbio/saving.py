"""Saving: what a whole-model file cannot restore is refused, not lost.

Keras makes a model again from its layers' configs. A layer that makes its own sub-layers (an
attention layer, a block of the user's, a subclassed model) has none of their rules in its config,
and would come back on plain backpropagation without a word.
"""

import functools

from tfbio import walk
from tfbio.layers import FeedbackMixin


def guard(model):
    """Let every container below a model that would lose its sub-layers' rules refuse its config.

    `model.save`, `clone_model`, `copy.deepcopy` and pickling then raise; weights are saved, and
    loaded into a model that was built and converted again, as ever.

    Args:
        model: A converted Keras model.

    Example:
        >>> import keras, tfbio
        >>> x = keras.Input((4, 3))
        >>> model = keras.Model(x, keras.layers.MultiHeadAttention(1, 2, name="attention")(x, x))
        >>> keras.models.clone_model(tfbio.convert(model, "sign_symmetry"))
        Traceback (most recent call last):
        ...
        ValueError: Layer 'attention' of class MultiHeadAttention makes its own sub-layers...
    """
    containers = [
        layer
        for layer in (model, *walk.layers(model).values())
        if not isinstance(layer, FeedbackMixin)
    ]
    for container in containers:
        if isinstance(vars(container).get("get_config"), _Refusal):
            del container.get_config
    # First all are looked at, then any refuses: a config holds those of the layers below.
    forgetful = [container for container in containers if _forgets(container)]
    for container in forgetful:
        container.get_config = _Refusal(_refuse, container)


class _Refusal(functools.partial):
    """Marks what `guard` has put in a container, so that it can take it away again."""


def _refuse(container):
    raise ValueError(
        f"Layer {container.name!r} of class {type(container).__name__} makes its own sub-layers, "
        "whose learning rules its config does not hold: a copy or a reloaded file would be on "
        "plain backpropagation. Save with model.save_weights('….weights.h5'); to restore, build "
        "the model, put it under the same rule with tfbio.convert, and load the weights."
    )


def _forgets(container):
    carriers = [child for child in container._layers if _carries_rule(child)]
    if not carriers:
        return False
    held = set(_described(_config(container)))
    return any((type(child).__name__, child.name) not in held for child in carriers)


def _carries_rule(layer):
    below = [layer, *walk.layers(layer).values()]
    return any(isinstance(each, FeedbackMixin) and not each.symmetric for each in below)


def _config(container):
    try:
        return container.get_config()
    except NotImplementedError:  # Keras's word for a subclass that has none
        return {}


def _described(config):
    """Yield (class name, name) of the layers that a nested config describes."""
    if isinstance(config, dict):
        inner = config.get("config")
        if isinstance(inner, dict) and "name" in inner:
            yield config.get("class_name"), inner["name"]
        else:
            for value in config.values():
                yield from _described(value)
    elif isinstance(config, list | tuple):
        for value in config:
            yield from _described(value)
