"""Rules whose B learns by a loss of its own: one that has a gradient on B, and on nothing else."""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import TYPE_CHECKING

import tensorflow as tf

from tfbio.rules import contract
from tfbio.rules.layer_rule import Circuit
from tfbio.rules.scales import ScaledRule

if TYPE_CHECKING:
    from tfbio.rules.scales import Fans


class LearnedRule(ScaledRule):
    """A rule whose B is trainable, and learns by the loss that a subclass defines.

    ::

        @tfbio.rules.register("half_alignment")
        class HalfAlignment(tfbio.rules.LearnedRule):
            '''B learns by ‖B − W/2‖².'''

            def loss(self, feedback, kernel, circuit):
                return tf.reduce_sum(tf.square(feedback - kernel / 2))

    The loss joins the model's with the value 0, so that what is shown remains the task's, and the
    optimizer that updates W updates B too; a training loop of one's own must add
    ``sum(model.losses)``. The error of the layer itself does not reach B. Optimizers leave B out
    where a weight of the network is meant: weight decay, clipping, the variants
    (`tfbio.optimizers`, which also gives it a learning rate, an optimizer or a turn of its own).

    Args:
        scale: The scale of the first B ~ N(0, s²), see `tfbio.rules.scales.magnitude`.
        seed: An integer, or None to follow the global seed (`keras.utils.set_random_seed`).

    Raises:
        ValueError: If an option is out of its range; at the first call in training, if `loss`
            returns something other than a floating-point scalar.
    """

    learns = "alone"
    _loss_checked = False

    @abc.abstractmethod
    def loss(self, feedback: tf.Tensor, kernel: tf.Tensor, circuit: Circuit) -> tf.Tensor:
        """Return the loss of one call of the layer, whose gradient on `feedback` trains B.

        Args:
            feedback: B, a tensor: the only argument with a gradient.
            kernel: W, a constant tensor of B's shape and dtype.
            circuit: The layer's `Circuit`: its operation, and the input of this call.

        Returns:
            A floating-point scalar tensor.
        """

    def make_state(self, kernel: tf.Tensor, fans: Fans) -> None:
        """Draw the first B; see the base class."""
        self.matrix = self.new_random("feedback", kernel, changes=self.learns)

    def feedback(self, kernel: tf.Tensor) -> tf.Tensor:
        """Return B as it has learned to be; the layer's own error does not reach it."""
        return tf.stop_gradient(tf.convert_to_tensor(self.matrix))

    def learn(self, kernel: tf.Tensor, circuit: Circuit) -> None:
        """Add `loss` to the model's losses; see the base class."""
        if not self._loss_checked:
            # Computed once more, and its value dropped, for an error where the call is made.
            b = tf.stop_gradient(tf.convert_to_tensor(self.matrix))
            contract.loss(self, self.loss(b, kernel, circuit))
            self._loss_checked = True
        self.learn_by(lambda feedback: self.loss(feedback, kernel, circuit))

    def learn_by(self, loss: Callable) -> None:
        """Add a loss of B to the model's, of value 0 and with its gradient.

        Args:
            loss: A function from B to a scalar.
        """

        @tf.custom_gradient
        def pull(feedback):
            def gradient(upstream):
                with tf.GradientTape() as tape:
                    tape.watch(feedback)
                    value = loss(feedback)
                pulled = tape.gradient(value, feedback)
                if pulled is None:
                    raise ValueError(
                        f"Rule {self.alias!r}: `loss` must depend on B, its first argument: it is "
                        "called as loss(feedback, kernel, circuit). Received: a loss without a "
                        "gradient on B."
                    )
                return upstream * pulled

            return tf.zeros((), feedback.dtype), gradient

        self.add_loss(pull(tf.convert_to_tensor(self.matrix)))
