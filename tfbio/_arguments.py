"""Arguments: the checks of numbers and names that every room needs.

This file stands beside the rooms, not in one of them, because rules, optimizers, models, data and
studies all need it, and models and data may not import the room of rules. It imports nothing of
ours.
"""

import difflib
import math
import numbers
from collections.abc import Iterable, Mapping
from typing import Any


def suggest(name: object, known: Iterable[str], count: int = 1) -> str:
    """Return a hint at the known names that are closest to an unknown one.

    Upper and lower case are not distinguished.

    Args:
        name: The unknown name.
        known: The known names; or a dict from a spelling to the name to suggest for it.
        count: How many names to suggest at most.

    Returns:
        A sentence to append to an error message, after a space; "" if no name is close.

    Example:
        >>> suggest("sign_symetry", ["backprop", "sign_symmetry"])
        " Did you mean 'sign_symmetry'?"
        >>> suggest("x", ["backprop"])
        ''
    """
    names = known if isinstance(known, Mapping) else {each: each for each in known}
    lowered = {str(spelling).lower(): each for spelling, each in names.items()}
    close = difflib.get_close_matches(str(name).lower(), lowered, n=count)
    hint = " or ".join(dict.fromkeys(repr(lowered[each]) for each in close))
    return f" Did you mean {hint}?" if close else ""


def shorten(names: Iterable[str], most: int = 8) -> str:
    """Return the first of many names, for an error message.

    Args:
        names: Strings.
        most: How many of them to show.

    Example:
        >>> shorten(["a", "b", "c"], most=2)
        'a, b and 1 more'
    """
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def is_integer(value: Any, low: int, high: int | None = None) -> bool:
    """Return whether a value is an integer, but no bool, within its bounds.

    Args:
        value: The value.
        low: The least admissible value.
        high: The greatest admissible value, or None for no limit.

    Example:
        >>> is_integer(3, low=1), is_integer(True, low=1), is_integer(3.0, low=1)
        (True, False, False)
    """
    integral = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    return integral and low <= value and (high is None or value <= high)


def check_integer(name: str, value: Any, low: int, high: int | None = None) -> int:
    """Return an argument as an int.

    Args:
        name: The argument's name, for the error message.
        value: Its value.
        low: The least admissible value.
        high: The greatest admissible value, or None for no limit.

    Raises:
        ValueError: If the value is no integer, or is out of range.

    Example:
        >>> check_integer("samples", 0, low=1)
        Traceback (most recent call last):
        ValueError: `samples` must be an integer of 1 or more. Received: 0.
    """
    if is_integer(value, low, high):
        return int(value)
    bounds = f"{low} or more" if high is None else f"{low} to {high}"
    raise ValueError(f"`{name}` must be an integer of {bounds}. Received: {value!r}.")


def check_number(
    name: str,
    value: Any,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    below: float | None = None,
) -> float:
    """Return an argument as a float.

    Args:
        name: The argument's name, for the error message.
        value: Its value.
        low: The least admissible value, or None for no limit.
        high: The greatest admissible value, or None for no limit.
        above: The value must be greater than this, or None for no limit.
        below: The value must be less than this, or None for no limit.

    Raises:
        ValueError: If the value is no finite real number, or is out of range.

    Example:
        >>> check_number("rate", 2, low=0, high=1)
        Traceback (most recent call last):
        ValueError: `rate` must be a finite number of 0 to 1. Received: 2.
    """
    number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    number = number and math.isfinite(value)
    within = (
        number
        and (low is None or value >= low)
        and (high is None or value <= high)
        and (above is None or value > above)
        and (below is None or value < below)
    )
    if within:
        return float(value)
    raise ValueError(
        f"`{name}` must be a finite number{_describe_bounds(low, high, above, below)}. "
        f"Received: {value!r}."
    )


def _describe_bounds(low, high, above, below):
    """Return the bounds in words, to follow "a finite number"."""
    if low is not None and high is not None:
        return f" of {low} to {high}"
    limits = (
        (low, "of {} or more"),
        (above, "greater than {}"),
        (high, "at most {}"),
        (below, "less than {}"),
    )
    words = [text.format(bound) for bound, text in limits if bound is not None]
    return " " + " and ".join(words) if words else ""
