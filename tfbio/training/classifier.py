"""The classifier: how an image classification is prepared, trained, measured and used."""

from __future__ import annotations

import hashlib
import logging
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tfbio import data, losses, models
from tfbio.training import predictions, preparation, transfer
from tfbio.training.board import FEEDBACK
from tfbio.training.classification import Classification
from tfbio.training.options import named
from tfbio.training.tasks import Task, format_loss

if TYPE_CHECKING:
    from tfbio.training.preparation import Prepared


class Facts(NamedTuple):
    """What a network must know of its data.

    Attributes:
        image_shape: (height, width, channels).
        class_names: The classes' names in the order of the labels.
        mean: The mean of every channel over the training images, where they are standardized.
        std: Their standard deviations, or None like the means.
        fingerprint: A digest of both splits' labels and some of their images: other data have
            another.
        cropped: Whether images are cropped for evaluation, as photographs are.
    """

    image_shape: tuple
    class_names: tuple
    mean: list | None = None
    std: list | None = None
    fingerprint: str = ""
    cropped: bool = False


class ClassificationTask(Task):
    """Classification of images; its dataset is a `tfbio.data.Dataset`."""

    experiment: ClassVar[type] = Classification
    facts: ClassVar[type] = Facts
    predictions: ClassVar[str] = "predictions.csv"
    trainer: ClassVar[str] = "classify"
    example: ClassVar[str] = "fashion_mnist_lenet"
    charts: ClassVar[dict] = {
        "Learning": {
            "Accuracy": ("^accuracy$", "^validation_accuracy$"),
            "Loss": ("^loss$", "^validation_loss$"),
            "Learning rate": ("^learning_rate$",),
            "Images per second": ("^images_per_second$",),
        },
        "Feedback": {f"{what}, every layer": (f"^{tag}/",) for what, tag in FEEDBACK.items()},
    }

    def load(self, experiment: Classification) -> Any:
        """Return the dataset; refuse a data service or crops that it cannot have."""
        dataset = data.load(
            experiment.dataset,
            experiment.data_dir,
            experiment.download,
            experiment.image_size,
            experiment.max_corrupt,
        )
        if service := _service(experiment):
            service.check()
        with named("evaluation_crops", crops="evaluation_crops"):
            dataset.test.check_crops(experiment.evaluation_crops)
        return dataset

    def split(self, experiment: Classification, dataset: Any) -> tuple[Any, Any]:
        """Return the splits to train on and to validate on; see the base class."""
        return preparation.hold_out(experiment, dataset.train)

    def describe_data(
        self, experiment: Classification, dataset: Any, train: Any
    ) -> tuple[Any, ...]:
        """Return `Facts`; see the base class."""
        mean, std = _get_channel_statistics(experiment, train)
        digest = hashlib.blake2b(digest_size=16)
        for split in (dataset.train, dataset.test):
            digest.update(split.fingerprint.encode())
        cropped = isinstance(dataset.test, data.Photographs)
        shape, names = dataset.image_shape, dataset.class_names
        return Facts(shape, names, mean, std, digest.hexdigest(), cropped)

    def training_batches(self, experiment: Classification) -> dict[str, Any]:
        """Return by what the batches are made; see the base class."""
        return {
            "augmentation": experiment.augmentation,
            "shuffle": experiment.shuffle,
            "service": _service(experiment),
        }

    def evaluation_batches(self, experiment: Classification) -> dict[str, Any]:
        """Return how photographs are cropped; see the base class."""
        return {"crops": experiment.evaluation_crops}

    def build_network(self, experiment: Classification, facts: Any) -> keras.Model:
        """Return the network, its images standardized if need be; see the base class."""
        with named("model", weights="weights"):
            model = models.build(
                experiment.model, len(facts.class_names), facts.image_shape, experiment.weights
            )
        if experiment.initialization:
            with named("initialization"):
                models.initialize(model, experiment.initialization)
        if facts.mean is None:
            return model
        return models.standardize(model, facts.mean, facts.std)

    def compile(
        self, experiment: Classification, model: keras.Model, optimizer: keras.optimizers.Optimizer
    ) -> None:
        """Compile with the experiment's loss and accuracy."""
        model.compile(
            optimizer,
            losses.ClassificationLoss(experiment.loss),
            metrics=["accuracy"],
            # The loop compiles; "auto" would mean one thing on a CPU and another on a GPU.
            jit_compile=False,
        )

    def example_batch(self, facts: Any, size: int) -> tuple[Any, Any]:
        """Return images and labels, all zero."""
        return tf.zeros((size, *facts.image_shape)), tf.zeros((size,), tf.int64)

    def copy_weights(
        self, experiment: Classification, source: keras.Model, model: keras.Model
    ) -> None:
        """Copy all weights, but those of a last layer for other classes; say if images differ."""
        transfer.copy_weights(source, model)
        theirs, own = map(transfer.find_standardization, (source, model))
        if theirs is None or own is None:
            same = theirs is own
        else:
            same = np.allclose(theirs, own, rtol=1e-3)
        if not same:
            logging.getLogger("tfbio").info(
                "`init_from`: its weights have learned from images that are standardized "
                f"otherwise: (mean, std) {_shorten(theirs)}, here {_shorten(own)}."
            )

    def copy_feedback(
        self, experiment: Classification, source: keras.Model, model: keras.Model
    ) -> None:
        """Copy the feedback of all kernels whose rule is the same."""
        transfer.copy_feedback(source, model, experiment.accept_new_feedback)

    def make_evaluator(self, prepared: Prepared) -> Callable[..., dict[str, float]]:
        """Return a function that gives the mean loss and the top-1 accuracy; see the base class."""
        evaluate = _evaluation(prepared)

        def measure(split, batches, show=None):
            totals = [0.0, 0.0, 0.0]  # Python's floats have the precision
            for batch in batches:
                parts = evaluate(batch)
                totals = [total + float(part) for total, part in zip(totals, parts, strict=True)]
            loss, correct, count = totals
            if not count:
                raise ValueError(f"`data_dir`: none of the {split.size} images can be read.")
            return {"loss": loss / count, "accuracy": correct / count}

        return measure

    def chance_loss(self, experiment: Classification, facts: Facts) -> float:
        """Return the loss of logits that are all 0: of a softmax, the logarithm of the classes."""
        logits = tf.zeros((1, max(2, len(facts.class_names))))
        return float(losses.example_losses(experiment.loss, [0], logits)[0])

    def report(self, values: Mapping[str, Any]) -> str:
        """Return loss and accuracy, and that of validation if there is one."""
        validated = values.get("validation_accuracy")
        return f"loss {format_loss(values['loss'])}, accuracy {values['accuracy']:.2%}" + (
            "" if validated is None else f", validation {validated:.2%}"
        )

    def predict(
        self,
        experiment: Classification,
        images: pathlib.Path | str,
        output: pathlib.Path,
        checkpoint: str,
        tell: Callable[[str], Any],
    ) -> int:
        """Write a table with the class of every image; see the base class."""
        return predictions.predict(experiment, images, output, checkpoint, tell)

    def export(self, model: keras.Model, facts: Any, path: str | os.PathLike[str]) -> None:
        """Write the model from images of 0 to 1 to logits."""
        model.export(path, verbose=False)


TASK = ClassificationTask()
"""The task, for `tfbio.training.tasks`."""


def _get_channel_statistics(experiment, train):
    """Return the mean and deviation of every channel to standardize with, or None and None."""
    if not experiment.standardize:
        return None, None
    given = experiment.channel_statistics()
    if given is None:
        return data.channel_statistics(train)
    channels = train.image_shape[-1]
    if len(given[0]) not in (1, channels):
        raise ValueError(
            "`channel_mean` and `channel_std` must have one number, or one for each of the "
            f"{channels} channels of `dataset={experiment.dataset}`. "
            f"Received: `channel_mean={experiment.channel_mean}`."
        )
    mean, std = (numbers * (channels // len(numbers)) for numbers in given)
    return mean, std


def _shorten(statistics):
    """Return a mean and a standard deviation as a text."""
    if statistics is None:
        return "none"
    return " and ".join(str([round(value, 4) for value in each]) for each in statistics)


def _service(experiment):
    if not experiment.data_service:
        return None
    return data.Service(experiment.data_service, experiment.data_service_timeout)


def _evaluation(prepared):
    strategy, model, kind = prepared.strategy, prepared.model, prepared.experiment.loss

    def measured(images, labels, weights):
        logits = data.average_over_crops(
            lambda images: model(data.to_float(images), training=False), images
        )
        values = losses.example_losses(kind, labels, logits)
        correct = tf.cast(tf.argmax(logits, axis=-1) == labels, tf.float32)
        parts = (values, correct, tf.ones_like(values))
        return tuple(tf.reduce_sum(weights * part) for part in parts)

    step = tf.function(measured, jit_compile=prepared.experiment.jit)

    @tf.function(reduce_retracing=True)
    def evaluate(batch):
        parts = strategy.run(step, args=batch)
        return tuple(strategy.reduce("sum", part, axis=None) for part in parts)

    return evaluate
