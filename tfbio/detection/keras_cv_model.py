"""The detector that `tfbio.detection.retinanet` returns: keras_cv's RetinaNet, mended.

keras_cv is archived, and pinned. Of its private names the class below sets `_prediction_decoder`,
which keras_cv's property `prediction_decoder` reads. It also passes by the constructor and the
`compute_loss` of keras_cv's class, and calls those of Keras's own models.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Self

import keras
import keras_cv
import tensorflow as tf

from tfbio.detection.anchors import AnchorGenerator, decoded
from tfbio.detection.box_loss import SmoothL1
from tfbio.detection.candidates import choose_candidates
from tfbio.detection.matching import AnchorMatcher

_PARTS = ("backbone", "feature_pyramid", "box_head", "classification_head", "prediction_decoder")


@keras.saving.register_keras_serializable("tfbio")
class RetinaNet(keras_cv.models.RetinaNet):
    """keras_cv's RetinaNet, from parts that are Keras models; see `tfbio.detection.retinanet`.

    What differs from keras_cv's class:

    - Anchors, matching, losses and decoding are in float32 under mixed precision.
    - Its config holds every part, the pyramid too, and a compiled model is loaded compiled.
    - The sum of positive anchors that divides the losses is at least 1. A batch without objects
      thus learns that all is background, with its classification loss whole; keras_cv's loss is 0.
    - Under a `tf.distribute` strategy the losses are divided by the positive anchors of all
      replicas: the step is that of one device on the whole batch.
    - Boxes are decoded with a bounded growth, and end at the image's borders. The best predictions
      of each level are chosen before overlapping ones are suppressed.
    - `predict`, `predict_on_batch` and `train_on_batch` take what Keras's do, images of any size
      whose sides are multiples of 32, and decoding is never compiled with XLA, which cannot.

    Args:
        backbone: A `keras.Model` from images to a dict of maps, "P3", "P4" and "P5".
        feature_pyramid: One from these to a dict of maps, "P3" to "P7".
        box_head, classification_head: One each from a map to 9·4, or 9·num_classes, channels.
        num_classes: The number of classes.
        prediction_decoder: A keras_cv layer that turns boxes and logits into detections.
        bounding_box_format: The format of true and decoded boxes, by keras_cv's name.
        anchor_sizes, box_variance, best_anchor, candidates, mean, std: As in
            `tfbio.detection.retinanet`.
        name: The model's name.
    """

    def __init__(
        self,
        backbone: keras.Model,
        feature_pyramid: keras.layers.Layer,
        box_head: keras.layers.Layer,
        classification_head: keras.layers.Layer,
        num_classes: int,
        prediction_decoder: keras.layers.Layer,
        *,
        bounding_box_format: str,
        anchor_sizes: Sequence[float],
        box_variance: Sequence[float],
        best_anchor: str = "never",
        candidates: int = 1000,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        name: str = "retinanet",
    ):
        # Made first: they check what they are given.
        anchors = AnchorGenerator(bounding_box_format, anchor_sizes)
        label_encoder = AnchorMatcher(anchors, box_variance, best_anchor)
        x = images = keras.Input(backbone.input_shape[1:], name="images")
        if mean is not None and std is not None:
            variance = [value**2 for value in std]
            x = keras.layers.Normalization(mean=list(mean), variance=variance, name="standardize")(
                images
            )
        features = feature_pyramid(backbone(x))
        outputs = {
            "box": _joined(box_head, features, 4, "box"),
            "classification": _joined(classification_head, features, num_classes, "classification"),
        }
        # Past keras_cv's own constructor, which makes the same graph, but with layers of its own
        # between backbone and pyramid and with outputs of the policy's dtype.
        super(keras_cv.models.RetinaNet, self).__init__(  # pyright: ignore[reportCallIssue]
            images, outputs, name=name
        )
        self.backbone = self.feature_extractor = backbone
        self.feature_pyramid = feature_pyramid
        self.box_head, self.classification_head = box_head, classification_head
        self.num_classes, self.bounding_box_format = num_classes, bounding_box_format
        self.anchor_generator, self.label_encoder = anchors, label_encoder
        self._prediction_decoder, self.candidates = prediction_decoder, candidates
        self._standardization = None
        if mean is not None and std is not None:
            self._standardization = {"mean": list(mean), "std": list(std)}

    def call(
        self, inputs: tf.Tensor, training: bool | None = None, mask: tf.Tensor | None = None
    ) -> dict[str, tf.Tensor]:
        """Return the raw predictions, {"box": …, "classification": …}, for a batch of images."""
        sides = inputs.shape[1:3]
        if any(side is not None and side % 32 for side in sides):
            raise ValueError(
                "`images` must have sides that are multiples of 32, so that the pyramid's levels "
                f"fit each other. Received: height {sides[0]}, width {sides[1]}."
            )
        return super().call(inputs, training=training, mask=mask)

    def compile(
        self, box_loss: Any = "retinanet", classification_loss: Any = "focal", **kwargs: Any
    ) -> None:
        """Compile the model, with keras_cv's names of the losses.

        Args:
            box_loss: "retinanet" for the paper's, `tfbio.detection.SmoothL1`; "smoothl1" or "huber"
                for keras_cv's; or a Keras loss.
            classification_loss: "focal", or a Keras loss of logits. Each loss is to be a sum.
            **kwargs: Those of `keras.Model.compile` and keras_cv's metrics. XLA is used only
                where ``jit_compile=True`` says so.
        """
        if box_loss == "retinanet":
            box_loss = SmoothL1()
        kwargs.setdefault("jit_compile", False)
        super().compile(box_loss, classification_loss, **kwargs)

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> tf.Tensor:
        """Return the sum of both losses, over the number of positive anchors.

        Args:
            x: Images (batch, height, width, channels).
            y: {"boxes": (batch, N, 4), "classes": (batch, N)}, N ≥ 1, padded with −1.
            y_pred: The raw predictions.
            sample_weight: None; the steps refuse any other.
            training: As in Keras.

        Returns:
            A scalar tensor.
        """
        boxes, classes = self.label_encoder(x, dict(y))
        positive = tf.cast(classes > -1.0, tf.float32)
        counted = tf.cast(classes != -2.0, tf.float32)
        normalizer = tf.maximum(_over_replicas(tf.reduce_sum(positive)), 1.0)
        # Keras's own, past keras_cv's, which matches once more.
        return super(keras_cv.models.RetinaNet, self).compute_loss(
            x=x,
            y={
                "box": boxes,
                "classification": tf.one_hot(tf.cast(classes, tf.int32), self.num_classes),
            },
            y_pred=y_pred,
            sample_weight={"box": positive / normalizer, "classification": counted / normalizer},
            training=training,
        )

    def train_step(self, data: Any) -> dict[str, Any]:
        """Take one training step on (images, boxes), as Keras does."""
        return super().train_step(_pair(data))

    def test_step(self, data: Any) -> dict[str, Any]:
        """Measure the losses on (images, boxes), as Keras does."""
        return super().test_step(_pair(data))

    def predict_step(self, data: Any) -> dict[str, tf.Tensor]:
        """Return the detections in a batch of images, see `decode_predictions`."""
        images, _, _ = keras.utils.unpack_x_y_sample_weight(data)
        return self.decode_predictions(self(images, training=False), images)

    def make_predict_function(self, force: bool = False) -> Any:
        """Compile prediction as Keras does, but never with XLA, which has no suppression."""
        before, self.jit_compile = self.jit_compile, False
        try:
            return super().make_predict_function(force)
        finally:
            self.jit_compile = before

    def decode_predictions(
        self, predictions: Mapping[str, tf.Tensor], images: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        """Return what raw predictions stand for: scored boxes, the best of each cluster.

        Args:
            predictions: The model's outputs.
            images: The images that they are of, whose size counts only.

        Returns:
            A dict: "boxes" (batch, D, 4) in the model's format and pixels of these images,
            "confidence" and "classes" (batch, D), sorted by confidence and padded with −1, and
            "num_detections" (batch,). D is the decoder's limit.
        """
        # All numbers or, where a compiled function takes any size, all tensors: Keras wants no mix.
        shape = tuple(images.shape[1:])
        if None in shape:
            shape = tuple(tf.unstack(tf.shape(images)[1:]))
        levels = list(self.anchor_generator(image_shape=shape).values())
        boxes = decoded(
            tf.concat(levels, axis=0),
            predictions["box"],
            self.bounding_box_format,
            self.label_encoder.box_variance_tuple,
            *shape[:2],
        )
        decoder = self.prediction_decoder
        boxes = keras_cv.bounding_box.convert_format(
            boxes, source="xyxy", target=decoder.bounding_box_format, image_shape=shape
        )
        logits = tf.cast(predictions["classification"], tf.float32)
        counts = [level.shape[0] or tf.shape(level)[0] for level in levels]
        boxes, logits = choose_candidates(boxes, logits, counts, self.candidates)
        return dict(decoder(boxes, logits, image_shape=shape))

    def get_config(self) -> dict[str, Any]:
        """Return the model's config, with that of every part."""
        return {
            "name": self.name,
            **{part: keras.saving.serialize_keras_object(getattr(self, part)) for part in _PARTS},
            "num_classes": self.num_classes,
            "bounding_box_format": self.bounding_box_format,
            "anchor_sizes": list(self.anchor_generator.sizes),
            "box_variance": list(self.label_encoder.box_variance_tuple),
            "best_anchor": self.label_encoder.box_matcher.best_anchor,
            "candidates": self.candidates,
            **(self._standardization or {}),
        }

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None
    ) -> Self:
        """Return the model of `config`."""
        parts = {
            part: keras.saving.deserialize_keras_object(config[part], custom_objects)
            for part in _PARTS
        }
        return cls(**{**config, **parts})

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compile the model as it was when it was saved."""
        config = keras.saving.deserialize_keras_object(config)
        losses = config.pop("loss")
        self.compile(losses["box"], losses["classification"], **config)
        self.optimizer.build(self.trainable_variables)


def _joined(head, features, size, name):
    """Return the predictions of a head at all levels, float32: (batch, anchors, size)."""
    levels = [
        keras.layers.Reshape((-1, size), dtype="float32", name=f"{name}_{level.lower()}")(
            head(features[level])
        )
        for level in ("P3", "P4", "P5", "P6", "P7")
    ]
    return keras.layers.Concatenate(axis=1, dtype="float32", name=name)(levels)


def _pair(data):
    # keras_cv also takes both under their names.
    if isinstance(data, dict):
        return data["images"], data["bounding_boxes"]
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
    if sample_weight is not None:
        raise ValueError(f"RetinaNet takes no sample weights. Received: {sample_weight!r}.")
    return x, y


def _over_replicas(value):
    """Return the sum of a number over the replicas of a strategy."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return value
    return context.all_reduce(tf.distribute.ReduceOp.SUM, value)
