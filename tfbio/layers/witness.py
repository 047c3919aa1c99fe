"""The witness: while gradient angles are measured, it sees the error that reaches each kernel."""

import contextlib
import contextvars
from typing import Any, NamedTuple

import tensorflow as tf

# Of the thread, as each replica of a tf.distribute strategy is traced in one of its own.
_SEEN = contextvars.ContextVar("seen", default=None)


class Sighting(NamedTuple):
    """One passage of an error through a kernel.

    Attributes:
        site: The `tfbio.layers.Site`.
        op: The layer's linear operation.
        inputs: What it was applied to, x.
        kernel: W, in the layer's compute dtype.
        feedback: The effective B, likewise.
        error: ``e = ∂L/∂op(x, W)``.
    """

    site: Any
    op: Any
    inputs: Any
    kernel: tf.Tensor
    feedback: tf.Tensor
    error: tf.Tensor


@contextlib.contextmanager
def errors():
    """See every error that passes a layer under a rule, as long as the context lasts.

    The model must be called, and differentiated, within.

    Yields:
        A list, to which each passage of an error appends its `Sighting`.

    Example:
        >>> import tfbio
        >>> layer = tfbio.layers.FeedbackDense(2, rule="feedback_alignment")
        >>> with errors() as seen, tf.GradientTape() as tape:
        ...     loss = tf.reduce_sum(3.0 * layer(tf.ones((1, 4))))
        ...     _ = tape.gradient(loss, layer.kernel)
        >>> [sighting.error.numpy().tolist() for sighting in seen]
        [[[3.0, 3.0]]]
    """
    seen = []
    token = _SEEN.set(seen)
    try:
        yield seen
    finally:
        _SEEN.reset(token)


def is_watched():
    """Return whether this is within `errors`.

    Example:
        >>> is_watched()
        False
    """
    return _SEEN.get() is not None


def passed(outputs, site, op, inputs, kernel, feedback):
    """Return `outputs` as they are; within `errors`, their error is seen as it comes back.

    Args:
        outputs: ``op(inputs, kernel)``, a tensor.
        site: Where that is, see `Sighting` for this and the others.
        op: The operation.
        inputs: Its input.
        kernel: W.
        feedback: B.

    Example:
        >>> x = tf.ones((1, 1))
        >>> passed(x, None, tf.matmul, x, x, x) is x
        True
    """
    seen = _SEEN.get()
    if seen is None:
        return outputs

    @tf.custom_gradient
    def witnessed(outputs):
        def gradient(error):
            seen.append(Sighting(site, op, inputs, kernel, feedback, error))
            return error

        return tf.identity(outputs), gradient

    return witnessed(outputs)
