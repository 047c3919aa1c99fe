"""Detecting: images in, boxes with their classes and scores out, compiled once."""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from tfbio.data.scaling import to_float
from tfbio.detection import pictures

_CANDIDATES = 300  # anchors of an image among which the strongest boxes are looked for
_OVERLAP = 0.5  # the IoU from which on two boxes are one


def detection(model: keras.Model, strategy: tf.distribute.Strategy) -> Callable[..., Any]:
    """Return a compiled function from a batch of images to the detections in them.

    Args:
        model: A `tfbio.detection.keras_cv_model.RetinaNet`.
        strategy: The strategy that it lives under.

    Returns:
        A function from images, as `tfbio.data.scaling.to_float` takes them, to what
        `RetinaNet.decode_predictions` returns, with "strongest": a dict of "boxes" (batch, 3, 4),
        (x1, y1, x2, y2) in pixels, "classes" and "confidence" (batch, 3), of the most confident
        boxes that do not overlap, whatever their scores, filled up with −1.

    Example:
        >>> from tfbio.detection import retinanet
        >>> model = retinanet(3, "resnet10", (64, 64, 3), head_layers=0, channels=8)
        >>> detect = detection(model, tf.distribute.get_strategy())
        >>> detect(tf.zeros((2, 64, 64, 3), tf.uint8))["boxes"].shape
        TensorShape([2, 100, 4])
        >>> detect(tf.zeros((2, 64, 64, 3), tf.uint8))["strongest"]["classes"].shape
        TensorShape([2, 3])
    """

    def step(images):
        images = to_float(images)
        predictions = model(images, training=False)
        detections = model.decode_predictions(predictions, images)
        return {**detections, "strongest": _strongest(model, predictions, images)}

    # Never by XLA, which cannot choose among boxes.
    return tf.function(lambda images: strategy.run(step, args=(images,)), reduce_retracing=True)


def _strongest(model, predictions, images):
    """Return the most confident boxes of each image, whatever their scores."""
    from tfbio.detection.anchors import decoded  # imports keras_cv, which takes seconds

    logits = tf.cast(predictions["classification"], tf.float32)
    count = tf.minimum(_CANDIDATES, tf.shape(logits)[1])
    values, chosen = tf.math.top_k(tf.reduce_max(logits, -1), count)
    classes = tf.cast(tf.argmax(tf.gather(logits, chosen, batch_dims=1), -1), tf.float32)
    shape = tuple(tf.unstack(tf.shape(images)[1:]))
    boxes = decoded(
        tf.concat(list(model.anchor_generator(image_shape=shape).values()), axis=0),
        predictions["box"],
        model.bounding_box_format,
        model.label_encoder.box_variance_tuple,
        *shape[:2],
    )
    boxes = tf.gather(boxes, chosen, batch_dims=1)

    def kept(image):
        boxes, values, classes = image
        best = tf.image.non_max_suppression(boxes, values, pictures.BEST, _OVERLAP)
        missing = pictures.BEST - tf.size(best)
        found = tf.concat([tf.gather(boxes, best), tf.fill((missing, 4), -1.0)], 0)
        others = [tf.gather(each, best) for each in (classes, tf.sigmoid(values))]
        return [found, *(tf.pad(each, [[0, missing]], constant_values=-1.0) for each in others)]

    kind = [tf.TensorSpec(each, tf.float32) for each in ((pictures.BEST, 4), *[pictures.BEST] * 2)]
    found = tf.map_fn(kept, (boxes, values, classes), fn_output_signature=kind)
    return dict(zip(("boxes", "classes", "confidence"), found, strict=True))
