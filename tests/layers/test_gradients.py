"""The true gradient: what the switch changes, and what it does not."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfbio
from tests.cases import ONE_OF_A_KIND, cross_entropy, long_but, modes, random


def network(separable=True):
    layers = [
        keras.Input((6, 6, 2)),
        keras.layers.Conv2D(3, 3, activation="tanh"),
        keras.layers.SeparableConv2D(3, 2),
        keras.layers.Flatten(),
        keras.layers.Dense(4),
    ]
    if not separable:
        del layers[2]
    return keras.Sequential(layers)


def derivatives(model, x):
    with tf.GradientTape() as tape:
        tape.watch(x)
        loss = cross_entropy(model(x))
    # A B that learns is no part of the function that the model computes.
    own = [v for v in model.trainable_variables if not getattr(v, "feedback_learns", None)]
    return tape.gradient(loss, [x, *own])


def equal(actual, expected):
    return all(
        np.allclose(a, e, rtol=1e-5, atol=1e-6) for a, e in zip(actual, expected, strict=True)
    )


CASES = [
    (rule, mode)
    for rule, mode in modes(["eager", "graph", "xla"])
    if mode != "xla" or rule in ONE_OF_A_KIND
]


FAST = [(rule, mode) for rule in ("brsf", "kolen_pollack") for mode in ("graph", "xla")]
FAST += [("mirror_alignment", "graph"), ("feedback_alignment", "graph")]
FAST += [("direct_feedback_alignment", mode) for mode in ("eager", "graph")]


@pytest.mark.parametrize(("rule", "mode"), long_but(FAST, CASES))
def test_the_true_gradient_is_backprops_in_functions_compiled_before(rule, mode):
    x = random((2, 6, 6, 2), "float32")
    model = network(separable=mode != "xla")  # which would compile for long
    expected = derivatives(model, x)
    tfbio.convert(model, rule)

    def run(x):
        return derivatives(model, x)

    if mode != "eager":
        run = tf.function(run, jit_compile=mode == "xla")
    outside, y = run(x), model(x)
    with tfbio.true_gradient(model) as same:
        assert same is model
        assert equal(run(x), expected)
        np.testing.assert_array_equal(model(x), y)
    assert equal(run(x), outside)
    assert equal(outside, expected) == (rule == "backprop")


def test_the_true_gradient_reaches_fit_and_ends_with_an_error():
    x, y = random((4, 6, 6, 2), "float32"), random((4, 4), "float32")
    weights = []
    for rule in ("backprop", "feedback_alignment"):
        keras.utils.set_random_seed(0)
        model = tfbio.convert(network(), rule)
        model.compile("sgd", "mse", run_eagerly=rule == "backprop")
        model.fit(x, y, verbose=0)  # compiled here
        model.layers[0].set_weights(
            network().layers[0].get_weights() + model.layers[0].get_weights()[2:]
        )
        weights.append(model)
    plain, feedback = weights
    for ours, theirs in zip(feedback.trainable_variables, plain.trainable_variables, strict=True):
        ours.assign(theirs)
    with tfbio.true_gradient(feedback):
        feedback.fit(x, y, verbose=0)
    plain.fit(x, y, verbose=0)
    for ours, theirs in zip(feedback.trainable_variables, plain.trainable_variables, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    with pytest.raises(KeyError), tfbio.true_gradient(feedback):
        raise KeyError
    assert not any(bool(layer.true_gradient_switch) for layer in (feedback.layers[0],))


def test_contexts_nest_and_touch_one_model_only():
    x = random((2, 6, 6, 2), "float32")
    one, other = tfbio.convert(network(), "fa"), tfbio.convert(network(), "fa")
    theirs, ours = derivatives(other, x), derivatives(one, x)
    with tfbio.true_gradient(one):
        with tfbio.true_gradient(one):
            pass
        assert not equal(derivatives(one, x), ours)
        assert equal(derivatives(other, x), theirs)
    assert equal(derivatives(one, x), ours)


SECOND = list(
    itertools.product(["sign_symmetry", "feedback_alignment", "brsf"], ["eager", "graph"])
)


@pytest.mark.parametrize(
    ("rule", "mode"),
    long_but([("feedback_alignment", "graph"), ("brsf", "eager"), SECOND[0]], SECOND),
)
def test_second_derivatives_are_true_too(rule, mode):
    x = random((2, 6, 6, 2), "float32")
    model = network()

    def penalty_gradients(x):
        with tf.GradientTape() as outer:
            with tf.GradientTape() as inner:
                inner.watch(x)
                loss = tf.reduce_sum(tf.square(model(x)))
            penalty = tf.reduce_sum(tf.square(inner.gradient(loss, x)))
        return outer.gradient(penalty, [layer.trainable_variables[0] for layer in kernel_layers])

    kernel_layers = [layer for layer in model.layers if layer.trainable_variables]
    expected = penalty_gradients(x)
    tfbio.convert(model, rule)
    run = penalty_gradients if mode == "eager" else tf.function(penalty_gradients)
    run(x)
    with tfbio.true_gradient(model):
        actual = run(x)
    for ours, theirs in zip(actual, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4 * np.abs(theirs).max())


def test_the_switch_counts_where_the_model_is_called():
    model, x = network(), random((2, 6, 6, 2), "float32")
    expected = derivatives(model, x)[0]
    tfbio.convert(model, "fa")
    with tfbio.true_gradient(model), tf.GradientTape() as tape:
        tape.watch(x)
        loss = cross_entropy(model(x))
    assert equal([tape.gradient(loss, x)], [expected])

    @tf.function
    def inside():
        with tfbio.true_gradient(model):
            return x

    with pytest.raises(RuntimeError, match="outside of compiled functions"):
        inside()


def test_models_without_feedback_are_refused():
    with pytest.raises(ValueError, match="has no feedback layer"), tfbio.true_gradient(network()):
        pass
    layer = tfbio.layers.FeedbackDense(2)
    with pytest.raises(ValueError, match="not built"), tfbio.true_gradient(layer):
        pass
