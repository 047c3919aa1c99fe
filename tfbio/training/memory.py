"""Memory between runs: what one training leaves in the process goes before the next begins."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import keras

from tfbio import _keras


@contextlib.contextmanager
def freed() -> Iterator[None]:
    """Free what is traced in this context once it is left.

    TensorFlow registers the gradient of every call of `tf.custom_gradient` in a graph, forever, and
    with it the graph and the variables of a model whose layers are under a rule. What was
    registered in this context is taken out again, so that what was traced in it computes on, and
    is not differentiated anew.

    Example:
        >>> from tfbio.training import Classification, train_and_evaluate
        >>> with freed():
        ...     train_and_evaluate(Classification(...))  # doctest: +SKIP
    """
    before = _keras.get_registered_gradients()
    try:
        yield
    finally:
        for name in _keras.get_registered_gradients() - before:
            if name.startswith("CustomGradient-"):
                _keras.unregister_gradient(name)
        keras.backend.clear_session()
