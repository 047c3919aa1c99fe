"""Clipping of what a layer returns: an oracle in float64, its way through a network, its limits."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfbio
from tests.cases import Case, random

CASES = [
    Case("Dense", {"units": 3, "activation": "tanh"}, (4, 5)),
    Case("Conv2D", {"filters": 4, "kernel_size": 3, "use_bias": False}, (2, 6, 6, 3)),
    Case("Conv1D", {"filters": 4, "kernel_size": 3, "padding": "causal"}, (2, 9, 3)),
    Case("LocallyConnected1D", {"filters": 2, "kernel_size": 3}, (2, 7, 2)),
]


def gradients(layer, x, error):
    """Return ∂x and the trainable weights' gradients for an error at the output."""
    with tf.GradientTape() as tape:
        tape.watch(x)
        loss = tf.reduce_sum(error * layer(x))
    return tape.gradient(loss, [x, *(v.value for v in layer.trainable_variables)])


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("rule", ["feedback_alignment(seed=1)", "kolen_pollack(seed=1)"])
def test_every_gradient_of_a_layer_is_clipped_by_itself(case, rule):
    free = case.feedback_layer(rule, dtype="float64")
    clipped = case.feedback_layer(rule, dtype="float64", clip=0.3)
    x = random(case.shape)
    clipped(x), free(x)
    clipped.set_weights(free.get_weights())
    np.testing.assert_array_equal(clipped(x), free(x))
    error = random(free(x).shape, seed=2)
    found = gradients(clipped, x, error)
    for ours, whole in zip(found, gradients(free, x, error), strict=True):
        assert np.abs(whole).max() > 0.3
        np.testing.assert_array_equal(ours, np.clip(whole, -0.3, 0.3))


def test_a_layer_below_learns_by_the_clipped_error():
    layers = [keras.Input((4,)), keras.layers.Dense(5, "tanh"), keras.layers.Dense(3)]
    model = tfbio.convert(keras.Sequential(layers), "feedback_alignment(seed=1)", clip=0.01)
    x, e = random((6, 4), "float32"), random((6, 3), "float32", seed=2)
    first, last = model.layers
    hidden = first(x)
    found = gradients(model, x, e)
    dh = np.clip(e @ tf.transpose(last.feedback), -0.01, 0.01) * (1 - hidden**2)
    expected = np.clip(tf.transpose(x) @ dh, -0.01, 0.01)
    assert 0 < np.abs(expected).max() <= 0.01
    np.testing.assert_allclose(found[1], expected, rtol=1e-4, atol=1e-8)


def test_the_true_gradient_is_not_clipped():
    layer = tfbio.layers.FeedbackDense(3, rule="feedback_alignment", clip=1e-3, dtype="float64")
    model = keras.Sequential([keras.Input((4,), dtype="float64"), layer])
    x, e = random((2, 4)), random((2, 3), seed=1)
    with tfbio.true_gradient(model):
        np.testing.assert_allclose(gradients(model, x, e)[0], e @ tf.transpose(layer.kernel))
    assert np.abs(gradients(model, x, e)[0]).max() == 1e-3


def test_the_bound_is_saved_and_goes_with_a_new_conversion(tmp_path):
    layers = [keras.Input((4,)), keras.layers.Dense(3), keras.layers.Dense(2)]
    model = tfbio.convert(keras.Sequential(layers), "fa", last_layer="backprop", clip=0.5)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert [layer.clip for layer in again.layers] == [0.5, None]
    assert [layer.clip for layer in tfbio.convert(again, "fa").layers] == [None, None]


def test_a_bound_without_effect_is_refused():
    def model():
        layers = [keras.Input((4,)), keras.layers.Dense(3, "tanh"), keras.layers.Dense(2)]
        return keras.Sequential(layers)

    with pytest.raises(ValueError, match="`clip` has no effect where every layer is on backprop"):
        tfbio.convert(model(), "backprop", clip=1.0)
    with pytest.raises(ValueError, match="`clip` has no effect under rule 'direct_feedback"):
        tfbio.convert(model(), "dfa", clip=1.0)
    with pytest.raises(ValueError, match="`clip` must be"):
        tfbio.convert(model(), "fa", clip=0.0)
