"""Gradient angles: against hand-written networks, and that measuring leaves no trace."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfbio
from tests.cases import random
from tfbio import _keras, metrics
from tfbio.training.state import state_variables


def dense(units, name, dtype="float64", **options):
    return keras.layers.Dense(units, name=name, dtype=dtype, **options)


def compiled(model):
    optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
    model.compile(optimizer, "mse", metrics=["mae"], run_eagerly=True)
    model.optimizer.build(model.trainable_variables)
    _keras.build_symbolically(model, (tf.zeros((2, *model.input_shape[1:])), tf.zeros((2, 4))))
    return model


def values(model):
    return [np.array(variable) for variable in state_variables(model).values()]


def test_both_angles_are_those_of_a_network_written_by_hand():
    layers = [dense(4, "in", activation="tanh"), dense(2, "out")]
    model = tfbio.convert(
        keras.Sequential([keras.Input((3,), dtype="float64"), *layers]), "feedback_alignment"
    )
    x, y = (np.array(each) for each in (random((5, 3)), random((5, 2), seed=1)))
    found = metrics.gradient_angles(model, x, y, "mse")
    w1, w2, b1, b2 = (
        np.array(each) for each in (*(v.kernel for v in layers), *(v.feedback for v in layers))
    )
    h = np.tanh(x @ w1)
    e2 = 2 * (h @ w2 - y) / y.size
    local = {"out": (e2 @ b2.T, e2 @ w2.T)}
    e1, true = ((e2 @ matrix.T) * (1 - h**2) for matrix in (b2, w2))
    local["in"] = e1 @ b1.T, e1 @ w1.T
    for name, (under_rule, through_w) in local.items():
        assert found.local_[name] == pytest.approx(metrics.angle(under_rule, through_w), abs=1e-9)
    expected = metrics.angle(x.T @ e1, x.T @ true)
    assert found.global_ == {"in": pytest.approx(expected, abs=1e-9), "out": 0.0}
    assert list(found.local_) == list(found.global_) == ["in", "out"]


def noisy(rule, **options):
    """Return a compiled network in which everything has a state that a training step changes."""
    keras.utils.set_random_seed(0)
    layers = [
        keras.layers.Conv2D(4, 3, name="conv"),
        keras.layers.BatchNormalization(),
        keras.layers.Activation("relu"),
        keras.layers.Dropout(0.5),
        keras.layers.SeparableConv2D(3, 2, name="separable"),
        keras.layers.Flatten(),
        keras.layers.GaussianDropout(0.3),
        keras.layers.Dense(4, name="out"),
    ]
    model = tfbio.convert(keras.Sequential([keras.Input((6, 6, 2)), *layers]), rule, **options)
    return compiled(model)


def small(rule):
    """Return a compiled network that compiles fast and draws no numbers."""
    keras.utils.set_random_seed(0)
    layers = [
        keras.layers.Dense(4, "tanh", name="first"),
        keras.layers.BatchNormalization(),
        keras.layers.Dense(4, name="out"),
    ]
    return compiled(tfbio.convert(keras.Sequential([keras.Input((3,)), *layers]), rule))


NAMES = ["conv", "separable/depthwise", "separable/pointwise", "out"]


@pytest.fixture(scope="module")
def batch():
    return random((6, 6, 6, 2), "float32"), random((6, 4), "float32", seed=1)


def test_measuring_changes_nothing_and_finds_the_same_again(batch):
    model, twin = (noisy("brsf", overrides={"conv": "kolen_pollack"}) for _ in range(2))
    for each in (model, twin):
        each.train_on_batch(*batch)  # a step that brsf has not seen yet
    before = values(model)
    meter = metrics.GradientMeter(model)
    first = meter(*batch)
    assert meter(*batch) == first
    assert metrics.gradient_angles(model, *batch, "mse") == first
    assert set(first.local_) == set(first.global_) == set(NAMES)
    assert all(0 < angle < 180 for angle in first.local_.values())
    assert [first.global_[name] > 0 for name in NAMES] == [True, True, True, False]
    metrics.WeightMeter(model)()
    for variable, value in zip(values(model), before, strict=True):
        np.testing.assert_array_equal(variable, value)
    for each in (model, twin):
        each.train_on_batch(*batch)
    for ours, theirs in zip(values(model), values(twin), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.fixture(scope="module")
def rows():
    return random((6, 3), "float32"), random((6, 4), "float32", seed=1)


def test_inference_is_measured_where_it_is_asked_for(rows):
    model = small("fa")
    training = metrics.gradient_angles(model, *rows, "mse")
    inference = metrics.gradient_angles(model, *rows, "mse", training=False)
    assert abs(training.global_["first"] - inference.global_["first"]) > 0.1


def test_no_angle_where_b_is_w(batch, rows):
    backprop = metrics.GradientMeter(small("backprop"))(*rows)
    assert backprop == (dict.fromkeys(["first", "out"], 0.0),) * 2
    model = noisy("kolen_pollack")
    meter = metrics.GradientMeter(model)
    for site in tfbio.layers.sites.find_sites(model).values():
        site.rule.matrix.assign(site.kernel)
    for found in meter(*batch):
        assert found == {name: pytest.approx(0.0, abs=1e-4) for name in NAMES}
    for site in tfbio.layers.sites.find_sites(model).values():
        site.rule.matrix.assign(-3.0 * site.kernel)
    opposite = meter(*batch)
    assert opposite.local_ == {name: pytest.approx(180.0, abs=1e-4) for name in NAMES}
    # The sign of the error changes at every kernel above.
    assert [round(opposite.global_[name]) for name in NAMES] == [180, 0, 180, 0]


def assert_measured_alike(found, expected):
    for ours, theirs in zip(found, expected, strict=True):
        assert ours == {name: pytest.approx(angle, abs=1e-3) for name, angle in theirs.items()}


@pytest.mark.long
def test_xla_measures_what_a_graph_does(rows):
    model = small("fa")
    expected = metrics.GradientMeter(model)(*rows)
    assert_measured_alike(metrics.GradientMeter(model, jit_compile=True)(*rows), expected)


def test_replicas_measure_what_one_device_does(rows):
    one = small("fa")
    expected = metrics.GradientMeter(one)(*rows)
    weights = metrics.WeightMeter(one)()
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    with strategy.scope():
        replicated = small("fa")
    before = values(replicated)
    assert metrics.WeightMeter(replicated)() == weights
    assert_measured_alike(metrics.GradientMeter(replicated)(*rows), expected)
    for variable, value in zip(values(replicated), before, strict=True):
        np.testing.assert_array_equal(variable, value)


def test_mixed_precision():
    found = []
    for precision in ("float32", "mixed_bfloat16", "mixed_float16"):
        keras.config.set_dtype_policy(precision)
        try:
            keras.utils.set_random_seed(0)
            layers = [keras.layers.Dense(64, "tanh", name="in"), keras.layers.Dense(8, name="out")]
            model = tfbio.convert(keras.Sequential([keras.Input((9,)), *layers]), "fa")
        finally:
            keras.config.set_dtype_policy("float32")
        model.compile("sgd", lambda y, outputs: 1e-7 * tf.square(y - outputs))
        found.append(metrics.GradientMeter(model)(random((7, 9)), random((7, 8), seed=1)))
    for exact, *others in zip(*found, strict=True):
        for coarse in others:
            assert coarse == {name: pytest.approx(angle, abs=1.0) for name, angle in exact.items()}


def test_shared_layers_sub_models_and_attention():
    keras.utils.set_random_seed(0)
    shared = dense(4, "shared", activation="tanh")
    inner = keras.Sequential([keras.Input((20,), dtype="float64"), dense(4, "deep")], name="inner")
    attention = keras.layers.MultiHeadAttention(2, 3, name="attention", dtype="float64")
    inputs = keras.Input((5, 4), dtype="float64")
    h = attention(shared(shared(inputs)), inputs)
    h = inner(keras.layers.Flatten(dtype="float64")(h))
    model = keras.Model(inputs, dense(2, "out")(h))
    x, y = random((3, 5, 4), "float64"), random((3, 2), "float64", seed=1)
    model = tfbio.convert(model, "feedback_alignment")
    found = metrics.gradient_angles(model, x, y, "mse")
    names = set(metrics.weight_angles(model))
    assert {"shared", "inner/deep", "attention/query", "out"} < names
    assert set(found.local_) == set(found.global_) == names
    assert all(0 < found.local_[name] < 180 for name in names)

    # The errors of the shared layer's two calls make up one vector.
    first, second = np.array(shared.kernel), np.array(shared.feedback)
    x = tf.constant(x)
    with tf.GradientTape() as tape:
        inside = tf.matmul(x, shared.kernel) + shared.bias
        tape.watch(inside)
        outside = tf.matmul(tf.tanh(inside), shared.kernel) + shared.bias
        tape.watch(outside)
        h = inner(tf.reshape(attention(tf.tanh(outside), x), (3, 20)))
        loss = tf.reduce_mean(tf.square(model.get_layer("out")(h) - y))
    outer = tape.gradient(loss, outside).numpy()
    inner_error = (outer @ second.T) * (1 - np.tanh(inside) ** 2)
    errors = np.stack([outer, inner_error])
    expected = metrics.angle(errors @ second.T, errors @ first.T)
    assert found.local_["shared"] == pytest.approx(expected, abs=1e-9)


def test_what_has_no_angle():
    class Loop(keras.layers.Layer):
        def __init__(self, inner, **options):
            super().__init__(**options)
            self.inner = inner

        def call(self, inputs):
            return tf.map_fn(self.inner, inputs)

    inputs = keras.Input((5, 4))
    frozen = keras.layers.Dense(4, name="frozen")
    dead = keras.layers.Dense(3, name="dead")
    looped = Loop(keras.layers.Dense(3, name="inner"), name="loop")
    h = frozen(inputs)
    outputs = keras.layers.Dense(3, name="out")(looped(h) + 0.0 * dead(h))
    frozen.trainable = False
    model = tfbio.convert(keras.Model(inputs, outputs), "fa")
    found = metrics.gradient_angles(model, random((2, 5, 4)), random((2, 5, 3), seed=1), "mse")
    assert set(found.global_) == {"loop/inner", "dead", "out"}  # frozen does not learn
    assert math.isnan(found.global_["dead"])
    assert math.isnan(found.local_["dead"])
    assert "loop/inner" not in found.local_  # its error passes in a loop
    with pytest.raises(ValueError, match="no feedback layer"):
        metrics.gradient_angles(keras.Sequential([keras.layers.Dense(2)]), 0, 0, "mse")


def test_the_global_angle_of_a_network_rule():
    """A rule of the network heeds `true_gradient`, and has no matrix in the place of W."""

    class Turned(keras.layers.Layer):
        def call(self, inputs):
            @tf.custom_gradient
            def turned(inputs):
                def gradient(error):
                    true = tf.convert_to_tensor(model.get_layer("in").true_gradient_switch)
                    return tf.where(true, error, tf.reverse(error, [-1]))

                return tf.identity(inputs), gradient

            return turned(inputs)

    layers = [keras.layers.Dense(4, name="in"), Turned(), keras.layers.Dense(2, name="out")]
    model = keras.Sequential([keras.Input((3,)), *layers[::2]])
    model = tfbio.convert(model, "backprop")
    model = keras.Sequential([keras.Input((3,)), model.layers[0], Turned(), model.layers[1]])
    x, y = random((1, 3), "float32"), random((1, 2), "float32", seed=1)
    e = 2 * (np.array(model(x)) - y) / 2 @ np.transpose(model.get_layer("out").kernel)
    found = metrics.gradient_angles(model, x, y, "mse")
    expected = metrics.angle(np.outer(x, e[:, ::-1]), np.outer(x, e))
    assert found.global_ == {"in": pytest.approx(expected, abs=1e-3), "out": 0.0}


@pytest.mark.parametrize("rule", ["frsf", "fa", "sign_symmetry(agreement=0.8)", "backprop"])
def test_the_compiled_metrics_of_weights_are_those_on_the_host(rule):
    model = noisy(rule)
    model.get_layer("out").kernel.assign(tf.zeros_like(model.get_layer("out").kernel))
    found = metrics.WeightMeter(model)()
    for name, measure in (
        ("weight_angles", metrics.weight_angles),
        ("norm_ratios", metrics.norm_ratios),
        ("sign_agreement", metrics.sign_agreement),
    ):
        expected = measure(model)
        assert list(expected) == NAMES
        assert getattr(found, name) == {
            kernel: pytest.approx(value, rel=1e-9, nan_ok=True)
            for kernel, value in expected.items()
        }


def assert_keeps_nothing_of_a_loop(meter, batch, loops=True):
    definition = meter.compiled.get_concrete_function(*batch).graph.as_graph_def()
    functions = [definition.node, *(f.node_def for f in definition.library.function)]
    operations = {node.op for nodes in functions for node in nodes}
    assert "TensorListPushBack" not in operations
    assert ("StatelessWhile" in operations or "While" in operations) is loops


@pytest.mark.parametrize("rule", ["l_drl(iterations=3)", "tp"])
def test_a_measurement_keeps_nothing_of_the_steps_of_a_rules_own_loop(rule):
    layers = [
        keras.Input((4,)),
        *(keras.layers.Dense(n, "tanh") for n in (5, 5)),
        keras.layers.Dense(2),
    ]
    model = tfbio.convert(keras.Sequential(layers), rule)
    model.compile("sgd", "mse")
    meter, batch = tfbio.metrics.GradientMeter(model), (random((3, 4)), random((3, 2)))
    meter(*batch)
    assert_keeps_nothing_of_a_loop(meter, batch, loops=rule != "tp")


def test_xla_measures_a_rule_whose_step_is_a_loop():
    layers = [keras.Input((4,)), keras.layers.Dense(5, "tanh"), keras.layers.Dense(2)]
    model = tfbio.convert(keras.Sequential(layers), "weight_mirror(before=3)")
    model.compile("sgd", "mse")
    batch = random((3, 4), "float32"), random((3, 2), "float32")
    meters = [tfbio.metrics.GradientMeter(model, jit_compile=jit) for jit in (False, True)]
    in_a_graph, by_xla = (meter(*batch) for meter in meters)
    for name, angle in in_a_graph.global_.items():
        assert by_xla.global_[name] == pytest.approx(angle, abs=0.05)
    assert_keeps_nothing_of_a_loop(meters[0], batch)
