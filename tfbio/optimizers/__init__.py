"""Optimizers as the papers have them: the published SGD, and the variants of Liao et al. 2016."""

from __future__ import annotations

from typing import TYPE_CHECKING

import keras

from tfbio._arguments import check_number, suggest
from tfbio.optimizers.descents import VariantAdam, VariantRMSprop, VariantSGD
from tfbio.optimizers.exceptions import Exceptions
from tfbio.optimizers.feedback import Feedback
from tfbio.optimizers.last_layer import LastLayer
from tfbio.optimizers.loss_scale import LossScale
from tfbio.optimizers.norms import KeepNorm, keep_norms

if TYPE_CHECKING:
    from keras.optimizers.schedules import LearningRateSchedule

    from tfbio.optimizers.variants import Variants

WITH_MOMENTUM = ("sgd", "nesterov", "rmsprop")
"""The names of those that take a momentum."""

_NAMES = (*WITH_MOMENTUM, "adam", "adamw")

__all__ = [
    "WITH_MOMENTUM",
    "Exceptions",
    "Feedback",
    "KeepNorm",
    "LastLayer",
    "LossScale",
    "VariantAdam",
    "VariantRMSprop",
    "VariantSGD",
    "get",
    "keep_norms",
    "names",
]


def __dir__():
    return __all__


def names() -> tuple[str, ...]:
    """Return the names that `get` knows.

    Example:
        >>> names()
        ('sgd', 'nesterov', 'rmsprop', 'adam', 'adamw')
    """
    return _NAMES


def get(
    name: str,
    learning_rate: float | LearningRateSchedule,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    batch_manhattan: bool = False,
    no_sign_change: bool = False,
    last_layer: LastLayer | None = None,
    clip_norm: float = 0.0,
    feedback: Feedback | None = None,
    exceptions: Exceptions | None = None,
) -> Variants:
    """Return an optimizer by name.

    Args:
        name: "sgd" or "nesterov" (`VariantSGD`), "rmsprop" (`VariantRMSprop`) or "adam"
            (`VariantAdam`), all with L2 in the gradient, or "adamw" (Adam with decoupled decay).
        learning_rate: A number greater than 0, or a Keras `LearningRateSchedule`.
        momentum: 0 or more and less than 1; for "nesterov" more than 0, for Adam 0: it has its own.
        weight_decay: λ, 0 or more.
        batch_manhattan: Whether the gradient's sign stands for the gradient.
        no_sign_change: Whether weights keep their signs; biases and betas are free.
        last_layer: A `LastLayer` with settings of its own for the last layer, None for the same.
        clip_norm: The greatest norm of all gradients together, 0 for any; a greater one is scaled
            down to it, before the decay is added.
        feedback: A `Feedback` with settings for matrices B that learn by a loss of their own; None
            for nothing special.
        exceptions: An `Exceptions` with what decay spares, and the biases' learning rate; None for
            no exceptions.

    Returns:
        An unbuilt `keras.optimizers.Optimizer`.

    Raises:
        ValueError: If the name is unknown, an argument out of its range, or a momentum given to an
            optimizer without one.
        TypeError: If `last_layer` is no `LastLayer`, `feedback` no `Feedback`, or `exceptions` no
            `Exceptions`.

    Example:
        >>> optimizer = get("sgd", 0.1, momentum=0.9, weight_decay=1e-4)
        >>> type(optimizer).__name__
        'VariantSGD'
    """
    if str(name) not in _NAMES:
        raise ValueError(
            f"Unknown optimizer {name!r}.{suggest(name, _NAMES)} Optimizers: {', '.join(_NAMES)}."
        )
    if not isinstance(learning_rate, keras.optimizers.schedules.LearningRateSchedule):
        learning_rate = check_number("learning_rate", learning_rate, above=0)
    momentum = check_number("momentum", momentum, low=0, below=1)
    if momentum and name not in WITH_MOMENTUM:
        raise ValueError(
            f"`momentum` must be 0 with {name!r}, whose moments are its own. "
            f"Received: {momentum!r}. With momentum: {', '.join(WITH_MOMENTUM)}."
        )
    check_number("clip_norm", clip_norm, low=0)
    options = {
        "weight_decay": weight_decay,
        "batch_manhattan": batch_manhattan,
        "no_sign_change": no_sign_change,
        "last_layer": last_layer,
        "feedback": feedback,
        "exceptions": exceptions,
        "global_clipnorm": clip_norm or None,
    }
    if name == "rmsprop":
        return VariantRMSprop(learning_rate, momentum, **options)
    if name in WITH_MOMENTUM:
        return VariantSGD(learning_rate, momentum, nesterov=name == "nesterov", **options)
    return VariantAdam(learning_rate, decoupled=name == "adamw", **options)
