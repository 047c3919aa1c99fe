"""Training loops: plain fit in all its settings, MirroredStrategy, and the hook per step."""

import functools
from typing import NamedTuple

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfbio
from tests.cases import (
    DIFFERENTIATED,
    ONE_OF_A_KIND,
    assert_same_learning,
    long_but,
    random,
)
from tfbio.layers.sites import find_sites


def network(rule, seed=0):
    keras.utils.set_random_seed(seed)
    model = keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            keras.layers.Conv2D(4, 3, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(3),
        ]
    )
    return tfbio.convert(model, rule)


X, Y = random((24, 6, 6, 2), "float32"), np.arange(24) % 3


def compiled(model, **arguments):
    model.compile(
        keras.optimizers.SGD(0.1, momentum=0.9, **arguments.pop("sgd", {})),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        **{"jit_compile": False, **arguments},
    )
    return model


def fitted(model, epochs=3, **arguments):
    model.fit(X, Y, batch_size=8, epochs=epochs, shuffle=False, verbose=0, **arguments)
    return model


def counts(model):
    return {int(site.rule.count.numpy()) for site in find_sites(model).values()}


class Reference(NamedTuple):
    """A model that plain fit trained on one device, compiled to a graph, and what it had."""

    model: keras.Model
    losses: list
    weights: list
    after_an_epoch: list


@pytest.fixture(scope="module")
def references():
    """Return a function from a rule to its reference."""

    @functools.cache
    def reference(rule):
        model = compiled(network(rule))
        losses, after = [], []
        for _ in range(3):
            losses += fitted(model, epochs=1).history.history["loss"]
            after.append(model.get_weights())
        return Reference(model, losses, after[-1], after[0])

    return reference


SETTINGS = {
    "eager": {"run_eagerly": True},
    "xla": {"jit_compile": True, "steps_per_execution": 3},
}
AGREEING = [(rule, "eager") for rule in DIFFERENTIATED] + [(rule, "xla") for rule in ONE_OF_A_KIND]
EAGER = ("brsf", "mirror_alignment")
FAST = [(rule, "eager") for rule in EAGER] + [("brsf", "xla"), ("kolen_pollack", "xla")]
CHANGING = ("brsf", "kolen_pollack", "mirror_alignment")
"""Rules whose feedback changes: every step, with the kernel's gradient, or by a loss of its own.
The weight mirror, which has a loop of its own: rules/test_weight_mirror.py."""


@pytest.mark.parametrize(("rule", "setting"), long_but(FAST, AGREEING))
def test_fit_agrees_in_every_setting(rule, setting, references):
    _, _, expected, after_an_epoch = references(rule)
    # Eagerly three steps only: each takes as long as the first.
    epochs, learned = (1, after_an_epoch) if setting == "eager" else (3, expected)
    weights = fitted(compiled(network(rule), **SETTINGS[setting]), epochs).get_weights()
    assert_same_learning(weights, learned, network(rule).get_weights())


def on_replicas(rule):
    """Return a compiled network on two replicas."""
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    assert strategy.num_replicas_in_sync == 2
    with strategy.scope():
        return compiled(network(rule))


@pytest.mark.parametrize("rule", long_but([*CHANGING, "direct_feedback_alignment"], DIFFERENTIATED))
def test_mirrored_training_equals_training_on_one_device(rule, references):
    reference = references(rule)
    mirrored = on_replicas(rule)
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(8)
    history = mirrored.fit(data, epochs=3, shuffle=False, verbose=0).history
    assert_same_learning(mirrored.get_weights(), reference.weights, network(rule).get_weights())
    np.testing.assert_allclose(history["loss"], reference.losses, rtol=1e-3)


@pytest.mark.parametrize("rule", long_but(EAGER, DIFFERENTIATED))
def test_evaluate_and_predict_agree_and_change_nothing(rule, references):
    model, _, expected, _ = references(rule)
    loss, accuracy = model.evaluate(X, Y, verbose=0)
    assert np.isfinite(loss)
    assert accuracy == pytest.approx(np.mean(model.predict(X, verbose=0).argmax(1) == Y))
    for w, e in zip(model.get_weights(), expected, strict=True):
        np.testing.assert_array_equal(w, e)


@pytest.mark.parametrize("rule", long_but(["brsf"], DIFFERENTIATED))
def test_a_mirrored_model_is_measured_and_saved_as_one_on_one_device(rule, references, tmp_path):
    model, _, weights, _ = references(rule)
    mirrored = on_replicas(rule)
    mirrored.set_weights(weights)
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(8)
    expected = model.evaluate(X, Y, verbose=0)
    np.testing.assert_allclose(mirrored.evaluate(data, verbose=0), expected, rtol=1e-3)
    outputs = mirrored.predict(data, verbose=0)
    np.testing.assert_allclose(outputs, model.predict(X, verbose=0), rtol=1e-3, atol=1e-5)
    mirrored.save(tmp_path / "mirrored.keras")
    loaded = keras.models.load_model(tmp_path / "mirrored.keras")
    for name, site in find_sites(loaded).items():
        np.testing.assert_array_equal(site.feedback, find_sites(mirrored)[name].feedback)


def test_training_on_real_digits_learns_under_sign_symmetry():
    from tfbio import data

    digits = data.load("digits")
    model = tfbio.models.build("digits_cnn", 10, (8, 8, 1))
    compiled(tfbio.convert(model, "sign_symmetry"))
    for epoch in range(5):
        model.fit(digits.train.batches(64, order=(0, epoch)), shuffle=False, verbose=0)
    assert model.evaluate(digits.test.batches(64), verbose=0)[1] > 0.8


@pytest.mark.parametrize(
    "setting",
    [
        {},
        {"jit_compile": True, "steps_per_execution": 3},
        pytest.param({"jit_compile": True}, marks=pytest.mark.long),
        pytest.param({"steps_per_execution": 3}, marks=pytest.mark.long),
    ],
    ids=str,
)
def test_the_hook_is_called_once_per_optimizer_step_under_fit(setting):
    model = fitted(compiled(network("test_stepped"), **setting))
    model.evaluate(X, Y, verbose=0)
    model.predict(X, verbose=0)
    # Nine steps; the last is seen by the training call that follows it.
    assert counts(model) == {8}
    model.fit(X[:8], Y[:8], batch_size=8, verbose=0)
    assert counts(model) == {9}


def test_the_hook_sees_one_step_per_accumulated_gradient():
    model = compiled(network("test_stepped"), sgd={"gradient_accumulation_steps": 3})
    fitted(model, epochs=3)  # nine micro-batches, three steps
    assert counts(model) == {2}


@pytest.mark.parametrize("rule", long_but(CHANGING, DIFFERENTIATED))
def test_accumulated_gradients_learn_as_one_large_batch(rule):
    # Eagerly, which is quicker; what is compiled: test_strategies.py, of the trainers.
    settings = {"gradient_accumulation_steps": 2}
    model = compiled(network(rule), sgd=settings, run_eagerly=True)
    model.fit(X, Y, batch_size=12, epochs=2, shuffle=False, verbose=0)
    reference = compiled(network(rule), run_eagerly=True)
    reference.fit(X, Y, batch_size=24, epochs=2, shuffle=False, verbose=0)
    start = network(rule).trainable_variables
    assert_same_learning(model.trainable_variables, reference.trainable_variables, start)


@pytest.mark.long
def test_the_hook_sees_one_step_on_all_replicas():
    assert counts(fitted(on_replicas("test_stepped"))) == {8}


@pytest.mark.parametrize("training", [True, None])
@pytest.mark.parametrize("compiled_loop", [False, True])
def test_the_hook_is_called_in_a_loop_of_ones_own(training, compiled_loop):
    shared = keras.layers.Dense(4)
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(2)(shared(shared(inputs))))
    tfbio.convert(model, "test_stepped")
    optimizer = keras.optimizers.SGD(0.1)
    optimizer.build(model.trainable_variables)
    x = random((5, 4), "float32")

    def step():
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.square(model(x, training=training)))
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))

    run = tf.function(step) if compiled_loop else step
    for _ in range(4):
        run()
        model(x, training=False)
    assert counts(model) == {3}


@pytest.mark.parametrize(
    "rule", long_but([*ONE_OF_A_KIND, "test_stepped"], [*DIFFERENTIATED, "test_stepped"])
)
def test_stateless_calls_return_the_state_that_a_call_would_keep(rule):
    model = network(rule)
    model.layers[0].kernel.assign_add(tf.ones_like(model.layers[0].kernel))

    @tf.function
    def call(x):
        weights = ([v.value for v in group] for group in (
            model.trainable_variables, model.non_trainable_variables))  # fmt: skip
        return model.stateless_call(*weights, x, training=True)

    before = [v.numpy() for v in model.non_trainable_variables]
    y, state = call(tf.constant(X))
    for w, expected in zip(model.non_trainable_variables, before, strict=True):
        np.testing.assert_array_equal(w, expected)
    np.testing.assert_allclose(model(X, training=True), y, rtol=1e-5, atol=1e-6)
    for w, expected in zip(model.non_trainable_variables, state, strict=True):
        np.testing.assert_array_equal(w, expected)


def test_a_trainable_feedback_follows_w_to_the_end():
    # Kolen and Pollack's identity: equal gradients keep W − B constant under plain SGD.
    model = compiled(network("kolen_pollack"))
    before = {n: s.kernel - s.feedback for n, s in find_sites(model).items()}
    fitted(model)
    for name, site in find_sites(model).items():
        np.testing.assert_allclose(site.kernel - site.feedback, before[name], atol=1e-5)
    assert len(model.trainable_variables) == 2 * 3


def test_masks_constraints_and_regularizers_are_kept():
    inputs = keras.Input((5, 4))
    x = keras.layers.Masking()(inputs)
    dense = keras.layers.Dense(
        3,
        kernel_constraint=keras.constraints.MaxNorm(0.5),
        kernel_regularizer=keras.regularizers.L2(0.1),
        activity_regularizer=keras.regularizers.L2(0.1),
    )
    model = keras.Model(inputs, keras.layers.GlobalAveragePooling1D()(dense(x)))
    x = random((2, 5, 4), "float32").numpy()
    x[:, 3:] = 0
    y = model(x)
    losses = [float(loss) for loss in model.losses]
    tfbio.convert(model, "sign_symmetry")
    np.testing.assert_array_equal(model(x), y)
    assert [float(loss) for loss in model.losses] == losses
    model.compile(keras.optimizers.SGD(1.0), "mse", jit_compile=False)
    model.fit(x, random((2, 3), "float32") * 10, verbose=0)
    assert (np.linalg.norm(dense.kernel, axis=0) <= 0.5 + 1e-6).all()


@pytest.mark.parametrize("rule", long_but(CHANGING[:2], DIFFERENTIATED))
def test_a_float16_model_with_loss_scaling_learns_as_in_float32(rule, references):
    reference = references(rule)
    keras.config.set_dtype_policy("mixed_float16")
    model = network(rule)
    model.compile(
        keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1, momentum=0.9), 1024.0),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=False,
    )
    fitted(model, epochs=1)
    weights = zip(model.weights, reference.model.weights, reference.after_an_epoch, strict=True)
    for ours, theirs, expected in weights:
        if theirs.trainable:
            np.testing.assert_allclose(ours, expected, atol=5e-3)
