"""Tasks: what there is to learn; the engine asks a task for everything in which tasks differ."""

from __future__ import annotations

import abc
import importlib
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import keras

if TYPE_CHECKING:
    from tfbio.training.preparation import Prepared

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
        trainer: The command that trains it, ``python -m trainers.<trainer>``.
        example: The config in configs/ to try next, without its suffix.
    """

    experiment: ClassVar[type]
    facts: ClassVar[type]
    charts: ClassVar[dict]
    predictions: ClassVar[str]
    trainer: ClassVar[str]
    example: ClassVar[str]

    @abc.abstractmethod
    def load(self, experiment: Any) -> Any:
        """Return the dataset, with its `test` split."""

    @abc.abstractmethod
    def split(self, experiment: Any, dataset: Any) -> tuple[Any, Any]:
        """Return the split to train on and the split to validate on, or None."""

    @abc.abstractmethod
    def describe_data(self, experiment: Any, dataset: Any, train: Any) -> tuple:
        """Return the `facts` on a dataset and its split to train on."""

    def training_batches(self, experiment: Any) -> dict:
        """Return what else a split's `batches` takes in training, by argument."""
        return {}

    def evaluation_batches(self, experiment: Any) -> dict:
        """Return what else a split's `batches` takes in evaluation, by argument."""
        return {}

    @abc.abstractmethod
    def build_network(self, experiment: Any, facts: Any) -> keras.Model:
        """Return the plain network, under no rule."""

    @abc.abstractmethod
    def compile(
        self, experiment: Any, model: keras.Model, optimizer: keras.optimizers.Optimizer
    ) -> None:
        """Compile the converted network with its losses and metrics."""

    @abc.abstractmethod
    def example_batch(self, facts: Any, size: int) -> tuple:
        """Return a batch of zeros, (images, targets), from which metrics make their variables."""

    @abc.abstractmethod
    def copy_weights(self, experiment: Any, source: keras.Model, model: keras.Model) -> None:
        """Copy the weights of another run's model to a network that is under no rule yet."""

    @abc.abstractmethod
    def copy_feedback(self, experiment: Any, source: keras.Model, model: keras.Model) -> None:
        """Copy the feedback of another run's model to a converted network."""

    @abc.abstractmethod
    def make_evaluator(self, prepared: Prepared) -> Callable:
        """Return a function that measures the model on a split.

        Its arguments are the split, an iterator over what `Prepared.all_of` returns for it, and
        optionally a function to show pictures with, of a name and an image. It returns a dict of
        the experiment's `measures`, and of further numbers. All workers call it alike.
        """

    @abc.abstractmethod
    def chance_loss(self, experiment: Any, facts: Any) -> float:
        """Return the loss, about, of a network that guesses, against which divergence is told."""

    @abc.abstractmethod
    def report(self, values: Mapping[str, Any]) -> str:
        """Return the text that reports an epoch, from its line of metrics.csv, a dict."""

    @abc.abstractmethod
    def predict(
        self,
        experiment: Any,
        images: pathlib.Path | str,
        output: pathlib.Path,
        checkpoint: str,
        tell: Callable[[str], Any],
    ) -> int:
        """Predict on a folder of images; see `tfbio.training.use.predict`."""

    @abc.abstractmethod
    def export(self, model: keras.Model, facts: Any, path: str | os.PathLike[str]) -> None:
        """Write the model as TensorFlow's SavedModel."""


def format_loss(loss: float) -> str:
    """Return a loss as text of a few digits, however great it is.

    Example:
        >>> format_loss(2.302585), format_loss(2.9e24)
        ('2.3026', '2.90e+24')
    """
    return f"{loss:.4f}" if loss < 10_000 else f"{loss:.2e}"


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
