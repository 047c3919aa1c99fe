"""Networks: what a whole model becomes under a rule of networks."""

from tfbio.networks import direct, target_propagation

__all__ = ["direct", "target_propagation"]


def __dir__():
    return __all__
