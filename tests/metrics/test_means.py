"""Means over layers: which layers each metric means something in, and how random angles scatter."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfbio
from tests.cases import random
from tfbio import metrics
from tfbio.layers import find_connections
from tfbio.metrics import find_averaged_layers


def chain(names="abcd", first=(), **options):
    inputs = first or [keras.Input((3,))]
    return keras.Sequential([
        *inputs, *(keras.layers.Dense(3, "tanh", name=name) for name in names[:-1]),
        keras.layers.Dense(3, name=names[-1]),
    ])  # fmt: skip


def averaged(model):
    found = find_averaged_layers(model)
    return "".join(found.feedback), "".join(found.gradients)


def frozen(*names):
    model = chain()
    for name in names:
        model.get_layer(name).trainable = False
    return model


def embedding():
    first = [keras.Input((4,), dtype="int32"), keras.layers.Embedding(5, 3), keras.layers.Flatten()]
    return chain("abc", first)


def skipping():
    """The input's layer is both directly below the output and below another kernel."""
    x = keras.Input((3,))
    a = keras.layers.Dense(3, name="a")(x)
    b = keras.layers.Dense(3, name="b")(a)
    return keras.Model(x, a + b)


def heads():
    x = keras.Input((3,))
    a = keras.layers.Dense(3, name="a")(x)
    return keras.Model(x, [keras.layers.Dense(n, name=name)(a) for n, name in ((2, "b"), (3, "c"))])


def recurrent():
    x = keras.Input((4, 3))
    a = keras.layers.Dense(3, name="a")(x)
    h = keras.layers.LSTM(3, name="lstm")(a)
    return keras.Model(x, keras.layers.Dense(2, name="c")(h))


def normalized():
    first = [keras.Input((3,)), keras.layers.BatchNormalization()]
    return chain("ab", first)


@pytest.mark.parametrize(
    ("build", "options", "expected"),
    [
        (chain, {"rule": "fa"}, ("bcd", "abc")),
        (chain, {"rule": "kolen_pollack"}, ("bcd", "abc")),  # B learns, and is nobody's pupil
        (chain, {"rule": "backprop"}, ("bcd", "abc")),
        (chain, {"rule": "dfa"}, ("", "abc")),
        (chain, {"rule": "dtp"}, ("", "ab")),
        (chain, {"rule": "sdtp"}, ("", "abc")),
        # The error that arrives at c has passed no B.
        (chain, {"rule": "fa", "last_layer": "backprop"}, ("bc", "ab")),
        (chain, {"rule": "bp", "overrides": {"c": "fa"}}, ("c", "ab")),
        (lambda: chain("a"), {"rule": "fa"}, ("", "")),
        (lambda: frozen("a", "b"), {"rule": "fa"}, ("d", "c")),
        (embedding, {"rule": "fa"}, ("abc", "ab")),
        (normalized, {"rule": "fa"}, ("ab", "a")),
        (skipping, {"rule": "fa"}, ("b", "a")),
        (heads, {"rule": "fa"}, ("bc", "a")),
        (recurrent, {"rule": "fa", "unsupported": "backprop"}, ("c", "a")),
    ],
)
def test_means_are_over_the_layers_where_a_metric_means_something(build, options, expected):
    assert averaged(tfbio.convert(build(), **options)) == expected


def test_what_is_left_out_is_what_gradients_do_not_depend_on():
    """An oracle apart from the graph: change a layer's B, and see whose gradients change."""
    keras.utils.set_random_seed(0)
    model = tfbio.convert(skipping(), "fa")
    x, y = random((5, 3), "float32"), random((5, 3), "float32", seed=1)

    def gradients():
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(model(x) - y))
        return [np.array(g) for g in tape.gradient(loss, model.trainable_variables)]

    before, teaching = gradients(), []
    for layer in model.layers:
        if isinstance(layer, tfbio.layers.FeedbackMixin):
            matrix = layer.rule.matrix
            matrix.assign(-matrix)
            if any(not np.array_equal(*pair) for pair in zip(before, gradients(), strict=True)):
                teaching.append(layer.name)
            matrix.assign(-matrix)
    assert teaching == list(find_averaged_layers(model).feedback) == ["b"]


def test_within_a_separable_convolution_the_second_kernels_feedback_teaches_the_first():
    layers = [keras.Input((5, 5, 2)), keras.layers.SeparableConv2D(3, 2, name="a")]
    layers += [keras.layers.Flatten(), keras.layers.Dense(2, name="b")]
    model = tfbio.convert(keras.Sequential(layers), "fa")
    found = find_averaged_layers(model)
    assert found.feedback == {"a/pointwise": 6, "b": 96}
    assert found.gradients == {"a/depthwise": 8, "a/pointwise": 6}
    model = tfbio.convert(keras.Sequential([*layers[:2], keras.layers.Flatten()]), "fa")
    assert list(find_averaged_layers(model).gradients) == ["a/depthwise"]


def test_feedback_that_learns_is_no_weight_to_teach():
    model = tfbio.convert(chain(), "kolen_pollack")
    first = model.get_layer("a")
    first.kernel.trainable = first.bias.trainable = False
    assert averaged(model) == ("cd", "bc")


def test_entries_that_meet_only_the_margin_are_not_counted():
    layers = [
        keras.Input((4, 1)),
        tfbio.layers.LocallyConnected1D(2, 3, padding="same", name="a"),
        keras.layers.Flatten(),
        keras.layers.Dense(2, name="b"),
    ]
    found = find_averaged_layers(tfbio.convert(keras.Sequential(layers), "fa"))
    # Four windows of three, of which the first and the last reach beyond the map by one.
    assert found.gradients == {"a": (4 * 3 - 2) * 2}


class Twice(keras.Model):
    """Calls one layer twice, and one in a loop of TensorFlow's."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = (keras.layers.Dense(3, name=name) for name in "abc")

    def call(self, x):
        return self.c(self.a(self.b(self.a(x))))


def test_the_connections_of_any_model_are_found_and_leave_it_as_it_was():
    model = Twice()
    x = tf.ones((2, 3))
    before = model(x)
    tfbio.convert(model, "fa")
    calls = [vars(layer).get("call") for layer in model.layers]
    found = find_connections(model)
    assert found.below == {"a": {"b"}, "b": {"a"}, "c": {"a"}}
    assert found.last == {"c"}
    assert averaged(model) == ("abc", "ab")
    assert calls == [vars(layer).get("call") for layer in model.layers]
    np.testing.assert_array_equal(model(x), before)


def test_a_model_that_cannot_be_traced_is_an_error():
    class Two(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(2)

        def call(self, x, y):
            return self.dense(x + y)

    model = Two()
    model(tf.zeros((1, 3)), tf.zeros((1, 3)))
    tfbio.convert(model, "fa")
    with pytest.raises(ValueError, match="cannot be traced"):
        find_averaged_layers(model)
    with pytest.raises(ValueError, match="is not built"):
        find_connections(keras.Sequential([keras.layers.Dense(1)]))


def test_means_leave_out_what_has_no_number():
    values = {"a": 90.0, "b": math.nan, "c": None, "d": 30.0}
    assert metrics.mean_over(values, "abcd") == 60.0
    assert metrics.mean_over(values, "bcd") == 30.0
    assert math.isnan(metrics.mean_over(values, "bc"))
    layers = metrics.AveragedLayers({}, {"a": 1})
    assert metrics.tagged_means(metrics.WeightMetrics({"a": 1.0}, {"a": 1.0}, {}), layers) == {}


@pytest.mark.parametrize("sizes", [[30], [200], [16, 400, 40]])
def test_the_angles_of_random_matrices_scatter_as_they_should(sizes):
    generator = np.random.default_rng(0)
    means = [
        np.mean([metrics.angle(*generator.normal(size=(2, size))) for size in sizes])
        for _ in range(2000)
    ]
    expected = metrics.random_spread(sizes)
    # The standard error of a deviation of 2000 values is 1/√4000, 1.6 %.
    assert np.std(means) == pytest.approx(expected, rel=0.06)
    assert np.mean(means) == pytest.approx(90, abs=4 * expected / math.sqrt(2000))
    assert np.mean(np.abs(np.array(means) - 90) < 2 * expected) == pytest.approx(0.954, abs=0.02)


def test_callbacks_record_the_means(tmp_path, caplog):
    model = tfbio.convert(chain("abc"), "fa")
    model.compile("sgd", "mse")
    x, y = random((4, 3), "float32"), random((4, 3), "float32", seed=1)
    telemetry = tfbio.callbacks.Telemetry(tmp_path, batch=(x, y))
    angles = tfbio.callbacks.WeightAngles(tmp_path)
    model.fit(x, y, verbose=0, callbacks=[telemetry, angles])
    for _, values in telemetry.history:
        for kind, names in (("weight_angle", "bc"), ("gradient_angle", "ab"), ("norm_ratio", "bc")):
            mean = np.mean([values[f"{kind}/{name}"] for name in names])
            assert values[f"mean_{kind}"] == pytest.approx(mean)
    # TensorFlow may warn of retracing, for what other tests have traced.
    assert not [record for record in caplog.records if record.name.startswith("tfbio")]

    class Compiled(keras.Sequential):
        @tf.function
        def call(self, inputs, **_):
            return super().call(inputs)

    model = tfbio.convert(Compiled([keras.Input((3,)), keras.layers.Dense(3, name="a")]), "fa")
    model.compile("sgd", "mse")
    telemetry = tfbio.callbacks.Telemetry(None)
    model.fit(x, y, verbose=0, callbacks=[telemetry])
    assert set(telemetry.history[-1][1]) == {"weight_angle/a", "norm_ratio/a", "sign_agreement/a"}
