"""Checks of options that several rules share; each returns the value or raises."""

import numbers


def seed(value):
    """Return `value` if it is None or an integer of 0 to 2³¹ − 1, else raise ValueError.

    Example:
        >>> seed(3)
        3
    """
    is_integer = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if value is None or (is_integer and 0 <= value < 2**31):
        return value if value is None else int(value)
    raise ValueError(f"`seed` must be None or an integer of 0 to 2**31 - 1. Received: {value!r}.")


def probability(name, value):
    """Return `value` as a float if it is a number of 0 to 1, else raise ValueError.

    Example:
        >>> probability("agreement", 1)
        1.0
    """
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if is_number and 0 <= value <= 1:
        return float(value)
    raise ValueError(f"`{name}` must be a number of 0 to 1. Received: {value!r}.")
