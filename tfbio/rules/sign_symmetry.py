"""Sign symmetry: B shares the signs of W, which evolve with it, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import tensorflow as tf

from tfbio.rules import checks
from tfbio.rules.draws import uniform
from tfbio.rules.registry import register
from tfbio.rules.scales import ScaledRule, as_tensor, draw

if TYPE_CHECKING:
    from tfbio.rules.scales import Fans


@register("sign_symmetry", aliases=("ss", "usf"))
class SignSymmetry(ScaledRule):
    """Uniform sign-concordant feedback: ``B = s·sign(W)``, recomputed whenever W changes.

    With ``agreement=p`` each entry keeps its sign with probability p, by a mask drawn once, and
    has it flipped otherwise: ``B = s·C∘sign(W)`` with ``C = ±1``. ``sign(0) = 0``: no feedback
    passes there.

    Args:
        scale: The scale s, see `tfbio.rules.scales.magnitude`.
        agreement: The probability p of concordance, of 0 to 1.
        seed: The mask's seed: an integer, or None to follow the global seed
            (`keras.utils.set_random_seed`). Nothing is drawn at ``agreement=1``.

    Raises:
        ValueError: If an option is out of its range.

    Example:
        >>> import tensorflow as tf, tfbio
        >>> layer = tfbio.layers.FeedbackDense(2, rule="sign_symmetry(scale=0.5)")
        >>> layer.build((None, 1))
        >>> _ = layer.kernel.assign([[3.0, -0.1]])
        >>> print(layer.feedback.numpy())
        [[ 0.5 -0.5]]

    References:
        Liao, Leibo and Poggio 2016, "How important is weight symmetry in backpropagation?" (uSF);
        Xiao et al. 2018, "Biologically-plausible learning algorithms can scale to large datasets".
    """

    def __init__(
        self, scale: str | float = "match", agreement: float = 1.0, seed: int | None = None
    ):
        super().__init__(scale, seed)
        self.agreement = checks.number("agreement", agreement, low=0, high=1)

    def make_state(self, kernel: tf.Tensor, fans: Fans) -> None:
        """Draw the mask C where signs may disagree; see the base class."""
        shape = tuple(kernel.shape)
        self.concordance = None
        if self.agreement < 1:
            # One byte an entry, a quarter of what the kernel takes.
            self.concordance = self.new_state(
                "concordance",
                shape,
                lambda: tf.where(uniform(shape, self.key()) < 2 * self.agreement - 1, 1, -1),
                "int8",
            )

    def feedback(self, kernel: tf.Tensor) -> tf.Tensor:
        """Return ``s·C∘sign(W)``."""
        signs = tf.sign(kernel) * as_tensor(self.s, kernel.dtype)
        if self.concordance is None:
            return signs
        return signs * tf.cast(self.concordance, kernel.dtype)


@register("frsf")
class FixedRandomSignFeedback(ScaledRule):
    """Fixed random-magnitude sign-concordant feedback: ``B = M∘sign(W)``, M ≥ 0 drawn once.

    Args:
        scale: The scale s of ``M = |N(0, s²)|``, see `tfbio.rules.scales.magnitude`. "xavier" and
            "unit", and "xiao" on dense layers, draw uniformly instead, see
            `tfbio.rules.scales.draw`.
        seed: An integer, or None to follow the global seed (`keras.utils.set_random_seed`).

    Raises:
        ValueError: If an option is out of its range.

    Example:
        >>> import tensorflow as tf, tfbio
        >>> layer = tfbio.layers.FeedbackDense(3, rule="frsf(seed=0)")
        >>> layer.build((None, 2))
        >>> bool(tf.reduce_all(tf.sign(layer.feedback) == tf.sign(layer.kernel)))
        True

    References:
        Liao, Leibo and Poggio 2016, "How important is weight symmetry in backpropagation?" (frSF).
    """

    def make_state(self, kernel: tf.Tensor, fans: Fans) -> None:
        """Draw M; see the base class."""
        self.magnitudes = self.new_random("magnitudes", kernel, transform=tf.abs)

    def feedback(self, kernel: tf.Tensor) -> tf.Tensor:
        """Return ``M∘sign(W)``."""
        return tf.convert_to_tensor(self.magnitudes) * tf.sign(kernel)


@register("brsf")
class BatchwiseRandomSignFeedback(ScaledRule):
    """Batch-wise random-magnitude sign-concordant feedback: ``B = M∘sign(W)``, M redrawn per step.

    M is a pure function of a saved key and of the number of steps that W has taken, so that all
    calls within a step, layers called several times, micro-batches of one accumulated gradient and
    replicas see one M, and a reloaded model continues with the M it had. A step is seen by W's
    change: a kernel that does not learn (a frozen layer, a learning rate of 0) keeps its M.

    Args:
        scale: The scale s of ``M = |N(0, s²)|``, see `tfbio.rules.scales.magnitude`. "xavier" and
            "unit", and "xiao" on dense layers, draw uniformly instead, see
            `tfbio.rules.scales.draw`.
        seed: An integer, or None to follow the global seed (`keras.utils.set_random_seed`).

    Raises:
        ValueError: If an option is out of its range.

    Example:
        >>> import tensorflow as tf, tfbio
        >>> layer = tfbio.layers.FeedbackDense(3, rule="brsf(seed=0)")
        >>> layer.build((None, 2))
        >>> before = layer.feedback
        >>> _ = layer.kernel.assign(1.01 * layer.kernel)
        >>> bool(tf.reduce_any(layer.feedback == before))
        False

    References:
        Liao, Leibo and Poggio 2016, "How important is weight symmetry in backpropagation?" (brSF).
    """

    @property
    def has_step(self) -> bool:
        """True: M is drawn at every step, though there is no `step` to override."""
        return True

    def make_state(self, kernel: tf.Tensor, fans: Fans) -> None:
        """Keep the key of the draws and the number of steps; see the base class."""
        self.make_draws()

    def feedback(self, kernel: tf.Tensor) -> tf.Tensor:
        """Return ``M∘sign(W)`` with the M of the present step."""
        key = self.draw_key(ahead_of=kernel)
        matrix = draw(kernel.shape, kernel.dtype, key, self.scale, self._fans, self.s)
        return tf.abs(matrix) * tf.sign(kernel)
