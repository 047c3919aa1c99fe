"""Locally connected layers: a convolution where kernels are tied."""

import itertools
import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import tfbio
from tests.cases import derivatives, long_but, random, twin_of
from tests.test_feedback import executed_operations
from tfbio.layers import (
    FeedbackLocallyConnected1D,
    FeedbackLocallyConnected2D,
    LocallyConnected1D,
    LocallyConnected2D,
)
from tfbio.layers.initialization import PerPosition
from tfbio.layers.windows import Windows

RANKS = {1: (LocallyConnected1D, keras.layers.Conv1D), 2: (LocallyConnected2D, keras.layers.Conv2D)}


@st.composite
def shapes(draw):
    """Return size, kernel size, strides and padding of a map with at least one window."""
    rank = draw(st.integers(1, 2))
    size, kernel, strides = (
        tuple(draw(st.integers(1, most)) for _ in range(rank)) for most in (8, 5, 4)
    )
    padding = draw(st.sampled_from(["valid", "same"]))
    assume(padding == "same" or all(s >= k for s, k in zip(size, kernel, strict=True)))
    return size, kernel, strides, padding


def input_shape(size, channels, data_format, batch=2):
    last = data_format == "channels_last"
    return (batch, *size, channels) if last else (batch, channels, *size)


def tie(layer, kernel, bias):
    """Give every position the convolution's kernel and bias."""
    matrix = np.reshape(kernel, layer.kernel.shape[1:])
    layer.kernel.assign(np.broadcast_to(matrix, layer.kernel.shape))
    layer.bias.assign(np.broadcast_to(bias, layer.bias.shape))


def convolved(conv, x, data_format):
    """Return the convolution of x; TensorFlow has channels_first on a GPU only."""
    if data_format == "channels_last":
        return conv(x)
    return keras.ops.moveaxis(conv(keras.ops.moveaxis(x, 1, -1)), -1, 1)


LAYOUTS = st.sampled_from(["channels_last", "channels_first"])


@settings(max_examples=40)
@given(shape=shapes(), data_format=LAYOUTS)
def test_with_tied_kernels_it_is_a_convolution(shape, data_format):
    assert_is_a_convolution(shape, data_format)


@pytest.mark.long
@settings(max_examples=200)
@given(shape=shapes(), data_format=LAYOUTS)
def test_with_tied_kernels_it_is_a_convolution_of_many_shapes(shape, data_format):
    assert_is_a_convolution(shape, data_format)


def assert_is_a_convolution(shape, data_format):
    size, kernel_size, strides, padding = shape
    local_class, conv_class = RANKS[len(size)]
    arguments = {"filters": 3, "kernel_size": kernel_size, "strides": strides, "padding": padding}
    arguments |= {"activation": "tanh", "dtype": "float64"}
    x = random(input_shape(size, 2, data_format))
    local = local_class(data_format=data_format, **arguments)
    conv = conv_class(data_format="channels_last", **arguments)
    y_shape = local(x).shape
    convolved(conv, x, data_format)
    kernel, bias = random(conv.kernel.shape, seed=1), random(conv.bias.shape, seed=2)
    conv.set_weights([kernel, bias])
    tie(local, kernel, bias)
    e = random(y_shape, seed=3)
    y, dx, (dw, db) = derivatives(local, x, e)
    with tf.GradientTape() as tape:
        tape.watch(x)
        expected = convolved(conv, x, data_format)
        objective = tf.reduce_sum(expected * e)
    dx_conv, (dw_conv, db_conv) = tape.gradient(objective, [x, conv.trainable_variables])
    check = {"rtol": 1e-12, "atol": 1e-12}
    np.testing.assert_allclose(y, expected, **check)
    np.testing.assert_allclose(dx, dx_conv, **check)
    # What the one kernel learns is the sum of what all positions do.
    np.testing.assert_allclose(tf.reduce_sum(dw, 0), np.reshape(dw_conv, dw.shape[1:]), **check)
    np.testing.assert_allclose(np.reshape(db, (-1, 3)).sum(0), db_conv, **check)
    assert local.compute_output_shape((None, *x.shape[1:])) == (None, *y.shape[1:])


def test_every_position_has_its_own_kernel_and_bias_in_row_major_order():
    """By hand, against loops: nothing here is shared with the layer."""
    layer = LocallyConnected2D(3, (2, 3), strides=(2, 1), padding="same", dtype="float64")
    x = random((2, 5, 4, 2))
    layer(x)
    layer.kernel.assign(random(layer.kernel.shape, seed=1))
    layer.bias.assign(random(layer.bias.shape, seed=2))
    padded = np.pad(x, ((0, 0), (0, 1), (1, 1), (0, 0)))
    expected = np.zeros((2, 3, 4, 3))
    for p, (row, column) in enumerate(itertools.product(range(3), range(4))):
        patch = padded[:, 2 * row : 2 * row + 2, column : column + 3].reshape(2, -1)
        expected[:, row, column] = patch @ layer.kernel[p].numpy() + layer.bias[row, column]
    np.testing.assert_allclose(layer(x), expected, rtol=1e-12, atol=1e-12)


def test_windows_have_gradients_of_all_orders():
    windows = Windows((5, 4), (3, 2), (2, 1), "same")
    x = random((20, 2, 3))
    with tf.GradientTape() as outer:
        outer.watch(x)
        with tf.GradientTape() as inner:
            inner.watch(x)
            value = tf.reduce_sum(windows.extract(x) ** 3)
        first = inner.gradient(value, x)
    # Which entry each tap sees, from 1; 0 is outside of the map.
    seen = windows.extract(tf.reshape(tf.range(1, 21), (20, 1, 1))).numpy()
    uses = np.bincount(seen.ravel(), minlength=21)[1:].reshape(20, 1, 1)
    np.testing.assert_allclose(first, 3 * uses * x**2, rtol=1e-12)
    np.testing.assert_allclose(outer.gradient(first, x), 6 * uses * x, rtol=1e-12)


@pytest.mark.parametrize("name", ["glorot_uniform", "he_normal", "lecun_uniform", "orthogonal"])
def test_each_position_is_initialized_as_a_dense_layers_kernel(name):
    """Also in what Keras would see of a kernel of three dimensions: the fans times 25."""
    initializer = keras.initializers.get(name)
    layer = LocallyConnected2D(40, 3, kernel_initializer=initializer)
    layer.build((None, 7, 7, 8))
    fan_in, fan_out = 72, 40
    kernel = layer.kernel.numpy()
    assert kernel.shape == (25, 72, 40)
    variance = {"glorot_uniform": 2 / (fan_in + fan_out), "he_normal": 2 / fan_in}
    variance |= {"lecun_uniform": 1 / fan_in, "orthogonal": 1 / 72}
    assert kernel.std() == pytest.approx(variance[name] ** 0.5, rel=0.02)
    if name == "orthogonal":
        identity = np.broadcast_to(np.eye(40), (25, 40, 40))
        np.testing.assert_allclose(kernel.swapaxes(1, 2) @ kernel, identity, atol=1e-5)
    # No two positions alike, and the same again from the same seed.
    assert len({matrix.tobytes() for matrix in kernel}) == 25
    again = PerPosition(initializer)(kernel.shape, dtype="float32")
    np.testing.assert_array_equal(again, kernel)
    other = PerPosition(keras.initializers.get(name))(kernel.shape, dtype="float32")
    assert not np.array_equal(other, kernel)


def test_initializers_of_ones_own_see_one_matrix():
    seen = []

    def mine(shape, dtype=None):
        seen.append(shape)
        return np.full(shape, len(seen), dtype)

    kernel = PerPosition(mine)((4, 6, 2), dtype="float32")
    assert seen == [(6, 2)] * 4
    np.testing.assert_array_equal(kernel[:, 0, 0], [1, 2, 3, 4])
    # Fans by axes of its matrix are the user's own affair.
    swapped = keras.initializers.HeNormal(seed=1, input_axes=[1], output_axes=[0])
    kernel = PerPosition(swapped)((50, 8, 200), dtype="float32")
    assert np.std(kernel) == pytest.approx((2 / 200) ** 0.5, rel=0.02)
    assert len({matrix.tobytes() for matrix in np.asarray(kernel)}) == 50
    layer = LocallyConnected1D(2, 3, kernel_initializer=lambda shape, dtype: tf.ones((7,)))
    with pytest.raises(ValueError, match=r"matrix of shape \(6, 2\)\. Received.*\(7,\)"):
        layer.build((None, 5, 2))


CLASSES = [
    (FeedbackLocallyConnected1D, {"filters": 3}, (2, 7, 2)),
    (FeedbackLocallyConnected2D, {"filters": 3}, (2, 6, 5, 2)),
]


@pytest.mark.parametrize(("cls", "arguments", "shape"), CLASSES)
def test_the_error_at_each_position_goes_back_by_its_own_b(cls, arguments, shape):
    layer = cls(kernel_size=3, strides=2, padding="same", rule="fa", dtype="float64", **arguments)
    x = random(shape)
    e = random(layer(x).shape, seed=1)
    dx = derivatives(layer, x, e)[1]
    twin = twin_of(cls.__name__.removeprefix("Feedback"))(
        kernel_size=3, strides=2, padding="same", dtype="float64", **arguments
    )
    twin.build(shape)
    twin.kernel.assign(layer.feedback)
    np.testing.assert_allclose(dx, derivatives(twin, x, e)[1], rtol=1e-12, atol=1e-12)
    # One position's B changes what goes back through its window alone.
    layer.rule.matrix.assign(
        tf.tensor_scatter_nd_update(layer.feedback, [[0]], 2 * layer.feedback[:1])
    )
    changed = np.abs(derivatives(layer, x, e)[1] - dx).max(axis=(0, -1)) > 1e-12
    assert 0 < changed.sum() <= 3**changed.ndim < changed.size


def test_scales_are_those_of_a_convolution_of_the_same_shape():
    arguments = {"filters": 4, "kernel_size": (3, 2), "rule": "sign_symmetry(scale='xiao')"}
    for scale in ("xiao", "xavier"):
        arguments["rule"] = f"sign_symmetry(scale={scale!r})"
        local = FeedbackLocallyConnected2D(**arguments)
        conv = tfbio.layers.FeedbackConv2D(**arguments)
        for layer in (local, conv):
            layer.build((None, 7, 7, 5))
        assert float(local.rule.s) == float(conv.rule.s)
    assert local.fans("kernel").fan_in == 3 * 2 * 5


def test_a_perfect_mirror_has_no_angle_though_some_weights_never_act():
    """W at the zeros of "same" keeps its first values and B's share there fades away."""
    layer = FeedbackLocallyConnected2D(4, 3, padding="same", rule="wm(before=1)", name="local")
    model = keras.Sequential([keras.Input((4, 4, 2)), layer])
    dead = ~layer.acting("kernel")
    assert dead.sum() == (16 * 9 - 10 * 10) * 2 * 4  # of 3·4 taps along an axis, 10 are inside
    noise = random(layer.kernel.shape, "float32")
    layer.rule.matrix.assign(tf.where(dead, noise, 3.0 * layer.kernel))
    x = random((2, 4, 4, 2), "float32")
    y, dx, _ = derivatives(layer, x, e := random((2, 4, 4, 4), "float32"), training=False)
    assert tfbio.metrics.weight_angles(model) == {"local": pytest.approx(0, abs=0.1)}
    assert tfbio.metrics.norm_ratios(model) == {"local": pytest.approx(3)}
    assert tfbio.metrics.sign_agreement(model) == {"local": 1.0}
    measured = tfbio.metrics.weights.WeightMeter(model)()
    assert measured.norm_ratios == {"local": pytest.approx(3)}
    assert measured.sign_agreement == {"local": 1.0}
    layer.kernel.assign(tf.where(dead, noise, layer.kernel))
    changed, dx_changed, _ = derivatives(layer, x, e, training=False)
    np.testing.assert_array_equal(changed, y)
    np.testing.assert_array_equal(dx_changed, dx)
    plain = FeedbackLocallyConnected2D(4, 3)
    plain.build((None, 4, 4, 2))
    assert plain.acting("kernel") is None


def test_a_kolen_pollack_step_moves_both_matrices_alike():
    layer = FeedbackLocallyConnected2D(3, 3, padding="same", rule="kp", dtype="float64")
    x = random((4, 5, 5, 2))
    layer(x)
    weights = {v.name: v for v in layer.trainable_variables}
    gap = weights["kernel"] - weights["feedback"]
    optimizer = tfbio.optimizers.get("sgd", 0.125, weight_decay=0.5)
    for _ in range(3):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(layer(x, training=True) ** 2)
        optimizer.apply(tape.gradient(loss, layer.trainable_variables), layer.trainable_variables)
    after = weights["kernel"] - weights["feedback"]
    np.testing.assert_allclose(after, (1 - 0.125 * 0.5) ** 3 * gap, rtol=1e-10, atol=1e-14)


def network(rule=None):
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((7, 6, 2)),
            LocallyConnected2D(4, 3, 2, "same", activation="tanh", name="first"),
            keras.layers.Reshape((12, 4)),
            LocallyConnected1D(3, 3, activation="relu", name="line"),
            keras.layers.Flatten(),
            keras.layers.Dense(3, dtype="float32", name="out"),
        ]
    )
    return model if rule is None else tfbio.convert(model, rule)


RULES_AND_POLICIES = [
    (None, "float32"),
    (None, "mixed_bfloat16"),
    ("feedback_alignment", "float32"),
    ("sign_symmetry", "mixed_bfloat16"),
    ("kolen_pollack", "mixed_bfloat16"),
]


@pytest.mark.parametrize(
    ("rule", "policy"),
    long_but([("kolen_pollack", "mixed_bfloat16")], RULES_AND_POLICIES),
)
def test_it_fits_under_xla_and_is_saved(rule, policy, tmp_path):
    keras.config.set_dtype_policy(policy)
    model, x = network(rule), random((12, 7, 6, 2), "float32")
    assert {v.dtype for v in model.trainable_variables} == {"float32"}
    assert model.get_layer("first")(x).dtype == ("float32" if policy == "float32" else "bfloat16")
    labels = np.arange(12) % 3
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.1), loss, jit_compile=True)
    history = model.fit(x, labels, batch_size=4, epochs=8, verbose=0).history["loss"]
    assert history[-1] < 0.8 * history[0]
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(x), model(x))
    assert [type(layer) for layer in loaded.layers] == [type(layer) for layer in model.layers]
    # A smaller last batch, and none at all.
    assert model.predict(x[:5], batch_size=4, verbose=0).shape == (5, 3)
    assert model(x[:0]).shape == (0, 3)


def test_a_network_converts_in_place_under_last_layers_and_overrides():
    model, x = network(), random((2, 7, 6, 2), "float32")
    y = model(x)
    tfbio.convert(model, "fa", last_layer="backprop", overrides={"line*": "frsf"})
    np.testing.assert_array_equal(model(x), y)
    assert {layer.name: layer.rule.alias for layer in model.layers if hasattr(layer, "rule")} == {
        "first": "feedback_alignment",
        "line": "frsf",
        "out": "backprop",
    }
    fully_local = keras.Sequential([keras.Input((5, 2)), LocallyConnected1D(3, 2, name="only")])
    tfbio.convert(fully_local, "fa", last_layer="backprop")
    assert fully_local.layers[0].symmetric


def test_a_compiled_step_extracts_and_overlaps_once():
    model = keras.Sequential(
        [keras.Input((8, 8, 2)), *(LocallyConnected2D(3, 3, padding="same") for _ in range(3))]
    )

    def step(x):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.square(model(x, training=True)))
        return tape.gradient(loss, model.trainable_variables)

    for rule in (None, "sign_symmetry"):
        if rule:
            tfbio.convert(model, rule)
        counts = executed_operations(tf.function(step), random((2, 8, 8, 2), "float32"))
        # Three layers' patches, and the errors of the upper two.
        assert counts["GatherV2"] == 5, counts
        assert sum(n for op, n in counts.items() if "BatchMatMul" in op) == 3 + 3 + 2, counts


def test_regularizers_constraints_and_initializers_reach_the_weights():
    layer = LocallyConnected2D(
        2, 2, kernel_initializer="ones", bias_initializer="ones", kernel_regularizer="l2",
        bias_regularizer="l1", kernel_constraint="non_neg", bias_constraint="non_neg",
        activity_regularizer="l1",
    )  # fmt: skip
    layer(tf.ones((1, 3, 3, 1)))
    expected = [0.01 * 4 * 4 * 2, 0.01 * 8, 0.01 * 4 * 2 * 5]
    assert sorted(map(float, layer.losses)) == pytest.approx(sorted(expected))
    assert isinstance(layer.kernel.constraint, keras.constraints.NonNeg)
    assert isinstance(layer.bias.constraint, keras.constraints.NonNeg)
    again = LocallyConnected2D.from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    assert isinstance(again.kernel_regularizer, keras.regularizers.L2)


@pytest.mark.parametrize("cls", [LocallyConnected1D, LocallyConnected2D])
def test_the_config_holds_every_argument(cls):
    import inspect

    arguments = set(inspect.signature(cls.__init__).parameters) - {"self", "kwargs"}
    layer = cls(3, 2, padding="same", use_bias=False, activation="relu", trainable=False)
    config = layer.get_config()
    assert arguments <= config.keys()
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert again.get_config() == config
    assert again.bias is None if again.built else again.use_bias is False


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"filters": 0}, r"`filters` argument must be a tuple of 1 integers.*0"),
        ({"kernel_size": (2, 2, 2)}, r"`kernel_size` argument must be a tuple of 2 integers.*2, 2"),
        ({"strides": 0}, r"`strides` argument must be.*> 0"),
        ({"padding": "causal"}, r"`padding` must be 'valid' or 'same'.*'causal'"),
        ({"data_format": "NCHW"}, r"NCHW"),
        ({"activation": "none_such"}, r"none_such"),
        ({"kernel_size": (2.5, 2)}, r"`kernel_size` argument must be a tuple of 2 integers > 0"),
    ],
)
def test_wrong_arguments_are_refused(arguments, text):
    with pytest.raises(ValueError, match=f"(?is){text}"):
        LocallyConnected2D(**{"filters": 2, "kernel_size": 3, **arguments})


@pytest.mark.parametrize(
    ("cls", "arguments", "shape", "text"),
    [
        (LocallyConnected2D, {}, (None, None, 8, 3),
         r"'mine' of class LocallyConnected2D.*\(batch, height, width, channels\).*None, None, 8"),
        (LocallyConnected2D, {"data_format": "channels_first"}, (None, 3, 8, None),
         r"\(batch, channels, height, width\)"),
        (LocallyConnected1D, {}, (2, 8, 8, 3), r"\(batch, steps, channels\).*\(2, 8, 8, 3\)"),
        (LocallyConnected2D, {}, (2, 8, 2, 3),
         r"no position.*no larger than the input.*kernel_size=\(3, 3\).*\(8, 2\)"),
    ],
)  # fmt: skip
def test_wrong_inputs_are_refused(cls, arguments, shape, text):
    layer = cls(2, 3, name="mine", **arguments)
    for method in (layer.build, layer.compute_output_shape):
        with pytest.raises(ValueError, match=text):
            method(shape)


def test_more_that_is_refused():
    layer = LocallyConnected2D(2, 3)
    layer(tf.zeros((1, 5, 5, 2)))
    with pytest.raises(ValueError, match=r"expected shape=\(None, 5, 5, 2\)"):
        layer(tf.zeros((1, 6, 5, 2)))
    with pytest.raises(ValueError, match=r"'local'.*cannot combine LoRA or quantization"):
        FeedbackLocallyConnected2D(2, 3, name="local", rule="fa").enable_lora(2)


def test_the_number_of_weights():
    layer = LocallyConnected2D(32, 3, strides=2, padding="same")
    layer.build((None, 28, 28, 1))
    assert layer.count_params() == 14 * 14 * 32 * (9 + 1)
    assert math.prod(layer.windows.positions) == 196
