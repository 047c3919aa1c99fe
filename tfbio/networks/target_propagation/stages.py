"""The stages: a chain of layers, cut before every kernel but the first."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import keras

from tfbio import _keras
from tfbio.layers import TWINS
from tfbio.layers.sites import find_layers
from tfbio.networks import graph

if TYPE_CHECKING:
    import tensorflow as tf

    from tfbio.rules.target_propagation import TargetPropagation

_K = keras.layers
_SHAPING = (
    *(_K.Flatten, _K.Reshape, _K.Permute),
    *(_K.ZeroPadding1D, _K.ZeroPadding2D, _K.ZeroPadding3D),
    *(_K.Cropping1D, _K.Cropping2D, _K.Cropping3D),
    *(_K.MaxPooling1D, _K.MaxPooling2D, _K.MaxPooling3D),
    *(_K.AveragePooling1D, _K.AveragePooling2D, _K.AveragePooling3D),
    *(_K.GlobalMaxPooling1D, _K.GlobalMaxPooling2D, _K.GlobalMaxPooling3D),
    *(_K.GlobalAveragePooling1D, _K.GlobalAveragePooling2D, _K.GlobalAveragePooling3D),
)


class Pass(NamedTuple):
    """One run of a stage.

    Attributes:
        inputs: What each of its operations was given.
        output: What came out.
    """

    inputs: tuple
    output: Any


@dataclasses.dataclass(frozen=True, eq=False)
class Stage:
    """One layer f of the network: a kernel, with all that follows it up to the next kernel.

    Attributes:
        name: The kernel layer's name in the network.
        layer: The kernel layer.
        operations: All operations in their order; before the network's first kernel there may be
            others.
        activation: The last nonlinearity, a function of a tensor; None if it has none.
        shape: The shape of its input without the batch.
    """

    name: str
    layer: keras.layers.Layer
    operations: tuple
    activation: Callable | None
    shape: tuple

    def run(self, x: tf.Tensor, training: bool = True) -> Pass:
        """Return the `Pass` of an input.

        Args:
            x: A tensor.
            training: Whether it is run as in training.
        """
        inputs = []
        for operation in self.operations:
            inputs.append(x)
            x = _keras.bind_context(operation, training=training)(x)
        return Pass(tuple(inputs), x)

    @property
    def rule(self) -> Any:
        """The kernel's rule, which owns the weights of its inverse."""
        return self.layer.rule


def stages(model: keras.Model, rule: TargetPropagation) -> tuple[Stage, ...]:
    """Return the stages of a network.

    Args:
        model: A built functional or sequential model, nested or not: a chain of operations.
        rule: A `tfbio.rules.TargetPropagation`.

    Returns:
        A tuple of `Stage`, from the input to the output.

    Raises:
        ValueError: If the model is no such chain; if a layer is in it more than once; if it has
            fewer than two kernels, layers with weights and no kernel (batch normalization), or
            others after its first kernel whose output cannot be undone (dropout); if an input's
            shape is not known; or if the output is not what the rule takes its first target from.

    Example:
        >>> import keras, tfbio
        >>> layers = [keras.Input((2, 2)), keras.layers.Flatten()]
        >>> layers += [keras.layers.Dense(3, "tanh", name="hidden"), keras.layers.Dense(2)]
        >>> first, second = stages(keras.Sequential(layers), tfbio.rules.get("dtp"))
        >>> first.name, len(first.operations), first.activation.__name__, second.shape
        ('hidden', 2, 'tanh', (3,))
    """
    found = graph.inside(model)
    if found is None:
        raise ValueError(
            f"Rule {rule.alias!r} trains the layers of a functional or sequential model, which "
            f"{type(model).__name__} {model.name!r} is not: build it with keras.Sequential or "
            "keras.Model(inputs, outputs), or take a rule of layers."
        )
    steps = _chain(model, found, rule)
    names = {id(layer): name for name, layer in find_layers(model).items()}
    kernels = [i for i, step in enumerate(steps) if graph.contains_kernel(step.operation)]
    for index, step in enumerate(steps):
        graph.check_one_kernel(names.get(id(step.operation)), step.operation, rule)
        _check(step.operation, names, rule, after=bool(kernels) and index > kernels[0])
    if len(kernels) < 2:
        raise ValueError(
            f"Rule {rule.alias!r} needs a hidden layer, and model {model.name!r} has none."
        )
    cuts = [0, *kernels[1:], len(steps)]
    given = [found.inputs[0], *(step.tensors[0] for step in steps)]
    made = []
    for kernel, start, end in zip(kernels, cuts[:-1], cuts[1:], strict=True):
        layer = steps[kernel].operation
        # What comes before the first kernel needs no inverse.
        after = [graph.activation(step.operation) for step in steps[kernel:end]]
        activations = [each for each in after if each is not None]
        made.append(
            Stage(
                names[id(layer)],
                layer,
                tuple(step.operation for step in steps[start:end]),
                activations[-1] if activations else None,
                _known(given[start], names[id(layer)], rule),
            )
        )
    _check_output(model, found, made[-1], rule)
    return tuple(made)


def _chain(model, found, rule):
    steps, resolve = graph.flattened(found)
    place = resolve(((), id(found.inputs[0])))
    for step in steps:
        if step.inputs != [place] or len(step.outputs) != 1:
            raise ValueError(
                f"Rule {rule.alias!r} needs a chain of layers, each of which takes what the one "
                f"before it makes. In model {model.name!r}, {step.operation.name!r} does not: it "
                f"has {len(step.inputs)} inputs and {len(step.outputs)} outputs, or skips a layer."
            )
        (place,) = step.outputs
    ends = len(found.inputs) == len(found.outputs) == 1
    if not ends or resolve(((), id(found.outputs[0]))) != place:
        raise ValueError(
            f"Rule {rule.alias!r} needs a chain of layers from one input to one output. Received: "
            f"{model.name!r}, with {len(found.inputs)} inputs and {len(found.outputs)} outputs."
        )
    operations = [id(step.operation) for step in steps]
    for step in steps:
        if operations.count(id(step.operation)) > 1:
            raise ValueError(
                f"Rule {rule.alias!r} gives every layer one target, and layer "
                f"{step.operation.name!r} is called more than once in model {model.name!r}."
            )
    return steps


def _check(operation, names, rule, after):
    if graph.contains_kernel(operation):
        twin = TWINS.get(type(operation), type(operation))
        if len(getattr(twin, "kernel_names", ())) != 1 or not hasattr(twin, "linear"):
            raise ValueError(
                f"Rule {rule.alias!r} has no inverse for layer {operation.name!r} of class "
                f"{type(operation).__name__}: it needs one kernel, of a dense layer, a convolution "
                "or a locally connected layer. Build it of such layers."
            )
        return
    weights = _keras.get_shallow_trainable_variables(operation)
    undone = isinstance(operation, _SHAPING) or graph.activation(operation) is not None
    if weights or (after and not undone):
        what = "weights and no kernel" if weights else "no inverse"
        raise ValueError(
            f"Rule {rule.alias!r} admits, beside layers with kernels, activations, pooling, "
            f"padding and changes of shape. Layer {names.get(id(operation), operation.name)!r} of "
            f"class {type(operation).__name__} has {what}: leave it out, or take a rule of layers."
        )


def _known(tensor, name, rule):
    shape = tuple(tensor.shape[1:])
    if None in shape:
        raise ValueError(
            f"Rule {rule.alias!r} cannot make an inverse of layer {name!r}, whose input's shape "
            f"{shape} is not known. Give the model's inputs a fixed shape."
        )
    return shape


def _check_output(model, found, last, rule):
    if not rule.inverts_output:
        return
    shape = tuple(found.outputs[0].shape)
    name = getattr(last.activation, "__name__", getattr(last.activation, "name", None))
    softmax = ends_in_softmax(last)
    wanted = "logits or their softmax" if rule.reads_targets else "logits"
    good = last.activation is None or (softmax and rule.reads_targets)
    if len(shape) != 2 or shape[1] is None or shape[1] < 2 or not good:
        raise ValueError(
            f"Rule {rule.alias!r} takes its first target from {wanted} of two or more classes, of "
            f"shape (batch, classes). Received: {model.name!r}, with an output of shape {shape}"
            + (f" after {name}." if last.activation is not None else ".")
        )


def ends_in_softmax(stage: Stage) -> bool:
    """Return whether a stage's output is that of a softmax over the classes.

    Args:
        stage: A `Stage`.

    Example:
        >>> import keras, tfbio
        >>> layers = [keras.Input((4,)), keras.layers.Dense(3, "tanh")]
        >>> layers += [keras.layers.Dense(2, "softmax")]
        >>> ends_in_softmax(stages(keras.Sequential(layers), tfbio.rules.get("sdtp"))[-1])
        True
    """
    activation = stage.activation
    return activation is keras.activations.softmax or isinstance(activation, _K.Softmax)
