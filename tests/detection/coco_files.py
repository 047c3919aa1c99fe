"""A small set in the form of COCO's own files, with what COCO has and drawn canvases have not."""

import io
import json
import pathlib

import numpy as np
from PIL import Image

SIZES = ((48, 64), (64, 48), (43, 64), (36, 64), (64, 64))
"""(height, width) of the images in turn: a tenth of COCO's frequent sizes, both orientations."""
COUNTS = {"train": 32, "val": 6}
CATEGORIES = {1: "person", 18: "dog", 44: "bottle"}
"""Ids with gaps, as COCO's."""


def write(root, counts=None):
    """Write annotations/instances_*2017.json and the folders of images.

    An image has none to three rectangles, each an object of the category of its color, whose area
    is smaller than its box's and has a fraction. Every fifth image has a crowd.

    Args:
        root: The folder.
        counts: The number of images by part, train and val; COUNTS if None.

    Returns:
        The folder, for `data_dir`.
    """
    root = pathlib.Path(root)
    (root / "annotations").mkdir(parents=True)
    for part, (name, count) in enumerate((counts or COUNTS).items()):
        (root / f"{name}2017").mkdir()
        document = {
            "images": [],
            "annotations": [],
            "categories": [{"id": key, "name": text} for key, text in CATEGORIES.items()],
        }
        for index in range(count):
            key = 1000 * (part + 1) + 7 * index
            content, objects = _draw(np.random.default_rng((part, index)), index)
            image = {"id": key, "file_name": f"{key:012}.jpg"}
            height, width = SIZES[index % len(SIZES)]
            document["images"].append({**image, "height": height, "width": width})
            (root / f"{name}2017" / image["file_name"]).write_bytes(content)
            for entry in objects:
                number = 50 * key + len(document["annotations"])
                document["annotations"].append({"id": number, "image_id": key, **entry})
        path = root / "annotations" / f"instances_{name}2017.json"
        path.write_text(json.dumps(document))
    return str(root)


def _draw(draw, index):
    """Return (a JPEG, its objects)."""
    height, width = SIZES[index % len(SIZES)]
    pixels = np.full((height, width, 3), 90, np.uint8)
    objects = []
    for number, category in enumerate(list(CATEGORIES)[: index % 4]):
        # Each in a third of the width: none hides another.
        x = number * width / 3 + draw.uniform(0.5, 3)
        y = draw.uniform(0.5, height / 4)
        w, h = draw.uniform(8, width / 3 - 4), draw.uniform(9, height / 2)
        pixels[round(y) : round(y + h), round(x) : round(x + w), number] = 230
        box = [round(value, 2) for value in (x, y, w, h)]
        crowd = int(index % 5 == 2 and number == 0)
        area = round(0.7 * w * h, 4)
        objects.append({"category_id": category, "bbox": box, "area": area, "iscrowd": crowd})
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=95)
    return file.getvalue(), objects


def by_pycocotools(document, results):
    """Return pycocotools's twelve numbers for COCO's own document, in COCO's order."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    held = COCO()
    held.dataset = document
    held.createIndex()
    evaluation = COCOeval(held, held.loadRes(results), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return evaluation.stats
