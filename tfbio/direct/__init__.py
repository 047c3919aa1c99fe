"""Direct feedback: a functional network's hidden activations get their error from its output."""

from tfbio.direct.network import DirectNetwork, owner
from tfbio.direct.taps import Plan, Tap, plan

__all__ = ["DirectNetwork", "Plan", "Tap", "owner", "plan"]
