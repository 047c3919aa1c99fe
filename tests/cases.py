"""The tables that drive the tests: every feedback layer in its variants, every rule's options."""

import itertools
from typing import NamedTuple

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfbio


class Case(NamedTuple):
    """A feedback layer: the class's name without "Feedback", its arguments and an input shape."""

    name: str
    arguments: dict
    shape: tuple

    def feedback_layer(self, rule, **more):
        return getattr(tfbio.layers, f"Feedback{self.name}")(rule=rule, **self.arguments, **more)

    def keras_layer(self, **more):
        return twin_of(self.name)(**self.arguments, **more)

    def __str__(self):
        options = ",".join(f"{k}={v}" for k, v in self.arguments.items())
        return f"{self.name}({options})@{self.shape}".replace(" ", "")


def twin_of(name):
    """Return the layer class that has this name: Keras's, or one of ours that Keras lacks."""
    return getattr(tfbio.layers, name, None) or getattr(keras.layers, name)


def _conv(name, shape, **arguments):
    return Case(name, {"filters": 4, "kernel_size": 3, **arguments}, shape)


LAYERS = [
    Case("Dense", {"units": 3, "activation": "tanh"}, (2, 5)),
    Case("Dense", {"units": 3, "use_bias": False}, (2, 4, 5)),
    Case("EinsumDense", {"equation": "ab,bc->ac", "output_shape": 3, "bias_axes": "c"}, (2, 4)),
    Case("EinsumDense", {"equation": "abc,cde->abde", "output_shape": (None, 2, 3)}, (2, 4, 5)),
    Case("EinsumDense", {"equation": "...x,xy->...y", "output_shape": 3}, (2, 4, 5)),
    Case("EinsumDense", {"equation": "ab,b->a", "output_shape": ()}, (2, 4)),
    Case("EinsumDense", {"equation": "abc,bc->ab", "output_shape": (3,)}, (2, 3, 5)),
    _conv("Conv1D", (2, 9, 2)),
    _conv("Conv1D", (2, 9, 2), padding="causal", dilation_rate=2),
    _conv("Conv1D", (2, 8, 2), padding="same", strides=2, activation="relu"),
    _conv("Conv1D", (2, 9, 4), groups=2),
    _conv("Conv2D", (2, 7, 8, 2), strides=2),
    _conv("Conv2D", (2, 7, 8, 2), padding="same", activation="relu", use_bias=False),
    _conv("Conv2D", (2, 9, 9, 3), dilation_rate=2),
    _conv("Conv2D", (2, 6, 6, 4), groups=2, padding="same", kernel_size=(2, 3)),
    _conv("Conv3D", (1, 5, 4, 5, 2), padding="same", strides=2),
    _conv("Conv3D", (1, 2, 5, 4, 5), data_format="channels_first"),
    _conv("Conv1DTranspose", (2, 5, 2), strides=2, padding="same"),
    _conv("Conv2DTranspose", (2, 4, 5, 2), strides=2, activation="relu"),
    _conv("Conv2DTranspose", (2, 4, 5, 2), strides=2, padding="same", output_padding=1),
    _conv("Conv3DTranspose", (1, 3, 2, 3, 2), strides=2),
    Case("DepthwiseConv1D", {"kernel_size": 3, "depth_multiplier": 2}, (2, 8, 2)),
    Case("DepthwiseConv1D", {"kernel_size": 3, "data_format": "channels_first"}, (2, 2, 8)),
    Case("DepthwiseConv2D", {"kernel_size": 3, "strides": 2, "padding": "same"}, (2, 7, 7, 3)),
    Case("DepthwiseConv2D", {"kernel_size": 2, "data_format": "channels_first"}, (2, 3, 6, 7)),
    _conv("SeparableConv1D", (2, 8, 2), depth_multiplier=2, activation="relu"),
    _conv("SeparableConv1D", (2, 3, 8), data_format="channels_first"),
    _conv("SeparableConv2D", (2, 7, 8, 3), strides=2, padding="same"),
    _conv("SeparableConv2D", (2, 3, 7, 8), data_format="channels_first", depth_multiplier=2),
    _conv("SeparableConv2D", (2, 9, 9, 2), dilation_rate=2),
    _conv("LocallyConnected1D", (2, 9, 2), strides=2),
    _conv("LocallyConnected1D", (2, 2, 7), padding="same", data_format="channels_first"),
    _conv("LocallyConnected2D", (2, 5, 6, 2), activation="relu", use_bias=False),
    _conv("LocallyConnected2D", (2, 6, 5, 2), padding="same", strides=2),
    _conv("LocallyConnected2D", (2, 2, 5, 5), kernel_size=(2, 3), data_format="channels_first"),
]


@tfbio.rules.register("test_transported")
class Transported(tfbio.rules.LayerRule):
    """B = W through the substitution, which the backprop rule itself bypasses."""

    def feedback(self, kernel):
        return tf.identity(kernel)


@tfbio.rules.register("test_stepped")
class Stepped(tfbio.rules.LayerRule):
    """Counts its steps; B = W."""

    def make_state(self, kernel, fans):
        self.count = self.new_state("count", (), lambda: 0, "int64", changes="by_step")

    def step(self, kernel, circuit):
        return {"count": self.count + 1}

    def feedback(self, kernel):
        return kernel


@tfbio.rules.register("test_misshapen")
class Misshapen(tfbio.rules.LayerRule):
    """A mistake: B is W transposed, of another dtype, or nothing at all."""

    def __init__(self, mistake="shape"):
        super().__init__()
        self.mistake = mistake

    def feedback(self, kernel):
        if self.mistake == "shape":
            return tf.transpose(kernel)
        return tf.cast(kernel, "float64") if self.mistake == "dtype" else None


RULES = tuple(name for name in tfbio.rules.names() if not name.startswith("test_"))
"""The library's own rules; users' and these tests' are registered beside them."""

DIRECT_RULES = ("direct_feedback_alignment", "sign_dfa", "direct_random_target_projection")
TARGET_RULES = ("tp", "dtp", "sdtp", "ao_sdtp", "l_drl")
NETWORK_RULES = (*DIRECT_RULES, *TARGET_RULES)
"""Those of whole networks, which have no B of a kernel's shape: tests/networks/test_direct.py and
tests/networks/test_target_propagation.py are theirs."""

DIFFERENTIATED = tuple(name for name in RULES if name not in TARGET_RULES)
"""Those that learn from one gradient of the whole model, and take any network of layers."""

ONE_OF_A_KIND = (
    "sign_symmetry",
    "feedback_alignment",
    "brsf",
    "kolen_pollack",
    "weight_mirror",
    "mirror_alignment",
    "direct_feedback_alignment",
)
"""For what is the same for all rules of a kind: a B of the kernel as it is, a fixed one, one drawn
at every step, one that follows the kernel's gradient, one that learns in a loop of the step's own,
one that learns by a loss of its own, with noise, and none at all but taps."""

LAYER_RULES = tuple(name for name in RULES if name not in NETWORK_RULES)

CONFIGURATIONS = [
    *DIFFERENTIATED,
    "sign_symmetry(agreement=0.7,seed=3)",
    "sign_symmetry(scale='xiao')",
    "feedback_alignment(scale='xavier',seed=1)",
    "frsf(scale='unit')",
    "brsf(scale=0.5)",
    "local_alignment(decay=0.01,amp=0.02,sparse=0.03,null=0.001)",
    "weight_mirror(before=2,normalize=True,samples=4)",
    "dfa(init='frenkel',spatial='dense',seed=1)",
]


def modes(modes_of_rules):
    """Return (configuration, mode) for all rules and modes, and options without "xla".

    XLA compiles the same operations for a rule's other options, which takes longest of all.
    """
    every = itertools.product(CONFIGURATIONS, modes_of_rules)
    return [(rule, mode) for rule, mode in every if rule in DIFFERENTIATED or mode != "xla"]


def long_but(fast, every):
    """Return parameters for `parametrize`: all but those in `fast` are marked `long`.

    `fast` holds at least one of each kind, which stands for the others in `make test`.
    """
    every = list(every)
    if missing := [each for each in fast if each not in every]:
        raise ValueError(f"`fast` holds what `every` does not: {missing}")
    return [
        each
        if each in fast
        else pytest.param(*(each if type(each) is tuple else [each]), marks=pytest.mark.long)
        for each in every
    ]


def rehearsed(long, every):
    """Return parameters for `parametrize`: all are marked `rehearsal`, those in `long` also `long`.

    `make rehearse` runs them all; those in `long` stand for the others in `make test-all`.
    """
    every = list(every)
    if missing := [each for each in long if each not in every]:
        raise ValueError(f"`long` holds what `every` does not: {missing}")
    marks = {True: (pytest.mark.rehearsal, pytest.mark.long), False: (pytest.mark.rehearsal,)}
    return [pytest.param(each, marks=marks[each in long]) for each in every]


def random(shape, dtype="float64", seed=0):
    return tf.constant(np.random.default_rng(seed).normal(size=shape), dtype)


def cross_entropy(logits):
    """Return a loss that every rule takes: some need the error of a softmax cross-entropy."""
    labels = tf.range(tf.shape(logits)[0]) % logits.shape[-1]
    return tf.reduce_mean(
        tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
    )


def derivatives(layer, x, e, training=True):
    """Return the output, and the gradients of ⟨e, y⟩ for x and for the trainable weights."""
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x, training=training)
        objective = tf.reduce_sum(y * tf.cast(e, y.dtype))
    dx, dweights = tape.gradient(objective, [x, layer.trainable_variables])
    return y, dx, dweights


def assert_same_learning(weights, expected, start, share=1e-3):
    """Assert that two trainings differ by rounding only, measured against what they learned.

    Sums in another order round differently on every kind of processor, and steps amplify that: no
    absolute bound holds everywhere. A wrong gradient differs by a good part of what was learned.
    Integers, such as counts and the bits of a kernel, are not compared.

    Args:
        weights: Arrays or variables after a few steps.
        expected: Those of the reference.
        start: Those before the first step, of both.
        share: The greatest distance allowed, as a share of the reference's way from `start`, for
            every variable by itself.
    """
    ways = [
        (np.linalg.norm(np.subtract(w, e)), np.linalg.norm(np.subtract(e, s)))
        for w, e, s in zip(weights, expected, start, strict=True)
        if np.issubdtype(np.asarray(e).dtype, np.floating)
    ]
    whole = np.linalg.norm([learned for _, learned in ways])
    assert whole > 0
    for distance, learned in ways:
        # What hardly learns, such as a bias before a normalization, moves by rounding.
        assert distance <= share * (learned + whole / 100), (distance, learned, whole)
