"""Accumulation: one optimizer step on the mean gradient of several micro-batches."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from tfbio.optimizers.stand_in import StandIn

if TYPE_CHECKING:
    import keras


class Accumulation(StandIn):
    """What stands in a model's optimizer's place while micro-batches are taken.

    A training step that applies its gradients adds them to sums, of each replica's own; `release`
    applies their mean, once. Iterations, schedules, momentum, decay and the rules' own steps thus
    count optimizer steps. It is the update of the whole batch, except where examples of a batch
    meet: batch normalization sees micro-batches.

    Args:
        model: A compiled model with a built optimizer.
        count: Micro-batches per optimizer step.

    Example:
        >>> import keras
        >>> dense = keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")
        >>> model = keras.Sequential([keras.Input((1,)), dense])
        >>> model.compile(keras.optimizers.SGD(0.5), "mse")
        >>> model.optimizer.build(model.trainable_variables)
        >>> sums = Accumulation(model, 2)
        >>> with sums.in_place():
        ...     for gradient in (1.0, 3.0):
        ...         model.optimizer.apply_gradients([(tf.constant([[gradient]]), dense.kernel)])
        >>> sums.release()
        >>> print(dense.kernel.numpy())
        [[-1.]]
    """

    def __init__(self, model: keras.Model, count: int):
        super().__init__(model)
        self._count = count
        self._variables = list(model.trainable_variables)
        self._places = {id(variable): place for place, variable in enumerate(self._variables)}
        # Between steps they are 0, so that no checkpoint needs them.
        self._sums = [
            tf.Variable(
                tf.zeros(variable.shape, variable.dtype),
                trainable=False,
                synchronization=tf.VariableSynchronization.ON_READ,
                aggregation=tf.VariableAggregation.SUM,
            )
            for variable in self._variables
        ]
        self._with_gradient = set()
        self._taken = tf.Variable(
            tf.constant(0, tf.int64),
            trainable=False,
            synchronization=tf.VariableSynchronization.ON_READ,
            aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
        )

    @property
    def micro_batch(self) -> tf.Tensor:
        """The place of the present micro-batch in its step, from 0: each draws noise of its own."""
        return tf.convert_to_tensor(self._taken)

    def receive(self, pairs: Iterable[tuple[Any, Any]]) -> None:
        """Add gradients to the sums."""
        for gradient, variable in pairs:
            if gradient is not None:
                place = self._places[id(variable)]
                self._with_gradient.add(place)
                gradient = tf.cast(tf.convert_to_tensor(gradient), variable.dtype)
                self._sums[place].assign_add(gradient)
        self._taken.assign_add(1)

    def release(self) -> None:
        """Apply the mean of the sums, and start them again from 0.

        Raises:
            ValueError: If no gradient was added, ever.
        """
        if not self._with_gradient:
            raise ValueError(
                "`accumulate`: the model's train_step does not apply its gradients through "
                "its optimizer, as Keras's does."
            )
        gradients = [
            total / self._count if place in self._with_gradient else None
            for place, total in enumerate(self._sums)
        ]
        self._optimizer.apply(gradients, self._variables)
        for total in self._sums:
            total.assign(tf.zeros_like(total))
        self._taken.assign(0)
