"""Metrics of feedback: how far B is from W, and what is learned from what backprop would teach."""

from tfbio.metrics.definitions import agreement, angle, norm_ratio
from tfbio.metrics.gradients import GradientAngles, GradientMeter, gradient_angles
from tfbio.metrics.tags import TAGS, tagged
from tfbio.metrics.weights import (
    WeightMeter,
    WeightMetrics,
    norm_ratios,
    sign_agreement,
    sites_with_matrix,
    weight_angles,
)

__all__ = [
    "TAGS",
    "GradientAngles",
    "GradientMeter",
    "WeightMeter",
    "WeightMetrics",
    "agreement",
    "angle",
    "gradient_angles",
    "norm_ratio",
    "norm_ratios",
    "sign_agreement",
    "sites_with_matrix",
    "tagged",
    "weight_angles",
]


def __dir__():
    return __all__
