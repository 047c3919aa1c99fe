"""Gradient angles: how far what a network learns is from what backpropagation would teach it.

Two of them, which must not be confused:

- *local*: a layer's error at its input as the rule has it, ``op(·, B)ᵀ e``, against
  ``op(·, W)ᵀ e`` on the same e: what this layer's own B does;
- *global*: a kernel's gradient in the network under its rules against that of true
  backpropagation through the whole network, on the same batch: what all B above do together.
"""

import contextlib
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from tfbio import _keras
from tfbio.feedback import input_gradients
from tfbio.layers import context
from tfbio.layers.sites import find_sites
from tfbio.layers.true_gradient import true_gradient
from tfbio.metrics.definitions import angle_of_tensors
from tfbio.metrics.weights import of_first_replica, strategy_of
from tfbio.optimizers.stand_in import StandIn


class GradientAngles(NamedTuple):
    """Both angles of every kernel that has them, in degrees; each a dict from kernel to number.

    NaN stands where one of the two vectors is all zero.

    Attributes:
        local_: ∠(op(·, B)ᵀ e, op(·, W)ᵀ e), over all calls of a shared layer together. 0 where B
            is W. Left out where the rule is no matrix in W's place (direct feedback), or the layer
            is called in a loop of TensorFlow's (`tf.map_fn`), where its error is out of reach.
        global_: ∠(∂W under the rules, ∂W by true backpropagation). Left out where a kernel does
            not learn.
    """

    local_: dict
    global_: dict


def gradient_angles(
    model: keras.Model, x: Any, y: Any, loss: Callable[..., tf.Tensor], training: bool = True
) -> GradientAngles:
    """Return the local and the global gradient angle of every kernel on a batch.

    Nothing is changed by measuring: moving averages, random seeds and what rules keep of their own
    steps are as before, to the bit. Both gradients see the same dropout masks, the same batch
    statistics and the same B, the one with which the next training step learns.

    This compiles; to measure again and again, keep a `GradientMeter`.

    Args:
        model: A built model with feedback layers, compiled or not.
        x: The inputs of a batch, as the model takes them.
        y: The targets.
        loss: What `keras.losses.get` takes, or a function of (y, outputs) that returns losses. What
            layers add to it (`kernel_regularizer`, `add_loss`) is left out: it reaches W on its
            own way.
        training: Whether the model is called as in training, with dropout and batch statistics,
            which is the gradient that it learns from, or as in inference.

    Returns:
        `GradientAngles`.

    Raises:
        ValueError: If the model has no feedback layer, the loss is unknown, or the rule is one of
            target propagation, which learns from no gradient of the model: `GradientMeter` compares
            what its training step learns.

    Example:
        >>> import keras, tensorflow as tf, tfbio
        >>> layers = [keras.layers.Dense(4, name="in"), keras.layers.Dense(2, name="out")]
        >>> model = tfbio.convert(keras.Sequential([keras.Input((3,)), *layers]), "backprop")
        >>> gradient_angles(model, tf.ones((1, 3)), tf.ones((1, 2)), "mse").global_
        {'in': 0.0, 'out': 0.0}

    References:
        Lillicrap et al. 2016; Akrout et al. 2019, "Deep learning without weight transport" (the
        angle of the hidden delta, which is the local one above that layer).
    """
    for site in find_sites(model).values():
        if not site.rule.has_gradient:
            raise ValueError(
                f"Under {site.rule.alias!r} a model learns from targets, and not from a gradient "
                "of its loss. Compile it, and take tfbio.metrics.GradientMeter(model)(x, y), which "
                "compares what its training step learns."
            )
    loss = keras.losses.get(loss)
    options = {"training": training} if _keras.accepts_training(model) else {}
    optimizer = getattr(model, "optimizer", None)

    def gradients(x, y):
        with tf.GradientTape() as tape:
            value = tf.reduce_mean(loss(y, model(x, **options)))
            if optimizer is not None:
                value = optimizer.scale_loss(value)  # float16 would lose small gradients
        variables = model.trainable_variables
        return zip(tape.gradient(value, variables), variables, strict=True)

    return GradientMeter(model, gradients)(x, y)


class GradientMeter:
    """Gradient angles in compiled functions, to be measured again and again.

    See `gradient_angles` for what is measured, and that it leaves the model as it is. A measurement
    costs two gradients of its batch and, for local angles, some errors at each layer's input.

    Args:
        model: A built model with feedback layers. One that lives under a `tf.distribute` strategy
            is measured there: each replica on the whole batch, so that all find the same, and
            those of the first are returned.
        gradients: A function of a batch's parts that returns pairs of gradient and variable; None
            for those that the model's own `train_step` applies, so that what is measured is what
            is learned. For this the model must be compiled; if its `train_step` does not go
            through its optimizer, there is no global angle.
        jit_compile: Whether XLA compiles it.

    Attributes:
        compiled: The `tf.function` of a batch that returns (the gradient of each kernel, its local
            angle); its graph shows which operations a measurement runs.

    Raises:
        ValueError: If the model has no feedback layer.

    Example:
        >>> import keras, tensorflow as tf, tfbio
        >>> layers = [keras.layers.Dense(4, name="in"), keras.layers.Dense(2, name="out")]
        >>> model = tfbio.convert(keras.Sequential([keras.Input((3,)), *layers]), "sign_symmetry")
        >>> model.compile("sgd", "mse")
        >>> angles = GradientMeter(model)(tf.ones((1, 3)), tf.ones((1, 2)))
        >>> 0 < angles.local_["out"] < 90, angles.global_["out"]
        (True, 0.0)
    """

    def __init__(
        self,
        model: keras.Model,
        gradients: Callable[..., Any] | None = None,
        jit_compile: bool = False,
    ):
        self._model = model
        self._sites = find_sites(model)
        self._optimizer: Any = None
        if gradients is None:
            # It stands in the optimizer's place while functions are traced.
            self._optimizer = GradientCollector(model)
            gradients = self._optimizer.gradients
        self._gradients: Any = gradients
        strategy = strategy_of(model)
        measure = tf.function(self._measure, jit_compile=jit_compile)
        compare = tf.function(_compare, jit_compile=jit_compile)

        @tf.function(reduce_retracing=True)
        def measured(*batch):
            with self._in_place():
                gradients, angles = strategy.run(measure, args=batch)
            return gradients, of_first_replica(strategy, angles)

        @tf.function(reduce_retracing=True)
        def compared(*gradients):
            return of_first_replica(strategy, strategy.run(compare, args=gradients))

        self.compiled, self._compared = measured, compared

    def __call__(self, *batch):
        """Measure on a batch.

        Args:
            *batch: What the function of gradients takes: inputs and targets.

        Returns:
            `GradientAngles`.
        """
        if self._optimizer:
            self._optimizer.prepare(batch)
        learned, local = self.compiled(*batch)
        # The same function, since tracing another takes longer than the angles not needed here.
        with true_gradient(self._model):
            true, _ = self.compiled(*batch)
        return GradientAngles(*(
            {name: float(angles[name]) for name in self._sites if name in angles}
            for angles in (local, self._compared(learned, true))
        ))  # fmt: skip

    def _in_place(self):
        return self._optimizer.in_place() if self._optimizer else contextlib.nullcontext()

    def _measure(self, *batch):
        """Return (the gradient of each kernel, its local angle)."""
        graph = tf.compat.v1.get_default_graph()
        sightings: list[context.Sighting] = []
        with context.within(sightings=sightings):
            learned = self._of_kernels(batch)
        angles = {name: tf.constant(0.0) for name, s in self._sites.items() if s.rule.symmetric}
        for name, site in self._sites.items():
            # Those of a loop within the model are out of reach here.
            of_site = [each for each in sightings if each.site == site and _is_of(graph, each)]
            if of_site:
                angles[name] = _local_angle(of_site)
        return learned, angles

    def _of_kernels(self, batch):
        names = {id(site.kernel): name for name, site in self._sites.items()}
        # Whatever is assigned in it (moving averages, seeds, a rule's step) is forgotten after it.
        with keras.StatelessScope(collect_losses=True):
            found = {
                names[id(variable)]: gradient
                for gradient, variable in self._gradients(*batch)
                if id(variable) in names and gradient is not None
            }
        return {name: tf.convert_to_tensor(gradient) for name, gradient in found.items()}


def _compare(learned, true):
    return {name: angle_of_tensors([learned[name]], [true[name]]) for name in learned}


def _local_angle(sightings):
    under_rule, true = [], []
    for _, op, inputs, kernel, feedback, error in sightings:
        under_rule += input_gradients(op, inputs, feedback, error)
        true += input_gradients(op, inputs, kernel, error)
    return angle_of_tensors(under_rule, true)


def _is_of(graph, sighting):
    """Return whether what was seen can be used in a graph; eagerly computed, it always can."""
    tensors = [sighting.error, *tf.nest.flatten(sighting.inputs, expand_composites=True)]
    symbolic = filter(tf.is_symbolic_tensor, tensors)
    return all(tensor.graph is graph for tensor in symbolic)


class GradientCollector(StandIn):
    """Keeps the gradients that a training step would apply, and applies none of them.

    It collects within `in_place`, where it takes the place of the model's optimizer.

    Args:
        model: The compiled model.

    Example:
        >>> import keras, tensorflow as tf
        >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
        >>> model.compile("sgd", "mse")
        >>> collector = GradientCollector(model)
        >>> with collector.in_place():
        ...     pairs = collector.gradients(tf.ones((1, 1)), tf.ones((1, 1)))
        >>> [variable.name for _, variable in pairs]
        ['kernel', 'bias']
    """

    def __init__(self, model: keras.Model):
        super().__init__(model)
        self._prepared = False
        self._of_replica = threading.local()  # each is traced in a thread of its own

    def prepare(self, batch: Any) -> None:
        """Have Keras make the metrics' variables, which a first step would make, once."""
        if not self._prepared:
            with strategy_of(self._model).scope():
                _keras.build_symbolically(self._model, batch)
            self._prepared = True

    def gradients(self, *batch: Any) -> list[tuple[tf.Tensor | None, keras.Variable]]:
        """Return the pairs of gradient and variable of a training step."""
        self._of_replica.pairs = []
        self._model.train_step(batch)
        return self._of_replica.pairs

    def receive(self, pairs: list[tuple[tf.Tensor | None, keras.Variable]]) -> None:
        """Keep them."""
        self._of_replica.pairs += pairs
