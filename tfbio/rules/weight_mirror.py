"""The weight mirror: noise in, response out, and their correlation is W, which B collects."""

from __future__ import annotations

from typing import TYPE_CHECKING

import tensorflow as tf

from tfbio.rules import checks
from tfbio.rules.draws import uniform
from tfbio.rules.registry import register
from tfbio.rules.scales import ScaledRule

if TYPE_CHECKING:
    from tfbio.rules.layer_rule import Circuit
    from tfbio.rules.scales import Fans


@register("weight_mirror", aliases=("wm",))
class WeightMirror(ScaledRule):
    """The weight mirror: B collects how the layer responds to noise.

    Between two training steps the layer alone is driven by n samples of zero-mean noise ξ of its
    input's shape, ``ξ = noise·(U[0, 1) − ½)`` of variance ``σ² = noise²/12``, and B learns from
    what goes in and what comes out::

        r_n = φ(ξ_n W + b) − c,    B ← (1 − ηλ) B + η Σ_n ξ_nᵀ r_n

    c is the mean of ``φ(ξ_n W + b)`` over the n samples with `center`, else 0 as in the paper: what
    is constant in a response is no answer to the noise, but costs a great many samples to average
    out (a sigmoid's is about ½). The expectation of the sum is nσ²W where φ is linear, and what φ
    makes of it otherwise: W/4 times as much for a sigmoid about 0. φ is the layer's own activation;
    separate Activation layers are ignored.

    For a convolution the sum over output positions is divided by the number of positions that each
    entry of the kernel acts at, borders included, so that the expectation is the same.

    B follows W with a delay of about 1/(ηλ) steps, and the shorter that is, the more of the noise
    stays in it. Where W moves fast at first and slowly later, η may fall with the mirror steps t:
    ``η_t = η / (1 + t/anneal)``.

    B is no trainable weight: it takes its step in the first training call after each step of the
    optimizer, and `before` of them in the very first call. All replicas of a strategy draw the same
    noise and keep the same B.

    Cost of a step: one forward operation and one kernel gradient on n samples.

    Args:
        rate: η, greater than 0.
        decay: λ of 0 or more, with ηλ less than 1; None for nσ², with which B tends to W itself
            (for linear φ), as a running mean over about 1/(ηλ) steps. Without it B grows.
        samples: n, an integer of 1 or more.
        noise: The width of the noise, greater than 0.
        before: How many mirror steps to take before the first training step, 0 or more.
        anneal: After how many mirror steps η is half of what it was, 0 for a constant η.
        center: Whether c is subtracted.
        normalize: Whether B is brought back to the norm it had at first, after every step; instead
            of a decay, or beside one.
        scale: The scale of the first B ~ N(0, s²), see `tfbio.rules.scales.magnitude`.
        seed: An integer, or None to follow the global seed (`keras.utils.set_random_seed`).

    Raises:
        ValueError: If an option is out of its range.

    Example:
        >>> import tensorflow as tf, tfbio
        >>> layer = tfbio.layers.FeedbackDense(3, rule="weight_mirror(rate=0.1, before=600)")
        >>> _ = layer(tf.ones((1, 4)), training=True)
        >>> tfbio.metrics.angle(layer.kernel.numpy(), layer.feedback.numpy()) < 5
        True

    References:
        Akrout et al. 2019, "Deep learning without weight transport".
    """

    steps_first = True

    def __init__(
        self,
        rate: float = 0.01,
        decay: float | None = None,
        samples: int = 128,
        noise: float = 0.1,
        before: int = 0,
        anneal: int = 0,
        center: bool = True,
        normalize: bool = False,
        scale: str | float = "match",
        seed: int | None = None,
    ):
        super().__init__(scale, seed)
        self.rate = checks.number("rate", rate, above=0)
        self.noise = checks.number("noise", noise, above=0)
        self.samples = checks.integer("samples", samples, 1 + bool(center))
        self.before = checks.integer("before", before, 0)
        self.anneal = checks.integer("anneal", anneal, 0)
        self.decay = None if decay is None else checks.number("decay", decay, low=0)
        if self.rate * self._decay >= 1:
            raise ValueError(
                "`rate` times `decay` must be less than 1, or B has no memory. Received: "
                f"rate={rate!r}, decay={decay!r} with samples={samples!r}, noise={noise!r}: "
                f"{self.rate * self._decay:.3g}."
            )
        self.center = checks.boolean("center", center)
        self.normalize = checks.boolean("normalize", normalize)

    @property
    def _decay(self):
        return self.samples * self.noise**2 / 12 if self.decay is None else self.decay

    def make_state(self, kernel: tf.Tensor, fans: Fans) -> None:
        """Draw the first B; see the base class."""
        self.matrix = self.new_random("feedback", kernel, changes="by_step")
        # Its steps are the optimizer's; before the first come those of `before`.
        self.make_draws()
        self.norm = None
        if self.normalize:
            self.norm = self.new_state(
                "norm", (), lambda: tf.norm(tf.convert_to_tensor(self.matrix)), kernel.dtype
            )

    def feedback(self, kernel: tf.Tensor) -> tf.Tensor:
        """Return B, whatever the kernel."""
        return tf.convert_to_tensor(self.matrix)

    def step(self, kernel: tf.Tensor, circuit: Circuit) -> dict[str, tf.Tensor]:
        """Mirror once, or `before` times if there was no step yet; see the class."""
        steps = tf.convert_to_tensor(self.steps)
        first = tf.where(steps == 0, tf.zeros_like(steps), self.before + steps - 1)
        end = self.before + steps
        uses = self._uses(kernel, circuit)
        _, matrix = tf.while_loop(
            lambda index, matrix: index < end,
            lambda index, matrix: (index + 1, self._mirror(index, matrix, kernel, circuit, uses)),
            (first, tf.convert_to_tensor(self.matrix)),
        )
        return {"feedback": matrix}

    def _mirror(self, index, matrix, kernel, circuit, uses):
        """Return B after one mirror step, the `index`-th of all."""
        key = self.draw_key(index)
        shape = tf.concat([[self.samples], tf.shape(circuit.inputs)[1:]], 0)
        drawn = uniform(shape, key, double=kernel.dtype == tf.float64)
        xi = tf.cast(0.5 * self.noise * drawn, kernel.dtype)
        xi = tf.ensure_shape(xi, (self.samples, *circuit.inputs.shape[1:]))
        response = tf.cast(circuit.respond(circuit.op(xi, kernel)), kernel.dtype)
        if self.center:
            # n/(n − 1) times: the mean contains a share of each sample's own response.
            response -= tf.reduce_mean(response, axis=0, keepdims=True)
            response *= self.samples / (self.samples - 1)
        collected = tf.math.divide_no_nan(_correlation(circuit.op, xi, response, kernel), uses)
        rate = self._rate(index, kernel.dtype)
        matrix = (1.0 - rate * self._decay) * matrix + rate * collected
        if self.normalize:
            size = tf.convert_to_tensor(self.norm)
            matrix = tf.math.divide_no_nan(size * matrix, tf.norm(matrix))
        return matrix

    def _rate(self, index, dtype):
        """Return η of the `index`-th mirror step."""
        if not self.anneal:
            return self.rate
        return tf.cast(self.rate / (1.0 + tf.cast(index, tf.float64) / self.anneal), dtype)

    def _uses(self, kernel, circuit):
        """Return at how many positions of one example each entry of the kernel acts."""
        one = tf.ones(tf.concat([[1], tf.shape(circuit.inputs)[1:]], 0), kernel.dtype)
        one = tf.ensure_shape(one, (1, *circuit.inputs.shape[1:]))
        return _correlation(circuit.op, one, tf.ones_like(circuit.op(one, kernel)), kernel)


def _correlation(op, inputs, outputs, kernel):
    """Return ``Σ inputsᵀ outputs`` in W's layout: `op`'s kernel gradient."""
    with tf.GradientTape() as tape:
        tape.watch(kernel)
        at_kernel = op(inputs, kernel)
    return tape.gradient(at_kernel, kernel, output_gradients=outputs)
