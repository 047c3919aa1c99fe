"""Kolen–Pollack: the difference of W and B decays by itself, whatever is learned."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfbio
from tests.cases import random
from tfbio import optimizers
from tfbio.layers.sites import find_sites

RATE, DECAY, STEPS = 0.1, 0.2, 6


def network(policy="float32"):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            keras.layers.Conv2D(3, 3, strides=2, activation="relu", dtype=policy),
            keras.layers.DepthwiseConv2D(2, activation="tanh", dtype=policy),
            keras.layers.Flatten(),
            keras.layers.Dense(5, activation="relu", dtype=policy),
            keras.layers.Dense(3, dtype="float32"),
        ]
    )
    return tfbio.convert(model, "kolen_pollack")


def with_momentum(step, momentum=0.9):
    """Return what is left where the momentum gathers the decay, too: buf ← μ·buf + λ·d."""
    left, buffer = 1.0, 0.0
    for _ in range(step):
        buffer = momentum * buffer + DECAY * left
        left -= RATE * buffer
    return left


def differences(model):
    return [site.kernel.numpy() - site.feedback.numpy() for site in find_sites(model).values()]


OPTIMIZERS = {
    # name: (optimizer, what is left of the difference after t steps)
    "papers' SGD": (
        lambda: optimizers.get("sgd", RATE, weight_decay=DECAY),
        lambda t: (1 - RATE * DECAY) ** t,
    ),
    "papers' SGD without decay": (lambda: optimizers.get("sgd", RATE), lambda t: 1.0),
    "decoupled SGD with momentum": (
        lambda: keras.optimizers.SGD(RATE, momentum=0.9, weight_decay=DECAY),
        lambda t: (1 - RATE * DECAY) ** t,
    ),
    "papers' SGD with momentum": (
        lambda: optimizers.get("sgd", RATE, momentum=0.9, weight_decay=DECAY),
        with_momentum,
    ),
    "Keras's Adam": (
        lambda: keras.optimizers.Adam(0.01, weight_decay=DECAY),
        lambda t: (1 - 0.01 * DECAY) ** t,
    ),
    "Keras's global_clipnorm": (
        lambda: keras.optimizers.SGD(RATE, weight_decay=DECAY, global_clipnorm=0.01),
        lambda t: (1 - RATE * DECAY) ** t,
    ),
    "AdamW": (
        lambda: optimizers.get("adamw", RATE, weight_decay=DECAY),
        lambda t: (1 - RATE * DECAY) ** t,
    ),
    "clipped": (
        lambda: optimizers.get("sgd", RATE, weight_decay=DECAY, clip_norm=0.01),
        lambda t: (1 - RATE * DECAY) ** t,
    ),
    "batch-Manhattan": (
        lambda: optimizers.get("sgd", 0.01, weight_decay=DECAY, batch_manhattan=True),
        lambda t: (1 - 0.01 * DECAY) ** t,
    ),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_difference_decays_elementwise_at_every_step(name):
    optimizer, left = OPTIMIZERS[name]
    model = network()
    model.compile(optimizer(), "mse")
    start, weights = differences(model), [w.numpy() for w in model.trainable_weights]
    for step in range(1, STEPS + 1):
        x, y = random((8, 6, 6, 2), "float32", step), random((8, 3), "float32", step + 100)
        model.train_on_batch(x, y)
        for before, now in zip(start, differences(model), strict=True):
            np.testing.assert_allclose(now, left(step) * before, rtol=1e-4, atol=2e-6)
    moved = [
        np.abs(w - v.numpy()).max() for w, v in zip(weights, model.trainable_weights, strict=True)
    ]
    assert min(moved) > 1e-5


def left_after(optimizer, steps=30):
    """Return the share of |W − B| that is left in each layer, and how far it is from a factor."""
    model = network()
    model.compile(optimizer, "mse")
    start = differences(model)
    for step in range(steps):
        x, y = random((8, 6, 6, 2), "float32", step), random((8, 3), "float32", step + 100)
        model.train_on_batch(x, y)
    pairs = list(zip(start, differences(model), strict=True))
    shares = [np.vdot(d, before) / np.vdot(before, before) for before, d in pairs]
    apart = [
        np.linalg.norm(d - share * before) / np.linalg.norm(before)
        for share, (before, d) in zip(shares, pairs, strict=True)
    ]
    return shares, apart


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda: optimizers.get("adam", 0.01, weight_decay=DECAY),
        lambda: keras.optimizers.Lamb(0.01, weight_decay=DECAY),
        lambda: keras.optimizers.Adafactor(0.01, weight_decay=DECAY),
    ],
    ids=["Adam with the decay in the gradient", "Lamb", "Adafactor"],
)
def test_under_these_the_difference_is_no_factor_of_what_it_was(optimizer):
    """As docs/rules/kolen_pollack.md says: a step that depends on the weight itself differs."""
    _, apart = left_after(optimizer())
    # Where it is one, rounding leaves less than 1e-4.
    assert max(apart) > 0.002


def test_adam_with_the_decay_in_the_gradient_brings_b_to_w_sooner():
    shares, _ = left_after(optimizers.get("adam", 0.01, weight_decay=DECAY))
    assert max(shares) < 0.9 * (1 - 0.01 * DECAY) ** 30


def test_muon_decays_matrices_and_other_kernels_at_rates_of_their_own():
    shares, apart = left_after(
        keras.optimizers.Muon(0.01, weight_decay=DECAY, adam_weight_decay=0.5 * DECAY)
    )
    dense, others = (1 - 0.01 * DECAY) ** 30, (1 - 0.005 * DECAY) ** 30
    np.testing.assert_allclose(shares, [others, others, dense, dense], rtol=1e-4)
    assert max(apart) < 1e-4


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_the_difference_decays_in_mixed_precision_too(policy):
    model = network(policy)
    model.compile(optimizers.get("sgd", RATE, weight_decay=DECAY), "mse")
    start = differences(model)
    for step in range(STEPS):
        model.train_on_batch(random((8, 6, 6, 2), "float32", step), random((8, 3), "float32"))
    for before, now in zip(start, differences(model), strict=True):
        np.testing.assert_allclose(now, (1 - RATE * DECAY) ** STEPS * before, rtol=1e-4, atol=2e-6)


def test_replicas_keep_one_b():
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    with strategy.scope():
        model = network()
        model.compile(optimizers.get("sgd", RATE, weight_decay=DECAY), "mse", jit_compile=False)
    start = differences(model)
    model.fit(random((24, 6, 6, 2), "float32"), random((24, 3), "float32"), batch_size=8, verbose=0)
    for before, now in zip(start, differences(model), strict=True):
        np.testing.assert_allclose(now, (1 - RATE * DECAY) ** 3 * before, rtol=1e-4, atol=2e-6)
    for site in find_sites(model).values():
        one, other = strategy.experimental_local_results(site.rule.matrix.value)
        np.testing.assert_array_equal(one, other)


def test_clipping_counts_a_gradient_once():
    plain, learned = keras.Variable([3.0, 4.0]), keras.Variable([0.0, 0.0])
    learned.feedback_learns = "with_kernel"
    optimizer = optimizers.get("sgd", 1.0, clip_norm=1.0)
    optimizer.apply([tf.constant([3.0, 4.0])] * 2, [plain, learned])
    np.testing.assert_allclose(plain, [2.4, 3.2], rtol=1e-6)
    np.testing.assert_allclose(learned, [-0.6, -0.8], rtol=1e-6)


@pytest.mark.parametrize(
    "option", [{"kernel_regularizer": "l2"}, {"kernel_constraint": "max_norm"}]
)
def test_what_would_reach_w_alone_is_refused(option):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3, **option)])
    with pytest.raises(ValueError, match=rf"kernel without a {next(iter(option))[7:]}.*weight_dec"):
        tfbio.convert(model, "kolen_pollack")
    assert type(model.layers[0]) is keras.layers.Dense


def critic(rule=None, conv=False):
    """Return a network of one output in float64, as a WGAN's critic is."""
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(5, "tanh", dtype="float64", name="first")]
    if conv:
        first = keras.layers.Conv2D(3, 3, activation="tanh", dtype="float64", name="first")
        layers = [first, keras.layers.Flatten()]
    layers += [
        keras.layers.Dense(4, "tanh", dtype="float64", name="second"),
        keras.layers.Dense(1, dtype="float64", name="third"),
    ]
    model = keras.Sequential([keras.Input((5, 5, 2) if conv else (3,), dtype="float64"), *layers])
    return tfbio.convert(model, rule) if rule else model


def penalized(model, x):
    """Return the mean output and Gulrajani et al.'s penalty on the gradient at the input."""
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = tf.reduce_mean(model(x, training=True))
    slope = tf.reshape(tape.gradient(y, x) * len(x), (len(x), -1))
    return y + 10 * tf.reduce_mean(tf.square(tf.norm(slope, axis=1) - 1))


def penalized_gradients(model, x):
    """Return the gradients of `penalized`, by "layer/weight"."""
    variables = {
        f"{layer.name}/{v.name}": v for layer in model.layers for v in layer.trainable_variables
    }
    with tf.GradientTape() as tape:
        loss = penalized(model, x)
    return tape.gradient(loss, {name: v.value for name, v in variables.items()})


def oracle(model, x):
    """Return ∂/∂W and ∂/∂V of the same, with the error written out through matrices V = B.

    op(sg(x), W) + op(x, sg(V)) − sg(op(x, V)) has op's value, its kernel gradient, and V's input
    gradient; the error at the input depends on V as it is written here.
    """
    sites = find_sites(model).values()
    w = [tf.convert_to_tensor(site.kernel) for site in sites]
    v = [tf.convert_to_tensor(site.feedback) for site in sites]
    with tf.GradientTape() as tape:
        tape.watch([w, v])
        h, activations = x, []
        for kernel, back in zip(w, v, strict=True):
            constant = tf.stop_gradient(back)
            through = h @ constant
            h = tf.stop_gradient(h) @ kernel + through - tf.stop_gradient(through)
            h = tf.tanh(h) if kernel is not w[-1] else h
            activations.append(h)
        error = tf.ones_like(h)
        for h, back in zip([*activations[-2::-1], None], reversed(v), strict=True):
            error = error @ tf.transpose(back)
            error = error if h is None else error * (1 - h**2)
        penalty = tf.reduce_mean(tf.square(tf.norm(error, axis=1) - 1))
        loss = tf.reduce_mean(activations[-1]) + 10 * penalty
    return tape.gradient(loss, [w, v])


@pytest.mark.parametrize("rule", ["kolen_pollack", "feedback_alignment", "sign_symmetry"])
def test_under_a_penalty_on_the_gradient_w_and_b_get_all_of_it(rule):
    """B as it stands in the error is a part of it; other rules' B is a constant."""
    model, x = critic(rule), random((6, 3))
    of_w, of_v = oracle(model, x)
    found = penalized_gradients(model, x)
    for name, w, v in zip(("first", "second", "third"), of_w, of_v, strict=True):
        whole = w + v if rule == "kolen_pollack" else w
        np.testing.assert_allclose(found[f"{name}/kernel"], whole, rtol=1e-10, atol=1e-13)
        assert float(tf.norm(v)) > 0.01
        if rule == "kolen_pollack":
            np.testing.assert_array_equal(found[f"{name}/feedback"], found[f"{name}/kernel"])


@pytest.mark.parametrize("true_gradient", [False, True], ids=["B = W", "true gradient"])
def test_the_penalty_is_backpropagations(true_gradient):
    """With B = W, and for the true gradient with any B."""
    model, plain, x = critic("kolen_pollack", conv=True), critic(conv=True), random((4, 5, 5, 2))
    expected = penalized_gradients(plain, x)
    if true_gradient:
        with tfbio.true_gradient(model):
            found = penalized_gradients(model, x)
    else:
        for site in find_sites(model).values():
            site.rule.matrix.assign(site.kernel)
        found = penalized_gradients(model, x)
    for name, gradient in expected.items():
        if name == "third/bias":
            np.testing.assert_allclose(found[name], gradient)
            continue
        np.testing.assert_allclose(found[name], gradient, rtol=1e-10, atol=1e-13)
        assert float(tf.norm(gradient)) > 0.01, name


def test_the_difference_decays_under_a_penalty_too():
    model = critic("kolen_pollack", conv=True)
    optimizer = optimizers.get("sgd", 0.02, weight_decay=DECAY)
    optimizer.build(model.trainable_variables)

    @tf.function
    def step(x):
        with tf.GradientTape() as tape:
            loss = penalized(model, x)
        values = [v.value for v in model.trainable_variables]
        optimizer.apply(tape.gradient(loss, values))

    start = differences(model)
    for index in range(10):
        step(random((4, 5, 5, 2), seed=index))
    for before, now in zip(start, differences(model), strict=True):
        # The rate is a float32.
        np.testing.assert_allclose(now, (1 - 0.02 * DECAY) ** 10 * before, rtol=1e-6, atol=1e-10)


def test_a_wrapper_that_rescales_w_is_refused():
    def wrapped():
        dense = keras.layers.SpectralNormalization(keras.layers.Dense(3), name="spectral")
        return keras.Sequential([keras.Input((2,)), dense, keras.layers.Dense(1, name="last")])

    # The wrapper has a kernel and no twin: it must be left alone to come as far as this.
    alone = {"spectral": "backprop"}
    with pytest.raises(ValueError, match=r"'spectral' of class SpectralNorm.*'kolen_pollack'.*ove"):
        tfbio.convert(wrapped(), "kolen_pollack", overrides=alone)
    with pytest.raises(ValueError, match="SpectralNormalization rescales the kernel of 'spectral/"):
        tfbio.convert(wrapped(), "fa", overrides={**alone, "spectral/*": "kolen_pollack"})
    for rule, of_inner in (("kolen_pollack", "fa"), ("sign_symmetry", "sign_symmetry")):
        model = tfbio.convert(wrapped(), rule, overrides={**alone, "spectral/*": of_inner})
        assert model.layers[0].layer.rule.alias == tfbio.rules.get(of_inner).alias
