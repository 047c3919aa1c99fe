"""Studies: many runs, as a comparison, sweep, search or attack, with their figures and tables."""

from tfbio.studies import comparison, ranges, robustness, search, sweep

__all__ = ["comparison", "ranges", "robustness", "search", "sweep"]


def __dir__():
    return __all__
