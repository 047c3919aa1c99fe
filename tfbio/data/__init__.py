"""Data: where images come from, and how they reach the model."""

from tfbio.data.datasets import Dataset, load, names
from tfbio.data.pipeline import batches, resize, split

__all__ = ["Dataset", "batches", "load", "names", "resize", "split"]
