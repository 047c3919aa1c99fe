"""A feedback rule says what B is: the matrix that stands where Wᵀ stood, one copy per kernel."""

import abc
import dataclasses
import inspect
import random
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class Circuit:
    """What a rule that learns B can see and drive of the layer it serves.

    Attributes:
        op: The layer's linear operation, a function ``(inputs, kernel) -> outputs``.
        inputs: The layer's input x, a tensor.
        respond: The function ``z ↦ φ(z + b)`` of what `op` returns.
    """

    op: Callable
    inputs: Any
    respond: Callable


class FeedbackRule(keras.layers.Layer, abc.ABC):
    """The feedback matrix of one kernel, with whatever state it needs.

    A rule is a sub-layer of the layer it serves, so that Keras tracks, saves and restores its
    weights. A subclass states its options in `__init__` (each kept in an attribute of the same
    name), makes its state, if any, in `make_state` and returns B from `feedback`::

        @tfbio.rules.register("half")
        class Half(tfbio.rules.FeedbackRule):
            '''B = W/2.'''

            def feedback(self, kernel):
                return kernel / 2

    B that depends on W is stopped here: the substitution returns W's gradient for B as well, and
    it must reach only weights that a rule owns (a trainable B), never W a second time.

    Every construction takes exactly one number from Python's random state, which
    `keras.utils.set_random_seed` sets: under one global seed a network has the same kernels
    whatever its rule.

    Attributes:
        symmetric: True where B is W itself; such a layer differentiates as plain Keras does.
        steps_first: Whether the very first training call takes a step, before any optimizer did.
        of_network: True where errors come from the network's output, and none from the layer
            above: a layer's W has no B of its shape then (`tfbio.rules.DirectFeedback`).
    """

    symmetric = False
    steps_first = False
    of_network = False

    def __init__(self):
        # A dtype of its own would cast; state takes the kernel's dtype, full precision included.
        super().__init__(autocast=False, dtype="float32", name=getattr(self, "alias", None))
        self._default_seed = random.randint(1, 2**31 - 1)
        self._stepped = {}

    def __repr__(self):
        options = ", ".join(f"{name}={value!r}" for name, value in self.get_config().items())
        return f"{getattr(self, 'alias', type(self).__name__)}({options})"

    @classmethod
    def options(cls):
        """Return the names of the options that `__init__` takes, with their defaults.

        Example:
            >>> import tfbio
            >>> tfbio.rules.SignSymmetry.options()
            {'scale': 'match', 'agreement': 1.0, 'seed': None}
        """
        parameters = list(inspect.signature(cls.__init__).parameters.values())[1:]
        return {parameter.name: parameter.default for parameter in parameters}

    def get_config(self):
        """Return the options, from which `from_config` makes a fresh, unbuilt copy."""
        return {name: getattr(self, name) for name in self.options()}

    @classmethod
    def from_config(cls, config):
        """Return a rule of this class with the options of `config`; errors are `__init__`'s."""
        return cls(**config)

    def spawn(self, index):
        """Return a fresh copy for the `index`-th kernel of a model.

        A copy of a rule with a seed gets a seed derived from it and the index: with one seed for
        all, kernels of equal shape would share one B.

        Args:
            index: The kernel's position in the model, 0 or more.

        Returns:
            An unbuilt rule of the same class and options.

        Example:
            >>> import tfbio
            >>> rule = tfbio.rules.get("feedback_alignment(seed=1)")
            >>> rule.spawn(0).seed != rule.spawn(1).seed
            True
        """
        config = self.get_config()
        if config.get("seed") is not None:
            derived = np.random.SeedSequence([config["seed"], index]).generate_state(1)
            config["seed"] = int(derived[0] >> 1)  # seeds have 31 bits
        return self.from_config(config)

    def key(self):
        """Return the two integers that seed this rule's draws.

        The second sets the stream apart from Keras's initializers, which use 0: the same seed for
        W and B would otherwise give B = W, which is backpropagation unannounced.
        """
        seed = getattr(self, "seed", None)
        return (self._default_seed if seed is None else seed, 0x74666269)

    def attach(self, kernel, fans):
        """Make this rule's state for `kernel`; the layer that it serves calls this once.

        Not Keras's `build`, which keeps its arguments: the kernel would be tracked here as well.

        Args:
            kernel: The layer's kernel, a variable or tensor.
            fans: Its `tfbio.rules.Fans`.
        """
        with keras.name_scope(self.name):
            self.make_state(kernel, fans)
        self.built = True

    def make_state(self, kernel, fans):
        """Make the weights of B for `kernel`: none, by default.

        Args:
            kernel: The layer's kernel, a variable or tensor. Read its values inside an
                initializer only (`new_state`): it may itself not be initialized yet.
            fans: Its `tfbio.rules.Fans`.
        """
        if self._steps:
            missed = int(self.steps_first)  # what no kernel of these bits has: a step is due
            self.seen = self.new_state(
                "seen", (), lambda: fingerprint(kernel) + missed, "int64", stepped=True
            )

    def new_state(self, name, shape, initialize, dtype, learns=None, stepped=False):
        """Return a new weight whose initial value `initialize()` computes.

        Keep it in an attribute: Keras then tracks it and saves it with the model.

        Args:
            name: The weight's name.
            shape: Its shape.
            initialize: A function without arguments, called once the kernel has its value.
            dtype: Its dtype; the kernel's own for whatever is compared with W.
            learns: None for a fixed weight. "with_kernel" for a trainable one that gets W's
                gradient and goes wherever an optimizer takes W; "alone" for one whose gradient is
                that of a loss which the rule adds (`learn`).
            stepped: Whether `step` gives it new values.

        Returns:
            The `keras.Variable`.
        """
        # What `step` changes is local to each replica of a tf.distribute strategy, which needs no
        # exchange to agree: the same kernel and key give the same value on all.
        variable = keras.Variable(
            lambda shape, dtype: tf.cast(initialize(), dtype),
            shape=shape,
            dtype=dtype,
            trainable=learns is not None,
            autocast=False,
            name=name,
            synchronization="on_read" if stepped else "auto",
            aggregation="only_first_replica" if stepped else "mean" if learns else "none",
        )
        if stepped:
            self._stepped[name] = variable
        # Optimizers treat it otherwise than the weights of the network that predicts.
        variable.feedback_learns = learns
        return variable

    def call(self, kernel, circuit=None, training=None):
        """Return B for the present kernel, taking the step that a new kernel calls for.

        Args:
            kernel: The kernel W, a variable or tensor in full precision.
            circuit: The `Circuit` of the layer in whose call this is; None to look at B alone,
                which takes no step and learns nothing.
            training: False in `evaluate` and `predict`, which take no step; Keras passes it down
                from the model. A loop of one's own that calls `model(x)` without it does train.

        Returns:
            B, a tensor of the kernel's shape, layout and dtype.
        """
        if circuit is not None and training is not False:
            if self._steps:
                self._advance(kernel, circuit)
            self.learn(tf.stop_gradient(kernel), _constant(circuit))
        return self.feedback(tf.stop_gradient(kernel))

    def _advance(self, kernel, circuit):
        """Take a step if the kernel has changed since the last, else leave all as it is."""
        now = fingerprint(kernel)

        def stepped():
            values = {"seen": now, **self.step(tf.stop_gradient(kernel), circuit)}
            return {name: tf.cast(values[name], v.dtype) for name, v in self._stepped.items()}

        def unchanged():
            return {name: tf.convert_to_tensor(v) for name, v in self._stepped.items()}

        values = tf.cond(tf.not_equal(now, self.seen), stepped, unchanged)
        for name, variable in self._stepped.items():
            # In a stateless call the value itself is read, and a gradient would be sought in the
            # step, whose loops would keep all that they computed.
            variable.assign(tf.stop_gradient(values[name]))

    @property
    def _steps(self):
        return type(self).step is not FeedbackRule.step

    def unseen(self, kernel):
        """Return 1 where `kernel` has changed since the last step, else 0: a scalar int64 tensor.

        The next training call will take a step for it; `feedback` may look ahead.

        Args:
            kernel: The kernel W, a tensor.
        """
        return tf.cast(tf.not_equal(fingerprint(kernel), self.seen), tf.int64)

    @abc.abstractmethod
    def feedback(self, kernel):
        """Return B, computed from the kernel (a constant here) and the rule's own weights.

        Args:
            kernel: The kernel W, a tensor through which no gradient flows.

        Returns:
            A tensor of the kernel's shape, layout and dtype.
        """

    def step(self, kernel, circuit):
        """Return the next values of the rule's own weights; a rule that changes by itself has one.

        Called once per optimizer step, whatever drives the training, `fit` or a loop of one's own:
        in the first training call that finds the kernel changed since the last. A layer shared
        within a model, several micro-batches of an accumulated gradient and several replicas see
        one step.

        Args:
            kernel: The kernel W as the optimizer left it, a constant tensor.
            circuit: The layer's `Circuit`. Its inputs may differ between replicas, their shape but
                for the batch's size may not: whatever depends on more than that parts the copies
                of B.

        Returns:
            A dict with a value for every weight made with ``stepped=True``, by the name it was
            given in `new_state`.
        """
        return {}

    def learn(self, kernel, circuit):
        """Add the losses that a B of its own learning has, in a training call: none, by default.

        Args:
            kernel: The kernel W, a constant tensor.
            circuit: The layer's `Circuit`, its inputs constant.
        """

    def apply(self, conversion):
        """Put a built model under this rule: a copy for every kernel, unless told otherwise.

        Args:
            conversion: The `tfbio.convert.Conversion` at work: the model, its kernel layers and
                what the user asked for.

        Returns:
            The model.
        """
        return conversion.attach(self)

    def quantize(self, mode=None, **kwargs):
        """Refuse what `Model.quantize` asks of every layer, unless the rule is symmetric."""
        if not self.symmetric:
            raise ValueError(
                "A model under a learning rule other than 'backprop' cannot be quantized: its "
                f"kernels are not what learns. Received: quantization mode {mode!r} under {self!r}."
            )

    def rule_label(self):
        """Return the rule as `tfbio.summary` shows it: its name."""
        return self.alias

    def note(self):
        """Return what `tfbio.summary` says of the rule below its table: nothing, by default."""
        return ""

    def scale_label(self):
        """Return the scale as `tfbio.summary` shows it: empty for a rule without one."""
        return ""


def _constant(circuit):
    """Return a circuit through whose inputs no gradient flows."""
    inputs = tf.nest.map_structure(tf.stop_gradient, circuit.inputs, expand_composites=True)
    return dataclasses.replace(circuit, inputs=inputs)


def fingerprint(kernel):
    """Return 64 bits that change when `kernel` does.

    A sum over the entries of their bit patterns and places, mixed, in wrapping integer arithmetic:
    exact, so that it is the same eagerly, compiled, under XLA and on every replica. Two kernels
    agree by chance only, about once in 2⁶⁴.

    Args:
        kernel: A floating-point tensor or variable of any shape.

    Returns:
        A scalar int64 tensor.

    Example:
        >>> int(fingerprint(tf.constant([1.0, 2.0]))) != int(fingerprint(tf.constant([2.0, 1.0])))
        True
    """
    kernel = tf.convert_to_tensor(kernel)
    integer = {2: tf.int16, 4: tf.int32, 8: tf.int64}[kernel.dtype.size]
    columns = kernel.shape[-1] if kernel.shape.rank else 1
    bits = tf.cast(tf.bitcast(tf.reshape(kernel, (-1, columns)), integer), tf.int64)
    rows = tf.range(bits.shape[0], dtype=tf.int64)[:, None]
    place = rows * columns + tf.range(columns, dtype=tf.int64)
    # Mixed before they are added: in a plain weighted sum small opposite changes would cancel.
    mixed = (bits + place * _ODD[0]) * _ODD[1]
    mixed = tf.bitwise.bitwise_xor(mixed, tf.bitwise.right_shift(mixed, tf.constant(32, tf.int64)))
    return tf.reduce_sum(mixed * _ODD[2])


# Odd numbers of 64 bits with no pattern: Steele, Lea and Flood's splitmix (2014), as signed.
_ODD = (0x9E3779B97F4A7C15 - 2**64, 0xBF58476D1CE4E5B9 - 2**64, 0x94D049BB133111EB - 2**64)
