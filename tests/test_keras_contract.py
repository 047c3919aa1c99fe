"""The contract with Keras and TensorFlow: every private name that the library needs still works.

A test is called after the function of `tfbio._keras` that it calls, whose docstring says what the
name is needed for. Where one fails, Keras or TensorFlow has moved what its message names.
"""

import inspect
import io
import pathlib
import pickle
import socket
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfbio import _keras

ROOT = pathlib.Path(__file__).parent.parent


def dense(units=2, **options):
    layer = keras.layers.Dense(units, **options)
    layer.build((None, 3))
    return layer


def functional():
    x = keras.Input((3,), name="x")
    h = keras.layers.Dense(2, name="hidden")(x)
    return keras.Model(x, {"y": keras.ops.relu(h)})


def sequential():
    layers = [keras.layers.Dense(2, name="a"), keras.layers.Dense(1, name="b")]
    return keras.Sequential([keras.Input((3,)), *layers])


def compiled():
    model = sequential()
    model.compile("sgd", "mse", metrics=["mae"])
    return model


def built(optimizer):
    """Return an optimizer, and the two variables that it was built for."""
    variables = [keras.Variable([1.0, 2.0], name="kernel"), keras.Variable([3.0], name="bias")]
    optimizer.build(variables)
    return optimizer, variables


def test_every_name_is_tested():
    names = {
        name
        for name, value in vars(_keras).items()
        if not name.startswith("_") and not inspect.ismodule(value)
    }
    names -= {"Any", "operation_fn", "global_seed_generator"}  # imported for functions of ours
    assert {f"test_{name}" for name in names} - globals().keys() == set()
    functions = [getattr(_keras, name) for name in names - {"HOOKS"}]
    assert all(function.__doc__ for function in functions)


# Layers


def test_autocast():
    layer = dense()
    with _keras.autocast("float16"):
        assert layer.kernel.value.dtype == tf.float16
        with _keras.autocast(None):
            assert layer.kernel.value.dtype == tf.float32


def test_open_name_scope():
    layer = dense(name="here")
    with _keras.open_name_scope(layer), keras.name_scope("rule"):
        assert keras.Variable(0.0, name="b").path == "here/rule/b"


def test_unlocked():
    layer = dense()
    with _keras.unlocked(layer):
        layer.sub = keras.layers.ReLU()
    assert _keras.get_sublayers(layer) == [layer.sub]
    with pytest.raises(ValueError, match="cannot add new elements of state"):
        layer.other = keras.layers.ReLU()


def test_undone_on_error():
    layer, sub = keras.layers.Dense(2), keras.layers.ReLU()
    layer.sub = sub
    layer.build((None, 3))
    attributes = dict(vars(layer))
    with pytest.raises(KeyboardInterrupt), _keras.undone_on_error([layer]):  # noqa: PT012
        _keras.untrack(layer, sub)
        layer.__class__ = keras.layers.Layer
        with _keras.unlocked(layer):
            layer.sub = layer.other = keras.layers.Dropout(0.5)
            layer.metric = keras.metrics.Mean()
        raise KeyboardInterrupt
    assert type(layer) is keras.layers.Dense
    assert vars(layer) == attributes
    assert _keras.get_sublayers(layer) == [sub]
    assert layer.metrics == []
    layer.sub = sub  # tracked already
    assert _keras.get_sublayers(layer) == [sub]
    with pytest.raises(ValueError, match="cannot add new elements of state"):
        layer.other = keras.layers.ReLU()


def test_untrack():
    layer = keras.layers.Layer()
    layer.sub, layer.metric = dense(), keras.metrics.Mean()
    _keras.untrack(layer, layer.sub)
    _keras.untrack(layer, layer.metric)
    assert layer.weights == []
    assert layer.variables == []
    assert _keras.get_sublayers(layer) == []


def test_get_sublayers():
    layer = keras.layers.MultiHeadAttention(1, 2)
    layer.build((None, 4, 3), (None, 4, 3))
    names = [each.name for each in _keras.get_sublayers(layer)]
    assert names[:3] == ["query", "key", "value"]
    assert [each.name for each in _keras.get_sublayers(sequential())][1:] == ["a", "b"]


def test_flatten_layers():
    inner = sequential()
    outer = keras.Sequential([keras.Input((3,)), inner])
    layers = _keras.flatten_layers(outer)
    assert layers[0] is outer
    assert {inner, *inner.layers} < set(layers)


def test_get_shallow_trainable_variables():
    layer = dense(trainable=False)
    assert _keras.get_shallow_trainable_variables(layer) == [layer.kernel, layer.bias]
    assert _keras.get_shallow_trainable_variables(sequential()) == []
    (node,) = _keras.get_nodes_by_depth(functional())[0]
    assert _keras.get_shallow_trainable_variables(node.operation) == []


def test_get_shallow_variables():
    layer = keras.layers.BatchNormalization()
    layer.build((None, 3))
    shallow = [layer.gamma, layer.beta, layer.moving_mean, layer.moving_variance]
    assert _keras.get_shallow_variables(layer) == shallow
    assert _keras.get_shallow_variables(sequential()) == []


def test_clear_losses():
    model = keras.Sequential([keras.Input((3,)), keras.layers.ActivityRegularization(1.0)])
    model(tf.ones((2, 3)))
    assert len(model.losses) == 1
    _keras.clear_losses(model)
    assert model.losses == []


def test_accepts_training():
    assert _keras.accepts_training(keras.layers.Dropout(0.5))
    assert _keras.accepts_training(functional())
    assert not _keras.accepts_training(keras.layers.ReLU())


# Models and their graphs


def test_Functional():  # noqa: N802
    assert type(functional()) is _keras.Functional
    assert callable(_keras.Functional.call)


def test_get_functional():
    model = sequential()
    inner = _keras.get_functional(model)
    assert isinstance(inner, _keras.Functional)
    assert [layer.name for layer in inner.layers][1:] == ["a", "b"]
    assert _keras.get_functional(keras.Sequential([keras.layers.Dense(1)])) is None


def test_get_nodes_by_depth():
    model = functional()
    by_depth = _keras.get_nodes_by_depth(model)
    (inputs,), (hidden,), (relu,) = (by_depth[depth] for depth in (2, 1, 0))
    assert inputs.is_input
    assert not hidden.is_input
    assert hidden.operation is model.get_layer("hidden")
    assert relu.input_tensors == list(hidden.outputs)
    x = tf.ones((2, 3))
    arguments, keywords = hidden.arguments.fill_in({id(hidden.input_tensors[0]): x})
    assert arguments[0] is x
    assert not {k: v for k, v in keywords.items() if v is not None}


def test_standardize_inputs():
    (x,) = _keras.standardize_inputs(functional(), np.ones((2, 3), "float64"))
    assert tf.is_tensor(x)
    assert (x.shape, x.dtype) == ((2, 3), tf.float32)


def test_get_mask():
    x = keras.layers.Embedding(5, 2, mask_zero=True)(tf.constant([[1, 0]]))
    np.testing.assert_array_equal(_keras.get_mask(x), [[True, False]])
    assert _keras.get_mask(tf.ones(2)) is None


def test_set_mask():
    x, mask = tf.ones((1, 2, 3)), tf.constant([[True, False]])
    _keras.set_mask(x, mask)
    mean = keras.layers.GlobalAveragePooling1D()(tf.concat([x], 0), mask=_keras.get_mask(x))
    assert _keras.get_mask(x) is mask
    np.testing.assert_allclose(mean, tf.ones((1, 3)))


def test_bind_context():
    dropout, relu, x = keras.layers.Dropout(0.9), keras.layers.ReLU(), tf.ones((1, 100))
    assert (_keras.bind_context(dropout, training=True)(x) == 0).numpy().any()
    assert (_keras.bind_context(dropout, training=False)(x) == 1).numpy().all()
    assert (_keras.bind_context(relu, training=True)(x) == 1).numpy().all()


def test_is_keras_operation():
    (relu,), (hidden,) = (_keras.get_nodes_by_depth(functional())[depth] for depth in (0, 1))
    assert _keras.is_keras_operation(relu.operation)
    assert type(relu.operation).__name__ == "Relu"
    assert not _keras.is_keras_operation(hidden.operation)


@pytest.mark.parametrize("activation", [keras.activations.softmax, keras.activations.sigmoid])
def test_get_logits(activation):
    x = tf.constant([[1.0, 2.0]])
    assert _keras.get_logits(activation(x)) is x


def test_unpickle_model():
    model = sequential()
    _, arguments = model.__reduce__()
    assert isinstance(arguments[0], io.BytesIO)
    again = _keras.unpickle_model(*arguments)
    for weight, loaded in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, loaded)
    assert pickle.loads(pickle.dumps(_keras.unpickle_model)) is _keras.unpickle_model


# Training


def test_build_symbolically():
    model = compiled()
    before = model.get_weights()
    _keras.build_symbolically(model, (tf.zeros((2, 3)), tf.zeros((2, 1))))
    assert [metric.name for metric in model.metrics] == ["loss", "compile_metrics"]
    assert len(model.metrics_variables) == 4
    for weight, kept in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, kept)


def test_get_loss_tracker():
    model = compiled()
    _keras.build_symbolically(model, (tf.zeros((2, 3)), tf.zeros((2, 1))))
    _keras.get_loss_tracker(model).update_state(3.0)
    assert float(model.get_metrics_result()["loss"]) == 3.0


def test_get_variable_index():
    optimizer, variables = built(keras.optimizers.SGD())
    for index, variable in enumerate(variables):
        assert _keras.get_variable_index(optimizer, variable) == index
        assert _keras.get_variable_index(optimizer, variable.value) == index


@pytest.mark.parametrize(
    ("optimizer", "kind"),
    [
        (keras.optimizers.RMSprop(momentum=0.9, centered=True), "momentums"),
        (keras.optimizers.RMSprop(momentum=0.9, centered=True), "velocities"),
        (keras.optimizers.RMSprop(momentum=0.9, centered=True), "average_gradients"),
        (keras.optimizers.Adam(), "momentums"),
        (keras.optimizers.Adam(), "velocities"),
        (keras.optimizers.Adam(amsgrad=True), "velocity_hats"),
    ],
)
def test_get_slots(optimizer, kind):
    optimizer, variables = built(optimizer)
    slots = _keras.get_slots(optimizer, kind)
    assert [slot.shape for slot in slots] == [variable.shape for variable in variables]
    assert {id(slot) for slot in slots} <= {id(variable) for variable in optimizer.variables}


def test_uses_weight_decay():
    optimizer = keras.optimizers.SGD(weight_decay=0.1)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    optimizer, variables = built(optimizer)
    assert [_keras.uses_weight_decay(optimizer, each) for each in variables] == [True, False]


def test_get_global_seed():
    state = _keras.get_global_seed()
    before = state.numpy()
    keras.random.normal((1,))
    assert (state.numpy() != before).any()
    assert _keras.get_global_seed() is state


# TensorFlow


def test_get_gradient_addition():
    assert float(_keras.get_gradient_addition()([tf.constant(1.0), tf.constant(2.0)])) == 3.0


def test_replaced_gradient_addition():
    used = []

    def replace(addition):
        return lambda inputs, name=None: used.append(len(inputs)) or addition(inputs, name=name)

    x = tf.constant(1.0)
    before = _keras.get_gradient_addition()
    with _keras.replaced_gradient_addition(replace), tf.GradientTape() as tape:
        tape.watch(x)
        y = x * 2.0 + x * 3.0 + x * 4.0
        assert float(tape.gradient(y, x)) == 9.0
    assert used
    assert _keras.get_gradient_addition() is before


def registered():
    """Return the names that TensorFlow registers for a custom gradient in a graph."""
    before = _keras.get_registered_gradients()

    @tf.custom_gradient
    def identity(x):
        return tf.identity(x), lambda upstream: upstream

    tf.function(identity).get_concrete_function(tf.TensorSpec(()))
    return _keras.get_registered_gradients() - before


def test_get_registered_gradients():
    (name,) = registered()
    assert name.startswith("CustomGradient-")


def test_unregister_gradient():
    (name,) = registered()
    _keras.unregister_gradient(name)
    assert name not in _keras.get_registered_gradients()


@pytest.mark.long
def test_configure_coordination():
    # In a process of its own: it must come before TensorFlow's first operation.
    code = """
import socket
import tensorflow as tf
from tfbio import _keras
with socket.socket() as server:
    server.bind(("localhost", 0))
    port = server.getsockname()[1]
resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
    tf.train.ClusterSpec({"worker": [f"localhost:{port}"]}),
    task_type="worker", task_id=0, rpc_layer="grpc",
)
_keras.configure_coordination(1, 60)
print("replicas:", tf.distribute.MultiWorkerMirroredStrategy(resolver).num_replicas_in_sync)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, cwd=ROOT
    )
    assert "replicas: 1" in done.stdout, done.stderr


# What only the tests need


def test_collect_graphs():
    graphs = _keras.collect_graphs(tf.function(tf.sin), tf.constant(1.0))
    assert "Sin" in {node.op for graph in graphs for node in graph.node}


def test_separate_collectives():
    def all_reduce():
        replica = tf.distribute.get_replica_context()
        return replica.all_reduce(tf.distribute.ReduceOp.SUM, tf.ones(()))

    def total():
        strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
        value = strategy.run(all_reduce)
        return strategy.experimental_local_results(value)[0]

    for _ in range(2):
        _keras.separate_collectives()
        assert float(total()) == 2.0


def test_count_data_workers():
    dispatcher = tf.data.experimental.service.DispatchServer()
    try:
        assert _keras.count_data_workers(dispatcher) == 0
    finally:
        _keras.stop_data_server(dispatcher)


def test_stop_data_server():
    server = tf.data.experimental.service.DispatchServer()
    _keras.stop_data_server(server)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("localhost", int(server.target.rpartition(":")[2])), timeout=10)


# Methods that the library overrides


def recorder(cls, hook, calls):
    def method(self, *args, **kwargs):
        calls.append(hook)
        return getattr(super(made, self), hook)(*args, **kwargs)

    made = type(cls.__name__, (cls,), {hook: method})
    return made


def build(cls):
    cls().build((None, 3))


def quantize(cls):
    class Dense(cls, keras.layers.Dense):
        pass

    keras.Sequential([keras.Input((3,)), Dense(2)]).quantize(
        "int8", filters="dense", type_check=False
    )


def apply(cls):
    class SGD(cls, keras.optimizers.SGD):
        pass

    SGD(weight_decay=0.1, clipnorm=1.0).apply([tf.ones(1)], [keras.Variable([1.0])])


CALLS = {
    "_post_build": build,
    "_flatten_layers": quantize,
    "_clip_gradients": apply,
    "_all_reduce_sum_gradients": apply,
    "_apply_weight_decay": apply,
}


@pytest.mark.parametrize("hook", _keras.HOOKS)
def test_keras_still_calls_the_method(hook):
    cls, reason = _keras.HOOKS[hook]
    assert callable(getattr(cls, hook)), reason
    calls = []
    CALLS[hook](recorder(cls, hook, calls))
    assert calls, f"Keras no longer calls {cls.__name__}.{hook}. {reason}"


def test_HOOKS():  # noqa: N802
    assert _keras.HOOKS.keys() == CALLS.keys()
