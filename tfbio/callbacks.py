"""Callbacks for `fit`: what the feedback does while the network learns."""

import keras
import tensorflow as tf

from tfbio import metrics


class WeightAngles(keras.callbacks.Callback):
    """Record the angle between W and B of every kernel, before training and after each epoch.

    Written as scalars ``weight_angle/<layer>`` in degrees, at ``step = optimizer.iterations``, so
    that a resumed training continues its curves.

    Args:
        log_dir: The TensorBoard directory to write to, or None to keep the history only.

    Attributes:
        history: A list of (step, dict of `tfbio.metrics.weight_angles`), in order.

    Raises:
        ValueError: From `fit`, if the model has no feedback layer.

    Example:
        >>> import keras, numpy as np, tfbio
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, name="out")])
        >>> tfbio.convert(model, "backprop").compile("sgd", "mse")
        >>> angles = WeightAngles(log_dir=None)
        >>> _ = model.fit(np.ones((4, 2)), np.ones((4, 1)), verbose=0, callbacks=[angles])
        >>> angles.history
        [(0, {'out': 0.0}), (1, {'out': 0.0})]
    """

    def __init__(self, log_dir):
        super().__init__()
        self.log_dir = log_dir
        self.history = []
        self._writer = None

    def on_train_begin(self, logs=None):
        """Record the angles before the first step."""
        if self.log_dir is not None:
            self._writer = tf.summary.create_file_writer(str(self.log_dir))
        self._record()

    def on_epoch_end(self, epoch, logs=None):
        """Record the angles after an epoch."""
        self._record()

    def on_train_end(self, logs=None):
        """Close the event file."""
        if self._writer is not None:
            self._writer.close()

    def _record(self):
        step = int(self.model.optimizer.iterations)
        angles = metrics.weight_angles(self.model)
        self.history.append((step, angles))
        if self._writer is not None:
            with self._writer.as_default():
                for name, degrees in angles.items():
                    tf.summary.scalar(f"weight_angle/{name}", degrees, step=step)
            self._writer.flush()
