"""Direct feedback: a functional network's hidden activations get their error from its output."""

from tfbio.networks.direct.network import DirectNetwork, owner
from tfbio.networks.direct.taps import Plan, Tap, plan

__all__ = ["DirectNetwork", "Plan", "Tap", "owner", "plan"]


def __dir__():
    return __all__
