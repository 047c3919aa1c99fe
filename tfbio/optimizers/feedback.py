"""The feedback's settings: how an optimizer treats weights that learn by a loss of their own."""

import dataclasses
from typing import Any

import keras
import tensorflow as tf

from tfbio._arguments import check_integer, check_number


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
        alternate: The steps of a turn, 0 or more: they are updated for so many steps, then all
            other variables for as many, and so on. 0 to update all at every step; True means 1.
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
    alternate: int = 0
    optimizer: keras.optimizers.Optimizer | None = None

    def __post_init__(self):
        """Check the settings; turn an optimizer's config into one."""
        check_number("learning_rate_scale", self.learning_rate_scale, low=0)
        check_integer("delay", self.delay, low=0)
        # True means turns of one step.
        turn = int(self.alternate) if self.alternate is True else self.alternate
        object.__setattr__(self, "alternate", check_integer("alternate", turn, low=0))
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
            *("weight_decay", "batch_manhattan", "no_sign_change", "last_layer"),
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

    def turn(self, iterations: tf.Tensor, alone: bool) -> tf.Tensor:
        """Return whether a variable is updated at a step.

        Args:
            iterations: The steps before it, an integer tensor.
            alone: Whether it is one that learns alone.

        Returns:
            A scalar boolean tensor.
        """
        mine = iterations >= (self.delay if alone else 0)
        if self.alternate:
            mine &= (iterations // self.alternate % 2 == 0) == alone
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
            >>> settings = Feedback(alternate=10)
            >>> [int(settings.taken(tf.constant(25), alone)) for alone in (True, False)]
            [15, 10]
        """

        def until(step):
            if not self.alternate:
                return step
            rounds, rest = step // (2 * self.alternate), step % (2 * self.alternate)
            rest = tf.minimum(rest, self.alternate) if alone else rest - self.alternate
            return rounds * self.alternate + tf.maximum(rest, 0)

        if not alone or not self.delay:
            return until(iterations)
        delay = tf.constant(self.delay, iterations.dtype)
        return until(tf.maximum(iterations, delay)) - until(delay)

    def get_config(self) -> dict[str, Any]:
        """Return the attributes, the optimizer as a config."""
        own = self.optimizer and keras.saving.serialize_keras_object(self.optimizer)
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {**values, "optimizer": own}
