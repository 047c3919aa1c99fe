"""A rule says what B is; a layer puts B where Wᵀ was; everything else is ordinary Keras."""

import keras

if keras.backend.backend() != "tensorflow":
    raise ImportError(
        "tfbio needs Keras on TensorFlow. Received: the backend "
        f"{keras.backend.backend()!r}, from KERAS_BACKEND or ~/.keras/keras.json."
    )

from tfbio import attacks, callbacks, layers, metrics, models, optimizers, rules
from tfbio.convert import convert
from tfbio.layers.true_gradient import true_gradient
from tfbio.summary import summary
from tfbio.version import __version__

__all__ = [
    "__version__",
    "attacks",
    "callbacks",
    "convert",
    "layers",
    "metrics",
    "models",
    "optimizers",
    "rules",
    "summary",
    "true_gradient",
]
