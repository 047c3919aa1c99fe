"""Exceptions: the variables that an optimizer spares from decay, or updates at another rate."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras

from tfbio import _keras
from tfbio._arguments import check_number, shorten
from tfbio.layers.sites import find_layers, match_layers

KINDS = ("bias", "normalization")
"""The kinds of variables that `weight_decay_exclude` knows by name."""

_NORMALIZATION = (
    keras.layers.BatchNormalization,
    keras.layers.GroupNormalization,
    keras.layers.LayerNormalization,
    keras.layers.RMSNormalization,
)


@dataclasses.dataclass(frozen=True)
class Exceptions:
    """Settings of an optimizer for some of a model's variables; make one with `of`.

    The variables are kept as positions in `model.trainable_variables`, as in
    `tfbio.optimizers.LastLayer`. A feedback matrix B that follows its kernel (Kolen–Pollack) is
    treated as the kernel is, and is not listed.

    Attributes:
        without_decay: The positions of the variables that weight decay spares.
        biases: The positions of the biases whose learning rate is scaled.
        shapes: The shapes of all trainable variables, by which a wrong list is recognized.
        bias_learning_rate_scale: The biases' learning rate over that of the kernels of their
            layers, at every step; 0 or more.

    Raises:
        ValueError: If `bias_learning_rate_scale` is not a number of 0 or more.

    Example:
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        >>> Exceptions.of(model, weight_decay_exclude="bias").without_decay
        (1,)
    """

    without_decay: tuple
    biases: tuple
    shapes: tuple
    bias_learning_rate_scale: float = 1.0

    @classmethod
    def of(
        cls,
        model: keras.Model,
        weight_decay_exclude: str = "",
        bias_learning_rate_scale: float = 1.0,
    ) -> Exceptions:
        """Return the settings for a built model; make them after `tfbio.convert` and freezing.

        Args:
            model: The model.
            weight_decay_exclude: What weight decay spares, separated by commas: the kinds "bias"
                (biases, and normalization's β) and "normalization" (its γ and β), or name patterns
                of layers (as in a shell: ``"logits*"``) as `tfbio.summary` prints them, for all
                weights of these layers.
            bias_learning_rate_scale: The learning rate of biases and normalization's β over that
                of the other variables.

        Returns:
            An `Exceptions`.

        Raises:
            ValueError: If a kind or a pattern matches no variable, or they match all, or
                `bias_learning_rate_scale` has no bias to apply to.
        """
        variables = model.trainable_variables
        spared = set()
        for part in filter(None, (part.strip() for part in weight_decay_exclude.split(","))):
            matched = _select(model, part)
            if not matched:
                raise ValueError(
                    "`weight_decay_exclude` must be kinds of variables "
                    f"({', '.join(KINDS)}) or name patterns of layers, each with weights that "
                    f"decay. Received: {part!r}, which matches none. "
                    f"The layers: {shorten(match_layers(model, '*'))}."
                )
            spared |= matched
        if spared and all(id(variable) in spared for variable in variables):
            raise ValueError(
                "`weight_decay_exclude` must leave weights that decay, and spares all. "
                f"Received: {weight_decay_exclude!r}."
            )
        biases = _select(model, "bias") if bias_learning_rate_scale != 1 else set()
        if bias_learning_rate_scale != 1 and not biases:
            raise ValueError(
                "`bias_learning_rate_scale` has no effect: the model has no trainable bias. "
                f"Received: {bias_learning_rate_scale}."
            )
        return cls(
            tuple(i for i, v in enumerate(variables) if id(v) in spared),
            tuple(i for i, v in enumerate(variables) if id(v) in biases),
            tuple(v.shape for v in variables),
            bias_learning_rate_scale,
        )

    def __post_init__(self):
        """Check the settings; turn lists, which a file gives back for tuples, into tuples."""
        object.__setattr__(self, "without_decay", tuple(self.without_decay))
        object.__setattr__(self, "biases", tuple(self.biases))
        object.__setattr__(self, "shapes", tuple(map(tuple, self.shapes)))
        check_number("bias_learning_rate_scale", self.bias_learning_rate_scale, low=0)

    def check(self, variables: Sequence[keras.Variable]) -> None:
        """Refuse variables that are not those of the model that the settings were made for.

        Args:
            variables: What the optimizer is built with.

        Raises:
            ValueError: If their number or a shape differs.
        """
        if tuple(tuple(v.shape) for v in variables) != self.shapes:
            raise ValueError(
                f"`exceptions` was made for a model with {len(self.shapes)} trainable variables of "
                "other shapes: the optimizer must be built with that model's "
                "`trainable_variables`. Make the settings after tfbio.convert and after freezing "
                f"layers. Received: {len(variables)} variables."
            )

    def get_config(self) -> dict[str, Any]:
        """Return the attributes as lists and numbers."""
        lists = {name: list(getattr(self, name)) for name in ("without_decay", "biases")}
        lists["shapes"] = [list(shape) for shape in self.shapes]
        return {**{f.name: getattr(self, f.name) for f in dataclasses.fields(self)}, **lists}


def is_bias(variable: Any) -> bool:
    """Return whether a variable is a bias or normalization's β, by its name.

    Args:
        variable: A Keras or TensorFlow variable.

    Example:
        >>> layer = keras.layers.LSTM(2)
        >>> layer.build((None, 3, 4))
        >>> [is_bias(v) for v in layer.trainable_variables]  # kernel, recurrent kernel, bias
        [False, False, True]
    """
    name = variable.name.split(":")[0].split("/")[-1]  # a tf.Variable's ends in ":0"
    return name.split("_")[-1] in ("bias", "beta")


def _select(model, part):
    """Return the ids of the trainable variables that a kind or a pattern stands for."""
    if part in KINDS:
        found = [
            variable
            for layer in (model, *find_layers(model).values())
            for variable in _keras.get_shallow_trainable_variables(layer)
            if _is_of_kind(part, layer, variable)
        ]
    else:
        layers = match_layers(model, part).values()
        found = [variable for layer in layers for variable in layer.trainable_variables]
    # B follows its kernel, or learns by a loss of its own and does not decay at all.
    trainable = {
        id(v) for v in model.trainable_variables if getattr(v, "feedback_learns", None) is None
    }
    return {id(variable) for variable in found} & trainable


def _is_of_kind(kind, layer, variable):
    if kind == "bias":
        return is_bias(variable)
    name = variable.name.split("/")[-1]
    return isinstance(layer, _NORMALIZATION) or name in ("gamma", "beta")
