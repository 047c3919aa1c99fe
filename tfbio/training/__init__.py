"""Training: an experiment's options, its run and the report."""

from tfbio.training.classification import Classification
from tfbio.training.experiment import Experiment
from tfbio.training.preparation import Prepared, prepare, slug
from tfbio.training.run import Diverged
from tfbio.training.signals import Interrupted
from tfbio.training.train import train_and_evaluate

__all__ = [
    "Classification",
    "Diverged",
    "Experiment",
    "Interrupted",
    "Prepared",
    "prepare",
    "slug",
    "train_and_evaluate",
]


def __dir__():
    return __all__
