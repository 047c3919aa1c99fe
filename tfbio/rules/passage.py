"""Passage: whether the layer that is being called under a rule of whole networks sends error down.

A layer cannot know by itself where it stands in its network. The network says so while it calls
it, thread by thread, since each replica of a strategy has its own.
"""

import contextlib
import threading

CUT = "cut"
"""The layer's input comes from taps alone, where nothing from above is wanted."""

OPEN = "open"
"""Some weights below learn through the layer's own kernel, or it stands on the network's input; or
it is under target propagation, in a training step that sees to it that none passes further."""


class _State(threading.local):
    passage = None  # outside of any network
    untapped = False


_STATE = _State()


def current():
    """Return `CUT`, `OPEN`, or None outside of a network that says so.

    Example:
        >>> current() is None
        True
    """
    return _STATE.passage


@contextlib.contextmanager
def of(passage):
    """Let layers that are called within the context have this passage.

    Args:
        passage: `CUT` or `OPEN`.

    Example:
        >>> with of(CUT):
        ...     current()
        'cut'
    """
    before, _STATE.passage = _STATE.passage, passage
    try:
        yield
    finally:
        _STATE.passage = before


@contextlib.contextmanager
def untapped():
    """Let networks that are called within the context differentiate as plain Keras does.

    For looking at a network's structure while it is traced; a function that was compiled outside
    does not heed it (`tfbio.true_gradient` is for that).

    Example:
        >>> with untapped():
        ...     is_untapped()
        True
    """
    before, _STATE.untapped = _STATE.untapped, True
    try:
        yield
    finally:
        _STATE.untapped = before


def is_untapped():
    """Return whether this is within `untapped`.

    Example:
        >>> is_untapped()
        False
    """
    return _STATE.untapped
