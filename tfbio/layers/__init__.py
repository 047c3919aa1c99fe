"""Feedback layers: Keras's kernel layers with a rule, so that B stands where Wᵀ stood.

And the locally connected layers, which Keras no longer has.
"""

from tfbio.layers.convolution import (
    FeedbackConv1D,
    FeedbackConv1DTranspose,
    FeedbackConv2D,
    FeedbackConv2DTranspose,
    FeedbackConv3D,
    FeedbackConv3DTranspose,
    FeedbackDepthwiseConv1D,
    FeedbackDepthwiseConv2D,
)
from tfbio.layers.dense import FeedbackDense, FeedbackEinsumDense
from tfbio.layers.feedback_locally_connected import (
    FeedbackLocallyConnected1D,
    FeedbackLocallyConnected2D,
)
from tfbio.layers.locally_connected import LocallyConnected1D, LocallyConnected2D
from tfbio.layers.mixin import TWINS, FeedbackMixin, Site, feedback_twin
from tfbio.layers.separable import FeedbackSeparableConv1D, FeedbackSeparableConv2D

# isort: split
from tfbio.layers.connections import Connections, find_connections
from tfbio.layers.last_layers import find_last_layers
from tfbio.layers.sites import find_sites
from tfbio.layers.true_gradient import true_gradient

__all__ = [
    "TWINS",
    "Connections",
    "FeedbackConv1D",
    "FeedbackConv1DTranspose",
    "FeedbackConv2D",
    "FeedbackConv2DTranspose",
    "FeedbackConv3D",
    "FeedbackConv3DTranspose",
    "FeedbackDense",
    "FeedbackDepthwiseConv1D",
    "FeedbackDepthwiseConv2D",
    "FeedbackEinsumDense",
    "FeedbackLocallyConnected1D",
    "FeedbackLocallyConnected2D",
    "FeedbackMixin",
    "FeedbackSeparableConv1D",
    "FeedbackSeparableConv2D",
    "LocallyConnected1D",
    "LocallyConnected2D",
    "Site",
    "feedback_twin",
    "find_connections",
    "find_last_layers",
    "find_sites",
    "true_gradient",
]


def __dir__():
    return __all__
