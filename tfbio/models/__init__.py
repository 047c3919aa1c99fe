"""Networks, plain Keras: they know nothing of rules; `tfbio.convert` puts them under one."""

import difflib
import numbers
from collections.abc import Iterable

from tfbio.models.digits_cnn import digits_cnn
from tfbio.models.lenet import lenet

_BUILDERS = {"digits_cnn": digits_cnn, "lenet": lenet}

__all__ = ["build", "digits_cnn", "lenet", "names"]


def names():
    """Return the names that `build` knows.

    Example:
        >>> names()
        ('digits_cnn', 'lenet')
    """
    return tuple(_BUILDERS)


def build(name, num_classes, input_shape):
    """Build a network by name.

    Args:
        name: One of `names`.
        num_classes: The number of outputs, 1 or more.
        input_shape: (height, width, channels), each 1 or more.

    Returns:
        An uncompiled `keras.Model` from images to logits.

    Raises:
        ValueError: If the name is unknown, a number out of its range, or the images too small for
            the network.

    Example:
        >>> build("lenet", num_classes=10, input_shape=(32, 32, 1)).name
        'lenet'
    """
    if str(name) not in _BUILDERS:
        close = difflib.get_close_matches(str(name), _BUILDERS, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"Unknown model {name!r}.{hint} Models: {', '.join(_BUILDERS)}.")
    if not _is_count(num_classes):
        raise ValueError(
            f"`num_classes` must be an integer of 1 or more. Received: {num_classes!r}."
        )
    shape = tuple(input_shape) if isinstance(input_shape, Iterable) else ()
    if len(shape) != 3 or not all(map(_is_count, shape)):
        raise ValueError(
            "`input_shape` must be (height, width, channels), positive integers. "
            f"Received: {input_shape}."
        )
    return _BUILDERS[name](int(num_classes), tuple(map(int, shape)))


def _is_count(value):
    return isinstance(value, numbers.Integral) and not isinstance(value, bool) and value > 0
