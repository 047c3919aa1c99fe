"""Tags: the names of curves, one for each metric of each kernel."""

from typing import Any

TAGS = {
    "weight_angles": "weight_angle",
    "norm_ratios": "norm_ratio",
    "sign_agreement": "sign_agreement",
    "global_": "gradient_angle",
    "local_": "local_gradient_angle",
}
"""From an attribute of `WeightMetrics` or `GradientAngles` to what its curves' names begin with."""


def tagged(measured: Any) -> dict[str, float]:
    """Return what was measured as one dict from ``<tag>/<kernel>`` to number.

    Args:
        measured: `WeightMetrics` or `GradientAngles`.

    Example:
        >>> from tfbio.metrics import GradientAngles
        >>> tagged(GradientAngles({"out": 30.0}, {"out": 0.0}))
        {'local_gradient_angle/out': 30.0, 'gradient_angle/out': 0.0}
    """
    return {
        f"{TAGS[attribute]}/{name}": value
        for attribute, values in measured._asdict().items()
        for name, value in values.items()
    }
