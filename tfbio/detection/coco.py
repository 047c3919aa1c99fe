"""COCO: reading and checking the JSON documents that hold the objects in images."""

import collections
import json
import pathlib
import posixpath
import reprlib

import numpy as np
import tensorflow as tf

from tfbio.detection.annotations import Annotations, clip_corners
from tfbio.detection.report import Report, count

_LARGEST = 10**6  # pixels a side, and the greatest coordinate
_TOLERANCE = 1.0  # pixels that a box may reach over its image without a word


def read(path: pathlib.Path | str) -> Annotations:
    """Read a document from a file.

    Args:
        path: A file of JSON, on disk or in any place that `tf.io.gfile` reads.

    Returns:
        `Annotations`.

    Raises:
        ValueError: If the file holds no JSON, or not what `parse` takes; the message names it.
        OSError: If it is missing, or a folder.

    Example:
        >>> tf.io.write_file("ram://coco/broken.json", '{"images": [')
        >>> read("ram://coco/broken.json")
        Traceback (most recent call last):
        ValueError: ram://coco/broken.json is not JSON, or is truncated: Expecting value...
    """
    return parse(read_document(path), str(path))


def read_document(path: pathlib.Path | str) -> dict:
    """Read a file of JSON, unchecked.

    Args:
        path: As for `read`.

    Returns:
        What JSON's text stands for, which `parse` checks.

    Raises:
        ValueError: If the file holds no JSON; the message names it.
        OSError: If it is missing, or a folder.

    Example:
        >>> tf.io.write_file("ram://coco/empty.json", '{"images": []}')
        >>> read_document("ram://coco/empty.json")
        {'images': []}
    """
    if not tf.io.gfile.exists(str(path)):
        raise FileNotFoundError(f"There is no file {str(path)!r}.")
    if tf.io.gfile.isdir(str(path)):
        raise IsADirectoryError(f"{path} must be a file of JSON. Received: a folder.")
    with tf.io.gfile.GFile(str(path), "rb") as file:
        content = file.read()
    try:
        return json.loads(content)
    # A RecursionError where brackets are nested too deeply.
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{path} is not JSON, or is truncated: {str(error) or 'empty'}."
        ) from error


def parse(document: dict, where: str) -> Annotations:
    """Check a document, and return what it says.

    What cannot be understood is an error. What can be done without is left out, counted and logged
    with the document's name and its ids: annotations of an image or a category that the document
    does not have, or whose box has no area or lies outside of the image, and the second of two
    with one id.

    Args:
        document: What JSON's text stands for: a dict of the lists "images", "annotations" and
            "categories". Of an annotation, "area" may be missing, and is then the box's; and
            "iscrowd", which is then 0.
        where: What the document is called in messages.

    Returns:
        `Annotations`.

    Raises:
        ValueError: If a part is missing or of the wrong kind, two images or two categories have
            one id, a file name leaves the images' folder, there is no image or no category, or
            nothing is left of the annotations.

    Example:
        >>> parse({"images": []}, "a.json")
        Traceback (most recent call last):
        ValueError: a.json must hold a list of 'annotations'. Received: nothing.

    References:
        Lin et al. 2014, "Microsoft COCO: common objects in context".
    """
    if not isinstance(document, dict):
        raise ValueError(
            f"{where} must hold an object with the lists images, annotations and "
            f"categories. Received: {_short(document)}."
        )
    images, annotations, categories = (
        _entries(document, key, where) for key in ("images", "annotations", "categories")
    )
    for key, entries in (("image", images), ("category", categories)):
        if not entries:
            raise ValueError(f"{where} has no {key}.")
        counts = collections.Counter(entry["id"] for entry in entries)
        if double := [each for each, count in counts.items() if count > 1]:
            raise ValueError(
                f"{where} must give every {key} an id of its own. "
                f"Received: {key} {double[0]} {counts[double[0]]} times."
            )
    categories = sorted(categories, key=lambda entry: entry["id"])
    names = [_field(entry, "name", _text, where, "category") for entry in categories]
    alike = collections.Counter(names)
    files = tuple(_field(image, "file_name", _inside, where, "image") for image in images)
    sides = ("height", "width")
    sizes = [[_field(image, side, _side, where, "image") for side in sides] for image in images]
    sizes = np.array(sizes, np.int64)
    return Annotations(
        where=where,
        image_ids=np.array([image["id"] for image in images], np.int64),
        file_names=files,
        sizes=sizes,
        category_ids=tuple(entry["id"] for entry in categories),
        class_names=tuple(
            name if alike[name] == 1 else f"{name} ({entry['id']})"
            for name, entry in zip(names, categories, strict=True)
        ),
        **_objects(annotations, images, sizes, categories, where),
    )


def _objects(annotations, images, sizes, categories, where):
    """Return the fields of `Annotations` that are about objects."""
    rows = {image["id"]: row for row, image in enumerate(images)}
    classes = {entry["id"]: index for index, entry in enumerate(categories)}
    report, found, seen = Report(where), [], set()
    for entry in annotations:
        key, image, category = entry["id"], entry.get("image_id"), entry.get("category_id")
        for name, value in (("image_id", image), ("category_id", category)):
            if not _whole(value):
                raise _wrong(entry, name, where, "annotation", "must be an integer", value)
        box = _field(entry, "bbox", _box, where, "annotation")
        area = _field(entry, "area", _area, where, "annotation", box[2] * box[3])
        crowd = _field(entry, "iscrowd", _flag, where, "annotation", 0)
        what = f"annotation {key} of image {image}"
        if key in seen:
            report.add("an id that was there before", what)
        elif image not in rows:
            report.add("an image that is not there", what)
        elif category not in classes:
            report.add("an unknown category", f"{what}, category {category}")
        else:
            seen.add(key)
            found.append((rows[image], key, classes[category], *box, area, crowd))
    # A stable sort: an image's objects stay in the document's order.
    found.sort(key=lambda entry: entry[0])
    columns = list(zip(*found, strict=True)) or [()] * 9
    integers = [np.array(column, np.int64) for column in (*columns[:3], columns[8])]
    boxes = np.array(columns[3:7], np.float64).reshape(4, -1).T
    objects = {
        **dict(zip(("images", "ids", "classes"), integers, strict=False)),
        "boxes": boxes,
        "areas": np.array(columns[7], np.float64),
        "crowds": integers[3].astype(bool),
    }
    kept = _with_area(objects, images, sizes, report)
    report.log()
    if annotations and not kept.any():
        raise ValueError(
            f"{where}: nothing is left of {count(len(annotations), 'annotation')}: "
            f"{report.reasons()}."
        )
    return {name: column[kept] for name, column in objects.items()}


def _with_area(objects, images, sizes, report):
    """Return which boxes have an area within their image, and report the others."""
    sizes = sizes[objects["images"]]
    boxes = objects["boxes"]
    corners = clip_corners(boxes, sizes)
    empty = (boxes[:, 2:] <= 0).any(axis=1)
    outside = ~empty & (corners[:, 2:] <= corners[:, :2]).any(axis=1)
    beyond = np.maximum(-boxes[:, :2], boxes[:, :2] + boxes[:, 2:] - sizes[:, ::-1]).max(axis=1)
    for reason, which in (
        ("a box without an area", empty),
        ("a box outside of the image", outside),
        ("", ~empty & ~outside & (beyond > _TOLERANCE)),
    ):
        for index in np.flatnonzero(which):
            image = images[objects["images"][index]]
            what = (
                f"annotation {objects['ids'][index]} of image {image['id']}, "
                f"{image['file_name']}, box {boxes[index].tolist()}"
            )
            if reason:
                report.add(reason, what)
            else:
                report.clip(what)
    return ~(empty | outside)


def _entries(document, key, where):
    entries = document.get(key)
    if not isinstance(entries, list):
        raise ValueError(
            f"{where} must hold a list of {key!r}. "
            f"Received: {_short(entries) if key in document else 'nothing'}."
        )
    for index, entry in enumerate(entries):
        if not isinstance(entry, dict) or not _whole(entry.get("id")):
            raise ValueError(
                f"{where} must hold {key} with an integer 'id' each. "
                f"Received: {_short(entry)}, at position {index}."
            )
    return entries


def _field(entry, name, check, where, kind, default=None):
    """Return an entry's field, as `check` makes it, which raises a ValueError that says what."""
    if name not in entry and default is not None:
        return default
    try:
        return check(entry.get(name))
    except ValueError as error:
        raise _wrong(entry, name, where, kind, error, entry.get(name)) from error


def _wrong(entry, name, where, kind, must, value):
    return ValueError(f"{where}, {kind} {entry['id']}: {name!r} {must}. Received: {_short(value)}.")


def _whole(value):
    return type(value) is int and -(2**63) <= value < 2**63


def _text(value):
    if not isinstance(value, str):
        raise ValueError("must be a text")
    return value


def _inside(value):
    """Return a relative path that stays in its folder, normalized."""
    _text(value)
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError("must be a text that UTF-8 can hold") from error
    path = posixpath.normpath(value.replace("\\", "/"))  # a backslash leaves, too, on Windows
    absolute = path.startswith("/") or path[1:2] == ":"
    if absolute or "\0" in path or "://" in value or path.split("/")[0] in ("..", "."):
        raise ValueError("must be a file within the images' folder")
    return posixpath.normpath(value)


def _side(value):
    if not _whole(value) or not 1 <= value <= _LARGEST:
        raise ValueError(f"must be a number of pixels, 1 to {_LARGEST}")
    return value


def _real(value):
    return type(value) in (int, float) and -_LARGEST <= value <= _LARGEST


def _box(value):
    if not isinstance(value, list) or len(value) != 4 or not all(map(_real, value)):
        raise ValueError("must be x, y, width and height in pixels")
    return tuple(map(float, value))


def _area(value):
    if type(value) not in (int, float) or not 0 <= value <= _LARGEST**2:
        raise ValueError("must be a number of 0 or more")
    return float(value)


def _flag(value):
    if type(value) not in (int, bool) or value not in (0, 1):
        raise ValueError("must be 0 or 1")
    return int(value)


def _short(value):
    return reprlib.repr(value)
