"""Callbacks for `fit`: what the feedback does while the network learns."""

import logging
import os
from typing import Any

import keras
import tensorflow as tf

from tfbio import metrics
from tfbio._arguments import check_integer


def _get_step(model) -> int:
    """Return how many steps a compiled model's optimizer has taken."""
    return int(model.optimizer.iterations)


def _find_averaged_layers(model):
    """Return the layers of each mean; none, with a warning, of a model that cannot be traced."""
    metrics.sites_with_matrix(model)  # without feedback layers, that is the error
    try:
        return metrics.find_averaged_layers(model)
    except ValueError as error:
        logging.getLogger(__name__).warning("No means over layers are recorded: %s", error)
        return metrics.AveragedLayers({}, {})


class Telemetry(keras.callbacks.Callback):
    """Record all metrics of the feedback, before training, after each epoch, and every so often.

    Scalars in degrees, ratios and shares: ``weight_angle/<layer>``, ``norm_ratio/<layer>``,
    ``sign_agreement/<layer>``; with a batch also ``gradient_angle/<layer>``, the global one, and
    ``local_gradient_angle/<layer>``. Their means, ``mean_weight_angle`` and so on, are over the
    layers of `tfbio.metrics.find_averaged_layers`. They are written at
    ``step = optimizer.iterations``, so that a resumed training continues its curves, and measured
    in compiled functions that leave the model as it is (`tfbio.metrics.GradientMeter`).

    Args:
        log_dir: The TensorBoard directory to write to, or None to keep the history only.
        batch: What `train_step` takes, (x, y), to measure the gradients on: the same all along. Or
            None: gradients are not measured.
        every: Steps between two measurements within an epoch; 0: none.

    Attributes:
        history: A list of (step, dict from such a name to number), in order.

    Raises:
        ValueError: If `every` is no integer of 0 or more; from `fit`, if the model has no feedback
            layer.

    Example:
        >>> import keras, numpy as np, tfbio
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, name="out")])
        >>> tfbio.convert(model, "backprop").compile("sgd", "mse")
        >>> x, y = np.ones((4, 2)), np.ones((4, 1))
        >>> telemetry = Telemetry(log_dir=None, batch=(x, y))
        >>> _ = model.fit(x, y, verbose=0, callbacks=[telemetry])
        >>> telemetry.history[-1][1]["gradient_angle/out"]
        0.0
    """

    def __init__(
        self, log_dir: str | os.PathLike | None, batch: tuple | None = None, every: int = 0
    ):
        super().__init__()
        self.log_dir = log_dir
        self.batch = batch
        self.every = check_integer("every", every, low=0)
        self.history: list[tuple[int, dict[str, float]]] = []
        self._writer: Any = None
        self._weights: Any = None
        self._gradients: Any = None
        self._averaged: Any = None

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Measure before the first step."""
        if self.log_dir is not None:
            self._writer = tf.summary.create_file_writer(str(self.log_dir))
        # Anew for each fit: the model may have been put under another rule since.
        self._weights = metrics.WeightMeter(self.model)
        self._gradients = None if self.batch is None else metrics.GradientMeter(self.model)
        self._averaged = _find_averaged_layers(self.model)
        self._record()

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Measure after every so many steps."""
        if self.every and _get_step(self.model) % self.every == 0:
            self._record()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Measure after an epoch, unless its last step was measured already."""
        if not self.history or self.history[-1][0] != _get_step(self.model):
            self._record()

    def on_train_end(self, logs: dict | None = None) -> None:
        """Close the event file."""
        if self._writer is not None:
            self._writer.close()

    def _record(self):
        step = _get_step(self.model)
        measured = [self._weights()]
        if self._gradients is not None and self.batch is not None:
            measured.append(self._gradients(*self.batch))
        values = {}
        for each in measured:
            values |= metrics.tagged(each) | metrics.tagged_means(each, self._averaged)
        self.history.append((step, values))
        if self._writer is not None:
            with self._writer.as_default(step):
                for name, value in values.items():
                    tf.summary.scalar(name, value)
            self._writer.flush()


class WeightAngles(keras.callbacks.Callback):
    """Record the angle between W and B of every kernel, before training and after each epoch.

    `Telemetry` records this and more.

    Written as scalars ``weight_angle/<layer>`` in degrees, and ``mean_weight_angle``, over the
    layers of `tfbio.metrics.find_averaged_layers`, at ``step = optimizer.iterations``, so that a
    resumed training continues its curves.

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

    def __init__(self, log_dir: str | os.PathLike | None):
        super().__init__()
        self.log_dir = log_dir
        self.history: list[tuple[int, dict[str, float]]] = []
        self._writer: Any = None
        self._averaged: Any = None

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Record the angles before the first step."""
        if self.log_dir is not None:
            self._writer = tf.summary.create_file_writer(str(self.log_dir))
        self._averaged = _find_averaged_layers(self.model)
        self._record()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Record the angles after an epoch."""
        self._record()

    def on_train_end(self, logs: dict | None = None) -> None:
        """Close the event file."""
        if self._writer is not None:
            self._writer.close()

    def _record(self):
        step = _get_step(self.model)
        angles = metrics.weight_angles(self.model)
        self.history.append((step, angles))
        if self._writer is not None:
            with self._writer.as_default():
                for name, degrees in angles.items():
                    tf.summary.scalar(f"weight_angle/{name}", degrees, step=step)
                if self._averaged.feedback:
                    mean = metrics.mean_over(angles, self._averaged.feedback)
                    tf.summary.scalar("mean_weight_angle", mean, step=step)
            self._writer.flush()
