"""Layers that make their own sub-layers come back from files and copies under their rules."""

import copy
import functools
import itertools
import json
import pickle
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfbio
from tests.cases import long_but, random
from tfbio.layers import FeedbackMixin
from tfbio.layers.sites import find_layers, find_sites

# Of Keras, for layers without `build`.
pytestmark = pytest.mark.filterwarnings("ignore:`build.*` was called on layer:UserWarning")
registered = keras.saving.register_keras_serializable("test_saving")


@registered
class MadeInBuild(keras.layers.Layer):
    """Sub-layers without names, made when the input's shape is known."""

    def build(self, input_shape):
        super().build(input_shape)  # says that it is built, before it is
        self.wide = keras.layers.Dense(2 * input_shape[-1], activation="relu")
        self.narrow = keras.layers.Dense(input_shape[-1])
        self.wide.build(input_shape)
        self.narrow.build((*input_shape[:-1], 2 * input_shape[-1]))

    def call(self, x):
        return self.narrow(self.wide(x))

    def compute_output_shape(self, input_shape):
        return input_shape


@registered
class FilledInBuild(keras.layers.Layer):
    """A sequential model that is empty until the input's shape is known."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.body = keras.Sequential()

    def build(self, input_shape):
        self.body.add(keras.layers.Dense(input_shape[-1]))
        self.body.build(input_shape)

    def call(self, x):
        return self.body(x)


@registered
class Transformer(keras.layers.Layer):
    """Without `build`, as in Keras's own examples: what it holds is built when it is called."""

    def __init__(self, heads, **kwargs):
        super().__init__(**kwargs)
        self.heads = heads
        self.attention = keras.layers.MultiHeadAttention(heads, 3)
        self.body = keras.Sequential([keras.layers.Dense(5, activation="relu"), MadeInBuild()])
        self.lists = [keras.layers.Dense(6), {"a": keras.layers.TimeDistributed(MadeInBuild())}]

    def call(self, x, training=None):
        x = self.body(x + self.attention(x, x))
        return self.lists[1]["a"](self.lists[0](x))

    def get_config(self):
        return {**super().get_config(), "heads": self.heads}


@registered
class Holder(keras.layers.Layer):
    """A block that holds a block, with Keras's automatic config."""

    def __init__(self, factor=1.0, **kwargs):
        super().__init__(**kwargs)
        self.factor = factor
        self.inner = MadeInBuild()

    def call(self, x):
        return self.factor * self.inner(x)


@registered
class Automatic(keras.Model):
    """A subclassed model with Keras's automatic config, which has the defaults of its arguments."""

    def __init__(self, units=4, **kwargs):
        super().__init__(**kwargs)
        self.blocks = [MadeInBuild() for _ in range(2)]
        self.head = keras.layers.Dense(units)

    def call(self, x, training=None):
        for block in self.blocks:
            x = x + block(x)
        return self.head(x)


@registered
class Configured(keras.Model):
    """A subclassed model with a config that holds some of its layers, and with `build`."""

    def __init__(self, trunk, **kwargs):
        super().__init__(**kwargs)
        self.own = keras.layers.Dense(3)
        self.trunk = trunk

    def build(self, input_shape):
        self.trunk.build(input_shape)
        self.own.build((*input_shape[:-1], 6))

    def call(self, x, training=None):
        return self.own(self.trunk(x))

    def get_config(self):
        trunk = keras.saving.serialize_keras_object(self.trunk)
        return {**super().get_config(), "trunk": trunk}

    @classmethod
    def from_config(cls, config):
        trunk = keras.saving.deserialize_keras_object(config.pop("trunk"))
        return cls(trunk, **config)


@registered
class MadeInCall(keras.Model):
    """A model that makes a layer in its first call, which Keras admits in models."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first = keras.layers.Dense(4)
        self.second = None

    def call(self, x, training=None):
        x = self.first(x)
        if self.second is None:
            self.second = keras.layers.Dense(x.shape[-1])
        return self.second(x)


@registered
class FunctionalWithInit(keras.Model):
    """A functional model that its own class puts together."""

    def __init__(self, units, **kwargs):
        self.units = units
        x = inputs = keras.Input((2, 6))
        x = keras.layers.Dense(units)(x) + Holder(2.0)(x)
        super().__init__(inputs, keras.layers.Dense(2)(x), **kwargs)

    def get_config(self):
        return {"name": self.name, "units": self.units}


@registered
class FunctionalSubclass(keras.Model):
    """A functional model of a class of one's own, which Keras writes out layer by layer."""


@registered
class Cell(keras.layers.Layer):
    """A recurrent cell with a kernel layer of its own."""

    state_size = 4
    output_size = 4

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = keras.layers.Dense(4, activation="tanh")

    def build(self, input_shape):
        self.dense.build((*input_shape[:-1], input_shape[-1] + 4))

    def call(self, x, states, training=None):
        h = self.dense(keras.ops.concatenate([x, states[0]], -1))
        return h, [h]


def functional(*layers):
    x = inputs = keras.Input((2, 6))
    for layer in layers:
        x = layer(x)
    return keras.Model(inputs, keras.layers.Dense(2, name="out")(x))


def called(model):
    model(tf.zeros((1, 2, 6)))
    return model


def attention():
    first = keras.layers.MultiHeadAttention(2, 3, name="attention")
    second = keras.layers.GroupQueryAttention(3, 4, 2)
    return functional(lambda x: first(x, x), lambda x: second(x, x))


def shared():
    block = MadeInBuild(name="shared")
    return functional(block, keras.layers.ReLU(), block)


def nested():
    inner = keras.Sequential([keras.Input((2, 6)), Transformer(1), MadeInBuild()])
    return functional(functional(Holder(2.0)), keras.layers.Dense(6), inner)


def branched():
    x = inputs = keras.Input((2, 6))
    branches = [keras.layers.Dense(6, name=name)(MadeInBuild()(x)) for name in "cab"]
    return FunctionalSubclass(inputs, keras.layers.add(branches))


BUILDERS = {
    "attention": attention,
    "made in build": lambda: functional(MadeInBuild(), FilledInBuild()),
    "transformer": lambda: functional(Transformer(2, name="block")),
    "distributed": lambda: functional(keras.layers.TimeDistributed(MadeInBuild())),
    "recurrent": lambda: functional(keras.layers.Bidirectional(keras.layers.RNN(Cell()))),
    "shared": shared,
    "nested": nested,
    "automatic": lambda: called(Automatic()),
    "configured": lambda: called(Configured(keras.Sequential([Holder(2.0), MadeInBuild()]))),
    "made in call": lambda: called(MadeInCall()),
    "functional": lambda: FunctionalWithInit(6),
    "branched": branched,
}
WAYS = {}


def way(function):
    WAYS[function.__name__] = function
    return function


@way
def keras_file(model, path):
    model.save(path / "model.keras")
    return keras.models.load_model(path / "model.keras")


@way
def cloned(model, path):
    clone = keras.models.clone_model(model)
    clone(tf.zeros((1, 2, 6)))
    for name in ("magnitudes", "key"):
        for ours, theirs in zip(clone.weights, model.weights, strict=True):
            if ours.name == name:  # drawn afresh, as a feedback layer's own clone draws it
                assert not np.array_equal(ours, theirs)
    clone.set_weights(model.get_weights())
    return clone


@way
def copied(model, path):
    return copy.deepcopy(model)


@way
def pickled(model, path):
    return pickle.loads(pickle.dumps(model))


@way
def weights_file(model, path):
    model.save_weights(path / "model.weights.h5")
    keras.utils.set_random_seed(9)
    rebuilt = converted(model.made_by)
    rebuilt.load_weights(path / "model.weights.h5")
    return rebuilt


def converted(build):
    """Return a model whose kernel layers take turns with the rules."""
    model = BUILDERS[build]()
    names = find_sites(tfbio.convert(model, "backprop"))
    turns = itertools.cycle(["frsf", "sign_symmetry(agreement=0.7)", "brsf", "backprop"])
    tfbio.convert(model, "backprop", overrides=dict(zip(names, turns, strict=False)))
    object.__setattr__(model, "made_by", build)
    return model


@functools.cache
def original(build):
    """Return a converted model, an input, and the results on it, which are not backprop's."""
    model, x = converted(build), random((2, 2, 6), "float32")
    expected = results(model, x)
    with tfbio.true_gradient(model):
        assert not equal(results(model, x), expected)
    return model, x, expected


def results(model, x):
    with tf.GradientTape() as tape:
        y = model(x, training=True)
        loss = tf.reduce_sum(tf.square(y))
    return [y, *tape.gradient(loss, model.trainable_variables)]


def equal(ours, theirs):
    return all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))


# A copy and a pickle differ in how the root's class is found again.
BUILT_AND_USED = [
    (build, use)
    for build, use in itertools.product(BUILDERS, WAYS)
    if use != "pickled" or build in ("attention", "automatic", "branched")
]
FAST = [
    (build, use)
    for build, use in BUILT_AND_USED
    if build == "attention" or (use == "keras_file" and build != "transformer")  # nested holds one
]


@pytest.mark.parametrize(("build", "use"), long_but(FAST, BUILT_AND_USED))
def test_a_model_comes_back_under_its_rules(build, use, tmp_path):
    model, x, expected = original(build)
    other = WAYS[use](model, tmp_path)
    ours, theirs = find_sites(other), find_sites(model)
    assert [repr(s.rule) for s in ours.values()] == [repr(s.rule) for s in theirs.values()]
    assert [type(s.layer) for s in ours.values()] == [type(s.layer) for s in theirs.values()]
    if use != "weights_file":
        assert [type(x) for x in find_layers(other).values()] == [
            type(x) for x in find_layers(model).values()
        ]
    assert [w.name for w in other.weights] == [w.name for w in model.weights]
    assert equal(other.get_weights(), model.get_weights())
    assert equal([s.feedback for s in ours.values()], [s.feedback for s in theirs.values()])
    assert equal(results(other, x), expected)


def test_what_is_made_again_is_what_it_was_and_can_be_saved_and_converted_again(tmp_path):
    model = converted("transformer")
    block = model.get_layer("block")
    assert isinstance(block, Transformer)
    assert isinstance(block.attention, keras.layers.MultiHeadAttention)
    assert type(block).__name__ == "Transformer"
    clone = keras.models.clone_model(keras.models.clone_model(model))
    assert [w.name for w in clone.weights] == [w.name for w in model.weights]
    # Of parts that were never built, too, and of a layer taken out.
    part = type(block).from_config(type(block).from_config(block.get_config()).get_config())
    part(tf.zeros((1, 2, 6)))
    assert [repr(s.rule) for s in find_sites(part).values()] == [
        repr(s.rule) for s in find_sites(block).values()
    ]
    attention = type(block.attention).from_config(block.attention.get_config())
    attention.build((None, 2, 6), (None, 2, 6))
    assert len(find_sites(attention)) == 4
    tfbio.convert(clone, "backprop")
    x = random((2, 2, 6), "float32")
    loaded = keras_file(clone, tmp_path)
    assert {s.rule.alias for s in find_sites(loaded).values()} == {"backprop"}
    plain = BUILDERS["transformer"]()
    plain.set_weights(loaded.get_weights())
    assert equal(results(loaded, x), results(plain, x))


def test_a_process_that_has_converted_nothing_loads_every_kind_of_class(tmp_path):
    inputs = keras.Input((4, 3))
    attention = keras.layers.MultiHeadAttention(1, 2)(inputs, inputs)
    tfbio.convert(keras.Model(inputs, attention), "brsf").save(tmp_path / "container.keras")
    for rule in ("dfa", "dtp"):
        layers = [keras.layers.Dense(3, "tanh"), keras.layers.Dense(2)]
        network = keras.Sequential([keras.Input((4,)), *layers])
        tfbio.convert(network, rule).save(tmp_path / f"{rule}.keras")
    code = f"""
import keras, tfbio
for name in ("container", "dfa", "dtp"):
    model = keras.models.load_model(rf"{tmp_path}/{{name}}.keras")
    print(name, *{{site.rule.alias for site in tfbio.layers.find_sites(model).values()}})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    names = {"dfa": "direct_feedback_alignment", "container": "brsf", "dtp": "dtp"}
    assert dict(line.split() for line in done.stdout.splitlines()) == names


def test_summary_and_fit_after_loading(tmp_path, capsys):
    model = converted("attention")
    loaded = keras_file(model, tmp_path)
    for each in (model, loaded):
        each.summary()
        tfbio.summary(each)
        each.compile("sgd", "mse")
        each.fit(random((4, 2, 6)), random((4, 2, 2)), batch_size=2, shuffle=False, verbose=0)
    printed = capsys.readouterr().out
    assert printed.count("(MultiHeadAttenti") == 2
    assert printed.count("│ attention/query") == 2
    assert equal(loaded.get_weights(), model.get_weights())


def test_a_config_holds_nothing_but_plain_values(tmp_path):
    model, x, expected = original("attention")
    kept = model.layers[1].get_config()["tfbio_rules"]
    assert json.loads(json.dumps(kept)) == copy.deepcopy(kept)
    model.save(tmp_path / "model.h5")  # Keras's older format copies configs
    assert equal(results(keras.models.load_model(tmp_path / "model.h5"), x), expected)
    again = keras.models.model_from_json(model.to_json())
    again.set_weights(model.get_weights())
    assert equal(results(again, x), expected)


def test_state_keeps_full_precision_where_layers_are_built_within_a_call(tmp_path):
    keras.config.set_dtype_policy("mixed_bfloat16")
    model, x = converted("transformer"), random((2, 2, 6), "float32")
    loaded = keras_file(model, tmp_path)
    assert {w.dtype for w in loaded.weights} <= {"float32", "int64", "int8"}
    assert equal(loaded.get_weights(), model.get_weights())
    assert equal(results(loaded, x), results(model, x))


def test_a_class_that_is_not_registered_is_given_as_keras_has_it(tmp_path):
    class Local(keras.layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.dense = keras.layers.Dense(6)

        def call(self, x):
            return self.dense(x)

    class LocalModel(Automatic):
        pass

    model = tfbio.convert(functional(Local()), "frsf")
    keras.models.clone_model(model)
    keras.models.clone_model(tfbio.convert(called(LocalModel()), "frsf"))
    model.save(tmp_path / "model.keras")
    with pytest.raises(TypeError, match="Could not locate class 'Local'"):
        keras.models.load_model(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras", custom_objects={"Local": Local})
    assert [s.rule.alias for s in find_sites(loaded).values()] == ["frsf", "frsf"]


def test_where_keras_has_no_config_its_own_error_comes(tmp_path):
    class NoConfig(keras.layers.Layer):
        def __init__(self, function):
            super().__init__()
            self.dense = keras.layers.Dense(6, activation=function)

        def call(self, x):
            return self.dense(x)

    model = tfbio.convert(functional(NoConfig(keras.ops.relu)), "frsf")
    with pytest.raises(NotImplementedError, match="must override `get_config"):
        model.save(tmp_path / "model.keras")


@registered
class Bare(keras.layers.Layer):
    """Writes a sub-layer's config without its class."""

    def __init__(self, dense=None, **kwargs):
        super().__init__(**kwargs)
        self.dense = keras.layers.Dense.from_config(dense or {"units": 6})

    def call(self, x):
        return self.dense(x)

    def get_config(self):
        return {**super().get_config(), "dense": self.dense.get_config()}


@registered
class Fickle(keras.layers.Layer):
    """Makes other sub-layers than its config had: none, one of another class, or too late."""

    now = "same"

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = None
        if self.now == "late":
            self.built = True
        elif self.now != "none":
            self.dense = keras.layers.ReLU() if self.now == "other" else keras.layers.Dense(6)

    def call(self, x):
        if self.now == "late" and self.dense is None:
            self.dense = keras.layers.Dense(6)
        return x if self.dense is None else self.dense(x)


def test_what_cannot_come_back_under_its_rule_is_refused(tmp_path, monkeypatch):
    model = tfbio.convert(functional(Bare(), Transformer(1)), "frsf")
    for use in ("keras_file", "cloned", "copied", "pickled"):
        with pytest.raises(ValueError, match=r"Bare writes the config.*save_weights"):
            WAYS[use](model, tmp_path)
    for now, message in (
        ("none", "not all of its sub-layers"),
        ("other", "Expected: one of class Dense"),
        ("late", "not all of its sub-layers"),
    ):
        model = tfbio.convert(functional(Fickle()), "frsf")
        monkeypatch.setattr(Fickle, "now", now)
        with pytest.raises(ValueError, match=message):
            keras.models.clone_model(model)
        monkeypatch.setattr(Fickle, "now", "same")


def test_a_twin_that_is_not_declared_any_more_is_missed():
    class Scaled(keras.layers.Dense):
        """A user's layer."""

    class Other(keras.layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.scaled = Scaled(6)

        def call(self, x):
            return self.scaled(x)

    @tfbio.layers.feedback_twin
    class FeedbackScaled(tfbio.layers.FeedbackDense, Scaled):
        """Its twin."""

    model = tfbio.convert(functional(Other()), "frsf")
    assert isinstance(keras.models.clone_model(model).layers[1].scaled, FeedbackMixin)
    del tfbio.layers.TWINS[Scaled]
    with pytest.raises(ValueError, match=r"class Scaled.*has no feedback twin here"):
        keras.models.clone_model(model)
