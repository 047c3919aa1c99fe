"""Sums in their order: three and more tensors are added alike in every run, for the same bits.

TensorFlow's AddN adds up in the first of its inputs' buffers that nobody else holds at that moment,
beginning with that input. Of three or more, so, the order of addition, and with it the last bit,
depends on how far other operations happen to be: two runs of the same training part within a few
steps where a tensor is used three times, as batch normalization uses its input. TensorFlow's
deterministic operations do not change that (2.21).
"""

import contextlib

import tensorflow as tf
from tensorflow.python.ops import gen_math_ops  # gradients are added up under its name only

_REWRITING = "arithmetic_optimization"


@contextlib.contextmanager
def in_order():
    """Have what is traced and run in this context add from left to right.

    The operation by which automatic differentiation adds up gradients is replaced by one that
    gives ((x₁ + x₂) + x₃) + …, and the optimizer of graphs that makes one AddN of a + b + c is
    switched off. What was traced before keeps the sums that it has.

    Example:
        >>> with in_order():
        ...     float(tf.add_n([tf.constant(1.0), tf.constant(1e8), tf.constant(-1e8)]))
        0.0
    """
    addition = gen_math_ops.add_n
    before = tf.config.optimizer.get_experimental_options().get(_REWRITING, True)

    def add_n(inputs, name=None):
        total, *others = inputs
        for other in others[:-1]:
            total = addition([total, other])
        return addition([total, *others[-1:]], name=name)

    gen_math_ops.add_n = add_n
    tf.config.optimizer.set_experimental_options({_REWRITING: False})
    try:
        yield
    finally:
        gen_math_ops.add_n = addition
        tf.config.optimizer.set_experimental_options({_REWRITING: before})
