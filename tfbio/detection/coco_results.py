"""COCO results: predicted boxes as COCO's results hold them, in memory and in files."""

from __future__ import annotations

import json
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tfbio.detection.examples import original
from tfbio.training import checkpoints

if TYPE_CHECKING:
    from tfbio.detection.annotations import Annotations

_KEYS = ("image_id", "category_id", "bbox", "score")


def convert_batch(
    annotations: Annotations, predictions: Mapping[str, Any], about: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Return the results of one batch.

    Args:
        annotations: `tfbio.detection.annotations.Annotations`, for the categories' ids.
        predictions: What keras-cv's RetinaNet decodes: a dict of "boxes" (B, n, 4), "xyxy" in
            pixels of the batch's images, "confidence" (B, n) and "classes" (B, n), which is −1
            where there is no further prediction.
        about: The third part of the batch, as `DetectionExamples` gives it for evaluation.

    Returns:
        A list of dicts of "image_id", "category_id", "bbox", (x, y, width, height) in the image as
        it is stored, and "score", in the order of images and predictions. Boxes are rounded to a
        thousandth of a pixel, scores to 6 digits; boxes without area are left out.

    Raises:
        ValueError: If a prediction is no finite number, or of an unknown class.

    Example:
        >>> from tfbio.detection import coco
        >>> annotations = coco.parse(
        ...     {
        ...         "images": [{"id": 7, "file_name": "a.jpg", "height": 40, "width": 80}],
        ...         "categories": [{"id": 3, "name": "cat"}],
        ...         "annotations": [],
        ...     },
        ...     "a.json",
        ... )
        >>> predictions = {
        ...     "boxes": [[[4, 0, 8, 8], [-1, -1, -1, -1]]],
        ...     "confidence": [[0.5, -1]],
        ...     "classes": [[0, -1]],
        ... }
        >>> about = {"ids": [7], "sizes": [[40, 80]], "scales": [[0.5, 0.5]], "weights": [1.0]}
        >>> convert_batch(annotations, predictions, about)
        [{'image_id': 7, 'category_id': 3, 'bbox': [8.0, 0.0, 8.0, 16.0], 'score': 0.5}]
    """
    scores, classes = (
        np.asarray(predictions[key], np.float64) for key in ("confidence", "classes")
    )
    boxes = np.asarray(predictions["boxes"], np.float64)
    real = (classes != -1) & (np.asarray(about["weights"]) > 0)[:, None]
    if not (np.isfinite(boxes[real]).all() and np.isfinite(scores[real]).all()):
        raise ValueError("Predicted boxes and scores must be finite numbers. Received: others.")
    if not np.isin(classes[real], np.arange(len(annotations.category_ids))).all():
        raise ValueError(
            f"Predicted classes must be 0 to {len(annotations.category_ids) - 1}, or −1 for none. "
            f"Received: {sorted(set(classes[real].tolist()))[:10]}."
        )
    boxes = original(boxes, about)
    boxes[..., 2:] -= boxes[..., :2]
    boxes = boxes.round(3)
    real &= (boxes[..., 2:] > 0).all(-1)
    ids = np.asarray(about["ids"]).tolist()
    return [
        {
            "image_id": ids[image],
            "category_id": annotations.category_ids[int(classes[image, index])],
            "bbox": boxes[image, index].tolist(),
            "score": round(float(scores[image, index]), 6),
        }
        for image, index in np.argwhere(real)
    ]


def check(annotations: Annotations, results: Sequence[Mapping[str, Any]]) -> None:
    """Refuse results that are malformed, or of other images or categories than the annotations'.

    Args:
        annotations: `tfbio.detection.annotations.Annotations`.
        results: A list of dicts.

    Raises:
        ValueError: If they are refused; the message has the result's position.

    Example:
        >>> check(None, [{"image_id": 1}])
        Traceback (most recent call last):
        ValueError: A result must have image_id, category_id, bbox and score. Received: image_id,
        at position 0.
    """
    if not isinstance(results, list):
        raise ValueError(f"Results must be a list. Received: {type(results).__name__}.")
    ids: dict[str, set] = {}
    for index, result in enumerate(results):
        held = result.keys() if isinstance(result, dict) else ()
        if not set(held) >= set(_KEYS):
            raise ValueError(
                f"A result must have {', '.join(_KEYS[:-1])} and {_KEYS[-1]}. Received: "
                f"{', '.join(map(str, held)) or type(result).__name__}, at position {index}."
            )
        image, category, box, score = (result[key] for key in _KEYS)
        if not ids:
            ids["image"] = set(annotations.image_ids.tolist())
            ids["category"] = set(annotations.category_ids)
        for kind, value in (("image", image), ("category", category)):
            if type(value) is not int or value not in ids[kind]:
                raise ValueError(
                    f"A result must be of one of the {len(ids[kind])} {kind} ids in "
                    f"{annotations.where}. Received: {value!r}, at position {index}."
                )
        complete = isinstance(box, list | tuple) and len(box) == 4
        numbers: list[Any] = [score, *box] if complete else [None]
        if not all(type(each) in (int, float) and math.isfinite(each) for each in numbers):
            raise ValueError(
                "A result must have a bbox of x, y, width and height, and a score, all finite. "
                f"Received: bbox {box!r}, score {score!r}, at position {index}."
            )


def write(path: str | os.PathLike[str], results: Sequence[Mapping[str, Any]]) -> None:
    """Write results to a file of JSON, at once or not at all.

    Args:
        path: The file.
        results: A list of dicts.

    Raises:
        OSError: If it cannot be written.

    Example:
        >>> import tempfile
        >>> path = tempfile.mkdtemp() + "/results.json"
        >>> one = {"image_id": 1, "category_id": 3, "bbox": [1.0, 2.0, 3.0, 4.0], "score": 0.5}
        >>> write(path, [one])
        >>> read(path) == [one]
        True
    """
    checkpoints.write(path, json.dumps(results).encode())


def read(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Read results from a file of JSON.

    Args:
        path: The file.

    Returns:
        A list of dicts, which `check` checks.

    Raises:
        ValueError: If the file holds no JSON.
        OSError: If it cannot be read.

    Example:
        >>> import tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp(), "results.json")
        >>> _ = path.write_text("[")
        >>> read(path)
        Traceback (most recent call last):
        ValueError: ...results.json is not JSON, or is truncated: Expecting value: ...
    """
    try:
        return json.loads(pathlib.Path(path).read_text())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON, or is truncated: {error}.") from error
