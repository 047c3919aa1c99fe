"""Scales: how large a feedback matrix is, and from which distribution a random one is drawn.

Deep networks train or fail by this factor alone: a sign matrix of unit scale multiplies the error
by orders of magnitude at every layer.
"""

import math
import numbers
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from tfbio.rules import checks
from tfbio.rules.draws import normal, uniform
from tfbio.rules.layer_rule import LayerRule
from tfbio.rules.rule import Description

NAMES = ("match", "xiao", "xavier", "akrout", "kaiming", "unit")


class Fans(NamedTuple):
    """The dimensions of one kernel that a scale depends on; each layer states its own.

    Attributes:
        fan_in: Inputs that one output unit sums over.
        fan_out: Outputs that one input unit reaches within its group, per kernel position.
        groups: The groups of a convolution (for a depthwise one, its input channels).
        convolution: Whether the kernel is applied at many positions.
    """

    fan_in: int
    fan_out: int
    groups: int = 1
    convolution: bool = False


def check(scale: Any) -> str | float:
    """Return `scale` if it is one, else raise.

    Args:
        scale: One of `NAMES`, or a standard deviation: a finite number, 0 or more.

    Returns:
        The name, or the number as a float.

    Raises:
        ValueError: If it is neither.

    Example:
        >>> check("xavier"), check(1)
        ('xavier', 1.0)
    """
    if isinstance(scale, str) and scale in NAMES:
        return scale
    is_number = isinstance(scale, numbers.Real) and not isinstance(scale, bool)
    # Finite in float32, too: a B of infinities would train to NaN.
    if is_number and 0 <= scale <= 3e38:
        return float(scale)
    raise ValueError(
        f"`scale` must be one of {', '.join(map(repr, NAMES))} or a finite number that is not "
        f"negative (a standard deviation). Received: scale={scale!r:.80}."
    )


def xavier(fans: Fans) -> float:
    """Return Glorot's standard deviation ``√(2 / (fan_in + fan_out))``, with PyTorch's fans.

    PyTorch counts the inputs of a group, and the outputs of all groups: with k kernel positions
    fan_in = k·Cin/groups and fan_out = k·Cout. A depthwise kernel is one of as many groups as it
    has input channels; `keras.initializers`, by its shape, comes to the same sum.

    Args:
        fans: The kernel's `Fans`.

    Returns:
        The standard deviation, a float.

    Example:
        >>> xavier(Fans(fan_in=6, fan_out=2)), xavier(Fans(fan_in=2, fan_out=2, groups=3))
        (0.5, 0.5)

    References:
        Glorot and Bengio 2010; as feedback, Sanfiz and Akrout 2021, whose code takes the fans of
        `torch.nn.init`.
    """
    return math.sqrt(2.0 / (fans.fan_in + fans.fan_out * fans.groups))


def magnitude(scale: str | float, fans: Fans, kernel: tf.Tensor | None) -> float | tf.Tensor:
    """Return s, the magnitude of a sign matrix under `scale`.

    ========  =================================================================================
    match     ``rms(W₀) = √(mean W₀²)`` of the kernel now; Xavier's where W₀ is all zero
    xiao      convolutions ``√(2 / (k·Cout))``, k = kernel positions; dense ``1/√fan_in``
    xavier    ``√(2 / (fan_in + fan_out))``, the outputs of all groups counted, see `xavier`
    akrout    ``√(1 / (fan_in + fan_out))``
    kaiming   ``√(2 / fan_in)``
    unit      1
    a number  itself
    ========  =================================================================================

    Args:
        scale: A checked scale.
        fans: The kernel's `Fans`.
        kernel: The kernel W₀, read only under "match".

    Returns:
        A float; under "match" a scalar `tf.Tensor`, float64 for a float64 kernel, else float32.

    Example:
        >>> float(magnitude("match", Fans(1, 2), tf.constant([[3.0, -3.0]])))
        3.0

    References:
        Xiao et al. 2018, the authors' code ("xiao"); Sanfiz and Akrout 2021 ("xavier"); Akrout et
        al. 2019, the authors' code ("akrout"); He et al. 2015, and as feedback Frenkel et al. 2021,
        the authors' code ("kaiming"); Liao et al. 2016 ("unit").
    """
    if scale == "match":
        rms = root_mean_square(kernel)
        return tf.where(rms > 0, rms, as_tensor(xavier(fans), rms.dtype))
    if scale == "xiao":
        # Cout counts all groups: the authors' code takes `out_channels`, and has no groups.
        if fans.convolution:
            return math.sqrt(2.0 / (fans.fan_out * fans.groups))
        return 1.0 / math.sqrt(fans.fan_in)
    if scale == "xavier":
        return xavier(fans)
    if scale == "akrout":
        return xavier(fans) / math.sqrt(2.0)
    if scale == "kaiming":
        return math.sqrt(2.0 / fans.fan_in)
    return 1.0 if scale == "unit" else scale


def root_mean_square(kernel: tf.Tensor) -> tf.Tensor:
    """Return ``√(mean W²)`` as a scalar tensor, without overflow or underflow of squares.

    Args:
        kernel: W, of any floating-point type.

    Returns:
        A float64 tensor for a float64 kernel, else a float32 one.

    Example:
        >>> float(root_mean_square(tf.constant([3e-30, -3e-30]))) > 2e-30
        True
    """
    integer, exponent = tf.int32, 0x7F800000
    if kernel.dtype == "float64":
        integer, exponent = tf.int64, 0x7FF0000000000000
    kernel = tf.cast(kernel, tf.float64 if integer == tf.int64 else tf.float32)
    largest = tf.bitcast(tf.reduce_max(tf.abs(kernel)), integer)
    # Its power of two: to divide by it rounds nothing.
    power = tf.bitcast(tf.bitwise.bitwise_and(largest, exponent), kernel.dtype)
    return power * tf.sqrt(tf.reduce_mean(tf.square(tf.math.divide_no_nan(kernel, power))))


def as_tensor(s: float | tf.Tensor, dtype: Any) -> tf.Tensor:
    """Return s in a dtype. `tf.cast` would round a Python float to float32 on its way to float64.

    Args:
        s: A number, or a scalar tensor.
        dtype: A floating-point dtype.

    Example:
        >>> float(as_tensor(0.1, "float64")), float(tf.cast(0.1, "float64"))
        (0.1, 0.10000000149011612)
    """
    return tf.constant(s, dtype) if isinstance(s, numbers.Real) else tf.cast(s, dtype)


def draw(
    shape: Any, dtype: Any, key: Any, scale: str | float, fans: Fans, s: float | tf.Tensor
) -> tf.Tensor:
    """Draw a random matrix under `scale`; its absolute value is the magnitude M of frsf and brsf.

    Normal ``N(0, s²)``, except where the source is uniform: "xiao" for dense layers ``U(−s, s)``,
    "xavier" and "kaiming" ``U(−√3·s, √3·s)``, whose standard deviation is s, and "unit"
    ``U(−1, 1)``.

    Args:
        shape: The kernel's shape.
        dtype: The kernel's dtype.
        key: Two integers, the seed of the stateless generator.
        scale: A checked scale.
        fans: The kernel's `Fans`.
        s: `magnitude` for the same kernel.

    Returns:
        A `tf.Tensor` of the given shape and dtype; the same key gives the same tensor on every
        device, the rounding of the last digits apart.

    Example:
        >>> a, b = (draw((2, 2), "float32", (1, 2), 1.0, Fans(2, 2), 1.0) for _ in range(2))
        >>> bool(tf.reduce_all(a == b))
        True
    """
    dtype = tf.as_dtype(dtype)
    flat = scale in ("xavier", "kaiming", "unit") or (scale == "xiao" and not fans.convolution)
    unit = (uniform if flat else normal)(shape, key, double=dtype == tf.float64)
    s = as_tensor(s, unit.dtype)
    return tf.cast(unit * (math.sqrt(3.0) * s if scale in ("xavier", "kaiming") else s), dtype)


class ScaledRule(LayerRule):
    """A rule whose B has a scale s; under "match" the rms of W₀ is kept as saved state.

    Args:
        scale: A scale's name or a standard deviation, see `magnitude`.
        seed: An integer, or None to follow the global seed (`keras.utils.set_random_seed`).

    Raises:
        ValueError: If an option is out of its range.
    """

    def __init__(self, scale: str | float = "match", seed: int | None = None):
        super().__init__()
        self.scale = check(scale)
        self.seed = checks.seed(seed)

    def make_base_state(self, kernel: tf.Tensor, fans: Fans) -> None:
        """Keep the rms of W₀ under "match"; see the base class."""
        super().make_base_state(kernel, fans)
        self._fans = fans
        if self.scale == "match":
            dtype = "float64" if kernel.dtype == "float64" else "float32"
            self.rms = self.new_state("rms", (), lambda: root_mean_square(kernel), dtype)

    @property
    def s(self) -> float | tf.Tensor:
        """The scale s: a float, or under "match" a scalar tensor."""
        if self.scale != "match":
            return magnitude(self.scale, self._fans, kernel=None)
        return magnitude("match", self._fans, tf.convert_to_tensor(self.rms))

    def new_random(
        self,
        name: str,
        kernel: tf.Tensor,
        transform: Callable = tf.identity,
        changes: str | None = None,
    ) -> keras.Variable:
        """Return a random matrix of the kernel's shape and dtype, drawn under the scale.

        Args:
            name: The weight's name.
            kernel: The kernel.
            transform: A function of the drawn matrix, such as `tf.abs`.
            changes: What changes it, as for `new_state`.
        """
        shape, dtype = tuple(kernel.shape), kernel.dtype

        def initialize():
            return transform(draw(shape, dtype, self.key(), self.scale, self._fans, self.s))

        return self.new_state(name, shape, initialize, dtype, changes)

    def describe(self) -> Description:
        """Return the scale's name and s, and that W₀ was zero where "match" had to give way."""
        s = float(self.s)
        scale = f"{self.scale} {s:.3g}" if isinstance(self.scale, str) else f"{s:.3g}"
        if self.scale == "match" and not float(tf.convert_to_tensor(self.rms)):
            scale = f"xavier {s:.3g} (W was 0)"
        return Description(self.alias, scale)
