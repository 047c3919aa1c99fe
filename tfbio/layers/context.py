"""The context of a call: how the layers that are called within it send their errors, and show them.

A layer cannot know by itself where it stands in its network, nor that somebody looks on. The
network or the observer says so around the call. Contexts belong to the thread, since each replica
of a `tf.distribute` strategy is traced in one of its own.
"""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import tensorflow as tf

if TYPE_CHECKING:
    from tfbio.layers.mixin import Site

CUT = "cut"
"""No error is wanted below the layer's input: it comes from taps alone."""

OPEN = "open"
"""The error passes through W itself: weights below learn through the layer's own kernel, it stands
on the network's input, or the network's training step sees to it that none passes further."""


@dataclasses.dataclass(frozen=True)
class Context:
    """What is said of the calls within a context.

    Attributes:
        error: `CUT`, `OPEN`, or None outside of any network that says so; heeded by layers under
            rules of whole networks.
        rewired: Whether layers and networks differentiate by their rule; if not, as plain Keras
            does, and no rule takes a step. For looking at a network's structure while it is traced:
            a function that was compiled outside does not heed it (`tfbio.true_gradient` is for
            that).
        sightings: The list to which every error that passes a kernel appends its `Sighting`; None
            if nobody looks on.
    """

    error: str | None = None
    rewired: bool = True
    sightings: list[Sighting] | None = None


class Sighting(NamedTuple):
    """One error that has reached a kernel's layer.

    Attributes:
        site: The `tfbio.layers.Site`.
        op: The layer's linear operation.
        inputs: What it was applied to, x.
        kernel: W, in the layer's compute dtype.
        feedback: The effective B, in the same dtype.
        error: ``e = ∂L/∂op(x, W)``.
    """

    site: Any
    op: Any
    inputs: Any
    kernel: tf.Tensor
    feedback: tf.Tensor
    error: tf.Tensor


_NOTHING_SAID = Context()
_CURRENT = contextvars.ContextVar("context", default=_NOTHING_SAID)


def current() -> Context:
    """Return the `Context` of the calls that are made here.

    Example:
        >>> current()
        Context(error=None, rewired=True, sightings=None)
    """
    return _CURRENT.get()


@contextlib.contextmanager
def within(**changes: Any) -> Iterator[Context]:
    """Change the context of all calls that are made within; what is not named stays as it is.

    Args:
        **changes: Attributes of `Context`.

    Yields:
        The changed `Context`.

    Example:
        >>> import tfbio
        >>> layer = tfbio.layers.FeedbackDense(2, rule="feedback_alignment")
        >>> with within(sightings=[]) as here, tf.GradientTape() as tape:
        ...     loss = tf.reduce_sum(3.0 * layer(tf.ones((1, 4))))
        ...     _ = tape.gradient(loss, layer.kernel)
        >>> [sighting.error.numpy().tolist() for sighting in here.sightings]
        [[[3.0, 3.0]]]
    """
    token = _CURRENT.set(dataclasses.replace(current(), **changes))
    try:
        yield current()
    finally:
        _CURRENT.reset(token)


def show(
    outputs: tf.Tensor,
    site: Site,
    op: Callable[..., tf.Tensor],
    inputs: tf.Tensor,
    kernel: tf.Tensor,
    feedback: tf.Tensor,
) -> tf.Tensor:
    """Return `outputs` as they are; if somebody looks on, their error is shown as it comes back.

    Args:
        outputs: ``op(inputs, kernel)``, a tensor.
        site: Where that is, see `Sighting` for this and the others.
        op: The operation.
        inputs: Its input.
        kernel: W.
        feedback: B.

    Example:
        >>> x = tf.ones((1, 1))
        >>> show(x, None, tf.matmul, x, x, x) is x
        True
    """
    sightings = current().sightings
    if sightings is None:
        return outputs

    @tf.custom_gradient
    def shown(outputs):
        def gradient(error):
            sightings.append(Sighting(site, op, inputs, kernel, feedback, error))
            return error

        return tf.identity(outputs), gradient

    return shown(outputs)
