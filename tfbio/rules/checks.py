"""Checks of a rule's options: each returns the value, or raises an error that names the option.

`number` and `integer` are the checks that all of the library uses.
"""

from collections.abc import Iterable
from typing import Any

from tfbio._arguments import check_integer as integer
from tfbio._arguments import check_number as number
from tfbio._arguments import is_integer

__all__ = ["boolean", "choice", "integer", "number", "seed"]


def boolean(name: str, value: Any) -> bool:
    """Return `value` if it is True or False, else raise ValueError.

    Example:
        >>> boolean("center", True)
        True
    """
    if isinstance(value, bool):
        return value
    raise ValueError(f"`{name}` must be True or False. Received: {value!r}.")


def choice(name: str, value: Any, known: Iterable[str]) -> str:
    """Return `value` if it is one of the strings `known`, else raise ValueError.

    Example:
        >>> choice("spatial", "shared", ("shared", "dense"))
        'shared'
    """
    if isinstance(value, str) and value in known:
        return value
    choices = " or ".join(map(repr, known))
    raise ValueError(f"`{name}` must be {choices}. Received: {value!r}.")


def seed(value: Any) -> int | None:
    """Return `value` if it is None or an integer of 0 to 2³¹ − 1, else raise ValueError.

    Example:
        >>> seed(3)
        3
    """
    if value is None or is_integer(value, 0, 2**31 - 1):
        return value if value is None else int(value)
    raise ValueError(f"`seed` must be None or an integer of 0 to 2**31 - 1. Received: {value!r}.")
