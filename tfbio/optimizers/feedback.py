"""The feedback's settings: how an optimizer treats weights that learn by a loss of their own."""

import dataclasses
from typing import Any

import keras
import tensorflow as tf

from tfbio._arguments import check_integer, check_number, is_integer


@dataclasses.dataclass(frozen=True)
class Feedback:
    """Settings of an optimizer for the weights of the feedback path that learn alone.

    They are the matrices B of the alignment losses (`tfbio.rules.LocalAlignment`), and the inverses
    of target propagation (`tfbio.rules.TargetPropagation`). Kolen and Pollack's B, which must
    follow its kernel, and the mirror's, which no optimizer updates, are none of them.

    Attributes:
        learning_rate_scale: Their learning rate over that of the other variables, at every step; 0
            or more.
        delay: The optimizer steps before they begin to learn, 0 or more.
        alternate: The steps of a turn: they are updated for so many steps, then all other
            variables for as many, and so on. A pair (a, n) for turns of different lengths: a steps
            of theirs, then n of all others. 0 to update all at every step.
        optimizer: The optimizer whose descent they take, such as
            ``tfbio.optimizers.get("adam", 1.0)``, or its config; None for that of the others. Its
            learning rate is not used, and it serves one model.

    Raises:
        ValueError: If a setting is out of its range, or the optimizer has settings beyond its
            descent, such as a decay.
        TypeError: If `optimizer` is none of `tfbio.optimizers`.

    Example:
        >>> import tfbio
        >>> own = tfbio.optimizers.get("adam", 1.0)
        >>> settings = Feedback(learning_rate_scale=0.1, delay=100, optimizer=own)
        >>> optimizer = tfbio.optimizers.get("sgd", 0.1, momentum=0.9, feedback=settings)

    References:
        Kunin et al. 2020, "Two routes to scalable credit assignment without weight symmetry".
    """

    learning_rate_scale: float = 1.0
    delay: int = 0
    alternate: int | tuple[int, int] = 0
    optimizer: keras.optimizers.Optimizer | None = None

    def __post_init__(self):
        """Check the settings; turn an optimizer's config into one."""
        check_number("learning_rate_scale", self.learning_rate_scale, low=0)
        check_integer("delay", self.delay, low=0)
        if isinstance(self.alternate, tuple | list):
            object.__setattr__(self, "alternate", tuple(self.alternate))
            if len(self.alternate) != 2 or not all(is_integer(n, 1) for n in self.alternate):
                raise ValueError(
                    "`alternate` must be an integer of 0 or more, or a pair of integers of 1 or "
                    f"more. Received: {self.alternate!r}."
                )
        else:
            check_integer("alternate", self.alternate, low=0)
        if isinstance(self.optimizer, dict):
            optimizer = keras.saving.deserialize_keras_object(self.optimizer)
            object.__setattr__(self, "optimizer", optimizer)
        if self.optimizer is not None and not hasattr(self.optimizer, "descend"):
            raise TypeError(
                "`optimizer` must be one of tfbio.optimizers, such as "
                f"tfbio.optimizers.get('adam', 1.0). Received: {self.optimizer!r} of type "
                f"{type(self.optimizer).__name__}."
            )
        self._check_descent()

    def _check_descent(self):
        """Refuse settings of the own optimizer that would mean nothing: its descent is taken."""
        own = self.optimizer
        names = (
            *("weight_decay", "batch_manhattan", "no_sign_change", "last_layer", "exceptions"),
            *("clipnorm", "clipvalue", "global_clipnorm", "use_ema", "gradient_accumulation_steps"),
        )
        given = {name: getattr(own, name, None) for name in names}
        given = {name: value for name, value in given.items() if value}
        if own is not None and own.feedback != Feedback():
            given["feedback"] = own.feedback
        if given:
            name, value = next(iter(given.items()))
            raise ValueError(
                "`optimizer` supplies only the update rule of weights that learn by a loss of "
                "their own: decay, clipping, averaging and variants are not applied. Give one "
                "without. "
                f"Received: {name}={value!r}."
            )

    @property
    def gated(self) -> bool:
        """Whether there are steps at which some variable is not updated."""
        return bool(self.delay or self.alternate)

    @property
    def turns(self) -> tuple[int, int] | None:
        """The steps of a turn of what learns alone, and of all else; None without turns."""
        if not self.alternate:
            return None
        if isinstance(self.alternate, tuple):
            return self.alternate
        return self.alternate, self.alternate

    def turn(self, iterations: tf.Tensor, alone: bool) -> tf.Tensor:
        """Return whether a variable is updated at a step.

        Args:
            iterations: The steps before it, an integer tensor.
            alone: Whether it is one that learns alone.

        Returns:
            A scalar boolean tensor.
        """
        mine = iterations >= (self.delay if alone else 0)
        if self.turns:
            own, others = self.turns
            mine &= (iterations % (own + others) < own) == alone
        return mine

    def taken(self, iterations: tf.Tensor, alone: bool) -> tf.Tensor:
        """Return how many updates a variable has had.

        Args:
            iterations: The steps that were taken, an integer tensor.
            alone: Whether it is one that learns alone.

        Returns:
            A scalar tensor of the same dtype.

        Example:
            >>> import tensorflow as tf
            >>> settings = Feedback(alternate=(1, 3))
            >>> [int(settings.taken(tf.constant(10), alone)) for alone in (True, False)]
            [3, 7]
        """

        def until(step):
            if not self.turns:
                return step
            own, others = self.turns
            rounds, rest = step // (own + others), step % (own + others)
            if alone:
                return rounds * own + tf.minimum(rest, own)
            return rounds * others + tf.maximum(rest - own, 0)

        if not alone or not self.delay:
            return until(iterations)
        delay = tf.constant(self.delay, iterations.dtype)
        return until(tf.maximum(iterations, delay)) - until(delay)

    def get_config(self) -> dict[str, Any]:
        """Return the attributes, the optimizer as a config."""
        own = self.optimizer and keras.saving.serialize_keras_object(self.optimizer)
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {**values, "optimizer": own}
