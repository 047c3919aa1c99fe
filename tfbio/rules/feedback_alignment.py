"""Feedback alignment: B is fixed, and the forward weights come to align with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import tensorflow as tf

from tfbio.rules.registry import register
from tfbio.rules.scales import ScaledRule, as_tensor

if TYPE_CHECKING:
    from tfbio.rules.scales import Fans


@register("feedback_alignment", aliases=("fa",))
class FeedbackAlignment(ScaledRule):
    """Feedback alignment: ``B ~ N(0, s²)``, fixed, random and independent of W.

    Args:
        scale: The scale s, see `tfbio.rules.scales.magnitude`. "xavier" and "unit", and "xiao" on
            dense layers, draw uniformly instead, see `tfbio.rules.scales.draw`.
        seed: An integer, or None to follow the global seed (`keras.utils.set_random_seed`).

    Raises:
        ValueError: If an option is out of its range.

    Example:
        >>> import tfbio
        >>> layer = tfbio.layers.FeedbackDense(3, rule="feedback_alignment(seed=0)")
        >>> layer.build((None, 2))
        >>> layer.feedback.shape
        TensorShape([2, 3])

    References:
        Lillicrap et al. 2016, "Random synaptic feedback weights support error backpropagation for
        deep learning".
    """

    def make_state(self, kernel: tf.Tensor, fans: Fans) -> None:
        """Draw B; see the base class."""
        self.matrix = self.new_random("feedback", kernel)

    def feedback(self, kernel: tf.Tensor) -> tf.Tensor:
        """Return B, whatever the kernel."""
        return tf.convert_to_tensor(self.matrix)


@register("feedback_alignment_signed_init")
class FeedbackAlignmentSignedInit(ScaledRule):
    """Feedback alignment from the initial signs: ``B = s·sign(W₀)``, frozen.

    W₀ is the kernel when the rule is attached: at conversion, or when the layer is built. Weights
    loaded later leave B as it is; load first and convert after.

    Args:
        scale: The scale s, see `tfbio.rules.scales.magnitude`.

    Raises:
        ValueError: If the scale is none.

    Example:
        >>> import tfbio
        >>> layer = tfbio.layers.FeedbackDense(3, rule="feedback_alignment_signed_init")
        >>> layer.build((None, 2))
        >>> before = layer.feedback
        >>> _ = layer.kernel.assign(-layer.kernel)
        >>> bool((layer.feedback == before).numpy().all())
        True

    References:
        The published code of Xiao et al. 2018, "Biologically-plausible learning algorithms can
        scale to large datasets".
    """

    def __init__(self, scale: str | float = "match"):
        super().__init__(scale)

    def make_state(self, kernel: tf.Tensor, fans: Fans) -> None:
        """Take the signs of W₀; see the base class."""
        self.matrix = self.new_state(
            "feedback",
            tuple(kernel.shape),
            lambda: tf.sign(kernel) * as_tensor(self.s, kernel.dtype),
            kernel.dtype,
        )

    def feedback(self, kernel: tf.Tensor) -> tf.Tensor:
        """Return ``s·sign(W₀)``, whatever the kernel is now."""
        return tf.convert_to_tensor(self.matrix)
