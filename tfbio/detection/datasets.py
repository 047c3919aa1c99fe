"""Detection sets: images with boxes by name, from COCO's files, TensorFlow Datasets or our own."""

from __future__ import annotations

import logging
import os
import posixpath
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import tensorflow as tf

from tfbio._arguments import suggest
from tfbio.data.decoding import read_orientation
from tfbio.data.errors import UNREADABLE
from tfbio.data.photographs import Files
from tfbio.detection import canvases, coco, coco_tfds
from tfbio.detection.annotations import Annotations
from tfbio.detection.examples import DetectionExamples
from tfbio.detection.report import count, join_first

if TYPE_CHECKING:
    import pathlib

_LOG = logging.getLogger("tfbio")
_SUFFIXES = ("2017", "2014", "")
_VALIDATION = ("val", "validation")
_REMEDY = (
    "Give `data_dir` a folder with instances_train2017.json and train2017/, instances_val2017.json "
    "and val2017/ (the documents may be in annotations/ within), or coco/2017 as TensorFlow "
    "Datasets prepares it."
)


class DetectionSet(NamedTuple):
    """What `load` returns.

    Attributes:
        train: The `DetectionExamples` to train on.
        validation: The one to follow the training and select by, or None: hold a part of `train`
            out then.
        test: The one that selects nothing.
        class_names: The classes' names in the order of their numbers.
        category_ids: Their ids in the documents, for results.
    """

    train: DetectionExamples
    validation: DetectionExamples | None
    test: DetectionExamples
    class_names: tuple[str, ...]
    category_ids: tuple[int, ...]

    @property
    def num_classes(self) -> int:
        """The number of classes."""
        return len(self.class_names)

    @property
    def image_shape(self) -> tuple[int, ...]:
        """(height, width, channels) of every image as it comes out."""
        return self.train.image_shape


def names() -> tuple[str, ...]:
    """Return the names that `load` knows.

    Example:
        >>> names()
        ('digits_detection', 'coco')
    """
    return ("digits_detection", "coco")


def load(
    name: str,
    data_dir: str = "",
    download: bool = False,
    image_size: int | Sequence[int] = 0,
    max_boxes: int = 100,
    max_corrupt: float = 0.001,
    canvas_size: int = 128,
    canvas_counts: Sequence[int] | None = None,
    shorter_side: int = 0,
    longest_side: int = 0,
    padding: Sequence[int] = (0, 0, 0),
) -> DetectionSet:
    """Load a detection set that is on this machine, or if asked, download it.

    Args:
        name: "digits_detection", as `canvases.prepare` draws it; or "coco", COCO 2017 or any other
            set in the same form.
        data_dir: For "coco", the folder with documents and images: instances_train2017.json and
            train2017/, instances_val2017.json and val2017/, or the same with 2014, or without a
            year. The documents may be in annotations/, the images' folders in images/. Where there
            is instances_test.json too, val is the validation split, else it is the test split. Or
            the folder of TFDS's datasets, "" for its own, with COCO's documents for the exact
            areas, see `coco_tfds`. For "digits_detection", where to keep
            it, "" for the cache.
        download: Whether to have TFDS download and prepare COCO where it is not there.
        image_size: As for `DetectionExamples`; 0 without `shorter_side` for the canvases' size, or
            512.
        max_boxes: As for `DetectionExamples`.
        max_corrupt: As for `DetectionExamples`; also the share of images whose files may be
            missing.
        canvas_size: Pixels a side of the canvases.
        canvas_counts: `canvases.Counts`, or None for its default.
        shorter_side: As for `DetectionExamples`.
        longest_side: As for `DetectionExamples`.
        padding: As for `DetectionExamples`.

    Returns:
        A `DetectionSet`.

    Raises:
        ValueError: If an option is out of range, a document is damaged, too many files are missing,
            or the documents do not have the same categories.
        OSError: If the files are not where they should be, or cannot be read or downloaded.

    Example:
        >>> load("coco", "/nowhere")
        Traceback (most recent call last):
        FileNotFoundError: `data_dir` must be an existing folder. Received: '/nowhere'.

    References:
        Lin et al. 2014, "Microsoft COCO: common objects in context".
    """
    options = {
        "max_boxes": max_boxes,
        "max_corrupt": max_corrupt,
        "shorter_side": shorter_side,
        "longest_side": longest_side,
        "padding": padding,
    }
    if not (image_size or shorter_side or longest_side):
        image_size = canvas_size if name == "digits_detection" else 512
    if name == "digits_detection":
        folder = canvases.prepare(canvas_size, canvas_counts, cache=data_dir)
        return _from_files(_documents(str(folder)), image_size, options)
    if name != "coco":
        raise ValueError(
            f"Unknown detection set {name!r}.{suggest(name, names())} Detection sets: "
            f"{', '.join(names())}."
        )
    if data_dir:
        if not tf.io.gfile.isdir(data_dir) and not download:
            raise FileNotFoundError(
                f"`data_dir` must be an existing folder. Received: {str(data_dir)!r}."
            )
        if found := _documents(data_dir):
            return _from_files(found, image_size, options)
    parts = coco_tfds.load("coco/2017", data_dir, download, _REMEDY)
    if parts is None:
        place = f"`data_dir={str(data_dir)!r}`" if data_dir else "the folder of TensorFlow Datasets"
        raise FileNotFoundError(f"coco was not found in {place}. {_REMEDY}")
    return _dataset(
        {
            part: DetectionExamples(
                *found, image_size=image_size, trains=part == "train", **options
            )
            for part, found in parts
        }
    )


def _documents(folder):
    """Return a dict from part to (document, folder of images), of what is in a folder."""
    found = {}
    for part, spellings in (("train", ("train",)), ("val", _VALIDATION), ("test", ("test",))):
        for name in (spelling + suffix for spelling in spellings for suffix in _SUFFIXES):
            documents = [
                os.path.join(folder, place, f"instances_{name}.json")
                for place in ("", "annotations")
            ]
            document = next(filter(tf.io.gfile.exists, documents), None)
            if document is None or part in found:
                continue
            images = [os.path.join(folder, place, name) for place in ("", "images")]
            if not any(map(tf.io.gfile.isdir, images)):
                if tf.io.gfile.isdir(os.path.join(folder, "coco", "2017")):
                    continue  # it belongs to the images of TensorFlow Datasets
                raise FileNotFoundError(
                    f"{folder} has {os.path.relpath(document, folder)}, but no folder {name} of "
                    "its images."
                )
            found[part] = document, next(filter(tf.io.gfile.isdir, images))
    if found and not {"train", "val"} <= set(found):
        raise FileNotFoundError(
            f"{folder} must have documents for train and val. Received: "
            f"{', '.join(os.path.basename(document) for document, _ in found.values())}."
        )
    return found


def _from_files(found, image_size, options):
    parts = {}
    for part, (document, folder) in found.items():
        annotations = coco.read(document)
        source = files(annotations, folder, options["max_corrupt"])
        parts[part] = DetectionExamples(
            source, annotations, image_size, **options, trains=part == "train"
        )
    return _dataset(parts)


def _dataset(parts):
    first = parts["train"].annotations
    for part in parts.values():
        other = part.annotations
        if (other.category_ids, other.class_names) != (first.category_ids, first.class_names):
            raise ValueError(
                f"{other.where} must have the categories of {first.where}. Received: "
                f"{_categories(other)} instead of {_categories(first)}."
            )
    if not len(first.classes):
        raise ValueError(f"{first.where} has no object to learn from.")
    for part in ("val", "test"):
        if part in parts and parts[part].annotations.crowds.all():
            _LOG.warning(
                "%s has no object to evaluate on: its AP and AR are NaN",
                parts[part].annotations.where,
            )
    if "test" not in parts:
        _LOG.info("%s is the test split", parts["val"].annotations.where)
        parts = {"train": parts["train"], "test": parts["val"]}
    return DetectionSet(
        parts["train"], parts.get("val"), parts["test"], first.class_names, first.category_ids
    )


def _categories(annotations):
    pairs = zip(annotations.category_ids, annotations.class_names, strict=True)
    return join_first([f"{key} {name}" for key, name in pairs])


def files(annotations: Annotations, folder: pathlib.Path, max_corrupt: float) -> Files:
    """Return the images' files, and log the missing ones.

    A file that is missing is like one that cannot be read: `DetectionExamples` leaves it out.

    Args:
        annotations: `Annotations`.
        folder: The images' folder.
        max_corrupt: The share of them that may be missing; one always may, unless this is 0.

    Returns:
        `Files`.

    Raises:
        ValueError: If more are missing.

    Example:
        >>> annotations = coco.parse(
        ...     {
        ...         "images": [{"id": 7, "file_name": "a.jpg", "height": 20, "width": 30}],
        ...         "categories": [{"id": 5, "name": "dog"}],
        ...         "annotations": [],
        ...     },
        ...     "a.json",
        ... )
        >>> files(annotations, "/nowhere", max_corrupt=0)
        Traceback (most recent call last):
        ValueError: a.json names 1 file that is not in /nowhere, and `max_corrupt=0`
        admits 0 of 1: a.jpg of image 7
    """
    listings = {}
    for name in annotations.file_names:
        inner = posixpath.dirname(name)
        if inner not in listings:
            place = os.path.join(folder, inner)
            # One listing is faster than a question for each file, above all where it is remote.
            there = tf.io.gfile.isdir(place)
            listings[inner] = set(tf.io.gfile.listdir(place)) if there else set()
    missing = [
        f"{name} of image {key}"
        for name, key in zip(annotations.file_names, annotations.image_ids.tolist(), strict=True)
        if posixpath.basename(name) not in listings[posixpath.dirname(name)]
    ]
    size = len(annotations.file_names)
    limit = max(1, int(max_corrupt * size)) if max_corrupt else 0
    named = "1 file that is" if len(missing) == 1 else f"{len(missing)} files that are"
    what = f"{annotations.where} names {named} not in {folder}"
    if len(missing) > limit:
        raise ValueError(
            f"{what}, and `max_corrupt={max_corrupt:g}` admits {limit} of {size:,}: "
            f"{join_first(missing)}"
        )
    if missing:
        _LOG.warning("%s, and left out: %s", what, join_first(missing))
    paths = [os.path.join(folder, name) for name in annotations.file_names]
    return Files(paths, np.zeros(size))


def images(
    paths: Sequence[str],
    image_size: int | Sequence[int],
    shorter_side: int = 0,
    longest_side: int = 0,
    padding: Sequence[int] = (0, 0, 0),
) -> DetectionExamples:
    """Return images without annotations, to predict on, whose ids are 1, 2 and so on.

    Those with an EXIF orientation, which is not applied, are logged.

    Args:
        paths: Files of PNG, JPEG, BMP or GIF.
        image_size: As for `DetectionExamples`.
        shorter_side: As for `DetectionExamples`.
        longest_side: As for `DetectionExamples`.
        padding: As for `DetectionExamples`.

    Returns:
        A `DetectionExamples` of no objects and one class.

    Raises:
        ValueError: If one cannot be read.

    Example:
        >>> tf.io.write_file("ram://images/a.png", tf.io.encode_png(tf.zeros((9, 5, 3), tf.uint8)))
        >>> ((_, _, about),) = images(["ram://images/a.png"], 32).batches(1, pad=True)
        >>> about["ids"].numpy(), about["sizes"].numpy()
        (array([1]), array([[9, 5]], dtype=int32))
    """
    sizes, turned = [], []
    for path in paths:
        try:
            content = tf.io.read_file(path)
            sizes.append(tf.io.decode_image(content, expand_animations=False).shape[:2])
        except tf.errors.OpError as error:
            raise ValueError(f"{path}{UNREADABLE}") from error
        if read_orientation(content.numpy()) != 1:
            turned.append(str(path))
    if turned:
        _LOG.warning(
            "The EXIF orientation of %s is not applied: %s",
            count(len(turned), "image"),
            join_first(turned),
        )
    none = np.zeros(0, np.int64)
    annotations = Annotations(
        where="the images",
        image_ids=np.arange(1, len(paths) + 1),
        file_names=tuple(map(str, paths)),
        sizes=np.array(sizes, np.int64).reshape(-1, 2),
        category_ids=(1,),
        class_names=("object",),
        ids=none,
        images=none,
        classes=none,
        boxes=np.zeros((0, 4)),
        areas=np.zeros(0),
        crowds=np.zeros(0, bool),
    )
    source = Files(list(paths), np.zeros(len(paths)))
    return DetectionExamples(
        source,
        annotations,
        image_size,
        shorter_side=shorter_side,
        longest_side=longest_side,
        padding=padding,
    )
