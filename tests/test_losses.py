"""The losses of logits, against their definitions in float64, and what they hand over."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfbio
from tests.cases import long_but, random
from tests.training.test_strategies import NETWORK, distance, learned
from tfbio import _keras, attacks, losses, training
from tfbio.networks import direct

K = keras.layers
SIGMOID = losses.NAMES[1:]


def by_definition(kind, y, z):
    """Return (each example's loss, its gradient by the logits) in float64, of mild logits."""
    y, z = np.eye(z.shape[1])[y], np.float64(z)
    if kind == "cross_entropy":
        p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
        return -(y * np.log(p)).sum(1), p - y
    p = 1 / (1 + np.exp(-z))
    if kind == "squared_error":
        return ((p - y) ** 2).mean(1), 2 * (p - y) * p * (1 - p) / z.shape[1]
    mean = z.shape[1] if kind == "binary_cross_entropy" else 1
    each = y * np.logaddexp(0, -z) + (1 - y) * np.logaddexp(0, z)  # −log p and −log(1 − p)
    return each.sum(1) / mean, (p - y) / mean


@pytest.mark.parametrize("kind", losses.NAMES)
def test_losses_are_their_definition(kind):
    y, z = np.arange(6) % 4, 3 * random((6, 4))
    values, slopes = by_definition(kind, y, z.numpy())
    loss = losses.ClassificationLoss(kind, dtype="float64")
    weights = np.arange(6.0)
    for labels in (y, y[:, None], np.eye(4)[y]):
        with tf.GradientTape() as tape:
            tape.watch(z)
            value = loss(labels, z, weights)
        np.testing.assert_allclose(value, np.mean(weights * values), rtol=1e-12)
        np.testing.assert_allclose(
            tape.gradient(value, z), weights[:, None] * slopes / 6, rtol=1e-12
        )
    np.testing.assert_allclose(losses.example_losses(kind, y, z), values, rtol=1e-12)
    again = keras.losses.deserialize(keras.losses.serialize(losses.ClassificationLoss(kind)))
    np.testing.assert_allclose(again(y, z), np.mean(values), rtol=1e-6)


@pytest.mark.parametrize("kind", SIGMOID)
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_losses_keep_what_a_rounded_probability_has_lost(kind, dtype):
    # σ(±30) is 1 and 0 but for 1e-13, which float32 has only near 0.
    z = tf.constant([[30.0, -30.0, -30.0], [-30.0, 30.0, -30.0]], dtype)
    with tf.GradientTape() as tape:
        tape.watch(z)
        value = losses.ClassificationLoss(kind)([0, 0], z)
    assert value.dtype == tf.float32
    slope = tape.gradient(value, z)
    expected, slopes = by_definition(kind, [0, 0], np.float64([[30, -30, -30], [-30, 30, -30]]))
    np.testing.assert_allclose(value, np.mean(expected), rtol=1e-6)
    if dtype != "float16":  # which has nothing below 6e-8
        np.testing.assert_allclose(tf.cast(slope, tf.float64)[0, 0], slopes[0, 0] / 2, rtol=0.01)
        assert np.all(np.asarray(tf.cast(slope, tf.float32)) != 0)


@pytest.mark.parametrize("kind", SIGMOID)
@pytest.mark.parametrize("label", [4, -1, 1.5])
def test_a_label_of_no_class_is_refused_and_nan_in_a_graph(kind, label):
    loss, z = losses.ClassificationLoss(kind), tf.zeros((2, 4))
    with pytest.raises(ValueError, match=rf"integers of 0 to 3, for 4 classes\. .*: {label}"):
        loss(np.float32([0, label]), z)
    for jit in (False, True):
        compiled = tf.function(loss, jit_compile=jit)
        assert np.isnan(compiled(tf.constant([0, label], tf.float32), z))
        assert np.isfinite(compiled(tf.constant([0, 3], tf.float32), z))


def test_unknown_losses_are_refused():
    with pytest.raises(ValueError, match=r"^`loss` must be one of cross_entropy, .*'hinge'"):
        losses.ClassificationLoss("hinge")


def network(dtype="float64", hidden=5):
    keras.utils.set_random_seed(0)
    layers = [keras.Input((4,), dtype=dtype), K.Dense(hidden, "tanh", dtype=dtype, name="hidden")]
    return keras.Sequential([*layers, K.Dense(3, dtype=dtype, name="out")])


def hidden_gradient(model, x, y, loss, weights=None, scale=1.0):
    with tf.GradientTape() as tape:
        value = scale * loss(y, model(x, training=True), weights)
    return tape.gradient(value, model.layers[0].kernel).numpy()


RULES = {
    "dfa(error='outputs')": lambda y, p: p - y,
    "sign_dfa": lambda y, p: np.sign(p - y),
    "drtp": lambda y, p: y,
}


@pytest.mark.parametrize("kind", losses.NAMES)
@pytest.mark.parametrize("rule", RULES)
def test_hidden_layers_learn_from_the_targets_under_every_loss(rule, kind):
    x, y = random((6, 4)), np.arange(6) % 3
    weights = np.float64([1, 0, 2, 1, 0.5, 3])
    model = tfbio.convert(network(), rule)
    loss = losses.ClassificationLoss(kind, dtype="float64")
    p = losses.predictions(kind, model(x)).numpy()
    signal = weights[:, None] * RULES[rule](np.eye(3)[y], p) / 6
    b = direct.owner(model).rule.matrix(0).numpy()
    slope = 1 - np.tanh(x @ model.layers[0].kernel + model.layers[0].bias) ** 2
    expected = x.numpy().T @ (signal @ b * slope)
    found = hidden_gradient(model, x, y, loss, weights)
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    for compiled in ({}, {"jit_compile": True}) if kind == "squared_error" else ():
        run = tf.function(lambda: hidden_gradient_of(model, x, y, loss, weights), **compiled)
        np.testing.assert_allclose(run(), expected, rtol=1e-10)
    with tfbio.true_gradient(model):
        true = hidden_gradient(model, x, y, loss, weights)
    plain = network()
    plain.set_weights([w.numpy() for w in model.weights if "direct_feedback" not in w.path])
    np.testing.assert_allclose(true, hidden_gradient(plain, x, y, loss, weights), rtol=1e-10)


def hidden_gradient_of(model, x, y, loss, weights):
    with tf.GradientTape() as tape:
        value = loss(y, model(x, training=True), weights)
    return tape.gradient(value, model.layers[0].kernel)


@pytest.mark.parametrize("kind", losses.NAMES)
@pytest.mark.parametrize("margin", [0.0, 20.0, 300.0])
def test_no_target_is_lost_where_the_error_is_rounded_to_zero(kind, margin):
    x, y = random((6, 4), "float32"), np.arange(6) % 3
    loss = losses.ClassificationLoss(kind)
    found = {}
    for rule in ("sign_dfa", "drtp"):
        model = tfbio.convert(network("float32"), f"{rule}(seed=0)")
        # Equal logits, but for one class: whose example is learned, and all others are not.
        model.get_layer("out").kernel.assign(tf.zeros((5, 3)))
        model.get_layer("out").bias.assign([margin, -margin, -margin])
        for scale in (1.0, 2.0**15):
            found[rule, scale] = hidden_gradient(model, x, y, loss, scale=scale) / scale
    slope = 1 - np.tanh(x @ model.layers[0].kernel + model.layers[0].bias) ** 2
    b, one_hot = direct.owner(model).rule.matrix(0).numpy(), np.eye(3, dtype="float32")[y]
    for (rule, _), value in found.items():
        signal = (one_hot if rule == "drtp" else 1 - 2 * one_hot) / 6
        np.testing.assert_allclose(value, x.numpy().T @ (signal @ b * slope), rtol=1e-4, atol=1e-6)


def test_a_masked_example_hands_nothing_over():
    logits, zeros = random((4, 3), "float32"), tf.zeros((4, 4))
    _keras.set_mask(logits, tf.constant([True, False, True, True]))
    handover = losses.Handover(zeros)
    handover.attach(logits)
    with tf.GradientTape() as tape:
        tape.watch(zeros)
        value = losses.ClassificationLoss()([0, 1, 2, 0], logits)
    given = handover.given(logits, tape.gradient(value, zeros))
    np.testing.assert_allclose(given.factor[:, 0], [1 / 3, 0, 1 / 3, 1 / 3], rtol=1e-6)
    np.testing.assert_allclose(given.targets, given.factor * np.eye(3)[[0, 1, 2, 0]])


@pytest.mark.parametrize("kind", long_but(["squared_error"], ["squared_error", "cross_entropy"]))
def test_fit_saves_and_goes_on_with_its_loss(kind, tmp_path):
    x, y = random((8, 4), "float32"), np.arange(8) % 3
    model = tfbio.convert(network("float32"), "drtp")
    model.compile("sgd", losses.ClassificationLoss(kind), metrics=["accuracy"])
    model.fit(x, y, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.loss.kind == kind
    for each in (model, loaded):
        each.fit(x, y, verbose=0, shuffle=False)
    np.testing.assert_allclose(loaded(x), model(x), rtol=1e-6)


def test_a_loss_called_out_of_reach_of_the_network_is_no_silent_loss_of_targets():
    x, y = random((6, 4), "float32"), np.arange(6) % 3
    model = tfbio.convert(network("float32"), "drtp")

    def cut(y, logits, weights):
        return losses.ClassificationLoss("squared_error")(y, tf.identity(logits), weights)

    with pytest.raises(tf.errors.InvalidArgumentError, match="called with the network's own outp"):
        hidden_gradient(model, x, y, cut)
    softmax = keras.Sequential([keras.Input((4,)), K.Dense(5, "tanh"), K.Dense(3, "softmax")])
    model = tfbio.convert(softmax, "drtp")
    model.compile("sgd", losses.ClassificationLoss())
    with pytest.raises(ValueError, match=r"ClassificationLoss, for a model of logits, or"):
        model.fit(x, y, verbose=0)


def test_target_propagation_takes_its_target_from_any_loss_but_where_it_compares_a_softmax():
    x, y = random((6, 4), "float32"), np.arange(6) % 3
    for rule in ("sdtp", "ao_sdtp"):
        with pytest.raises(ValueError, match=r"rule='.*sdtp'` .*go with `loss='squared_error'`"):
            training.Classification(rule=rule, loss="squared_error")
        model = tfbio.convert(network("float32"), rule)
        model.compile("sgd", losses.ClassificationLoss("squared_error"))
        with pytest.raises(ValueError, match=r"compares the softmax of the outputs"):
            model.fit(x, y, verbose=0)
    with pytest.raises(ValueError, match=r"`evaluation_crops` .*`loss='squared_error'`"):
        training.Classification(loss="squared_error", evaluation_crops=10)


@pytest.mark.parametrize("kind", SIGMOID)
def test_attacks_climb_the_loss_that_was_learned(kind):
    y, x = np.arange(5) % 3, 0.5 + 0.1 * random((5, 4))
    model = network()
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = losses.example_losses(kind, y, model(x))
    slope = tape.gradient(value, x).numpy()
    found = attacks.gradient(model, x, y, kind).numpy()
    ratio = found / slope  # one positive factor for each example
    assert np.all(ratio > 0)
    np.testing.assert_allclose(ratio, ratio[:, :1] * np.ones((1, 4)), rtol=1e-9)
    assert np.any(np.sign(attacks.gradient(model, x, y)) != np.sign(slope))
    np.testing.assert_array_equal(
        attacks.fgsm(model, x, y, 0.01, loss=kind), x + 0.01 * np.sign(slope)
    )
    # A sure network: the gradient itself is 0 in float32.
    sure = network("float32")
    sure.layers[-1].kernel.assign(1e4 * sure.layers[-1].kernel)
    assert np.all(attacks.gradient(sure, x, y, kind) != 0)
    worst = attacks.pgd(model, x, y, 0.2, 3, restarts=4, loss=kind)
    for restart in (1, 2):
        other = attacks.pgd(model, x, y, 0.2, 3, restarts=restart, loss=kind)
        wrong = [np.argmax(model(each), 1) != y for each in (worst, other)]
        values = [losses.example_losses(kind, y, model(each)).numpy() for each in (worst, other)]
        assert np.all(wrong[0] >= wrong[1])
        assert np.all((wrong[0] != wrong[1]) | (values[0] >= values[1]))
    with pytest.raises(ValueError, match=r"^`loss` must be one of"):
        attacks.fgsm(model, x, y, 0.01, loss="hinge")


@pytest.mark.parametrize(
    ("rule", "kind"),
    long_but(
        [("drtp", "squared_error")],
        [("drtp", "squared_error"), ("dtp", "binary_cross_entropy_sum")],
    ),
)
def test_the_trainer_learns_measures_and_predicts_by_the_loss(rule, kind, tmp_path):
    experiment = training.Classification(
        model="akrout_mnist", rule=rule, loss=kind, epochs=1, train_fraction=0.2,
        batch_size=50, shuffle=False, log_every=0, workdir=str(tmp_path / "run"),
    )  # fmt: skip
    training.train_and_evaluate(experiment, lambda text: None)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    model, _ = training.use.restored(experiment, "last")
    prepared = training.prepare(experiment)
    assert prepared.model.loss.kind == kind
    images, labels = prepared.dataset.test
    logits = model(np.asarray(images, "float32"))
    expected = float(tf.reduce_mean(losses.example_losses(kind, labels, logits)))
    assert summary["test_loss"] == pytest.approx(expected, rel=1e-5)
    if rule == "drtp":
        assert summary["gradient_angles"] != {}
    stored = [labels for _, labels in prepared.epoch(0, start=0)]
    again = [labels for _, labels in prepared.epoch(1, start=0)]
    for one, other in zip(stored, again, strict=True):
        np.testing.assert_array_equal(one, other)
    in_order = [labels for _, labels in prepared.train.batches(50)]
    np.testing.assert_array_equal(np.concatenate(stored), np.concatenate(in_order))
    shuffled = prepared.train.batches(50, order=(experiment.seed, 0))
    assert any(np.any(a != b[1]) for a, b in zip(stored, shuffled, strict=True))


@pytest.mark.parametrize(
    "more",
    long_but([{"strategy": "mirrored"}], [{"strategy": "mirrored"}, {"accumulate": 2}]),
    ids=str,
)
def test_targets_arrive_on_replicas_and_in_micro_batches(more, tmp_path):
    (tmp_path / "small.py").write_text(NETWORK.format(normalization=""))
    options = {"model": f"{tmp_path}/small.py:network", "rule": "drtp(seed=1)"}
    options |= {"loss": "squared_error", "jit": False}
    start, whole, _ = learned(options)
    _, parts, _ = learned(options, **more)
    assert distance(start, whole) > 1e-3
    assert distance(parts, whole) < 1e-5
