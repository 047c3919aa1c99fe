"""Descents: the optimizers themselves, SGD, RMSprop and Adam, under what `Variants` adds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras
import tensorflow as tf

from tfbio import _keras
from tfbio.optimizers.variants import Variants

if TYPE_CHECKING:
    from keras.optimizers.schedules import LearningRateSchedule


@keras.saving.register_keras_serializable("tfbio")
class VariantSGD(Variants, keras.optimizers.SGD):
    """SGD as in the papers' code: L2 in the gradient, and a momentum without the learning rate.

    The step, after the transformations of `Variants`::

        buf ← μ·buf + d,    p ← p − η·buf,    with Nesterov's momentum p ← p − η(d + μ·buf)

    Keras's own SGD keeps η·buf instead, which goes on at the old rate after η has changed, and its
    weight decay is decoupled, about 1 − μ times as strong.

    Args:
        learning_rate: η, a float or a Keras `LearningRateSchedule`.
        momentum: μ, a float of 0 or more, less than 1.
        nesterov: Whether the momentum is Nesterov's; it needs one.
        **kwargs: Those of `Variants` and of every Keras optimizer.

    Raises:
        ValueError: If an argument is out of its range.

    Example:
        >>> p = keras.Variable([1.0])
        >>> VariantSGD(0.1, weight_decay=0.5, batch_manhattan=True).apply([[3.0]], [p])
        >>> print(p.numpy())
        [0.85]

    References:
        Liao et al. 2016, "How important is weight symmetry in backpropagation?"; Sutskever et al.
        2013, "On the importance of initialization and momentum in deep learning".
    """

    def __init__(
        self,
        learning_rate: float | LearningRateSchedule = 0.01,
        momentum: float = 0.0,
        nesterov: bool = False,
        **kwargs: Any,
    ):
        if nesterov and not momentum:
            raise ValueError(
                f"`momentum` must be more than 0 with Nesterov's. Received: {momentum!r}."
            )
        super().__init__(learning_rate, momentum=momentum, nesterov=nesterov, **kwargs)

    def descend(
        self,
        gradient: tf.Tensor,
        variable: keras.Variable,
        learning_rate: tf.Tensor,
        taken: tf.Tensor,
    ) -> None:
        """Move the variable down the transformed gradient; it has had `taken` updates before."""
        step = gradient
        if self.momentum:
            buffer = self.momentums[_keras.get_variable_index(self, variable)]
            step = self.momentum * tf.convert_to_tensor(buffer) + gradient
            self.assign(buffer, step)
            if self.nesterov:
                step = gradient + self.momentum * step
        self.assign_sub(variable, tf.cast(learning_rate, variable.dtype) * step)


@keras.saving.register_keras_serializable("tfbio")
class VariantRMSprop(Variants, keras.optimizers.RMSprop):
    """Graves's RMSprop, centered and with a momentum, as Lee et al. 2015's code has it.

    The step, after the transformations of `Variants`::

        v ← ρv + (1 − ρ)d²,    m ← ρm + (1 − ρ)d
        buf ← μ·buf + d/√(v − m² + ε),    p ← p − η·buf

    Keras's own keeps η·buf instead, and lets v − m² be less than 0, by rounding, where gradients
    are great and all alike; here it is 0 at least.

    Args:
        learning_rate: η, a float or a Keras `LearningRateSchedule`.
        momentum: μ, a float of 0 or more, less than 1.
        rho: ρ, by default Lee et al.'s.
        epsilon: ε, by default Lee et al.'s.
        centered: Whether m² is taken off; without, v alone divides, as Hinton has it.
        **kwargs: Those of `Variants` and of every Keras optimizer.

    Raises:
        ValueError: If an argument of `Variants` is out of its range.

    Example:
        >>> p = keras.Variable([1.0])
        >>> VariantRMSprop(0.1).apply([[1.0]], [p])
        >>> print(p.numpy().round(4))
        [0.5459]

    References:
        Graves 2013, "Generating sequences with recurrent neural networks"; Lee et al. 2015,
        "Difference target propagation", and their code.
    """

    def __init__(
        self,
        learning_rate: float | LearningRateSchedule = 0.001,
        momentum: float = 0.0,
        rho: float = 0.95,
        epsilon: float = 1e-3,
        centered: bool = True,
        **kwargs: Any,
    ):
        super().__init__(
            learning_rate, rho=rho, momentum=momentum, epsilon=epsilon, centered=centered, **kwargs
        )

    def descend(
        self,
        gradient: tf.Tensor,
        variable: keras.Variable,
        learning_rate: tf.Tensor,
        taken: tf.Tensor,
    ) -> None:
        """Move the variable down the transformed gradient; it has had `taken` updates before."""
        index = _keras.get_variable_index(self, variable)

        def averaged(average, value):
            average = average[index]
            value = self.rho * tf.convert_to_tensor(average) + (1 - self.rho) * value
            self.assign(average, value)
            return value

        variance = averaged(_keras.get_slots(self, "velocities"), tf.square(gradient))
        if self.centered:
            mean = averaged(_keras.get_slots(self, "average_gradients"), gradient)
            variance = tf.maximum(variance - tf.square(mean), 0)
        step = gradient / tf.sqrt(variance + self.epsilon)
        if self.momentum:
            buffer = _keras.get_slots(self, "momentums")[index]
            step = self.momentum * tf.convert_to_tensor(buffer) + step
            self.assign(buffer, step)
        self.assign_sub(variable, tf.cast(learning_rate, variable.dtype) * step)


@keras.saving.register_keras_serializable("tfbio")
class VariantAdam(Variants, keras.optimizers.Adam):
    """Adam, with L2 in the gradient or decoupled decay, and the transformations of `Variants`.

    The descent is Keras's own Adam::

        m ← β₁m + (1 − β₁)d,    v ← β₂v + (1 − β₂)d²
        p ← p − η·√(1 − β₂ᵗ)/(1 − β₁ᵗ) · m/(√v + ε)

    Args:
        learning_rate: η, a float or a Keras `LearningRateSchedule`.
        decoupled: False for λp in the gradient, True for p ← p − ηλp before the descent (AdamW).
        **kwargs: Those of `Variants` and of `keras.optimizers.Adam`.

    Raises:
        ValueError: If an argument is out of its range.

    Example:
        >>> p = keras.Variable([1.0])
        >>> VariantAdam(0.25).apply([[3.0]], [p])
        >>> print(p.numpy().round(4))
        [0.75]

    References:
        Kingma and Ba 2015, "Adam: a method for stochastic optimization"; Loshchilov and Hutter
        2019, "Decoupled weight decay regularization".
    """

    def __init__(
        self,
        learning_rate: float | LearningRateSchedule = 0.001,
        decoupled: bool = False,
        **kwargs: Any,
    ):
        super().__init__(learning_rate, **kwargs)
        self.decoupled = decoupled

    def descend(
        self,
        gradient: tf.Tensor,
        variable: keras.Variable,
        learning_rate: tf.Tensor,
        taken: tf.Tensor,
    ) -> None:
        """Move the variable as Keras's Adam does, by the transformed gradient.

        t, which corrects m's and v's start at 0, counts the variable's own updates: there may be
        steps at which it has none.
        """
        index = _keras.get_variable_index(self, variable)
        m, v = (_keras.get_slots(self, kind)[index] for kind in ("momentums", "velocities"))
        # In float64: 1 − β₂ᵗ loses five digits in float32.
        t = tf.cast(taken + 1, tf.float64)
        beta_1, beta_2 = (tf.constant(b, tf.float64) for b in (self.beta_1, self.beta_2))
        correction = tf.sqrt(1 - beta_2**t) / (1 - beta_1**t)
        rate = tf.cast(learning_rate, variable.dtype) * tf.cast(correction, variable.dtype)
        first, second = tf.convert_to_tensor(m), tf.convert_to_tensor(v)
        first += (gradient - first) * (1 - self.beta_1)
        second += (tf.square(gradient) - second) * (1 - self.beta_2)
        self.assign(m, first)
        self.assign(v, second)
        if self.amsgrad:
            greatest = _keras.get_slots(self, "velocity_hats")[index]
            second = tf.maximum(tf.convert_to_tensor(greatest), second)
            self.assign(greatest, second)
        self.assign_sub(variable, rate * first / (tf.sqrt(second) + self.epsilon))

    def get_config(self) -> dict[str, Any]:
        """Return the config of `Variants`, and whether the decay is decoupled."""
        return {**super().get_config(), "decoupled": self.decoupled}
