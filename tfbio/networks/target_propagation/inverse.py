"""The inverse of a stage: through its kernel layer's transpose, taken at V."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from tfbio.feedback import input_gradients
from tfbio.networks import graph

if TYPE_CHECKING:
    from tfbio.networks.target_propagation.stages import Pass, Stage


def inverse(
    stage: Stage,
    outputs: tf.Tensor,
    seen: Pass,
    matrix: tf.Tensor,
    bias: tf.Tensor,
    activation: Callable[..., tf.Tensor] | None = None,
    auxiliary: float | tf.Tensor = 0.0,
    own: bool = False,
) -> tf.Tensor:
    """Return g(h): what a stage's input was, if `outputs` is its output.

    ::

        g(h) = φ(Vᵀ h + c)

    where Vᵀ is the transpose of the stage's linear operation at V, so that of a dense layer it is
    ``h Vᵀ``, of a convolution the transposed one, and of a locally connected layer one with the
    transposed sparsity. What stands between the kernel and the output is undone first (`undone`);
    nonlinearities there are passed over.

    Args:
        stage: The `Stage`.
        outputs: h, a tensor of its output's shape.
        seen: A `Pass` of the stage: the maxima of its pooling are where outputs go.
        matrix: V, a tensor of the kernel's shape.
        bias: c, which broadcasts against the input.
        activation: φ, the nonlinearity of the stage below; None for none.
        auxiliary: What else is added to ``Vᵀ h + c``.
        own: Whether, instead of passing over the stage's own nonlinearities, h goes through them
            on its way down, as Ernoult et al. have it.

    Returns:
        A tensor of the shape of the stage's input.

    Example:
        >>> import keras, tfbio
        >>> layers = [keras.Input((4,)), keras.layers.Dense(3, "tanh"), keras.layers.Dense(2)]
        >>> stage = tfbio.networks.target_propagation.stages(
        ...     tfbio.convert(keras.Sequential(layers), "dtp"), tfbio.rules.get("dtp")
        ... )[1]
        >>> seen = stage.run(tf.ones((1, 3)))
        >>> inverse(stage, seen.output, seen, tf.ones((3, 2)), tf.zeros(3)).shape
        TensorShape([1, 3])
    """
    h = outputs
    for operation, x in zip(reversed(stage.operations), reversed(seen.inputs), strict=True):
        nonlinearity = graph.activation(operation)
        if own and nonlinearity is not None:
            h = nonlinearity(h)
        if operation is stage.layer:
            break
        if nonlinearity is None:
            h = undone(operation, x, h)
    layer = stage.layer
    with tf.name_scope("inverse"):
        dtype = layer.compute_dtype
        x = tf.zeros_like(tf.cast(x, dtype))
        (transposed,) = input_gradients(layer.linear, x, tf.cast(matrix, dtype), tf.cast(h, dtype))
        h = transposed + tf.cast(bias, dtype) + tf.cast(auxiliary, dtype)
    return h if activation is None else activation(h)


def undone(operation: Any, x: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
    """Return what a pooling, padding or change of shape was given, if `outputs` came out.

    Each entry of the input gets the mean of the outputs that it took part in: of max pooling, those
    whose maximum it was at x, and 0 if there are none; of average pooling, those of its windows.

    Args:
        operation: The Keras layer.
        x: What it was given.
        outputs: A tensor of its output's shape.

    Returns:
        A tensor of x's shape.

    Example:
        >>> import keras
        >>> x = tf.constant([[[1.0], [4.0], [3.0], [2.0]]])
        >>> undone(keras.layers.MaxPooling1D(2), x, tf.constant([[[7.0], [8.0]]]))[0, :, 0].numpy()
        array([0., 7., 8., 0.], dtype=float32)
    """
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        y = operation(x)
    h = tf.cast(outputs, y.dtype)
    gathered = tape.gradient(y, x, output_gradients=h)
    count = tape.gradient(y, x, output_gradients=tf.ones_like(y))
    return tf.math.divide_no_nan(gathered, count)
