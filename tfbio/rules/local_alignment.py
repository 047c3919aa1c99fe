"""Local alignment: B learns by a loss of its own layer, whose only gradient is on B."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

import tensorflow as tf

from tfbio.rules import checks
from tfbio.rules.draws import uniform
from tfbio.rules.learned import LearnedRule
from tfbio.rules.registry import register
from tfbio.rules.scales import ScaledRule

if TYPE_CHECKING:
    from tfbio.rules.layer_rule import Circuit
    from tfbio.rules.scales import Fans


def decay(feedback: tf.Tensor) -> tf.Tensor:
    """Return ``‖B‖²``, whose gradient is 2B.

    Args:
        feedback: B, a tensor.

    Returns:
        A scalar tensor.

    Example:
        >>> float(decay(tf.constant([[1.0, 2.0]])))
        5.0

    References:
        Kunin et al. 2020, "Two routes to scalable credit assignment without weight symmetry".
    """
    return tf.reduce_sum(tf.square(feedback))


def self_(feedback: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """Return ``−⟨W, B⟩``, whose gradient is −W; see `decay` for the paper.

    Args:
        feedback: B, a tensor.
        kernel: W, of its shape.

    Example:
        >>> float(self_(tf.constant([[1.0, 2.0]]), tf.constant([[3.0, 4.0]])))
        -11.0
    """
    return -tf.reduce_sum(feedback * kernel)


def amp(at_feedback: tf.Tensor, at_kernel: tf.Tensor) -> tf.Tensor:
    """Return ``−mean⟨xW, xB⟩``, whose gradient is −(1/N) xᵀ(xW); see `decay` for the paper.

    Args:
        at_feedback: xB, the layer's operation at B, (N, ...).
        at_kernel: xW, of its shape.

    Example:
        >>> float(amp(tf.constant([[1.0], [2.0]]), tf.constant([[1.0], [3.0]])))
        -3.5
    """
    return -_mean_over_batch(at_feedback * at_kernel)


def sparse(at_feedback: tf.Tensor) -> tf.Tensor:
    """Return ``mean‖xB‖²``, whose gradient is (2/N) xᵀ(xB); see `decay` for the paper.

    Args:
        at_feedback: xB, the layer's operation at B, (N, ...).

    Example:
        >>> float(sparse(tf.constant([[1.0], [3.0]])))
        5.0
    """
    return _mean_over_batch(tf.square(at_feedback))


def null(back: tf.Tensor) -> tf.Tensor:
    """Return ``mean‖(xW)Bᵀ‖²``, whose gradient is (2/N) [(xW)Bᵀ]ᵀ(xW); see `decay` for the paper.

    Args:
        back: (xW)Bᵀ, the layer's output sent back through B, (N, ...).

    Example:
        >>> float(null(tf.constant([[1.0], [3.0]])))
        5.0
    """
    return _mean_over_batch(tf.square(back))


def _mean_over_batch(entries):
    return tf.reduce_sum(entries) / tf.cast(tf.shape(entries)[0], entries.dtype)


@register("local_alignment")
class LocalAlignment(LearnedRule):
    """Local alignment: B learns by any sum of Kunin et al.'s primitives.

    The loss of each kernel, a mean over the batch and a sum over all else, for the layer's input x
    (constant, as W is)::

        R = decay·‖B‖² − self_·⟨W, B⟩ − amp·⟨xW, xB⟩ + sparse·‖xB‖² + null·‖(xW)Bᵀ‖²

    With ``bias=True`` the layer's bias b is added to what is projected, as in Kunin et al.'s code:
    xW + b and xB + b stand for xW and xB.

    For other operations than a matrix product xW stands for ``op(x, W)``, and (xW)Bᵀ for the
    transposed operation at B. A layer that is called several times has the data's terms of every
    call, and one decay and self_.

    The optimizer that updates W updates B, too; see `tfbio.rules.LearnedRule`.

    Cost, in operations of the size of the layer's own, beside the three of a step: amp alone 3,
    sparse alone 2, both 3, null 4, amp and null 6; decay and self_ a pass over the weights.

    Args:
        decay, self_, amp, sparse, null: The primitives' coefficients, finite numbers. With none B
            stays as it is drawn: feedback alignment.
        noise: σ; where it is not 0, x is noise ~ N(0, σ²) of the input's shape, drawn at every
            step: the weight mirror as a loss.
        samples: The batch of that noise, an integer of 1 or more. It is not the input's, so that
            micro-batches and replicas of one step see the same.
        bias: Whether the layer's bias is added in amp, sparse and null.
        scale: The scale of the first B ~ N(0, s²), see `tfbio.rules.scales.magnitude`.
        seed: An integer, or None to follow the global seed (`keras.utils.set_random_seed`).

    Raises:
        ValueError: If an option is out of its range, or `bias` is given without a primitive of the
            data.

    Example:
        >>> import keras, tfbio
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
        >>> model = tfbio.convert(model, "local_alignment(decay=0.001, self_=0.002)")
        >>> [variable.name for variable in model.trainable_variables]
        ['kernel', 'bias', 'feedback']

    References:
        Kunin et al. 2020, "Two routes to scalable credit assignment without weight symmetry".
    """

    def __init__(
        self,
        decay: float = 0.0,
        self_: float = 0.0,
        amp: float = 0.0,
        sparse: float = 0.0,
        null: float = 0.0,
        noise: float = 0.0,
        samples: int = 32,
        bias: bool = False,
        scale: str | float = "match",
        seed: int | None = None,
    ):
        super().__init__(scale, seed)
        self.decay, self.self_ = checks.number("decay", decay), checks.number("self_", self_)
        self.amp = checks.number("amp", amp)
        self.sparse, self.null = checks.number("sparse", sparse), checks.number("null", null)
        self.noise = checks.number("noise", noise, low=0)
        self.samples = checks.integer("samples", samples, low=1)
        self.bias = checks.boolean("bias", bias)
        if bias and not (self.amp or self.sparse or self.null):
            raise ValueError(
                "`bias` has no effect without `amp`, `sparse` or `null`, the primitives of what "
                f"the layer computes. Received: {bias}."
            )

    def primitives(self) -> dict[str, float]:
        """Return the coefficients of R as a dict; those of 0 cost nothing."""
        names = ("decay", "self_", "amp", "sparse", "null")
        return {name: getattr(self, name) for name in names}

    @property
    def learns(self) -> str | None:
        """What trains B: nothing where all coefficients are 0."""
        return "alone" if any(self.primitives().values()) else None

    @property
    def has_step(self) -> bool:
        """Whether there is noise, which is drawn at every step."""
        return bool(self.noise)

    def make_state(self, kernel: tf.Tensor, fans: Fans) -> None:
        """Draw the first B, and prepare the noise; see the base class."""
        super().make_state(kernel, fans)
        if self.noise:
            self.make_draws()

    def learn(self, kernel: tf.Tensor, circuit: Circuit) -> None:
        """Add R, its terms of the weights in the first call of a pass only; see the class."""
        of = self.primitives()
        # Keras takes the losses of the pass before away when the model is called.
        if (of["decay"] or of["self_"]) and not self.losses:
            self.learn_by(lambda b: self._of_weights(b, kernel))
        if of["amp"] or of["sparse"] or of["null"]:
            if self.noise:
                noise = self._noise(circuit.inputs, kernel.dtype)
                circuit = dataclasses.replace(circuit, inputs=noise)
            super().learn(kernel, circuit)

    def _of_weights(self, feedback, kernel):
        of = self.primitives()
        return of["decay"] * decay(feedback) + of["self_"] * self_(feedback, kernel)

    def loss(self, feedback: tf.Tensor, kernel: tf.Tensor, circuit: Circuit) -> tf.Tensor:
        """Return the terms of R that depend on the layer's input."""
        of, loss, op, x = self.primitives(), 0.0, circuit.op, circuit.inputs
        bias = circuit.bias if self.bias else None

        def project(matrix):
            projected = op(x, matrix)
            return projected if bias is None else projected + bias

        if of["amp"] or of["sparse"]:
            at_feedback = project(feedback)
        if of["amp"] or of["null"]:
            at_kernel = project(kernel)
        if of["amp"]:
            loss += of["amp"] * amp(at_feedback, at_kernel)
        if of["sparse"]:
            loss += of["sparse"] * sparse(at_feedback)
        if of["null"]:
            loss += of["null"] * null(_sent_back(op, x, feedback, at_kernel))
        return loss

    def _noise(self, inputs, dtype):
        """Return noise of the input's shape for the present step."""
        shape = tf.concat([[self.samples], tf.shape(inputs)[1:]], 0)
        drawn = uniform(shape, self.draw_key(), double=dtype == tf.float64)
        drawn = tf.ensure_shape(drawn, (self.samples, *inputs.shape[1:]))
        return tf.cast(self.noise * math.sqrt(2.0) * tf.math.erfinv(drawn), dtype)


class _TwoOrThree(LocalAlignment):
    """A published sum of primitives, with the paper's names for the coefficients."""

    def __init__(self, scale, seed, bias=False, **coefficients):
        ScaledRule.__init__(self, scale, seed)
        self.noise, self.samples = 0.0, 1
        self.bias = checks.boolean("bias", bias)
        for name, value in coefficients.items():
            setattr(self, name, checks.number(name, value))


@register("symmetric_alignment", aliases=("sa",))
class SymmetricAlignment(_TwoOrThree):
    """Symmetric alignment: B learns by ``R(B) = α‖B‖² − β⟨W, B⟩``.

    With β = 2α it is ``α‖W − B‖²`` but for a constant; the fixed point is ``B = (β/2α) W``. It
    tells B what W is, weight by weight: weight transport spread over time. See `LocalAlignment`.

    Args:
        alpha, beta: α and β.
        scale, seed: As for `LocalAlignment`.

    Raises:
        ValueError: If an option is out of its range.

    Example:
        >>> import tfbio
        >>> tfbio.rules.get("symmetric_alignment").primitives()["self_"]
        0.002

    References:
        Kunin et al. 2020, "Two routes to scalable credit assignment without weight symmetry".
    """

    def __init__(
        self,
        alpha: float = 1e-3,
        beta: float = 2e-3,
        scale: str | float = "match",
        seed: int | None = None,
    ):
        super().__init__(scale, seed, alpha=alpha, beta=beta)

    def primitives(self) -> dict[str, float]:
        """Return the coefficients; see the base class."""
        return _of(decay=self.alpha, self_=self.beta)


@register("activation_alignment", aliases=("aa",))
class ActivationAlignment(_TwoOrThree):
    """Activation alignment: B learns by ``R(B) = α·mean‖xB‖² − β·mean⟨xW, xB⟩``.

    With β = 2α it is ``α·mean‖xW − xB‖²`` but for a constant: B need agree with W only on what the
    layer sees. See `LocalAlignment`.

    Args:
        alpha, beta: α and β.
        bias, scale, seed: As for `LocalAlignment`.

    Raises:
        ValueError: If an option is out of its range.

    Example:
        >>> import tfbio
        >>> tfbio.rules.get("activation_alignment").primitives()["sparse"]
        0.001

    References:
        Kunin et al. 2020, "Two routes to scalable credit assignment without weight symmetry".
    """

    def __init__(
        self,
        alpha: float = 1e-3,
        beta: float = 2e-3,
        bias: bool = False,
        scale: str | float = "match",
        seed: int | None = None,
    ):
        super().__init__(scale, seed, bias, alpha=alpha, beta=beta)

    def primitives(self) -> dict[str, float]:
        """Return the coefficients; see the base class."""
        return _of(sparse=self.alpha, amp=self.beta)


@register("mirror_alignment")
class MirrorAlignment(_TwoOrThree):
    """The weight mirror as a loss: B learns by ``R(B) = α‖B‖² − β·mean⟨ξW, ξB⟩``, ξ noise.

    ξ ~ N(0, σ²) takes the place of the layer's input. The fixed point of a dense layer is
    ``B = (βσ²/2α) W``; of a convolution, σ² times as many as it has output positions. See
    `LocalAlignment`; the rule that its authors published is `WeightMirror`.

    Args:
        alpha, beta: α and β.
        noise: σ, more than 0.
        samples, bias, scale, seed: As for `LocalAlignment`.

    Raises:
        ValueError: If an option is out of its range.

    Example:
        >>> import tfbio
        >>> tfbio.rules.get("mirror_alignment").primitives()["amp"]
        0.001

    References:
        Kunin et al. 2020, "Two routes to scalable credit assignment without weight symmetry".
    """

    def __init__(
        self,
        alpha: float = 1e-3,
        beta: float = 1e-3,
        noise: float = 1.0,
        samples: int = 32,
        bias: bool = False,
        scale: str | float = "match",
        seed: int | None = None,
    ):
        super().__init__(scale, seed, bias, alpha=alpha, beta=beta)
        self.noise = checks.number("noise", noise, above=0)
        self.samples = checks.integer("samples", samples, low=1)

    def primitives(self) -> dict[str, float]:
        """Return the coefficients; see the base class."""
        return _of(decay=self.alpha, amp=self.beta)


@register("information_alignment", aliases=("ia",))
class InformationAlignment(_TwoOrThree):
    """Information alignment: B learns by ``R(B) = −α·mean⟨xW, xB⟩ + β·mean‖(xW)Bᵀ‖² + γ‖B‖²``.

    The layer's output is sent back through B, whose answer is compared with what came in. For
    white input of variance σ² the fixed point is ``B = ασ² W (2βσ² WᵀW + 2γI)⁻¹``: it is not W,
    and stays bounded. See `LocalAlignment`.

    Args:
        alpha, beta, gamma: α, β and γ.
        bias, scale, seed: As for `LocalAlignment`.

    Raises:
        ValueError: If an option is out of its range.

    Example:
        >>> import tfbio
        >>> tfbio.rules.get("information_alignment").primitives()["amp"]
        0.002

    References:
        Kunin et al. 2020, "Two routes to scalable credit assignment without weight symmetry".
    """

    def __init__(
        self,
        alpha: float = 2e-3,
        beta: float = 1e-3,
        gamma: float = 1e-3,
        bias: bool = False,
        scale: str | float = "match",
        seed: int | None = None,
    ):
        super().__init__(scale, seed, bias, alpha=alpha, beta=beta, gamma=gamma)

    def primitives(self) -> dict[str, float]:
        """Return the coefficients; see the base class."""
        return _of(amp=self.alpha, null=self.beta, decay=self.gamma)


def _of(**coefficients):
    return {"decay": 0.0, "self_": 0.0, "amp": 0.0, "sparse": 0.0, "null": 0.0, **coefficients}


def _sent_back(op, inputs, feedback, outputs):
    """Return what `op`'s transpose at B makes of `outputs`: for a matrix product, ``(xW)Bᵀ``."""
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        at_feedback = op(inputs, feedback)
    return tape.gradient(at_feedback, inputs, output_gradients=outputs)
