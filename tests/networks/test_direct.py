"""Direct feedback against oracles in float64, and its properties.

The hidden signal is linear in e and independent of all weights above; with B the transposed output
kernel, a network of one hidden layer learns as under backprop.
"""

import copy
import dataclasses
import itertools
import json
import pickle
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf
from rich.console import Console

import tfbio
from tests.cases import long_but, random
from tfbio import _keras, models, training
from tfbio.layers.sites import find_sites
from tfbio.networks import direct, graph
from tfbio.networks.direct.network import DirectNetwork
from tfbio.rules import targets
from tfbio.studies import comparison, comparison_figure
from tfbio.studies.runs import load
from tfbio.training import use

RULES = ("direct_feedback_alignment", "sign_dfa", "direct_random_target_projection")
K = keras.layers
ENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def residual(dtype="float64", seed=0, data_format="channels_last"):
    """Two residual blocks, the second with an identity shortcut, of a stem and a classifier."""
    keras.utils.set_random_seed(seed)
    first = data_format == "channels_first"
    more = {"padding": "same", "dtype": dtype, "data_format": data_format}
    norm = {"axis": 1 if first else -1, "dtype": dtype}
    inputs = keras.Input((2, 6, 6) if first else (6, 6, 2), dtype=dtype)
    x = K.Conv2D(3, 3, name="stem", **more)(inputs)
    x = K.ReLU(name="stem_relu", dtype=dtype)(K.BatchNormalization(name="stem_norm", **norm)(x))
    y = K.Conv2D(4, 3, strides=2, activation="tanh", name="one", **more)(x)
    y = K.Conv2D(4, 3, name="two", **more)(y)
    y = K.BatchNormalization(name="two_norm", **norm)(y)
    x = K.Conv2D(4, 1, strides=2, name="shortcut", **more)(x)
    x = K.Activation("relu", name="sum_relu", dtype=dtype)(K.Add(dtype=dtype)([x, y]))
    y = K.Conv2D(4, 3, name="again", **more)(x)
    x = K.Activation("relu", name="again_relu", dtype=dtype)(K.Add(dtype=dtype)([x, y]))
    x = K.GlobalAveragePooling2D(dtype=dtype, data_format=data_format)(x)
    return keras.Model(inputs, K.Dense(3, dtype=dtype, name="out")(x))


def mlp(dtype="float64", hidden=(5,), seed=0, inputs=4, **last):
    keras.utils.set_random_seed(seed)
    layers = [K.Dense(n, "tanh", dtype=dtype, name=f"h{i}") for i, n in enumerate(hidden)]
    out = K.Dense(3, dtype=dtype, name="out", **last)
    return keras.Sequential([keras.Input((inputs,), dtype=dtype), *layers, out])


def batch(dtype="float64", shape=(8, 6, 6, 2)):
    return random(shape, dtype), tf.constant(np.arange(shape[0]) % 3)


def gradients(model, x, y, scale=1.0, loss=ENTROPY, training=True, weights=None):
    with tf.GradientTape() as tape:
        value = scale * tf.cast(loss(y, model(x, training=training), weights), tf.float64)
    found = tape.gradient(value, model.trainable_variables)
    return dict(zip(map(name_of, model.trainable_variables), found, strict=True))


def name_of(variable):
    # A sequential model that is called before it is saved puts its own name before.
    return "/".join(variable.path.split("/")[-2:])


def assert_equal(actual, expected, tolerance=1e-10):
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        a, e = (np.asarray(tf.cast(each, tf.float64)) for each in (actual[name], value))
        assert np.linalg.norm(a - e) <= tolerance * np.linalg.norm(e) + 1e-13, name


def matrices(model):
    rule = direct.owner(model).rule
    return [rule.matrix(index) for index in range(len(rule.sizes))]


def signal_of(rule, logits, y):
    """The rule's signal, from the definition."""
    one_hot, n = np.eye(3)[y], len(y)
    p = tf.nn.softmax(logits).numpy()
    if rule == "sign_dfa":
        return np.sign(p - one_hot) / n
    return (p - one_hot if rule == "direct_feedback_alignment" else one_hot) / n


SPATIAL = list(itertools.product(RULES, ["shared", "dense"]))


@pytest.mark.parametrize(
    ("rule", "spatial"),
    long_but([SPATIAL[0], SPATIAL[1], ("sign_dfa", "shared"), (RULES[2], "dense")], SPATIAL),
)
def test_a_residual_network_agrees_with_an_oracle_made_by_hand(rule, spatial):
    x, y = batch()
    model = tfbio.convert(residual(), f"{rule}(spatial='{spatial}', init='frenkel')")
    actual = gradients(model, x, y)
    # On its own, in plain TensorFlow: ⟨h, signal·B⟩ has the gradient signal·B for h.
    plain = residual()
    plain.set_weights([w.numpy() for w in model.weights if "direct_feedback" not in w.path])
    layer = {each.name: each for each in plain.layers}
    signal = tf.constant(signal_of(rule, model(x, training=True), y))
    places = iter(matrices(model))
    surrogate = []

    def tapped(h):
        delta = signal @ next(places)
        if spatial == "shared":
            delta = delta[:, None, None, :] / np.prod(h.shape[1:3])
        surrogate.append(tf.reduce_sum(h * tf.reshape(tf.broadcast_to(
            delta, h.shape) if spatial == "shared" else delta, h.shape)))  # fmt: skip
        return tf.stop_gradient(h)

    with tf.GradientTape() as tape:
        h = tapped(tf.nn.relu(layer["stem_norm"](layer["stem"](x), training=True)))
        one = tapped(layer["one"](h))
        two = layer["two_norm"](layer["two"](one), training=True)
        h = tapped(tf.nn.relu(two + layer["shortcut"](h)))
        h = tapped(tf.nn.relu(h + layer["again"](h)))
        out = layer["out"](tf.reduce_mean(h, (1, 2)))
        objective = tf.add_n([tf.cast(ENTROPY(y, out), tf.float64), *surrogate])
    expected = tape.gradient(objective, plain.trainable_variables)
    named = dict(zip(map(name_of, plain.trainable_variables), expected, strict=True))
    # Keras computes its losses in float32.
    assert_equal(actual, named, 1e-6)


@pytest.mark.parametrize("rule", long_but(["direct_random_target_projection"], RULES))
def test_outputs_are_those_of_the_plain_model_to_the_bit(rule):
    x, _ = batch("float32")
    plain, model = residual("float32"), tfbio.convert(residual("float32"), rule)
    for training_ in (False, True):
        np.testing.assert_array_equal(model(x, training=training_), plain(x, training=training_))
    np.testing.assert_array_equal(model.predict(x, verbose=0), plain.predict(x, verbose=0))


def test_the_hidden_signal_is_linear_in_e_and_blind_to_all_weights_above():
    x, _ = batch()
    model = tfbio.convert(residual(), "dfa")
    e = [random((8, 3), seed=seed) for seed in (1, 2)]

    def hidden(upstream, above=()):
        with tf.GradientTape() as tape:
            logits = model(x, training=True)
        variables = [v for v in model.trainable_variables if v.path.partition("/")[0] not in above]
        found = tape.gradient(logits, variables, output_gradients=upstream)
        return {v.path: g for v, g in zip(variables, found, strict=True) if "out" not in v.path}

    one, two, both = (hidden(each) for each in (e[0], e[1], 2 * e[0] - 3 * e[1]))
    assert_equal(both, {name: 2 * one[name] - 3 * two[name] for name in one})
    above = ("one", "two", "two_norm", "shortcut", "again", "out")
    for name in above:
        for variable in model.get_layer(name).trainable_variables:
            variable.assign(random(variable.shape, seed=7))
    changed = hidden(e[0], above)
    assert_equal(changed, {name: one[name] for name in changed})
    assert set(changed) >= {"stem/kernel", "stem/bias", "stem_norm/gamma"}


def test_one_hidden_layer_with_b_of_the_output_is_backprop():
    x, y = random((8, 4)), tf.constant(np.arange(8) % 3)
    expected = gradients(mlp(), x, y)
    model = tfbio.convert(mlp(), "dfa")
    assert np.linalg.norm(gradients(model, x, y)["h0/kernel"] - expected["h0/kernel"]) > 1e-3
    owner = direct.owner(model)
    owner.rule.matrices[0].assign(tf.transpose(owner.kernel))
    assert_equal(gradients(model, x, y), expected)


@pytest.mark.parametrize("rule", ["sign_dfa", "drtp"])
def test_signals_of_targets_do_not_see_how_wrong_the_output_is(rule):
    x, y = batch()
    model = tfbio.convert(residual(), rule)
    before = gradients(model, x, y)
    for factor in (-3.0, 40.0):  # the error's size and the output itself
        model.get_layer("out").kernel.assign(factor * model.get_layer("out").kernel)
        after = gradients(model, x, y)
        hidden = [name for name in before if not name.startswith("out")]
        assert_equal({n: after[n] for n in hidden}, {n: before[n] for n in hidden}, 1e-6)
        assert np.linalg.norm(after["out/kernel"] - before["out/kernel"]) > 1e-3


def test_equal_labels_get_equal_signals_to_the_bit():
    rule = tfbio.rules.get("drtp")
    logits, y = 5 * random((6, 3), "float32"), np.int64([0, 2, 0, 1, 2, 0])
    error = (tf.nn.softmax(logits) - tf.one_hot(y, 3)) / 6
    signal = rule.signal(error, logits).numpy()
    np.testing.assert_allclose(signal, np.eye(3)[y] / 6, rtol=1e-6)
    assert len(np.unique(signal, axis=0)) == 3


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("sharpness", [1.0, 8.0, 30.0, 200.0])
def test_targets_and_factor_are_recovered_however_well_they_are_learned(dtype, sharpness):
    y = np.arange(64) % 10
    noise = np.random.default_rng(0).normal(size=(64, 10))
    logits = tf.cast(sharpness * (np.eye(10)[y] + 0.1 * noise), dtype)
    logits = tf.concat([logits[:60], tf.cast(noise[60:], dtype)], 0)  # a few not yet
    p = tf.nn.softmax(tf.cast(logits, tf.float32))
    for factor in (1 / 64, 512.0, 2.0**-10):
        error = tf.cast(factor * (p - tf.one_hot(y, 10)), dtype)
        found, scale, fits = targets.recover(error, logits)
        np.testing.assert_array_equal(np.argmax(found, 1), y)
        np.testing.assert_allclose(scale, factor, rtol=1e-5 if dtype == "float32" else 0.03)
        assert fits
        doubled, twice, _ = targets.recover(2 * error, logits)
        np.testing.assert_array_equal(doubled, found)
        if dtype != "float16":  # whose smallest numbers lose digits
            np.testing.assert_array_equal(twice, 2 * scale)


def test_weights_of_examples_count_and_other_losses_are_known():
    logits, y = random((6, 4), "float32"), np.arange(6) % 4
    weights = np.float32([1, 0, 2, 1, 0.5, 3])
    error = weights[:, None] * (tf.nn.softmax(logits) - tf.one_hot(y, 4)) / 6
    found, scale, fits = targets.recover(tf.constant(error), logits)
    np.testing.assert_allclose(scale[:, 0], weights / 6, rtol=1e-5)
    assert fits
    learned = weights > 0
    np.testing.assert_array_equal(np.argmax(found, 1)[learned], y[learned])
    smooth = 0.9 * tf.one_hot(y, 4) + 0.025
    for wrong in (logits - tf.one_hot(y, 4), tf.sigmoid(logits) - tf.one_hot(y, 4),
                  tf.nn.softmax(logits) - smooth):  # fmt: skip
        assert not targets.recover(wrong / 6, logits)[2]
    for nothing in (0 * error, np.inf * error):  # an overflow is no mistake
        assert targets.recover(tf.constant(nothing), logits)[2]


def test_draws_have_their_distribution_and_follow_their_seed():
    rule = tfbio.rules.get("dfa")
    for text, bounds in (
        ("dfa(seed=3)", (1 / 200**0.5, 1 / 200**0.5)),
        ("dfa(init='frenkel', seed=3)", ((6 / 50) ** 0.5, (6 / 200) ** 0.5)),
    ):
        one, again, other = (
            matrices(tfbio.convert(mlp("float32", (50, 200), seed=seed), rule))
            for seed, rule in ((0, text), (5, text), (0, text.replace("3", "4")))
        )
        for b, same, different, bound in zip(one, again, other, bounds, strict=True):
            assert b.shape in ((3, 50), (3, 200))
            np.testing.assert_array_equal(b, same)
            assert abs(np.corrcoef(np.ravel(b), np.ravel(different))[0, 1]) < 0.25
            assert 0.95 * bound < np.abs(b).max() <= bound
            assert np.std(b) == pytest.approx(bound / 3**0.5, rel=0.1)
    np.testing.assert_array_equal(one[0], again[0])
    launay = matrices(tfbio.convert(mlp("float32", (50, 200)), rule))
    np.testing.assert_array_equal(launay[0], launay[1][:, :50])


def test_the_global_seed_draws_b_and_b_is_no_kernel():
    models_ = [tfbio.convert(mlp("float32", (40, 40), seed=seed), "dfa") for seed in (1, 1, 2)]
    b = [np.asarray(matrices(model)[0]) for model in models_]
    np.testing.assert_array_equal(b[0], b[1])
    assert not np.allclose(b[0], b[2])
    w = models_[0].get_layer("out").kernel.numpy().T
    assert abs(np.corrcoef(b[0].ravel(), w.ravel())[0, 1]) < 0.4
    assert all(not v.trainable for v in direct.owner(models_[0]).rule.variables)


@pytest.mark.parametrize(("margin", "left"), [(80.0, True), (95.0, False)])
def test_the_signal_ends_where_the_whole_batchs_error_is_zero(margin, left):
    logits = tf.constant([[margin, 0.0, 0.0], [0.0, margin, 0.0]])
    error = (tf.nn.softmax(logits) - tf.one_hot([0, 1], 3)) / 2
    found, scale, fits = targets.recover(error, logits)
    np.testing.assert_array_equal(found, tf.one_hot([0, 1], 3))
    assert fits
    np.testing.assert_allclose(scale, 0.5 if left else 0.0, rtol=1e-3)


@pytest.mark.parametrize(
    "name", long_but(["residual", "resnet20", "lenet"], ["residual", "resnet20", "lenet", "keras"])
)
def test_without_feedback_the_output_layer_alone_moves(name):
    if name == "residual":
        model, shape = residual("float32"), (6, 6, 2)
    elif name == "keras":
        shape = (32, 32, 3)
        model = keras.applications.MobileNetV2(
            shape, 0.35, weights=None, classes=3, classifier_activation=None
        )
    else:
        shape = (32, 32, 3 if name == "resnet20" else 1)
        model = models.build(name, 3, shape)
    tfbio.convert(model, "dfa")
    for matrix in direct.owner(model).rule.matrices:
        matrix.assign(tf.zeros_like(matrix))
    found = gradients(model, *batch("float32", (4, *shape)))
    moved = {name for name, g in found.items() if g is not None and np.any(g)}
    last = direct.owner(model)
    assert moved == set(map(name_of, last.trainable_variables))
    assert all(g is not None for g in found.values())


def test_each_layer_learns_from_the_nearest_tap_and_from_one_only():
    def learners(model):
        return {tap.name: set(tap.learners) for _, tap in direct.plan(model, RULE).taps.values()}

    assert learners(residual()) == {
        "stem_relu": {"stem", "stem_norm"},
        "one": {"one"},
        "sum_relu": {"two", "two_norm", "shortcut"},
        "again_relu": {"again"},
    }
    # Activation before convolution: at the sum, which two operations take.
    x = inputs = keras.Input((4, 4, 2))
    x = K.Conv2D(3, 1, name="a")(x)
    y = K.ReLU(name="relu")(K.BatchNormalization(name="norm")(x))
    x = K.Add(name="sum")([x, K.Conv2D(3, 1, name="b")(y)])
    x = K.GlobalAveragePooling2D()(K.ReLU(name="top")(K.BatchNormalization(name="n")(x)))
    found = learners(keras.Model(inputs, K.Dense(2)(x)))
    assert found == {"a": {"a"}, "relu": {"norm"}, "top": {"b", "n"}}
    # No nonlinearity: at the next kernel's input. After one: weights without a kernel on their own.
    layers = [keras.Input((4, 4, 2)), K.Conv2D(3, 1, name="a"), K.Flatten(name="flat")]
    layers += [K.Dense(4, "relu", name="b"), K.BatchNormalization(name="norm"), K.Dense(2)]
    assert learners(keras.Sequential(layers)) == {"flat": {"a"}, "b": {"b"}, "norm": {"norm"}}


RULE = tfbio.rules.get("dfa")


@pytest.mark.parametrize(
    "name",
    long_but(
        ["MobileNetV3Small", "ConvNeXtTiny"], ["ResNet50V2", "MobileNetV3Small", "ConvNeXtTiny"]
    ),
)
def test_networks_of_keras_pass_no_error_down_through_any_kernel(name):
    model = getattr(keras.applications, name)(
        weights=None, input_shape=(32, 32, 3), classes=10, include_top=True
    )
    plan = direct.plan(model, RULE)
    steps, _ = graph.flattened(graph.inside(model))
    kernels = [step for step in steps if graph.contains_kernel(step.operation)]
    passing = [step.operation.name for step in kernels if step.node not in plan.cut]
    # The first convolution alone, which stands on the images.
    assert len(passing) == 1
    taught = [name for _, tap in plan.taps.values() for name in tap.learners]
    assert len(set(taught)) == len(taught)
    last = [name.rpartition("/")[2] for name in plan.last]
    names = {name.rpartition("/")[2] for name in taught}
    assert {step.operation.name for step in kernels} <= names | set(last)
    assert len(last) == 1
    assert plan.ends_in == "softmax"


def test_nested_models_and_shared_layers_are_rewired_as_the_flat_one():
    x, y = batch("float32")
    flat = residual("float32")
    nested = models.standardize(residual("float32"), [0.0, 0.0], [1.0, 1.0])
    for each in (flat, nested):
        tfbio.convert(each, "dfa(seed=1)")
    expected = gradients(flat, x, y)
    assert_equal(gradients(nested, x, y), expected, 1e-5)
    assert isinstance(nested, DirectNetwork)
    assert not isinstance(nested.layers[-1], DirectNetwork)
    # A layer that is called twice has two taps, and learns from both.
    shared = K.Dense(4, "tanh", name="shared")
    inputs = keras.Input((4,))
    model = keras.Model(inputs, K.Dense(3, name="out")(shared(shared(inputs))))
    tfbio.convert(model, "dfa(init='frenkel')")
    x, y = random((8, 4), "float32"), tf.constant(np.arange(8) % 3)
    whole = gradients(model, x, y)["shared/kernel"]
    parts = []
    for index in range(2):
        kept = [m.numpy() for m in direct.owner(model).rule.matrices]
        direct.owner(model).rule.matrices[index].assign(0 * kept[index])
        parts.append(gradients(model, x, y)["shared/kernel"])
        direct.owner(model).rule.matrices[index].assign(kept[index])
    assert all(np.abs(part).max() > 0 for part in parts)
    np.testing.assert_allclose(parts[0] + parts[1], whole, rtol=1e-4, atol=1e-6)


def test_channels_first_maps_have_a_column_per_channel():
    x = np.random.default_rng(0).normal(size=(4, 2, 6, 6))
    inputs = keras.Input((2, 6, 6), dtype="float64")
    # TensorFlow convolves channels first on a GPU only; this layer Keras transposes.
    conv = K.SeparableConv2D(
        3, 3, activation="tanh", data_format="channels_first", dtype="float64", name="conv"
    )
    h = K.Flatten(dtype="float64")(conv(inputs))
    model = keras.Model(inputs, K.Dense(3, dtype="float64")(h))
    (_, tap), = direct.plan(model, RULE).taps.values()  # fmt: skip
    assert (tap.shape, tap.channels) == ((3, 4, 4), 0)
    tfbio.convert(model, "dfa")
    e = random((4, 3))
    with tf.GradientTape() as tape:
        logits = model(x)
    bias = tape.gradient(logits, conv.bias, output_gradients=e)
    slope = 1 - np.square(keras.Model(inputs, conv.output)(x))
    delta = (e @ matrices(model)[0] / 16).numpy()[:, :, None, None]
    np.testing.assert_allclose(bias, (slope * delta).sum((0, 2, 3)), rtol=1e-8)


MODES = list(itertools.product(["eager", "graph", "xla"], RULES))


@pytest.mark.parametrize(
    ("mode", "rule"), long_but([*MODES[:3], ("graph", RULES[1]), ("xla", RULES[2])], MODES)
)
def test_a_model_that_ends_in_a_softmax_learns_as_from_its_logits(rule, mode):
    x, y = random((8, 4), "float32"), tf.constant(np.arange(8) % 3)
    logits = tfbio.convert(mlp("float32", (5, 6)), f"{rule}(seed=2)")
    softmax = tfbio.convert(mlp("float32", (5, 6), activation="softmax"), f"{rule}(seed=2)")
    np.testing.assert_array_equal(softmax(x), mlp("float32", (5, 6), activation="softmax")(x))
    entropy = keras.losses.SparseCategoricalCrossentropy()

    def of_softmax():
        return gradients(softmax, x, y, loss=entropy)

    if mode != "eager":
        of_softmax = tf.function(of_softmax, autograph=False, jit_compile=mode == "xla")
    assert_equal(of_softmax(), gradients(logits, x, y), 1e-5)


@pytest.mark.parametrize("rule", RULES)
def test_loss_scaling_replicas_and_micro_batches_change_no_signal(rule):
    x, y = batch("float32")
    model = tfbio.convert(residual("float32"), rule)
    whole = gradients(model, x, y, training=False)
    scaled = gradients(model, x, y, scale=2.0**15, training=False)
    for name, value in whole.items():
        np.testing.assert_array_equal(scaled[name] / 2.0**15, value)
    halves = [gradients(model, x[i::2], y[i::2], training=False) for i in range(2)]
    assert_equal({n: (halves[0][n] + halves[1][n]) / 2 for n in whole}, whole, 1e-5)
    # Examples of weight 0 teach nothing.
    weights = np.float32([1, 1, 1, 1, 0, 0, 0, 0])
    weighted = gradients(model, x, y, training=False, weights=weights)
    half = gradients(model, x[:4], y[:4], training=False)
    assert_equal(weighted, {n: g * 4 / 8 for n, g in half.items()}, 1e-4)


def test_the_true_gradient_is_backprops():
    x, y = batch()
    expected = gradients(residual(), x, y)
    model = tfbio.convert(residual(), "dfa")
    run = tf.function(lambda: gradients(model, x, y), autograph=False)
    ours = run()
    with tfbio.true_gradient(model):
        assert_equal(run(), expected, 1e-6)
        assert_equal(gradients(model, x, y), expected, 1e-6)
    assert_equal(run(), ours)
    assert np.linalg.norm(ours["stem/kernel"] - expected["stem/kernel"]) > 1e-3


def test_no_input_gradient_of_a_convolution_is_computed_but_for_the_true_gradient():
    model = tfbio.convert(residual("float32"), "dfa")
    x, y = batch("float32")
    graphs = _keras.collect_graphs(tf.function(lambda: gradients(model, x, y), autograph=False))
    backward = [n for graph in graphs for n in graph.node if "Conv2DBackpropInput" in n.op]
    for node in backward:
        # Behind the output of a switch that is alive within tfbio.true_gradient alone.
        assert any(each.startswith("cond") and each.endswith(":1") for each in node.input), node
    filters = [n for graph in graphs for n in graph.node if "Conv2DBackpropFilter" in n.op]
    assert (len(backward), len(filters)) == (4, 5)


@pytest.mark.parametrize("sequential", [False, True])
def test_models_are_saved_copied_and_converted_anew(sequential, tmp_path):
    def network(seed=0):
        return mlp("float32", (5, 6), seed) if sequential else residual("float32", seed)

    x, y = random((8, 4), "float32") if sequential else batch("float32")[0], np.arange(8) % 3
    model = tfbio.convert(network(), "dfa(init='frenkel')")
    model.compile(keras.optimizers.SGD(0.1), ENTROPY, run_eagerly=True)
    model.fit(x, y, verbose=0)
    expected = gradients(model, x, y, training=False)
    model.save(tmp_path / "model.keras")
    model.save_weights(tmp_path / "model.weights.h5")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    again = tfbio.convert(network(9), "dfa(init='frenkel')")
    again.load_weights(tmp_path / "model.weights.h5")
    others = [loaded, again, copy.deepcopy(model), pickle.loads(pickle.dumps(model))]
    for other in others:
        assert isinstance(other, DirectNetwork)
        assert_equal(gradients(other, x, y, training=False), expected, 1e-7)
    assert loaded.compiled
    loaded.run_eagerly = True  # not saved
    loaded.fit(x, y, verbose=0)
    clone = keras.models.clone_model(tfbio.convert(network(), "dfa(init='frenkel')"))
    if sequential:  # Keras makes a plain one, which must not pass for a network
        with pytest.raises(ValueError, match=r"with copy.deepcopy, or converted again"):
            gradients(clone, x, y)
        tfbio.convert(clone, "dfa")
    else:
        clone.set_weights(model.get_weights())
        assert_equal(gradients(clone, x, y, training=False), expected, 1e-7)
    plain = type(network())
    anew = tfbio.convert(tfbio.convert(network(), "dfa"), "backprop")
    assert type(anew) is plain
    assert len(anew.weights) == len(network().weights)
    assert_equal(gradients(anew, x, y), gradients(network(), x, y), 1e-6)
    tfbio.convert(anew, "drtp")
    assert isinstance(anew, DirectNetwork)
    assert len(tfbio.convert(anew, "sign_dfa").weights) == len(network().weights) + 1


def test_layers_outside_of_their_network_compute_but_do_not_learn_in_silence():
    x, y = batch("float32")
    model = tfbio.convert(residual("float32"), "dfa")
    part = keras.Model(model.inputs, model.output)
    np.testing.assert_array_equal(part(x), model(x))
    with pytest.raises(
        ValueError, match=r"Layer 'out' is under 'direct_feedback_alignment', a rul"
    ):
        gradients(part, x, y)
    layer = tfbio.layers.FeedbackDense(2, rule="dfa")
    with pytest.raises(ValueError, match="called outside of its network"), tf.GradientTape() as t:
        t.gradient(layer(tf.ones((1, 2))), layer.kernel)
    with tfbio.true_gradient(model):
        assert all(g is not None for g in gradients(part, x, y).values())


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.one, self.two = K.Dense(2, "relu"), K.Dense(2)

    def call(self, x):
        return self.two(self.one(x))


def subclassed():
    model = Subclassed()
    model(tf.ones((1, 2)))
    return model


def two_outputs():
    inputs = keras.Input((3,))
    h = K.Dense(2, "relu")(inputs)
    return keras.Model(inputs, [K.Dense(2)(h), K.Dense(3)(h)])


def map_output():
    inputs = keras.Input((4, 4, 1))
    return keras.Model(inputs, K.Conv2D(2, 1)(K.Conv2D(2, 1, activation="relu")(inputs)))


def attention():
    inputs = keras.Input((4, 3))
    h = K.MultiHeadAttention(1, 2, name="attention")(inputs, inputs)
    return keras.Model(inputs, K.Dense(2)(K.Flatten()(h)))


def unknown_size():
    inputs = keras.Input((None, None, 1))
    h = K.GlobalAveragePooling2D()(K.Conv2D(2, 3, activation="relu", name="conv")(inputs))
    return keras.Model(inputs, K.Dense(2)(h))


REFUSED = [
    (subclassed, "dfa", {}, "functional or sequential model, which Subclassed"),
    (two_outputs, "dfa", {}, r"one output of shape \(batch, classes\)"),
    (map_output, "dfa", {}, r"one output of shape.*Received:.*\(None, 4, 4, 2\)"),
    (attention, "dfa", {}, "cannot reach the activations within layer 'attention'"),
    (unknown_size, "dfa(spatial='dense')", {}, r"output of 'conv'.*or take spatial='shared'"),
    (lambda: mlp(hidden=()), "dfa", {}, "needs a hidden layer"),
    (residual, "dfa(max_feedback_gib=1e-9)", {}, "would take .* GiB, from 3 outputs to 4 activ"),
    (residual, "dfa(spatial='dense', max_feedback_gib=1e-6)", {}, "or spatial='shared'"),
    (residual, "dfa", {"last_layer": "backprop"}, "^`last_layer` means nothing under rule 'direct"),
    (residual, "dfa", {"overrides": {"one": "bp"}}, "^`overrides` means nothing"),
    (residual, "fa", {"last_layer": "dfa"}, "^`last_layer` takes rules of layers"),
    (residual, "fa", {"overrides": {"one": "drtp"}}, "^`overrides` takes rules of layers"),
    (lambda: mlp(activation="sigmoid"), "drtp", {}, "must end in the logits of two or more"),
    (lambda: mlp(activation="relu"), "sign_dfa", {}, "must end in the logits of two or more"),
]


@pytest.mark.parametrize(("network", "rule", "arguments", "message"), REFUSED)
def test_what_makes_no_sense_is_refused_and_nothing_changed(network, rule, arguments, message):
    model = network()
    classes = [type(model), *(type(layer) for layer in model.layers)]
    with pytest.raises(ValueError, match=message):
        tfbio.convert(model, rule, **arguments)
    assert [type(model), *(type(layer) for layer in model.layers)] == classes


def test_unknown_sizes_share_their_signal_at_run_time():
    model, x = tfbio.convert(unknown_size(), "dfa"), random((2, 5, 5, 1), "float32")
    found = gradients(model, x, tf.constant([0, 1]))
    assert all(np.isfinite(g).all() for g in found.values())


@pytest.mark.parametrize(("option", "message"), [
    ("init='xavier'", "`init` must be 'launay' or 'frenkel'. Received: 'xavier'"),
    ("spatial='map'", "`spatial` must be 'shared' or 'dense'"),
    ("spatial=1", "`spatial` must be"),
    ("max_feedback_gib=0", "`max_feedback_gib` must be a finite number greater than 0"),
    ("max_feedback_gib=True", "`max_feedback_gib` must be"),
    ("max_feedback_gib='1'", "`max_feedback_gib` must be"),
    ("seed=-1", "`seed` must be"),
])  # fmt: skip
def test_wrong_options_are_refused(option, message):
    with pytest.raises(ValueError, match=message):
        tfbio.rules.get(f"dfa({option})")


WRONG = {
    "mse": "mse",
    "of probabilities": keras.losses.SparseCategoricalCrossentropy(),
    "of probabilities by name": "sparse_categorical_crossentropy",
    "smoothed": keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1),
}


@pytest.mark.parametrize("loss", WRONG.values(), ids=WRONG)
def test_a_loss_that_hides_the_targets_is_refused_in_fit(loss):
    x, y = random((8, 4), "float32"), np.eye(3, dtype="float32")[np.arange(8) % 3]
    model = tfbio.convert(mlp("float32"), "drtp")
    model.compile("sgd", loss)
    with pytest.raises(ValueError, match=r"softmax cross-entropy\. Compile with"):
        model.fit(x, y if "sparse" not in repr(loss).lower() else y.argmax(1), verbose=0)


def test_a_rule_that_projects_the_error_takes_any_loss():
    x, y = random((8, 4), "float32"), np.eye(3, dtype="float32")[np.arange(8) % 3]
    model = tfbio.convert(mlp("float32"), "dfa")
    model.compile("sgd", "mse", jit_compile=False)
    model.fit(x, y, verbose=0)


@pytest.mark.parametrize("rule", long_but(["drtp"], ["sign_dfa", "drtp"]))
def test_a_loss_of_ones_own_is_looked_at_when_it_is_differentiated(rule):
    x, y = random((8, 4), "float32"), np.arange(8) % 3
    model = tfbio.convert(mlp("float32"), rule)

    def own(y, logits, weights=None):
        return tf.reduce_mean(tf.square(logits - tf.one_hot(y, 3)))

    with pytest.raises(
        tf.errors.InvalidArgumentError, match="must be that of a softmax cross-entr"
    ):
        gradients(model, x, y, loss=own)
    with pytest.raises(
        tf.errors.InvalidArgumentError, match="must be that of a softmax cross-entr"
    ):
        tf.function(lambda: gradients(model, x, y, loss=own))()
    compiled = tf.function(lambda: gradients(model, x, y, loss=own), jit_compile=True)
    assert np.isnan(compiled()["h0/kernel"]).all()


def test_summary_metrics_and_last_layers_tell_what_is(capsys):
    model = tfbio.convert(residual("float32"), "dfa")
    tfbio.summary(model, Console(width=160))
    printed = capsys.readouterr().out
    for text in ("from 3 outputs at sum_relu, 4 channels", "backprop (last layer)",
                 "direct_feedback_alignment", "Direct feedback"):  # fmt: skip
        assert text in printed
    assert tfbio.metrics.weight_angles(model) == tfbio.metrics.sign_agreement(model) == {}
    assert list(tfbio.layers.find_last_layers(model)) == ["out"]
    assert {site.rule.alias for site in find_sites(model).values()} == {RULES[0]}


SMALL = """
import keras

def network(num_classes, input_shape):
    return keras.Sequential([
        keras.Input(input_shape),
        keras.layers.Conv2D(4, 3, strides=2, activation="relu", name="conv"),
        keras.layers.Flatten(),
        keras.layers.Dense(num_classes, name="logits"),
    ])
"""
OPTIONS = {"epochs": 2, "train_fraction": 0.3, "batch_size": 60,
           "log_every": 0, "checkpoint_every": 3, "rule": "dfa(spatial='dense')"}  # fmt: skip


def test_the_trainer_trains_resumes_measures_and_exports(tmp_path, capsys):
    def keep(step, total):
        if step >= 5 and not (tmp_path / "b").exists():
            shutil.copytree(tmp_path / "a", tmp_path / "b")  # what a training cut there leaves

    def tell(text):
        pass

    (tmp_path / "small.py").write_text(SMALL)
    options = {**OPTIONS, "model": f"{tmp_path}/small.py:network"}
    runs = [training.Classification(**options, workdir=str(tmp_path / n)) for n in ("a", "b")]
    training.train_and_evaluate(runs[0], tell, keep)
    summary = json.loads((tmp_path / "a" / "summary.json").read_text())
    whole, cut = (tmp_path / name / "metrics.csv" for name in ("a", "b"))
    assert whole.read_bytes() != cut.read_bytes()
    training.train_and_evaluate(runs[1], tell)
    assert whole.read_bytes() == cut.read_bytes()
    assert summary["weight_angles"] == summary["sign_agreement"] == {}
    named = comparison.group_by_settings([load(tmp_path / "a")])
    Console(width=160).print(comparison.table(named))
    row = next(line for line in capsys.readouterr().out.splitlines() if "direct_feedback" in line)
    assert row.count("–") == 2  # neither a time over backprop's nor an angle
    comparison_figure.draw(named, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 10_000
    measured = use.evaluate(runs[1], tell=tell)
    assert measured["test_accuracy"] == summary["test_accuracy"]
    use.export(runs[1], tmp_path / "exported", tell=tell)
    loaded = keras.models.load_model(tmp_path / "exported" / "model.keras")
    assert isinstance(loaded, DirectNetwork)
    with pytest.raises(
        ValueError, match=r"^`last_layer_rule` means nothing under rule 'direct_feed"
    ):
        training.prepare(dataclasses.replace(runs[0], last_layer_rule="bp"))
    with pytest.raises(ValueError, match=r"^`overrides` means nothing"):
        training.prepare(dataclasses.replace(runs[0], overrides="logits=bp"))
    # Accumulated micro-batches and a scaled loss in half precision learn, too.
    half = dataclasses.replace(runs[0], precision="mixed_float16", accumulate=2, rule="drtp",
                               epochs=1, telemetry_every=0,
                               workdir=str(tmp_path / "half"))  # fmt: skip
    training.train_and_evaluate(half, tell)


def test_direct_feedback_learns_the_digits_better_than_the_output_layer_alone():
    from tfbio import data

    digits = data.load("digits")
    accuracies = {}
    for kind in ("dfa(spatial='dense')", "nothing"):
        keras.utils.set_random_seed(0)
        layers = [keras.Input((8, 8, 1)), K.Flatten(), K.Dense(12, "tanh"), K.Dense(10)]
        model = tfbio.convert(keras.Sequential(layers), kind if kind != "nothing" else "dfa")
        if kind == "nothing":
            matrix = direct.owner(model).rule.matrices[0]
            matrix.assign(tf.zeros_like(matrix))
        model.compile(keras.optimizers.SGD(0.2, momentum=0.9), ENTROPY, jit_compile=False)
        model.fit(*digits.train, batch_size=64, epochs=5, verbose=0)
        images, labels = digits.test
        accuracies[kind] = np.mean(np.argmax(model(images), 1) == labels)
    learned, fixed = accuracies.values()
    assert learned > 0.9
    assert learned > fixed + 0.02
