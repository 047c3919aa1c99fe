"""The loop: compiled steps of training and evaluation, the same under every strategy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from tfbio import data
from tfbio.training import sums
from tfbio.training.accumulation import Accumulation
from tfbio.training.strategies import in_parts

if TYPE_CHECKING:
    import numpy as np

    from tfbio.training.preparation import Prepared


class Loop:
    """Compiled functions that train and evaluate what `prepare` made.

    A training step is the model's own `train_step`, as in `fit`, so that a model that overrides it
    is trained as it wants to be.

    Args:
        prepared: A `Prepared`.

    Attributes:
        prepared: The same.

    Example:
        >>> from tfbio.training import Classification, prepare
        >>> prepared = prepare(Classification(rule="bp"))
        >>> loop = Loop(prepared)
        >>> loop.train(iter(prepared.epoch(0, start=0)), steps=2)
        (2, True)
        >>> sorted(loop.evaluate(prepared.validation))
        ['accuracy', 'loss']
    """

    def __init__(self, prepared: Prepared):
        self.prepared = prepared
        self._train = _training(prepared)
        self._measure = prepared.task.make_evaluator(prepared)

    def train(self, iterator: Iterator[Any], steps: int) -> tuple[int, bool]:
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

    def evaluate(
        self,
        split: Any,
        heed: Callable[[int, int], Any] = lambda done, total: None,
        show: Callable[[str, np.ndarray], Any] | None = None,
    ) -> dict[str, float]:
        """Return what is measured on a split.

        Args:
            split: One of `prepared`'s.
            heed: Called before each batch, and after the last, with the batches done and those in
                all; what it raises ends the evaluation.
            show: Called with the name and the image, uint8 (height, width, 3), of a picture of
                what is measured; or None.

        Returns:
            A dict of the experiment's `measures`, and of what else there is to say in numbers.

        Raises:
            ValueError: If an image is damaged.
        """
        total = -(-split.size // self.prepared.experiment.batch_size)

        def heeded():
            heed(0, total)
            for done, batch in enumerate(self.prepared.all_of(split), 1):
                yield batch
                heed(done, total)

        with data.clear_errors(), sums.in_order():
            return self._measure(split, heeded(), show)


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
                    "`model`: its train_step must return a dict with 'loss', as Keras's does. "
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
        return model.train_step((data.to_float(images), *rest))

    return lambda batch: prepared.strategy.run(step, args=batch)


def _accumulating(prepared):
    """Return the same for a batch that every device takes in several parts."""
    strategy, model, count = prepared.strategy, prepared.model, prepared.experiment.accumulate
    with strategy.scope():
        gradients = Accumulation(model, count)

    def add(batch, part):
        images, *rest = tf.nest.map_structure(lambda each: in_parts(each, count)[part], batch)
        return model.train_step((data.to_float(images), *rest))

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
