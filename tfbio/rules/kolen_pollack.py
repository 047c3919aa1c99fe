"""Kolen–Pollack learning: B takes the updates that W takes, and the difference of both decays."""

from __future__ import annotations

from typing import TYPE_CHECKING

import tensorflow as tf

from tfbio.rules.registry import register
from tfbio.rules.scales import ScaledRule

if TYPE_CHECKING:
    from tfbio.rules.scales import Fans


@register("kolen_pollack", aliases=("kp",))
class KolenPollack(ScaledRule):
    """Kolen–Pollack: B learns with W's gradient and decays with W's decay.

    With the learning rate η and the optimizer's weight decay λ::

        W ← W − η(∂W + λW),    B ← B − η(∂W + λB)

    so that under plain SGD, or a decay that is decoupled from the gradient (AdamW),
    ``W_t − B_t = (1 − ηλ)^t (W_0 − B_0)`` whatever the data. Without decay the difference stays as
    it was. The two synapses need no weight of each other: each sees the same two activities.

    The identity needs an optimizer whose step does not depend on the weight itself but for the
    decay. Under Adam or RMSprop with λW in the gradient W − B shrinks faster, each entry by a
    factor of its own; under Lamb and Adafactor, whose rates depend on the weight's size, it moves
    (docs/rules/kolen_pollack.md has measurements). W and B have one gradient also where the loss
    depends on the error, as a penalty on the gradient at the input does; see
    `tfbio.feedback.shared_gradient`.

    B is trainable: the optimizer that updates W updates B, and a decay that is written into the
    loss, as `kernel_regularizer`, would reach W alone. So would a wrapper that rescales W,
    `keras.layers.SpectralNormalization`, which `tfbio.convert` refuses.

    Args:
        scale: The scale s of the first B ~ N(0, s²), see `tfbio.rules.scales.magnitude`. "xavier"
            and "unit", and "xiao" on dense layers, draw uniformly instead, see
            `tfbio.rules.scales.draw`.
        seed: An integer, or None to follow the global seed (`keras.utils.set_random_seed`).

    Raises:
        ValueError: If an option is out of its range, or if the kernel has a regularizer or a
            constraint, which would keep B from following W.

    Example:
        >>> import tfbio
        >>> layer = tfbio.layers.FeedbackDense(3, rule="kolen_pollack(seed=0)")
        >>> layer.build((None, 2))
        >>> [variable.name for variable in layer.trainable_variables]
        ['kernel', 'bias', 'feedback']

    References:
        Kolen and Pollack 1994, "Backpropagation without weight transport"; Akrout et al. 2019,
        "Deep learning without weight transport".
    """

    learns = "with_kernel"

    def make_state(self, kernel: tf.Tensor, fans: Fans) -> None:
        """Draw the first B; see the base class."""
        for name in ("regularizer", "constraint"):
            if getattr(kernel, name, None) is not None:
                raise ValueError(
                    f"`kolen_pollack` needs a kernel without a {name}, which would reach W and not "
                    "B. Give the optimizer a `weight_decay` instead, which decays both. "
                    f"Received: kernel_{name}={getattr(kernel, name)!r}."
                )
        self.matrix = self.new_random("feedback", kernel, changes=self.learns)

    def feedback(self, kernel: tf.Tensor) -> tf.Tensor:
        """Return B as it has learned to be, whatever the kernel."""
        return tf.convert_to_tensor(self.matrix)
