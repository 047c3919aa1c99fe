"""The true gradient: the same model, differentiated as backpropagation would."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import tensorflow as tf

from tfbio.layers.sites import find_sites

if TYPE_CHECKING:
    import keras


@contextlib.contextmanager
def true_gradient(model: keras.Model) -> Iterator[None]:
    """Let a model under a learning rule differentiate as under backpropagation: ``B = W``.

    Gradients with respect to the *input* (saliency, adversarial attacks) pass through every B, and
    are not the gradient of the function that the model computes. Within this context they are, and
    so are all weight gradients, of second order too; outputs do not change. Functions compiled
    before, by `tf.function` or `model.compile`, heed it too. The model must be called within the
    context: a tape keeps what it was when the call was recorded.

    The switch is a variable of each layer, so the context must be entered eagerly, outside of
    compiled functions.

    Args:
        model: A model with feedback layers, or one such layer, built.

    Yields:
        The model.

    Raises:
        ValueError: If the model has no feedback layer, or one that is not built.
        RuntimeError: If it is entered inside a compiled function.

    Example:
        >>> import keras, tensorflow as tf, tfbio
        >>> layer = tfbio.layers.FeedbackDense(1, rule="sign_symmetry(scale=1)", use_bias=False)
        >>> x = tf.ones((1, 1))
        >>> _ = layer(x), layer.kernel.assign([[3.0]])
        >>> with true_gradient(layer), tf.GradientTape() as tape:
        ...     tape.watch(x)
        ...     y = layer(x)
        >>> print(tape.gradient(y, x).numpy())
        [[3.]]
    """
    if not tf.executing_eagerly():
        raise RuntimeError(
            "tfbio.true_gradient must be entered outside of compiled functions (tf.function); "
            "functions that are called within the context heed it."
        )
    feedback_layers = {id(site.layer): site.layer for site in find_sites(model).values()}.values()
    before = [bool(layer.true_gradient_switch.numpy()) for layer in feedback_layers]
    try:
        for layer in feedback_layers:
            layer.true_gradient_switch.assign(True)
        yield model
    finally:
        for layer, value in zip(feedback_layers, before, strict=True):
            layer.true_gradient_switch.assign(value)
