"""A network: what a functional or sequential model becomes under a rule of whole networks.

The model stays the same object, of a class derived from a kind of network and from its own
(`tfbio.saving.Derived`). It is saved with the name of its own class, and wired again when loaded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import keras

from tfbio import saving

if TYPE_CHECKING:
    from tfbio.rules.network_rule import NetworkRule


class Network(saving.Derived):
    """What all networks share; a kind of network derives from this class.

    A rule of networks names its kind in its attribute `network`.

    Attributes:
        wiring: The names of the attributes in which `wire` keeps what it finds, past Keras's
            tracking.
    """

    key = "tfbio_rewired"
    wiring: ClassVar[tuple[str, ...]] = ()

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.wire()  # a functional model's clone

    @classmethod
    def check(cls, model: keras.Model, rule: NetworkRule) -> None:
        """Refuse a model that cannot become such a network.

        Args:
            model: A built model.
            rule: The `tfbio.rules.NetworkRule`.

        Raises:
            ValueError: If it cannot.
        """
        raise NotImplementedError(f"{cls.__name__} must define `check(model, rule)`.")

    def wire(self) -> None:
        """Find how the model is wired; its kernel layers are feedback layers under one rule."""
        raise NotImplementedError(f"{type(self).__name__} must define `wire()`.")

    @classmethod
    def restored(cls, layer: keras.layers.Layer, kept: dict[str, Any]) -> Any:
        """Return a model as such a network, wired by the rule that its layers hold."""
        saving.derive(layer, cls)
        layer.wire()
        return layer


def unwire(model: keras.layers.Layer) -> None:
    """Give a network the class that it had before it became one, in place; others stay as they are.

    Args:
        model: A Keras model or layer.

    Example:
        >>> import keras, tfbio
        >>> layers = [keras.Input((4,)), keras.layers.Dense(3, "relu"), keras.layers.Dense(2)]
        >>> model = tfbio.convert(keras.Sequential(layers), "dfa")
        >>> unwire(model)
        >>> type(model) is keras.Sequential
        True
    """
    if isinstance(model, Network):
        for name in model.wiring:
            model.__dict__.pop(name, None)
        saving.underive(model)
