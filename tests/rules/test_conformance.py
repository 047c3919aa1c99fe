"""Every rule in every mode of execution and precision, saved and loaded: one table drives it."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfbio
from tests.cases import (
    CONFIGURATIONS,
    DIFFERENTIATED,
    ONE_OF_A_KIND,
    cross_entropy,
    long_but,
    modes,
    random,
)

MODES = {
    "eager": lambda function: function,
    "graph": tf.function,
    "xla": lambda function: tf.function(function, jit_compile=True),
}
POLICIES = ("float32", "mixed_bfloat16")


def small():
    """Return a network whose step XLA compiles in a second or two."""
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, strides=2, padding="same", activation="relu", name="conv")(inputs)
    x = keras.layers.BatchNormalization(name="norm")(x)
    x = tfbio.layers.LocallyConnected2D(4, 3, padding="same", name="local")(x)
    x = keras.layers.Flatten()(x)
    return keras.Model(inputs, keras.layers.Dense(3, dtype="float32", name="out")(x))


def network():
    """Return a network with every kind of kernel layer."""
    x = inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, strides=2, padding="same", activation="relu", name="conv")(x)
    x = keras.layers.BatchNormalization(name="norm")(x)
    x = keras.layers.SeparableConv2D(4, 3, padding="same", name="separable")(x)
    x = keras.layers.DepthwiseConv2D(3, padding="same", activation="tanh", name="depthwise")(x)
    x = keras.layers.Conv2DTranspose(4, 2, name="transposed")(x)
    x = tfbio.layers.LocallyConnected2D(4, 3, padding="same", name="local")(x)
    x = keras.layers.Reshape((25, 4))(x)
    x = keras.layers.Conv1D(5, 3, padding="causal", name="conv1d")(x)
    x = keras.layers.EinsumDense("abc,cd->abd", (25, 4), name="einsum")(x)
    x = keras.layers.Flatten()(x)
    return keras.Model(inputs, keras.layers.Dense(3, dtype="float32", name="out")(x))


TABLE = list(itertools.product(DIFFERENTIATED, POLICIES, [network]))
TABLE += [(each, "float32", network) for each in CONFIGURATIONS if each not in DIFFERENTIATED]
TABLE += [(rule, "float32", small) for rule in ONE_OF_A_KIND]
TABLE += [("kolen_pollack", "mixed_bfloat16", small)]
LARGE = ("sign_symmetry",)
"""The rule that `make test` looks at in the network with every kind of layer."""
FAST = [(rule, "float32", network if rule in LARGE else small) for rule in ONE_OF_A_KIND]
FAST += [("kolen_pollack", "mixed_bfloat16", small)]
SAVED = [(rule, network if rule in ONE_OF_A_KIND else small) for rule in CONFIGURATIONS]
SAVED += [(rule, small) for rule in ONE_OF_A_KIND]
SAVED_FAST = [(rule, network if rule == "kolen_pollack" else small) for rule in ONE_OF_A_KIND]
EXPORTED = [*itertools.product(["backprop", "sign_symmetry", "brsf"], [network]), ("brsf", small)]


def converted(rule, network=network):
    keras.utils.set_random_seed(3)
    return tfbio.convert(network(), rule)


def gradients(model, x, training=True):
    with tf.GradientTape() as tape:
        tape.watch(x)
        loss = cross_entropy(model(x, training=training))
        loss += sum(model.losses)  # of a B that learns alone
    return tape.gradient(loss, [x, *model.trainable_variables])


def assert_close(actual, expected, tolerance):
    for a, e in zip(actual, expected, strict=True):
        a, e = np.asarray(tf.cast(a, tf.float64)), np.asarray(tf.cast(e, tf.float64))
        scale = np.linalg.norm(e)
        assert np.linalg.norm(a - e) <= tolerance * scale + 1e-12, (a, e)


def test_the_table_covers_every_rule_mode_and_precision():
    assert {tfbio.rules.get(rule).alias for rule, *_ in TABLE} == set(DIFFERENTIATED)
    for rule in DIFFERENTIATED:
        assert {policy for r, policy, _ in TABLE if r == rule} == set(POLICIES)
    assert set(MODES) == {"eager", "graph", "xla"}
    assert set(DIFFERENTIATED) >= set(ONE_OF_A_KIND)


@pytest.mark.parametrize(("rule", "policy", "build"), long_but(FAST, TABLE))
def test_a_rule_gives_the_same_gradients_in_every_mode(rule, policy, build):
    x = random((2, 8, 8, 3), "float32")
    named = [mode for configuration, mode in modes(MODES) if configuration == rule]
    if policy != "float32" and rule not in ONE_OF_A_KIND:
        named.remove("xla")
    # XLA takes seconds for every kind of layer: under one rule.
    compiled = network if rule == "sign_symmetry" else small
    networks = {mode: compiled if mode == "xla" else build for mode in named}
    references = {build: gradients(converted(rule, build), x) for build in networks.values()}
    keras.config.set_dtype_policy(policy)
    models = {build: converted(rule, build) for build in references}
    # bfloat16 keeps eight bits, which batch norm and six layers spread over a few percent.
    tolerance = 1e-4 if policy == "float32" else 0.15
    for mode, build in networks.items():
        model = models[build]
        result = MODES[mode](lambda x, model=model: gradients(model, x))(tf.identity(x))
        assert all(np.isfinite(g).all() for g in result), mode
        assert_close(result, references[build], tolerance)
        assert all(v.dtype == "float32" for v in model.trainable_variables)


@pytest.mark.parametrize(("rule", "build"), long_but(SAVED_FAST, SAVED))
def test_a_saved_model_comes_back_with_outputs_and_gradients(rule, build, tmp_path):
    x = random((4, 8, 8, 3), "float32")
    model = converted(rule, build)
    model.compile(
        "sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), run_eagerly=True
    )
    labels = np.arange(4) % 3
    model.fit(x, labels, epochs=2, batch_size=2, verbose=0)
    y, expected = model(x, training=False), gradients(model, x, training=False)

    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    model.save_weights(tmp_path / "model.weights.h5")
    keras.utils.set_random_seed(99)
    rebuilt = tfbio.convert(build(), rule)
    rebuilt.load_weights(tmp_path / "model.weights.h5")
    for other in (loaded, rebuilt):
        np.testing.assert_array_equal(other(x, training=False), y)
        actual = gradients(other, x, training=False)
        for a, e in zip(actual, expected, strict=True):
            np.testing.assert_array_equal(a, e)
    assert [v.path for v in loaded.weights] == [v.path for v in model.weights]
    # Both continue alike: what is drawn next is saved as well.
    for each in (loaded, model):
        each.fit(x, labels, batch_size=2, shuffle=False, verbose=0)
    for a, e in zip(loaded.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_allclose(a, e, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(("rule", "build"), long_but([("brsf", small)], EXPORTED))
def test_a_converted_model_exports_to_a_saved_model(rule, build, tmp_path):
    model, x = converted(rule, build), random((2, 8, 8, 3), "float32")
    model.export(tmp_path / "exported", verbose=False)
    served = tf.saved_model.load(str(tmp_path / "exported"))
    np.testing.assert_allclose(served.serve(x), model(x, training=False), rtol=1e-5, atol=1e-6)


def test_weights_saved_before_conversion_are_loaded_before_it(tmp_path):
    model, x = network(), random((2, 8, 8, 3), "float32")
    model.save_weights(tmp_path / "plain.weights.h5")
    other = network()
    other.load_weights(tmp_path / "plain.weights.h5")
    np.testing.assert_array_equal(tfbio.convert(other, "frsf")(x), model(x))
    # A kernel is saved once, not by its rule again.
    tfbio.convert(model, "feedback_alignment")
    model.save_weights(tmp_path / "converted.weights.h5")
    import h5py

    with h5py.File(tmp_path / "converted.weights.h5") as file:
        sizes = []
        file.visititems(
            lambda name, item: sizes.append(item.size) if hasattr(item, "size") else None
        )
    assert sum(sizes) == sum(np.size(w) for w in model.get_weights())
