"""The optimizers: each step against float64 arithmetic, and what the variants promise.

Batch-Manhattan moves every weight by the learning rate where its gradient is not 0, whatever the
gradient's scale; without sign change no entry of a kernel ever changes its sign.
"""

import functools
import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfbio
from tests.cases import assert_same_learning, long_but, random
from tfbio import optimizers

RATES = [0.25, 0.25, 0.0625, 0.5, 0.5]
"""The learning rate of each step: powers of 2, exact in any precision."""


class Rates(keras.optimizers.schedules.LearningRateSchedule):
    def __call__(self, step):
        return tf.gather(tf.constant(RATES), step)


SHAPES = [(3, 4), (4,), (4,), (4,), (4, 2), (2,)]


def variables():
    """A hidden kernel, bias, gamma and beta, and a last kernel and bias; float64."""
    names = ("kernel", "bias", "gamma", "beta", "kernel", "bias")
    return [
        keras.Variable(random(shape, seed=i).numpy() / 2, dtype="float64", name=name)
        for i, (name, shape) in enumerate(zip(names, SHAPES, strict=True))
    ]


LAST = {"indexes": [4, 5], "shapes": [[4, 2], [2]], "count": 6}


@functools.cache
def gradients(step):
    return [random(shape, seed=100 * (step + 1) + i) for i, shape in enumerate(SHAPES)]


def oracle(name, momentum, decay, manhattan, no_sign_change, last):
    """Return the variables after every step, by the published equations in numpy."""
    values = [v.numpy() for v in variables()]
    first, second, third = ([np.zeros_like(p) for p in values] for _ in range(3))
    for t, rate in enumerate(RATES):
        for i, g in enumerate(gradients(t)):
            own = last if i in LAST["indexes"] else {}
            lr = rate * own.get("learning_rate_scale", 1)
            p, d = values[i].copy(), g.numpy()
            if own.get("batch_manhattan", manhattan):
                d = np.sign(d)
            if name == "adamw":
                values[i] -= lr * decay * p
            else:
                d = d + decay * p
            if name.startswith("adam"):
                first[i] = 0.9 * first[i] + 0.1 * d
                second[i] = 0.999 * second[i] + 0.001 * d**2
                hat = np.sqrt(1 - 0.999 ** (t + 1)) / (1 - 0.9 ** (t + 1))
                values[i] -= lr * hat * first[i] / (np.sqrt(second[i]) + 1e-7)
            else:
                if name == "rmsprop":
                    second[i] = 0.95 * second[i] + 0.05 * d**2
                    third[i] = 0.95 * third[i] + 0.05 * d
                    d = d / np.sqrt(second[i] - third[i] ** 2 + 0.001)
                first[i] = momentum * first[i] + d
                nesterov = d + momentum * first[i]
                values[i] -= lr * (nesterov if name == "nesterov" else first[i])
            if own.get("no_sign_change", no_sign_change) and i in (0, 2, 4):
                crossed = np.sign(p) * np.sign(values[i]) <= 0
                values[i] = np.where(crossed, np.where(p >= 0, 1e-10, -1e-10), values[i])
        yield [p.copy() for p in values]


KINDS = [
    *(("sgd", 0.0), ("sgd", 0.75), ("nesterov", 0.75)),
    *(("rmsprop", 0.75), ("adam", 0.0), ("adamw", 0.0)),
]
LASTS = [
    None,
    {"learning_rate_scale": 0.125},
    {"batch_manhattan": True, "no_sign_change": False},
    {"batch_manhattan": False, "no_sign_change": True, "learning_rate_scale": 2.0},
]


WAYS = [
    (*kind, way, last)
    for way in ("eager", "graph", "xla")
    for kind in KINDS
    for last in (LASTS if way == "eager" else (LASTS[0], LASTS[3]))
]
# What the last layer's own settings mean is the same for all descents, so one tries them all.
FAST = [(*kind, "eager", LASTS[3]) for kind in KINDS if kind != ("sgd", 0.0)]
FAST += [("nesterov", 0.75, "eager", last) for last in LASTS[:3]]
FAST += [("nesterov", 0.75, way, LASTS[3]) for way in ("graph", "xla")]


@pytest.mark.parametrize(("name", "momentum", "compiled", "last"), long_but(FAST, WAYS))
def test_every_step_is_the_equations(name, momentum, compiled, last):
    for decay, manhattan, keep in itertools.product((0, 0.25), (0, 1), (0, 1)):
        settings = optimizers.LastLayer(**LAST, **last) if last else None
        optimizer = optimizers.get(
            name, Rates(), momentum, decay, bool(manhattan), bool(keep), settings
        )
        values = variables()
        optimizer.build(values)
        step = optimizer.apply
        if compiled != "eager":
            if not decay or manhattan != keep:
                continue  # a compilation each: all settings on, and all but the decay off
            step = tf.function(step, jit_compile=compiled == "xla")
        for t, expected in enumerate(oracle(name, momentum, decay, manhattan, keep, last or {})):
            step(gradients(t))
            for i, (value, wanted) in enumerate(zip(values, expected, strict=True)):
                message = f"{(decay, manhattan, keep, last)}: step {t}, variable {i}"
                np.testing.assert_allclose(value.numpy(), wanted, 1e-6, 1e-14, err_msg=message)


def test_the_variance_of_great_gradients_that_are_alike_is_not_less_than_zero():
    gradient = tf.constant(np.geomspace(10, 1e6, 2000), tf.float32)
    finite = []
    for optimizer in (
        optimizers.get("rmsprop", 1e-3),
        keras.optimizers.RMSprop(1e-3, 0.95, epsilon=1e-3, centered=True),
    ):
        p = keras.Variable(tf.zeros(2000))
        optimizer.build([p])
        step = tf.function(optimizer.apply)
        for _ in range(300):
            step([gradient])
        finite.append(np.isfinite(p.numpy()).all())
    assert finite == [True, False]


def test_momentum_is_not_keras_own_when_the_rate_changes():
    ours, theirs = variables()[:1], variables()[:1]
    for values, optimizer in (
        (ours, optimizers.get("sgd", Rates(), 0.75)),
        (theirs, keras.optimizers.SGD(Rates(), 0.75)),
    ):
        for t in range(3):
            optimizer.apply(gradients(t)[:1], values)
    assert np.abs(ours[0].numpy() - theirs[0].numpy()).max() > 0.01


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (lambda: optimizers.get("adam", 0.01), lambda: keras.optimizers.Adam(0.01)),
        (
            lambda: optimizers.get("adamw", 0.01, weight_decay=0.1),
            lambda: keras.optimizers.AdamW(0.01, weight_decay=0.1),
        ),
        (
            lambda: optimizers.VariantAdam(0.01, amsgrad=True, clipnorm=0.5, use_ema=True),
            lambda: keras.optimizers.Adam(0.01, amsgrad=True, clipnorm=0.5, use_ema=True),
        ),
        (lambda: optimizers.get("sgd", 0.01, 0.9), lambda: keras.optimizers.SGD(0.01, 0.9)),
        (
            lambda: optimizers.get("rmsprop", 0.01, 0.9),
            lambda: keras.optimizers.RMSprop(0.01, 0.95, 0.9, 1e-3, centered=True),
        ),
        (
            lambda: optimizers.VariantRMSprop(0.01, rho=0.9, epsilon=1e-7, centered=False),
            lambda: keras.optimizers.RMSprop(0.01),
        ),
    ],
)
def test_without_variants_a_step_is_keras_own(ours, theirs):
    results = []
    for make in (ours, theirs):
        optimizer = make()
        values = [keras.Variable(v.numpy(), dtype="float32") for v in variables()]
        for t in range(4):
            optimizer.apply([tf.cast(g, "float32") for g in gradients(t)], values)
        results.append([v.numpy() for v in values])
    for ours, theirs in zip(*results, strict=True):
        # SGD is equal while the rate is constant; Keras's Adam rounds its correction to float32.
        np.testing.assert_allclose(ours, theirs, 1e-5, 2e-6)


def test_batch_manhattan_moves_by_the_rate_whatever_the_gradients_scale():
    for scale in (1e-20, 1.0, 1e20):
        values = variables()
        before = [v.numpy() for v in values]
        g = [scale * tf.where(g > 1, 0.0, g) for g in gradients(0)]
        optimizers.get("sgd", 0.25, batch_manhattan=True).apply(g, values)
        for v, old, gradient in zip(values, before, g, strict=True):
            wanted = np.where(gradient.numpy() != 0, 0.25, 0)
            np.testing.assert_allclose(np.abs(v.numpy() - old), wanted, 1e-12)


def some_model(policy="float32"):
    keras.config.set_dtype_policy(policy)
    return keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            keras.layers.Conv2D(4, 3, name="conv"),
            keras.layers.BatchNormalization(name="norm"),
            keras.layers.ReLU(),
            keras.layers.Flatten(),
            keras.layers.Dense(8, activation="relu", name="hidden"),
            keras.layers.Dense(3, name="logits"),
        ]
    )


X, Y = random((24, 6, 6, 2), "float32"), np.arange(24) % 3


def fitted(model, optimizer, epochs=3, **arguments):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    if optimizer is not None:
        model.compile(optimizer, loss, **(arguments or {"run_eagerly": True}))
    model.fit(X, Y, batch_size=8, epochs=epochs, shuffle=False, verbose=0)
    return model


@pytest.mark.parametrize("name", long_but(["sgd", "adamw"], optimizers.names()))
def test_no_sign_change_keeps_every_kernels_signs(name):
    model = tfbio.convert(some_model(), "sign_symmetry")
    model.get_layer("hidden").kernel.assign(
        tf.where(tf.random.uniform((64, 8)) < 0.1, 0.0, model.get_layer("hidden").kernel)
    )
    signs = {v.path: np.where(v.numpy() >= 0, 1, -1) for v in model.trainable_variables}
    momentum = 0.9 if name in optimizers.WITH_MOMENTUM else 0
    fitted(model, optimizers.get(name, 0.5, momentum, no_sign_change=True))
    changed = set()
    for v in model.trainable_variables:
        if not np.array_equal(np.sign(v.numpy()), signs[v.path]):
            changed.add(v.name)
    assert changed == {"bias", "beta"}
    assert any((np.abs(layer.kernel) == np.float32(1e-10)).any() for layer in model.layers[-2:])


def test_no_sign_change_holds_in_half_precision():
    values = [keras.Variable([0.5, -0.5, 0.0], dtype="float16", name="kernel")]
    optimizer = optimizers.get("sgd", 1.0, no_sign_change=True)
    for _ in range(3):
        optimizer.apply([tf.sign(values[0].value)], values)
    assert np.sign(values[0].numpy()).tolist() == [1, -1, 1]


def test_a_feedback_matrix_that_learns_follows_its_kernel_and_may_change_sign():
    for options in (
        {"batch_manhattan": True},
        {"weight_decay": 0.1, "momentum": 0.5},
        {"no_sign_change": True},
    ):
        model = tfbio.convert(some_model(), "kolen_pollack")
        last = optimizers.LastLayer.of(model, learning_rate_scale=0.5)
        assert [model.trainable_variables[i].name for i in last.indexes] == [
            "kernel",
            "bias",
            "feedback",
        ]
        layer = model.get_layer("logits")
        if "no_sign_change" in options:
            layer.rule.matrix.assign(layer.kernel)
        before = (layer.kernel - layer.rule.matrix).numpy()
        starts = layer.rule.matrix.numpy(), layer.kernel.numpy()
        optimizer = optimizers.get("sgd", 2.0, last_layer=last, **options)
        if "weight_decay" in options:  # W − B of plain decay, 1 − ηλ a step
            optimizer = optimizers.get("sgd", 2.0, weight_decay=0.1, last_layer=last)
            before = before * (1 - 2.0 * 0.5 * 0.1) ** 3
        fitted(model, optimizer, epochs=1)
        difference = (layer.kernel - layer.rule.matrix).numpy()
        if "no_sign_change" in options:
            assert (np.sign(starts[0]) != np.sign(layer.rule.matrix.numpy())).any()
            np.testing.assert_array_equal(np.sign(starts[1]), np.sign(layer.kernel.numpy()))
        else:
            assert np.abs(layer.rule.matrix.numpy() - starts[0]).max() > 0.01
            np.testing.assert_allclose(difference, before, 1e-4, 1e-5)


def test_the_last_layers_settings_hold_there_only():
    model = tfbio.convert(some_model(), "sign_symmetry")
    last = optimizers.LastLayer.of(
        model, learning_rate_scale=0.5, batch_manhattan=True, no_sign_change=False
    )
    before = [v.numpy() for v in model.trainable_variables]
    optimizer = optimizers.get("sgd", 1.0, no_sign_change=True, last_layer=last)
    optimizer.apply([tf.fill(v.shape, 3.0) for v in before], model.trainable_variables)
    for v, old in zip(model.trainable_variables, before, strict=True):
        if v.path.split("/")[-2] == "logits":
            np.testing.assert_allclose(v.numpy(), old - 0.5)
        elif v.name in ("bias", "beta"):
            np.testing.assert_allclose(v.numpy(), old - 3)
        else:
            np.testing.assert_allclose(v.numpy(), np.where(old < 0, old - 3, 1e-10))


def everything(model):
    return optimizers.get(
        "sgd",
        keras.optimizers.schedules.PiecewiseConstantDecay([3], [0.1, 0.01]),
        0.9,
        1e-3,
        no_sign_change=True,
        # For the last layer only: further down, the sign of what is 0 but for rounding is chance.
        last_layer=optimizers.LastLayer.of(model, learning_rate_scale=0.5, batch_manhattan=True),
    )


@pytest.mark.parametrize(
    "name", long_but(["adamw", "everything"], ["nesterov", "rmsprop", "adamw", "everything"])
)
def test_a_saved_model_goes_on_as_if_it_had_not_been_saved(name, tmp_path):
    def make():
        keras.utils.set_random_seed(1)
        model = tfbio.convert(some_model(), "sign_symmetry")
        if name == "everything":
            return model, everything(model)
        momentum = 0.9 if name in optimizers.WITH_MOMENTUM else 0
        return model, optimizers.get(name, 0.01, momentum, weight_decay=0.01)

    half = fitted(*make(), epochs=1)
    half.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.optimizer.get_config() == half.optimizer.get_config()
    assert type(loaded.optimizer) is type(half.optimizer)
    assert int(loaded.optimizer.iterations) == 3
    loaded.run_eagerly = True
    for each in (loaded, half):
        fitted(each, None, epochs=1)
    for ours, expected in zip(loaded.get_weights(), half.get_weights(), strict=True):
        if expected.dtype != np.int64:
            np.testing.assert_allclose(ours, expected, 1e-6, 1e-7)


def learned(**arguments):
    """Return the weights before and after training under every option."""
    keras.utils.set_random_seed(1)
    model = tfbio.convert(some_model(), "sign_symmetry")
    start = model.get_weights()
    return start, fitted(model, everything(model), **arguments).get_weights()


@pytest.fixture(scope="module")
def learned_eagerly():
    return learned(run_eagerly=True)


IN_A_GRAPH = [{"jit_compile": False}, {"jit_compile": True}, {"steps_per_execution": 3}]


@pytest.mark.parametrize("setting", long_but(IN_A_GRAPH[1:], IN_A_GRAPH))
def test_fit_agrees_in_every_setting(setting, learned_eagerly):
    start, expected = learned_eagerly
    assert_same_learning(learned(**setting)[1], expected, start)


def test_accumulated_gradients_are_one_step():
    value = keras.Variable([2.0], name="kernel")
    optimizer = optimizers.VariantSGD(
        0.5, batch_manhattan=True, weight_decay=0.25, gradient_accumulation_steps=2
    )
    seen = []
    for g in (3.0, -5.0, 1.0, 1.0):
        optimizer.apply([tf.constant([g])], [value])
        seen.append(float(value.numpy()[0]))
    # The sign of the mean -1, then of the mean 1; the decay only where a step is taken.
    assert seen == [2.0, 2.25, 2.25, 1.46875]


@pytest.mark.parametrize("name", long_but(["everything"], ["everything", "adamw"]))
def test_two_replicas_equal_one_device(name):
    def model():
        keras.utils.set_random_seed(1)
        made = keras.Sequential(
            [
                keras.Input((6, 6, 2)),
                keras.layers.Conv2D(4, 3, activation="relu"),
                keras.layers.Flatten(),
                keras.layers.Dense(3),
            ]
        )
        return tfbio.convert(made, "sign_symmetry")

    def make(model):
        if name == "everything":
            return everything(model)
        return optimizers.get(name, 0.01, weight_decay=0.1)

    one = model()
    start = one.get_weights()
    fitted(one, make(one), epochs=2)
    with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
        two = model()
        optimizer = make(two)
    fitted(two, optimizer, epochs=2, run_eagerly=False)
    assert_same_learning(two.get_weights(), one.get_weights(), start)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_loss_scaling_and_mixed_precision(policy, tmp_path):
    model = tfbio.convert(some_model(policy), "sign_symmetry")
    scaled = policy == "mixed_float16"
    # In a graph, where the scaled loss is conditional.
    fitted(model, everything(model), epochs=1, run_eagerly=not scaled)
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer) is scaled
    inner = model.optimizer.inner_optimizer if scaled else model.optimizer
    assert isinstance(inner, optimizers.VariantSGD)
    assert all(np.isfinite(w).all() for w in model.get_weights())
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras").optimizer
    inner_again = again.inner_optimizer if scaled else again
    assert inner_again.get_config() == inner.get_config()


def test_excluded_variables_do_not_decay_and_embeddings_decay_everywhere():
    kernel, bias = keras.Variable([2.0], name="kernel"), keras.Variable([2.0], name="bias")
    for name in ("sgd", "adamw"):
        optimizer = optimizers.get(name, 0.5, weight_decay=0.5)
        optimizer.exclude_from_weight_decay(var_names=["bias"])
        kernel.assign([2.0])
        optimizer.apply([tf.zeros(1), tf.zeros(1)], [kernel, bias])
        assert (kernel.numpy()[0], bias.numpy()[0]) == (1.5, 2.0)
    table = keras.Variable(np.ones((3, 2)), name="embeddings")
    sparse = tf.IndexedSlices(tf.ones((2, 2)), tf.constant([1, 1]), (3, 2))
    optimizers.get("sgd", 0.5, weight_decay=0.5).apply([sparse], [table])
    np.testing.assert_array_equal(table.numpy(), [[0.75] * 2, [-0.25] * 2, [0.75] * 2])


def test_last_layers_are_found_before_and_after_conversion_and_compilation():
    x = keras.Input((4,))
    h = keras.layers.Dense(5, activation="relu", name="hidden")(x)
    heads = [keras.layers.Dense(2, name="a")(h), keras.layers.Dense(3, name="b")(h)]
    model = keras.Model(x, heads)
    assert list(tfbio.layers.find_last_layers(model)) == ["a", "b"]
    tfbio.convert(model, "sign_symmetry").compile("sgd", "mse")
    assert list(tfbio.layers.find_last_layers(model)) == ["a", "b"]
    assert optimizers.LastLayer.of(model).indexes == (2, 3, 4, 5)
    model.get_layer("a").trainable = False
    assert optimizers.LastLayer.of(model).indexes == (2, 3)
    model.get_layer("b").trainable = False
    with pytest.raises(ValueError, match="have nothing to train: a, b"):
        optimizers.LastLayer.of(model)
    recurrent = keras.Sequential([keras.Input((3, 2)), keras.layers.LSTM(1, name="last")])
    assert optimizers.LastLayer.of(recurrent).indexes == (0, 1, 2)
    with pytest.raises(TypeError, match=r"`model` must be a keras.Model. Received: 3"):
        tfbio.layers.find_last_layers(3)
    with pytest.raises(ValueError, match="is not built"):
        tfbio.layers.find_last_layers(keras.Sequential([keras.layers.Dense(1)]))


def test_last_layers_are_found_within_a_strategys_scope():
    with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
        layers = [keras.layers.Dense(3, name=name) for name in ("hidden", "logits")]
        model = keras.Sequential([keras.Input((4,)), *layers])
        tfbio.convert(model, "brsf", last_layer="backprop")
        assert list(tfbio.layers.find_last_layers(model)) == ["logits"]
    assert list(tfbio.layers.find_last_layers(model)) == ["logits"]
    assert model.get_layer("logits").symmetric
    assert not model.get_layer("hidden").symmetric


def test_the_wrong_variables_are_refused():
    model = some_model()
    last = optimizers.LastLayer.of(model)
    for wrong in (model.trainable_variables[1:], model.trainable_variables[::-1]):
        with pytest.raises(ValueError, match="was made for a model with 8 trainable variables"):
            optimizers.get("sgd", 0.1, last_layer=last).build(wrong)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "sgdd"}, "Unknown optimizer 'sgdd'. Did you mean 'sgd'? Optimizers: sgd, "),
        ({"name": "Adam"}, "Did you mean 'adam'?"),
        ({"learning_rate": -1}, "`learning_rate` must be a finite number greater than 0"),
        ({"learning_rate": float("nan")}, "Received: nan"),
        ({"learning_rate": "0.1"}, "Received: '0.1'"),
        (
            {"momentum": 1},
            "`momentum` must be a finite number of 0 or more and less than 1. Received: 1",
        ),
        ({"name": "adam", "momentum": 0.9}, "`momentum` must be 0 with 'adam'"),
        ({"name": "adamw", "momentum": 0.9}, "`momentum` must be 0 with 'adamw'"),
        ({"name": "nesterov"}, "`momentum` must be more than 0 with Nesterov's. Received: 0.0"),
        (
            {"weight_decay": -0.1},
            "`weight_decay` must be a finite number of 0 or more. Received: -0.1",
        ),
        (
            {"weight_decay": None},
            "`weight_decay` must be a finite number of 0 or more. Received: None",
        ),
        ({"batch_manhattan": 1}, "`batch_manhattan` must be True or False. Received: 1"),
        ({"no_sign_change": None}, "`no_sign_change` must be True or False. Received: None"),
        ({"last_layer": 0.1}, "`last_layer` must be a tfbio.optimizers.LastLayer"),
    ],
)
def test_a_bad_request_is_refused(arguments, message):
    with pytest.raises((ValueError, TypeError)) as caught:
        optimizers.get(**{"name": "sgd", "learning_rate": 0.1, **arguments})
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"learning_rate_scale": -1}, "`learning_rate_scale` must be a finite number of 0 or more"),
        ({"batch_manhattan": "yes"}, "`batch_manhattan` must be True, False or None"),
    ],
)
def test_bad_settings_of_the_last_layer_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        optimizers.LastLayer(**LAST, **settings)


def test_a_sign_that_is_kept_in_float64_is_that_of_1e_10_and_not_of_the_nearest_float32():
    variable = keras.Variable([1.0, -1.0], dtype="float64")
    optimizers.get("sgd", 2.0, no_sign_change=True).apply(
        [tf.constant([1.0, -1.0], tf.float64)], [variable]
    )
    np.testing.assert_array_equal(variable.numpy(), [1e-10, -1e-10])
