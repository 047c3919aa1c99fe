"""Variants: one step is the gradient's transformations, a descent, and what the signs allow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import tensorflow as tf

from tfbio import _keras
from tfbio._arguments import check_number
from tfbio.optimizers.exceptions import Exceptions, is_bias
from tfbio.optimizers.feedback import Feedback
from tfbio.optimizers.last_layer import LastLayer
from tfbio.rules import checks

if TYPE_CHECKING:
    import keras

_TINY = 1e-10
"""The magnitude that a weight keeps instead of changing sign: Xiao et al. 2018's code."""


class _Settings(NamedTuple):
    """How one variable is treated."""

    learning_rate_scale: float
    batch_manhattan: bool
    no_sign_change: bool
    decays: bool


if TYPE_CHECKING:  # it comes after the mixin in the bases of every class
    _Optimizer = keras.optimizers.Optimizer
else:
    _Optimizer = object


class Variants(_Optimizer):
    """What the optimizers share; comes before a Keras optimizer in the bases of each.

    One step for a variable p of gradient g (averaged and clipped before, where that is asked for)::

        d = sign(g) with batch-Manhattan, else g
        d ← d + λp, or p ← p − ηλp where the decay is decoupled
        p ← the optimizer's descent by d, at the rate η
        p ← ±1e-10, p's former sign, with no-sign-change where the sign would differ or be 0

    No-sign-change leaves out biases and normalization's betas, and includes its gammas. It also
    leaves out a feedback matrix B that learns, which is no weight of the network that predicts.
    Kolen and Pollack's B is in all else treated as its kernel W is, exceptions included, so that
    W − B decays as it must; with no-sign-change the two come apart wherever W is held back. A B
    that learns by a loss of its own is left out of decay, clipping and batch-Manhattan, too: its
    gradient is not that of the task.

    Args:
        *args: The Keras optimizer's arguments.
        weight_decay: λ, 0 or more, for every variable, biases too, as in the papers' code;
            `exceptions` and Keras's `exclude_from_weight_decay` spare some.
        batch_manhattan: Whether the gradient's sign stands for the gradient.
        no_sign_change: Whether weights keep their signs; where p was 0 it becomes positive.
        last_layer: A `LastLayer`, or its config, None to treat all layers alike.
        feedback: A `Feedback`, or its config: what is special to a B that learns by a loss of its
            own; None for nothing.
        exceptions: An `Exceptions`, or its config: what decay spares, and the biases' learning
            rate; None for no exceptions.
        **kwargs: The Keras optimizer's keyword arguments.

    Raises:
        ValueError: If an argument is out of its range.
        TypeError: If `last_layer` is no `LastLayer`, `feedback` no `Feedback`, or `exceptions` no
            `Exceptions`.
    """

    decoupled = False

    def __init__(
        self,
        *args: Any,
        weight_decay: float = 0.0,
        batch_manhattan: bool = False,
        no_sign_change: bool = False,
        last_layer: LastLayer | dict[str, Any] | None = None,
        feedback: Feedback | dict[str, Any] | None = None,
        exceptions: Exceptions | dict[str, Any] | None = None,
        **kwargs: Any,
    ):
        weight_decay = check_number("weight_decay", weight_decay, low=0)
        checks.boolean("batch_manhattan", batch_manhattan)
        checks.boolean("no_sign_change", no_sign_change)
        if isinstance(last_layer, dict):
            last_layer = LastLayer(**last_layer)
        if not isinstance(last_layer, LastLayer | None):
            raise TypeError(
                "`last_layer` must be a tfbio.optimizers.LastLayer, such as LastLayer.of(model), "
                f"or None. Received: {last_layer!r} of type {type(last_layer).__name__}."
            )
        if isinstance(feedback, dict):
            feedback = Feedback(**feedback)
        if not isinstance(feedback, Feedback | None):
            raise TypeError(
                "`feedback` must be a tfbio.optimizers.Feedback or None. "
                f"Received: {feedback!r} of type {type(feedback).__name__}."
            )
        if isinstance(exceptions, dict):
            exceptions = Exceptions(**exceptions)
        if not isinstance(exceptions, Exceptions | None):
            raise TypeError(
                "`exceptions` must be a tfbio.optimizers.Exceptions, such as Exceptions.of(model, "
                f"'bias'), or None. Received: {exceptions!r} of type {type(exceptions).__name__}."
            )
        super().__init__(*args, weight_decay=weight_decay, **kwargs)
        self.batch_manhattan = batch_manhattan
        self.no_sign_change = no_sign_change
        self.last_layer = last_layer
        self.feedback = feedback or Feedback()
        self.exceptions = exceptions

    def build(self, variables: Sequence[keras.Variable]) -> None:
        """Make the optimizer's variables, and settle how each of the model's is treated.

        Args:
            variables: The model's trainable variables, all of them if `last_layer` or `exceptions`
                is set.

        Raises:
            ValueError: If they are not those that `last_layer` or `exceptions` was made for, or
                settings for the feedback find no B that learns alone.
        """
        if self.built:
            return
        for given in (self.last_layer, self.exceptions):
            if given:
                given.check(variables)
        indexes = {id(variable): index for index, variable in enumerate(variables)}
        settings = [_settings(self, index, v) for index, v in enumerate(variables)]
        for index, variable in enumerate(variables):
            kernel = indexes.get(id(getattr(variable, "follows", None)))
            if kernel is not None:
                settings[index] = settings[kernel]._replace(no_sign_change=False)
        self._settings = tuple(settings)
        # By position: a step gets TensorFlow's variables, without the mark.
        self._learns = tuple(getattr(v, "feedback_learns", None) for v in variables)
        alone = [v for v, learns in zip(variables, self._learns, strict=True) if learns == "alone"]
        if not alone and self.feedback != Feedback():
            raise ValueError(
                "`feedback` has settings for matrices B that learn by a loss of their own, and the "
                "model has none; symmetric_alignment is a rule with one. Received: "
                f"{self.feedback!r}."
            )
        own = self.feedback.optimizer
        if own is not None and own.built:
            raise ValueError(
                "`feedback` has an optimizer that serves another model already, and remembers its "
                "weights. Give each model's optimizer a Feedback with one of its own. "
                f"Received: {self.feedback!r}."
            )
        if own is not None:
            own.build(alone)
        super().build(variables)

    @property
    def variables(self) -> list[keras.Variable]:
        """All of the optimizer's state, with that of the feedback's own optimizer."""
        own = self.feedback.optimizer
        return [*super().variables, *(own.variables if own is not None else ())]

    def apply(
        self,
        grads: Sequence[tf.Tensor | None],
        trainable_variables: Sequence[keras.Variable] | None = None,
    ) -> Any:
        """Take one step; see the class."""
        own, before = self.feedback.optimizer, tf.convert_to_tensor(self.iterations)
        iterations = super().apply(grads, trainable_variables)
        if own is not None:
            # Its moments count the steps that it took: none where gradients are accumulated.
            gone = tf.convert_to_tensor(self.iterations) - before
            taken = gone * tf.cast(self.feedback.turn(before, alone=True), gone.dtype)
            own.iterations.assign_add(tf.cast(taken, own.iterations.dtype))
        return iterations

    def update_step(
        self, gradient: tf.Tensor, variable: keras.Variable, learning_rate: tf.Tensor
    ) -> None:
        """Take one step for one variable, where it is its turn.

        Args:
            gradient: Its gradient.
            variable: The variable.
            learning_rate: η.
        """
        alone = self._learns[_keras.get_variable_index(self, variable)] == "alone"
        update = self._align if alone else self._learn

        def updated():
            update(gradient, variable, learning_rate)

        if self.feedback.gated:
            turn = self.feedback.turn(tf.convert_to_tensor(self.iterations), alone)
            tf.cond(turn, updated, lambda: None)
        else:
            updated()

    def _align(self, gradient, variable, learning_rate):
        """Take one step for a B that learns by a loss of its own."""
        rate = tf.cast(learning_rate, variable.dtype) * self.feedback.learning_rate_scale
        gradient = tf.cast(tf.convert_to_tensor(gradient), variable.dtype)
        own = self.feedback.optimizer
        if own is None:
            self.descend(gradient, variable, rate, self._taken(alone=True))
        else:
            own.descend(gradient, variable, rate, tf.convert_to_tensor(own.iterations))

    def _taken(self, alone):
        """Return how many updates the variables have had that learn alone, or the others."""
        return self.feedback.taken(tf.convert_to_tensor(self.iterations), alone)

    def _learn(self, gradient, variable, learning_rate):
        """Take one step for a weight of the network, or a B that follows its kernel."""
        settings = self._settings[_keras.get_variable_index(self, variable)]
        # Dense even for an embedding: momentum and decay reach the rows without a gradient too.
        gradient = tf.cast(tf.convert_to_tensor(gradient), variable.dtype)
        if settings.learning_rate_scale != 1:
            learning_rate = tf.cast(learning_rate, variable.dtype) * settings.learning_rate_scale
        before = tf.convert_to_tensor(variable)
        if settings.batch_manhattan:
            gradient = tf.sign(gradient)
        if self.weight_decay and settings.decays:
            if self.decoupled:
                rate = tf.cast(learning_rate, variable.dtype)
                self.assign_sub(variable, before * self.weight_decay * rate)
            else:
                gradient += self.weight_decay * before
        self.descend(gradient, variable, learning_rate, self._taken(alone=False))
        if settings.no_sign_change:
            self.assign(variable, _with_sign_of(before, tf.convert_to_tensor(variable)))

    def _clip_gradients(self, grads):
        """Return the gradients as they are: here they are one replica's part, and no gradient."""
        return grads

    def _all_reduce_sum_gradients(self, grads_and_vars):
        """Return the replicas' gradients summed, and then clipped where that is asked for."""
        pairs = super()._all_reduce_sum_gradients(grads_and_vars)
        gradients = [gradient for gradient, _ in pairs]
        learns = [self._learns[_keras.get_variable_index(self, variable)] for _, variable in pairs]
        if self.global_clipnorm and any(learns):
            # A B that follows its kernel has the same gradient, which would count twice.
            own = [g for g, each in zip(gradients, learns, strict=True) if each is None]
            norm = tf.linalg.global_norm(own)
            scale = self.global_clipnorm / tf.maximum(norm, self.global_clipnorm)
            clipped = [gradient * scale for gradient in gradients]
        else:
            clipped = super()._clip_gradients(gradients)
        return [
            (g if each == "alone" else c, variable)
            for g, c, each, (_, variable) in zip(gradients, clipped, learns, pairs, strict=True)
        ]

    def _apply_weight_decay(self, variables):
        """Do nothing: Keras's hook decays at one rate for all layers, and never in the gradient."""

    def get_config(self) -> dict[str, Any]:
        """Return the Keras optimizer's config, and the variants'."""
        return {
            **super().get_config(),
            "batch_manhattan": self.batch_manhattan,
            "no_sign_change": self.no_sign_change,
            "last_layer": self.last_layer.get_config() if self.last_layer else None,
            "feedback": self.feedback.get_config(),
            "exceptions": self.exceptions.get_config() if self.exceptions else None,
        }


def _settings(optimizer, index, variable):
    """Return the settings of a variable: the last layer's where given, else the optimizer's."""
    last, exceptions = optimizer.last_layer, optimizer.exceptions
    if last and index not in last.indexes:
        last = None

    def choose(name):
        own = getattr(last, name, None)
        return getattr(optimizer, name) if own is None else own

    rate, decays = last.learning_rate_scale if last else 1.0, True
    if exceptions:
        decays = index not in exceptions.without_decay
        rate *= exceptions.bias_learning_rate_scale if index in exceptions.biases else 1.0
    return _Settings(
        rate,
        choose("batch_manhattan"),
        choose("no_sign_change") and _keeps_sign(variable),
        decays and _keras.uses_weight_decay(optimizer, variable),
    )


def _keeps_sign(variable):
    """Return whether no-sign-change holds for a variable: no bias, no beta, no learned B."""
    return not is_bias(variable) and not getattr(variable, "feedback_learns", None)


def _with_sign_of(before, after):
    """Return `after`, and ±1e-10 where its sign is not the one of `before`; 0 counts as +."""
    # 1e-10 underflows in float16, to a zero that would lose the sign.
    tiny = tf.constant(2.0**-14 if before.dtype == tf.float16 else _TINY, before.dtype)
    kept = tf.where(before >= 0, tiny, -tiny)
    return tf.where(tf.sign(before) * tf.sign(after) <= 0, kept, after)
