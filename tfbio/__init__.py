"""A rule says what B is; a layer puts B where Wᵀ was; everything else is ordinary Keras."""

import importlib
from typing import TYPE_CHECKING

import keras

if keras.backend.backend() != "tensorflow":
    raise ImportError(
        "tfbio needs Keras on TensorFlow. Received: the backend "
        f"{keras.backend.backend()!r}, from KERAS_BACKEND or ~/.keras/keras.json."
    )

from tfbio import attacks, callbacks, layers, losses, metrics, models, networks, optimizers, rules
from tfbio.convert import convert
from tfbio.layers.true_gradient import true_gradient
from tfbio.summary import summary
from tfbio.version import __version__

if TYPE_CHECKING:
    from tfbio import data, detection, studies, training

__all__ = [
    "__version__",
    "attacks",
    "callbacks",
    "convert",
    "data",
    "detection",
    "layers",
    "losses",
    "metrics",
    "models",
    "networks",
    "optimizers",
    "rules",
    "studies",
    "summary",
    "training",
    "true_gradient",
]

_ON_FIRST_USE = ("data", "detection", "studies", "training")
"""Packages that `import tfbio` leaves out, for importing to stay light."""


def __getattr__(name):
    if name in _ON_FIRST_USE:
        return importlib.import_module(f"tfbio.{name}")
    raise AttributeError(f"module 'tfbio' has no attribute {name!r}")


def __dir__():
    return __all__
