"""Rules of whole networks: each rewires a model, or trains it by a step of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import keras
import tensorflow as tf

from tfbio.rules.rule import Description, Rule

if TYPE_CHECKING:
    from tfbio.convert import Conversion


class NetworkRule(Rule):
    """A rule of the whole network, whose kernels have no B of their shape.

    Every kernel layer of the network holds a copy, which owns the weights that belong there.

    Attributes:
        network: The class that a model becomes under this rule, a `tfbio.networks.Network`.
        refusal: Why a layer under this rule cannot be differentiated outside of such a network.
        place: How `tfbio.summary` shows this copy, as the network has told it; None if it has not.
    """

    network: ClassVar[Any] = None
    refusal: ClassVar[str] = ""

    def __init__(self):
        super().__init__()
        self.place = None

    def apply(self, conversion: Conversion) -> keras.Model:
        """Turn the model into a network of this rule's; see the base class."""
        return conversion.rewire(self)

    def feedback(self, kernel: tf.Tensor) -> tf.Tensor:
        """Return 0: no error passes down through a matrix of the kernel's shape."""
        return tf.zeros_like(kernel)

    def call(self, kernel: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """Return `feedback`, for those who look at a layer's B."""
        return self.feedback(tf.stop_gradient(kernel))

    def describe(self) -> Description:
        """Return what the network has said of this copy, or the rule's name."""
        return self.place or super().describe()
