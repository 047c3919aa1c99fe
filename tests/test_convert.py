"""Conversion of every kind of model, and what it refuses."""

import copy

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfbio
from tests.cases import (
    DIFFERENTIATED,
    LAYERS,
    ONE_OF_A_KIND,
    cross_entropy,
    long_but,
    random,
    twin_of,
)
from tfbio import saving
from tfbio.layers import TWINS, FeedbackMixin
from tfbio.layers.sites import find_sites
from tfbio.networks.target_propagation.network import TargetNetwork


def plain(extra=()):
    return keras.Sequential(
        [
            keras.Input((8, 8, 2)),
            keras.layers.Conv2D(4, 3, activation="relu", name="conv"),
            keras.layers.BatchNormalization(name="norm"),
            keras.layers.SeparableConv2D(4, 3, name="separable"),
            keras.layers.Flatten(),
            *extra,
            keras.layers.Dense(5, activation="relu", name="hidden"),
            keras.layers.Dense(3, name="out"),
        ]
    )


def residual():
    x = inputs = keras.Input((8, 8, 2))
    x = keras.layers.Conv2D(4, 3, padding="same", name="first")(x)
    y = keras.layers.Conv2D(4, 3, padding="same", name="branch")(x)
    x = keras.layers.GlobalAveragePooling2D()(x + y)
    outputs = {
        "a": keras.layers.Dense(2, name="head_a")(x),
        "b": keras.layers.Dense(3, name="head_b")(keras.layers.Dense(4, name="neck_b")(x)),
    }
    return keras.Model(inputs, outputs)


class Block(keras.layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.body = keras.Sequential([keras.layers.Conv2D(2, 3, name="conv")])
        self.convolutions = [keras.layers.Conv2D(2, 1, name=f"list{i}") for i in range(2)]

    def call(self, x):
        x = self.body(x)
        for layer in self.convolutions:
            x = layer(x)
        return x


class Subclassed(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.block = Block(name="block")
        self.head = keras.layers.Dense(3, name="head")

    def call(self, x, training=None):
        return self.head(keras.ops.mean(self.block(x), (1, 2)))


def nested():
    inner = keras.Sequential([keras.Input((8, 8, 2)), keras.layers.Conv2D(4, 3)], name="inner")
    x = inputs = keras.Input((8, 8, 2))
    x = keras.layers.Flatten()(inner(x))
    return keras.Model(inputs, keras.layers.Dense(3, name="out")(x))


def shared():
    layer = keras.layers.Dense(4, name="shared")
    x = inputs = keras.Input((4,))
    return keras.Model(inputs, keras.layers.Dense(2, name="out")(layer(layer(x))))


def attention():
    x = inputs = keras.Input((5, 6))
    x = keras.layers.MultiHeadAttention(2, 3, name="attention")(x, x)
    x = keras.layers.TimeDistributed(keras.layers.Dense(4, name="each"), name="distributed")(x)
    return keras.Model(inputs, keras.layers.Dense(2, name="out")(x))


def subclassed():
    model = Subclassed()
    model(tf.zeros((1, 8, 8, 2)))
    return model


KINDS = {
    # builder: (input shape, kernels, last layers)
    plain: ((2, 8, 8, 2), 5, {"out"}),
    residual: ((2, 8, 8, 2), 5, {"head_a", "head_b"}),
    subclassed: ((2, 8, 8, 2), 4, {"head"}),
    nested: ((2, 8, 8, 2), 2, {"out"}),
    shared: ((2, 4), 2, {"out"}),
    attention: ((2, 5, 6), 6, {"out"}),
}


def gradients(model, x):
    with tf.GradientTape() as tape:
        outputs = tf.nest.flatten(model(x, training=False))
        loss = tf.add_n([tf.reduce_sum(tf.square(y)) for y in outputs])
    return tape.gradient(loss, model.trainable_variables)


def entropy_gradients(model, x):
    with tf.GradientTape() as tape:
        loss = cross_entropy(model(x, training=False))
    return tape.gradient(loss, model.trainable_variables)


@pytest.mark.parametrize("build", KINDS, ids=lambda build: build.__name__)
def test_every_kind_of_model_converts_in_place(build):
    shape, kernels, last = KINDS[build]
    model, x = build(), random(shape, "float32")
    names = [v.path for v in model.weights]
    y, weights = model(x), model.get_weights()
    assert tfbio.convert(model, "feedback_alignment", last_layer="backprop") is model
    tf.nest.map_structure(np.testing.assert_array_equal, y, model(x))
    sites = find_sites(model)
    assert len(sites) == kernels
    assert {n for n, site in sites.items() if site.rule.alias == "backprop"} == last
    assert [v.path for v in model.weights if v.path in names] == names
    by_path = {v.path: v.numpy() for v in model.weights}
    for path, before in zip(names, weights, strict=True):
        np.testing.assert_array_equal(by_path[path], before)


@pytest.mark.parametrize("build", KINDS, ids=lambda build: build.__name__)
def test_with_no_feedback_only_the_last_layers_learn(build):
    shape, _, last = KINDS[build]
    model = build()
    tfbio.convert(model, "sign_symmetry(scale=0)")
    layers_that_learn = {
        variable.path.rsplit("/", 1)[0].rsplit("/", 1)[-1]
        for variable, gradient in zip(
            model.trainable_variables, gradients(model, random(shape, "float32")), strict=True
        )
        if np.any(gradient)
    }
    assert layers_that_learn == last


@pytest.mark.parametrize("build", KINDS, ids=lambda build: build.__name__)
def test_transporting_w_everywhere_is_backprop_and_back(build):
    model, x = build(), random(KINDS[build][0], "float32")
    expected = gradients(model, x)
    for rule in ("test_transported", "frsf", "backprop"):
        tfbio.convert(model, rule)
        for g, e in zip(gradients(model, x), expected, strict=True):
            close = np.allclose(g, e, rtol=1e-4, atol=1e-5 * np.abs(e).max())
            assert close or rule == "frsf"


def test_converting_again_drops_the_former_feedback():
    model = plain()
    plain_weights = len(model.weights)
    tfbio.convert(model, "feedback_alignment")
    assert len(model.weights) == plain_weights + 2 * 5
    tfbio.convert(model, "sign_symmetry")
    assert len(model.weights) == plain_weights + 5
    tfbio.convert(model, "backprop")
    assert len(model.weights) == plain_weights


def test_each_kernel_gets_its_own_feedback_from_one_seed():
    drawn = []
    for _ in range(2):
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(4), keras.layers.Dense(4)])
        tfbio.convert(model, "feedback_alignment(seed=1, scale='unit')")
        drawn.append([layer.feedback.numpy() for layer in model.layers])
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[0][0], drawn[0][1])
    separable = tfbio.layers.FeedbackSeparableConv2D(2, 1, rule="fa(seed=1, scale=1)")
    separable.build((None, 3, 3, 2))
    assert separable.depthwise_rule.seed != separable.pointwise_rule.seed


def test_overrides_win_over_the_last_layer_and_the_first_match_wins():
    model = plain()
    tfbio.convert(
        model,
        "sign_symmetry",
        last_layer="backprop",
        overrides={"out": "frsf", "sep*": "brsf", "*": "fa", "conv": "backprop"},
    )
    rules = {name: site.rule.alias for name, site in find_sites(model).items()}
    assert rules == {
        "conv": "feedback_alignment",
        "separable/depthwise": "brsf",
        "separable/pointwise": "brsf",
        "hidden": "feedback_alignment",
        "out": "frsf",
    }


def test_a_compiled_prediction_made_before_does_not_survive():
    model = plain()
    x = random((2, 8, 8, 2), "float32")
    before = model.predict(x, verbose=0)
    tfbio.convert(model, "sign_symmetry")
    assert model.predict_function is None
    np.testing.assert_array_equal(model.predict(x, verbose=0), before)


def refuses(error, *words, model=None, rule="sign_symmetry", **arguments):
    model = plain() if model is None else model
    classes = [type(layer) for layer in getattr(model, "layers", ())]
    with pytest.raises(error) as caught:
        tfbio.convert(model, rule, **arguments)
    for word in words:
        assert word in str(caught.value), str(caught.value)
    assert [type(layer) for layer in getattr(model, "layers", ())] == classes


@tfbio.rules.register("test_choosy")
class Choosy(tfbio.rules.LayerRule):
    """Refuses every kernel of three columns, after the first layers were served."""

    def make_state(self, kernel, fans):
        if kernel.shape[-1] == 3:
            raise RuntimeError("not this one")

    def feedback(self, kernel):
        return -kernel


@pytest.mark.parametrize("converted", [False, True])
def test_a_rule_that_raises_leaves_the_model_as_it_was(converted):
    model, x = plain(), random((2, 8, 8, 2), "float32")
    if converted:
        tfbio.convert(model, "feedback_alignment")
    expected, state = gradients(model, x), [v.path for v in model.weights]
    refuses(RuntimeError, "not this one", model=model, rule="test_choosy")
    refuses(ValueError, "'conv'", model=model, rule="test_misshapen(mistake='none')")
    assert [v.path for v in model.weights] == state
    for g, e in zip(gradients(model, x), expected, strict=True):
        np.testing.assert_array_equal(g, e)
    tfbio.convert(model, "test_choosy", overrides={"out": "frsf"})


def test_a_b_of_another_shape_or_dtype_is_refused_when_it_is_attached():
    wide = [keras.Input((4,)), keras.layers.Dense(3, name="wide")]
    for mistake, received in (
        ("shape", "shape (3, 4) and dtype float32"),
        ("dtype", "shape (4, 3) and dtype float64"),
        ("none", "NoneType"),
    ):
        rule = f"test_misshapen(mistake={mistake!r})"
        words = ("'test_misshapen'", "'wide'", "expected: shape (4, 3) and dtype float32", received)
        refuses(ValueError, *words, model=keras.Sequential(wide), rule=rule)
        layer = tfbio.layers.FeedbackDense(3, name="wide", rule=rule)
        with pytest.raises(ValueError, match="'wide'"):
            layer.build((None, 4))


class Mine(keras.layers.Dense):
    """A subclass may compute anything: it has no twin."""


def with_lora():
    model = plain()
    model.get_layer("hidden").enable_lora(2)
    return model


def quantized():
    model = plain()
    model.get_layer("hidden").quantize("int8")
    return model


def compiled():
    model = plain()
    model.compile("sgd", "mse")
    return model


def raise_after(monkeypatch, owner, name, error):
    """Have a function raise an error when it has done its work."""
    original = getattr(owner, name)

    def function(*arguments):
        original(*arguments)
        raise error

    monkeypatch.setattr(owner, name, function)


def chain(rule):
    """Return a model under a rule, or under none, whose kernels are bfloat16 but for the last."""
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy("bfloat16")
    layers = [keras.layers.Dense(60, "tanh"), keras.layers.Dense(3, dtype="float32")]
    model = keras.Sequential([keras.Input((4,)), *layers])
    keras.config.set_dtype_policy("float32")
    return tfbio.convert(model, rule) if rule else model


@pytest.mark.parametrize("before", [None, "fa", "dfa", "dtp"])
@pytest.mark.parametrize("cause", ["memory", "interruption", "users_class"])
def test_a_conversion_that_fails_late_changes_nothing(before, cause, monkeypatch):
    model, reference = chain(before), chain(before)
    attributes = [dict(vars(part)) for part in (model, *model.layers)]
    if cause == "memory":  # of the matrices, which only the network's wiring makes
        with pytest.raises(ValueError, match="max_feedback_gib"):
            tfbio.convert(model, "dfa(max_feedback_gib=5e-7)")
    elif cause == "interruption":
        raise_after(monkeypatch, TargetNetwork, "wire", KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            tfbio.convert(model, "sdtp")
    else:
        raise_after(monkeypatch, saving, "contain", RuntimeError("of the class"))
        with pytest.raises(RuntimeError, match="of the class"):
            tfbio.convert(model, "kp")
    monkeypatch.undo()
    assert [type(part) for part in (model, *model.layers)] == [
        type(part) for part in (reference, *reference.layers)
    ]
    assert [dict(vars(part)) for part in (model, *model.layers)] == attributes
    x, y = random((6, 4), "float32"), np.arange(6) % 3
    for each in (model, reference):
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        each.compile(keras.optimizers.SGD(0.1), loss, run_eagerly=True)
        each.fit(x, y, batch_size=3, shuffle=False, verbose=0)
    assert [w.name for w in model.weights] == [w.name for w in reference.weights]
    for ours, expected in zip(model.get_weights(), reference.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, expected)
    assert tfbio.convert(chain(before), "frsf").layers[0].rule.alias == "frsf"


def test_bad_input_is_refused_and_changes_nothing():
    refuses(TypeError, "must be a keras.Model", "Dense", model=keras.layers.Dense(2))
    refuses(TypeError, "must be a keras.Model", "'resnet'", model="resnet")
    refuses(ValueError, "not built", "build(input_shape)", model=keras.Sequential([Mine(1)]))
    refuses(ValueError, "compiled already", "compile after", model=compiled())
    refuses(ValueError, "Unknown rule 'nothing'", rule="nothing")
    refuses(ValueError, "Unknown rule 'nothing'", last_layer="nothing")
    refuses(ValueError, "Unknown rule 'nothing'", overrides={"*": "nothing"})
    refuses(TypeError, "`overrides` must be a dict", "list", overrides=[("a", "b")])
    refuses(ValueError, "matches no kernel layer", "'convolution'", "conv, separable",
            overrides={"convolution": "fa"})  # fmt: skip
    refuses(ValueError, "`unsupported` must be", "'ignore'", unsupported="ignore")
    refuses(ValueError, "no layer with a kernel",
            model=keras.Sequential([keras.Input((2,)), keras.layers.ReLU()]))  # fmt: skip
    refuses(ValueError, "'mine' of class Mine", "no feedback twin", "feedback_twin",
            model=plain([Mine(4, name="mine")]))  # fmt: skip
    for name in ("lora_enabled", "LoRA or quantization"):
        refuses(ValueError, "'hidden'", name, model=with_lora())
    refuses(ValueError, "'hidden'", "quantization_mode='int8'", model=quantized())


def recurrent():
    x = inputs = keras.Input((5, 3))
    x = keras.layers.LSTM(4, name="lstm")(x)
    return keras.Model(inputs, keras.layers.Dense(2, name="out")(x))


def test_layers_without_a_twin_stay_only_when_asked_for():
    refuses(ValueError, "lstm", "LSTMCell", model=recurrent())
    model = tfbio.convert(recurrent(), "fa", unsupported="backprop")
    assert list(find_sites(model)) == ["out"]
    model = tfbio.convert(recurrent(), "fa", overrides={"lstm*": "backprop"})
    assert list(find_sites(model)) == ["out"]
    refuses(ValueError, "LSTMCell", model=recurrent(), overrides={"lstm*": "frsf"})


def test_lora_and_quantization_stay_possible_under_backprop():
    x = random((2, 8, 8, 2), "float32")
    for build in (with_lora, quantized):
        model = build()
        before = model(x)
        tfbio.convert(model, "backprop")
        np.testing.assert_array_equal(model(x), before)
    model = tfbio.convert(with_lora(), "frsf", overrides={"hidden": "backprop"})
    assert model.get_layer("hidden").lora_enabled


@pytest.mark.parametrize("converted", [False, True])
def test_lora_and_quantization_are_refused_at_once_under_a_rule(converted):
    if converted:
        model = tfbio.convert(plain(), "sign_symmetry")
        layer = model.get_layer("hidden")
    else:
        layer = tfbio.layers.FeedbackDense(3, name="hidden")
        layer.build((None, 2))
    with pytest.raises(ValueError, match=r"hidden.*LoRA"):
        layer.enable_lora(2)
    with pytest.raises(ValueError, match="quantization"):
        layer.quantize("int8")
    assert layer.quantization_mode is None
    with pytest.raises(ValueError, match="lora_rank=2"):
        tfbio.layers.FeedbackDense(3, lora_rank=2)
    with pytest.raises(ValueError, match="quantization_mode='int8'"):
        tfbio.layers.FeedbackDense(3, dtype="int8_from_float32")
    assert tfbio.layers.FeedbackDense(3, lora_rank=2, rule="backprop").lora_rank == 2


@pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize` method:UserWarning")
def test_quantizing_the_model_is_refused_under_a_rule_and_done_under_backprop():
    with pytest.raises(ValueError, match=r"cannot be quantized.*'int8' under sign_symmetry"):
        tfbio.convert(plain(), "sign_symmetry").quantize("int8")
    model = tfbio.convert(plain(), "backprop")
    model.quantize("int8")
    assert model.get_layer("out").quantization_mode == "int8"


def test_every_feedback_layer_is_the_twin_of_the_layer_of_its_name():
    ours = {name for name in tfbio.layers.__all__ if name.startswith("Feedback")}
    ours -= {"FeedbackMixin"}
    twins = {cls.__name__: keras_cls for keras_cls, cls in TWINS.items()}
    assert ours <= set(twins)
    assert ours == {f"Feedback{case.name}" for case in LAYERS}
    for name in ours:
        assert twins[name] is twin_of(name.removeprefix("Feedback"))


def test_the_signature_is_the_keras_layers_with_rule_and_clip():
    import inspect

    for keras_class, cls in TWINS.items():
        # Of the class itself, Python 3.11.2 gives that of an inherited `__new__`.
        _, *theirs = inspect.signature(keras_class.__init__).parameters
        ours = inspect.signature(cls)
        assert [n for n in ours.parameters if n not in ("rule", "clip")] == theirs
        assert ours.parameters["rule"].default == "sign_symmetry"
        assert ours.parameters["clip"].default is None


def test_a_subclass_with_a_declared_twin_converts():
    class Scaled(keras.layers.Dense):
        """A user's layer."""

    @tfbio.layers.feedback_twin
    class FeedbackScaled(tfbio.layers.FeedbackDense, Scaled):
        """Its twin."""

    try:
        model = keras.Sequential([keras.Input((2,)), Scaled(3)])
        assert type(tfbio.convert(model, "fa").layers[0]) is FeedbackScaled
        with pytest.raises(TypeError, match="must derive from FeedbackMixin"):
            tfbio.layers.feedback_twin(Scaled)
    finally:
        del TWINS[Scaled]


def test_the_summary_tells_layer_rule_scale_and_shape(capsys):
    model = plain()
    model.get_layer("hidden").kernel.assign(tf.zeros_like(model.get_layer("hidden").kernel))
    tfbio.convert(model, "sign_symmetry(scale='match')", last_layer="backprop")
    tfbio.summary(model)
    printed = capsys.readouterr().out
    for text in ("conv", "sign_symmetry", "match 0.", "3×3×2×4"):
        assert text in printed
    for text in ("separable/depthwise", "separable/pointwise", "backprop", "(W was 0)"):
        assert text in printed
    with pytest.raises(ValueError, match="has no feedback layer"):
        tfbio.summary(plain())


@pytest.mark.parametrize("rule", long_but(ONE_OF_A_KIND, DIFFERENTIATED))
def test_clones_and_copies_are_under_the_same_rule(rule):
    model = tfbio.convert(plain(), rule)
    clone = keras.models.clone_model(model)
    duplicate = copy.deepcopy(model)
    for other in (clone, duplicate):
        assert {n: (s.rule.alias, type(s.layer)) for n, s in find_sites(other).items()} == {
            n: (s.rule.alias, type(s.layer)) for n, s in find_sites(model).items()
        }
    x = random((2, 8, 8, 2), "float32")
    for g, e in zip(entropy_gradients(duplicate, x), entropy_gradients(model, x), strict=True):
        np.testing.assert_array_equal(g, e)


class Auxiliary(keras.Model):
    def __init__(self):
        super().__init__()
        self.trunk = keras.layers.Dense(4, name="trunk")
        self.head = keras.layers.Dense(2, name="head")
        self.auxiliary = keras.layers.Dense(2, name="auxiliary")
        self.unused = keras.layers.Dense(2, name="unused")

    def call(self, x, training=None):
        x = self.trunk(x)
        y = self.head(keras.ops.relu(x))
        self.add_loss(keras.ops.mean(y))
        return (y, self.auxiliary(x)) if training else (y, y)


@pytest.mark.filterwarnings("ignore:`build.*` was called on layer:UserWarning")  # of Keras's
def test_last_layers_are_found_in_training_and_behind_other_kernels():
    inputs = keras.Input((5, 3))
    x = keras.layers.Dense(4, name="before")(inputs)
    behind = keras.Model(inputs, keras.layers.LSTM(2, name="lstm")(x))
    refuses(ValueError, "lstm", model=behind, last_layer="backprop")
    tfbio.convert(behind, "fa", last_layer="backprop", unsupported="backprop")
    # The LSTM is the last; it has a kernel, if no twin.
    assert [site.rule.alias for site in find_sites(behind).values()] == ["feedback_alignment"]

    model = Auxiliary()
    model(tf.zeros((1, 3)), training=True)
    refuses(ValueError, "'unused' is not built", "overrides={'unused'", model=model)
    tfbio.convert(model, "fa", last_layer="frsf", overrides={"unused": "backprop"})
    rules = {name: site.rule.alias for name, site in find_sites(model).items()}
    assert rules == {"trunk": "feedback_alignment", "head": "frsf", "auxiliary": "frsf"}
    assert model.losses == []  # none of the trace's


class OwnKernel(keras.Model):
    def __init__(self):
        super().__init__(name="dense")
        self.dense = keras.layers.Dense(3, name="dense")

    def build(self, input_shape):
        self.matrix = self.add_weight(shape=(3, 3), name="matrix")
        self.dense.build(input_shape)

    def call(self, x):
        return keras.ops.matmul(self.dense(x), self.matrix)


def test_a_matrix_of_the_models_own_is_no_silent_backprop():
    model = OwnKernel()
    model(tf.zeros((1, 4)))
    refuses(ValueError, "'model:dense' of class OwnKernel", model=model)
    tfbio.convert(model, "fa", overrides={"model:*": "backprop"})
    assert list(find_sites(model)) == ["dense"]


def test_last_layers_that_cannot_be_found_are_an_error():
    inputs = keras.Input((4,))
    rounded = keras.Model(inputs, keras.ops.round(keras.layers.Dense(2)(inputs)))
    refuses(ValueError, "last layers", "no output has a gradient", model=rounded, last_layer="bp")

    class Two(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(2)

        def call(self, x, y):
            return self.dense(x + y)

    model = Two()
    model(tf.zeros((1, 3)), tf.zeros((1, 3)))
    refuses(ValueError, "cannot be traced", "overrides", model=model, last_layer="bp")
    tfbio.convert(model, "fa")


def test_errors_name_the_argument_that_was_wrong():
    refuses(ValueError, "`last_layer`: Unknown rule 'none'", last_layer="none")
    refuses(TypeError, "`overrides['out']`: `rule` must be", overrides={"out": 3})
    for function in (tfbio.summary, tfbio.metrics.weight_angles):
        with pytest.raises(TypeError, match="`model` must be a Keras model or layer"):
            function(None)


def test_a_reversible_embedding_is_no_silent_backprop():
    inputs = keras.Input((5,), dtype="int32")
    embedding = keras.layers.ReversibleEmbedding(7, 4, name="tied")
    x = keras.layers.Dense(4)(embedding(inputs))
    model = keras.Model(inputs, embedding(x, reverse=True))
    refuses(ValueError, "'tied' of class ReversibleEmbedding", model=model)


def test_layers_are_found_once_and_named_apart():
    first, second = (
        keras.Sequential([keras.Input((4,)), keras.layers.Dense(4, name="same")], name="twice")
        for _ in range(2)
    )
    model = Pair(first, second)
    model(tf.zeros((1, 4)))
    tfbio.convert(model, "fa")
    assert list(find_sites(model)) == ["twice/same", "twice#2/same"]
    assert all(isinstance(site.layer, FeedbackMixin) for site in find_sites(model).values())


class Pair(keras.Model):
    def __init__(self, first, second):
        super().__init__()
        self.first, self.second = first, second
        self.again = first

    def call(self, x):
        return self.again(self.second(self.first(x)))
