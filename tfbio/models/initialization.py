"""Initialization: named distributions from which all kernels of a network are drawn."""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import keras

from tfbio._arguments import suggest
from tfbio.layers import LocallyConnected1D, LocallyConnected2D
from tfbio.layers.sites import find_layers, has_kernel


class Fans(NamedTuple):
    """The dimensions of a kernel that a scheme depends on.

    They are those of PyTorch: a convolution's fan_out is not divided by its groups, and a
    transposed convolution's are those of the convolution that it transposes.

    Attributes:
        fan_in: Inputs that an output sums over: k·Cin/groups for k kernel positions.
        fan_out: k·Cout.
    """

    fan_in: int
    fan_out: int


class Scheme(NamedTuple):
    """How kernels and biases start.

    Attributes:
        kernel: A function of a kernel's `Fans` that returns the kernel's initializer.
        bias: The same for the bias beside the kernel.
    """

    kernel: Callable[[Fans], keras.Initializer]
    bias: Callable[[Fans], keras.Initializer] = lambda fans: keras.initializers.Zeros()


# Each call makes an initializer with a seed of its own, from Python's `random`.
def _normal(variance: float) -> keras.Initializer:
    return keras.initializers.RandomNormal(0.0, math.sqrt(variance))


def _uniform(variance: float) -> keras.Initializer:
    limit = math.sqrt(3.0 * variance)
    return keras.initializers.RandomUniform(-limit, limit)


SCHEMES = {
    "xavier_uniform": Scheme(lambda fans: _uniform(2.0 / (fans.fan_in + fans.fan_out))),
    "xavier_normal": Scheme(lambda fans: _normal(2.0 / (fans.fan_in + fans.fan_out))),
    "he_fan_in": Scheme(lambda fans: _normal(2.0 / fans.fan_in)),
    "he_fan_out": Scheme(lambda fans: _normal(2.0 / fans.fan_out)),
    "lecun_normal": Scheme(lambda fans: _normal(1.0 / fans.fan_in)),
    "pytorch": Scheme(
        lambda fans: _uniform(1.0 / (3.0 * fans.fan_in)),
        lambda fans: _uniform(1.0 / (3.0 * fans.fan_in)),
    ),
}
"""The schemes by name; `initialize` describes them."""


def names() -> tuple[str, ...]:
    """Return the names of the schemes.

    Example:
        >>> names()[:2]
        ('xavier_uniform', 'xavier_normal')
    """
    return tuple(SCHEMES)


def check(name: str) -> str:
    """Return the name of a scheme, or refuse it.

    Args:
        name: One of `names`.

    Raises:
        ValueError: If there is no such scheme.

    Example:
        >>> check("xavier_unifrom")
        Traceback (most recent call last):
        ...
        ValueError: Unknown scheme 'xavier_unifrom'. Did you mean 'xavier_uniform'? ...
    """
    if name in SCHEMES:
        return name
    raise ValueError(
        f"Unknown scheme {name!r}.{suggest(name, names())} Schemes: {', '.join(SCHEMES)}."
    )


def initialize(model: keras.Model, name: str) -> keras.Model:
    """Draw all kernels of a network from one scheme, and set the biases beside them.

    ==============  ============================================  ====================
    scheme          kernels                                       biases
    ==============  ============================================  ====================
    xavier_uniform  U(−a, a), a = √(6 / (fan_in + fan_out))       0
    xavier_normal   N(0, 2 / (fan_in + fan_out))                  0
    he_fan_in       N(0, 2 / fan_in)                              0
    he_fan_out      N(0, 2 / fan_out)                             0
    lecun_normal    N(0, 1 / fan_in)                              0
    pytorch         U(−1/√fan_in, 1/√fan_in)                      the same distribution
    ==============  ============================================  ====================

    The second parameter of N is the variance; no distribution is truncated. fan_in and fan_out are
    those that PyTorch computes: for dense kernels the inputs and outputs, for convolutions
    k·Cin/groups and k·Cout with k kernel positions (depthwise: k, and k times the outputs), for
    transposed ones k·Cout and k·Cin, for `EinsumDense` the products of the contracted dimensions
    and of the others. A locally connected layer has them for each position. Embeddings and
    normalization are left as they are.

    Every kernel has draws of its own, which `keras.utils.set_random_seed` determines.

    Args:
        model: A built network, before `tfbio.convert`: rules look at the kernels as they are then.
        name: One of `names`.

    Returns:
        The same network.

    Raises:
        ValueError: If there is no such scheme, or a layer has a kernel of which the fans are not
            known: a recurrent layer, a layer of one's own, a dense layer with LoRA.

    Example:
        >>> from tfbio import models
        >>> model = models.build("lenet", 10, (32, 32, 1))
        >>> kernel = initialize(model, "he_fan_in").get_layer("conv3").kernel
        >>> round(float(keras.ops.std(kernel)), 3), round((2 / (25 * 16)) ** 0.5, 3)
        (0.071, 0.071)

    References:
        Glorot and Bengio 2010, "Understanding the difficulty of training deep feedforward neural
        networks"; He et al. 2015, "Delving deep into rectifiers"; LeCun et al. 1998, "Efficient
        backprop"; PyTorch's `torch.nn.init` and `torch.nn.modules.linear`.
    """
    scheme = SCHEMES[check(name)]
    layers = {"": model, **find_layers(model)}
    # Before the first draw, so that the network is as it was where one is refused.
    kernels = {path: list(_find_kernels(path, layer)) for path, layer in layers.items()}
    for path, layer in layers.items():
        for kernel, fans in kernels[path]:
            kernel.assign(scheme.kernel(fans)(kernel.shape, dtype=kernel.dtype))
        bias = getattr(layer, "bias", None) if kernels[path] else None
        if bias is not None:
            # Of a separable convolution's kernels, the last is the one beside the bias.
            _, fans = kernels[path][-1]
            bias.assign(scheme.bias(fans)(bias.shape, dtype=bias.dtype))
    return model


def _find_kernels(path: str, layer: keras.layers.Layer) -> Iterator[tuple[keras.Variable, Fans]]:
    """Yield a layer's kernels, as variables, with their fans."""
    classes = keras.layers
    if getattr(layer, "lora_enabled", False) or getattr(layer, "quantization_mode", None):
        raise ValueError(f"Layer {path!r} has LoRA or is quantized: its kernel cannot be drawn.")
    if isinstance(layer, classes.EinsumDense):
        yield layer.kernel, _einsum_fans(layer)
    elif isinstance(layer, classes.Dense):
        yield layer.kernel, Fans(*layer.kernel.shape)
    elif isinstance(layer, LocallyConnected1D | LocallyConnected2D):
        yield layer.kernel, Fans(*layer.kernel.shape[1:])
    elif isinstance(layer, classes.DepthwiseConv1D | classes.DepthwiseConv2D):
        yield layer.kernel, _depthwise_fans(layer.kernel)
    elif isinstance(layer, classes.SeparableConv1D | classes.SeparableConv2D):
        yield layer.depthwise_kernel, _depthwise_fans(layer.depthwise_kernel)
        yield layer.pointwise_kernel, _convolution_fans(layer.pointwise_kernel)
    elif isinstance(
        layer,
        (
            *(classes.Conv1D, classes.Conv2D, classes.Conv3D),
            *(classes.Conv1DTranspose, classes.Conv2DTranspose, classes.Conv3DTranspose),
        ),
    ):
        yield layer.kernel, _convolution_fans(layer.kernel)
    elif has_kernel(layer):
        raise ValueError(
            f"{f'Layer {path!r}' if path else 'The model itself'}, of class "
            f"{type(layer).__name__}, has a kernel of which fan_in and fan_out are not known."
        )


def _convolution_fans(kernel):
    *window, channels, filters = kernel.shape
    positions = math.prod(window)
    return Fans(positions * channels, positions * filters)


def _depthwise_fans(kernel):
    *window, channels, multiplier = kernel.shape
    positions = math.prod(window)
    return Fans(positions, positions * channels * multiplier)


def _einsum_fans(layer):
    inputs, kernel, outputs = layer.equation.replace("...", "").replace("->", ",").split(",")
    fan_in = fan_out = 1
    for axis, size in zip(kernel, layer.kernel.shape, strict=True):
        if axis not in outputs:
            fan_in *= size
        elif axis not in inputs:
            fan_out *= size
    return Fans(fan_in, fan_out)
