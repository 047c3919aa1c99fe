"""Networks: what a whole model becomes under a rule of networks."""

from tfbio.networks.network import Network

# isort: split
from tfbio.networks import direct, target_propagation

__all__ = ["Network", "direct", "target_propagation"]


def __dir__():
    return __all__
