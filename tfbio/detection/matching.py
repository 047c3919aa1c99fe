"""Matching: which anchors are positive, and for which true box."""

from collections.abc import Sequence

import keras_cv
import tensorflow as tf
from keras_cv.models.retinanet import LabelEncoder  # pyright: ignore[reportMissingImports]

from tfbio import _keras
from tfbio.detection.anchors import AnchorGenerator
from tfbio.detection.parts import BEST_ANCHORS

_BACKGROUND, _IGNORED, _POSITIVE = -1, -2, 1
# Anchors that lie alike around an object differ by rounding.
_TIE = 1 - 1e-6


class BoxMatcher(keras_cv.layers.BoxMatcher):
    """keras_cv's matcher of rows to columns, in float32, with matches below the threshold.

    With the overlaps IoU(a, g) of anchors a and objects g, an anchor belongs to the object that it
    overlaps most, g* = argmax_g IoU(a, g). It is positive from an IoU(a, g*) of 0.5 on, background
    below 0.4, and ignored between.

    An anchor is *an object's best* if no other overlaps some object more; several may tie. With
    `best_anchor` it is positive

    - "never": not for that;
    - "from_0.4": if IoU(a, g*) is 0.4 or more, as in Detectron, whose background overwrites the
      others;
    - "always": whatever the IoU, as in detectron2.

    It belongs to g* all the same, which may be another object than the one whose best it is.

    Args:
        best_anchor: One of `tfbio.detection.parts.BEST_ANCHORS`.

    Raises:
        ValueError: If it is another.

    Example:
        >>> overlaps = tf.constant([[0.6, 0.0], [0.0, 0.45], [0.0, 0.3]])
        >>> for best_anchor in BEST_ANCHORS:
        ...     print(BoxMatcher(best_anchor)(overlaps)[1].numpy())
        [ 1 -2 -1]
        [ 1  1 -1]
        [ 1  1 -1]

    References:
        Detectron, `detectron/roi_data/retinanet.py`, `_get_retinanet_blobs`; detectron2,
        `detectron2/modeling/matcher.py`, `set_low_quality_matches_`.
    """

    def __init__(self, best_anchor: str):
        if best_anchor not in BEST_ANCHORS:
            raise ValueError(
                f"`best_anchor` must be one of {', '.join(BEST_ANCHORS)}. Received: "
                f"{best_anchor!r}."
            )
        super().__init__([0.4, 0.5], [_BACKGROUND, _IGNORED, _POSITIVE], dtype="float32")
        self.best_anchor = best_anchor

    def call(self, similarity_matrix: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the object of each anchor, and whether it is positive.

        Args:
            similarity_matrix: The overlaps, a float32 tensor (anchors, objects) or (batch,
                anchors, objects). An object without any overlap, such as padding, has no best
                anchor.

        Returns:
            (an int32 tensor (…, anchors), the objects' columns; one of the same shape: 1, or −1
            for background and −2 for ignored).
        """
        columns, values = super().call(similarity_matrix)
        if self.best_anchor == "never":
            return columns, values
        most = tf.reduce_max(similarity_matrix, axis=-2, keepdims=True)
        best = tf.reduce_any((similarity_matrix >= _TIE * most) & (most > 0), axis=-1)
        if self.best_anchor == "from_0.4":
            best &= values != _BACKGROUND
        return columns, tf.where(best, _POSITIVE, values)


class AnchorMatcher(LabelEncoder):
    """keras_cv's label encoder, in float32 under every policy and without its metric.

    `BoxMatcher` says which anchors are positive and to which true box each belongs. An anchor's
    target is the box relative to it::

        ((y − yₐ)/hₐ, (x − xₐ)/wₐ, log(h/hₐ), log(w/wₐ)) / variance

    keras_cv's own casts the overlaps to the compute dtype before it compares them, and measures
    "percent_boxes_matched_with_anchor", which counts padding, and boxes that are *not* matched.

    Args:
        anchors: An `AnchorGenerator`.
        box_variance: What the four differences are divided by, each above 0.
        best_anchor: As for `BoxMatcher`.

    Raises:
        ValueError: If there are not four variances, each above 0, or `best_anchor` is unknown.

    Example:
        >>> anchors = AnchorGenerator("xyxy", (32, 64, 128, 256, 512))
        >>> labels = {"boxes": tf.constant([[[20.0, 20, 52, 52]]]), "classes": tf.zeros((1, 1))}
        >>> _, classes = AnchorMatcher(anchors, (1.0,) * 4)(tf.zeros((1, 64, 64, 3)), labels)
        >>> print(tf.unique_with_counts(tf.sort(classes[0])).count.numpy())
        [ 20 732  22]
    """

    def __init__(
        self,
        anchors: AnchorGenerator,
        box_variance: Sequence[float],
        best_anchor: str = "never",
    ):
        box_variance = [float(value) for value in box_variance]
        if len(box_variance) != 4 or min(box_variance) <= 0:
            raise ValueError(
                f"`box_variance` must be four numbers above 0. Received: {box_variance}."
            )
        super().__init__(
            anchors.bounding_box_format, anchors, box_variance=box_variance, dtype="float32"
        )
        self.box_matcher = BoxMatcher(best_anchor)
        _keras.untrack(self, self.matched_boxes_metric)
        self.__dict__["matched_boxes_metric"] = _Unmeasured()


class _Unmeasured:
    """What stands where keras_cv updates its metric."""

    def update_state(self, *args):
        pass
