"""A rule says what B is; a layer puts B where Wᵀ was; everything else is ordinary Keras."""

from tfbio import callbacks, layers, metrics, models, rules
from tfbio.convert import convert
from tfbio.gradients import true_gradient
from tfbio.summary import summary
from tfbio.version import __version__

__all__ = [
    "__version__",
    "callbacks",
    "convert",
    "layers",
    "metrics",
    "models",
    "rules",
    "summary",
    "true_gradient",
]
