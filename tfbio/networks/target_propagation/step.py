"""The step: what every layer of a network, and every inverse, learns from a batch."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import keras
import tensorflow as tf

from tfbio import _keras
from tfbio.layers import context
from tfbio.networks import graph, turns
from tfbio.networks.target_propagation import adjoint, learning
from tfbio.networks.target_propagation.stages import ends_in_softmax
from tfbio.rules import draws, losses

if TYPE_CHECKING:
    from tfbio.networks.target_propagation.stages import Stage


class Step:
    """One training step: the pass of a batch, and what each layer learns from it.

    Args:
        model: The `tfbio.networks.target_propagation.TargetNetwork`.
        stages: Its stages.
        batch: (inputs, targets, weights of the examples or None).

    Attributes:
        replicas: The number of replicas that take it together.
        own_learning: The variables that no optimizer trains, but the step itself.

    Raises:
        ValueError: If loss or optimizer do not go with the rule.

    Example:
        >>> import tfbio
        >>> layers = [keras.Input((4,)), keras.layers.Dense(3, "tanh"), keras.layers.Dense(2)]
        >>> model = tfbio.convert(keras.Sequential(layers), "dtp")
        >>> model.compile("sgd", "mse")
        >>> found = tfbio.networks.target_propagation.stages(model, model.layers[0].rule)
        >>> step = Step(model, found, (tf.ones((2, 4)), tf.ones((2, 2)), None))
        >>> with step.weights_read_once():
        ...     outputs, loss, gradients, measured, _ = step.learned()
        >>> len(gradients) == len(model.trainable_weights)
        True
    """

    def __init__(self, model: keras.Model, stages: Sequence[Stage], batch: Any):
        x, self.y, self.weights = batch
        self.model, self.stages = model, stages
        self.rule = self.stages[-1].rule
        (self.x,) = _keras.standardize_inputs(graph.inside(model), x)
        self.given = x
        self.replicas = tf.distribute.get_strategy().num_replicas_in_sync
        self.feedback = turns.get_feedback(model.optimizer)
        self.by_optimizer = self.rule.learns is not None
        self.own_learning = []
        if not self.by_optimizer:
            self.own_learning = [v for stage in stages for v in adjoint.variables(stage.rule)]
        turns.check([stage.rule for stage in stages], model.optimizer)
        _check(self)

    @contextlib.contextmanager
    def weights_read_once(self) -> Iterator[None]:
        """Let all that a step computes see one reading of every weight.

        TensorFlow's graph optimizer may lose the order of a second one and the weight's update.
        """
        weights = {id(v): v for v in (*self.model.weights, *self.own_learning)}.values()
        values = [tf.convert_to_tensor(variable) for variable in weights]
        self.values = {id(v): value for v, value in zip(weights, values, strict=True)}
        # Not what is assigned in it: nothing is.
        mapping = list(zip(weights, values, strict=True))
        with (
            keras.StatelessScope(state_mapping=mapping, collect_losses=True),
            context.within(error=context.OPEN),
        ):
            yield

    def learned(self) -> Any:
        """Return (outputs, loss, gradients, measures, new values of what learns by itself).

        The gradients are those of all trainable weights; they and the loss are divided by the
        number of replicas, as Keras has it.
        """
        if context.current().sightings is not None:
            # To compare gradients, all in one graph: those of backpropagation, or these.
            switch = tf.convert_to_tensor(self.stages[0].layer.true_gradient_switch)
            return tf.cond(switch, self._by_backpropagation, self._by_targets)
        settings = self.feedback
        if settings is None or not settings.gated or not self.by_optimizer:
            return self._by_targets()
        iterations = tf.convert_to_tensor(self.model.optimizer.iterations)
        # What is not updated in this step is not computed either.
        if settings.alternate:
            forward = settings.turn(iterations, alone=False)
            return tf.cond(
                forward,
                lambda: self._by_targets(inverses=False),
                lambda: self._by_targets(forward=False),
            )
        begun = settings.turn(iterations, alone=True)
        return tf.cond(begun, self._by_targets, lambda: self._by_targets(inverses=False))

    def _by_backpropagation(self):
        with tf.GradientTape() as tape:
            tape.watch(list(self.values.values()))
            h = self.x
            for stage in self.stages:
                h = stage.run(h).output
            loss = self._loss(h, self.weights)
            scaled = self.model.optimizer.scale_loss(loss)
        unchanged = [self.values[id(v)] for v in self.own_learning]
        return h, loss, self.differentiate(tape, scaled), self._measures({}), unchanged

    def _measures(self, measured):
        """Return, for every measure, its value and 1, or 0 and 0 for one that was not taken."""
        names = [
            f"{measure}/{stage.name}" for measure in self.rule.measures for stage in self.stages
        ]
        values = {name: tf.cast(measured.get(name, 0.0), tf.float32) for name in names}
        return {name: (v, tf.constant(float(name in measured))) for name, v in values.items()}

    def _by_targets(self, forward=True, inverses=True):
        """Return the same by targets: what kernels learn, and what inverses do.

        Args:
            forward: Whether kernels learn in this step.
            inverses: Whether the optimizer's inverses do.
        """
        rule, stages, measured = self.rule, self.stages, {}
        with tf.GradientTape() as tape:
            tape.watch([self.values[id(v)] for v in self.model.trainable_weights])
            seen, h = [], self.x
            for stage in stages[:-1]:
                seen.append(stage.run(tf.stop_gradient(h)))
                h = seen[-1].output
            below = tf.stop_gradient(h)
            with tf.GradientTape() as top:
                top.watch(below)
                seen.append(stages[-1].run(below))
                outputs = seen[-1].output
                loss = self._loss(outputs, self.weights)
                # A target is the example's own; its weight is in what is made of it below.
                unweighted = loss if self.weights is None else self._loss(outputs, None)
            constant = [tf.stop_gradient(each.output) for each in seen]
            own, aligned = not self.by_optimizer, []
            if own:
                with tape.stop_recording():
                    matrices, aligned, losses = self._aligned(seen, constant)
                measured |= losses
            else:
                matrices = self._matrices()
            inverse = learning.Inverses(stages, seen, matrices, own)
            parts = []
            if forward:
                with tape.stop_recording():
                    highest = self._highest(top, below, unweighted, outputs, constant, inverse)
                    targets = learning.targets(inverse, constant, highest, rule.difference)
                parts.append(self._scaled(loss))
                for index, stage in enumerate(stages[:-1]):
                    error = rule.local_factor * learning.squared(
                        learning.full(seen[index].output) - targets[index], self.weights
                    )
                    parts.append(error / self.replicas)
                    measured[f"local_loss/{stage.name}"] = error
                    away = learning.distance(targets[index], constant[index])
                    measured[f"target_distance/{stage.name}"] = away
            if self.by_optimizer and inverses:
                for index, stage in enumerate(stages):
                    if matrices[index] is not None:
                        value = self._reconstruction(inverse, index, constant, tape)
                        parts.append(value / self.replicas)
                        measured[f"inverse_loss/{stage.name}"] = value
            widest = max((learning.full(part).dtype for part in parts), key=lambda d: d.size)
            objective = sum(tf.cast(part, widest) for part in parts)
            scaled = self.model.optimizer.scale_loss(objective)
        return outputs, loss, self.differentiate(tape, scaled), self._measures(measured), aligned

    def differentiate(self, tape: tf.GradientTape, objective: tf.Tensor) -> list[tf.Tensor]:
        """Return an objective's gradient by every trainable weight, 0 where there is none.

        Args:
            tape: The `tf.GradientTape` that recorded it.
            objective: A scalar.
        """
        variables = self.model.trainable_weights
        gradients = tape.gradient(objective, [self.values[id(v)] for v in variables])
        return [
            tf.zeros(variable.shape, variable.dtype) if gradient is None else gradient
            for variable, gradient in zip(variables, gradients, strict=True)
        ]

    def _loss(self, outputs, weights):
        return self.model.compute_loss(
            x=self.given, y=self.y, y_pred=outputs, sample_weight=weights, training=True
        )

    def _scaled(self, loss):
        """Return the loss that the output layer learns from, times the rule's factor.

        What regularizes is left as it is: hidden kernels have theirs unscaled, too.
        """
        factor = self.rule.output_factor
        if factor == 1.0:
            return loss
        others = [tf.cast(tf.reduce_sum(other), loss.dtype) for other in self.model.losses]
        return factor * loss + (1.0 - factor) * sum(others)

    def _matrices(self):
        names = (
            *("inverse_kernel", "inverse_bias"),
            *("auxiliary_kernel", "inverse_auxiliary_kernel"),
        )
        found = []
        for stage in self.stages:
            weights = [getattr(stage.rule, name, None) for name in names]
            found.append([self.values[id(w)] for w in weights if w is not None] or None)
        return found

    def _highest(self, top, below, loss, outputs, constant, inverse):
        """Return the first target, with the place of the layer that it is for."""
        last = len(self.stages) - 1
        # The mean's gradient, of one example as if alone.
        alone = tf.cast(tf.shape(outputs)[0] * self.replicas, tf.float32)

        def down(h, gradient, factor):
            gradient = learning.full(gradient)
            return learning.full(h) - factor * tf.cast(alone, gradient.dtype) * gradient

        if not self.rule.inverts_output:
            at = constant[last - 1]
            return last - 1, down(at, top.gradient(loss, below), self.rule.alpha)
        if not self.rule.reads_targets:
            return last, down(constant[last], top.gradient(loss, outputs), self.rule.beta)
        constant[last] = _probabilities(self.stages[last], constant[last])
        label = tf.cast(to_distribution(self.y, outputs), outputs.dtype)
        return last, inverse.augmented(last, below, label)

    def _reconstruction(self, inverse, index, constant, tape):
        stage = self.stages[index]

        def run(h):
            with tape.stop_recording():
                seen = stage.run(h)
                outputs = seen.output
                if index == len(self.stages) - 1:
                    outputs = _probabilities(stage, outputs)
            return seen, outputs

        below = constant[index - 1]
        noise = self.rule.noise * self.draw_noise(index, 0, below)
        clean = self.rule.reconstruct == "clean"
        return learning.reconstruction(inverse, index, below, noise, run, clean)

    def _aligned(self, seen, constant):
        """Let the inverses take their own steps; return matrices, all new values, last losses."""
        states = [
            [self.values[id(variable)] for variable in adjoint.variables(stage.rule)]
            for stage in self.stages
        ]
        states, losses = adjoint.learned(self.stages, seen, constant, states, self.draw_noise)
        measured = {f"inverse_loss/{self.stages[i].name}": value for i, value in losses.items()}
        values = [value for state in states for value in state]
        return [state[:2] or None for state in states], values, measured

    def draw_noise(self, index: int, draw: int | tf.Tensor, like: tf.Tensor) -> tf.Tensor:
        """Return N(0, 1) of a tensor's shape: another for each step, draw, layer, replica, part.

        Args:
            index: The place of the layer's stage.
            draw: The number of the draw within the step.
            like: A tensor of the shape and dtype wanted.
        """
        replica = tf.distribute.get_replica_context()
        replica = 0 if replica is None else replica.replica_id_in_sync_group
        key = draws.place(
            self.values[id(self.stages[index].rule.noise_key)],
            self.model.optimizer.iterations,
            draw,
            replica,
            getattr(self.model.optimizer, "micro_batch", 0),
        )
        drawn = draws.normal(tf.shape(like), key, like.dtype == tf.float64)
        return tf.cast(tf.ensure_shape(drawn, like.shape), like.dtype)


def _probabilities(stage, outputs):
    """Return what the output's label is compared with: its softmax."""
    return outputs if ends_in_softmax(stage) else tf.nn.softmax(outputs)


def to_distribution(y: Any, outputs: tf.Tensor) -> tf.Tensor:
    """Return labels as distributions over the classes.

    Args:
        y: The labels: integers (B,) or (B, 1), or distributions (B, classes) already.
        outputs: A network's outputs (B, classes).

    Returns:
        A tensor (B, classes).

    Raises:
        ValueError: If there are no labels, or they are of another shape.

    Example:
        >>> print(to_distribution([2, 0], tf.zeros((2, 3))).numpy())
        [[0. 0. 1.]
         [1. 0. 0.]]
    """
    if y is None:
        raise ValueError(
            "A rule that takes its first target from the label needs one for each example. "
            "Received: no targets."
        )
    y, classes = tf.convert_to_tensor(y), outputs.shape[1]
    if y.shape.rank == 2 and y.shape[1] == classes:
        return y
    if y.shape.rank == 1 or (y.shape.rank == 2 and y.shape[1] == 1):
        return tf.one_hot(tf.reshape(tf.cast(y, tf.int64), [-1]), classes)
    raise ValueError(
        "A rule that takes its first target from the label needs one for each example, an integer "
        f"or a distribution over the {classes} classes. Received: targets of shape {y.shape}."
    )


def _check(step):
    """Refuse a loss or a strategy that the rule cannot work with."""
    rule, model = step.rule, step.model
    for loss in tf.nest.flatten(model.loss):
        reduction = getattr(loss, "reduction", "mean")
        if reduction not in ("mean", "sum_over_batch_size"):
            raise ValueError(
                f"Rule {rule.alias!r} takes an example's part of the loss from the mean over the "
                "batch: compile with a loss whose reduction is 'sum_over_batch_size', Keras's "
                f"default. Received: reduction={reduction!r}."
            )
    others = [loss for loss, options in losses.known(model.loss) if options is None]
    if rule.reads_targets and others:
        raise ValueError(
            f"Rule {rule.alias!r} compares the softmax of the outputs with the label: compile with "
            "keras.losses.SparseCategoricalCrossentropy or CategoricalCrossentropy, or take dtp, "
            f"which takes any loss. Received: loss={others[0]!r}."
        )
    if not step.by_optimizer and step.replicas > 1:
        raise ValueError(
            f"Rule {rule.alias!r}, whose inverses take steps of their own, runs on one device. "
            f"Received: a strategy with {step.replicas}."
        )
