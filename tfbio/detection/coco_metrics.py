"""COCO metrics: average precision and recall of boxes, as pycocotools measures them.

``AP = mean over classes, over IoU thresholds .50, .55, …, .95, of the precision at 101 recalls``,
over all images of the annotations, predicted on or not, in the coordinates of the images as stored.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tfbio._extras import require
from tfbio.detection import coco_results

if TYPE_CHECKING:
    from tfbio.detection.annotations import Annotations

_DETECTIONS = (1, 10, 100)  # the most confident of an image that count
_AREAS = ("all", "small", "medium", "large")
NAMES = (
    *("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large"),
    *("AR_1", "AR_10", "AR_100", "AR_small", "AR_medium", "AR_large"),
)
"""What is measured, in the order in which COCO lists it."""


class CocoMetrics(NamedTuple):
    """What `evaluate` returns.

    Attributes:
        summary: A dict from each of `NAMES` to its value, 0 to 1; NaN where there is no object that
            it could be measured by.
        by_class: A dict from class name to AP, NaN for a class without objects.
    """

    summary: dict
    by_class: dict


def evaluate(
    annotations: Annotations, results: Sequence[Mapping[str, Any]], backend: str | None = None
) -> CocoMetrics:
    """Return COCO's average precision and recall.

    Crowds count as COCO counts them: what lies in one is neither right nor wrong. Small, medium and
    large are areas below 32², below 96² and above, by the area that the annotations give.

    Args:
        annotations: `tfbio.detection.annotations.Annotations` of all the images that count.
        results: COCO's results, a list of dicts of "image_id", "category_id", "bbox" and "score",
            as `tfbio.detection.coco_results` makes them.
        backend: "pycocotools", "faster_coco_eval", which gives the same, or None for the
            second if it is installed, else the first.

    Returns:
        `CocoMetrics`.

    Raises:
        ValueError: If a result is of an image or a category that the annotations do not have, or
            malformed.

    Example:
        >>> from tfbio.detection import coco
        >>> annotations = coco.parse(
        ...     {
        ...         "images": [
        ...             {"id": i, "file_name": f"{i}.jpg", "height": 9, "width": 9} for i in (1, 2)
        ...         ],
        ...         "categories": [{"id": 3, "name": "cat"}],
        ...         "annotations": [
        ...             {"id": i, "image_id": i, "category_id": 3, "bbox": [1, 1, 5, 5]}
        ...             for i in (1, 2)
        ...         ],
        ...     },
        ...     "a.json",
        ... )
        >>> one = {"image_id": 1, "category_id": 3, "bbox": [1, 1, 5, 5], "score": 0.9}
        >>> metrics = evaluate(annotations, [one])
        >>> round(metrics.summary["AP"], 3), metrics.summary["AR_100"]
        (0.505, 0.5)

    References:
        Lin et al. 2014, "Microsoft COCO: common objects in context"; cocodataset.org, "Detection
        evaluation".
    """
    coco_results.check(annotations, results)
    # They print.
    with contextlib.redirect_stdout(io.StringIO()):
        precision, recall = _measured(annotations, results, *import_backend(backend))
    # By IoU threshold, recall, class, area and number of detections.
    most = len(_DETECTIONS) - 1
    values = [
        _mean(precision[..., 0, most]),
        _mean(precision[0, ..., 0, most]),
        _mean(precision[5, ..., 0, most]),
        *(_mean(precision[..., area, most]) for area in (1, 2, 3)),
        *(_mean(recall[..., 0, index]) for index in range(len(_DETECTIONS))),
        *(_mean(recall[..., area, most]) for area in (1, 2, 3)),
    ]
    by_class = [_mean(precision[:, :, index, 0, most]) for index in range(precision.shape[2])]
    return CocoMetrics(
        dict(zip(NAMES, values, strict=True)),
        dict(zip(annotations.class_names, by_class, strict=True)),
    )


def _measured(annotations, results, coco_class, evaluation_class):
    document = annotations.document()
    for number, entry in enumerate(document["annotations"], 1):
        # An object of id 0 would count as one that nobody found.
        entry["id"] = number
    found = []
    for number, result in enumerate(results, 1):
        *_, width, height = box = list(map(float, result["bbox"]))
        found.append({**result, "bbox": box, "id": number, "area": width * height, "iscrowd": 0})
    held, predicted = coco_class(), coco_class()
    # Not by loadRes, which fails where there is no result at all.
    held.dataset, predicted.dataset = document, {**document, "annotations": found}
    held.createIndex()
    predicted.createIndex()
    evaluation = evaluation_class(held, predicted, "bbox")
    evaluation.params.imgIds = sorted(annotations.image_ids.tolist())
    evaluation.params.catIds = list(annotations.category_ids)
    evaluation.params.maxDets = list(_DETECTIONS)
    evaluation.evaluate()
    evaluation.accumulate()
    return np.array(evaluation.eval["precision"]), np.array(evaluation.eval["recall"])


def import_backend(backend: str | None) -> tuple[type, type]:
    """Import the package that evaluates.

    Args:
        backend: As for `evaluate`.

    Returns:
        (the class that holds a document, the class that evaluates).

    Raises:
        ValueError: If the name is unknown.
        MissingExtraError: If the package is not installed.

    Example:
        >>> import_backend("pycocotools")[1].__name__
        'COCOeval'
    """
    if backend not in (None, "pycocotools", "faster_coco_eval"):
        raise ValueError(
            f"`backend` must be pycocotools, faster_coco_eval or None. Received: {backend!r}."
        )
    if backend == "faster_coco_eval":
        require("faster_coco_eval", extra="fast-eval")
    if backend != "pycocotools" and importlib.util.find_spec("faster_coco_eval"):
        import faster_coco_eval

        return faster_coco_eval.COCO, faster_coco_eval.COCOeval_faster
    require("pycocotools", extra="detection")
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    return COCO, COCOeval


def _mean(values):
    # −1 stands for what there is no object for.
    values = values[values > -1]
    return float(np.mean(values)) if values.size else math.nan
