"""Local alignment: gradients of every primitive, fixed points, and what the loss reaches."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfbio
from tests.cases import LAYERS, assert_same_learning, long_but, random
from tfbio import optimizers, rules
from tfbio.layers.sites import find_sites

PRIMITIVES = ("decay", "self_", "amp", "sparse", "null")
NAMED = ("symmetric_alignment", "activation_alignment", "mirror_alignment", "information_alignment")
N, IN, OUT = 7, 5, 4


def dense(rule):
    layer = tfbio.layers.FeedbackDense(OUT, rule=rule, dtype="float64", activation="tanh")
    layer.build((None, IN))
    layer.bias.assign(random((OUT,)))
    return layer


def gradients(layer, x):
    """Return the gradients of the layer's losses for x, W, b and B."""
    with tf.GradientTape() as tape:
        tape.watch(x)
        layer(x, training=True)
        loss = tf.add_n(layer.losses)
    tf.debugging.assert_equal(loss, tf.zeros_like(loss))
    return tape.gradient(loss, [x, *layer.trainable_variables])


def table(x, w, b, bias=0.0):
    """Return the gradients of the primitives for B, derived by hand, with y = x W + bias."""
    y = x @ w + bias
    return {
        "decay": 2 * b,
        "self_": -w,
        "amp": -(x.T @ y) / N,
        "sparse": 2 / N * x.T @ (x @ b + bias),
        "null": 2 / N * (y @ b.T).T @ y,
    }


@pytest.mark.parametrize("name", PRIMITIVES)
def test_the_gradient_of_a_primitive_is_the_tables_and_on_b_alone(name):
    layer, x = dense(f"local_alignment({name}=0.7)"), random((N, IN), seed=3)
    *others, db = gradients(layer, x)
    assert others == [None, None, None]
    expected = table(x.numpy(), layer.kernel.numpy(), layer.feedback.numpy())[name]
    np.testing.assert_allclose(db, 0.7 * expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", ["amp", "sparse", "null"])
def test_the_layers_bias_can_be_projected_too(name):
    """As in Kunin et al.'s code, whose projections are xW + b and xB + b; b is a constant."""
    layer, x = dense(f"local_alignment({name}=0.7,bias=True)"), random((N, IN), seed=3)
    *others, db = gradients(layer, x)
    assert others == [None, None, None]
    weights = layer.kernel.numpy(), layer.feedback.numpy(), layer.bias.numpy()
    np.testing.assert_allclose(db, 0.7 * table(x.numpy(), *weights)[name], rtol=1e-12, atol=1e-14)
    without = table(x.numpy(), *weights[:2])[name]
    assert np.abs(db - 0.7 * without).max() > 0.01


def test_a_bias_without_what_it_adds_to_is_refused():
    with pytest.raises(ValueError, match="`bias` has no effect without `amp`, `sparse` or `null`"):
        rules.get("local_alignment(decay=0.1,self_=0.2,bias=True)")
    with pytest.raises(ValueError, match="`bias` must be True or False"):
        rules.get("activation_alignment(bias=1)")


@pytest.mark.parametrize("channels", ["channels_last", "channels_first"])
@pytest.mark.parametrize("kind", ["Conv2D", "LocallyConnected2D"])
def test_a_bias_adds_to_each_channel_or_position(kind, channels):
    layer = getattr(tfbio.layers, f"Feedback{kind}")(
        3, 2, data_format=channels, rule="local_alignment(sparse=0.5,bias=True)", dtype="float64"
    )
    x = random((4, 5, 5, 2) if channels == "channels_last" else (4, 2, 5, 5))
    layer.build(x.shape)
    layer.bias.assign(random(layer.bias.shape, seed=4))
    if kind == "Conv2D" and channels == "channels_first":
        # TensorFlow convolves so on a GPU alone; what adds to the outputs is shaped here.
        assert layer.bias_of_outputs().shape == (1, 3, 1, 1)
        return
    db = gradients(layer, x)[-1]
    matrix = tf.convert_to_tensor(layer.rule.matrix)
    with tf.GradientTape() as tape:
        tape.watch(matrix)
        layer.kernel.assign(matrix)
        outputs = layer.linear(x, matrix)
        outputs += layer.respond(tf.zeros_like(outputs))  # the activation is linear
        objective = 0.5 * tf.reduce_sum(outputs**2) / 4
    np.testing.assert_allclose(db, tape.gradient(objective, matrix), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("rule", "of"),
    [
        ("symmetric_alignment(alpha=0.3,beta=0.5)", {"decay": 0.3, "self_": 0.5}),
        ("activation_alignment(alpha=0.3,beta=0.5)", {"sparse": 0.3, "amp": 0.5}),
        (
            "information_alignment(alpha=0.3,beta=0.5,gamma=0.7)",
            {"amp": 0.3, "null": 0.5, "decay": 0.7},
        ),
        ("symmetric_alignment", {"decay": 1e-3, "self_": 2e-3}),
        ("activation_alignment", {"sparse": 1e-3, "amp": 2e-3}),
        ("information_alignment", {"amp": 2e-3, "null": 1e-3, "decay": 1e-3}),
    ],
)
def test_a_published_rule_is_its_sum_of_primitives(rule, of):
    layer, x = dense(rule), random((N, IN), seed=3)
    db = gradients(layer, x)[-1]
    parts = table(x.numpy(), layer.kernel.numpy(), layer.feedback.numpy())
    expected = sum(share * parts[name] for name, share in of.items())
    np.testing.assert_allclose(db, expected, rtol=1e-12, atol=1e-16)
    mirror = rules.get("mirror_alignment(alpha=0.3,beta=0.5)").primitives()
    assert {k: v for k, v in mirror.items() if v} == {"decay": 0.3, "amp": 0.5}


OF_EACH_CLASS = list({case.name: case for case in reversed(LAYERS)}.values())


@pytest.mark.parametrize("case", long_but(OF_EACH_CLASS, LAYERS), ids=str)
def test_every_layer_aligns_its_b_by_its_own_operation(case):
    """Against the operation at B as a matrix, one row for every unit vector of the input."""
    layer = case.feedback_layer("local_alignment(amp=0.6,sparse=0.4,null=0.2)", dtype="float64")
    inputs = random(case.shape)
    layer.build(case.shape)
    with tf.GradientTape() as tape:
        layer(inputs, training=True)
        loss = tf.add_n(layer.losses)
    actual = tape.gradient(loss, [site.rule.matrix.value for site in layer.sites()])
    ops = {"pointwise_kernel": getattr(layer, "pointwise", None)}
    for site, db in zip(layer.sites(), actual, strict=True):
        op = ops.get(site.kernel_name) or layer.linear
        w, b = tf.convert_to_tensor(site.kernel), tf.convert_to_tensor(site.rule.matrix)
        count, *shape = inputs.shape
        units = tf.reshape(tf.eye(int(np.prod(shape)), dtype="float64"), (-1, *shape))
        with tf.GradientTape() as tape:
            tape.watch(b)
            rows = tf.reshape(op(units, b), (units.shape[0], -1))
            y = tf.reshape(op(inputs, w), (count, -1))
            at_b = tf.reshape(inputs, (count, -1)) @ rows
            objective = (
                0.4 * tf.reduce_sum(at_b**2)
                - 0.6 * tf.reduce_sum(y * at_b)
                + 0.2 * tf.reduce_sum((y @ tf.transpose(rows)) ** 2)
            ) / count
        np.testing.assert_allclose(db, tape.gradient(objective, b), rtol=1e-9, atol=1e-12)
        inputs = op(inputs, w)


@pytest.mark.parametrize(
    ("rule", "fixed_point"),
    [
        ("symmetric_alignment(alpha=0.2,beta=0.3)", lambda w, s: 0.75 * w),
        ("activation_alignment(alpha=0.2,beta=0.3)", lambda w, s: 0.75 * w),
        (
            "information_alignment(alpha=0.2,beta=0.3,gamma=0.1)",
            lambda w, s: 0.2 * s * w @ np.linalg.inv(0.6 * s * w.T @ w + 0.2 * np.eye(OUT)),
        ),
    ],
)
def test_b_reaches_its_fixed_point(rule, fixed_point):
    """On white input: whitened, so that one batch has the covariance s·I exactly."""
    layer, s = dense(rule), 1.7
    x = np.linalg.qr(random((64, IN)).numpy())[0] * np.sqrt(64 * s)
    matrix = layer.rule.matrix

    @tf.function
    def step(x):
        matrix.assign_sub(0.5 * gradients(layer, x)[-1])

    for _ in range(400):
        step(tf.constant(x))
    np.testing.assert_allclose(layer.feedback, fixed_point(layer.kernel.numpy(), s), atol=1e-8)


@pytest.mark.parametrize("name", ["activation_alignment", "information_alignment"])
def test_a_published_rule_with_the_bias_is_its_sum_of_primitives(name):
    layer, x = dense(f"{name}(bias=True)"), random((N, IN), seed=3)
    weights = layer.kernel.numpy(), layer.feedback.numpy(), layer.bias.numpy()
    parts = table(x.numpy(), *weights)
    expected = sum(share * parts[part] for part, share in rules.get(name).primitives().items())
    np.testing.assert_allclose(gradients(layer, x)[-1], expected, rtol=1e-10, atol=1e-16)


def test_the_mirror_as_a_loss_adds_the_bias_to_the_answer_to_noise():
    """With W = 0 the answer is b: ∂B = 2αB − β·mean(ξ)ᵀb."""
    layer = dense("mirror_alignment(alpha=0.5,beta=0.8,bias=True,seed=1)")
    layer.kernel.assign(tf.zeros_like(layer.kernel))
    pulled = gradients(layer, random((N, IN)))[-1] - layer.feedback
    bias = layer.bias.numpy()
    mean = pulled @ bias[:, None] / (bias @ bias)
    assert np.abs(mean).max() > 0.01
    np.testing.assert_allclose(pulled, mean * bias, atol=1e-14)


def test_the_mirror_as_a_loss_tends_to_w_by_noise_alone():
    layer = dense("mirror_alignment(alpha=0.5,beta=0.8,noise=0.6,samples=4096,seed=1)")
    x = tf.fill((3, IN), tf.constant(1e3, tf.float64))  # whatever the input is
    matrix = layer.rule.matrix
    for _ in range(60):
        matrix.assign_sub(0.5 * gradients(layer, x)[-1])
        layer.kernel.assign_add(1e-9 * tf.ones_like(layer.kernel))  # the next step's noise
    w = layer.kernel.numpy()
    np.testing.assert_allclose(layer.feedback, 0.8 * 0.36 / (2 * 0.5) * w, atol=0.02)


def test_the_mirrors_noise_is_new_every_step_and_the_same_within_one():
    layer, x = dense("mirror_alignment(seed=1)"), random((8, IN))
    seen = []
    for _ in range(3):
        one, other = gradients(layer, x)[-1], gradients(layer, x)[-1]
        np.testing.assert_array_equal(one, other)
        seen.append(one.numpy().tobytes())
        layer.kernel.assign_add(1e-9 * tf.ones_like(layer.kernel))
    assert len(set(seen)) == 3


def test_a_layer_called_twice_decays_once_and_adds_up_its_data():
    once = {}
    x, y = random((N, IN), seed=1), random((N, IN), seed=2)
    for name in ("decay", "self_", "amp", "sparse", "null"):
        layer = dense(f"local_alignment({name}=1.0, seed=0)")
        layer.kernel.assign(random((IN, OUT)))
        inputs = [keras.Input((IN,), dtype="float64") for _ in range(2)]
        model = keras.Model(inputs, keras.layers.Add(dtype="float64")([layer(i) for i in inputs]))
        with tf.GradientTape() as tape:
            model([x, y], training=True)
            loss = tf.add_n(model.losses)
        once[name] = tape.gradient(loss, layer.rule.matrix.value)
        parts = [
            table(z.numpy(), layer.kernel.numpy(), layer.feedback.numpy())[name] for z in (x, y)
        ]
        expected = parts[0] if name in ("decay", "self_") else parts[0] + parts[1]
        np.testing.assert_allclose(once[name], expected, rtol=1e-10)


def network(rule):
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Conv2D(3, 3, activation="relu"), keras.layers.Flatten()]
    model = keras.Sequential([keras.Input((6, 6, 2)), *layers, keras.layers.Dense(3)])
    return tfbio.convert(model, rule)


@pytest.mark.parametrize("rule", long_but(["mirror_alignment"], NAMED))
def test_under_fit_the_loss_shown_is_the_tasks_and_evaluation_adds_nothing(rule):
    model = network(rule)
    model.compile(optimizers.get("sgd", 1e-30), "mse")
    x, y = random((8, 6, 6, 2), "float32"), random((8, 3), "float32")
    shown = model.fit(x, y, batch_size=8, verbose=0).history["loss"][0]
    np.testing.assert_allclose(shown, np.mean((model(x, training=False) - y) ** 2), rtol=1e-6)
    np.testing.assert_allclose(model.evaluate(x, y, verbose=0), shown, rtol=1e-6)


@pytest.mark.parametrize("rule", long_but(["mirror_alignment"], NAMED))
def test_replicas_keep_one_b_and_learn_as_one_device(rule):
    x, y = random((24, 6, 6, 2), "float32"), random((24, 3), "float32")
    learned = []
    for strategy in (
        tf.distribute.get_strategy(),
        tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]),
    ):
        with strategy.scope():
            model = network(f"{rule}(seed=3)")
            model.compile(optimizers.get("sgd", 0.1), "mse", jit_compile=False)
        start = [site.feedback.numpy() for site in find_sites(model).values()]
        model.fit(x, y, batch_size=8, shuffle=False, verbose=0)
        learned.append([site.feedback.numpy() for site in find_sites(model).values()])
        for site in find_sites(model).values():
            values = strategy.experimental_local_results(site.rule.matrix.value)
            for value in values[1:]:
                np.testing.assert_array_equal(value, values[0])
    one, two = learned
    assert_same_learning(two, one, start)


@pytest.mark.parametrize("rule", long_but(["mirror_alignment"], NAMED))
def test_loss_scaling_changes_nothing(rule):
    x, y = random((8, 6, 6, 2), "float32"), random((8, 3), "float32")
    learned = []
    for wrap in (lambda o: o, lambda o: optimizers.LossScale(o, initial_scale=1024.0)):
        model = network(rule)
        model.compile(wrap(optimizers.get("sgd", 0.1)), "mse")
        for _ in range(3):
            model.train_on_batch(x, y)
        learned.append(model.get_weights())
    for plain, scaled in zip(*learned, strict=True):
        np.testing.assert_allclose(scaled, plain, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        ("local_alignment(amp=float)", "literal"),
        ("local_alignment(amp='a')", "`amp` must be a finite number"),
        ("symmetric_alignment(beta=1e999)", "`beta` must be a finite number"),
        ("local_alignment(noise=-1)", "`noise` must be a finite number of 0 or more"),
        ("mirror_alignment(noise=0)", "`noise` must be a finite number greater than 0"),
        ("mirror_alignment(samples=0)", "`samples` must be an integer of 1 or more"),
    ],
)
def test_wrong_options_are_refused(rule, text):
    with pytest.raises(ValueError, match=text):
        rules.get(rule)
