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
