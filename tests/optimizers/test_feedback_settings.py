"""An optimizer's settings for a B that learns by a loss of its own."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfbio
from tests.cases import random
from tfbio import optimizers, training

RATE = 0.1


def network(
    feedback=None,
    rule="symmetric_alignment(alpha=0.5,beta=1.0)",
    name="sgd",
    run_eagerly=True,
    **more,
):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(3, "tanh"), keras.layers.Dense(2)]
    )
    tfbio.convert(model, rule)
    optimizer = optimizers.get(name, RATE, feedback=feedback, **more)
    model.compile(optimizer, "mse", run_eagerly=run_eagerly)
    return model


def steps(model, count, scale=1.0):
    """Return the values of (W, B) of the hidden layer before the first step and after each."""
    layer, found = model.layers[0], []
    for index in range(count + 1):
        found.append((layer.kernel.numpy(), layer.feedback.numpy()))
        if index < count:
            model.train_on_batch(
                scale * random((8, 4), "float32", index), random((8, 2), "float32")
            )
    return found


def moved(found):
    """Return, step by step, whether W and B changed."""
    pairs = itertools.pairwise(found)
    return [tuple(not np.array_equal(a, b) for a, b in zip(x, y, strict=True)) for x, y in pairs]


def test_b_has_a_rate_of_its_own():
    """∂B = B − W for α = ½, β = 1: by hand."""
    found = steps(network(optimizers.Feedback(learning_rate_scale=0.25), momentum=0.9), 3)
    buffer = 0
    for (w, b), (_, after) in itertools.pairwise(found):
        buffer = 0.9 * buffer + (b - w)
        np.testing.assert_allclose(after, b - 0.25 * RATE * buffer, rtol=1e-5, atol=1e-7)


def test_decay_clipping_and_signs_leave_b_alone():
    settings = {"weight_decay": 0.3, "clip_norm": 1e-3, "batch_manhattan": True}
    settings |= {"no_sign_change": True}
    found = steps(network(**settings), 3)
    for (w, b), (_, after) in itertools.pairwise(found):
        np.testing.assert_allclose(after, b - RATE * (b - w), rtol=1e-5, atol=1e-7)
    assert all(w for w, _ in moved(found))


def test_a_delay_keeps_b_for_so_many_steps():
    found = steps(network(optimizers.Feedback(delay=2), momentum=0.9), 4)
    assert moved(found) == [(True, False), (True, False), (True, True), (True, True)]
    w, b = found[2]
    # No momentum was gathered meanwhile.
    np.testing.assert_allclose(found[3][1], b - RATE * (b - w), rtol=1e-5, atol=1e-7)


def test_alternation_updates_one_of_both_at_a_time():
    settings = optimizers.Feedback(alternate=1, delay=1)
    found = steps(network(settings, run_eagerly=False, momentum=0.9), 6)
    assert moved(found) == [(False, False), *[(True, False), (False, True)] * 2, (True, False)]


def test_turns_of_two_lengths():
    """Kunin et al.: one step of alignment, then n of all else."""
    found = steps(network(optimizers.Feedback(alternate=(1, 3)), run_eagerly=False), 6)
    b, w = (False, True), (True, False)
    assert moved(found) == [b, w, w, w, b, w]


@pytest.mark.parametrize("delay", [0, 3, 7])
@pytest.mark.parametrize("alternate", [0, 1, 4, (1, 3), (3, 2)])
def test_updates_are_counted_as_they_are_taken(alternate, delay):
    settings = optimizers.Feedback(alternate=alternate, delay=delay)
    counts = [0, 0]
    for step in range(25):
        for alone in (False, True):
            assert int(settings.taken(tf.constant(step), alone)) == counts[alone], (step, alone)
            counts[alone] += bool(settings.turn(tf.constant(step), alone))


def test_adams_first_update_in_a_turn_is_its_first():
    found = steps(network(optimizers.Feedback(alternate=3), name="adam"), 5)
    assert moved(found) == [(False, True)] * 3 + [(True, False)] * 2
    (w, _), (after, _) = found[3:5]
    # Adam's very first step is the rate, whatever the gradient.
    np.testing.assert_allclose(abs(after - w), RATE, rtol=1e-3)


def test_an_own_optimizer_takes_bs_descent_with_its_own_moments():
    own = optimizers.Feedback(0.5, delay=1, optimizer=optimizers.get("adam", 1.0))
    found = steps(network(own), 4)
    m = v = 0
    for t, ((w, b), (_, after)) in enumerate(itertools.pairwise(found[1:]), start=1):
        g = b - w
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        step = np.sqrt(1 - 0.999**t) / (1 - 0.9**t) * m / (np.sqrt(v) + 1e-7)
        np.testing.assert_allclose(after, b - 0.5 * RATE * step, rtol=1e-4, atol=1e-6)


def test_the_settings_and_the_state_are_saved(tmp_path):
    own = optimizers.Feedback(0.5, 1, (1, 2), optimizers.get("adam", 1.0))
    model = network(own)
    steps(model, 3)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.optimizer.feedback.get_config() == model.optimizer.feedback.get_config()
    for a, b in zip(loaded.optimizer.variables, model.optimizer.variables, strict=True):
        np.testing.assert_array_equal(a, b)
    for (w, b), (v, c) in zip(steps(loaded, 3), steps(model, 3), strict=True):
        np.testing.assert_allclose(w, v, rtol=1e-6)
        np.testing.assert_allclose(b, c, rtol=1e-6)


def test_an_own_optimizer_counts_no_step_at_which_gradients_are_only_gathered():
    found = []
    for more in ({}, {"gradient_accumulation_steps": 2}):
        own = optimizers.Feedback(optimizer=optimizers.get("adam", 1.0))
        optimizer = optimizers.VariantSGD(RATE, feedback=own, **more)
        model = network(own)
        model.compile(optimizer, "mse", run_eagerly=not more)
        x, y = random((8, 4), "float32"), random((8, 2), "float32")
        for _ in range(3 * (2 if more else 1)):
            model.train_on_batch(x, y)
        found.append(model.layers[0].feedback.numpy())
        assert int(own.optimizer.iterations) == 3
    np.testing.assert_allclose(found[1], found[0], rtol=1e-5)


@pytest.mark.parametrize(
    "setting",
    [
        {"weight_decay": 0.1},
        {"clip_norm": 1.0},
        {"batch_manhattan": True},
        {"no_sign_change": True},
        {"feedback": optimizers.Feedback(0.5)},
    ],
)
def test_an_own_optimizers_settings_that_would_mean_nothing_are_refused(setting):
    own = optimizers.get("sgd", 1.0, **setting)
    with pytest.raises(ValueError, match="`optimizer` supplies only the update rule"):
        optimizers.Feedback(optimizer=own)


def test_an_own_optimizer_serves_one_model():
    own = optimizers.Feedback(optimizer=optimizers.get("adam", 1.0))
    steps(network(own), 1)
    with pytest.raises(ValueError, match="serves another model already"):
        steps(network(own), 1)


@pytest.mark.parametrize("rule", ["kolen_pollack", "symmetric_alignment", "dtp"])
def test_what_a_frozen_layer_owns_does_not_learn(rule):
    layers = [keras.layers.Dense(3, "tanh", name=name) for name in ("a", "b", "c")]
    model = keras.Sequential([keras.Input((4,)), *layers, keras.layers.Dense(2)])
    layers[1].trainable = False
    tfbio.convert(model, rule)
    model.compile(optimizers.get("sgd", RATE), "mse", run_eagerly=True)
    before = [w.numpy() for w in layers[1].weights]
    assert not layers[1].trainable_weights
    model.train_on_batch(random((8, 4), "float32"), random((8, 2), "float32"))
    for old, new in zip(before, layers[1].weights, strict=True):
        np.testing.assert_array_equal(new, old)
    layers[1].trainable = True
    assert len(layers[1].trainable_weights) > 2


def test_replicas_take_their_turns_together():
    x, y = random((24, 4), "float32"), random((24, 2), "float32")
    weights = []
    for strategy in (
        tf.distribute.get_strategy(),
        tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]),
    ):
        with strategy.scope():
            settings = optimizers.Feedback(1.0, 1, (1, 2), optimizers.get("adam", 1.0))
            model = network(settings, run_eagerly=strategy.num_replicas_in_sync == 1)
        model.fit(x, y, batch_size=4, shuffle=False, verbose=0)
        weights.append(model.get_weights())
    for one, two in zip(*weights, strict=True):
        np.testing.assert_allclose(two, one, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "error", "text"),
    [
        (
            {"learning_rate_scale": -1.0},
            ValueError,
            "`learning_rate_scale` must be a finite number of 0",
        ),
        ({"delay": 1.5}, ValueError, "`delay` must be an integer of 0 or more"),
        ({"alternate": -1}, ValueError, "`alternate` must be an integer of 0 or more"),
        ({"alternate": True}, ValueError, "`alternate` must be an integer of 0 or more"),
        ({"alternate": (1, 0)}, ValueError, "`alternate` must be .* pair of integers of 1 or more"),
        ({"alternate": (1, 2, 3)}, ValueError, "`alternate` must be .* pair of integers"),
        ({"optimizer": "adam"}, TypeError, "`optimizer` must be one of tfbio.optimizers"),
        ({"optimizer": keras.optimizers.SGD()}, TypeError, "must be one of tfbio.optimizers"),
    ],
)
def test_wrong_settings_are_refused(settings, error, text):
    with pytest.raises(error, match=text):
        optimizers.Feedback(**settings)


def test_settings_without_a_b_that_learns_alone_are_refused():
    model = network(optimizers.Feedback(delay=3), rule="kolen_pollack")
    with pytest.raises(ValueError, match=r"`feedback` has settings .* and the model has none"):
        steps(model, 1)
    experiment = training.Classification(rule="sign_symmetry", feedback_delay=3)
    with pytest.raises(
        ValueError, match=r"`feedback_delay` belongs to rules whose B .*`rule=sign_symmetry"
    ):
        training.prepare(experiment)


def test_the_options_reach_the_optimizer():
    experiment = training.Classification(
        rule="information_alignment",
        learning_rate=0.2,
        feedback_learning_rate=0.05,
        feedback_optimizer="adam",
        feedback_delay=7,
        feedback_alternate=3,
    )
    settings = training.prepare(experiment).model.optimizer.feedback
    assert settings.learning_rate_scale == 0.25
    assert (settings.delay, settings.alternate) == (7, (1, 3))
    assert type(settings.optimizer) is optimizers.VariantAdam


def test_the_trainers_turns_are_epochs():
    options = {"rule": "dtp(schedule='alternating')", "model": "bartunov_fc_mnist", "epochs": 4}
    prepared = training.prepare(training.Classification(**options))
    turns = prepared.model.optimizer.feedback.alternate
    assert turns == prepared.steps_per_epoch > 1
    for rule, message in (
        ("dtp", r"`feedback_alternate` does not go with `rule=dtp`, .* Leave it out\. Received: 2"),
        ("dtp(schedule='alternating')", "`feedback_alternate`, turns of a few steps, does"),
    ):
        both = training.Classification(**{**options, "rule": rule}, feedback_alternate=2)
        with pytest.raises(ValueError, match=message):
            training.prepare(both)
    shallow = training.Classification(**{**options, "model": "akrout_mnist"})
    with pytest.raises(ValueError, match=r"`rule`: Rule .* has no inverse to take turns with"):
        training.prepare(shallow)
