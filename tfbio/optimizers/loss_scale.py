"""Loss scaling: float16's small gradients survive, and no rule learns another thing by it."""

from collections.abc import Sequence

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable("tfbio")
class LossScale(keras.optimizers.LossScaleOptimizer):
    """Keras's dynamic loss scaling, on which all replicas of a strategy agree.

    The loss is multiplied by a power of two, the gradients are divided by it. A step whose
    gradient overflows anywhere is left out and the scale halved; after 2,000 steps without one it
    is doubled. Keras's own asks one replica whether its part of the gradient is finite: the
    others' overflows would reach the weights, and processes would part ways.

    Args:
        *args: Those of `keras.optimizers.LossScaleOptimizer`, the inner optimizer first.
        **kwargs: Its keyword arguments.

    Example:
        >>> p = keras.Variable([1.0])
        >>> optimizer = LossScale(keras.optimizers.SGD(0.5), initial_scale=4.0)
        >>> optimizer.build([p])
        >>> optimizer.apply([optimizer.scale_loss(1.0)[None]], [p])
        >>> print(p.numpy())
        [0.5]

    References:
        Micikevicius et al. 2018, "Mixed precision training".
    """

    def check_finite(self, grads: Sequence[tf.Tensor | None]) -> tf.Tensor:
        """Return whether every gradient is finite, on every replica."""
        finite = super().check_finite(grads)
        replica = tf.distribute.get_replica_context()
        if replica is None or replica.num_replicas_in_sync == 1:
            return finite
        overflows = tf.cast(tf.logical_not(finite), tf.float32)
        return tf.equal(replica.all_reduce(tf.distribute.ReduceOp.SUM, overflows), 0)
