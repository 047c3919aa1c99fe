"""The last layer's settings: which variables are its own, and how the optimizer treats them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tfbio._arguments import check_number
from tfbio.layers.last_layers import find_last_layers

if TYPE_CHECKING:
    import keras


@dataclasses.dataclass(frozen=True)
class LastLayer:
    """Settings of an optimizer for the variables of the last layers; make one with `of`.

    The variables are kept as positions in `model.trainable_variables`, which is how Keras itself
    matches an optimizer's saved state to a model: paths hold names that differ in every process.

    Attributes:
        indexes: The positions of the last layers' variables.
        shapes: Their shapes, by which a wrong list of variables is recognized.
        count: The number of the model's trainable variables.
        learning_rate_scale: The learning rate over that of the other layers, at every step; 0 or
            more.
        batch_manhattan, no_sign_change: True or False, or None for the same as the other layers.

    Raises:
        ValueError: If `learning_rate_scale` is no number of 0 or more, or another setting is none
            of True, False and None.

    Example:
        >>> import keras
        >>> model = keras.Sequential(
        ...     [keras.Input((4,)), keras.layers.Dense(3, "relu"), keras.layers.Dense(2)]
        ... )
        >>> LastLayer.of(model, learning_rate_scale=0.1).indexes
        (2, 3)
    """

    indexes: tuple
    shapes: tuple
    count: int
    learning_rate_scale: float = 1.0
    batch_manhattan: bool | None = None
    no_sign_change: bool | None = None

    @classmethod
    def of(cls, model: keras.Model, **settings: Any) -> LastLayer:
        """Return the settings for the last layers of a built model.

        Make it after `tfbio.convert`: a feedback matrix that learns is a variable too, and shares
        the settings of its kernel.

        Args:
            model: The model; its last layers are those of `tfbio.layers.find_last_layers`.
            **settings: `learning_rate_scale`, `batch_manhattan` and `no_sign_change`.

        Returns:
            A `LastLayer`.

        Raises:
            ValueError: If the last layers cannot be found, or have nothing to train.
        """
        found = find_last_layers(model)
        own = {id(variable) for layer in found.values() for variable in layer.trainable_variables}
        variables = model.trainable_variables
        indexes = tuple(i for i, variable in enumerate(variables) if id(variable) in own)
        if not indexes:
            raise ValueError(
                f"The last layers of model {model.name!r} have nothing to train: "
                f"{', '.join(found)}."
            )
        shapes = tuple(variables[i].shape for i in indexes)
        return cls(indexes, shapes, len(variables), **settings)

    def __post_init__(self):
        """Check the settings; turn lists, which a file gives back for tuples, into tuples."""
        object.__setattr__(self, "indexes", tuple(self.indexes))
        object.__setattr__(self, "shapes", tuple(map(tuple, self.shapes)))
        check_number("learning_rate_scale", self.learning_rate_scale, low=0)
        for name in ("batch_manhattan", "no_sign_change"):
            if getattr(self, name) not in (True, False, None):
                raise ValueError(
                    f"`{name}` must be True, False or None. Received: {getattr(self, name)!r}."
                )

    def check(self, variables: Sequence[keras.Variable]) -> None:
        """Refuse variables that are not those of the model that the settings were made for.

        Args:
            variables: What the optimizer is built with.

        Raises:
            ValueError: If their number differs, or a shape at the positions of the last layers.
        """
        fits = len(variables) == self.count and all(
            tuple(variables[i].shape) == shape
            for i, shape in zip(self.indexes, self.shapes, strict=True)
        )
        if not fits:
            raise ValueError(
                f"`last_layer` was made for a model with {self.count} trainable variables, those "
                f"at {list(self.indexes)} of shapes {list(self.shapes)}: the optimizer must be "
                "built with that model's `trainable_variables`. Make the settings after "
                f"tfbio.convert and after freezing layers. Received: {len(variables)} variables."
            )

    def get_config(self) -> dict[str, Any]:
        """Return the attributes as lists and numbers."""
        lists = {"indexes": list(self.indexes), "shapes": [list(shape) for shape in self.shapes]}
        return {**{f.name: getattr(self, f.name) for f in dataclasses.fields(self)}, **lists}
