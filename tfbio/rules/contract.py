"""The contract of a layer rule: what its methods take and return, checked as they are used."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import keras
import tensorflow as tf

if TYPE_CHECKING:
    from tfbio.rules.layer_rule import LayerRule
    from tfbio.rules.learned import LearnedRule

_AGREED = set()
_METHODS = {
    "make_state": ("kernel", "fans"),
    "feedback": ("kernel",),
    "step": ("kernel", "circuit"),
    "learn": ("kernel", "circuit"),
    "loss": ("feedback", "kernel", "circuit"),
}
"""What the library calls a layer rule's methods with."""


def feedback(rule: LayerRule, kernel: tf.Tensor, layer_name: str) -> None:
    """Raise ValueError unless a rule's B has its kernel's shape and dtype.

    B is traced, not computed; each rule class once for the same options, shape and dtype.

    Args:
        rule: A `LayerRule` that is attached to `kernel`.
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
    if rule.symmetric or not rule.has_matrix or case in _AGREED:
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


def signatures(rule: LayerRule) -> None:
    """Raise TypeError if a method of a layer rule cannot be called as the library does.

    Args:
        rule: A `LayerRule`.

    Raises:
        TypeError: It names the method, the arguments that it is called with, and its own.

    Example:
        >>> import tfbio
        >>> signatures(tfbio.rules.get("weight_mirror"))
    """
    for name, arguments in _METHODS.items():
        method = getattr(rule, name, None)
        if method is None:
            continue
        own = inspect.signature(method)
        try:
            own.bind(*arguments)
        except TypeError as error:
            taken = ", ".join(["self", *map(str, own.parameters.values())])
            raise TypeError(
                f"Rule {rule.alias!r}: `{name}` is called as {name}({', '.join(arguments)}), "
                f"which its definition does not accept. Received: def {name}({taken})."
            ) from error


def step(rule: LayerRule, values: Any, due: Mapping[str, keras.Variable]) -> dict[str, Any]:
    """Return what a rule's step returned, if it is a value for every weight that is due one.

    Args:
        rule: The `LayerRule`.
        values: What `step` returned.
        due: A dict from name to variable, of the weights that change by step.

    Raises:
        TypeError: If it is no dict.
        ValueError: If a name is missing or unknown, or a value has another shape than its weight.

    Example:
        >>> import tfbio
        >>> step(tfbio.rules.get("brsf"), {}, {})
        {}
    """
    expected = f"Rule {rule.alias!r}: `step` must return a dict with " + (
        f"a value for {', '.join(map(repr, due))}, the weights made with changes='by_step'"
        if due
        else "no entries, as no weight was made with changes='by_step'"
    )
    if not isinstance(values, dict):
        raise TypeError(f"{expected}. Received: {type(values).__name__}.")
    if set(values) != set(due):
        raise ValueError(f"{expected}. Received: a dict with {', '.join(map(repr, values))}.")
    for name, value in values.items():
        shape = tf.convert_to_tensor(value).shape
        if not shape.is_compatible_with(due[name].shape):
            raise ValueError(
                f"Rule {rule.alias!r}: `step` must return a value of shape "
                f"{tuple(due[name].shape)} for {name!r}. Received: shape {tuple(shape)}."
            )
    return values


def loss(rule: LearnedRule, value: Any) -> None:
    """Raise ValueError unless a learned rule's loss is a floating-point scalar.

    Args:
        rule: The `LearnedRule`.
        value: What `loss` returned.

    Example:
        >>> import tfbio
        >>> loss(tfbio.rules.get("symmetric_alignment"), tf.constant(0.0))
    """
    if tf.is_tensor(value) and value.dtype.is_floating and value.shape.rank == 0:
        return
    received = f"a {type(value).__name__}"
    if tf.is_tensor(value):
        received = f"shape {value.shape} and dtype {value.dtype.name}"
    raise ValueError(
        f"Rule {rule.alias!r}: `loss` must return a floating-point scalar tensor. "
        f"Received: {received}."
    )
