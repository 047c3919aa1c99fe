"""The comparison: what its numbers are over the seeds."""

from tfbio.studies import comparison
from tfbio.studies.runs import Run
from tfbio.training import Classification


def timed(seconds):
    """Return a run of each seed that took so many seconds for a step."""
    return [
        Run(Classification(seed=seed), {"seconds_per_step": value}, [], [])
        for seed, value in seconds.items()
    ]


def test_the_ratio_of_times_is_the_median_over_common_seeds():
    base = timed({0: 1.0, 1: 2.0, 2: 1.0, 4: 1.0})
    assert comparison.time_ratio(timed({0: 2.0, 1: 2.0, 2: 9.0, 3: 100.0}), base) == 2.0
    assert comparison.time_ratio(timed({3: 1.0}), base) is None
