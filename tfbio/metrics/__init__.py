"""Metrics of feedback: how far B is from W, and what is learned from what backprop would teach."""

from tfbio.metrics.definitions import agreement, angle, norm_ratio
from tfbio.metrics.gradients import GradientAngles, GradientMeter, gradient_angles
from tfbio.metrics.means import (
    PREFIX,
    AveragedLayers,
    find_averaged_layers,
    mean_over,
    random_spread,
    tagged_means,
)
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
    "PREFIX",
    "TAGS",
    "AveragedLayers",
    "GradientAngles",
    "GradientMeter",
    "WeightMeter",
    "WeightMetrics",
    "agreement",
    "angle",
    "find_averaged_layers",
    "gradient_angles",
    "mean_over",
    "norm_ratio",
    "norm_ratios",
    "random_spread",
    "sign_agreement",
    "sites_with_matrix",
    "tagged",
    "tagged_means",
    "weight_angles",
]


def __dir__():
    return __all__
