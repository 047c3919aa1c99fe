"""Preparation: from an experiment's options to a compiled model under its rule, and its data.

What all experiments have in common is here; for the rest, their task is asked.
"""

from __future__ import annotations

import contextlib
import dataclasses
from typing import TYPE_CHECKING, Any

import keras

from tfbio import _keras, rules
from tfbio._arguments import shorten
from tfbio.convert import convert
from tfbio.layers.sites import find_layers, find_rules, match_layers
from tfbio.networks import turns
from tfbio.optimizers import keep_norms
from tfbio.training import strategies, tasks
from tfbio.training.experiment import Experiment
from tfbio.training.optimization import make_optimizer, make_schedule
from tfbio.training.options import named
from tfbio.training.schedules import Schedule

if TYPE_CHECKING:
    import tensorflow as tf

    from tfbio.training.strategies import Devices


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A compiled model and its data: all that can fail for a wrong option has been done.

    Attributes:
        task: The `tfbio.training.tasks.Task`.
        experiment: The `Experiment`.
        devices: The `tfbio.training.strategies.Devices` that the model lives on.
        model: The compiled `keras.Model`, under its rule.
        dataset: The dataset, with its `test` split, which selects nothing.
        train: The split to train on.
        validation: The one held out, or None.
        schedule: The learning rate by step.
        facts: A named tuple of what the network must know of its data, for data.json.
    """

    task: tasks.Task
    experiment: Experiment
    devices: strategies.Devices
    model: keras.Model
    dataset: Any
    train: Any
    validation: Any
    schedule: Schedule
    facts: Any

    @property
    def strategy(self) -> tf.distribute.Strategy:
        """The `tf.distribute.Strategy` that the model lives under."""
        return self.devices.strategy

    @property
    def steps_per_epoch(self) -> int:
        """The optimizer steps in one epoch."""
        return steps(self.experiment, self.devices, self.train)

    def images_by(self, step: int) -> int:
        """Return the number of images that the first steps learn from.

        Args:
            step: How many steps. An epoch's last one may have fewer images than a batch.
        """
        size = self.experiment.batch_size
        epochs, steps_more = divmod(step, self.steps_per_epoch)
        in_epoch = self.train.taken(size, multiple(self.experiment, self.devices))
        return epochs * in_epoch + steps_more * size

    def check_images(self) -> None:
        """Refuse damaged images among those that are read late.

        Training meets a damaged image of its own in the first epoch; one for the test would end a
        run after its last. Decoding these once in parallel takes less than one epoch.

        Raises:
            ValueError: If an image for validation or test is damaged.
        """
        for split in filter(None, (self.validation, self.dataset.test)):
            split.check()

    def epoch(self, index: int, start: int) -> Any:
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
                multiple=multiple(self.experiment, self.devices),
                shard=shard,
                **self.task.training_batches(self.experiment),
            )
        )

    def all_of(self, split: Any) -> Any:
        """Return a split's batches in order, the last one filled up by examples of weight 0.

        Args:
            split: One of the splits.
        """
        size, more = self.experiment.batch_size, self.task.evaluation_batches(self.experiment)
        return self.devices.distribute(
            lambda shard: split.batches(size, pad=True, shard=shard, **more)
        )


def prepare(experiment: Experiment, source: keras.Model | None = None) -> Prepared:
    """Load the data, build and convert the model, and compile it.

    Sets Keras's, numpy's and Python's global seeds.

    Args:
        experiment: An `Experiment` with a task.
        source: A model under a rule, whose weights to start from.

    Returns:
        A `Prepared`.

    Raises:
        ValueError: If options do not fit together or data are damaged; the message says which.
        OSError: If data cannot be read.

    Example:
        >>> from tfbio.training import Classification
        >>> prepare(Classification(batch_size=100)).steps_per_epoch
        13
    """
    task = tasks.get(experiment.task)
    devices = strategies.get_devices(experiment)
    dataset = task.load(experiment)
    train, validation = task.split(experiment, dataset)
    rate = make_schedule(experiment, steps(experiment, devices, train))
    facts = task.describe_data(experiment, dataset, train)
    model = build(experiment, facts, devices.strategy, rate, source)
    return Prepared(task, experiment, devices, model, dataset, train, validation, rate, facts)


def build(
    experiment: Experiment,
    facts: Any,
    strategy: tf.distribute.Strategy,
    learning_rate: Any,
    source: keras.Model | None = None,
) -> keras.Model:
    """Build an experiment's network, put it under its rule, and compile it.

    Args:
        experiment: An `Experiment` with a task.
        facts: The facts on its data.
        strategy: The strategy that it is to live under.
        learning_rate: A number or schedule.
        source: A model under a rule, whose weights and feedback to start from.

    Returns:
        A compiled model, whose optimizer and metrics have their variables, which a checkpoint must
        find.

    Raises:
        ValueError: If model, weights, rule, overrides and images do not fit together, or the
            source's feedback would be replaced.

    Example:
        >>> import tensorflow as tf
        >>> from tfbio.training.classifier import Facts
        >>> from tfbio.training import Classification
        >>> strategy = tf.distribute.get_strategy()
        >>> facts = Facts((32, 32, 1), ("cat", "dog"))
        >>> model = build(Classification(model="lenet", rule="fa"), facts, strategy, 0.1)
        >>> model.get_layer("conv1").rule.alias
        'feedback_alignment'
    """
    task = tasks.get(experiment.task)
    keras.utils.set_random_seed(experiment.seed)
    with _dtype_policy(experiment.precision), strategy.scope():
        model = task.build_network(experiment, facts)
        if source:
            with named("init_from"):
                task.copy_weights(experiment, source, model)
        if experiment.freeze:
            _freeze(model, experiment.freeze)
        last = experiment.parsed_last_layer_rule
        with named("rule", last_layer="last_layer_rule", overrides="overrides", clip="clip_layers"):
            convert(
                model,
                rules.serialize(experiment.parsed_rule),
                last_layer=last and rules.serialize(last),
                overrides=experiment.override_rules() or None,
                clip=experiment.clip_layers or None,
            )
        if source:
            with named("init_from"):
                task.copy_feedback(experiment, source, model)
        if experiment.constrain_norm:
            with named("rule", keep_norms="constrain_norm"):
                keep_norms(model)
        if experiment.sync_batch_norm:
            _synchronize(model)
        optimizer = make_optimizer(experiment, learning_rate, model)
        with named("rule", alternate="feedback_alternate"):
            turns.check(find_rules(model), optimizer)
        task.compile(experiment, model, optimizer)
        model.optimizer.build(model.trainable_variables)
        batch = task.example_batch(facts, strategy.num_replicas_in_sync)
        _keras.build_symbolically(model, batch)
    return model


def steps(experiment: Experiment, devices: Devices, split: Any) -> int:
    """Return the number of optimizer steps in an epoch.

    Args:
        experiment: An `Experiment`.
        devices: Its `Devices`.
        split: What it trains on.

    Raises:
        ValueError: If there is none.

    Example:
        >>> from tfbio import data
        >>> from tfbio.training import Classification
        >>> experiment = Classification(batch_size=100)
        >>> steps(experiment, strategies.get_devices(experiment), data.load("digits").train)
        15
    """
    found = split.steps(experiment.batch_size, multiple(experiment, devices))
    if not found:
        option = "drop_remainder"
        if not experiment.drop_remainder:
            option = f"strategy='{experiment.strategy}'"
        raise ValueError(
            f"`batch_size={experiment.batch_size}` is more than the {split.size} images to train "
            f"on, which `{option}` takes in whole batches only."
        )
    return found


def multiple(experiment: Experiment, devices: Devices) -> int:
    """Return the number of which an epoch's last batch is a multiple, if there is one.

    Args:
        experiment: An `Experiment`.
        devices: Its `Devices`.

    Example:
        >>> from tfbio.training import Classification
        >>> experiment = Classification(accumulate=2)
        >>> multiple(experiment, strategies.get_devices(experiment))
        2
        >>> experiment = Classification(batch_size=100, drop_remainder=True)
        >>> multiple(experiment, strategies.get_devices(experiment))
        100
    """
    if devices.static or experiment.drop_remainder:
        return experiment.batch_size
    return devices.replicas * experiment.accumulate


def hold_out(experiment: Experiment, split: Any) -> tuple[Any, Any]:
    """Return (training split, validation split or None), parts of a split.

    Args:
        experiment: An `Experiment`.
        split: The training split.

    Example:
        >>> from tfbio import data
        >>> from tfbio.training import Classification
        >>> digits = data.load("digits").train
        >>> [part.size for part in hold_out(Classification(validation_fraction=0.1), digits)]
        [1293, 144]
    """
    validation = None
    if experiment.validation_fraction:
        with named("validation_fraction", fraction="validation_fraction"):
            split, validation = split.hold_out(experiment.validation_fraction, experiment.seed)
    with named("train_fraction", fraction="train_fraction"):
        return split.share(experiment.train_fraction, experiment.seed), validation


def _freeze(model, patterns):
    """Keep the layers that match one of several patterns as they are, as Keras freezes layers."""
    layers = []
    for pattern in filter(None, (part.strip() for part in patterns.split(","))):
        matched = match_layers(model, pattern)
        if not matched:
            raise ValueError(
                f"`freeze` has a pattern that matches no layer with weights: {pattern!r}. "
                f"The layers: {shorten(match_layers(model, '*'))}."
            )
        layers += matched.values()
    for layer in layers:
        layer.trainable = False
    if not model.trainable_variables:
        raise ValueError(
            "`freeze` must leave layers that learn, and every layer matches. "
            f"Received: {patterns!r}."
        )


def _synchronize(model):
    """Have the batch normalizations of a built model take the batch of all replicas."""
    layers = [
        layer
        for layer in find_layers(model).values()
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    if not layers:
        raise ValueError("`sync_batch_norm` has no effect: `model` has no batch normalization.")
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


def slug(rule: str | rules.Rule) -> str:
    """Return a rule as a folder name: ``sign_symmetry(agreement=0.9)`` by its own repr.

    Args:
        rule: What `tfbio.rules.get` takes.

    Returns:
        The rule's name, and its options that are not the default.

    Example:
        >>> slug("usf(agreement=0.9)")
        'sign_symmetry-agreement=0.9'
    """
    rule = rules.get(rule)
    defaults = rule.options()
    changed = {name: v for name, v in rule.get_config().items() if v != defaults[name]}
    return "-".join([rule.alias, *(f"{name}={value}" for name, value in changed.items())])
