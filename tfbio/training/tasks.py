"""Tasks: what there is to learn; the engine asks a task for everything in which tasks differ."""

import abc
import importlib
from collections.abc import Callable
from typing import Any, ClassVar

import keras

_MODULES = {
    "classification": "tfbio.training.classifier",
    "detection": "tfbio.detection.task",
}
"""The module that holds each task as `TASK`, imported when the task is first asked for."""


class Task(abc.ABC):
    """How a kind of experiment is prepared, trained, measured and used.

    A task holds no state: every method takes the experiment, or what was prepared from it.

    Attributes:
        experiment: The class of its options, a `tfbio.training.Experiment`.
        facts: The named tuple of what the network must know of its data; data.json holds it.
        charts: The charts of TensorBoard's Custom Scalars page: a dict from category to a dict
            from title to patterns of tags.
        predictions: What `predict` writes in the run's folder where no other place is given.
    """

    experiment: ClassVar[type]
    facts: ClassVar[type]
    charts: ClassVar[dict]
    predictions: ClassVar[str]

    @abc.abstractmethod
    def load(self, experiment) -> Any:
        """Return the dataset, with its `test` split."""

    @abc.abstractmethod
    def split(self, experiment, dataset) -> tuple[Any, Any]:
        """Return the split to train on and the split to validate on, or None."""

    @abc.abstractmethod
    def describe_data(self, experiment, dataset, train) -> tuple:
        """Return the `facts` on a dataset and its split to train on."""

    def training_batches(self, experiment) -> dict:
        """Return what else a split's `batches` takes in training, by argument."""
        return {}

    def evaluation_batches(self, experiment) -> dict:
        """Return what else a split's `batches` takes in evaluation, by argument."""
        return {}

    @abc.abstractmethod
    def build_network(self, experiment, facts) -> keras.Model:
        """Return the plain network, under no rule."""

    @abc.abstractmethod
    def compile(self, experiment, model, optimizer):
        """Compile the converted network with its losses and metrics."""

    @abc.abstractmethod
    def example_batch(self, facts, size) -> tuple:
        """Return a batch of zeros, (images, targets), from which metrics make their variables."""

    @abc.abstractmethod
    def copy_weights(self, experiment, source, model):
        """Copy the weights of another run's model to a network that is under no rule yet."""

    @abc.abstractmethod
    def copy_feedback(self, source, model):
        """Copy the feedback of another run's model to a converted network."""

    @abc.abstractmethod
    def make_evaluator(self, prepared) -> Callable:
        """Return a function that measures the model on a split.

        Its arguments are the split, an iterator over what `Prepared.all_of` returns for it, and
        optionally a function to show pictures with, of a name and an image. It returns a dict of
        the experiment's `measures`, and of further numbers. All workers call it alike.
        """

    @abc.abstractmethod
    def report(self, values) -> str:
        """Return the text that reports an epoch, from its line of metrics.csv, a dict."""

    @abc.abstractmethod
    def predict(self, experiment, images, output, checkpoint, tell) -> int:
        """Predict on a folder of images; see `tfbio.training.use.predict`."""

    @abc.abstractmethod
    def export(self, model, facts, path):
        """Write the model as TensorFlow's SavedModel."""


def names() -> tuple[str, ...]:
    """Return the names of all tasks.

    Example:
        >>> names()
        ('classification', 'detection')
    """
    return tuple(_MODULES)


def get(name: str) -> Task:
    """Return a task.

    Args:
        name: One of `names()`.

    Raises:
        ValueError: If there is none of this name.

    Example:
        >>> get("classification").experiment.__name__
        'Classification'
    """
    if name not in _MODULES:
        raise ValueError(f"`task` must be one of {', '.join(_MODULES)}. Received: {name!r}.")
    return importlib.import_module(_MODULES[name]).TASK
