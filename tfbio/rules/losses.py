"""Losses: what is known of those that a model is compiled with, before they are differentiated."""

from typing import Any

import keras
import tensorflow as tf

from tfbio.losses import ClassificationLoss

_CLASSES = (keras.losses.SparseCategoricalCrossentropy, keras.losses.CategoricalCrossentropy)
_FUNCTIONS = (
    keras.losses.sparse_categorical_crossentropy,
    keras.losses.categorical_crossentropy,
)


def known(compiled: Any) -> list[tuple[Any, dict[str, Any] | None]]:
    """Return the losses that are Keras's or ours, and the options of those of a softmax.

    Args:
        compiled: What `compile` was given as loss: a loss, its name, a list or dict of them, None.

    Returns:
        A list of pairs (loss, options): a dict such as ``{"from_logits": True}`` if it is a
        softmax cross-entropy between the classes, None for any other. The user's own losses are
        left out, of which nothing is known.

    Example:
        >>> known(["sparse_categorical_crossentropy"])[0][1]
        {'from_logits': False}
        >>> known("mse")[0][1] is None
        True
        >>> known(lambda y, outputs: 0.0)
        []
    """
    found = []
    for loss in tf.nest.flatten(compiled):
        loss = keras.losses.get(loss) if isinstance(loss, str) else loss
        modules = (type(loss).__module__, getattr(loss, "__module__", ""))
        if isinstance(loss, ClassificationLoss):
            found.append((loss, {"from_logits": True} if loss.kind == "cross_entropy" else None))
        elif isinstance(loss, _CLASSES):
            found.append((loss, loss.get_config()))
        elif loss in _FUNCTIONS:
            found.append((loss, {"from_logits": False}))  # their default
        elif any(module.startswith("keras.") for module in modules):
            found.append((loss, None))
    return found
