"""The mixin that puts a feedback matrix B where a Keras layer would send its error through Wᵀ."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import keras
import tensorflow as tf

from tfbio import _keras, rules
from tfbio._arguments import check_number
from tfbio.feedback import asymmetric, shared_gradient
from tfbio.layers import context
from tfbio.layers.guard import guarded
from tfbio.rules import contract

if TYPE_CHECKING:
    import numpy as np

    from tfbio.rules.rule import Rule
    from tfbio.rules.scales import Fans

TWINS = {}
"""From each Keras layer class to its feedback twin; filled by `feedback_twin`."""


def feedback_twin(cls: type[FeedbackMixin]) -> type[FeedbackMixin]:
    """Declare a feedback layer: the decorated class is the twin of the Keras layer it derives from.

    `tfbio.convert` turns layers of exactly that class into the decorated one, in place. To give a
    layer of one's own a twin, derive from the feedback layer of the same kind and from it.

    Args:
        cls: A subclass of `FeedbackMixin`; the next class in its method resolution order that is
            no feedback layer is the one it serves.

    Returns:
        The class, registered for saving, its signature that of the Keras layer plus `rule` and
        `clip`.

    Raises:
        TypeError: If `cls` is no subclass of `FeedbackMixin`.

    Example:
        >>> import keras, tfbio
        >>> class Mine(keras.layers.Dense):
        ...     pass
        >>> @tfbio.layers.feedback_twin
        ... class FeedbackMine(tfbio.layers.FeedbackDense, Mine):
        ...     pass
        >>> model = keras.Sequential([keras.Input((2,)), Mine(3)])
        >>> type(tfbio.convert(model, "sign_symmetry").layers[0]).__name__
        'FeedbackMine'
    """
    if not (isinstance(cls, type) and issubclass(cls, FeedbackMixin)):
        raise TypeError(f"A feedback twin must derive from FeedbackMixin. Received: {cls!r}.")
    twin_of = next(base for base in cls.__mro__ if not issubclass(base, FeedbackMixin))
    parameters = list(inspect.signature(twin_of.__init__).parameters.values())[1:]
    keywords = [p for p in parameters if p.kind is inspect.Parameter.VAR_KEYWORD]
    rule = inspect.Parameter("rule", inspect.Parameter.KEYWORD_ONLY, default="sign_symmetry")
    clip = inspect.Parameter("clip", inspect.Parameter.KEYWORD_ONLY, default=None)
    named = [p for p in parameters if p not in keywords]
    cls.__signature__ = inspect.Signature([*named, rule, clip, *keywords])
    TWINS[twin_of] = cls
    return keras.saving.register_keras_serializable("tfbio")(cls)


class Site(NamedTuple):
    """One kernel of one feedback layer: the place where a rule applies.

    Attributes:
        layer: The feedback layer.
        kernel_name: The attribute that holds the kernel: "kernel", or "depthwise_kernel" and
            "pointwise_kernel" of a separable convolution.
    """

    layer: FeedbackMixin
    kernel_name: str

    @property
    def part(self) -> str:
        """What sets this kernel apart within its layer: "depthwise", "pointwise" or ""."""
        return self.kernel_name.removesuffix("kernel").removesuffix("_")

    @property
    def kernel(self) -> Any:
        """The kernel W: a variable, or a tensor where Keras computes it (LoRA)."""
        return getattr(self.layer, self.kernel_name)

    @property
    def rule(self) -> Any:
        """The kernel's rule, the layer's attribute `rule`, `depthwise_rule` or `pointwise_rule`."""
        return getattr(self.layer, self._rule_name)

    @property
    def _rule_name(self):
        return self.kernel_name.removesuffix("kernel") + "rule"

    @property
    def feedback(self) -> tf.Tensor:
        """The effective feedback matrix B, a tensor in W's layout and full precision.

        Looking at it takes no step, even where the next training call will.
        """
        return tf.convert_to_tensor(self.rule(self.kernel, training=False))

    def compared(self) -> tuple[tf.Tensor, tf.Tensor]:
        """Return W and B as tensors to be compared, without entries that never act."""
        kernel, feedback = tf.convert_to_tensor(self.kernel), self.feedback
        acting = self.layer.acting(self.kernel_name)
        if acting is None:
            return kernel, feedback
        return tf.boolean_mask(kernel, acting), tf.boolean_mask(feedback, acting)

    def adopt(self, rule: Rule) -> None:
        """Make `rule` this kernel's rule; what it replaces is no longer tracked or saved."""
        with _keras.unlocked(self.layer):
            if self._rule_name in vars(self.layer):
                _keras.untrack(self.layer, self.rule)
            setattr(self.layer, self._rule_name, rule)


if TYPE_CHECKING:  # it comes after the mixin in the bases of every class
    _Layer = keras.layers.Layer
else:
    _Layer = object


class FeedbackMixin(_Layer):
    """What all feedback layers share; comes before the Keras layer in the bases of each.

    A layer computes ``y = activation(op(x, W) + b)`` as its Keras twin does, and sends the error
    to x through B instead of W::

        e = ∂L/∂(op(x, W) + b),    ∂x = op(·, B)ᵀ e,    ∂W = op(x, ·)ᵀ e,    ∂b = Σ e

    Under a symmetric rule it runs its Keras twin's own `call`.

    Args:
        *args: The Keras twin's arguments.
        rule: The learning rule, anything that `tfbio.rules.get` takes. The layer makes a copy of
            its own.
        clip: None, or the bound c of ∂x, ∂W and ∂b, whose entries are clipped to [−c, c]; see
            `tfbio.convert`.
        **kwargs: The Keras twin's keyword arguments.

    Raises:
        ValueError: If the rule or one of its options is unknown, or if LoRA or quantization is
            asked for under any rule but backprop: there the kernel is not what learns.
    """

    kernel_names = ("kernel",)
    clip: float | None = None

    def __init__(
        self, *args: Any, rule: Any = "sign_symmetry", clip: float | None = None, **kwargs: Any
    ):
        super().__init__(*args, **kwargs)
        self.clip = None if clip is None else check_number("clip", clip, above=0)
        self.put_under(rule)

    def sites(self) -> tuple[Site, ...]:
        """Return the layer's kernels, each with its rule, as a tuple of `Site`."""
        # A property would lead Keras's saver, which reads every attribute, back to the layer.
        return tuple(Site(self, name) for name in self.kernel_names)

    @property
    def feedback(self) -> tf.Tensor:
        """The effective feedback matrix B, a tensor in the kernel's layout and full precision."""
        if len(self.sites()) > 1:
            names = " and ".join(f"`{site.part}_feedback`" for site in self.sites())
            raise AttributeError(
                f"{type(self).__name__} has a feedback matrix per kernel: {names}."
            )
        return self.sites()[0].feedback

    @property
    def symmetric(self) -> bool:
        """Whether the layer backpropagates: the error passes through W itself."""
        return all(site.rule.symmetric for site in self.sites())

    def put_under(self, rule: Any) -> None:
        """Give the layer copies of `rule`, one per kernel; built with it, or now if it is built.

        Args:
            rule: Anything that `tfbio.rules.get` takes.

        Raises:
            ValueError: As the constructor does, and if a rule returns a B that is not W's equal in
                shape and dtype; whatever else the rule itself raises.
        """
        rule = rules.get(rule)
        several = len(self.kernel_names) > 1
        config = rules.serialize(rule)
        copies = [
            rule.spawn(index) if several else rules.get(config)
            for index in range(len(self.kernel_names))
        ]
        if self.built:
            self._attach(copies)
        # Past Keras's tracking, whose dict holds the layer: no config could be copied.
        vars(self)["_rule_config"] = config
        for site, copy in zip(self.sites(), copies, strict=True):
            site.adopt(copy)
        if not isinstance(self.quantize, functools.partial):
            # Keras binds `quantize` to each instance, so that a method here would go unseen; its
            # messages ask for the method's name.
            checked = functools.partial(self._quantize, self.quantize)
            self.quantize = functools.update_wrapper(checked, self.quantize)
        for option in ("lora_rank", "quantization_mode"):
            if getattr(self, option, None):
                self._refuse(f"{option}={getattr(self, option)!r}")
        if self.built:
            self._make_switch()

    def _post_build(self):
        # Keras's hook. Not `build`, which Keras binds to each layer as it is made: a layer that
        # became a feedback layer after that, and is built later, would not see this class's.
        super()._post_build()
        self._attach([site.rule for site in self.sites()])
        self._make_switch()

    def _attach(self, copies):
        # Built within the call of another layer, the kernel would show that one's compute dtype.
        with _keras.autocast(self.variable_dtype), _keras.open_name_scope(self):
            for site, rule in zip(self.sites(), copies, strict=True):
                # A layer loaded as quantized, which only backprop admits, may have no kernel.
                if site.kernel is not None:
                    rule.attach(site.kernel, self.fans(site.kernel_name))
                    contract.feedback(rule, site.kernel, self.name)
                    if not self.trainable:
                        rule.trainable = False  # as Keras freezes what a frozen layer holds

    def _make_switch(self):
        # In a variable, because a compiled function keeps whatever Python said when it was traced.
        # Not a keras.Variable: it is a way of looking at the model, no part of its saved state.
        with tf.init_scope():
            self.true_gradient_switch = tf.Variable(False, trainable=False)

    def fans(self, kernel_name: str) -> Fans:
        """Return the `tfbio.rules.Fans` of the kernel called `kernel_name`."""
        raise NotImplementedError(f"{type(self).__name__} must define `fans(kernel_name)`.")

    def acting(self, kernel_name: str) -> np.ndarray | None:
        """Return a boolean array in the kernel's shape, False where an entry has no effect at all.

        None, as here, if all have one.
        """
        return None

    def respond(self, outputs: tf.Tensor) -> tf.Tensor:
        """Return ``activation(outputs + b)``, b the layer's bias."""
        raise NotImplementedError(f"{type(self).__name__} must define `respond(outputs)`.")

    def bias_of_outputs(self) -> tf.Tensor | None:
        """Return the layer's bias b, shaped to be added to ``op(x, W)``; None for none."""
        bias = getattr(self, "bias", None)
        return None if bias is None else tf.convert_to_tensor(bias)

    def propagate(self, op: Callable[..., tf.Tensor], inputs: tf.Tensor, site: Site) -> tf.Tensor:
        """Return ``op(inputs, W)``, whose error goes back through the site's B.

        Args:
            op: The layer's linear operation, see `tfbio.feedback.asymmetric`.
            inputs: Its input.
            site: The `Site` whose kernel and rule it uses.

        Returns:
            The output tensor, before bias and activation.
        """
        # One reading serves layer and rule: TensorFlow's graph optimizer would lose the order of a
        # second one, and a rule might see W after its update. The rule has it in full precision,
        # where a sign does not underflow; the layer as Keras casts it.
        last = site.kernel_name == self.kernel_names[-1]
        with _keras.autocast(None):
            full = tf.convert_to_tensor(site.kernel)
            bias = self.bias_of_outputs() if last else None
        kernel = tf.cast(full, self.compute_dtype) if self.autocast else full
        if not context.current().rewired:
            return op(inputs, kernel)
        if not site.rule.has_matrix:
            return self._propagate_in_network(op, inputs, kernel, site)
        circuit = rules.Circuit(op, inputs, self.respond if last else tf.identity, bias)
        feedback = tf.cast(site.rule(full, circuit=circuit), kernel.dtype)
        if isinstance(inputs, tf.Tensor):  # what comes sparse is the data itself
            inputs = self.clipped(inputs)
        # B's too, which where it follows W gets the same.
        kernel, feedback = self.clipped(kernel), self.clipped(feedback)
        if site.rule.learns == "with_kernel":
            kernel, feedback = shared_gradient(kernel, feedback, self.true_gradient_switch)
        outputs = asymmetric(op, inputs, kernel, feedback, transport=self.true_gradient_switch)
        return context.show(outputs, site, op, inputs, kernel, feedback)

    def clipped(self, value: Any) -> Any:
        """Return a value whose gradient has its entries clipped to [−c, c], c the layer's `clip`.

        Args:
            value: A tensor, variable or None; as it is without `clip`. While the model is made to
                show its true gradient (`tfbio.true_gradient`) nothing is clipped.
        """
        clip = self.clip
        if not clip or value is None or not context.current().rewired:
            return value

        @tf.custom_gradient
        def identity(value, transport):
            def gradient(upstream):
                bound = tf.clip_by_value(upstream, -clip, clip)
                return tf.where(transport, upstream, bound), None

            return tf.identity(value), gradient

        return identity(
            tf.convert_to_tensor(value), tf.convert_to_tensor(self.true_gradient_switch)
        )

    def _propagate_in_network(self, op, inputs, kernel, site):
        """Return ``op(inputs, kernel)``, its error going where the network says, or nowhere."""
        if site.kernel_name != self.kernel_names[0]:
            return op(inputs, kernel)  # within the layer, whose parts are one to the network
        error = context.current().error
        if error == context.CUT:
            return asymmetric(op, inputs, kernel, None, transport=self.true_gradient_switch)
        outputs = op(inputs, kernel)
        return outputs if error == context.OPEN else guarded(outputs, self, site.rule)

    def enable_lora(self, *args: Any, **kwargs: Any) -> None:
        """Enable LoRA as Keras does, under backprop; refuse it under any other rule."""
        self._refuse("LoRA")
        return super().enable_lora(*args, **kwargs)

    def _quantize(self, quantize, mode=None, type_check=True, config=None):
        self._refuse("quantization")
        # Keras checks that the class is its own; a twin on backprop computes what that does.
        type_check = type_check and type(self) not in TWINS.values()
        return quantize(mode, type_check=type_check, config=config)

    def _flatten_layers(self, include_self=True, recursive=True):
        # Model.quantize goes to leaf layers only; on backprop, where the rule owns nothing, a
        # feedback layer is one. Under other rules it meets the rule, which refuses.
        if self.symmetric:
            return [self] if include_self else []
        return super()._flatten_layers(include_self, recursive)

    @property
    def rule_config(self) -> dict[str, Any]:
        """The config of the layer's rule, as `tfbio.rules.serialize` gives it."""
        return dict(self._rule_config)

    def _refuse(self, what):
        if not self.symmetric:
            raise ValueError(
                f"Layer {self.name!r} of class {type(self).__name__} cannot combine LoRA or "
                "quantization with a learning rule other than 'backprop'. "
                f"Received: {what} under rule {self.sites()[0].rule!r}."
            )

    def get_config(self) -> dict[str, Any]:
        """Return the Keras twin's config, and the rule's."""
        clip = {"clip": self.clip} if self.clip else {}
        return {**super().get_config(), "rule": self.rule_config, **clip}
