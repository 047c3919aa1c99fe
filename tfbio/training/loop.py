"""The loop: compiled steps of training and evaluation, the same under every strategy."""

import keras
import tensorflow as tf

from tfbio import data
from tfbio.training import sums
from tfbio.training.accumulation import Accumulation
from tfbio.training.strategies import in_parts


class Loop:
    """Compiled functions that train and evaluate what `prepare` made.

    A training step is the model's own `train_step`, as in `fit`, so that a model that overrides it
    is trained as it wants to be.

    Args:
        prepared: A `Prepared`.

    Attributes:
        prepared: The same.

    Example:
        >>> from tfbio.training import Experiment, prepare
        >>> prepared = prepare(Experiment(rule="bp"))
        >>> loop = Loop(prepared)
        >>> loop.train(iter(prepared.epoch(0, start=0)), steps=2)
        (2, True)
        >>> sorted(loop.evaluate(prepared.validation))
        ['accuracy', 'loss']
    """

    def __init__(self, prepared):
        self.prepared = prepared
        self._train = _training(prepared)
        self._evaluate = _evaluation(prepared)

    def train(self, iterator, steps):
        """Take steps, stopping after one whose loss is no finite number.

        Args:
            iterator: Of an epoch's batches.
            steps: How many.

        Returns:
            (steps taken, whether the loss is finite).

        Raises:
            ValueError: If an image is damaged.
        """
        with data.clear_errors(), sums.in_order():
            taken, finite = self._train(iterator, tf.constant(steps, tf.int64))
        return int(taken), bool(finite)

    def evaluate(self, split, heed=lambda: None):
        """Return the mean loss and the top-1 accuracy over a split.

        Args:
            split: A `tfbio.data.Split`.
            heed: Called before each batch; what it raises ends the evaluation.

        Returns:
            A dict of "loss" and "accuracy".

        Raises:
            ValueError: If an image is damaged.
        """
        totals = [0.0, 0.0, 0.0]  # Python's floats have the precision
        with data.clear_errors(), sums.in_order():
            for batch in self.prepared.all_of(split):
                heed()
                parts = self._evaluate(batch)
                totals = [total + float(part) for total, part in zip(totals, parts, strict=True)]
        loss, correct, count = totals
        return {"loss": loss / count, "accuracy": correct / count}


def _training(prepared):
    strategy = prepared.strategy
    step = _accumulating(prepared) if prepared.experiment.accumulate > 1 else _stepping(prepared)

    @tf.function(reduce_retracing=True)
    def train(iterator, steps):
        taken = tf.constant(0, tf.int64)
        finite = tf.constant(True)
        while finite and taken < steps:
            logs = step(next(iterator))
            if "loss" not in logs:
                raise ValueError(
                    "--model: its train_step must return a dict with 'loss', as Keras's does. "
                    f"Received: {sorted(logs)}."
                )
            # The running mean of an epoch: once it is not finite, it stays so.
            loss = strategy.reduce("sum", logs["loss"], axis=None)
            finite = tf.math.is_finite(loss)
            taken += 1
        return taken, finite

    return train


def _stepping(prepared):
    """Return a function that takes an optimizer step on a batch, and returns the logs."""
    model = prepared.model

    @tf.function(jit_compile=prepared.experiment.jit)
    def step(images, *rest):
        return model.train_step((_ready(images), *rest))

    return lambda batch: prepared.strategy.run(step, args=batch)


def _accumulating(prepared):
    """Return the same for a batch that every device takes in several parts."""
    strategy, model, count = prepared.strategy, prepared.model, prepared.experiment.accumulate
    with strategy.scope():
        gradients = Accumulation(model, count)

    def add(batch, part):
        images, *rest = (in_parts(each, count)[part] for each in batch)
        return model.train_step((_ready(images), *rest))

    add = tf.function(add, jit_compile=prepared.experiment.jit)
    release = tf.function(gradients.release, jit_compile=prepared.experiment.jit)

    def step(batch):
        with gradients.in_place():
            for part in tf.range(count - 1):
                strategy.run(add, args=(batch, part))
            logs = strategy.run(add, args=(batch, tf.constant(count - 1)))
        strategy.run(release)
        return logs

    return step


def _evaluation(prepared):
    strategy, model = prepared.strategy, prepared.model

    def measured(images, labels, weights):
        logits = data.average_over_crops(
            lambda images: model(_ready(images), training=False), images
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


def _ready(images):
    """Return images as models take them: bytes, a quarter of the traffic, become 0 to 1 here."""
    return tf.cast(images, tf.float32) / 255.0 if images.dtype == tf.uint8 else images
