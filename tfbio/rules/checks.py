"""Checks of options: each returns the value, or raises an error that names the option."""

import math
import numbers
from collections.abc import Iterable
from typing import Any


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
    is_integer = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if value is None or (is_integer and 0 <= value < 2**31):
        return value if value is None else int(value)
    raise ValueError(f"`seed` must be None or an integer of 0 to 2**31 - 1. Received: {value!r}.")


def probability(name: str, value: Any) -> float:
    """Return `value` as a float if it is a number of 0 to 1, else raise ValueError.

    Example:
        >>> probability("agreement", 1)
        1.0
    """
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if is_number and 0 <= value <= 1:
        return float(value)
    raise ValueError(f"`{name}` must be a number of 0 to 1. Received: {value!r}.")


def number(
    name: str,
    value: Any,
    low: float | None = None,
    above: float | None = None,
    below: float | None = None,
) -> float:
    """Return `value` as a float if it is a finite number within its bounds, else raise ValueError.

    Args:
        name: What the option is called.
        value: Its value.
        low: The least that it may be, None for any.
        above: What it must be greater than, None for nothing.
        below: What it must be less than, None for nothing.

    Example:
        >>> number("rate", 1, above=0)
        1.0
    """
    good = isinstance(value, numbers.Real) and not isinstance(value, bool)
    good = good and math.isfinite(value)
    good = good and (low is None or value >= low) and (above is None or value > above)
    if good and (below is None or value < below):
        return float(value)
    bound = "" if low is None else f" of {low} or more"
    bound += "" if above is None else f" greater than {above}"
    bound += "" if below is None else f", less than {below}"
    raise ValueError(f"`{name}` must be a number{bound}. Received: {value!r}.")


def integer(name: str, value: Any, low: int) -> int:
    """Return `value` if it is an integer of `low` or more, else raise ValueError.

    Example:
        >>> integer("samples", 3, low=1)
        3
    """
    if isinstance(value, numbers.Integral) and not isinstance(value, bool) and value >= low:
        return int(value)
    raise ValueError(f"`{name}` must be an integer of {low} or more. Received: {value!r}.")
