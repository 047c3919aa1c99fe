"""The taps: where in a functional network direct feedback comes in, and what is cut.

**What counts as a tap.** Every layer with weights learns from the nearest tap above it, and from
one only. Going up from a layer's output through whatever passes an error on (normalization,
addition, padding, pooling, …), the tap is the first of

- the output of a nonlinearity (an activation layer or operation, or a layer's own `activation`);
- a tensor that more than one operation takes: else the layer would have several taps, as at the
  sums of networks that activate before they convolve (ResNetV2);
- the input of the next layer with a kernel, where nothing else came first (linear bottlenecks).

Layers with weights and no kernel, such as batch normalization, learn in the same way. Kernels with
no other kernel between them and the output are the last ones: they, and all between them and the
output, learn by their true gradient. Thus no error passes down through any kernel, but for the
input of the network itself.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

import keras

from tfbio import _keras
from tfbio.layers.sites import find_layers
from tfbio.networks import graph as graphs

if TYPE_CHECKING:
    from tfbio.rules.direct_feedback import DirectFeedback


class Tap(NamedTuple):
    """A tensor of the network whose error comes from the output.

    Attributes:
        name: The name of the operation that makes it.
        shape: Its shape without the batch.
        channels: The axis of the channels within that shape.
        learners: The names of the layers that learn from it.
    """

    name: str
    shape: tuple
    channels: int
    learners: frozenset

    def size(self, spatial: str) -> int:
        """Return the number of columns of this tap's B."""
        if spatial == "shared":
            return self.shape[self.channels]
        size = 1
        for extent in self.shape:
            size *= extent
        return size


class Plan(NamedTuple):
    """What a network is rewired by.

    Attributes:
        taps: A dict from place to (index, `Tap`); a place is the path of nested models' nodes to a
            symbolic tensor, and its id.
        cut: The nodes, each with its path, below whose inputs no error is wanted.
        last: The names of the last layers.
        classes: The number of outputs.
        ends_in: "softmax", "sigmoid" or "", what makes the output of the logits.
    """

    taps: dict
    cut: frozenset
    last: tuple
    classes: int
    ends_in: str


def plan(model: keras.Model, rule: DirectFeedback) -> Plan:
    """Return how a network is rewired for a rule.

    Args:
        model: A built Keras model.
        rule: A `tfbio.rules.DirectFeedback`.

    Returns:
        A `Plan`.

    Raises:
        ValueError: If the network is not functional or sequential, or holds layers that make
            several kernel layers of their own; if it has not one output of logits; if it has no
            hidden layer; if a tap's shape is not known; or if the matrices would take more memory
            than the rule allows.

    Example:
        >>> import keras, tfbio
        >>> layers = [keras.Input((4,)), keras.layers.Dense(3, "relu", name="hidden")]
        >>> layers += [keras.layers.Dense(2, name="out")]
        >>> found = plan(keras.Sequential(layers), tfbio.rules.get("dfa"))
        >>> [(tap.name, tap.shape) for _, tap in found.taps.values()], found.last
        ([('hidden', (3,))], ('out',))
    """
    graph = graphs.inside(model)
    if graph is None:
        raise ValueError(
            f"Rule {rule.alias!r} rewires the graph of a functional or sequential model, which "
            f"{type(model).__name__} {model.name!r} is not: build it with keras.Model(inputs, "
            "outputs), or take a rule of layers."
        )
    steps, resolve = graphs.flattened(graph)
    names = {id(layer): name for name, layer in find_layers(model).items()}
    for step in steps:
        graphs.check_one_kernel(names.get(id(step.operation)), step.operation, rule)
    output, ends_in = _output(model, graph, steps, resolve, rule)
    return _analyzed(model, graph, steps, names, output, ends_in, rule)


def _output(model, graph, steps, resolve, rule):
    """Return (the output's place, what it ends in)."""
    outputs = graph.outputs
    shapes = [tuple(x.shape) for x in outputs]
    if len(outputs) != 1 or len(shapes[0]) != 2 or shapes[0][1] is None:
        raise ValueError(
            f"Rule {rule.alias!r} needs a model with one output of shape (batch, classes), as a "
            f"classifier's. Received: {model.name!r}, with outputs of shapes "
            f"{', '.join(map(str, shapes))}."
        )
    place = resolve(((), id(outputs[0])))
    step = next((step for step in steps if place in step.outputs), None)
    activation = graphs.activation(step.operation) if step else None
    ends_in = ""
    if activation is keras.activations.softmax or isinstance(activation, keras.layers.Softmax):
        ends_in = "softmax"
        if getattr(activation, "axis", -1) not in (-1, 1):
            raise ValueError(f"Rule {rule.alias!r} needs a softmax over the classes.")
    elif activation is keras.activations.sigmoid:
        ends_in = "sigmoid"
    if rule.reads_targets and (shapes[0][1] < 2 or (activation and ends_in != "softmax")):
        raise ValueError(
            f"Rule {rule.alias!r} learns from the targets, for which "
            "a model must end in the logits of two or more classes, or in their softmax. "
            f"Received: {model.name!r}, with {shapes[0][1]} outputs"
            + (f" of {getattr(activation, '__name__', activation)}." if activation else ".")
        )
    return place, ends_in


def _analyzed(model, graph, steps, names, output, ends_in, rule):
    makers = {place: index for index, step in enumerate(steps) for place in step.outputs}
    upper, last = _upper(steps, makers, output)
    takers = Counter(place for step in steps for place in set(step.inputs))
    takers[output] += 1
    raw = {((), id(x)) for x in graph.inputs}
    live, wanted, formats, taps = {}, set(raw), {}, {}

    def tap(place):
        step = steps[makers[place]]
        name = names.get(id(step.operation), getattr(step.operation, "name", "?"))
        shape = tuple(step.tensors[step.outputs.index(place)].shape)
        first = formats.get(place) == "channels_first" and len(shape) > 2
        found = Tap(name, shape[1:], 0 if first else len(shape) - 2, live[place])
        _check_shape(found, rule)
        taps[place] = (len(taps), found)
        live[place] = frozenset()
        wanted.discard(place)

    for index, step in enumerate(steps):
        operation = step.operation
        kernel = graphs.contains_kernel(operation)
        if kernel:
            for place in step.inputs:
                if live.get(place):
                    tap(place)
        learners = frozenset()
        learns = isinstance(operation, keras.layers.Layer) and bool(
            kernel or _keras.get_shallow_trainable_variables(operation)
        )
        if learns and index not in upper:
            learners = frozenset([names.get(id(operation), operation.name)])
        carried = frozenset() if kernel else frozenset().union(
            *(live.get(place, ()) for place in step.inputs)
        )  # fmt: skip
        given = getattr(operation, "data_format", None) or next(
            (formats[place] for place in step.inputs if place in formats), None
        )
        for place in step.outputs:
            live[place] = learners | carried
            if given:
                formats[place] = given
            if learns or any(each in wanted for each in step.inputs):
                wanted.add(place)
            if live[place] and (graphs.activation(operation) is not None or takers[place] > 1):
                tap(place)
    if not taps:
        raise ValueError(
            f"Rule {rule.alias!r} needs a hidden layer, and model {model.name!r} has none: every "
            "kernel stands last, and learns by its true gradient."
        )
    cut = {step.node for step in steps if not any(place in wanted for place in step.inputs)}
    sizes = [tap.size(rule.spatial) for _, tap in taps.values()]
    rule.check_memory(sizes, graph.outputs[0].shape[1], model.variable_dtype)
    ends = tuple(dict.fromkeys(names.get(id(s.operation), s.operation.name) for s in last))
    return Plan(taps, frozenset(cut), ends, graph.outputs[0].shape[1], ends_in)


def _upper(steps, makers, output):
    """Return the indices of the steps from the last kernels to the output, and these kernels."""
    upper, last, below = set(), [], [output]
    while below:
        index = makers.get(below.pop())
        if index is None or index in upper:
            continue
        upper.add(index)
        if graphs.contains_kernel(steps[index].operation):
            last.append(steps[index])
        else:
            below += steps[index].inputs
    return upper, last


def _check_shape(tap, rule):
    needed = tap.shape if rule.spatial == "dense" else tap.shape[tap.channels :][:1]
    if not needed or None in needed:
        advice = "" if rule.spatial == "shared" else ", or take spatial='shared'"
        raise ValueError(
            f"Rule {rule.alias!r} cannot make a feedback matrix for the output of {tap.name!r}, "
            f"whose shape {tap.shape} is not known. Give the model's inputs a fixed "
            f"shape{advice}."
        )
