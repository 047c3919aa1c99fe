"""Training: run one experiment with plain Keras `fit`, and measure it."""

import pathlib
import statistics
import time
from typing import NamedTuple

import keras

from tfbio import callbacks, data, models, rules
from tfbio.convert import convert


class Result(NamedTuple):
    """What one run gave.

    Attributes:
        experiment: The `Experiment`.
        test_accuracy: Top-1 on the test split after the last epoch, 0 to 1; it selects nothing.
        curve: The accuracy after every epoch, on the validation set, or on the training split as
            `fit` reports it where nothing is held out.
        angles: A list of (step, dict from layer to degrees), before training and per epoch.
        seconds_per_step: The median over epochs but the first, which compiles, of an epoch's time
            over its steps.
    """

    experiment: object
    test_accuracy: float
    curve: list
    angles: list
    seconds_per_step: float


class Prepared(NamedTuple):
    """A compiled model and its data: all that can fail for a wrong option has been done."""

    model: keras.Model
    train: object
    validation: object
    test: object


def prepare(experiment):
    """Load the data, build and convert the model, and compile it.

    Args:
        experiment: An `Experiment`.

    Returns:
        A `Prepared`.

    Raises:
        ValueError: If options do not fit together or data are damaged; the message says which.
        OSError: If data cannot be read, or the workdir not written.
    """
    pathlib.Path(experiment.workdir).mkdir(parents=True, exist_ok=True)
    dataset = data.load(experiment.dataset, experiment.data_dir)
    images, labels = dataset.train
    test_images, test_labels = dataset.test
    images, test_images = (data.resize(x, experiment.image_size) for x in (images, test_images))
    train, validation = data.split(images, labels, experiment.validation_fraction, experiment.seed)
    if not len(train[0]) or (experiment.validation_fraction and not len(validation[0])):
        raise ValueError(
            f"--validation_fraction={experiment.validation_fraction} leaves {len(train[0])} of "
            f"{len(images)} images to train on and {len(validation[0])} to validate on: both need "
            "one, or give 0 to train on all."
        )
    keras.utils.set_random_seed(experiment.seed)
    model = models.build(experiment.model, dataset.num_classes, images.shape[1:])
    convert(model, experiment.rule, last_layer=experiment.last_layer_rule or None)
    size = experiment.batch_size
    train_batches = data.batches(*train, size, seed=experiment.seed)
    model.compile(
        keras.optimizers.SGD(_schedule(experiment, len(train_batches)), experiment.momentum),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        # On a GPU "auto" would be XLA; the figures should mean the same on every device.
        jit_compile=False,
    )
    return Prepared(
        model,
        train_batches,
        data.batches(*validation, size) if len(validation[0]) else None,
        data.batches(test_images, test_labels, size),
    )


def _schedule(experiment, steps_per_epoch):
    """Return the learning rate by step: divided by 10 after each milestone."""
    milestones = experiment.milestone_epochs
    if not milestones:
        return experiment.learning_rate
    return keras.optimizers.schedules.PiecewiseConstantDecay(
        # A boundary belongs to the interval before it; the first step is 0.
        [epoch * steps_per_epoch - 1 for epoch in milestones],
        [experiment.learning_rate / 10**index for index in range(len(milestones) + 1)],
    )


def train(experiment, prepared, extra_callbacks=()):
    """Train what `prepare` made, and test it once, after the last epoch.

    Writes TensorBoard events (loss and accuracy per epoch, the weight angle of every layer) and
    metrics.csv to the experiment's workdir.

    Args:
        experiment: The `Experiment`.
        prepared: Its `Prepared`.
        extra_callbacks: Further Keras callbacks.

    Returns:
        A `Result`.

    Example:
        >>> import tempfile
        >>> from tfbio.training import Experiment
        >>> experiment = Experiment(epochs=2, workdir=tempfile.mkdtemp())
        >>> result = train(experiment, prepare(experiment))
        >>> len(result.curve), len(result.angles)
        (2, 3)
    """
    workdir = pathlib.Path(experiment.workdir)
    angles = callbacks.WeightAngles(workdir / "angles")
    epochs = _EpochTimes()
    history = prepared.model.fit(
        prepared.train,
        epochs=experiment.epochs,
        validation_data=prepared.validation,
        shuffle=False,  # the dataset shuffles itself
        verbose=0,
        callbacks=[
            epochs,
            angles,
            keras.callbacks.CSVLogger(str(workdir / "metrics.csv")),
            keras.callbacks.TensorBoard(str(workdir), write_graph=False),
            *extra_callbacks,
        ],
    ).history
    _, accuracy = prepared.model.evaluate(prepared.test, verbose=0)
    times = epochs.seconds[1:] or epochs.seconds
    return Result(
        experiment,
        accuracy,
        history["accuracy" if prepared.validation is None else "val_accuracy"],
        angles.history,
        statistics.median(times) / len(prepared.train),
    )


class _EpochTimes(keras.callbacks.Callback):
    """Times each epoch's training steps, validation and other callbacks left out."""

    def __init__(self):
        super().__init__()
        self.seconds = []

    def on_epoch_begin(self, epoch, logs=None):
        self._start = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        self._end = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        self.seconds.append(self._end - self._start)


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
