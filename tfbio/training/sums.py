"""Sums in their order: three and more tensors are added alike in every run, for the same bits.

TensorFlow's AddN adds up in the first of its inputs' buffers that nobody else holds at that moment,
beginning with that input. Of three or more, so, the order of addition, and with it the last bit,
depends on how far other operations happen to be: two runs of the same training part within a few
steps where a tensor is used three times, as batch normalization uses its input. TensorFlow's
deterministic operations do not change that (2.21).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import tensorflow as tf

from tfbio import _keras

_REWRITING = "arithmetic_optimization"


@contextlib.contextmanager
def in_order() -> Iterator[None]:
    """Have what is traced and run in this context add from left to right.

    The operation by which automatic differentiation adds up gradients is replaced by one that
    gives ((x₁ + x₂) + x₃) + …, and the optimizer of graphs that makes one AddN of a + b + c is
    switched off. What was traced before keeps the sums that it has.

    Example:
        >>> with in_order():
        ...     float(tf.add_n([tf.constant(1.0), tf.constant(1e8), tf.constant(-1e8)]))
        0.0
    """
    before = tf.config.optimizer.get_experimental_options().get(_REWRITING, True)

    tf.config.optimizer.set_experimental_options({_REWRITING: False})
    try:
        with _keras.replaced_gradient_addition(_add_in_order):
            yield
    finally:
        tf.config.optimizer.set_experimental_options({_REWRITING: before})


def _add_in_order(addition):
    """Return a function that adds up tensors two by two, from left to right, with `addition`."""

    def add_n(inputs, name=None):
        total, *others = inputs
        for other in others[:-1]:
            total = addition([total, other])
        return addition([total, *others[-1:]], name=name)

    return add_n
