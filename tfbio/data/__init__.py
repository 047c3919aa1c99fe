"""Data: where images come from, and how they reach the model."""

from tfbio.data.arrays import Arrays
from tfbio.data.augmentation import augmentations
from tfbio.data.crops import average_over_crops
from tfbio.data.datasets import Dataset, load, names
from tfbio.data.encoded import Encoded
from tfbio.data.errors import clear_errors
from tfbio.data.folder import images
from tfbio.data.photographs import Photographs
from tfbio.data.scaling import to_float
from tfbio.data.service import Service
from tfbio.data.split import Split
from tfbio.data.statistics import channel_statistics

__all__ = [
    "Arrays",
    "Dataset",
    "Encoded",
    "Photographs",
    "Service",
    "Split",
    "augmentations",
    "average_over_crops",
    "channel_statistics",
    "clear_errors",
    "images",
    "load",
    "names",
    "to_float",
]


def __dir__():
    return __all__
