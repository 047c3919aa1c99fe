"""The guard: layers under rules of whole networks refuse to be differentiated outside of theirs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import tensorflow as tf

if TYPE_CHECKING:
    from tfbio.layers.mixin import FeedbackMixin
    from tfbio.rules.network_rule import NetworkRule


def guarded(outputs: tf.Tensor, layer: FeedbackMixin, rule: NetworkRule) -> tf.Tensor:
    """Return `outputs`, which refuse to be differentiated, except for the true gradient.

    Such a layer on its own would learn by plain backpropagation, and nothing would say so.

    Args:
        outputs: A tensor.
        layer: The feedback layer whose it is.
        rule: Its rule, a `tfbio.rules.NetworkRule`.

    Returns:
        The same values. Differentiated within `tfbio.true_gradient` they pass the error on; a
        function that was compiled there and is called elsewhere fails, or returns NaN where XLA
        compiled it, which has no errors.

    Raises:
        ValueError: When the outputs are differentiated.

    Example:
        >>> import tfbio
        >>> layer = tfbio.layers.FeedbackDense(1, rule="dtp", name="h")
        >>> with tf.GradientTape() as tape:
        ...     y = layer(tf.ones((1, 2)))
        >>> tape.gradient(y, layer.kernel.value)
        Traceback (most recent call last):
        ...
        ValueError: Layer 'h' is under 'dtp', a rule of whole networks: its target comes from its...
    """
    switch = layer.true_gradient_switch
    message = (
        f"Layer {layer.name!r} is under {rule.alias!r}, a rule of whole networks: {rule.refusal} "
        "Put the model that is to learn under the rule with tfbio.convert. Of a keras.Sequential, "
        "keras.models.clone_model makes a plain one: it is copied with copy.deepcopy, or converted "
        "again. For the true gradient there is tfbio.true_gradient(model)."
    )

    @tf.custom_gradient
    def guard(outputs):
        def gradient(upstream):
            with tf.init_scope():
                asked = bool(switch.numpy())
            if not asked:
                raise ValueError(message)
            if tf.executing_eagerly():
                return upstream
            asked = tf.convert_to_tensor(switch)
            with tf.control_dependencies([tf.debugging.Assert(asked, [message])]):
                return tf.where(asked, upstream, tf.cast(math.nan, upstream.dtype))

        return tf.identity(outputs), gradient

    return guard(outputs)
