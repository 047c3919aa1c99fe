"""Checks that rules share: of options, and of the B that a rule returns; each raises or agrees."""

import math
import numbers

import keras

_AGREED = set()


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


def number(name, value, low=None, above=None):
    """Return `value` as a float if it is a finite number within its bounds, else raise ValueError.

    Args:
        name: What the option is called.
        value: Its value.
        low: The least that it may be, None for any.
        above: What it must be greater than, None for nothing.

    Example:
        >>> number("rate", 1, above=0)
        1.0
    """
    good = isinstance(value, numbers.Real) and not isinstance(value, bool)
    good = good and math.isfinite(value)
    good = good and (low is None or value >= low) and (above is None or value > above)
    if good:
        return float(value)
    bound = "" if low is None else f" of {low} or more"
    bound += "" if above is None else f" greater than {above}"
    raise ValueError(f"`{name}` must be a finite number{bound}. Received: {value!r}.")


def integer(name, value, low):
    """Return `value` if it is an integer of `low` or more, else raise ValueError.

    Example:
        >>> integer("samples", 3, low=1)
        3
    """
    if isinstance(value, numbers.Integral) and not isinstance(value, bool) and value >= low:
        return int(value)
    raise ValueError(f"`{name}` must be an integer of {low} or more. Received: {value!r}.")


def feedback(rule, kernel, layer_name):
    """Raise ValueError unless a rule's B has its kernel's shape and dtype.

    B is traced, not computed; each rule class once for the same options, shape and dtype.

    Args:
        rule: A `FeedbackRule` that is attached to `kernel`.
        kernel: The kernel, a variable or tensor.
        layer_name: The name of the layer that the rule serves, for the message.

    Raises:
        ValueError: If shape or dtype differ; it names the rule, the layer, and both.

    Example:
        >>> import tfbio
        >>> layer = tfbio.layers.FeedbackDense(2, rule="sign_symmetry", name="out")
        >>> layer.build((None, 3))
        >>> feedback(layer.rule, layer.kernel, layer.name)
    """
    shape, dtype = tuple(kernel.shape), keras.backend.standardize_dtype(kernel.dtype)
    options = {name: value for name, value in rule.get_config().items() if name != "seed"}
    case = (type(rule), repr(options), shape, dtype)
    if rule.symmetric or case in _AGREED:
        return
    returned = rule.compute_output_spec(keras.KerasTensor(shape, dtype), training=False)
    received = [getattr(returned, name, None) for name in ("shape", "dtype")]
    if received[0] is None or tuple(received[0]) != shape or str(received[1]) != dtype:
        described = type(returned).__name__
        if received[0] is not None:
            described = f"shape {tuple(received[0])} and dtype {received[1]}"
        raise ValueError(
            f"Rule {rule.alias!r} must return a B of its kernel's shape and dtype. For layer "
            f"{layer_name!r} expected: shape {shape} and dtype {dtype}. Received: {described}."
        )
    _AGREED.add(case)
