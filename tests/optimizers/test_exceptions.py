"""What weight decay spares, and the biases' own learning rate."""

import keras
import numpy as np
import pytest

import tfbio
from tests.cases import random
from tests.training.test_strategies import NETWORK, learned
from tfbio import optimizers, training
from tfbio.layers.sites import find_sites
from tfbio.optimizers import Exceptions

RATE, DECAY = 0.1, 0.2


def every_kind():
    """Return a model with weights of many kinds of layers, user-made normalization included."""

    class Own(keras.layers.Layer):
        def build(self, shape):
            self.gamma = self.add_weight(shape=(shape[-1],), name="gamma")
            self.kernel = self.add_weight(shape=(shape[-1],), name="kernel")

        def call(self, inputs):
            return inputs * self.gamma * self.kernel

    layers = keras.layers
    inputs = keras.Input((8, 8, 4))
    x = layers.Conv2D(4, 3, name="conv")(inputs)
    x = layers.BatchNormalization(name="batch")(x)
    x = tfbio.layers.LocallyConnected2D(4, 3, name="local")(x)
    x = layers.GroupNormalization(2, name="group")(x)
    x = layers.SeparableConv2D(4, 2, name="separable")(x)
    x = layers.Reshape((9, 4))(x)
    x = layers.LayerNormalization(name="layer")(x)
    x = layers.MultiHeadAttention(2, 2, name="attention")(x, x)
    x = layers.RMSNormalization(name="rms")(x)
    x = layers.EinsumDense("abc,cd->abd", (9, 4), bias_axes="d", name="einsum")(x)
    x = Own(name="own")(layers.PReLU(name="prelu")(x))
    x = layers.Bidirectional(layers.LSTM(3, name="lstm"), name="both")(x)
    return keras.Model(inputs, layers.Dense(2, name="logits")(x))


def names(model, indexes):
    return {model.trainable_variables[i].path for i in indexes}


BIASES = {
    *("conv/bias", "batch/beta", "local/bias", "group/beta", "separable/bias", "layer/beta"),
    *(f"attention/{part}/bias" for part in ("query", "key", "value", "attention_output")),
    *("einsum/bias", "logits/bias"),
    *(f"both/{way}_lstm/lstm_cell/bias" for way in ("forward", "backward")),
}
NORMALIZATION = {
    *("batch/gamma", "batch/beta", "group/gamma", "group/beta"),
    *("layer/gamma", "layer/beta", "rms/scale", "own/gamma"),
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("bias", BIASES),
        ("normalization", NORMALIZATION),
        ("bias, normalization", BIASES | NORMALIZATION),
        ("logits*,conv", {"logits/kernel", "logits/bias", "conv/kernel", "conv/bias"}),
        (
            "prelu,attention/query",
            {"prelu/alpha", "attention/query/kernel", "attention/query/bias"},
        ),
    ],
)
def test_kinds_are_known_in_every_layer(text, expected):
    model = every_kind()
    assert names(model, Exceptions.of(model, text).without_decay) == expected
    if text == "bias":
        assert names(model, Exceptions.of(model, "", 2.0).biases) == expected


def small(rule="backprop", dtype="float64"):
    keras.utils.set_random_seed(0)
    dense = keras.layers.Dense
    model = keras.Sequential(
        [
            keras.Input((4,), dtype=dtype),
            dense(5, "tanh", dtype=dtype, name="hidden", bias_initializer="ones"),
            keras.layers.BatchNormalization(dtype=dtype, name="norm"),
            dense(2, dtype=dtype, name="logits", bias_initializer="ones"),
        ]
    )
    return tfbio.convert(model, rule)


@pytest.mark.parametrize("name", ["sgd", "nesterov", "adamw"])
def test_the_decay_and_the_rate_are_the_equations(name):
    """In float64 and numpy, per variable: λ or 0, η or 2η."""
    model = small()
    exceptions = Exceptions.of(model, "bias,logits", 2.0)
    optimizer = optimizers.get(name, RATE, 0.9 * (name == "nesterov"), DECAY, exceptions=exceptions)
    variables = model.trainable_variables
    optimizer.build(variables)
    decays = [1, 0, 1, 0, 0, 0]  # hidden kernel and bias, gamma and beta, logits kernel and bias
    scales = [1, 2, 1, 2, 1, 2]
    expected = [v.numpy() for v in variables]
    first, second = ([np.zeros_like(p) for p in expected] for _ in range(2))
    for t in range(3):
        gradients = [random(v.shape, seed=10 * t + i) for i, v in enumerate(variables)]
        optimizer.apply(gradients)
        for i, g in enumerate(gradients):
            g, decay, rate = g.numpy(), DECAY * decays[i], RATE * scales[i]
            if name == "adamw":
                expected[i] -= rate * decay * expected[i]
                first[i] = 0.9 * first[i] + 0.1 * g
                second[i] = 0.999 * second[i] + 0.001 * g**2
                hat = np.sqrt(1 - 0.999 ** (t + 1)) / (1 - 0.9 ** (t + 1))
                expected[i] -= rate * hat * first[i] / (np.sqrt(second[i]) + 1e-7)
                continue
            g = g + decay * expected[i]
            momentum = 0.9 if name == "nesterov" else 0.0
            first[i] = momentum * first[i] + g
            expected[i] -= rate * (g + momentum * first[i] if momentum else first[i])
        for value, wanted in zip(variables, expected, strict=True):
            np.testing.assert_allclose(value, wanted, rtol=1e-6)


def test_the_biases_rate_multiplies_the_last_layers():
    model = small()
    optimizer = optimizers.get(
        "sgd",
        RATE,
        last_layer=optimizers.LastLayer.of(model, learning_rate_scale=0.5),
        exceptions=Exceptions.of(model, "", 4.0),
    )
    before = [v.numpy() for v in model.trainable_variables]
    optimizer.apply([np.ones_like(v) for v in before], model.trainable_variables)
    steps = [np.unique((b - v.numpy()).round(9)).item() for b, v in zip(
        before, model.trainable_variables, strict=True
    )]  # fmt: skip
    np.testing.assert_allclose(np.array(steps) / RATE, [1, 4, 1, 4, 0.5, 2], rtol=1e-6)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
@pytest.mark.parametrize("way", ["exceptions", "Keras's, by name"])
def test_kolen_pollacks_b_is_spared_with_its_kernel(name, way):
    """W − B is kept where W does not decay, and shrinks by 1 − ηλ where it does."""
    model = small("kolen_pollack")
    spared, exceptions = {"logits"}, Exceptions.of(model, "logits,bias")
    if way != "exceptions":
        spared, exceptions = {"hidden", "logits"}, None
    optimizer = optimizers.get(name, RATE, weight_decay=DECAY, exceptions=exceptions)
    if way != "exceptions":
        optimizer.exclude_from_weight_decay(var_names=["kernel"])
    model.compile(optimizer, "mse")

    def differences():
        sites = find_sites(model).items()
        return {n: s.kernel.numpy() - s.feedback.numpy() for n, s in sites}

    start = differences()
    for step in range(3):
        model.train_on_batch(random((8, 4), seed=step), random((8, 2), seed=step + 9))
    for layer, difference in differences().items():
        left = 1.0 if layer in spared else (1 - RATE * DECAY) ** 3
        # The rate is a float32.
        np.testing.assert_allclose(difference, left * start[layer], rtol=1e-6, atol=1e-9)


def test_exceptions_are_the_same_on_replicas_and_in_micro_batches(tmp_path):
    (tmp_path / "network.py").write_text(NETWORK.format(normalization=""))
    options = {"model": f"{tmp_path / 'network.py'}:network", "rule": "kolen_pollack"}
    options |= {"weight_decay": 0.5, "weight_decay_exclude": "bias,last"}
    options |= {"bias_learning_rate_scale": 3.0}
    _, whole, _ = learned(options)
    _, parts, _ = learned(options, strategy="mirrored", accumulate=2)
    for one, two in zip(whole, parts, strict=True):
        np.testing.assert_allclose(two, one, rtol=1e-3, atol=1e-5)
    _, all_decay, _ = learned({**options, "weight_decay_exclude": "bias"})
    assert max(abs(a - b).max() for a, b in zip(all_decay, whole, strict=True)) > 1e-3


def test_the_exceptions_are_saved(tmp_path):
    model = small(dtype="float32")
    exceptions = Exceptions.of(model, "normalization", 2.0)
    model.compile(optimizers.get("sgd", RATE, weight_decay=DECAY, exceptions=exceptions), "mse")
    model.fit(random((8, 4), "float32"), random((8, 2), "float32"), verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.optimizer.exceptions == exceptions


@pytest.mark.parametrize(
    ("text", "scale", "message"),
    [
        ("biases", 1.0, r"'biases', which matches none\. The layers: hidden, norm, logits"),
        ("bias,conv*", 1.0, "'conv\\*', which matches none"),
        ("*", 1.0, r"must leave weights that decay, and spares all\. Received: '\*'"),
        ("", -1.0, "`bias_learning_rate_scale` must be a finite number of 0 or more"),
    ],
)
def test_what_matches_nothing_is_refused(text, scale, message):
    with pytest.raises(ValueError, match=message):
        Exceptions.of(small(), text, scale)


def test_what_has_no_effect_is_refused():
    plain = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, use_bias=False)])
    with pytest.raises(ValueError, match="`bias_learning_rate_scale` has no effect: the model"):
        Exceptions.of(plain, "", 2.0)
    with pytest.raises(ValueError, match=r"`weight_decay_exclude` must .* 'normalization'"):
        Exceptions.of(plain, "normalization")
    for name in ("freeze", "weight_decay_exclude"):
        with pytest.raises(ValueError, match=f"`{name}` must be names or .* Received: 'bias,,'"):
            training.Classification(weight_decay=0.1, **{name: "bias,,"})
    with pytest.raises(ValueError, match="`weight_decay_exclude` has no effect without `weight_"):
        training.Classification(weight_decay_exclude="bias")


def test_another_models_exceptions_are_refused():
    optimizer = optimizers.get("sgd", RATE, exceptions=Exceptions.of(small(), "bias"))
    with pytest.raises(ValueError, match="`exceptions` was made for a model with 6 trainable"):
        optimizer.build(small().trainable_variables[1:])
    with pytest.raises(TypeError, match=r"`exceptions` must be a tfbio\.optimizers\.Exceptions"):
        optimizers.get("sgd", RATE, exceptions="bias")
