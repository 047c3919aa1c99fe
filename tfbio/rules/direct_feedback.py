"""Direct feedback: every hidden activation gets its error from the output, past all layers between.

Rules of a network, not of one layer: `tfbio.networks.direct` finds the activations and cuts what
would come from above. Here is what distinguishes them, the signal, and the matrices B that it
passes through.
"""

import abc
import math
from collections.abc import Sequence
from typing import Self

import tensorflow as tf

from tfbio import losses
from tfbio.losses import Given
from tfbio.rules import checks, targets
from tfbio.rules.draws import uniform
from tfbio.rules.network_rule import NetworkRule
from tfbio.rules.registry import register
from tfbio.rules.rule import Description

INITS = ("launay", "frenkel")
SPATIAL = ("shared", "dense")
ERRORS = ("logits", "outputs")


class DirectFeedback(NetworkRule):
    """What the rules of direct feedback share: options, the matrices, and how layers behave.

    Each kernel layer of the network holds a copy. The last layer's owns the matrices of all, the
    others' own nothing: a layer under such a rule sends no error down, if not through its kernel
    to weights that have no tap of their own.

    Args:
        init: "launay", one shared R ~ U(−1, 1) of as many columns as the largest B, of which each
            B_l is the first columns, divided by √(largest size); or "frenkel", Kaiming's uniform
            U(−√(6/size), √(6/size)), a draw for each B_l, size its number of columns.
        spatial: For maps: "shared", one column of B per channel, the same signal at all H·W
            positions, divided by H·W; or "dense", one per entry of the map.
        max_feedback_gib: The most memory that the matrices may take, in GiB.
        seed: An integer, or None to follow the global seed (`keras.utils.set_random_seed`).

    Raises:
        ValueError: If an option is out of its range.

    Attributes:
        reads_targets: Whether the signal is made of the targets, which one of `tfbio.losses` hands
            over, and which are read from the error of any other softmax cross-entropy.
    """

    refusal = "its error comes from its network's output, and it was called outside of its network."
    reads_targets: bool = False

    def __init__(
        self,
        init: str = "launay",
        spatial: str = "shared",
        max_feedback_gib: float = 2.0,
        seed: int | None = None,
    ):
        super().__init__()
        self.init = checks.choice("init", init, INITS)
        self.spatial = checks.choice("spatial", spatial, SPATIAL)
        self.max_feedback_gib = checks.number("max_feedback_gib", max_feedback_gib, above=0)
        self.seed = checks.seed(seed)

    def spawn(self, index: int) -> Self:
        """Return a copy with the same seed: one layer's draws serve all."""
        return self.from_config(self.get_config())

    def make_matrices(self, sizes: Sequence[int], classes: int, dtype: str | tf.DType) -> None:
        """Make the matrices of the whole network.

        Args:
            sizes: For each tap, the number of columns of its B.
            classes: The number of rows of all.
            dtype: Their dtype, the kernels'.

        Raises:
            ValueError: If they would take more memory than `max_feedback_gib`.
        """
        self.check_memory(sizes, classes, dtype)
        self.sizes = tuple(sizes)
        first, second = self.key()
        double = tf.as_dtype(dtype) == tf.float64

        def new(name, size, factor, stream):
            return self.new_state(
                name,
                (classes, size),
                lambda: factor * uniform((classes, size), (first, second + stream), double),
                dtype,
            )

        if self.init == "launay":
            largest = max(sizes)
            self.matrices = [new("direct_feedback", largest, 1 / math.sqrt(largest), 0)]
        else:
            self.matrices = [
                new(f"direct_feedback_{index}", size, math.sqrt(6 / size), index)
                for index, size in enumerate(sizes)
            ]

    def check_memory(self, sizes: Sequence[int], classes: int, dtype: str | tf.DType) -> None:
        """Raise ValueError if matrices for these sizes would take too much; see `make_matrices`."""
        gib = self.gib(sizes, classes, dtype)
        if gib > self.max_feedback_gib:
            shared = ", or spatial='shared'" if self.spatial == "dense" else ""
            raise ValueError(
                f"The feedback matrices of {self.alias!r} would take {gib:.3g} GiB, from {classes} "
                f"outputs to {len(sizes)} activations, the largest of {max(sizes):,} entries. "
                f"Received: max_feedback_gib={self.max_feedback_gib:g}. Give a greater one if the "
                f"memory is there{shared}."
            )

    def gib(self, sizes: Sequence[int], classes: int, dtype: str | tf.DType) -> float:
        """Return the memory that matrices of `sizes` columns take, in GiB."""
        columns = max(sizes) if self.init == "launay" else sum(sizes)
        return columns * classes * tf.as_dtype(dtype).size / 2**30

    def matrix(self, index: int) -> tf.Tensor:
        """Return B of the tap with this index, (classes, size), a tensor."""
        if self.init == "launay":
            return tf.convert_to_tensor(self.matrices[0])[:, : self.sizes[index]]
        return tf.convert_to_tensor(self.matrices[index])

    @abc.abstractmethod
    def signal(self, error: tf.Tensor, logits: tf.Tensor, given: Given | None = None) -> tf.Tensor:
        """Return what every B is multiplied with.

        Args:
            error: ∂L/∂logits, (N, classes).
            logits: The logits, of the same shape.
            given: What one of `tfbio.losses` has handed over; None if the loss is another.

        Returns:
            A tensor (N, classes) of at least float32.
        """

    def describe(self) -> Description:
        """Return where this layer's error comes from, and what the matrices take that it owns."""
        described = super().describe()
        if not hasattr(self, "matrices"):
            return described
        size = sum(int(m.shape[0]) * int(m.shape[1]) for m in self.matrices)
        gib = size * tf.as_dtype(self.matrices[0].dtype).size / 2**30
        note = f"Direct feedback to {len(self.sizes)} activations takes {gib:.3g} GiB"
        return described._replace(note=note)


def _given(error, logits):
    """Return what a softmax cross-entropy of Keras's would have handed over, from its error.

    If the error is another loss's, the factor is NaN, and there is an error where it is run.
    """
    one_hot, factor, fits = targets.recover(error, logits)
    with tf.control_dependencies([tf.debugging.Assert(fits, [targets.MISTAKEN])]):
        # XLA leaves assertions out: there the loss becomes NaN.
        factor = tf.where(fits, factor, math.nan * factor)
    return losses.Given(factor * one_hot, factor, tf.nn.softmax(tf.cast(logits, factor.dtype)))


@register("direct_feedback_alignment", aliases=("dfa",))
class DirectFeedbackAlignment(DirectFeedback):
    """Direct feedback alignment: the output's error goes to every hidden layer at once.

    For each hidden activation h_l, after the nonlinearity, with the fixed random matrix
    ``B_l ~ U`` of shape (classes, dims(h_l))::

        ∂h_l = e B_l,    e = ∂L/∂logits

    and what would have come from the layers above is discarded, skip connections included; each
    layer's derivative, ∂W and ∂b follow as usual, and the last layer learns by its true gradient.

    With ``error="outputs"`` the signal is ``(p − y)/N`` in place of e, whatever the loss, with the
    prediction p, the target y and the batch size N: the same under a softmax cross-entropy or a
    binary one summed over the classes, but not under a mean over classes or a squared error, whose
    e holds the factor 1/C or the sigmoid's derivative. 1/N is the loss's own factor on each
    example.

    Args:
        error: "logits" for e, "outputs" for (p − y)/N.
        init: "launay" or "frenkel", how B is drawn; see `DirectFeedback`.
        spatial: "shared" or "dense", for maps; see `DirectFeedback`.
        max_feedback_gib: The most memory that the matrices may take, in GiB.
        seed: An integer, or None to follow the global seed (`keras.utils.set_random_seed`).

    Raises:
        ValueError: If an option is out of its range.

    Example:
        >>> import keras, tfbio
        >>> layers = [keras.Input((4,)), keras.layers.Dense(3, "tanh"), keras.layers.Dense(2)]
        >>> model = tfbio.convert(keras.Sequential(layers), "dfa(seed=0)")
        >>> model.layers[-1].rule.matrix(0).shape
        TensorShape([2, 3])

    References:
        Nøkland 2016, "Direct feedback alignment provides learning in deep neural networks";
        Launay et al. 2020, "Direct feedback alignment scales to modern deep learning tasks and
        architectures"; Frenkel et al. 2021 (init="frenkel", error="outputs").
    """

    def __init__(
        self,
        init: str = "launay",
        spatial: str = "shared",
        max_feedback_gib: float = 2.0,
        seed: int | None = None,
        error: str = "logits",
    ):
        super().__init__(init, spatial, max_feedback_gib, seed)
        self.error = checks.choice("error", error, ERRORS)
        self.reads_targets = self.error == "outputs"

    def signal(self, error: tf.Tensor, logits: tf.Tensor, given: Given | None = None) -> tf.Tensor:
        """Return e as it arrives, the loss's own reduction included; or (p − y)/N."""
        if self.error == "logits":
            return tf.cast(error, _at_least_float32(error.dtype))
        given = given or _given(error, logits)
        return given.factor * given.predictions - given.targets


@register("sign_dfa")
class SignDirectFeedback(DirectFeedback):
    """Direct feedback alignment of the error's sign: blind to how wrong the output is.

    ``∂h_l = sign(p − y) B_l / N`` with the prediction p, the one-hot target y and the batch size
    N; else `DirectFeedbackAlignment`. 1/N is the loss's own factor on each example, so that
    weights of examples count, and loss scaling and accumulation change nothing.

    The losses of `tfbio.losses` hand the targets over. From a softmax cross-entropy of Keras's with
    one class per example they are read from the error at the logits; if that has underflowed to 0
    in a whole batch, so does the signal. Any other loss is an error, under XLA a loss that becomes
    NaN.

    Args:
        init: "launay" or "frenkel", how B is drawn; see `DirectFeedback`.
        spatial: "shared" or "dense", for maps; see `DirectFeedback`.
        max_feedback_gib: The most memory that the matrices may take, in GiB.
        seed: An integer, or None to follow the global seed (`keras.utils.set_random_seed`).

    Raises:
        ValueError: If an option is out of its range.

    Example:
        >>> import tfbio
        >>> rule = tfbio.rules.get("sign_dfa")
        >>> logits = tf.constant([[0.0, 2.0]])
        >>> rule.signal(tf.nn.softmax(logits) - [[1.0, 0.0]], logits).numpy()
        array([[-1.,  1.]], dtype=float32)

    References:
        Frenkel, Lefebvre and Bol 2021, "Learning without feedback: fixed random learning signals
        allow for feedforward training of deep neural networks".
    """

    reads_targets = True

    def signal(self, error: tf.Tensor, logits: tf.Tensor, given: Given | None = None) -> tf.Tensor:
        """Return ``sign(p − y) / N``: −1 at the target and 1 elsewhere, as 0 < p < 1."""
        given = given or _given(error, logits)
        y, c = given.targets, given.factor
        # Where y is 0 or 1 this holds even if p has been rounded to it.
        soft = c * tf.sign(c * given.predictions - y) * tf.sign(c)
        return tf.where((y == 0) | (y == c), c - 2 * y, soft)


@register("direct_random_target_projection", aliases=("drtp",))
class DirectRandomTargetProjection(DirectFeedback):
    """Direct random target projection: hidden layers see the target alone, and no output.

    ``∂h_l = y B_l / N`` with the one-hot target y and the batch size N: equal labels give equal
    signals, whatever the network says. Else as `SignDirectFeedback`, whose remarks on 1/N and the
    loss hold.

    Args:
        init: "launay" or "frenkel", how B is drawn; see `DirectFeedback`.
        spatial: "shared" or "dense", for maps; see `DirectFeedback`.
        max_feedback_gib: The most memory that the matrices may take, in GiB.
        seed: An integer, or None to follow the global seed (`keras.utils.set_random_seed`).

    Raises:
        ValueError: If an option is out of its range.

    Example:
        >>> import tfbio
        >>> rule = tfbio.rules.get("drtp")
        >>> logits = tf.constant([[0.0, 2.0]])
        >>> rule.signal(tf.nn.softmax(logits) - [[1.0, 0.0]], logits).numpy()
        array([[1., 0.]], dtype=float32)

    References:
        Frenkel, Lefebvre and Bol 2021, "Learning without feedback: fixed random learning signals
        allow for feedforward training of deep neural networks".
    """

    reads_targets = True

    def signal(self, error: tf.Tensor, logits: tf.Tensor, given: Given | None = None) -> tf.Tensor:
        """Return ``y / N``."""
        return (given or _given(error, logits)).targets


def _at_least_float32(dtype):
    return tf.float64 if dtype == tf.float64 else tf.float32
