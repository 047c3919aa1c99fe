"""Conversion: any plain Keras model becomes the same model under a learning rule, in place."""

import fnmatch
from collections.abc import Mapping
from typing import Any

import keras

from tfbio import _keras, rules, saving
from tfbio._arguments import check_number, shorten
from tfbio.layers import TWINS, FeedbackMixin
from tfbio.layers.last_layers import find_last_layers
from tfbio.layers.sites import find_layers, find_without_twin
from tfbio.networks.network import unwire


def convert(
    model: keras.Model,
    rule: Any,
    *,
    last_layer: Any = None,
    overrides: Mapping[str, Any] | None = None,
    unsupported: str = "error",
    clip: float | None = None,
) -> keras.Model:
    """Put a built, uncompiled Keras model under a learning rule, in place.

    Every layer with a kernel becomes its feedback twin, those on backprop too; weights, names and
    outputs stay as they are. Functional, sequential, nested and subclassed models are all reached.
    Converting a converted model replaces its feedback: the former one is dropped.

    Args:
        model: The model. Load its weights before: "match" scales and initial signs are taken from
            the kernels as they are now.
        rule: Anything that `tfbio.rules.get` takes. Each kernel gets a copy of its own; a seed is
            turned into one per kernel.
        last_layer: The rule of the last layers, None for the same as the rest. A last layer is
            any kernel layer with no other kernel layer between it and an output of the model, in
            training or not. Xiao et al. 2018 leave it on "backprop". Kernel layers inside a
            `tf.while_loop`, `tf.map_fn` or `tf.recompute_grad` all count as last if one does.
        overrides: A dict from a name pattern (as in a shell: ``"block3_*"``), matched against the
            layers' names as `tfbio.summary` prints them (a separable convolution's without its
            part: both kernels follow), to a rule. The first that matches wins, over `last_layer`
            too. An override to "backprop" also admits a layer without a twin.
        unsupported: "error" to refuse a layer that has a kernel and no feedback twin (recurrent
            layers, layers of one's own), "backprop" to leave such layers as they are.
        clip: None, or the bound c of every layer under a rule of layers: what it returns to its
            input, its kernel and its bias, ∂x, ∂W and ∂b, has its entries clipped to [−c, c],
            and what is below learns by the clipped ∂x. Layers on backprop have no bound. The
            gradients are those of one device and micro-batch, the loss's reduction included.

    Returns:
        The same model.

    Raises:
        TypeError: If `model` is no Keras model, or `overrides` no dict.
        ValueError: If the model is not built, or compiled; if a rule is unknown; if a layer has no
            twin, or LoRA or quantization under a rule other than backprop; if an override matches
            no kernel layer; if the model has none, or its last layers are asked for and cannot be
            found; if a layer in a SpectralNormalization gets a rule whose B follows W
            (Kolen–Pollack); if a rule returns a B that is not its kernel's equal in shape and
            dtype; if `clip` is no number above 0, or there is no layer that it would have an effect
            on. The model is then as it was, and so it is after any other error, or Ctrl-C.

    Example:
        >>> import keras, tfbio
        >>> model = keras.Sequential(
        ...     [keras.Input((4,)), keras.layers.Dense(3, "relu"), keras.layers.Dense(2)]
        ... )
        >>> model = tfbio.convert(model, "sign_symmetry", last_layer="backprop")
        >>> [layer.rule.alias for layer in model.layers]
        ['sign_symmetry', 'backprop']

    References:
        Xiao et al. 2018, "Biologically-plausible learning algorithms can scale to large datasets".
    """
    conversion = Conversion(model, last_layer, overrides, unsupported, clip)
    with _keras.undone_on_error(conversion.parts):
        return rules.get(rule).apply(conversion)


class Conversion:
    """One call of `convert`: the model, its kernel layers, and what the user asked for.

    Attributes:
        model: The model.
        parts: The model and all layers below it, a list.
        kernel_layers: A dict from name to layer: those that have, or are, a feedback twin.
        last_layer, overrides, unsupported, clip: As in `convert`.

    Args:
        model, last_layer, overrides, unsupported, clip: As in `convert`.

    Raises:
        TypeError, ValueError: As `convert` does.
    """

    def __init__(
        self,
        model: keras.Model,
        last_layer: Any = None,
        overrides: Mapping[str, Any] | None = None,
        unsupported: str = "error",
        clip: float | None = None,
    ):
        _check_model(model)
        if unsupported not in ("error", "backprop"):
            raise ValueError(
                f"`unsupported` must be 'error' or 'backprop'. Received: {unsupported!r}."
            )
        if not isinstance(overrides, Mapping | None):
            raise TypeError(
                "`overrides` must be a dict from a layer name pattern to a rule. "
                f"Received: {overrides!r} of type {type(overrides).__name__}."
            )
        self.model = model
        self.last_layer = None if last_layer is None else _rule("last_layer", last_layer)
        self.overrides = {
            str(pattern): _rule(f"overrides[{pattern!r}]", rule)
            for pattern, rule in (overrides or {}).items()
        }
        self.unsupported = unsupported
        self.clip = None if clip is None else check_number("clip", clip, above=0)
        below = find_layers(model)
        self.parts = [model, *below.values()]
        self.kernel_layers = {
            name: layer
            for name, layer in below.items()
            if type(layer) in TWINS or isinstance(layer, FeedbackMixin)
        }
        self._check_layers()

    def attach(self, rule: rules.LayerRule) -> keras.Model:
        """Attach a copy of a layer rule to every kernel layer, heeding last layer and overrides.

        Args:
            rule: The `tfbio.rules.LayerRule` of all other layers.

        Returns:
            The model.
        """
        self._check_of_layers(rule)
        chosen = {name: self._override(name) or rule for name in self.kernel_layers}
        if self.last_layer is not None:
            for name in self.last_layers():
                chosen[name] = self._override(name) or self.last_layer
        return self._put_under(chosen)

    def rewire(self, rule: rules.NetworkRule) -> keras.Model:
        """Put the whole model under a rule of networks.

        Args:
            rule: The `tfbio.rules.NetworkRule`.

        Returns:
            The model.

        Raises:
            TypeError: If the rule has no network.
            ValueError: If a rule of its own is asked for a layer, which means nothing here; and as
                the `check` of the rule's network does.
        """
        if self.clip:
            raise ValueError(
                f"`clip` has no effect under rule {rule.alias!r}, a rule of the whole network: it "
                f"bounds what layers return to the layers below. Received: clip={self.clip!r}."
            )
        for argument, given in (("last_layer", self.last_layer), ("overrides", self.overrides)):
            if given:
                raise ValueError(
                    f"`{argument}` means nothing under rule {rule.alias!r}, a rule of the whole "
                    "network: the last layer learns by its true gradient, and all others as the "
                    f"rule says. Leave it out. Received: {given!r}."
                )
        if rule.network is None:
            raise TypeError(
                f"Rule {rule.alias!r}: a NetworkRule must have `network`, the subclass of "
                "tfbio.networks.Network that a model becomes under it. Received: None."
            )
        rule.network.check(self.model, rule)
        self._put_under(dict.fromkeys(self.kernel_layers, rule))
        return rule.network.restored(self.model, {})

    def _put_under(self, chosen):
        if self.clip and all(rule.symmetric for rule in chosen.values()):
            raise ValueError(
                "`clip` has no effect where every layer is on backprop, whose gradients are left "
                f"as they are. Received: clip={self.clip!r}."
            )
        for name, layer in self.kernel_layers.items():
            _check_plain(name, layer, chosen[name])
            _check_unwrapped(name, layer, chosen[name], self.parts)
        for index, (name, layer) in enumerate(self.kernel_layers.items()):
            twin: Any = TWINS.get(type(layer), type(layer))
            layer.__class__ = twin
            layer.put_under(chosen[name].spawn(index))
            layer.clip = None if chosen[name].symmetric else self.clip
        for part in self.parts:
            unwire(part)
            if isinstance(part, keras.Model):
                # Compiled before, they would go on without the feedback.
                part.train_function = part.test_function = part.predict_function = None
        saving.contain(self.model)
        return self.model

    def last_layers(self) -> list[str]:
        """Return the names of the kernel layers with no other between them and an output.

        Raises:
            ValueError: As `tfbio.layers.find_last_layers` does.
        """
        try:
            found = find_last_layers(self.model)
        except ValueError as error:
            raise ValueError(
                f"`last_layer`: {error} Or leave it out, and name them in `overrides`."
            ) from error
        return [name for name in found if name in self.kernel_layers]

    def _check_of_layers(self, rule):
        several = {"last_layer": self.last_layer, **{
            f"overrides[{pattern!r}]": each for pattern, each in self.overrides.items()
        }}  # fmt: skip
        for argument, given in several.items():
            if given is not None and not given.has_matrix:
                raise ValueError(
                    f"`{argument.partition('[')[0]}` takes rules of layers, and {given.alias!r} is "
                    "one of the whole network: give it as `rule`. "
                    f"Received: {argument}={given!r} under {rule!r}."
                )

    def _override(self, name):
        for pattern, rule in self.overrides.items():
            if fnmatch.fnmatchcase(name, pattern):
                return rule
        return None

    def _left_alone(self, name):
        override = self._override(name)
        return override.symmetric if override else self.unsupported == "backprop"

    def _check_layers(self):
        without_twin = {
            name: layer
            for name, layer in find_without_twin(self.model).items()
            if name not in self.kernel_layers
        }
        for pattern in self.overrides:
            if not fnmatch.filter([*self.kernel_layers, *without_twin], pattern):
                raise ValueError(
                    f"`overrides` has a pattern that matches no kernel layer: {pattern!r}. "
                    f"The kernel layers: {shorten(self.kernel_layers)}."
                )
        for name, layer in without_twin.items():
            if not self._left_alone(name):
                raise ValueError(
                    f"Layer {name!r} of class {type(layer).__name__} has a kernel and no feedback "
                    "twin. Leave it on backpropagation with "
                    f"overrides={{{name!r}: 'backprop'}}, or all such layers with "
                    "unsupported='backprop'; or declare a twin with tfbio.layers.feedback_twin."
                )
        for name in [name for name, layer in self.kernel_layers.items() if not layer.built]:
            if not self._left_alone(name):
                raise ValueError(
                    f"Layer {name!r} is not built, so that it has no kernel yet. Call the model "
                    "on data, or model.build(input_shape), before tfbio.convert. If the model "
                    f"never uses it, leave it as it is with overrides={{{name!r}: 'backprop'}}."
                )
            del self.kernel_layers[name]
        if not self.kernel_layers:
            raise ValueError(
                f"Model {self.model.name!r} has no layer with a kernel: nothing to put under a "
                "rule."
            )


def _rule(argument, identifier):
    try:
        return rules.get(identifier)
    except (TypeError, ValueError) as error:
        raise type(error)(f"`{argument}`: {error}") from error


def _check_model(model):
    if not isinstance(model, keras.Model):
        raise TypeError(
            f"`model` must be a keras.Model. Received: {model!r} of type {type(model).__name__}."
        )
    if not model.built:
        raise ValueError(
            f"Model {model.name!r} is not built, so that it has no kernels yet. Call it on data, "
            "or model.build(input_shape), before tfbio.convert."
        )
    for each in (model, *find_layers(model).values()):
        if isinstance(each, keras.Model) and each.compiled:
            raise ValueError(
                f"Model {each.name!r} is compiled already. Call tfbio.convert first and compile "
                "after, so that optimizer and compiled functions know the feedback; a saved model "
                "is loaded with keras.models.load_model(path, compile=False)."
            )


def _check_plain(name, layer, rule):
    if rule.symmetric:
        return
    for option in ("lora_enabled", "quantization_mode"):
        if getattr(layer, option, None):
            raise ValueError(
                f"Layer {name!r} has LoRA or quantization, which only rule 'backprop' admits. "
                f"Received: {option}={getattr(layer, option)!r} under rule {rule!r}. Merge or "
                "remove it, or give overrides={" + repr(name) + ": 'backprop'}."
            )


def _check_unwrapped(name, layer, rule, parts):
    """Refuse a wrapper that changes W without an optimizer, where B must follow W."""
    if rule.learns != "with_kernel":
        return
    for wrapper in parts:
        if isinstance(wrapper, keras.layers.SpectralNormalization) and wrapper.layer is layer:
            raise ValueError(
                f"Layer {wrapper.name!r} of class SpectralNormalization rescales the kernel of "
                f"{name!r} in every training call, which would reach W and not the B that follows "
                f"it. Received: rule {rule.alias!r}. Leave the wrapper out, or give overrides="
                f"{{{name!r}: another rule}}, such as 'backprop' or 'sign_symmetry'."
            )
