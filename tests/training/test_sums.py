"""Sums in their order: three tensors are added from left to right, whichever is free."""

import pytest
import tensorflow as tf

from tfbio import _keras
from tfbio.training import Classification, prepare, sums
from tfbio.training.loop import Loop


def add_n(a, b, c):
    """Return a + b + c as one operation."""
    return tf.add_n([a, b, c])


def plus(a, b, c):
    """Return a + b + c as the optimizer of graphs may rewrite it."""
    return a + b + c


def gradient(a, b, c):
    """Return a + b + c as automatic differentiation adds it up."""
    x = tf.ones_like(a)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = tf.reduce_sum(x * a) + tf.reduce_sum(x * b) + tf.reduce_sum(x * c)
    return tape.gradient(y, x)


@tf.autograph.experimental.do_not_convert
def added(addition, *terms):
    """Return a sum of three whose first two are needed after it: they are not free to add up in."""
    a, b, c = (tf.stack([term, term]) * 2.0 for term in terms)
    return tf.stack([a, b, addition(a, b, c)])[2, 0]


TERMS = (1.0, 1e8, -1e8)  # their double is 0 from left to right in float32, and 2 from the right


@pytest.mark.parametrize("addition", [add_n, plus, gradient])
def test_sums_are_taken_from_left_to_right(addition):
    with sums.in_order():
        assert tf.function(added)(addition, *map(tf.constant, TERMS)) == 0.0
    # Were this to fail, TensorFlow would keep an order by itself, and `sums` could go.
    assert tf.function(added)(addition, *map(tf.constant, TERMS)) == 2.0


def test_what_others_use_is_left_as_it_was():
    addition, options = (
        _keras.get_gradient_addition(),
        tf.config.optimizer.get_experimental_options(),
    )
    with pytest.raises(KeyError), sums.in_order(), sums.in_order():
        raise KeyError
    assert _keras.get_gradient_addition() is addition
    found = tf.config.optimizer.get_experimental_options()
    assert found == {**options, "arithmetic_optimization": True}


@pytest.mark.parametrize("strategy", ["one_device", "mirrored"])
def test_the_loop_adds_from_left_to_right(strategy):
    prepared = prepare(Classification(strategy=strategy))
    terms = [tf.Variable(term) for term in TERMS]

    def train_step(batch):
        del batch
        total = added(add_n, *terms)
        return {"loss": tf.where(total == 0.0, total, float("nan"))}

    prepared.model.train_step = train_step
    assert Loop(prepared).train(iter(prepared.epoch(0, 0)), 1) == (1, True)
