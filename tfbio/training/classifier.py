"""The classifier: how an image classification is prepared, and how it is measured."""

import dataclasses
import hashlib

import keras
import tensorflow as tf

from tfbio import _keras, data, models
from tfbio.training import preparation, strategies
from tfbio.training.classification import Classification, Facts
from tfbio.training.experiment import named
from tfbio.training.preparation import Prepared, build, prepare


@dataclasses.dataclass(frozen=True)
class PreparedClassification(Prepared):
    """A classifier and its data; `dataset` is a `tfbio.data.Dataset`, `facts` are `Facts`."""

    @property
    def training_batches(self):
        """By what the batches are made; see the base class."""
        return {"service": _service(self.experiment)}

    @property
    def evaluation_batches(self):
        """How photographs are cropped; see the base class."""
        return {"crops": self.experiment.evaluation_crops}

    def evaluator(self):
        """Return a function that gives the mean loss and the top-1 accuracy; see the base class."""
        evaluate = _evaluation(self)

        def measure(split, batches, show=None):
            totals = [0.0, 0.0, 0.0]  # Python's floats have the precision
            for batch in batches:
                parts = evaluate(batch)
                totals = [total + float(part) for total, part in zip(totals, parts, strict=True)]
            loss, correct, count = totals
            if not count:
                raise ValueError(f"--data_dir: none of the {split.size} images can be read.")
            return {"loss": loss / count, "accuracy": correct / count}

        return measure


@prepare.register
def _(experiment: Classification, source=None):
    devices = strategies.of(experiment)
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
    train, validation = preparation.hold_out(experiment, dataset.train)
    schedule = preparation.schedule(experiment, preparation.steps(experiment, devices, train))
    mean, std = data.channel_statistics(train) if experiment.standardize else (None, None)
    digest = hashlib.blake2b(digest_size=16)
    for split in (dataset.train, dataset.test):
        digest.update(split.fingerprint.encode())
    cropped = isinstance(dataset.test, data.Photographs)
    facts = Facts(dataset.image_shape, dataset.class_names, mean, std, digest.hexdigest(), cropped)
    model = build(experiment, facts, devices.strategy, schedule, source)
    return PreparedClassification(
        experiment, devices, model, dataset, train, validation, schedule, facts
    )


@build.register
def _(experiment: Classification, facts, strategy, learning_rate, source=None):
    def network():
        with named("model", weights="weights"):
            model = models.build(
                experiment.model, len(facts.class_names), facts.image_shape, experiment.weights
            )
        if facts.mean is None:
            return model
        return models.standardize(model, facts.mean, facts.std)

    def compiled(model, optimizer):
        model.compile(
            optimizer,
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
            # The loop compiles; "auto" would mean one thing on a CPU and another on a GPU.
            jit_compile=False,
        )
        model.optimizer.build(model.trainable_variables)
        size = strategy.num_replicas_in_sync
        images, labels = tf.zeros((size, *facts.image_shape)), tf.zeros((size,), tf.int64)
        _keras.build_symbolically(model, (images, labels))

    return preparation.under_rule(experiment, strategy, network, compiled, learning_rate, source)


def _service(experiment):
    if not experiment.data_service:
        return None
    return data.Service(experiment.data_service, experiment.data_service_timeout)


def _evaluation(prepared):
    strategy, model = prepared.strategy, prepared.model

    def measured(images, labels, weights):
        logits = data.average_over_crops(
            lambda images: model(data.to_float(images), training=False), images
        )
        losses = keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)
        correct = tf.cast(tf.argmax(logits, axis=-1) == labels, tf.float32)
        parts = (losses, correct, tf.ones_like(losses))
        return tuple(tf.reduce_sum(weights * part) for part in parts)

    step = tf.function(measured, jit_compile=prepared.experiment.jit)

    @tf.function(reduce_retracing=True)
    def evaluate(batch):
        parts = strategy.run(step, args=batch)
        return tuple(strategy.reduce("sum", part, axis=None) for part in parts)

    return evaluate
