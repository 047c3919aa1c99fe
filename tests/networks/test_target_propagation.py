"""Target propagation against oracles in float64, and its properties.

Exact inverses hit the targets; at its target no layer learns; learning is local to each layer; and
L-DRL's expected loss is least where the inverse is the transpose.
"""

import functools
import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from rich.console import Console

import tfbio
from tests.cases import assert_same_learning, long_but, random
from tfbio import optimizers, rules
from tfbio.layers import FeedbackDense, context
from tfbio.layers.sites import find_sites
from tfbio.networks.target_propagation import TargetNetwork, inverse, learning, stages, step, undone
from tfbio.training.accumulation import Accumulation

K = keras.layers
RULES = ("tp", "dtp", "sdtp", "ao_sdtp(auxiliary=4)")
ENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True, dtype="float64")
SOFT = keras.losses.CategoricalCrossentropy(from_logits=True, dtype="float64")


def chain(units=(5, 4), activation="tanh", inputs=6, dtype="float64", classes=3):
    keras.utils.set_random_seed(0)
    layers = [K.Dense(n, activation, dtype=dtype, name=f"h{i}") for i, n in enumerate(units, 1)]
    out = K.Dense(classes, dtype=dtype, name="out")
    return keras.Sequential([keras.Input((inputs,), dtype=dtype), *layers, out])


def convolutional(dtype="float32", activation="tanh", hidden=True):
    keras.utils.set_random_seed(0)
    more = {"padding": "same", "dtype": dtype}
    dense = [K.Dense(5, activation, dtype=dtype, name="three")] if hidden else []
    return keras.Sequential(
        [
            keras.Input((7, 6, 2), dtype=dtype),
            K.Conv2D(4, 3, strides=2, activation=activation, name="one", **more),
            K.Conv2D(6, 3, name="two", **more),
            K.Activation(activation, dtype=dtype),
            K.MaxPooling2D(2, dtype=dtype),
            K.Flatten(dtype=dtype),
            *dense,
            K.Dense(3, dtype=dtype, name="out"),
        ]
    )


def compiled(model, rule, loss=ENTROPY, optimizer=None, run_eagerly=True, **more):
    model = tfbio.convert(model, rule)
    # By itself, without a policy of the process: V and c are drawn in the kernels' dtype.
    model.compile(optimizer or keras.optimizers.SGD(0.1), loss, run_eagerly=run_eagerly, **more)
    return model


def batch(model, size=8, dtype=None):
    shape = (size, *model.input_shape[1:])
    classes = model.output_shape[-1]
    return random(shape, dtype or model.dtype), tf.constant(np.arange(size) % classes)


def learned(model, x, y):
    """Return the gradients that a step applies, by the variable's name."""
    collector = tfbio.metrics.gradients.GradientCollector(model)
    with collector.in_place():
        pairs = collector.gradients(x, y)
    return {name_of(v): g.numpy() for g, v in pairs}


def name_of(variable):
    parts = variable.path.split("/")
    return f"{parts[-3] if len(parts) > 2 and 'inverse' in parts[-1] else parts[-2]}/{parts[-1]}"


def softmax(z):
    p = np.exp(z - z.max(-1, keepdims=True))
    return p / p.sum(-1, keepdims=True)


@pytest.mark.parametrize("reconstruct", ["clean", "corrupted"])
@pytest.mark.parametrize("rule", RULES)
def test_a_dense_network_agrees_with_an_oracle_in_numpy(rule, reconstruct, monkeypatch):
    def noise(self, index, draw, like):
        return random(like.shape, "float64", seed=index)

    monkeypatch.setattr(step.Step, "draw_noise", noise)
    given = rules.get(rule)
    given.reconstruct = reconstruct
    model = compiled(chain((5, 4, 4)), given)
    x, y = batch(model)
    layers, n = model.layers, len(x)
    w = [layer.kernel.numpy() for layer in layers]
    b = [random(layer.bias.shape, "float64", seed=9).numpy() for layer in layers]
    for layer, value in zip(layers, b, strict=True):
        layer.bias.assign(value)
    own = [layer.rule for layer in layers]
    v = [getattr(r, "inverse_kernel", None) for r in own]
    v = [None if each is None else each.numpy() for each in v]
    c = [None if each is None else random(each.shape[:1], "float64", seed=3).numpy() for each in v]
    for r, value in zip(own, c, strict=True):
        if value is not None:
            r.inverse_bias.assign(value)
    actual = learned(model, x, y)

    def f(i, h):
        z = h @ w[i] + b[i]
        return np.tanh(z) if i < 3 else softmax(z)

    auxiliary = hasattr(own[3], "auxiliary_kernel")

    def extra(h):
        if not auxiliary:
            return 0.0
        z = np.tanh(h @ own[3].auxiliary_kernel.numpy())
        return z @ own[3].inverse_auxiliary_kernel.numpy().T

    def g(i, h, more=0.0):
        return np.tanh(h @ v[i].T + c[i] + more)

    h = [x.numpy()]
    for i in range(4):
        h.append(f(i, h[-1]))
    one_hot = np.eye(3)[y]
    error = (h[4] - one_hot) / n
    if not own[0].inverts_output:
        target = {2: h[3] - given.alpha * n * error @ w[3].T}
    else:
        more = extra(h[3])
        target = {2: h[3] - g(3, h[4], more) + g(3, one_hot, more)}
    for i in (2, 1):
        target[i - 1] = g(i, target[i])
        if given.difference:
            target[i - 1] += h[i] - g(i, h[i + 1])
    expected = {"out/kernel": h[3].T @ error, "out/bias": error.sum(0)}
    for i in range(3):
        delta = 2 / n * (h[i + 1] - target[i]) * (1 - h[i + 1] ** 2)
        expected |= {f"h{i + 1}/kernel": h[i].T @ delta, f"h{i + 1}/bias": delta.sum(0)}
    for i in range(1, 4):
        if v[i] is None:
            continue
        xi = h[i] + given.noise * random(h[i].shape, "float64", seed=i).numpy()
        up = f(i, xi)
        more = extra(xi) if i == 3 else 0.0
        back = g(i, up, more)
        goal = h[i] if reconstruct == "clean" else xi
        delta = 2 / n * (back - goal) * (1 - back**2)
        name = layers[i].name
        expected |= {
            f"{name}/inverse_kernel": delta.T @ up, f"{name}/inverse_bias": delta.sum(0)
        }  # fmt: skip
        if i == 3 and auxiliary:
            z = np.tanh(xi @ own[3].auxiliary_kernel.numpy())
            expected["out/inverse_auxiliary_kernel"] = delta.T @ z
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(actual[name], value, rtol=1e-9, atol=1e-13, err_msg=name)


@pytest.mark.parametrize("difference", [True, False])
def test_an_exact_inverse_hits_the_target_above(difference):
    # Orthogonal and linear, f's inverse is its transpose.
    model = tfbio.convert(chain((6, 6, 6), None), "dtp" if difference else "tp")
    found = stages(model, model.layers[0].rule)
    for layer in model.layers[:3]:
        layer.kernel.assign(np.linalg.qr(random((6, 6)).numpy())[0])
    for layer in model.layers[1:3]:
        layer.rule.inverse_kernel.assign(layer.kernel)
    x, _ = batch(model)
    seen, h = [], x
    for stage in found:
        seen.append(stage.run(h))
        h = seen[-1].output
    matrices = [
        [layer.rule.inverse_kernel, layer.rule.inverse_bias] if i in (1, 2) else None
        for i, layer in enumerate(model.layers)
    ]
    inverses = learning.Inverses(found, seen, matrices, own=False)
    wanted = random(seen[2].output.shape, seed=5)
    activations = [each.output for each in seen]
    targets = learning.targets(inverses, activations, (2, wanted), difference)
    reached = targets[0]
    for stage in found[1:3]:
        reached = stage.run(reached).output
    np.testing.assert_allclose(reached, wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("make", [chain, lambda: convolutional("float64")])
@pytest.mark.parametrize("rule", [rule for rule in RULES if rule != "tp"])
def test_at_the_target_no_hidden_layer_learns(rule, make):
    model = compiled(make(), rule, SOFT)
    x, _ = batch(model)
    y = tf.nn.softmax(model(x))
    for name, gradient in learned(model, x, y).items():
        if "inverse" not in name:
            assert np.abs(gradient).max() < 1e-14, name


@pytest.mark.parametrize("rule", [*RULES, "l_drl(iterations=2)"])
def test_no_gradient_passes_between_layers(rule):
    model = compiled(convolutional("float64"), rule)
    x, y = batch(model)
    taken = step.Step(model, stages(model, model.layers[0].rule), (x, y, None))
    seen = []
    run = type(taken.stages[0]).run

    def witnessed(stage, h, training=True):
        with tf.GradientTape() as tape:
            tape.watch(h)
            found = run(stage, h, training)
        seen.append((stage, h, found))
        del tape
        return found

    with pytest.MonkeyPatch.context() as patch, tf.GradientTape(persistent=True) as tape:
        patch.setattr(type(taken.stages[0]), "run", witnessed)
        patch.setattr(taken, "differentiate", lambda tape, objective: objective)
        with taken.weights_read_once():
            _, _, objective, *_ = taken.learned()
    passes = [(stage, found) for stage, _, found in seen[: len(taken.stages)]]
    for stage, found in passes[:-1]:
        # An output that is asked for its gradient has its own local error alone, that of a square.
        gradient = tape.gradient(objective, found.output)
        others = [
            v for other in taken.stages if other is not stage for v in other.layer.trainable_weights
        ]
        assert gradient is not None
        with context.within(error=context.OPEN), tf.GradientTape() as again:
            again.watch(found.inputs[0])
            output = stage.run(found.inputs[0]).output
        assert all(g is None for g in again.gradient(output, others))


@pytest.mark.parametrize("rule", RULES)
def test_a_layers_gradient_depends_on_its_input_and_target_alone(rule, monkeypatch):
    model = compiled(chain((5, 4, 4)), rule)
    x, y = batch(model)
    fixed = {}
    given = learning.targets

    def targets(*arguments):
        return fixed or fixed.setdefault("targets", None) or _keep(fixed, given(*arguments))

    def _keep(store, found):
        store.clear()
        store.update(found)
        return found

    monkeypatch.setattr(learning, "targets", targets)
    before = learned(model, x, y)
    # The layer above the first, and its inverse, change: the first one's input and target do not.
    layer = model.layers[1]
    layer.kernel.assign(layer.kernel + 1.0)
    layer.rule.inverse_kernel.assign(layer.rule.inverse_kernel + 1.0)
    after = learned(model, x, y)
    for name in ("h1/kernel", "h1/bias"):
        np.testing.assert_array_equal(before[name], after[name])
    assert not np.array_equal(before["h2/kernel"], after["h2/kernel"])


def test_auxiliary_units_never_change_and_inverses_do():
    model = compiled(chain(dtype="float32"), "ao_sdtp(auxiliary=4)")
    x, y = batch(model)
    rule = model.layers[-1].rule
    fixed = rule.auxiliary_kernel.numpy()
    learns = [rule.inverse_kernel, rule.inverse_auxiliary_kernel, rule.inverse_bias]
    before = [v.numpy() for v in learns]
    model.fit(x, y, epochs=2, verbose=0)
    np.testing.assert_array_equal(fixed, rule.auxiliary_kernel)
    assert all(
        not np.array_equal(was, v) for was, v in zip(before, learns, strict=True)
    )  # fmt: skip


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (K.Dense(3), (5,)),
        (K.Conv1D(3, 3, strides=2, padding="same"), (8, 2)),
        (K.Conv1D(3, 3, padding="causal"), (8, 2)),
        (K.Conv2D(3, 3, strides=2), (7, 6, 2)),
        (K.Conv2D(4, (2, 3), strides=(2, 1), padding="same", groups=2), (7, 6, 2)),
        (K.Conv2DTranspose(3, 3, strides=2), (4, 5, 2)),
        (K.DepthwiseConv2D(3, depth_multiplier=2), (6, 6, 2)),
        (K.EinsumDense("abc,cd->abd", (4, 3)), (4, 5)),
        (tfbio.layers.LocallyConnected1D(3, 3, 2, "same"), (8, 2)),
        (tfbio.layers.LocallyConnected2D(3, (2, 3), (2, 1), "same"), (7, 6, 2)),
        (tfbio.layers.LocallyConnected2D(3, 3, 2), (7, 6, 2)),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, K.Layer) else "",
)
def test_the_inverse_is_the_adjoint_where_v_is_w(layer, shape):
    layer = type(layer).from_config({**layer.get_config(), "dtype": "float64"})
    x = random((2, *shape))
    model = keras.Sequential(
        [
            keras.Input(shape, dtype="float64"),
            K.Dense(shape[-1], dtype="float64", name="below"),
            layer,
            K.Flatten(dtype="float64"),
            K.Dense(2, dtype="float64", name="above"),
        ]
    )
    model = tfbio.convert(model, "sdtp")
    stage = stages(model, model.layers[0].rule)[1]
    seen = stage.run(x)
    layer = stage.layer
    y = random(layer(x).shape, seed=4)
    up = layer.linear(x, tf.convert_to_tensor(layer.kernel))
    down = inverse(stage, tf.reshape(y, (2, -1)), seen, layer.kernel, tf.zeros((), "float64"))
    np.testing.assert_allclose(tf.reduce_sum(up * y), tf.reduce_sum(x * down), rtol=1e-12)


def test_pooling_is_undone_where_its_maxima_were():
    x = tf.constant([[[1.0], [9.0], [3.0], [2.0], [8.0]]])
    up = tf.constant([[[5.0], [6.0]]])
    overlapping = K.MaxPooling1D(3, 2)
    np.testing.assert_array_equal(undone(overlapping, x, up)[0, :, 0], [0, 5, 0, 0, 6])
    average = K.AveragePooling1D(2)
    np.testing.assert_array_equal(undone(average, x, up)[0, :, 0], [5, 5, 6, 6, 0])
    padded = K.ZeroPadding1D(1)
    np.testing.assert_array_equal(undone(padded, x, padded(x)), x)


def test_the_adjoints_loss_is_least_at_the_transpose():
    model = compiled(
        chain((5, 4), None), "l_drl(iterations=400, rate=0.5, noise=0.3, momentum=0.5)"
    )
    x, y = batch(model, 64)
    # In a graph: 400 iterations take long eagerly, and converting the library's code does, too.
    collector = tfbio.metrics.gradients.GradientCollector(model)
    collector.prepare((x, y))
    with collector.in_place():
        gradients = tf.function(lambda: collector.gradients(x, y)[0][0], autograph=False)
        gradients()
    for layer in model.layers[1:]:
        w, v = layer.kernel.numpy(), layer.rule.inverse_kernel.numpy()
        assert tfbio.metrics.angle(w, v) < 8, layer.name
        assert abs(np.linalg.norm(v) / np.linalg.norm(w) - 1) < 0.1


def test_iterations_of_an_inverse_are_its_own():
    model = compiled(chain((5, 4), None), "l_drl(iterations=(1, 3), rate=(0.1, 0.2))")
    before = [layer.rule.inverse_kernel.numpy() for layer in model.layers[1:]]
    x, y = batch(model)
    learned(model, x, y)
    for was, layer in zip(before, model.layers[1:], strict=True):
        assert not np.array_equal(was, layer.rule.inverse_kernel)
    with pytest.raises(ValueError, match="one number for each of the 2 inverses"):
        tfbio.convert(refused := tfbio.convert(chain(), "frsf"), "l_drl(rate=(0.1, 0.2, 0.3))")
    assert {type(layer.rule).alias for layer in refused.layers} == {"frsf"}  # as it was


def inverses_of(model):
    """Return V, c and the kernel's fans of every layer with an inverse."""
    return [
        (
            site.rule.inverse_kernel.numpy(),
            site.rule.inverse_bias.numpy(),
            site.layer.fans(site.kernel_name),
        )
        for site in find_sites(model).values()
        if hasattr(site.rule, "inverse_kernel")
    ]


def locally_connected():
    more = {"padding": "same", "dtype": "float64"}
    return keras.Sequential(
        [
            keras.Input((4, 4, 1), dtype="float64"),
            tfbio.layers.LocallyConnected2D(2, 3, **more),
            tfbio.layers.LocallyConnected2D(3, 3, strides=2, **more),
            K.Flatten(dtype="float64"),
            K.Dense(3, dtype="float64"),
        ]
    )


@pytest.mark.parametrize("make", [functools.partial(convolutional, "float64"), locally_connected])
@pytest.mark.parametrize("rule", ["sdtp", "l_drl"])
def test_inverses_start_as_asked(make, rule):
    for v, c, fans in inverses_of(tfbio.convert(make(), rule)):
        limit = np.sqrt(6 / (fans.fan_in + fans.fan_out))
        assert 0.9 * limit < abs(v).max() < limit
        assert not c.any()
    for v, c, fans in inverses_of(tfbio.convert(make(), f"{rule}(initialization='pytorch')")):
        # As torch.nn.Linear(out, in) has it, and ConvTranspose2d(out, in, …).
        limit = (fans.fan_in if fans.convolution else fans.fan_out) ** -0.5
        assert 0.9 * limit < abs(v).max() < limit
        assert 0 < abs(c).max() < limit
        assert len(set(c.ravel())) == c.size
    for v, c, fans in inverses_of(tfbio.convert(make(), f"{rule}(initialization='orthogonal')")):
        assert not c.any()
        for q in v if v.ndim == 3 else [v.reshape(-1, v.shape[-1])]:
            assert q.shape[0] == fans.fan_in
            gram = q.T @ q if q.shape[0] >= q.shape[1] else q @ q.T
            np.testing.assert_allclose(gram, np.eye(len(gram)), atol=1e-12)


def test_an_orthogonal_inverse_is_the_factor_of_a_uniform_matrix():
    seeded = "dtp(seed=1,initialization='{}')".format
    ((v, _, fans),) = inverses_of(tfbio.convert(chain((5, 4)), seeded("orthogonal")))
    ((drawn, _, _),) = inverses_of(tfbio.convert(chain((5, 4)), seeded("xavier_uniform")))
    assert v.shape == drawn.shape == (fans.fan_in, fans.fan_out)
    # The factor of A is the matrix Q with orthonormal columns for which QᵀA is symmetric, positive.
    rest = v.T @ drawn
    np.testing.assert_allclose(rest, rest.T, atol=1e-12)
    assert np.linalg.eigvalsh(rest).min() > 0


def test_noise_is_another_at_every_step_and_the_same_from_the_same_seed():
    def noises(seed, steps):
        model = compiled(chain(), f"dtp(seed={seed})")
        x, y = batch(model)
        found = []
        for _ in range(steps):
            taken = step.Step(model, stages(model, model.layers[0].rule), (x, y, None))
            with taken.weights_read_once():
                found.append(taken.draw_noise(1, 0, tf.zeros((1000, 3), "float64")).numpy())
            model.optimizer.iterations.assign_add(1)
        return found

    first, second = noises(1, 2)
    assert abs(first.mean()) < 0.05
    assert abs(first.std() - 1) < 0.05
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(noises(1, 1)[0], first)
    assert not np.array_equal(noises(2, 1)[0], first)


@pytest.mark.parametrize("rule", long_but(["sdtp"], [*RULES, "l_drl(rate=0.01)"]))
def test_it_fits_evaluates_predicts_and_comes_back_from_a_file(rule, tmp_path):
    optimizer = keras.optimizers.Adam(0.003)
    network = functools.partial(convolutional, hidden=False)
    model = compiled(network(), rule, ENTROPY, optimizer, False, metrics=["accuracy"])
    plain = network()
    x, y = batch(model, 12)
    np.testing.assert_array_equal(plain.predict(x, verbose=0), model.predict(x, verbose=0))
    # Before `fit`, which would trace its step twice for the metrics that Keras builds in it.
    assert len(model.evaluate(x, y, verbose=0)) == 2
    history = model.fit(x, y, epochs=3, verbose=0, validation_data=(x, y)).history
    assert history["loss"][-1] < history["loss"][0]
    assert not any(name.startswith("val_local") for name in history)
    measured = [name for name in history if "/" in name]
    assert len(measured) == {"tp": 5, "dtp": 5}.get(rule, 6)
    assert np.isfinite([history[name] for name in measured]).all()
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert isinstance(again, TargetNetwork)
    for was, now in zip(model.weights, again.weights, strict=True):
        np.testing.assert_array_equal(was, now, err_msg=was.path)
    for each in (model, again):
        each.run_eagerly = True
        each.make_train_function(force=True)
        each.train_on_batch(x, y)
    for was, now in zip(model.trainable_weights, again.trainable_weights, strict=True):
        np.testing.assert_allclose(was, now, rtol=1e-6, atol=1e-7, err_msg=was.path)
    clone = keras.models.clone_model(compiled(functional(), rule))
    assert isinstance(clone, TargetNetwork)


def functional():
    keras.utils.set_random_seed(0)
    x = keras.Input((4, 4, 1))
    inner = keras.Sequential([keras.Input((4, 4, 1)), K.Conv2D(3, 3, activation="tanh")])
    return keras.Model(x, K.Dense(3)(K.Dense(4, "tanh")(K.Flatten()(inner(x)))))


def test_alternating_trains_inverses_and_kernels_in_turns():
    own = optimizers.get("adam", 0.01, feedback=optimizers.Feedback(alternate=2))
    model = compiled(
        chain((4,), dtype="float32"),
        "sdtp(schedule='alternating')",
        optimizer=own,
        run_eagerly=False,
    )
    x, y = batch(model)
    for index in range(8):
        before = {v.path: v.numpy() for v in model.trainable_weights}
        logs = model.train_on_batch(x, y, return_dict=True)
        moved = {name for name, v in before.items() if not np.array_equal(v, _by_path(model, name))}
        inverses = index // 2 % 2 == 0
        assert moved == {name for name in before if ("inverse" in name) == inverses}, index
        assert np.isfinite(logs["loss"])
    wrong = compiled(chain(dtype="float32"), "dtp(schedule='alternating')")
    with pytest.raises(ValueError, match="needs an optimizer that takes turns"):
        wrong.train_on_batch(x, y)


@pytest.mark.parametrize(
    ("units", "rule", "message"),
    [
        ((5, 4), "dtp", r"schedule='parallel' lets all .* or the rule .* alternate=2"),
        ((5, 4), "l_drl", r"schedule='parallel' lets all .* alternate=0\. Received: alternate=2"),
        ((5,), "dtp(schedule='alternating')", "has no inverse to take turns with"),
    ],
)
def test_turns_that_mean_nothing_are_refused(units, rule, message):
    own = optimizers.get("adam", 0.01, feedback=optimizers.Feedback(alternate=2))
    model = compiled(chain(units, dtype="float32"), rule, optimizer=own)
    with pytest.raises(ValueError, match=message):
        model.train_on_batch(*batch(model))


def _by_path(model, path):
    return next(v for v in model.trainable_weights if v.path == path)


def test_settings_of_the_optimizer_reach_the_inverses_alone():
    own = optimizers.get("sgd", 0.1, feedback=optimizers.Feedback(learning_rate_scale=0.0))
    model = compiled(chain(dtype="float32"), "sdtp", optimizer=own)
    x, y = batch(model)
    before = {v.path: v.numpy() for v in model.trainable_weights}
    model.train_on_batch(x, y)
    for name, was in before.items():
        assert np.array_equal(was, _by_path(model, name)) == ("inverse" in name)


@pytest.mark.parametrize("rule", long_but(["sdtp"], ["dtp", "sdtp"]))
def test_a_step_is_the_same_eagerly_compiled_and_under_xla(rule):
    weights = []
    for mode in ({"run_eagerly": True}, {}, {"jit_compile": True}):
        model = tfbio.convert(convolutional(hidden=False), f"{rule}(seed=1)")
        model.compile(keras.optimizers.SGD(0.1), ENTROPY, **mode)
        x, y = batch(model)
        model.train_on_batch(x, y)
        weights.append(model.get_weights())
    for others in weights[1:]:
        for a, b in zip(weights[0], others, strict=True):
            np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-6)


@pytest.mark.parametrize("rule", long_but(["sdtp"], [*RULES, "l_drl(rate=0.01)"]))
def test_mixed_precision_and_loss_scaling_learn_alike(rule):
    before = keras.config.dtype_policy()
    weights = []
    for policy in ("float32", "mixed_bfloat16", "mixed_float16"):
        keras.config.set_dtype_policy(policy)
        try:
            keras.utils.set_random_seed(0)
            layers = [K.Conv1D(3, 3, activation="tanh"), K.Flatten(), K.Dense(6, "tanh")]
            model = keras.Sequential([keras.Input((6, 2)), *layers, K.Dense(3, dtype="float32")])
            model = tfbio.convert(model, f"{rule.rstrip(')')}{',' if '(' in rule else '('}seed=1)")
            optimizer = optimizers.get("sgd", 0.1)
            if policy == "mixed_float16":
                optimizer = optimizers.LossScale(optimizer)
            model.compile(optimizer, ENTROPY, run_eagerly=True)
        finally:
            keras.config.set_dtype_policy(before)
        x, y = random((8, 6, 2), "float32"), np.arange(8) % 3
        first = [v.numpy() for v in model.trainable_weights]
        model.train_on_batch(x, y)
        weights.append([v - w for v, w in zip(model.trainable_weights, first, strict=True)])
    for others in weights[1:]:
        for a, b in zip(weights[0], others, strict=True):
            difference = np.linalg.norm(a - b)
            assert difference <= 0.05 * np.linalg.norm(a) + 1e-5


def test_two_replicas_learn_as_one_device_does(monkeypatch):
    # The noise of a replica is its own: without it, both halves of the batch add up to the whole.
    monkeypatch.setattr(step.Step, "draw_noise", lambda self, index, draw, like: 0.1 * like)
    weights = []
    mirrored = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    for strategy in (tf.distribute.get_strategy(), mirrored):
        with strategy.scope():
            model = chain(dtype="float32")
            model = compiled(
                model, "sdtp(seed=1)", optimizer=optimizers.get("sgd", 0.1),
                run_eagerly=strategy is not mirrored,
            )  # fmt: skip
        x, y = batch(model, dtype="float32")
        data = tf.data.Dataset.from_tensor_slices((x, y)).batch(8)
        start = model.get_weights()
        model.fit(data, epochs=2, verbose=0, shuffle=False)
        weights.append(model.get_weights())
    one, two = weights
    assert_same_learning(two, one, start)
    with mirrored.scope():
        wrong = compiled(chain(dtype="float32"), "l_drl", run_eagerly=False)
    with pytest.raises(ValueError, match="runs on one device"):
        wrong.fit(data, verbose=0, shuffle=False)


def test_gradient_angles_compare_with_backpropagation():
    model = compiled(convolutional(), "dtp")
    x, y = batch(model)
    angles = tfbio.metrics.GradientMeter(model)(x, y)
    assert angles.local_ == {}
    assert angles.global_["out"] < 0.1
    assert angles.global_["three"] < 0.5  # its target is a step down the true gradient
    assert 1 < angles.global_["two"] < 180
    with pytest.raises(ValueError, match="learns from targets, and not from a gradient"):
        tfbio.metrics.gradient_angles(model, x, y, ENTROPY)


def weighted(model, x, y, weights):
    """Return the gradients that a step applies to kernels and biases, examples having weights."""
    collector = tfbio.metrics.gradients.GradientCollector(model)
    with collector.in_place():
        pairs = collector.gradients(x, y, tf.constant(weights, "float64"))
    return {name_of(v): g for g, v in pairs if "inverse" not in name_of(v)}


@pytest.mark.parametrize("rule", RULES)
def test_an_example_without_weight_teaches_nothing(rule):
    model = compiled(chain(), rule)
    x, y = batch(model)
    half = learned(model, x[::2], y[::2])
    for name, value in weighted(model, x, y, [1.0, 0.0] * 4).items():
        np.testing.assert_allclose(value, half[name] / 2, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("rule", [*RULES, "l_drl(iterations=2)"])
def test_an_example_of_twice_the_weight_teaches_twice_as_much(rule):
    model, other = (compiled(chain(), rule) for _ in range(2))  # inverses may learn in a step
    x, y = batch(model)
    once = learned(model, x, y)
    for name, value in weighted(other, x, y, [2.0] * 8).items():
        np.testing.assert_allclose(value, 2 * once[name], rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("rule", [*RULES, "l_drl(iterations=2,beta=0.25)"])
def test_what_regularizes_is_learned_as_it_is(rule):
    found = []
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    for factor in (0.0, 0.05):
        model = chain(dtype="float32")
        for layer in model.layers:
            layer.kernel.regularizer = keras.regularizers.L2(factor)  # it is built
        compiled(model, rule, loss)
        kernels = {f"{layer.name}/kernel": layer.kernel.numpy() for layer in model.layers}
        found.append(learned(model, *batch(model)))
    for name, kernel in kernels.items():
        np.testing.assert_allclose(found[1][name] - found[0][name], 0.1 * kernel, 1e-4, 1e-6)


def by_hand(model, rule):
    """Return layers like a model's, under a rule and in a plain Sequential."""
    layers = [
        FeedbackDense(layer.units, layer.activation, dtype=layer.dtype, rule=rule)
        for layer in model.layers
    ]
    return keras.Sequential([keras.Input(model.input_shape[1:], dtype=model.dtype), *layers])


def within(model, rule):
    x = keras.Input(model.input_shape[1:], dtype=model.dtype)
    return keras.Model(x, tfbio.convert(model, rule)(x))


def cloned(model, rule):
    return keras.models.clone_model(tfbio.convert(model, rule))


def of_its_layers(model, rule):
    return keras.Sequential([*model.inputs, *tfbio.convert(model, rule).layers])


def of_its_tensors(model, rule):
    return keras.Model(tfbio.convert(model, rule).inputs, model.outputs)


MAKERS = (by_hand, within, cloned, of_its_layers, of_its_tensors)
OUTSIDE = list(itertools.product(MAKERS, [*RULES, "l_drl(iterations=2)"]))


@pytest.mark.parametrize(
    ("make", "rule"),
    long_but(
        [(make, rule) for make, rule in OUTSIDE if rule == "sdtp" or make is by_hand], OUTSIDE
    ),
)
def test_outside_of_its_network_no_layer_learns_by_backpropagation(make, rule):
    model = make(chain(), rule)
    model.compile("sgd", ENTROPY, run_eagerly=rule != "sdtp")
    x, y = batch(model)
    model.evaluate(x, y, verbose=0)
    with pytest.raises(ValueError, match="a rule of whole networks: its target comes from its"):
        model.fit(x, y, verbose=0)


def test_only_the_true_gradient_is_taken_outside_of_a_step():
    model, plain = compiled(chain(), "dtp"), chain()
    x, y = batch(model)

    @tf.function
    def gradient(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = ENTROPY(y, model(x))
        return tape.gradient(loss, x)

    for function in (gradient, gradient.python_function):
        with pytest.raises(ValueError, match="was differentiated outside of its network's"):
            function(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        loss = ENTROPY(y, plain(x))
    expected = tape.gradient(loss, x)
    with tfbio.true_gradient(model):
        for function in (gradient, gradient.python_function):
            np.testing.assert_allclose(function(x), expected, rtol=1e-12)
    with pytest.raises(tf.errors.InvalidArgumentError, match="a rule of whole networks"):
        gradient(x)  # compiled for the true gradient


def test_each_micro_batch_draws_noise_of_its_own():
    model = compiled(chain(dtype="float32"), "sdtp(seed=3)")
    x, y = batch(model)
    parts = Accumulation(model, 2)

    def drawn():
        taken = step.Step(model, stages(model, model.layers[0].rule), (x, y, None))
        with taken.weights_read_once():
            return taken.draw_noise(1, 0, tf.zeros((4, 5))).numpy()

    alone = drawn()
    with parts.in_place():
        noises = []
        for _ in range(2):
            noises.append(drawn())
            parts.apply([tf.zeros_like(v) for v in model.trainable_variables])
        parts.release()
        np.testing.assert_array_equal(noises[0], alone)
        assert np.abs(np.corrcoef(noises[0].ravel(), noises[1].ravel())[0, 1]) < 0.9
        assert int(parts.micro_batch) == 0


def branching():
    x = keras.Input((4,))
    h = K.Dense(4, "tanh", name="h")(x)
    return keras.Model(x, K.Dense(3)(K.Add(name="add")([h, x])))


def of(*layers, shape=(4,)):
    return keras.Sequential([keras.Input(shape), *layers])


def shared():
    layer = K.Dense(4, "tanh", name="twice")
    x = keras.Input((4,))
    return keras.Model(x, K.Dense(3)(layer(layer(x))))


@pytest.mark.parametrize(
    ("make", "rule", "message"),
    [
        (branching, "dtp", "'add' does not"),
        (shared, "dtp", "'twice' is called more than once"),
        (lambda: of(K.Dense(3)), "dtp", "needs a hidden layer"),
        (
            lambda: of(K.Dense(4, "tanh"), K.BatchNormalization(name="norm"), K.Dense(3)),
            "dtp",
            "'norm' of class BatchNormalization has weights and no kernel",
        ),
        (
            lambda: of(K.Dense(4, "tanh"), K.Dropout(0.5, name="drop"), K.Dense(3)),
            "dtp",
            "'drop' of class Dropout has no inverse",
        ),
        (
            lambda: of(K.SeparableConv1D(2, 1, name="two"), K.Flatten(), K.Dense(3), shape=(4, 2)),
            "dtp",
            "no inverse for layer 'two'",
        ),
        (
            lambda: of(K.Conv1D(2, 1), K.Conv1D(2, 1, name="at"), K.GlobalMaxPooling1D(),
                       K.Dense(3), shape=(None, 2)),
            "dtp",
            "whose input's shape",
        ),
        (lambda: of(K.Dense(4, "tanh"), K.Dense(3, "sigmoid")), "sdtp", "after sigmoid"),
        (lambda: of(K.Dense(4, "tanh"), K.Dense(3, "softmax")), "l_drl", "after softmax"),
        (lambda: of(K.Dense(4, "tanh"), K.Dense(1)), "ao_sdtp", "two or more classes"),
    ],
)  # fmt: skip
def test_what_it_cannot_train_is_refused(make, rule, message):
    model = make()
    with pytest.raises(ValueError, match=message):
        tfbio.convert(model, rule)
    assert not isinstance(model, TargetNetwork)
    assert not any(hasattr(layer, "rule") for layer in model.layers)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("dtp(alpha=0)", "`alpha` must be a finite number greater than 0"),
        ("dtp(noise=-1)", "`noise` must be a finite number greater than 0"),
        ("dtp(schedule='both')", "`schedule` must be 'parallel' or 'alternating'"),
        ("sdtp(reconstruct='all')", "`reconstruct` must be 'clean' or 'corrupted'"),
        ("l_drl(initialization='he')", "`initialization` must be 'xavier_uniform' or 'orthogonal'"),
        ("sdtp(alpha=0.1)", "no option 'alpha'"),
        ("ao_sdtp(auxiliary=0)", "`auxiliary` must be an integer of 1 or more"),
        ("l_drl(iterations=0)", "`iterations` must be an integer of 1 or more"),
        ("l_drl(iterations=9999)", "`iterations` must be an integer of 1 to 2000"),
        ("l_drl(rate=())", "`rate` must have a number for each inverse"),
        ("l_drl(momentum=1)", "`momentum` must be less than 1"),
    ],
)
def test_options_out_of_their_range_are_refused(rule, message):
    with pytest.raises(ValueError, match=message):
        rules.get(rule)


def test_losses_labels_and_layers_rules_that_do_not_fit_are_refused():
    for reduction in ("sum", "mean_with_sample_weight"):
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction=reduction)
        for given in (loss, [loss]):
            wrong = compiled(chain(), "dtp", given)
            with pytest.raises(ValueError, match="reduction is 'sum_over_batch_size'"):
                wrong.train_on_batch(*batch(wrong))
    with pytest.raises(ValueError, match="an integer or a distribution over the 3 classes"):
        step.to_distribution(tf.zeros((8, 2)), tf.zeros((8, 3)))
    with pytest.raises(ValueError, match="Received: no targets"):
        step.to_distribution(None, tf.zeros((8, 3)))
    for loss in ("mse", keras.losses.MeanSquaredError(), ["mse"], keras.losses.Huber()):
        wrong = compiled(chain(), "sdtp", loss)
        with pytest.raises(ValueError, match="compares the softmax of the outputs with the label"):
            wrong.train_on_batch(*batch(wrong))
    for loss in ("sparse_categorical_crossentropy", lambda y, z: ENTROPY(y, z)):
        right = compiled(chain(), "sdtp", loss)
        right.train_on_batch(*batch(right))
    with pytest.raises(ValueError, match="`last_layer` means nothing"):
        tfbio.convert(chain(), "dtp", last_layer="backprop")


def test_the_summary_says_what_is_inverted():
    console = Console(width=100, record=True)
    tfbio.summary(tfbio.convert(convolutional(), "ao_sdtp(auxiliary=7)"), console)
    text = console.export_text()
    assert "inverse to 4×3×4" in text
    assert "with 7 auxiliary units" in text


def test_a_model_that_was_converted_is_converted_anew():
    model = tfbio.convert(chain(), "dtp")
    assert type(tfbio.convert(model, "backprop")) is keras.Sequential
    assert isinstance(tfbio.convert(model, "dfa"), tfbio.networks.direct.DirectNetwork)
    assert isinstance(tfbio.convert(model, "sdtp"), TargetNetwork)
