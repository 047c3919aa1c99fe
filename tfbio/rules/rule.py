"""A rule: how the kernels of a model learn; what every entry of the registry is."""

from __future__ import annotations

import abc
import inspect
import random
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import keras
import numpy as np
import tensorflow as tf

if TYPE_CHECKING:
    from tfbio.convert import Conversion
    from tfbio.rules.scales import Fans

CHANGES = (None, "by_step", "with_kernel", "alone")


class Description(NamedTuple):
    """How `tfbio.summary` shows the rule of one kernel.

    Attributes:
        rule: The rule's name, or what the kernel learns by instead.
        scale: B's scale, or where the kernel's error or target comes from.
        note: A remark that goes below the table.
    """

    rule: str
    scale: str = ""
    note: str = ""


class Rule(keras.layers.Layer, abc.ABC):
    """A learning rule: options, the weights that it owns, and answers to what the library asks.

    A rule is a sub-layer of the layer that it serves, so that Keras tracks, saves and restores its
    weights. A subclass states its options in `__init__`, each kept in an attribute of the same
    name. There are two kinds: a `LayerRule` makes a B for every kernel, a `NetworkRule` changes
    the whole model.

    Every construction takes exactly one number from Python's random state, which
    `keras.utils.set_random_seed` sets: under one global seed a network has the same kernels
    whatever its rule.

    Attributes:
        symmetric: Whether B is W itself; such a layer differentiates as plain Keras does.
        has_matrix: Whether each kernel has a B of its shape, to be compared with it.
        has_gradient: Whether what is learned is a gradient of the model's loss, which comes down
            to the model's input. Not so where layers learn from targets.
        exact_layers: How many layers of a chain, from the output down, learn what backpropagation
            would teach them, whatever the feedback is: 1, the last one, whose error no feedback
            passes. 2 where the target of the layer below it follows the loss's gradient.
        learns: How an optimizer trains the rule's weights: None if it does not; "with_kernel" if
            they get W's gradient; "alone" if they have a loss of their own.
        takes_turns: Whether kernels and the rule's weights learn in turns of an epoch.
        measures: The names of what the model's training step reports of every layer.
    """

    symmetric: bool = False
    has_matrix: bool = False
    has_gradient: bool = True
    exact_layers: int = 1
    learns: str | None = None
    takes_turns: bool = False
    measures: tuple[str, ...] = ()

    def __init__(self):
        # A dtype of its own would cast; state takes the kernel's dtype, full precision included.
        super().__init__(autocast=False, dtype="float32", name=getattr(self, "alias", None))
        self._default_seed = random.randint(1, 2**31 - 1)
        self._states = {}
        self._step_states = ()

    def __repr__(self):
        options = ", ".join(f"{name}={value!r}" for name, value in self.get_config().items())
        return f"{getattr(self, 'alias', type(self).__name__)}({options})"

    @classmethod
    def options(cls) -> dict[str, Any]:
        """Return the names of the options that `__init__` takes, with their defaults.

        Example:
            >>> import tfbio
            >>> tfbio.rules.SignSymmetry.options()
            {'scale': 'match', 'agreement': 1.0, 'seed': None}
        """
        parameters = list(inspect.signature(cls.__init__).parameters.values())[1:]
        return {parameter.name: parameter.default for parameter in parameters}

    def get_config(self) -> dict[str, Any]:
        """Return the options, from which `from_config` makes a fresh, unbuilt copy."""
        return {name: getattr(self, name) for name in self.options()}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Return a rule of this class with the options of `config`; errors are `__init__`'s."""
        return cls(**config)

    def spawn(self, index: int) -> Self:
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

    def key(self) -> tuple[int, int]:
        """Return the two integers that seed this rule's draws.

        The second sets the stream apart from Keras's initializers, which use 0: the same seed for
        W and B would otherwise give B = W, which is backpropagation unannounced.
        """
        seed = getattr(self, "seed", None)
        return (self._default_seed if seed is None else seed, 0x74666269)

    @abc.abstractmethod
    def apply(self, conversion: Conversion) -> keras.Model:
        """Put a built model under this rule.

        Args:
            conversion: The `Conversion` (`from tfbio.convert import Conversion`) at work: the
                model, its kernel layers and what the user asked for.

        Returns:
            The model.
        """

    def attach(self, kernel: tf.Tensor, fans: Fans) -> None:
        """Prepare this rule for one kernel; the layer that it serves calls this once.

        Not Keras's `build`, which keeps its arguments: the kernel would be tracked here as well.

        Args:
            kernel: The layer's kernel, a variable or tensor.
            fans: Its `tfbio.rules.Fans`.
        """
        self.built = True

    def new_state(
        self,
        name: str,
        shape: Sequence[int],
        initialize: Callable[[], Any],
        dtype: str,
        changes: str | None = None,
    ) -> keras.Variable:
        """Return a new weight of the rule, which is tracked and saved with the model.

        Args:
            name: The weight's name.
            shape: Its shape.
            initialize: A function without arguments that returns the initial value. It is called
                once the kernel has its value.
            dtype: Its dtype; the kernel's own for whatever is compared with W.
            changes: None for a fixed weight; "by_step" for one that `LayerRule.step` gives its
                values; "with_kernel" for a trainable one that gets W's gradient and is treated by
                optimizers as W is; "alone" for a trainable one with a loss of its own.

        Raises:
            ValueError: If `changes` is none of these, or the name is taken.
        """
        if changes not in CHANGES:
            raise ValueError(f"`changes` must be one of {CHANGES}. Received: {changes!r}.")
        if name in self._states:
            raise ValueError(f"Rule {self!r} has a weight {name!r} already.")
        learns = changes if changes in ("with_kernel", "alone") else None
        by_step = changes == "by_step"
        # What `step` changes is local to each replica of a tf.distribute strategy, which needs no
        # exchange to agree: the same kernel and key give the same value on all.
        variable = keras.Variable(
            lambda shape, dtype: tf.cast(initialize(), dtype),
            shape=tuple(shape),
            dtype=dtype,
            trainable=learns is not None,
            autocast=False,
            name=name,
            synchronization="on_read" if by_step else "auto",
            aggregation="only_first_replica" if by_step else "mean" if learns else "none",
        )
        self._states[name] = variable
        if by_step:
            self._step_states += (name,)
        # Optimizers treat it otherwise than the weights of the network that predicts.
        variable.feedback_learns = learns
        return variable

    def quantize(self, mode: str | None = None, **kwargs: Any) -> None:
        """Refuse what `Model.quantize` asks of every layer, unless the rule is symmetric."""
        if not self.symmetric:
            raise ValueError(
                "A model under a learning rule other than 'backprop' cannot be quantized: its "
                f"kernels are not what learns. Received: quantization mode {mode!r} under {self!r}."
            )

    def describe(self) -> Description:
        """Return how `tfbio.summary` shows the rule: by its name."""
        return Description(self.alias)
