"""Training: an experiment's options, its run and the report."""

from tfbio.training import report
from tfbio.training.experiment import Experiment
from tfbio.training.train import Prepared, Result, prepare, slug, train

__all__ = ["Experiment", "Prepared", "Result", "prepare", "report", "slug", "train"]
