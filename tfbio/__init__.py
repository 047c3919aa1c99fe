"""A rule says what B is; a layer puts B where Wᵀ was; everything else is ordinary Keras."""

import keras

if keras.backend.backend() != "tensorflow":
    raise ImportError(
        "tfbio needs Keras on TensorFlow. Received: the backend "
        f"{keras.backend.backend()!r}, from KERAS_BACKEND or ~/.keras/keras.json."
    )

from tfbio import (
    attacks,
    callbacks,
    direct,
    last_layers,
    layers,
    metrics,
    models,
    modules,
    optimizers,
    rules,
    target_propagation,
)
from tfbio.convert import convert
from tfbio.gradients import true_gradient
from tfbio.summary import summary
from tfbio.version import __version__

__all__ = [
    "__version__",
    "attacks",
    "callbacks",
    "convert",
    "direct",
    "last_layers",
    "layers",
    "metrics",
    "models",
    "modules",
    "optimizers",
    "rules",
    "summary",
    "target_propagation",
    "true_gradient",
]
