"""Rules of layers: each says what B is, the matrix that stands where Wᵀ stood, for one kernel."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import keras
import tensorflow as tf

from tfbio.rules import contract, draws
from tfbio.rules.fingerprint import fingerprint
from tfbio.rules.rule import Rule

if TYPE_CHECKING:
    from tfbio.convert import Conversion
    from tfbio.rules.scales import Fans


@dataclasses.dataclass(frozen=True)
class Circuit:
    """What a rule that learns B can see and drive of the layer it serves.

    Attributes:
        op: The layer's linear operation, a function ``(inputs, kernel) -> outputs``.
        inputs: The layer's input x, in the kernel's precision; no gradient flows through it.
        respond: The function ``z ↦ φ(z + b)`` of what `op` returns.
        bias: b, a constant tensor in the kernel's precision that adds to what `op` returns; None
            for none.
    """

    op: Callable
    inputs: Any
    respond: Callable
    bias: Any = None


class LayerRule(Rule):
    """The feedback matrix B of one kernel W, with whatever state it needs.

    `tfbio.convert` gives every kernel layer a copy. A subclass returns B from `feedback`::

        @tfbio.rules.register("half")
        class Half(tfbio.rules.LayerRule):
            '''B = W/2.'''

            def feedback(self, kernel):
                return kernel / 2

    It makes its weights, if any, in `make_state`, and changes them by itself in `step`.
    docs/write_a_rule.md leads through all of it; `tfbio.rules.ScaledRule` gives B a scale and a
    seed, `tfbio.rules.LearnedRule` a loss of its own.

    B that depends on W is stopped here: the substitution returns W's gradient for B as well, and
    it must reach only weights that a rule owns (a trainable B), never W a second time.

    Attributes:
        steps_first: Whether the very first training call takes a step, before any optimizer did.
    """

    has_matrix = True
    steps_first: bool = False
    _draws = False

    @abc.abstractmethod
    def feedback(self, kernel: tf.Tensor) -> tf.Tensor:
        """Return B, computed from the kernel (a constant here) and the rule's own weights.

        Args:
            kernel: The kernel W, a tensor through which no gradient flows.

        Returns:
            A tensor of the kernel's shape, layout and dtype.
        """

    def make_state(self, kernel: tf.Tensor, fans: Fans) -> None:
        """Make the weights of B for `kernel` with `new_state`: none, by default.

        Args:
            kernel: The layer's kernel, a variable or tensor. Read its values inside an
                initializer only: it may itself not be initialized yet.
            fans: Its `tfbio.rules.Fans`.
        """

    def step(self, kernel: tf.Tensor, circuit: Circuit) -> Mapping[str, Any]:
        """Return the next values of the weights that change by step; override it to have a step.

        Called once per optimizer step, whatever drives the training, `fit` or a loop of one's own:
        in the first training call that finds the kernel changed since the last. A layer shared
        within a model, several micro-batches of an accumulated gradient and several replicas see
        one step. The rule of a frozen layer (`trainable=False`) takes none.

        Args:
            kernel: The kernel W as the optimizer left it, a constant tensor.
            circuit: The layer's `Circuit`. Its inputs may differ between replicas, their shape but
                for the batch's size may not: whatever depends on more than that parts the copies
                of B.

        Returns:
            A dict with a value for every weight made with ``changes="by_step"``, by the name that
            it was given in `new_state`.
        """
        return {}

    def learn(self, kernel: tf.Tensor, circuit: Circuit) -> None:
        """Add the losses of a B that learns alone, in a training call: none, by default.

        Args:
            kernel: The kernel W, a constant tensor.
            circuit: The layer's `Circuit`.
        """

    def apply(self, conversion: Conversion) -> keras.Model:
        """Give every kernel layer a copy of this rule, unless told otherwise; see the base."""
        return conversion.attach(self)

    def attach(self, kernel: tf.Tensor, fans: Fans) -> None:
        """Make this rule's weights for `kernel`; see the base class."""
        contract.signatures(self)
        with keras.name_scope(self.name):
            self.make_base_state(kernel, fans)
            self.make_state(kernel, fans)
        for variable in self._states.values():
            if variable.feedback_learns == "with_kernel":
                variable.follows = kernel  # optimizers treat it as they treat this one
        if self._step_states and not self.has_step:
            raise ValueError(
                f"Rule {self.alias!r}: the weights {', '.join(map(repr, self._step_states))} are "
                "made with changes='by_step', and the rule has no `step` that changes them. Define "
                "`step`, or if they are those of `make_draws` alone, the property `has_step` as "
                "True."
            )
        self.built = True

    def make_base_state(self, kernel: tf.Tensor, fans: Fans) -> None:
        """Make what the rule's base classes need, before `make_state`; authors need not know it."""
        if self.has_step:
            missed = int(self.steps_first)  # what no kernel of these bits has: a step is due
            self.seen = self.new_state(
                "seen", (), lambda: fingerprint(kernel) + missed, "int64", changes="by_step"
            )

    @property
    def has_step(self) -> bool:
        """Whether the rule changes by itself as W does: whether it overrides `step`."""
        return type(self).step is not LayerRule.step

    def call(
        self, kernel: tf.Tensor, circuit: Circuit | None = None, training: bool | None = None
    ) -> tf.Tensor:
        """Return B for the present kernel, taking the step that a new kernel calls for.

        Args:
            kernel: The kernel W, a variable or tensor in full precision.
            circuit: The `Circuit` of the layer in whose call this is; None to look at B alone,
                which takes no step and learns nothing.
            training: False in `evaluate` and `predict`, which take no step; Keras passes it down
                from the model. A loop of one's own that calls `model(x)` without it does train.

        Returns:
            B, a tensor of the kernel's shape, layout and dtype.
        """
        if circuit is not None and training is not False:
            constant = tf.stop_gradient(kernel)
            circuit = _constant(circuit, constant.dtype)
            if self.has_step and self.trainable:
                self._advance(kernel, circuit)
            self.learn(constant, circuit)
        return self.feedback(tf.stop_gradient(kernel))

    def _advance(self, kernel, circuit):
        """Take a step if the kernel has changed since the last, else leave all as it is."""
        now = fingerprint(kernel)
        variables = {name: self._states[name] for name in self._step_states}

        def after():
            values = self.step(tf.stop_gradient(kernel), circuit)
            counted = {"seen": now} | ({"steps": self.steps + 1} if self._draws else {})
            due = {name: v for name, v in variables.items() if name not in counted}
            values = {**contract.step(self, values, due), **counted}
            return {name: tf.cast(values[name], v.dtype) for name, v in variables.items()}

        def before():
            return {name: tf.convert_to_tensor(v) for name, v in variables.items()}

        values = tf.cond(tf.not_equal(now, self.seen), after, before)
        for name, variable in variables.items():
            # In a stateless call the value itself is read, and a gradient would be sought in the
            # step, whose loops would keep all that they computed.
            variable.assign(tf.stop_gradient(values[name]))

    def make_draws(self) -> None:
        """Make a saved key and a count of steps, for random numbers that change with each step.

        Call it in `make_state` of a rule that has a step; `draw_key` folds the one into the other.
        """
        self.saved_key = self.new_state("key", (2,), lambda: tf.constant(self.key()), "int64")
        self.steps = self.new_state("steps", (), lambda: 0, "int64", changes="by_step")
        self._draws = True

    def draw_key(self, index: Any = None, ahead_of: tf.Tensor | None = None) -> tf.Tensor:
        """Return the two integers that seed what is drawn at the present step.

        Args:
            index: What is counted instead of steps.
            ahead_of: The kernel; where it has changed since the last step, the key is that of the
                step which the next training call takes for it.
        """
        index = tf.convert_to_tensor(self.steps) if index is None else index
        if ahead_of is not None:
            index += tf.cast(tf.not_equal(fingerprint(ahead_of), self.seen), tf.int64)
        return draws.fold(self.saved_key, index)


def _constant(circuit, dtype):
    """Return a circuit with inputs and bias of a dtype, through which no gradient flows."""
    inputs = tf.nest.map_structure(
        tf.stop_gradient, tf.cast(circuit.inputs, dtype), expand_composites=True
    )
    bias = circuit.bias
    bias = None if bias is None else tf.stop_gradient(tf.cast(bias, dtype))
    return dataclasses.replace(circuit, inputs=inputs, bias=bias)
