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

__all__ = [
    "TWINS",
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
]
