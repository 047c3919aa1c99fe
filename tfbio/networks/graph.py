"""The graph of a functional network: its operations in order, those of nested models among them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import keras

from tfbio import _keras
from tfbio.layers import FeedbackMixin
from tfbio.layers.sites import find_layers, has_kernel

if TYPE_CHECKING:
    from tfbio.rules.network_rule import NetworkRule

_ACTIVATIONS = (
    keras.layers.ReLU,
    keras.layers.LeakyReLU,
    keras.layers.ELU,
    keras.layers.PReLU,
    keras.layers.Softmax,
)
_OPERATIONS = (  # of keras.ops
    "Relu", "Relu6", "Sigmoid", "SparseSigmoid", "Softplus", "Softsign", "Silu", "SquarePlus",
    "LogSigmoid", "LeakyRelu", "HardSigmoid", "HardSilu", "Elu", "Selu", "Gelu", "Celu", "Glu",
    "TanhShrink", "HardTanh", "HardShrink", "Threshold", "SoftShrink", "SparsePlus", "Softmax",
    "LogSoftmax", "Sparsemax", "Tanh",
)  # fmt: skip


class Step(NamedTuple):
    """One operation of a network, at one place of its graph.

    A place is the path of nested models' nodes to a symbolic tensor, and its id.

    Attributes:
        node: The path to its node.
        operation: The layer, or operation of `keras.ops`.
        inputs: The places that it takes.
        outputs: The places that it makes.
        tensors: The symbolic tensors there.
    """

    node: tuple
    operation: Any
    inputs: list
    outputs: list
    tensors: list


def inside(operation: object) -> Any:
    """Return the graph of a functional or sequential model, None for any other operation.

    Example:
        >>> import keras
        >>> inside(keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])) is not None
        True
        >>> inside(keras.layers.Dense(1)) is None
        True
    """
    # A subclass with a call of its own does what it likes with its graph.
    call = getattr(type(operation), "call", None)
    if call not in (keras.Sequential.call, _keras.Functional.call) and not hasattr(
        call, "runs_graph"
    ):
        return None
    if isinstance(operation, keras.Sequential):
        return _keras.get_functional(operation)
    return operation


def nodes(graph: Any) -> list[Any]:
    """Return the nodes of a functional model in the order in which they run.

    Example:
        >>> import keras
        >>> x = keras.Input((2,))
        >>> model = keras.Model(x, keras.layers.ReLU()(x))
        >>> [type(node.operation).__name__ for node in nodes(model)]
        ['ReLU']
    """
    by_depth = _keras.get_nodes_by_depth(graph)
    ordered = [node for depth in sorted(by_depth, reverse=True) for node in by_depth[depth]]
    return [node for node in ordered if node.operation and not node.is_input]


def flattened(graph: Any) -> tuple[list[Step], Callable[[Any], Any]]:
    """Return the steps of a graph and of those nested in it, and a function to resolve places.

    Args:
        graph: What `inside` returns.

    Returns:
        (a list of `Step` in the order in which they run, a function from a place to the one at
        which what stands there is made).

    Example:
        >>> import keras
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, name="out")])
        >>> [step.operation.name for step in flattened(inside(model))[0]]
        ['out']
    """
    aliases, steps = {}, []

    def resolve(place):
        while place in aliases:
            place = aliases[place]
        return place

    def visit(graph, path):
        for node in nodes(graph):
            inner = inside(node.operation)
            if inner is None:
                places = [resolve((path, id(x))) for x in node.input_tensors]
                outputs = [(path, id(x)) for x in node.outputs]
                steps.append(
                    Step((path, id(node)), node.operation, places, outputs, list(node.outputs))
                )
                continue
            below = (*path, id(node))
            for x, source in zip(inner.inputs, node.input_tensors, strict=False):
                aliases[below, id(x)] = (path, id(source))
            visit(inner, below)
            for x, result in zip(node.outputs, inner.outputs, strict=True):
                aliases[path, id(x)] = (below, id(result))

    visit(graph, ())
    return steps, resolve


def contains_kernel(operation: object) -> bool:
    """Return whether an operation of the graph, or the one layer that it wraps, has a kernel.

    Example:
        >>> import keras
        >>> contains_kernel(keras.layers.ReLU())
        False
    """
    if not isinstance(operation, keras.layers.Layer):
        return False
    own = isinstance(operation, FeedbackMixin) or has_kernel(operation)
    return own or bool(_kernels_below(operation))


def _kernels_below(layer):
    if isinstance(layer, FeedbackMixin):  # the rule is below
        return []
    return [name for name, each in find_layers(layer).items() if has_kernel(each)]


def check_one_kernel(name: str | None, operation: object, rule: NetworkRule) -> None:
    """Refuse a layer that makes several kernel layers of its own.

    Args:
        name: What it is called in the network.
        operation: An operation of the graph.
        rule: The rule of networks that wants it, for the message.

    Raises:
        ValueError: If it is one.

    Example:
        >>> import keras, tfbio
        >>> check_one_kernel("out", keras.layers.Dense(1), tfbio.rules.get("dfa"))
    """
    if not isinstance(operation, keras.layers.Layer):
        return
    below = _kernels_below(operation)
    if below and (len(below) > 1 or has_kernel(operation)):
        raise ValueError(
            f"Rule {rule.alias!r} cannot reach the activations within layer {name!r} of class "
            f"{type(operation).__name__}, which has kernels of its own making: "
            f"{', '.join(below[:8])}. Make a functional model of it, or take a rule of layers."
        )


def activation(operation: Any) -> Any:
    """Return the nonlinearity that an operation ends in, or None.

    Args:
        operation: An operation of the graph.

    Example:
        >>> import keras
        >>> activation(keras.layers.Dense(1, "tanh")).__name__
        'tanh'
        >>> activation(keras.layers.Dense(1)) is None
        True
    """
    own = getattr(operation, "activation", None)
    if callable(own):
        return None if own is keras.activations.linear else own
    if isinstance(operation, _ACTIVATIONS):
        return operation
    known = _keras.is_keras_operation(operation) and type(operation).__name__ in _OPERATIONS
    return operation if known else None
