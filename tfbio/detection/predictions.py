"""Predictions: what a detector finds in images of one's own, as drawings and as COCO's results."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

from tfbio import data
from tfbio.data.folder import list_images
from tfbio.detection import coco_results, datasets, pictures
from tfbio.detection.detect import detection
from tfbio.detection.examples import original
from tfbio.training import folder, outputs, use
from tfbio.training.images import write as write_image
from tfbio.training.options import named

if TYPE_CHECKING:
    from tfbio.detection.options import Detection

_BATCH = 8
_RESULTS, _IMAGES = "results.json", "images.json"


def predict(
    experiment: Detection,
    images: str | pathlib.Path,
    output: pathlib.Path,
    checkpoint: str = "last",
    tell: Callable[..., None] = print,
) -> int:
    """Find the objects in every image of a folder, and draw them.

    Args:
        experiment: The `Detection`; its workdir holds the run. Its dataset is not read.
        images: A folder of images, searched with the folders below it.
        output: The folder to write, a `pathlib.Path`: a PNG for each image, of the same name
            within it, with the boxes whose score is 0.3 or more, and where these are fewer than
            three, the three most confident; results.json, all boxes as COCO's results; and
            images.json, the images of their ids, and the categories, as COCO has them.
        checkpoint: "last", or "best" by validation.
        tell: Called with lines of text, one of which counts the boxes written and drawn.

    Returns:
        The number of images.

    Raises:
        ValueError: If the folder holds no such run or checkpoint, or no images, or a damaged one;
            or the output lies within their folder or around it, or would overwrite one.
        OSError: If files cannot be read or written.
    """
    inner, outer = output.resolve(), pathlib.Path(images).resolve()
    if inner.is_relative_to(outer) or outer.is_relative_to(inner):
        raise ValueError(
            f"`output={output}` must be neither within `images={images}` nor around it: drawings "
            "and images would be mixed up. Give `output` another place."
        )
    with named("images", folder="images"):
        paths = list_images(images)
    names = [os.path.relpath(path, images) for path in paths]
    drawings = name_drawings(names)
    outputs.refuse_overwriting(
        images, paths, output, [output / each for each in (*drawings, _RESULTS, _IMAGES)]
    )
    with outputs.making_folder(output, output):  # before the work
        return _predict(experiment, paths, names, drawings, output, checkpoint, tell)


def _predict(experiment, paths, names, drawings, output, checkpoint, tell):
    model, facts = use.restored(experiment, checkpoint, tell)
    scaling = experiment.shorter_side, experiment.longest_side
    canvas = 0 if experiment.shorter_side else tuple(facts.image_shape[:2])
    split = datasets.images(paths, canvas, *scaling, experiment.padding())
    held = dataclasses.replace(
        split.annotations,
        category_ids=tuple(facts.category_ids),
        class_names=tuple(facts.class_names),
    )
    detect = detection(model, tf.distribute.get_strategy())
    results, weaker = [], 0
    with data.clear_errors():
        for batch, _, about in split.batches(_BATCH, pad=True):
            found = tf.nest.map_structure(np.asarray, detect(batch))
            about = {key: np.asarray(value) for key, value in about.items()}
            results += coco_results.convert_batch(held, found, about)
            for boxes in (found, found["strongest"]):
                boxes["boxes"] = original(boxes["boxes"], about)
            for index in np.flatnonzero(about["weights"]):
                number = int(about["ids"][index]) - 1
                path = output / drawings[number]
                strong, weak = (
                    {key: boxes[key][index] for key in ("boxes", "classes", "confidence")}
                    for boxes in (found, found["strongest"])
                )
                weak = pictures.choose_weak(strong, weak)
                weaker += len(weak["classes"])
                with outputs.naming_output(output):
                    _draw(paths[number], strong, weak, facts.class_names, path)
    drawn = sum(result["score"] >= pictures.LEAST for result in results)
    tell(
        f"{len(results)} boxes in {_RESULTS}. Drawn: {drawn} from a score of {pictures.LEAST} on, "
        f"and {weaker} weaker ones where an image has fewer than {pictures.BEST} of these"
    )
    document = held.document()
    for image, name in zip(document["images"], names, strict=True):
        image["file_name"] = name
    with outputs.naming_output(output):
        coco_results.write(output / _RESULTS, results)
        folder.save_json(output / _IMAGES, {key: document[key] for key in ("images", "categories")})
    return len(paths)


def name_drawings(names: Sequence[str]) -> list[pathlib.Path]:
    """Return what images are drawn as: PNGs of their names.

    Args:
        names: The images' paths within their folder.

    Returns:
        A list of as many paths within the output's folder.

    Raises:
        ValueError: If two images would be drawn as one.

    Example:
        >>> [str(path) for path in name_drawings(["a.jpg", "b/a.png"])]
        ['a.png', 'b/a.png']
    """
    found = {}
    for name in names:
        drawing = pathlib.Path(name).with_suffix(".png")
        if drawing in found:
            raise ValueError(
                f"`images`: {found[drawing]} and {name} would both be drawn as {drawing}. Rename "
                "one of them."
            )
        found[drawing] = name
    return list(found)


def _draw(path, boxes, weak, class_names, out):
    image = tf.io.decode_image(tf.io.read_file(path), 3, expand_animations=False).numpy()
    out.parent.mkdir(parents=True, exist_ok=True)
    write_image(out, pictures.draw(image, class_names, boxes, least=pictures.LEAST, weak=weak))
