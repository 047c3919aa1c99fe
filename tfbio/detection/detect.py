"""Detecting: images in, boxes with their classes and scores out, compiled once."""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from tfbio.data.scaling import to_float


def detection(model: keras.Model, strategy: tf.distribute.Strategy) -> Callable[..., Any]:
    """Return a compiled function from a batch of images to the detections in them.

    Args:
        model: A `tfbio.detection.keras_cv_model.RetinaNet`.
        strategy: The strategy that it lives under.

    Returns:
        A function from images, as `tfbio.data.scaling.to_float` takes them, to what
        `RetinaNet.decode_predictions` returns.

    Example:
        >>> from tfbio.detection import retinanet
        >>> model = retinanet(3, "resnet10", (64, 64, 3), head_layers=0, channels=8)
        >>> detect = detection(model, tf.distribute.get_strategy())
        >>> detect(tf.zeros((2, 64, 64, 3), tf.uint8))["boxes"].shape
        TensorShape([2, 100, 4])
    """

    def step(images):
        images = to_float(images)
        return model.decode_predictions(model(images, training=False), images)

    # Never by XLA, which cannot choose among boxes.
    return tf.function(lambda images: strategy.run(step, args=(images,)), reduce_retracing=True)
