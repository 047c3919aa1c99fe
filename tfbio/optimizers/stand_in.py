"""The stand-in: what takes a model's optimizer's place, to see the gradients a step applies."""

from __future__ import annotations

import abc
import contextlib
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras
    import tensorflow as tf


class StandIn(abc.ABC):
    """Receives the gradients that a model's training step hands to its optimizer.

    Whatever else the step asks its optimizer for (the rate, the iterations, the loss scale) is the
    optimizer's own.

    Args:
        model: The compiled model.

    Example:
        >>> import keras, tensorflow as tf
        >>> class Printer(StandIn):
        ...     def receive(self, pairs):
        ...         print([variable.name for _, variable in pairs])
        >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
        >>> model.compile("sgd", "mse")
        >>> with Printer(model).in_place():
        ...     _ = model.train_step((tf.ones((1, 1)), tf.ones((1, 1))))
        ['kernel', 'bias']
    """

    def __init__(self, model: keras.Model):
        self._model = model
        self._optimizer: Any = None

    def __getattr__(self, name):
        return getattr(self._optimizer, name)

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Take the place of the model's optimizer, within the context."""
        self._optimizer = self._model.optimizer
        self._model.optimizer = self
        try:
            yield
        finally:
            self._model.optimizer = self._optimizer

    def apply_gradients(
        self, grads_and_vars: Iterable[tuple[tf.Tensor | None, keras.Variable]]
    ) -> None:
        """Receive pairs of gradient and variable."""
        self.receive(list(grads_and_vars))

    def apply(
        self,
        grads: Sequence[tf.Tensor | None],
        trainable_variables: Sequence[keras.Variable] | None = None,
    ) -> None:
        """Receive gradients, without variables those of all trainable ones in order."""
        variables = trainable_variables
        if variables is None:
            variables = self._model.trainable_variables
        self.receive(list(zip(grads, variables, strict=True)))

    @abc.abstractmethod
    def receive(self, pairs: list[tuple[tf.Tensor | None, keras.Variable]]) -> None:
        """Do with a list of pairs of gradient, or None, and variable what there is to do."""
