"""Target propagation: every layer gets a target, through learned inverses of the layers above it.

Rules of a network, not of one layer: `tfbio.networks.target_propagation` trains it. Here is what
sets them apart, their options, and the inverse's weights, which each kernel layer's copy of the
rule owns.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import tensorflow as tf

from tfbio.rules import checks
from tfbio.rules.draws import uniform
from tfbio.rules.network_rule import NetworkRule
from tfbio.rules.registry import register

if TYPE_CHECKING:
    from tfbio.rules.scales import Fans

SCHEDULES = ("parallel", "alternating")
RECONSTRUCT = ("clean", "corrupted")
INITIALIZATIONS = ("xavier_uniform", "orthogonal", "pytorch")
_MOST = 2000  # iterations; the noise of more would be drawn twice


class TargetPropagation(NetworkRule):
    """What the rules of target propagation share.

    Each kernel layer of the network holds a copy, which owns the weights of the layer's inverse:
    V, of the kernel's own shape, used transposed, and c. The equations are in
    `tfbio.networks.target_propagation`.

    Args:
        noise: σ, the standard deviation of what is added to an activation when inverses learn, a
            number greater than 0.
        initialization: How V and c start, as `draw_inverse` says: "xavier_uniform", "orthogonal"
            or "pytorch".
        seed: An integer, or None to follow the global seed (`keras.utils.set_random_seed`).

    Raises:
        ValueError: If an option is out of its range.

    Attributes:
        difference: Whether what the inverse misses is added to its targets:
            ĥ = h − g(h′) + g(ĥ′).
        inverts_output: Whether the first target is the output's, whose layer then has an inverse;
            if not, it is the last hidden layer's, down the gradient of the loss.
        reads_targets: Whether the output's target is the label; if not, it is down the gradient
            of the loss.
        local_factor: What the local losses are multiplied by.
        output_factor: What the loss is multiplied by from which the output layer learns.
    """

    has_gradient = False
    learns = "alone"
    measures = ("inverse_loss", "local_loss", "target_distance")
    refusal = (
        "its target comes from its network, no gradient passes through it, and it was "
        "differentiated outside of its network's training step."
    )
    difference: bool = True
    inverts_output: bool = False
    reads_targets: bool = False
    local_factor: float = 1.0
    output_factor: float = 1.0
    auxiliary: int = 0
    schedule: str = "parallel"
    reconstruct: str = "clean"

    def __init__(
        self,
        noise: float | Sequence[float] = 0.1,
        initialization: str = "xavier_uniform",
        seed: int | None = None,
    ):
        super().__init__()
        self.noise = checks.number("noise", noise, above=0)
        self.initialization = checks.choice("initialization", initialization, INITIALIZATIONS)
        self.seed = checks.seed(seed)

    def attach(self, kernel: tf.Tensor, fans: Fans) -> None:
        """Keep the fans, for V; see the base class."""
        self._fans = fans
        super().attach(kernel, fans)

    @property
    def exact_layers(self) -> int:
        """How many layers from the output down learn what backpropagation would teach them."""
        return 1 if self.inverts_output else 2

    @property
    def takes_turns(self) -> bool:
        """Whether inverses and kernels learn in turns."""
        return self.schedule == "alternating"

    def make_inverse(
        self, kernel: tf.Tensor, bias_shape: Sequence[int], below: int, auxiliary: int = 0
    ) -> None:
        """Make the weights of the layer's inverse, if they are not there.

        V and c start as `draw_inverse` says; the kernels of auxiliary units are Xavier-uniform.

        Args:
            kernel: The layer's kernel.
            bias_shape: The shape of c, which broadcasts against the layer's input.
            below: The number of entries of that input, of one example.
            auxiliary: The number of auxiliary units, which these feed.
        """
        if hasattr(self, "inverse_kernel"):
            return
        dtype = kernel.dtype
        # Saved, so that a model that was loaded goes on as the one that was saved would have.
        self.noise_key = self.new_state("noise_key", (), lambda: self.key()[0], "int64")
        first, second = self.key()
        double = tf.as_dtype(dtype) == tf.float64

        def make(name, shape, stream, draw, changes=self.learns):
            shape = tuple(shape)
            return self.new_state(
                name, shape, lambda: draw(uniform(shape, (first, second + stream), double)),
                dtype, changes,
            )  # fmt: skip

        draw_kernel, draw_bias = draw_inverse(self.initialization, self._fans)
        self.inverse_kernel = make("inverse_kernel", kernel.shape, 0, draw_kernel)
        self.inverse_bias = make("inverse_bias", bias_shape, 3, draw_bias)
        if auxiliary:
            shape = (below, auxiliary)
            limit = math.sqrt(6 / sum(shape))
            self.auxiliary_kernel = make(
                "auxiliary_kernel", shape, 1, lambda drawn: limit * drawn, None
            )
            self.inverse_auxiliary_kernel = make(
                "inverse_auxiliary_kernel", shape, 2, lambda drawn: limit * drawn
            )


def draw_inverse(
    initialization: str, fans: Fans
) -> tuple[Callable[[tf.Tensor], tf.Tensor], Callable[[tf.Tensor], tf.Tensor]]:
    """Return how an inverse's V and c are made of numbers drawn from U(−1, 1).

    ==============  ===========================================================================
    xavier_uniform  V from U(−a, a), ``a = √(6 / (fan_in + fan_out))`` of the layer's kernel;
                    c = 0
    orthogonal      V is the orthogonal factor ``U Pᵀ`` of a uniform matrix ``U Σ Pᵀ``, that of a
                    convolution as a matrix (k·Cin, Cout), that of a locally connected layer one
                    for each position; c = 0
    pytorch         V and c from U(−a, a), as PyTorch makes the inverse where it is a layer of its
                    own: ``a = 1/√fan_out`` under a dense layer, else ``1/√fan_in``
    ==============  ===========================================================================

    Args:
        initialization: One of the three.
        fans: Those of the layer's kernel.

    Returns:
        Two functions of a tensor, for V and for c.

    Example:
        >>> from tfbio.rules.scales import Fans
        >>> draw_kernel, draw_bias = draw_inverse("orthogonal", Fans(3, 2))
        >>> v = draw_kernel(uniform((3, 2), (1, 2)))
        >>> tf.round(tf.matmul(v, v, transpose_a=True)).numpy().tolist()
        [[1.0, 0.0], [0.0, 1.0]]

    References:
        Glorot and Bengio 2010; the code of Lee et al. 2015 ("orthogonal") and of Ernoult et al.
        2022 ("pytorch").
    """

    def scaled(limit):
        return lambda drawn: limit * drawn

    if initialization == "pytorch":
        # PyTorch counts the fan_in of a transposed convolution as that of the convolution.
        both = scaled(1 / math.sqrt(fans.fan_in if fans.convolution else fans.fan_out))
        return both, both
    if initialization == "orthogonal":
        return lambda drawn: _orthogonal_factor(drawn, fans), tf.zeros_like
    return scaled(math.sqrt(6 / (fans.fan_in + fans.fan_out))), tf.zeros_like


def _orthogonal_factor(drawn, fans):
    shape = drawn.shape
    # A locally connected layer's kernel: (positions, fan_in, Cout).
    by_position = shape.rank == 3 and shape[1] == fans.fan_in
    matrices = drawn if by_position else tf.reshape(drawn, (-1, shape[-1]))
    _, left, right = tf.linalg.svd(matrices, full_matrices=False)
    return tf.reshape(tf.matmul(left, right, transpose_b=True), shape)


class _Scheduled(TargetPropagation):
    """A rule whose inverses the optimizer trains, beside the forward weights or in turns."""

    def __init__(
        self,
        schedule="parallel",
        noise=0.1,
        reconstruct="clean",
        initialization="xavier_uniform",
        seed=None,
    ):
        super().__init__(noise, initialization, seed)
        self.schedule = checks.choice("schedule", schedule, SCHEDULES)
        self.reconstruct = checks.choice("reconstruct", reconstruct, RECONSTRUCT)


class _FromLoss(_Scheduled):
    """A rule whose first target is the last hidden layer's, down the gradient of the loss."""

    def __init__(
        self,
        schedule="parallel",
        alpha=0.15,
        noise=0.1,
        reconstruct="clean",
        initialization="xavier_uniform",
        seed=None,
    ):
        super().__init__(schedule, noise, reconstruct, initialization, seed)
        self.alpha = checks.number("alpha", alpha, above=0)


@register("tp", aliases=("target_propagation",))
class VanillaTargetPropagation(_FromLoss):
    """Target propagation: each layer's target is the inverse of that above, ``ĥ_l = g(ĥ_{l+1})``.

    The last hidden layer's is ``ĥ_{L−1} = h_{L−1} − α ∂ℓ/∂h_{L−1}``, ℓ the loss of one example. See
    `tfbio.networks.target_propagation` for the network, the inverses and their loss.

    Args:
        schedule: "parallel", inverses and forward weights learn at every step; or "alternating", in
            turns of an epoch, the inverses first. The trainers settle it; with `fit`, compile with
            an optimizer of `tfbio.optimizers` and ``feedback=Feedback(alternate=steps)``.
        alpha: α, greater than 0.
        noise: σ, the standard deviation of the noise in the inverse loss, greater than 0.
        reconstruct: "clean", the inverse of f(h + ξ) is to give h (Bartunov et al.); "corrupted",
            h + ξ (Lee et al.).
        initialization: How the inverses' V and c start: "xavier_uniform"; "orthogonal" (Lee et
            al.); "pytorch", as PyTorch's layers do.
        seed: An integer, or None to follow the global seed (`keras.utils.set_random_seed`).

    Raises:
        ValueError: If an option is out of its range.

    Example:
        >>> import keras, tfbio
        >>> layers = [keras.Input((4,)), keras.layers.Dense(3, "tanh"), keras.layers.Dense(2)]
        >>> model = tfbio.convert(keras.Sequential(layers), "tp(alpha=0.1)")
        >>> [layer.rule.alias for layer in model.layers]
        ['tp', 'tp']

    References:
        Lee et al. 2015, "Difference target propagation".
    """

    difference = False


@register("dtp", aliases=("difference_target_propagation",))
class DifferenceTargetPropagation(_FromLoss):
    """Difference target propagation: ``ĥ_l = h_l − g(h_{l+1}) + g(ĥ_{l+1})``.

    Where the inverse is not exact, what it misses is the same in both terms and cancels. The last
    hidden layer's target is ``ĥ_{L−1} = h_{L−1} − α ∂ℓ/∂h_{L−1}``.

    Args:
        schedule, alpha, noise, reconstruct, initialization, seed: As for
            `VanillaTargetPropagation`.

    Raises:
        ValueError: If an option is out of its range.

    Example:
        >>> import tfbio
        >>> tfbio.rules.get("dtp(alpha=0.1, schedule='alternating')").schedule
        'alternating'

    References:
        Lee et al. 2015, "Difference target propagation"; Bartunov et al. 2018, "Assessing the
        scalability of biologically-motivated deep learning algorithms and architectures".
    """


@register("sdtp", aliases=("simplified_difference_target_propagation",))
class SimplifiedDifferenceTargetPropagation(_Scheduled):
    """Difference target propagation without any backpropagation.

    The last hidden layer's target comes through an inverse, too::

        ĥ_{L−1} = h_{L−1} − g_L(softmax(logits)) + g_L(one-hot label)

    Args:
        schedule, noise, reconstruct, initialization, seed: As for `VanillaTargetPropagation`.

    Raises:
        ValueError: If an option is out of its range.

    Example:
        >>> import tfbio
        >>> tfbio.rules.get("sdtp(noise=0.2)").noise
        0.2

    References:
        Bartunov et al. 2018, "Assessing the scalability of biologically-motivated deep learning
        algorithms and architectures".
    """

    inverts_output = True
    reads_targets = True


@register("ao_sdtp", aliases=("auxiliary_output_sdtp",))
class AuxiliaryOutputSDTP(_Scheduled):
    """SDTP with auxiliary output units, which give the output's inverse more to go by.

    ::

        z = tanh(R h_{L−1}), R fixed and random,
        ĥ_{L−1} = h_{L−1} − g_L(softmax(logits), z) + g_L(one-hot label, z)

    Args:
        schedule, noise, reconstruct, initialization, seed: As for `VanillaTargetPropagation`.
        auxiliary: The number of units of z, 1 or more.

    Raises:
        ValueError: If an option is out of its range.

    Example:
        >>> import tfbio
        >>> tfbio.rules.get("ao_sdtp(auxiliary=64)").auxiliary
        64

    References:
        Bartunov et al. 2018, "Assessing the scalability of biologically-motivated deep learning
        algorithms and architectures".
    """

    inverts_output = True
    reads_targets = True

    def __init__(
        self,
        schedule: str = "parallel",
        auxiliary: int = 512,
        noise: float = 0.1,
        reconstruct: str = "clean",
        initialization: str = "xavier_uniform",
        seed: int | None = None,
    ):
        super().__init__(schedule, noise, reconstruct, initialization, seed)
        self.auxiliary = checks.integer("auxiliary", auxiliary, low=1)


@register("l_drl", aliases=("local_difference_reconstruction",))
class LocalDifferenceReconstruction(TargetPropagation):
    """Difference targets through inverses that learn to be the forward layers' adjoints.

    The output's target is ``ĥ_L = logits − β ∂ℓ/∂logits``, those below difference targets. Before
    every step of the forward weights, each inverse G of a layer F, with ``y = F(x)``, takes K steps
    of gradient descent of its own, with momentum, on ::

        −2⟨ξ, G(F(x + ξ)) − G(y)⟩ + ‖G(y + η) − G(y)‖²,    ξ, η ~ N(0, σ²)

    whose least expectation G has, if both are linear, where it is F's transpose: then targets teach
    what backpropagation does. For the local losses the factor is ½, as in the authors' code.

    Args:
        beta: β, greater than 0.
        iterations: K, 1 to 2000: a number, or one for each inverse, from the second kernel layer
            up, in a tuple.
        rate: The learning rate of the inverses, a number or a tuple as `iterations`.
        noise: σ, greater than 0, a number or a tuple as `iterations`.
        momentum: Theirs, 0 or more and less than 1.
        initialization: How V and c start: "xavier_uniform"; "orthogonal" (Lee et al.); "pytorch",
            as in the authors' code.
        seed: An integer, or None to follow the global seed (`keras.utils.set_random_seed`).

    Raises:
        ValueError: If an option is out of its range.

    Example:
        >>> import tfbio
        >>> tfbio.rules.get("l_drl(iterations=(20, 30), noise=0.4)").iterations
        (20, 30)

    References:
        Ernoult et al. 2022, "Towards scaling difference target propagation by learning backprop
        targets".
    """

    inverts_output = True
    learns = None
    local_factor = 0.5

    def __init__(
        self,
        beta: float = 0.7,
        iterations: int | Sequence[int] = 20,
        rate: float | Sequence[float] = 0.001,
        noise: float | Sequence[float] = 0.2,
        momentum: float = 0.9,
        initialization: str = "xavier_uniform",
        seed: int | None = None,
    ):
        super().__init__(initialization=initialization, seed=seed)
        self.beta = self.output_factor = checks.number("beta", beta, above=0)
        self.iterations = _each("iterations", iterations, _count)
        self.rate = _each("rate", rate, _positive)
        self.noise = _each("noise", noise, _positive)
        self.momentum = checks.number("momentum", momentum, low=0)
        if self.momentum >= 1:
            raise ValueError(f"`momentum` must be less than 1. Received: {momentum!r}.")

    def make_inverse(
        self, kernel: tf.Tensor, bias_shape: Sequence[int], below: int, auxiliary: int = 0
    ) -> None:
        """Make the weights, and what their momentum remembers; see the base class."""
        if hasattr(self, "inverse_kernel"):
            return
        super().make_inverse(kernel, bias_shape, below)
        self.buffers = [
            self.new_state(
                f"{variable.name}_momentum",
                variable.shape,
                lambda v=variable: tf.zeros(v.shape, v.dtype),
                kernel.dtype,
            )
            for variable in (self.inverse_kernel, self.inverse_bias)
        ]


def _count(name, value):
    if checks.integer(name, value, low=1) > _MOST:
        raise ValueError(f"`{name}` must be an integer of 1 to {_MOST}. Received: {value!r}.")
    return int(value)


def _positive(name, value):
    return checks.number(name, value, above=0)


def _each(name, value, check):
    """Return a checked number, or a tuple of them."""
    if isinstance(value, list | tuple):
        if not value:
            raise ValueError(f"`{name}` must have a number for each inverse. Received: {value!r}.")
        return tuple(check(name, each) for each in value)
    return check(name, value)
