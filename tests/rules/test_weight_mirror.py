"""The weight mirror: what it collects is W, for every layer, and when it does so."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfbio
from tests.cases import LAYERS, long_but, random
from tfbio import optimizers, rules
from tfbio.layers import FeedbackDense
from tfbio.layers.sites import find_sites


def collected(layer, x):
    """Let a layer take its first steps, and return what B has become by kernel."""
    tf.function(lambda: layer(x, training=True))()
    return [site.feedback.numpy() for site in layer.sites()]


# Without activation and bias, whose part is tested apart: B is then the sum of the mirror's steps.
LINEAR = [case for case in LAYERS if case.arguments.get("activation") is None]


OF_EACH_CLASS = list({case.name: case for case in reversed(LINEAR)}.values())


@pytest.mark.parametrize("case", long_but(OF_EACH_CLASS, LINEAR), ids=str)
def test_the_expectation_is_w_for_every_layer_and_at_its_borders_too(case):
    """One step of rate 1 from B = 0; the error falls with the root of the samples."""
    samples = 40_000 if len(case.shape) < 5 else 8_000
    rule = f"weight_mirror(rate=1.0,decay=0,samples={samples},noise=1.0,before=1,scale=0.0,seed=1)"
    layer = case.feedback_layer(rule, dtype="float64")
    layer.build(case.shape)
    for site, b in zip(layer.sites(), collected(layer, random(case.shape)), strict=True):
        w = tf.convert_to_tensor(site.kernel).numpy()
        if (acting := layer.acting(site.kernel_name)) is not None:
            assert not b[~acting].any()  # no noise ever comes there
            w = w * acting
        expected = samples / 12 * w
        error = np.linalg.norm(b - expected) / np.linalg.norm(expected)
        # Of n samples and fan_in inputs that stand in each other's way.
        bound = 6 * np.sqrt(
            max(layer.fans(site.kernel_name).fan_in, w.size / w.shape[-1]) / samples
        )
        assert error < bound, (error, bound)


def dense(rule, **arguments):
    layer = FeedbackDense(4, rule=rule, dtype="float64", **arguments)
    layer.build((None, 6))
    return layer


def test_the_error_falls_with_the_root_of_the_samples():
    errors = []
    for samples in (100, 10_000):
        layer = dense(f"wm(rate=1.0,decay=0,samples={samples},noise=1.0,before=1,scale=0.0,seed=1)")
        (b,) = collected(layer, random((1, 6)))
        w = layer.kernel.numpy()
        errors.append(np.linalg.norm(b * 12 / samples - w) / np.linalg.norm(w))
    assert 4 < errors[0] / errors[1] < 25


@pytest.mark.parametrize("anneal", [0, 4])
def test_a_step_is_the_papers_equation(anneal):
    """By hand: the noise is drawn from the rule's key, all else is numpy."""
    layer = dense(
        f"wm(rate=0.3,decay=0.5,samples=5,noise=0.4,before=2,anneal={anneal},center=False,seed=7)",
        activation="sigmoid",
        bias_initializer="ones",
    )
    w, b = layer.kernel.numpy(), layer.feedback.numpy()
    layer(random((3, 6)), training=True)
    for index in range(2):
        key = tf.random.experimental.stateless_fold_in(
            tf.convert_to_tensor(layer.rule.saved_key), tf.constant(index, tf.int64), alg="philox"
        )
        xi = 0.4 * 0.5 * rules.draws.uniform((5, 6), key, double=True).numpy()
        assert np.abs(xi).max() <= 0.2
        rate = 0.3 / (1 + index / anneal) if anneal else 0.3
        b = (1 - rate * 0.5) * b + rate * xi.T @ (1 / (1 + np.exp(-(xi @ w + 1))))
    np.testing.assert_allclose(layer.feedback, b, rtol=1e-12)


def test_centered_responses_give_the_same_expectation_with_less_noise():
    """A sigmoid's ½ is no answer: Σ ξ(φ − mean φ)·n/(n − 1) is W/4 sooner than Σ ξφ."""
    errors = {}
    for center in (False, True):
        layer = dense(
            f"wm(rate=1.0,decay=0,samples=20000,noise=0.1,before=1,scale=0.0,center={center},seed=1)",
            activation="sigmoid",
        )
        (b,) = collected(layer, random((1, 6)))
        expected = 20000 * 0.01 / 12 * layer.kernel.numpy() / 4
        errors[center] = np.linalg.norm(b - expected) / np.linalg.norm(expected)
    assert errors[True] < 0.05
    assert errors[False] > 5 * errors[True]


def test_by_default_b_tends_to_w_itself():
    layer = dense("wm(before=6000,seed=1)")
    (b,) = collected(layer, random((1, 6)))
    w = layer.kernel.numpy()
    assert tfbio.metrics.angle(w, b) < 2
    assert abs(tfbio.metrics.norm_ratio(w, b) - 1) < 0.05


def test_b_of_a_unit_that_its_bias_keeps_silent_decays_to_nothing():
    for bias, scale in ((1.0, 1.0), (-1.0, 0.0)):
        layer = dense(
            "wm(before=6000,seed=1)",
            activation="relu",
            bias_initializer=keras.initializers.Constant(bias),
        )
        (b,) = collected(layer, random((1, 6)))
        ratio = tfbio.metrics.norm_ratio(layer.kernel.numpy(), b)
        assert ratio == pytest.approx(scale, abs=0.05)


def test_normalize_keeps_the_first_norm():
    layer = dense("wm(rate=0.1,decay=0,before=500,normalize=True,seed=1)")
    first = np.linalg.norm(layer.feedback)
    (b,) = collected(layer, random((1, 6)))
    np.testing.assert_allclose(np.linalg.norm(b), first, rtol=1e-6)
    assert tfbio.metrics.angle(layer.kernel.numpy(), b) < 10


def test_it_mirrors_once_per_optimizer_step_and_never_in_evaluation():
    layer, x = dense("wm(seed=1)"), random((3, 6))
    start = layer.feedback.numpy()
    for _ in range(2):  # the first call is due `before` = 0 of them
        layer(x, training=True)
        np.testing.assert_array_equal(layer.feedback, start)
    layer.kernel.assign_add(0.1 * tf.ones_like(layer.kernel))
    layer(x, training=False)
    np.testing.assert_array_equal(layer.feedback, start)
    layer(x, training=True)
    once = layer.feedback.numpy()
    assert not np.array_equal(once, start)
    layer(x, training=True)
    np.testing.assert_array_equal(layer.feedback, once)
    assert int(layer.rule.steps) == 2


def test_the_mirror_does_not_depend_on_what_the_layer_sees():
    learned = []
    for scale in (1.0, 100.0):
        layer = dense("wm(before=3,seed=1)", kernel_initializer=keras.initializers.GlorotUniform(1))
        learned += collected(layer, scale * random((2, 6)))
    np.testing.assert_array_equal(*learned)


def network():
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            keras.layers.Conv2D(3, 3, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(3),
        ]
    )
    return tfbio.convert(model, "wm(before=4,samples=8,seed=2)")


def test_replicas_keep_one_b_though_their_batches_differ():
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    with strategy.scope():
        model = network()
        model.compile(optimizers.get("sgd", 0.1), "mse", jit_compile=False)
    # The last batch has 3 examples: two for one replica and one for the other.
    model.fit(random((19, 6, 6, 2), "float32"), random((19, 3), "float32"), batch_size=8, verbose=0)
    for site in find_sites(model).values():
        one, other = strategy.experimental_local_results(site.rule.matrix.value)
        np.testing.assert_array_equal(one, other)
        steps = strategy.experimental_local_results(site.rule.steps.value)
        assert list(map(int, steps)) == [3, 3]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ("rate=0", "`rate` must be a finite number greater than 0"),
        ("decay=-1", "`decay` must be a finite number of 0 or more"),
        ("rate=1.0,decay=1.0", "less than 1, or B has no memory"),
        ("samples=1", "`samples` must be an integer of 2 or more"),
        ("samples=0,center=False", "`samples` must be an integer of 1 or more"),
        ("noise='loud'", "`noise` must be a finite number greater than 0"),
        ("before=-1", "`before` must be an integer of 0 or more"),
        ("anneal=0.5", "`anneal` must be an integer of 0 or more"),
        ("center=1", "`center` must be True or False"),
    ],
)
def test_wrong_options_are_refused(options, text):
    with pytest.raises(ValueError, match=text):
        rules.get(f"weight_mirror({options})")
