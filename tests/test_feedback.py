"""The primitive against oracles in float64, on every layer.

With B = W the gradients are backprop's, the kernel's gradient and the output do not depend on the
rule, and ⟨op(u, B), δ⟩ = ⟨u, dx⟩.
"""

import collections

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import tfbio
from tests.cases import LAYERS, Case, derivatives, long_but, random
from tfbio import _keras
from tfbio.feedback import asymmetric

RULES_WITH_OWN_B = ["feedback_alignment", "sign_symmetry(agreement=0.6)", "frsf", "brsf"]


def built(case, rule, dtype="float64"):
    """Return the case's layer and its Keras twin with the same weights, an input and an error."""
    layer, twin = case.feedback_layer(rule, dtype=dtype), case.keras_layer(dtype=dtype)
    x = random(case.shape, dtype)
    y = layer(x)
    twin(x)
    for index, (ours, theirs) in enumerate(
        zip(layer.trainable_variables, twin.trainable_variables, strict=True)
    ):
        if "bias" in ours.name:
            ours.assign(random(ours.shape, dtype, seed=index + 2))
        theirs.assign(ours)
    return layer, twin, x, random(y.shape, dtype, seed=1)


def without_activation(twin, x, kernels=None):
    """Return the Keras layer's op(x, W) + b, or its op(x, kernels)."""
    activation, twin.activation = twin.activation, None
    try:
        if kernels is None:
            return twin(x)
        biases = twin.trainable_variables[len(kernels) :]
        return twin.stateless_call([*kernels, *map(tf.zeros_like, biases)], [], x)[0]
    finally:
        twin.activation = activation


def oracle(layer, twin, x, e):
    """Return ∂x by a construction that shares nothing with the custom gradient.

    op(sg(x), W) + op(x, sg(B)) − sg(op(x, B)) has op's value and B's input gradient. A separable
    convolution with B in place of both kernels is linear in x as well.
    """
    feedbacks = [site.feedback for site in layer.sites()]
    with tf.GradientTape() as tape:
        tape.watch(x)
        through_b = without_activation(twin, x, feedbacks)
        y = tf.stop_gradient(without_activation(twin, x) - through_b) + through_b
        y = y if layer.activation is None else layer.activation(y)
        objective = tf.reduce_sum(y * e)
    return tape.gradient(objective, x)


def relative(a, b):
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return np.abs(a - b).max() / max(np.abs(b).max(), 1e-300)


@pytest.mark.parametrize("case", LAYERS, ids=str)
def test_the_backprop_rule_equals_the_keras_layer_to_the_last_bit(case):
    layer, twin, x, e = built(case, "backprop", "float32")
    y, dx, dw = derivatives(layer, x, e)
    y_keras, dx_keras, dw_keras = derivatives(twin, x, e)
    np.testing.assert_array_equal(y, y_keras)
    np.testing.assert_array_equal(dx, dx_keras)
    for ours, theirs in zip(dw, dw_keras, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("dtype", long_but(["float64"], ["float32", "float64"]))
@pytest.mark.parametrize("case", LAYERS, ids=str)
def test_transporting_w_gives_the_gradients_of_backprop(case, dtype):
    layer, twin, x, e = built(case, "test_transported", dtype)
    y, dx, dw = derivatives(layer, x, e)
    y_keras, dx_keras, dw_keras = derivatives(twin, x, e)
    tolerance = 1e-6 if dtype == "float32" else 1e-13
    np.testing.assert_array_equal(y, y_keras)
    assert relative(dx, dx_keras) < tolerance
    for ours, theirs in zip(dw, dw_keras, strict=True):
        assert relative(ours, theirs) < tolerance


@pytest.mark.parametrize("case", LAYERS, ids=str)
def test_the_input_gradient_is_the_oracles_and_the_adjoint(case):
    rule = RULES_WITH_OWN_B[LAYERS.index(case) % len(RULES_WITH_OWN_B)]
    layer, twin, x, e = built(case, rule)
    y, dx, dw = derivatives(layer, x, e)
    np.testing.assert_array_equal(y, twin(x))
    assert relative(dx, oracle(layer, twin, x, e)) < 1e-13
    assert relative(dx, derivatives(twin, x, e)[1]) > 1e-3  # B is not W, and is what was used
    # A layer's own weight gradients depend on the rule only through the error that reaches it,
    # which for the depthwise kernel of a separable convolution has passed the pointwise B.
    for ours, theirs in list(zip(dw, derivatives(twin, x, e)[2], strict=True))[
        len(layer.sites()) - 1 :
    ]:
        assert relative(ours, theirs) < 1e-13
    layer.activation = None
    u = random(x.shape, seed=9)
    feedbacks = [site.feedback for site in layer.sites()]
    dx = derivatives(layer, x, e)[1]
    np.testing.assert_allclose(
        tf.reduce_sum(without_activation(twin, u, feedbacks) * e), tf.reduce_sum(u * dx), rtol=1e-12
    )


@st.composite
def convolutions(draw):
    rank = draw(st.integers(1, 3))
    name = draw(st.sampled_from(["Conv{}D", "Conv{}DTranspose", "DepthwiseConv{}D"]))
    name = name.format(min(rank, 2) if "Depthwise" in name else rank)
    rank = int(name[name.index("D", 1 if name[0] == "D" else 0) - 1])
    size = [draw(st.integers(1, 7)) for _ in range(rank)]
    kernel = [draw(st.integers(1, 3)) for _ in range(rank)]
    # TensorFlow takes one stride for both axes of a depthwise convolution.
    strides = draw(st.integers(1, 3))
    arguments = {
        "kernel_size": tuple(kernel),
        "strides": strides,
        "padding": draw(st.sampled_from(["valid", "same"])),
        "dilation_rate": draw(st.integers(1, 2)) if strides == 1 and "Transpose" not in name else 1,
    }
    if "Depthwise" in name:
        arguments["depth_multiplier"] = draw(st.integers(1, 2))
    else:
        arguments["filters"] = draw(st.integers(1, 3))
    reach = [(k - 1) * arguments["dilation_rate"] + 1 for k in kernel]
    if "Transpose" not in name and arguments["padding"] == "valid":
        assume(all(s >= r for s, r in zip(size, reach, strict=True)))
    return Case(name, arguments, (2, *size, draw(st.integers(1, 3))))


@settings(max_examples=60)
@given(case=convolutions(), rule=st.sampled_from(["test_transported", *RULES_WITH_OWN_B]))
def test_any_convolution_sends_its_error_through_b(case, rule):
    layer, twin, x, e = built(case, rule)
    y, dx, dw = derivatives(layer, x, e)
    np.testing.assert_array_equal(y, twin(x))
    np.testing.assert_allclose(dx, oracle(layer, twin, x, e), rtol=1e-10, atol=1e-12)
    for ours, theirs in zip(dw, derivatives(twin, x, e)[2], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-12)


@settings(max_examples=40)
@given(
    shape=st.lists(st.integers(1, 5), min_size=2, max_size=4),
    units=st.integers(1, 5),
    dtype=st.sampled_from(["float16", "bfloat16", "float32", "float64"]),
    rule=st.sampled_from(["test_transported", *RULES_WITH_OWN_B]),
)
def test_any_dense_layer_sends_its_error_through_b(shape, units, dtype, rule):
    layer, _, x, e = built(Case("Dense", {"units": units}, tuple(shape)), rule, dtype)
    _, dx, (dw, db) = derivatives(layer, x, e)
    x, e, b = (np.asarray(tf.cast(t, tf.float64)) for t in (x, e, layer.feedback))
    tolerance = {"float16": 2e-2, "bfloat16": 1e-1, "float32": 1e-5, "float64": 1e-12}[dtype]
    check = {"rtol": tolerance, "atol": tolerance * max(1.0, np.abs(e).max())}
    flat_x, flat_e = x.reshape(-1, x.shape[-1]), e.reshape(-1, units)
    np.testing.assert_allclose(tf.cast(dx, tf.float64), e @ b.T, **check)
    np.testing.assert_allclose(tf.cast(dw, tf.float64), flat_x.T @ flat_e, **check)
    np.testing.assert_allclose(tf.cast(db, tf.float64), flat_e.sum(0), **check)


def test_feedback_receives_the_kernels_gradient():
    x, w, b, e = random((3, 4)), random((4, 2), seed=1), random((4, 2), seed=2), random((3, 2))
    with tf.GradientTape() as tape:
        tape.watch([w, b])
        y = asymmetric(tf.matmul, x, w, b)
    dw, db = tape.gradient(y, [w, b], e)
    np.testing.assert_allclose(dw, tf.transpose(x) @ e, rtol=1e-12)
    np.testing.assert_array_equal(dw, db)


def test_feedback_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"shape of `kernel`.*\(2, 3\).*\(3, 2\)"):
        asymmetric(tf.matmul, tf.ones((1, 2)), tf.ones((2, 3)), tf.ones((3, 2)))


def test_sparse_inputs_send_their_error_through_b():
    layer = tfbio.layers.FeedbackDense(3, rule="frsf")
    x = tf.sparse.from_dense(tf.constant([[0.0, 1, 0, 2], [3, 0, 0, 0]]))
    twin = keras.layers.Dense(3)
    twin.build((None, 4))
    layer(x)
    twin.set_weights([layer.kernel, layer.bias])
    e = random((2, 3), "float32")
    with tf.GradientTape() as tape:
        tape.watch(x.values)
        y = layer(x)
        np.testing.assert_array_equal(y, twin(x))
    at_values, dw = tape.gradient(y, [x.values, layer.kernel.value], e)
    dense = e @ tf.transpose(layer.feedback)
    np.testing.assert_allclose(at_values, tf.gather_nd(dense, x.indices), rtol=1e-6)
    expected = tf.transpose(tf.sparse.to_dense(x)) @ e
    np.testing.assert_allclose(tf.convert_to_tensor(dw), expected, rtol=1e-6)


def executed_operations(function, *arguments):
    """Count the operations of a compiled function after TensorFlow's graph optimization."""
    graphs = _keras.collect_graphs(function, *arguments)
    return collections.Counter(node.op for graph in graphs for node in graph.node)


def matching(counts, *words):
    return sum(n for op, n in counts.items() if all(word in op for word in words))


def test_a_compiled_step_holds_each_convolution_once():
    model = keras.Sequential(
        [keras.Input((8, 8, 2)), *(keras.layers.Conv2D(3, 3, padding="same") for _ in range(3))]
    )
    tfbio.convert(model, "sign_symmetry")

    def step(x):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.square(model(x, training=True)))
        return tape.gradient(loss, model.trainable_variables)

    x = random((2, 8, 8, 2), "float32")
    counts = executed_operations(tf.function(step), x)
    backward = matching(counts, "Conv2DBackprop")
    assert matching(counts, "Conv2D") - backward == 3, counts
    assert matching(counts, "Conv2DBackpropFilter") == 3, counts
    assert matching(counts, "Conv2DBackpropInput") == 2, counts  # the first layer needs none
    inference = executed_operations(tf.function(lambda x: model(x, training=False)), x)
    assert matching(inference, "Conv2D") == 3, inference
    assert not inference["Sign"], inference  # feedback costs nothing where nothing learns
