"""The network: a functional or sequential model whose hidden activations hear from the output.

Each tapped tensor h passes a *gate*, and the logits pass a *join*, both the identity. The join
gives its upstream e to the logits unchanged, and the rule's signal to every gate, along a tensor
of zeros that leads from the gate to the join; a gate gives signal·B to h in place of its upstream,
if it is not the true gradient that is asked for. Where the signal is made of the targets, the join
puts a `tfbio.losses.Handover` on the logits, along which a loss of `tfbio.losses` hands them over.
Layers of which nothing above the taps wants an error (`tfbio.layers.context`) compute none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras
import tensorflow as tf

from tfbio import _keras, rules
from tfbio.layers import context
from tfbio.layers.sites import find_layers, find_sites
from tfbio.losses import ClassificationLoss, Handover
from tfbio.networks import graph
from tfbio.networks.direct import taps
from tfbio.networks.network import Network
from tfbio.rules import Description, losses

if TYPE_CHECKING:
    from tfbio.networks.direct.taps import Tap
    from tfbio.rules.direct_feedback import DirectFeedback


@keras.saving.register_keras_serializable("tfbio")
class DirectNetwork(Network):
    """What a model becomes under direct feedback: the same graph, rewired; see the module.

    Raises:
        ValueError: When it is called to train, if the rule reads the targets from the loss, and
            that is neither one of `tfbio.losses` nor a softmax cross-entropy of this model's
            outputs.
    """

    wiring = ("_direct_plan", "_direct_owner")

    @classmethod
    def check(cls, model: keras.Model, rule: DirectFeedback) -> None:
        """Refuse a model that has no taps; see `tfbio.networks.direct.plan` for the errors."""
        taps.plan(model, rule)

    def wire(self) -> None:
        """Find the taps, make the matrices if they are not there, and tell the layers of both."""
        _plan(self)

    def call(
        self, inputs: Any, training: bool | None = None, mask: Any = None, **kwargs: Any
    ) -> Any:
        """Compute the outputs, as the model that was rewired does."""
        if training and getattr(self, "compiled", False):
            _check_loss(self)
        functional = graph.inside(self)
        inputs = _keras.standardize_inputs(functional, inputs)
        if mask is not None:
            for x, each in zip(inputs, keras.tree.flatten(mask), strict=False):
                if each is not None:
                    _keras.set_mask(x, each)
        run = _Run(self, {"training": training, **kwargs})
        (outputs,) = run.through(functional, inputs, ())
        outputs = outputs if run.plan is None else run.joined(outputs)
        return keras.tree.pack_sequence_as(functional.output, [outputs])

    call.runs_graph = True


rules.DirectFeedback.network = DirectNetwork


def owner(model: keras.Model) -> keras.layers.Layer:
    """Return the layer whose rule owns the feedback matrices: the first of the last ones.

    Args:
        model: A `DirectNetwork`.

    Example:
        >>> import keras, tfbio
        >>> layers = [keras.Input((4,)), keras.layers.Dense(3, "relu"), keras.layers.Dense(2)]
        >>> model = tfbio.convert(keras.Sequential(layers), "dfa")
        >>> owner(model) is model.layers[-1]
        True
    """
    return vars(model)["_direct_owner"]()


def _owner(model, plan):
    below = find_layers(model)
    return next(site.layer for name in plan.last for site in find_sites(below[name]).values())


def _plan(model):
    """Find the taps, make the matrices if they are not there, and tell the layers their parts."""
    sites = find_sites(model)
    plan = taps.plan(model, next(iter(sites.values())).rule)
    layer = _owner(model, plan)
    tapped = [tap for _, tap in plan.taps.values()]
    rule = layer.rule
    if not hasattr(rule, "matrices"):
        sizes = [tap.size(rule.spatial) for tap in tapped]
        with _keras.open_name_scope(layer), keras.name_scope(rule.name):
            rule.make_matrices(sizes, plan.classes, layer.variable_dtype)
    for name, site in sites.items():
        taught = [tap for tap in tapped if any(_within(name, each) for each in tap.learners)]
        last = any(_within(name, each) for each in plan.last)
        sources = "; ".join(
            f"from {plan.classes} outputs at {tap.name}, "
            + ("×".join(map(str, tap.shape)) if rule.spatial == "dense" else _shared(tap))
            for tap in taught
        )
        alias = "backprop (last layer)" if last and not taught else site.rule.alias
        site.rule.place = Description(alias, sources)
    # Past Keras's tracking, and in a function: its saver would find the layer here first.
    vars(model).update(_direct_plan=plan, _direct_owner=lambda: layer)


def _within(name, operation):
    return name == operation or name.startswith(operation + "/")


def _shared(tap):
    channels = tap.shape[tap.channels]
    return f"{channels} channels" if len(tap.shape) > 1 else str(channels)


class _Run:
    """One call of a network."""

    def __init__(self, model, options):
        self.model = model
        self.options = options
        self.plan: Any = vars(model)["_direct_plan"] if context.current().rewired else None
        if self.plan is not None:
            layer = owner(model)
            self.rule = layer.rule
            self.switch = layer.true_gradient_switch
        self.signals = []

    def through(self, functional, inputs, path):
        """Return the outputs of a graph, as a flat list."""
        tensors = dict(zip(map(id, functional.inputs), inputs, strict=False))
        for node in graph.nodes(functional):
            if any(id(x) not in tensors for x in node.input_tensors):
                continue  # an optional input is not there
            arguments, keywords = node.arguments.fill_in(tensors)
            nested = graph.inside(node.operation)
            if nested is not None:
                given = _keras.standardize_inputs(nested, arguments[0])
                outputs = self.through(nested, given, (*path, id(node)))
            else:
                operation = _keras.bind_context(node.operation, **self.options)
                with context.within(error=self._error(path, node)):
                    outputs = keras.tree.flatten(operation(*arguments, **keywords))
            for x, y in zip(node.outputs, outputs, strict=True):
                tensors[id(x)] = self._tapped((path, id(x)), y)
        return [tensors[id(x)] for x in functional.outputs]

    def joined(self, outputs):
        """Return the outputs, from whose error every gate hears."""
        ends_in = self.plan.ends_in
        logits = _keras.get_logits(outputs) if ends_in else outputs
        rule = self.rule

        if rule.reads_targets and not ends_in:
            return _joined_with_handover(rule, logits, self.signals)

        @tf.custom_gradient
        def join(logits, *signals):
            def gradients(error):
                signal = rule.signal(error, logits)
                return (error, *(tf.cast(signal, each.dtype) for each in signals))

            return tf.identity(logits), gradients

        logits = join(logits, *self.signals)
        if not ends_in:
            return logits
        # Keras's losses take the logits of what such a function has made.
        return getattr(keras.activations, ends_in)(logits)

    def _error(self, path, node):
        cut = self.plan is not None and (path, id(node)) in self.plan.cut
        return context.CUT if cut else context.OPEN

    def _tapped(self, place, h):
        if self.plan is None or place not in self.plan.taps:
            return h
        index, tap = self.plan.taps[place]
        matrix = self.rule.matrix(index)
        mask = _keras.get_mask(h)
        h, signal = gate(h, matrix, self.switch, tap, self.rule.spatial)
        if mask is not None:
            _keras.set_mask(h, mask)
        self.signals.append(signal)
        return h


def _joined_with_handover(rule, logits, signals):
    """Return the logits, with a handover on them."""
    held = []

    @tf.custom_gradient
    def join(logits, *signals):
        def gradients(error, handed):
            # The loss has been called by now, whatever it is.
            signal = rule.signal(error, logits, held[0].given(logits, handed))
            return (error, *(tf.cast(signal, each.dtype) for each in signals))

        dtype = tf.float64 if logits.dtype == tf.float64 else tf.float32
        zeros = tf.zeros((tf.shape(logits)[0], logits.shape[1] + 1), dtype)
        return (tf.identity(logits), zeros), gradients

    logits, zeros = join(logits, *signals)
    held.append(Handover(zeros))
    held[0].attach(logits)
    return logits


def gate(
    h: tf.Tensor, matrix: tf.Tensor, switch: tf.Variable, tap: Tap, spatial: str
) -> tuple[tf.Tensor, tf.Tensor]:
    """Return h, and zeros through whose gradient the signal comes that h gets as its own, times B.

    Args:
        h: A tapped tensor.
        matrix: B, (classes, size).
        switch: A boolean variable: whether the upstream passes instead.
        tap: The `tfbio.networks.direct.Tap`.
        spatial: As the rule has it.

    Example:
        >>> h, b = tf.constant([[1.0, 2.0]]), tf.constant([[3.0, 4.0]])
        >>> tap = taps.Tap("h", (2,), 0, frozenset())
        >>> with tf.GradientTape() as tape:
        ...     tape.watch(h)
        ...     y, zeros = gate(h, b, tf.Variable(False), tap, "shared")
        ...     objective = tf.reduce_sum(y) + 10.0 * tf.reduce_sum(zeros)
        >>> print(tape.gradient(objective, h).numpy())
        [[30. 40.]]
    """
    pass_on = tf.convert_to_tensor(switch)

    @tf.custom_gradient
    def gated(h):
        shape = tf.shape(h)

        def gradients(upstream, signal):
            def projected():
                delta = tf.matmul(signal, matrix)
                if spatial == "dense" or len(tap.shape) == 1:
                    return tf.reshape(tf.cast(delta, h.dtype), shape)
                positions = tf.reduce_prod(shape[1:]) // matrix.shape[1]
                delta = tf.cast(delta / tf.cast(positions, delta.dtype), h.dtype)
                extents = [1] * len(tap.shape)
                extents[tap.channels] = matrix.shape[1]
                return tf.broadcast_to(tf.reshape(delta, [-1, *extents]), shape)

            return tf.cond(pass_on, lambda: upstream, projected)

        zeros = tf.zeros((shape[0], matrix.shape[0]), matrix.dtype)
        return (tf.identity(h), zeros), gradients

    return gated(h)


def _check_loss(model):
    """Refuse a loss that is known to tell no targets: of this library, or a softmax cross-entropy.

    Not when the model is compiled: Keras does not compile what it loads if that is overridden.
    """
    rule, ends_in = owner(model).rule, vars(model)["_direct_plan"].ends_in
    if not rule.reads_targets:
        return
    # One of the user's is looked at when it is differentiated.
    for loss, options in losses.known(getattr(model, "loss", None)):
        if isinstance(loss, ClassificationLoss):
            if not ends_in:
                continue
        elif options is not None:
            smoothed = options.get("label_smoothing")
            if options["from_logits"] != bool(ends_in) and not smoothed:
                continue
        raise ValueError(
            f"Rule {rule.alias!r} learns from the targets, which a loss of tfbio.losses gives it, "
            "or it reads them from the error of a softmax cross-entropy. Compile with "
            f"tfbio.losses.ClassificationLoss{', for a model of logits,' if ends_in else ''} or "
            "keras.losses.SparseCategoricalCrossentropy or CategoricalCrossentropy, "
            f"without label smoothing and with from_logits={not ends_in}, as this model ends in "
            f"{'a softmax' if ends_in else 'logits'}; or take direct_feedback_alignment, which "
            f"takes any loss. Received: loss={loss!r}."
        )
