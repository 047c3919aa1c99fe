"""Kernels that keep their norm: in training, saved, and where that is refused."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfbio
from tests.cases import random
from tfbio import optimizers


def some_model(dtype="float64"):
    layers = [
        keras.Input((6, 6, 2), dtype=dtype),
        keras.layers.Conv2D(4, 3, activation="tanh", dtype=dtype, name="conv"),
        keras.layers.BatchNormalization(dtype=dtype, name="norm"),
        keras.layers.Flatten(dtype=dtype),
        keras.layers.Dense(3, dtype=dtype, name="logits"),
    ]
    return keras.Sequential(layers)


@pytest.mark.parametrize("rule", ["feedback_alignment(seed=1)", "sign_symmetry", "backprop"])
def test_kernels_keep_their_norms_and_learn_all_the_same(rule):
    keras.utils.set_random_seed(0)
    free = tfbio.convert(some_model(), rule)
    kept = keras.models.clone_model(free)
    kept.set_weights(free.get_weights())
    optimizers.keep_norms(kept)
    x, y = random((5, 6, 6, 2)), random((5, 3), seed=1)
    before = {name: kept.get_layer(name).kernel.numpy() for name in ("conv", "logits")}
    for model in (free, kept):
        model.compile(optimizers.get("sgd", 0.5), "mse")
    for model in (free, kept):
        model.train_on_batch(x, y)
    for name, old in before.items():
        step, scaled = free.get_layer(name).kernel.numpy(), kept.get_layer(name).kernel.numpy()
        assert abs(np.linalg.norm(step) / np.linalg.norm(old) - 1) > 1e-3
        # The oracle: the step as it would have been, then scaled to the norm of before.
        expected = step * np.linalg.norm(old) / np.linalg.norm(step)
        np.testing.assert_allclose(scaled, expected, rtol=1e-12)
        assert np.abs(scaled - old).max() > 1e-3
        np.testing.assert_array_equal(
            kept.get_layer(name).bias.numpy(), free.get_layer(name).bias.numpy()
        )
    np.testing.assert_array_equal(
        kept.get_layer("norm").gamma.numpy(), free.get_layer("norm").gamma.numpy()
    )


def test_the_norm_is_saved_with_the_model(tmp_path):
    model = optimizers.keep_norms(tfbio.convert(some_model(), "feedback_alignment"))
    norm = float(tf.norm(model.get_layer("conv").kernel))
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    again.get_layer("conv").kernel.assign(3 * again.get_layer("conv").kernel)
    again.compile(optimizers.get("sgd", 0.1), "mse")
    again.train_on_batch(random((5, 6, 6, 2)), random((5, 3), seed=1))
    assert float(tf.norm(again.get_layer("conv").kernel)) == pytest.approx(norm, rel=1e-9)


def test_a_constraint_is_refused_where_it_would_not_hold():
    def convert(rule="feedback_alignment", **options):
        layers = [keras.Input((4,)), keras.layers.Dense(3, name="dense", **options)]
        return tfbio.convert(keras.Sequential(layers), rule)

    with pytest.raises(ValueError, match="`keep_norms` does not go with rule 'kolen_pollack'"):
        optimizers.keep_norms(convert("kolen_pollack"))
    with pytest.raises(ValueError, match="of layer 'dense' has a constraint already"):
        optimizers.keep_norms(convert(kernel_constraint="max_norm"))
    with pytest.raises(ValueError, match="of layer 'dense' is all zero"):
        optimizers.keep_norms(convert(kernel_initializer="zeros"))
    with pytest.raises(ValueError, match="`norm` must be"):
        optimizers.KeepNorm(0.0)
