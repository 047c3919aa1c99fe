"""Errors: what goes wrong while batches are made, in one line instead of TensorFlow's many."""

import contextlib
import re
from collections.abc import Iterator

import tensorflow as tf

UNREADABLE = " cannot be read as an image."
"""The end of a message about a damaged image, after its name."""
SIGN = "Damaged: "
"""The beginning of such a message in TensorFlow's assertions, for `clear_errors` to find."""


class BatchError(ValueError):
    """An error that Python code raises within a `tf.data.Dataset`, found by `clear_errors`."""


_OURS = re.compile(rf"{BatchError.__name__}: (.*)|{SIGN}(.*?{re.escape(UNREADABLE)})")


@contextlib.contextmanager
def clear_errors() -> Iterator[None]:
    """Turn TensorFlow's error of many lines about a damaged image into a ValueError of one.

    Use it around whatever takes batches from a split, or from `images`.

    Raises:
        ValueError: If a batch cannot be made: it names the damaged image, or says what else failed.

    Example:
        >>> from tfbio import data
        >>> broken = data.Encoded([b"GIF?"], [0], (8, 8, 3), names=["mnist, train, example 0"])
        >>> with clear_errors():
        ...     list(broken.batches(1))
        Traceback (most recent call last):
        ValueError: mnist, train, example 0 cannot be read as an image.
    """
    try:
        yield
    except tf.errors.OpError as error:
        ours = _OURS.search(str(error))
        if not ours:
            raise
        raise ValueError(ours[1] or ours[2]) from error
