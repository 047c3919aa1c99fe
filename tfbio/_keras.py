"""Every private name of Keras and TensorFlow that the library needs, in one place.

Nothing private is imported or reached for anywhere else; `tests/test_architecture.py` checks this.
Each function below wraps one private name. Its docstring says why no public name will do and what
would break without it. `tests/test_keras_contract.py` calls every one on a small real object, so
that a release of Keras or TensorFlow which moves a name fails there first.

Checked with Keras 3.15 and TensorFlow 2.21. Private methods that the library overrides, instead of
calling them, are listed in `HOOKS`. keras_cv is archived and pinned; what the detector uses of it
is listed in `tfbio.detection.keras_cv_model`.
"""

import contextlib
import types
from collections import abc
from typing import Any

import keras
import tensorflow as tf
from keras.src import backend
from keras.src.models.functional import Functional, operation_fn
from keras.src.random.seed_generator import global_seed_generator
from tensorflow.compiler.xla.tsl.protobuf import coordination_config_pb2
from tensorflow.python.eager import context
from tensorflow.python.framework import ops
from tensorflow.python.ops import gen_math_ops

HOOKS = types.MappingProxyType(
    {
        "_post_build": (
            keras.layers.Layer,
            "Feedback layers and layers that contain them make their rules' state here. Keras binds"
            " `build` to each instance, so that a class assigned later could not override it.",
        ),
        "_flatten_layers": (
            keras.layers.Layer,
            "Model.quantize skips layers with sub-layers; a feedback layer on backprop hides its"
            " rule here, and would be skipped otherwise.",
        ),
        "_clip_gradients": (
            keras.optimizers.Optimizer,
            "Keras clips each replica's gradients before they are summed; our optimizers must clip"
            " the sum, and turn this off.",
        ),
        "_all_reduce_sum_gradients": (
            keras.optimizers.Optimizer,
            "The sum over replicas is first known here, and is clipped here.",
        ),
        "_apply_weight_decay": (
            keras.optimizers.Optimizer,
            "Our optimizers decay in `update_step`, at each layer's rate; without this override"
            " Keras would decay a second time.",
        ),
    }
)
"""Private methods that classes of the library override: the Keras class of each, and why."""


# Layers


def autocast(dtype: str | None) -> contextlib.AbstractContextManager:
    """Return a context in which variables are read in `dtype`; None for their own (AutocastScope).

    A layer that is built within another's call would otherwise make B from a kernel rounded to the
    other's compute dtype, and a rule would see W in half precision.
    """
    return backend.AutocastScope(dtype)


def open_name_scope(layer: keras.layers.Layer) -> contextlib.AbstractContextManager:
    """Return the name scope that a layer builds its variables in (Layer._open_name_scope).

    Without it the paths of variables that a rule makes would lack the names of the layers above.
    """
    return layer._open_name_scope()


@contextlib.contextmanager
def unlocked(layer: keras.layers.Layer) -> abc.Iterator[None]:
    """Let a built layer get new sub-layers within the context (Layer._tracker).

    Keras refuses state after `build`; `tfbio.convert` replaces the rules of built layers.
    """
    tracker = layer._tracker
    locked = tracker.locked
    tracker.unlock()
    try:
        yield
    finally:
        if locked:
            tracker.lock()


@contextlib.contextmanager
def undone_on_error(layers: abc.Iterable[keras.layers.Layer]) -> abc.Iterator[None]:
    """Make layers what they were before if the context ends in an error (Layer._tracker).

    What they were is their class, their attributes with what these lists, dicts and sets held, and
    what Keras tracks. Keras cannot take an attribute back with all that it has tracked of it.
    """
    before = [(layer, type(layer), dict(vars(layer)), _copy_contents(layer)) for layer in layers]
    try:
        yield
    except BaseException:  # an interruption too
        for layer, cls, attributes, contents in before:
            layer.__class__ = cls
            vars(layer).clear()
            vars(layer).update(attributes)
            for container, content in contents:
                container.clear()
                (container.extend if type(container) is list else container.update)(content)
        raise


def _copy_contents(layer):
    """Return pairs (container, copy of its content) of all that a layer changes in place."""
    tracker = layer._tracker
    containers = [value for value in vars(layer).values() if type(value) in (list, dict, set)]
    containers += [store for _, store in tracker.config.values()] + [*tracker.stored_ids.values()]
    return [(container, container.copy()) for container in containers]


def untrack(layer: keras.layers.Layer, value: object) -> None:
    """Stop tracking a sub-layer or metric of a layer, whose attribute stays (Layer._tracker).

    A replaced rule would otherwise still be trained and saved.
    """
    layer._tracker.untrack(value)


def get_sublayers(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    """Return the direct sub-layers of a layer, in the order of tracking (Layer._layers).

    Only models have the public `layers`; attention layers and blocks have sub-layers as well.
    """
    return layer._layers


def flatten_layers(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    """Return a layer and all layers below it, in Keras's order (Layer._flatten_layers).

    The public `layers` of a model stops at the first level. `tfbio.layers.sites.find_layers` also
    lists the rules of feedback layers on backprop.
    """
    return layer._flatten_layers()


def get_shallow_trainable_variables(operation: object) -> list[keras.Variable]:
    """Return the trainable weights of a layer without those of its sub-layers, frozen or not.

    The public `trainable_variables` includes the sub-layers' (Layer._trainable_variables), and so
    cannot say which layer a kernel belongs to. An operation of `keras.ops` has none.
    """
    return list(getattr(operation, "_trainable_variables", ()))


def get_shallow_variables(layer: keras.layers.Layer) -> list[keras.Variable]:
    """Return all weights of a layer without those of its sub-layers.

    As above, and with Layer._non_trainable_variables. Copying the public `weights` of a feedback
    layer would copy its rule's as well.
    """
    return [*layer._trainable_variables, *layer._non_trainable_variables]


def clear_losses(layer: keras.layers.Layer) -> None:
    """Forget the losses that calls have added (Layer._clear_losses).

    After a model is traced, its `losses` would hold tensors of a graph that nobody can use.
    """
    layer._clear_losses()


def accepts_training(layer: keras.layers.Layer) -> bool:
    """Return whether a layer's `call` takes `training` (Layer._call_has_training_arg).

    The signature alone does not tell: Keras looks at it before it wraps `call`.
    """
    return getattr(layer, "_call_has_training_arg", False)


# Models and their graphs. `Functional` is re-exported: the class of models made from tensors, whose
# `call` a subclass may replace. Without it a model that runs its graph could not be told from one
# that does something else. The public keras.Model only creates its instances.


def get_functional(model: keras.Sequential) -> Functional | None:
    """Return the functional model within a sequential one (Sequential._functional).

    A Sequential has no public graph. None if its input shape is not known.
    """
    return model._functional


def get_nodes_by_depth(model: Functional) -> dict[int, list]:
    """Return the nodes of a graph by depth; the outputs are at 0 (Functional._nodes_by_depth).

    The public `layers` has neither operations of `keras.ops` nor the tensors between layers, which
    rules of networks rewire. The class of nodes is private, too; the library reads its
    `operation`, `is_input`, `input_tensors`, `outputs` and `arguments.fill_in`.
    """
    return model._nodes_by_depth


def standardize_inputs(model: Functional, inputs: object) -> list:
    """Return the inputs of a functional model as a flat list of tensors, as its `call` takes them.

    Dtype, rank and structure are adapted as in plain Keras (Functional._standardize_inputs); a
    rewired model would refuse inputs that the original takes.
    """
    return model._standardize_inputs(inputs)


def get_mask(tensor: object) -> object:
    """Return the mask that Keras has attached to a tensor, or None (backend.get_keras_mask).

    The gate of direct feedback returns a new tensor; padded steps would count after it.
    """
    return backend.get_keras_mask(tensor)


def set_mask(tensor: object, mask: object) -> None:
    """Attach a mask to a tensor (backend.set_keras_mask); see `get_mask`."""
    backend.set_keras_mask(tensor, mask)


def bind_context(operation: abc.Callable, **arguments: object) -> abc.Callable:
    """Return an operation that is given those of `arguments` that it takes, such as `training`.

    Keras's own `operation_fn` also knows the arguments that a user's layer has registered.
    """
    return operation_fn(operation, **arguments)


def is_keras_operation(operation: object) -> bool:
    """Return whether a node's operation belongs to `keras.ops` (the module keras.src.ops).

    Their classes, such as `Relu`, have no public names; activations could not be recognized.
    """
    return type(operation).__module__.startswith("keras.src.ops")


def get_logits(outputs: tf.Tensor) -> tf.Tensor:
    """Return what a softmax or sigmoid activation was computed from (tensor._keras_logits).

    Keras's losses read the same attribute. Direct feedback needs ∂L/∂logits, which cannot be had
    from the probabilities without loss of precision.
    """
    return outputs._keras_logits


def unpickle_model(buffer: object) -> keras.Model:
    """Return a pickled model (Model._unpickle_model).

    Keras pickles this method bound to the model's class, which no module holds if the class was
    made for a rewired model. Named here, it is found by `pickle` and `copy`.
    """
    return keras.Model._unpickle_model(buffer)


# Training


def build_symbolically(model: keras.Model, batch: tuple) -> None:
    """Create a compiled model's losses and metrics without a step (Trainer._symbolic_build).

    Otherwise they are made within the first compiled step, where a checkpoint cannot restore them.
    """
    model._symbolic_build(data_batch=batch)


def get_loss_tracker(model: keras.Model) -> keras.metrics.Mean:
    """Return the metric that a compiled model reports as "loss" (Trainer._loss_tracker).

    A training step of ours that does not call `compute_loss` must update it.
    """
    return model._loss_tracker


def get_variable_index(optimizer: keras.optimizers.Optimizer, variable: object) -> int:
    """Return a variable's position in an optimizer (Optimizer._get_variable_index).

    An `update_step` is given TensorFlow's variable, whose slots and settings are kept by position.
    """
    return optimizer._get_variable_index(variable)


def get_slots(optimizer: keras.optimizers.Optimizer, kind: str) -> list[keras.Variable]:
    """Return an optimizer's slots of one kind by position, such as `_momentums`.

    The kinds are "momentums", "velocities", "average_gradients" and "velocity_hats". Slots of our
    own would be saved beside Keras's, unused ones, at twice the memory.
    """
    return getattr(optimizer, f"_{kind}")


def uses_weight_decay(optimizer: keras.optimizers.Optimizer, variable: object) -> bool:
    """Return whether weight decay applies to a variable (Optimizer._use_weight_decay).

    The public `exclude_from_weight_decay` sets it; nothing public reads it.
    """
    return optimizer._use_weight_decay(variable)


def get_global_seed() -> keras.Variable:
    """Return the state of Keras's global random generator (global_seed_generator).

    Layers without a seed draw from it; a run resumed from a checkpoint would draw other numbers.
    """
    return global_seed_generator().state


# TensorFlow


@contextlib.contextmanager
def replaced_gradient_addition(
    replace: abc.Callable[[abc.Callable], abc.Callable],
) -> abc.Iterator[None]:
    """Have gradients added up by `replace(addition)` within the context (gen_math_ops.add_n).

    Automatic differentiation looks the function up there, and nothing public exchanges it. Without
    it two runs of a training differ in the last bit.

    Args:
        replace: Takes the function used until now, and returns one of the same signature.
    """
    addition = gen_math_ops.add_n
    gen_math_ops.add_n = replace(addition)
    try:
        yield
    finally:
        gen_math_ops.add_n = addition


def get_registered_gradients() -> set[str]:
    """Return the names of all registered gradients (ops.gradient_registry).

    `tf.custom_gradient` registers one for every call in a graph, and never removes it.
    """
    return set(ops.gradient_registry.list())


def unregister_gradient(name: str) -> None:
    """Remove a gradient from TensorFlow's registry (gradient_registry._registry).

    It holds the graph that it was made in, and so every variable of a model: memory that a second
    training in the same process would lack.
    """
    del ops.gradient_registry._registry[name]


def configure_coordination(workers: int, timeout_s: int) -> None:
    """Have workers wait `timeout_s` seconds for each other.

    This is Context.configure_coordination_service.
    MultiWorkerMirroredStrategy configures it by itself, with a timeout of an hour.
    """
    jobs = [coordination_config_pb2.CoordinatedJob(name="worker", num_tasks=workers)]
    context.context().configure_coordination_service(
        "standalone",
        service_leader="/job:worker/replica:0/task:0",
        cluster_register_timeout_in_ms=timeout_s * 1000,
        coordinated_jobs=jobs,
    )


# What only the tests need


def get_gradient_addition() -> abc.Callable:
    """Return the function by which TensorFlow adds up gradients (gen_math_ops.add_n)."""
    return gen_math_ops.add_n


def collect_graphs(function: abc.Callable, *arguments: object) -> list:
    """Call a compiled function and return the graphs that TensorFlow executed, after optimization.

    The tests count operations in them; public functions show graphs before optimization only
    (Context.enable_graph_collection).
    """
    context.context().enable_graph_collection()
    try:
        function(*arguments)
        metadata = context.context().export_run_metadata()
    finally:
        context.context().disable_graph_collection()
    return [graph for graphs in metadata.function_graphs for graph in graphs.partition_graphs]


def separate_collectives() -> None:
    """Give later mirrored strategies keys of their own (MirroredStrategy._collective_key_base).

    Two strategies in one process would otherwise take each other's all-reduces for their own. A
    training has one strategy; the tests make many.
    """
    tf.distribute.MirroredStrategy._collective_key_base += 1000


def count_data_workers(dispatcher: tf.data.experimental.service.DispatchServer) -> int:
    """Return how many workers a data service's dispatcher knows (DispatchServer._num_workers)."""
    return dispatcher._num_workers()


def stop_data_server(server: Any) -> None:
    """Stop a dispatcher or worker of a data service (`_stop`); they have no public end."""
    server._stop()
