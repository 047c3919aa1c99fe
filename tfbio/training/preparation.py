"""Preparation: from an experiment's options to a compiled model under its rule, and its data."""

import contextlib
import dataclasses
import hashlib
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tfbio import data, models, optimizers, rules, walk
from tfbio.convert import convert
from tfbio.training import strategies, transfer
from tfbio.training.experiment import Experiment, named
from tfbio.training.schedules import Schedule


class Facts(NamedTuple):
    """What a network must know of its data.

    Attributes:
        image_shape: (height, width, channels).
        class_names: The classes' names in the order of the labels.
        mean: The mean of every channel over the training images, where they are standardized.
        std: Their standard deviations, or None like the means.
        fingerprint: A digest of the labels of all splits: other data have another.
        cropped: Whether images are cropped for evaluation, as photographs are.
    """

    image_shape: tuple
    class_names: tuple
    mean: list | None = None
    std: list | None = None
    fingerprint: str = ""
    cropped: bool = False


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A compiled model and its data: all that can fail for a wrong option has been done.

    Attributes:
        experiment: The `Experiment`.
        devices: The `tfbio.training.strategies.Devices` that the model lives on.
        model: The compiled `keras.Model`, under its rule.
        dataset: The `tfbio.data.Dataset`, with the test split, which selects nothing.
        train: The `tfbio.data.Split` to train on.
        validation: The one held out, or None.
        schedule: The learning rate by step.
        facts: The `Facts` on the data.
    """

    experiment: Experiment
    devices: strategies.Devices
    model: keras.Model
    dataset: data.Dataset
    train: data.Split
    validation: data.Split | None
    schedule: Schedule
    facts: Facts

    @property
    def strategy(self):
        """The `tf.distribute.Strategy` that the model lives under."""
        return self.devices.strategy

    @property
    def steps_per_epoch(self):
        """The optimizer steps in one epoch."""
        return _steps(self.experiment, self.devices, self.train)

    def check_images(self):
        """Refuse damaged images among those that are read late.

        Training meets a damaged image of its own in the first epoch; one for the test would end a
        run after its last. Decoding these once in parallel takes less than one epoch.

        Raises:
            ValueError: If an image for validation or test is damaged.
        """
        for split in filter(None, (self.validation, self.dataset.test)):
            split.check()

    def epoch(self, index, start):
        """Return one epoch's batches, a pure function of the seed, the epoch and the start.

        Args:
            index: The epoch, from 0.
            start: How many of its steps to leave out.
        """
        return self.devices.distribute(
            lambda shard: self.train.batches(
                self.experiment.batch_size,
                order=(self.experiment.seed, index),
                start=start,
                augmentation=self.experiment.augmentation,
                multiple=_multiple(self.experiment, self.devices),
                shard=shard,
                service=_service(self.experiment),
            )
        )

    def all_of(self, split):
        """Return a split's batches in order, the last one filled up by examples of weight 0."""
        e = self.experiment

        def batches(shard):
            return split.batches(e.batch_size, pad=True, crops=e.evaluation_crops, shard=shard)

        return self.devices.distribute(batches)


def prepare(experiment, source=None):
    """Load the data, build and convert the model, and compile it.

    Sets Keras's, numpy's and Python's global seeds.

    Args:
        experiment: An `Experiment`.
        source: A model under a rule, whose weights to start from.

    Returns:
        A `Prepared`.

    Raises:
        ValueError: If options do not fit together or data are damaged; the message says which.
        OSError: If data cannot be read.

    Example:
        >>> from tfbio.training import Experiment
        >>> prepare(Experiment(batch_size=100)).steps_per_epoch
        13
    """
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
    dataset.test.check_crops(experiment.evaluation_crops)
    train, validation = _hold_out(experiment, dataset.train)
    steps = _steps(experiment, devices, train)
    if not steps:
        raise ValueError(
            f"--batch_size={experiment.batch_size} is more than the {train.size} images to train "
            f"on, which --strategy={experiment.strategy} takes in whole batches only."
        )
    schedule = _schedule(experiment, steps)
    mean, std = data.channel_statistics(train) if experiment.standardize else (None, None)
    digest = hashlib.blake2b(digest_size=16)
    for split in (dataset.train, dataset.test):
        digest.update(np.int64([split.size, *split.labels]).tobytes())
    cropped = isinstance(dataset.test, data.Photographs)
    facts = Facts(dataset.image_shape, dataset.class_names, mean, std, digest.hexdigest(), cropped)
    model = build(experiment, facts, devices.strategy, schedule, source)
    return Prepared(experiment, devices, model, dataset, train, validation, schedule, facts)


def build(experiment, facts, strategy, learning_rate, source=None):
    """Build an experiment's network, put it under its rule, and compile it.

    Args:
        experiment: An `Experiment`.
        facts: The `Facts` on its data.
        strategy: The strategy that it is to live under.
        learning_rate: A number or schedule.
        source: A model under a rule, whose weights to start from, and whose feedback where the
            rule is the same.

    Returns:
        A compiled model, whose optimizer and metrics are built.

    Raises:
        ValueError: If model, weights, rule, overrides and images do not fit together.

    Example:
        >>> strategy = tf.distribute.get_strategy()
        >>> facts = Facts((32, 32, 1), ("cat", "dog"))
        >>> build(Experiment(model="lenet"), facts, strategy, 0.1).name
        'lenet'
    """
    keras.utils.set_random_seed(experiment.seed)
    with _dtype_policy(experiment.precision), strategy.scope():
        with named("model", weights="weights"):
            model = models.build(
                experiment.model, len(facts.class_names), facts.image_shape, experiment.weights
            )
            if facts.mean is not None:
                model = models.standardized(model, facts.mean, facts.std)
        if source:
            with named("init_from"):
                transfer.copy_weights(source, model)
        with named("rule", last_layer="last_layer_rule", overrides="overrides"):
            convert(
                model,
                experiment.rule,
                last_layer=experiment.last_layer_rule or None,
                overrides=experiment.override_rules() or None,
            )
        if source:
            transfer.copy_feedback(source, model)
        if experiment.sync_batch_norm:
            _synchronize(model)
        optimizer = _optimizer(experiment, learning_rate, model)
        if experiment.precision == "mixed_float16":
            optimizer = optimizers.LossScale(optimizer)
        model.compile(
            optimizer,
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
            # The loop compiles; "auto" would mean one thing on a CPU and another on a GPU.
            jit_compile=False,
        )
        # The optimizer's and the metrics' variables, which a checkpoint must find.
        model.optimizer.build(model.trainable_variables)
        size = strategy.num_replicas_in_sync
        images, labels = tf.zeros((size, *facts.image_shape)), tf.zeros((size,), tf.int64)
        model._symbolic_build(data_batch=(images, labels))
    return model


def _steps(experiment, devices, split):
    return split.steps(experiment.batch_size, _multiple(experiment, devices))


def _multiple(experiment, devices):
    """Return the number of which an epoch's last batch is a multiple, if there is one."""
    if devices.static:
        return experiment.batch_size
    return devices.replicas * experiment.accumulate


def _service(experiment):
    if not experiment.data_service:
        return None
    return data.Service(experiment.data_service, experiment.data_service_timeout)


def _hold_out(experiment, split):
    """Return (training split, validation split or None)."""
    validation = None
    if experiment.validation_fraction:
        split, validation = split.hold_out(experiment.validation_fraction, experiment.seed)
    return split.share(experiment.train_fraction, experiment.seed), validation


def _schedule(experiment, steps_per_epoch):
    return Schedule(
        experiment.learning_rate,
        experiment.schedule,
        total_steps=experiment.epochs * steps_per_epoch,
        warmup_steps=experiment.warmup_epochs * steps_per_epoch,
        milestones=[epoch * steps_per_epoch for epoch in experiment.milestone_epochs()],
        factor=experiment.decay_factor,
    )


def _optimizer(experiment, learning_rate, model):
    e = experiment
    hidden, last = ("hidden", "all"), ("last", "all")
    settings = {
        "batch_manhattan": e.batch_manhattan in hidden,
        "no_sign_change": e.no_sign_change in hidden,
    }
    of_last = {
        "batch_manhattan": e.batch_manhattan in last,
        "no_sign_change": e.no_sign_change in last,
    }
    scale = (e.last_layer_learning_rate or e.learning_rate) / e.learning_rate
    last_layer = None
    if of_last != settings or scale != 1.0:
        last_layer = optimizers.LastLayer.of(model, learning_rate_scale=scale, **of_last)
    with named("optimizer"):
        return optimizers.get(
            e.optimizer,
            learning_rate,
            momentum=e.momentum if e.optimizer in ("sgd", "nesterov") else 0.0,
            weight_decay=e.weight_decay,
            last_layer=last_layer,
            clip_norm=e.clip_norm,
            **settings,
        )


def _synchronize(model):
    """Have the batch normalizations of a built model take the batch of all replicas."""
    layers = [
        layer
        for layer in walk.layers(model).values()
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    if not layers:
        raise ValueError("--sync_batch_norm: the --model has no batch normalization.")
    for layer in layers:
        layer.synchronized = True


@contextlib.contextmanager
def _dtype_policy(name):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def slug(text):
    """Return a rule's text as a folder name: ``sign_symmetry(agreement=0.9)`` by its own repr.

    Args:
        text: What `tfbio.rules.get` takes.

    Returns:
        The rule's name, and its options that are not the default.

    Example:
        >>> slug("usf(agreement=0.9)")
        'sign_symmetry-agreement=0.9'
    """
    rule = rules.get(text)
    defaults = rule.options()
    changed = {name: v for name, v in rule.get_config().items() if v != defaults[name]}
    return "-".join([rule.alias, *(f"{name}={value}" for name, value in changed.items())])
