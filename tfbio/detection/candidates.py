"""Candidates: the predictions of a detector among which overlapping ones are suppressed."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf


def choose_candidates(
    boxes: tf.Tensor, logits: tf.Tensor, counts: Sequence[Any], limit: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the best pairs of a box and a class at each level of the pyramid.

    Args:
        boxes: A tensor (batch, N, 4), level after level.
        logits: Those of their classes, a tensor (batch, N, classes).
        counts: The number of boxes of each level, whose sum is N: integers or scalar tensors.
        limit: The most pairs of a level.

    Returns:
        (the pairs' boxes, a tensor (batch, M, 4) with M at most the number of levels times
        `limit`; their logits, (batch, M, classes): −∞ but for the pair's class). A box comes once
        for each of its pairs.

    Example:
        >>> boxes = tf.constant([[[0.0, 0, 8, 8], [0, 0, 16, 16], [0, 0, 32, 32]]])
        >>> logits = tf.constant([[[1.0, 2.0], [4.0, 3.0], [0.0, -1.0]]])
        >>> boxes, logits = choose_candidates(boxes, logits, [2, 1], 2)
        >>> print(boxes.numpy()[0, :, 2], logits.numpy()[0, :3])
        [16. 16. 32. 32.] [[  4. -inf]
         [-inf   3.]
         [  0. -inf]]

    References:
        Detectron, `detectron/core/test_retinanet.py`, `im_detect_bbox`; detectron2,
        `detectron2/modeling/meta_arch/dense_detector.py`, `_decode_per_level_predictions`.
    """
    classes = logits.shape[-1]
    batch, start, pairs = tf.shape(logits)[0], 0, []
    for count in counts:
        scores = tf.reshape(logits[:, start : start + count], (batch, count * classes))
        values, indices = tf.math.top_k(scores, tf.minimum(limit, count * classes))
        pairs.append((values, start + indices // classes, indices % classes))
        start += count
    values, rows, columns = (tf.concat(parts, axis=1) for parts in zip(*pairs, strict=True))
    of_class = tf.one_hot(columns, classes, on_value=True, off_value=False, dtype=tf.bool)
    none = tf.constant(float("-inf"), logits.dtype)
    return tf.gather(boxes, rows, batch_dims=1), tf.where(of_class, values[..., None], none)
