"""Learning: targets from the top down, local losses, and the losses of the inverses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from tfbio.networks.target_propagation.inverse import inverse

if TYPE_CHECKING:
    from tfbio.networks.target_propagation.stages import Pass, Stage


class Inverses:
    """The inverses of a network, for one step.

    Args:
        stages: The network's stages.
        seen: The `Pass` of each, of the batch.
        matrices: For each stage (V, c), and of auxiliary units (R, V_z) behind them; None for those
            without an inverse.
        own: Whether outputs go through the stage's own nonlinearity on their way down, and
            through none below, as for `tfbio.networks.target_propagation.inverse`.
    """

    def __init__(
        self, stages: Sequence[Stage], seen: Sequence[Pass], matrices: Sequence[Any], own: bool
    ):
        self.stages, self.seen, self.matrices, self.own = stages, seen, matrices, own

    def __call__(self, index, outputs, seen=None, matrices=None):
        """Return what stage `index` was given, if `outputs` is its output.

        Args:
            index: The stage's place.
            outputs: Its output, or (output, z).
            seen: The `Pass` that says where pooled outputs go; None for the batch's.
            matrices: Others than this step's.
        """
        matrix, bias, *more = self.matrices[index] if matrices is None else matrices
        auxiliary = 0.0
        if more:
            outputs, z = outputs
            auxiliary = tf.matmul(z, tf.cast(more[1], z.dtype), transpose_b=True)
            auxiliary = tf.reshape(auxiliary, (-1, *self.stages[index].shape))
        # What they give is in the range of the nonlinearity below.
        activation = None if self.own else self.stages[index - 1].activation
        seen = self.seen[index] if seen is None else seen
        return inverse(
            self.stages[index], outputs, seen, matrix, bias, activation, auxiliary, self.own
        )

    def augmented(self, index: int, h: tf.Tensor, outputs: tf.Tensor) -> Any:
        """Return `outputs` of stage `index`, with z, a fixed function of its input h, beside them.

        Args:
            index: The stage's place.
            h: Its input.
            outputs: Its output, for a stage with auxiliary units; else it is returned as it is.
        """
        _, _, *more = self.matrices[index]
        if not more:
            return outputs
        flat = tf.reshape(h, (-1, more[0].shape[0]))
        return outputs, tf.tanh(tf.matmul(flat, tf.cast(more[0], flat.dtype)))


def targets(
    inverses: Inverses, activations: Sequence[tf.Tensor], highest: tuple[int, Any], difference: bool
) -> dict[int, Any]:
    """Return the target of every hidden layer below the first one that is given.

    Args:
        inverses: The `Inverses`.
        activations: The output h of each stage, of the last one as the rule has it.
        highest: (index, its target): the output's, with z beside it if it has one, or the last
            hidden layer's.
        difference: Whether what an inverse misses is added.

    Returns:
        A dict from a stage's place to its target, with the given one among them; in full
        precision, whose differences are small.

    Example:
        >>> targets(None, [tf.ones((1, 2))], (0, tf.zeros((1, 2))), True)[0].shape
        TensorShape([1, 2])
    """
    index, target = highest
    found = {index: target}
    while index > 0:
        propagated = full(inverses(index, found[index]))
        if difference:
            here = activations[index]
            if isinstance(found[index], tuple):
                here = (here, found[index][1])
            # In this order: where both are the same, nothing is left but h.
            missed = propagated - full(inverses(index, here))
            propagated = full(activations[index - 1]) + missed
        index -= 1
        found[index] = tf.stop_gradient(propagated)
    return found


def full(tensor: tf.Tensor) -> tf.Tensor:
    """Return a tensor in full precision, where squares do not overflow.

    Args:
        tensor: A floating-point tensor.

    Example:
        >>> full(tf.constant(1.0, tf.bfloat16)).dtype.name
        'float32'
    """
    return tf.cast(tensor, tf.float64 if tensor.dtype == tf.float64 else tf.float32)


def squared(difference: tf.Tensor, weights: tf.Tensor | None = None) -> tf.Tensor:
    """Return the squared error, summed over the entries and averaged over the batch.

    Args:
        difference: A tensor (batch, …).
        weights: A weight for each example, or None.

    Example:
        >>> float(squared(tf.constant([[1.0, 2.0], [3.0, 0.0]])))
        7.0
    """
    difference = full(difference)
    each = tf.reduce_sum(tf.square(difference), axis=list(range(1, difference.shape.rank)))
    if weights is not None:
        each *= tf.cast(tf.reshape(weights, tf.shape(each)), each.dtype)
    return tf.reduce_mean(each)


def distance(target: tf.Tensor, activation: tf.Tensor) -> tf.Tensor:
    """Return ``‖ĥ − h‖ / ‖h‖``, averaged over the batch.

    Args:
        target: ĥ.
        activation: h.

    Example:
        >>> float(distance(tf.constant([[3.0, 0.0]]), tf.constant([[2.0, 0.0]])))
        0.5
    """
    norms = [
        tf.norm(tf.reshape(full(each), (tf.shape(each)[0], -1)), axis=-1)
        for each in (full(target) - full(activation), activation)
    ]
    return tf.reduce_mean(tf.math.divide_no_nan(*norms))


def reconstruction(
    inverses: Inverses,
    index: int,
    below: tf.Tensor,
    noise: tf.Tensor,
    run: Callable[[tf.Tensor], tuple[Pass, tf.Tensor]],
    clean: bool,
) -> tf.Tensor:
    """Return the inverse loss ``‖g(f(h + ξ)) − h‖²`` of a stage, whose gradient is V's and c's.

    Args:
        inverses: The `Inverses`.
        index: The stage's place.
        below: h, its input.
        noise: ξ.
        run: A function from the corrupted input to (the stage's `Pass`, its output).
        clean: Whether h is to be reconstructed, else h + ξ.

    Returns:
        A scalar.

    Example:
        >>> import keras, tfbio
        >>> layers = [keras.Input((4,)), keras.layers.Dense(3, "tanh"), keras.layers.Dense(2)]
        >>> model = tfbio.convert(keras.Sequential(layers), "sdtp")
        >>> found = tfbio.networks.target_propagation.stages(model, model.layers[0].rule)
        >>> below = found[0].run(tf.ones((1, 4)))
        >>> seen = [below, found[1].run(below.output)]
        >>> own = found[1].rule
        >>> matrices = [None, [own.inverse_kernel.value, own.inverse_bias.value]]
        >>> inverses = Inverses(found, seen, matrices, own=False)
        >>> run = lambda h: (found[1].run(h), found[1].run(h).output)
        >>> float(reconstruction(inverses, 1, below.output, 0.1, run, clean=True)) > 0
        True
    """
    corrupted = below + noise
    seen, outputs = run(corrupted)
    outputs = tf.nest.map_structure(tf.stop_gradient, inverses.augmented(index, corrupted, outputs))
    goal = tf.stop_gradient(below if clean else corrupted)
    return squared(full(inverses(index, outputs, seen)) - full(goal))
