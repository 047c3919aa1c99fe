"""Direct feedback: a functional network's hidden activations get their error from its output."""

from tfbio.direct.graph import Plan, Tap, plan
from tfbio.direct.network import DirectNetwork, owner, restore, rewire

__all__ = ["DirectNetwork", "Plan", "Tap", "owner", "plan", "restore", "rewire"]
