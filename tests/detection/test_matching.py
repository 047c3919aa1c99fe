"""Which anchors are positive and which predictions become detections, by the papers' code."""

import numpy as np
import pytest
import tensorflow as tf

pytest.importorskip("keras_cv")

from tfbio.detection.anchors import AnchorGenerator
from tfbio.detection.candidates import choose_candidates
from tfbio.detection.matching import AnchorMatcher, BoxMatcher
from tfbio.detection.parts import BEST_ANCHORS
from tfbio.detection.retinanet import ANCHORS


def overlaps(anchors, boxes):
    """Return the IoU of every anchor with every box, (A, N), in float64."""
    anchors, boxes = np.asarray(anchors, np.float64)[:, None], np.asarray(boxes, np.float64)
    sides = np.minimum(anchors[..., 2:], boxes[:, 2:]) - np.maximum(anchors[..., :2], boxes[:, :2])
    both = np.prod(np.maximum(sides, 0), -1)
    areas = [np.prod(each[..., 2:] - each[..., :2], -1) for each in (anchors, boxes)]
    return both / (areas[0] + areas[1] - both)


def labelled(iou, classes, best_anchor):
    """Return the class of every anchor, -1 for background and -2 for ignored, and its object.

    Step by step as in Detectron: what is set later overwrites.
    """
    labels, owners = np.full(len(iou), -2), iou.argmax(1)
    if best_anchor != "never":
        for column in range(iou.shape[1]):
            best = iou[:, column] >= iou[:, column].max() * (1 - 1e-6)
            labels[best] = classes[owners[best]]
    positive = iou.max(1) >= 0.5
    labels[positive] = classes[owners[positive]]
    background = iou.max(1) < 0.4
    if best_anchor == "always":
        background &= labels == -2
    labels[background] = -1
    return labels, owners


def objects(count, low, high, seed):
    """Return boxes of sides within limits, none on the grid of anchors, in an image of 256²."""
    draw = np.random.default_rng(seed)
    sides = draw.uniform(low, high, (count, 2))
    corners = draw.uniform(0, 256 - sides)
    return np.concatenate([corners, corners + sides], 1).astype("float32")


@pytest.mark.parametrize("best_anchor", BEST_ANCHORS)
def test_anchors_are_labelled_as_in_the_papers_code(best_anchor):
    anchors = AnchorGenerator("xyxy", ANCHORS)
    boxes = np.full((2, 12, 4), -1, "float32")
    boxes[0], boxes[1, :5] = objects(12, 12, 120, seed=0), objects(5, 16, 30, seed=1)
    classes = np.where(boxes[..., 0] < 0, -1, np.arange(12) % 4).astype("float32")
    matcher = AnchorMatcher(anchors, (1.0,) * 4, best_anchor)
    targets, found = matcher(
        tf.zeros((2, 256, 256, 3)), {"boxes": tf.constant(boxes), "classes": tf.constant(classes)}
    )
    grid = np.concatenate(list(anchors(image_shape=(256, 256, 3)).values()))
    centers, sides = (grid[:, :2] + grid[:, 2:]) / 2, grid[:, 2:] - grid[:, :2]
    for image, count in ((0, 12), (1, 5)):
        held = boxes[image, :count]
        labels, owners = labelled(overlaps(grid, held), classes[image], best_anchor)
        np.testing.assert_array_equal(found[image], labels)
        positive = labels >= 0
        box = held[owners][positive]
        yx = ((box[:, :2] + box[:, 2:]) / 2 - centers[positive]) / sides[positive]
        hw = np.log((box[:, 2:] - box[:, :2]) / sides[positive])
        expected = np.concatenate([yx[:, ::-1], hw[:, ::-1]], 1)
        np.testing.assert_allclose(targets[image].numpy()[positive], expected, atol=1e-5)


def test_small_objects_have_a_positive_anchor_only_by_their_best_one():
    anchors = np.concatenate(
        list(AnchorGenerator("xyxy", ANCHORS)(image_shape=(256, 256, 3)).values())
    )
    iou = overlaps(anchors, objects(300, 20, 24, seed=2)).T[..., None]  # each object alone
    without = {}
    for best_anchor in BEST_ANCHORS:
        _, values = BoxMatcher(best_anchor)(tf.constant(iou, tf.float32))
        without[best_anchor] = np.mean(~np.any(values == 1, axis=1))
    assert without["never"] == np.mean(iou.max(1) < 0.5) > 0.5
    assert without["from_0.4"] == np.mean(iou.max(1) < 0.4) < 0.1
    assert without["always"] == 0


def test_objects_without_any_overlap_have_no_best_anchor():
    iou = tf.constant([[0.3, 0.0], [0.2, 0.0]])
    assert BoxMatcher("always")(iou)[1].numpy().tolist() == [1, -1]
    assert BoxMatcher("from_0.4")(iou)[1].numpy().tolist() == [-1, -1]
    with pytest.raises(ValueError, match=r"`best_anchor` must be one of never, from_0.4, always"):
        BoxMatcher("0.4")


def suppressed(boxes, scores, limit, score_threshold, iou_threshold, most):
    """Return (boxes, scores, classes) of what is detected in an image, level by level."""
    pairs, start = [], 0
    for count in limit["counts"]:
        level = scores[start : start + count]
        for flat in np.argsort(-level, axis=None, kind="stable")[: limit["of_a_level"]]:
            row, kind = divmod(int(flat), scores.shape[1])
            if level[row, kind] > score_threshold:
                pairs.append((level[row, kind], kind, start + row))
        start += count
    kept = []
    for score, kind, row in sorted(pairs, reverse=True):
        rivals = [other for _, other_kind, other in kept if other_kind == kind]
        if not rivals or overlaps(boxes[[row]], boxes[rivals]).max() <= iou_threshold:
            kept.append((score, kind, row))
    scores, kinds, rows = zip(*kept[:most], strict=True)
    return boxes[list(rows)], np.array(scores), np.array(kinds)


@pytest.mark.parametrize("of_a_level", [1000, 20])
def test_detections_are_those_of_the_papers_code(of_a_level):
    import keras_cv

    draw = np.random.default_rng(3)
    counts = [250, 60, 10]
    boxes = np.concatenate([objects(count, 20, 150, seed=count) for count in counts])
    logits = draw.normal(-3, 1.5, (2, sum(counts), 4)).astype("float32")
    decoder = keras_cv.layers.MultiClassNonMaxSuppression(
        "xyxy", True, 0.5, 0.05, max_detections=100, max_detections_per_class=100
    )
    found = decoder(*choose_candidates(np.stack([boxes] * 2), logits, counts, of_a_level))
    for image in range(2):
        scores = 1 / (1 + np.exp(-logits[image].astype(np.float64)))
        limit = {"counts": counts, "of_a_level": of_a_level}
        expected = suppressed(boxes, scores, limit, 0.05, 0.5, 100)
        count = int(found["num_detections"][image])
        assert count == len(expected[1]) == (100 if of_a_level == 1000 else count)
        np.testing.assert_allclose(found["confidence"][image, :count], expected[1], rtol=1e-5)
        np.testing.assert_array_equal(found["classes"][image, :count], expected[2])
        np.testing.assert_allclose(found["boxes"][image, :count], expected[0], atol=1e-4)
