"""COCO from TensorFlow Datasets, in the form in which its own documents are read.

TensorFlow Datasets keeps an object's area as an integer, its fraction cut off: 1024.9 becomes
1024, which COCO counts as small, up to 32², and as medium, from 32² on. The areas are those of
COCO's own document where it is found: in the data folder, in annotations/ within it, or where
TensorFlow Datasets has extracted it. Otherwise half a square pixel is added to each, so that an
area counts once, as it does in COCO's document unless it is exactly 32² or 96²; the log says so.
"""

import hashlib
import json
import logging
import os
import pathlib
from typing import Any

import numpy as np
import tensorflow as tf

from tfbio.data import records
from tfbio.data import tfds as catalog
from tfbio.data.errors import UNREADABLE
from tfbio.data.photographs import Contents
from tfbio.detection import coco
from tfbio.training.checkpoints import digest

_LOG = logging.getLogger("tfbio")
_KEYS = records.Keys("image", "", 0)
# COCO numbers its 80 categories from 1 to 90, and TFDS from 0 to 79.
_UNUSED = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)
CATEGORY_IDS = tuple(key for key in range(1, 91) if key not in _UNUSED)
"""The ids of COCO's categories, for results as others read them."""
_PARTS = {"train": "train", "val": "validation"}  # the test split has no annotations
_ORIGINALS = {"train": "instances_train2017.json", "validation": "instances_val2017.json"}
_PLACES = ("", "annotations", "downloads/extracted/*/annotations")  # of these, in the data folder


def load(name: str, data_dir: str, download: bool, remedy: str) -> list[Any] | None:
    """Read a prepared COCO, or prepare it where a download is wanted.

    Args:
        name: A name in the catalog, such as "coco/2017".
        data_dir: The folder of prepared datasets, or "" for TFDS's own.
        download: Whether to download what is not prepared.
        remedy: What else could be done, for messages.

    Returns:
        A list of (part, (source of encoded images, `Annotations`)) for train and val, or None
        if the dataset is not prepared.

    Raises:
        ValueError: If the dataset is damaged on disk, or not of COCO's kind, or COCO's document
            that is found is not the one that it was prepared from.
        OSError: If the download fails.

    Example:
        >>> import tempfile
        >>> load("coco/2017", tempfile.mkdtemp(), download=False, remedy="") is None
        True
    """
    builder = catalog.find_builder(name, data_dir, download, remedy)
    if builder is None:
        return None
    try:
        return [(part, _part(builder, split)) for part, split in _PARTS.items()]
    except (tf.errors.OpError, OSError, KeyError) as error:
        raise catalog.unreadable(name, data_dir, error) from error


def _part(builder, split):
    """Return (source, annotations) of a split."""
    info = builder.info.splits.get(split)
    where = f"{builder.info.full_name}, {split}"
    names = builder.info.features["objects"]["label"].names
    original = _find_original(builder, split)
    if not original:
        _LOG.warning(
            "%s: areas are whole numbers in TensorFlow Datasets, and %s was not found in %s. Half "
            "a square pixel is added to each: an area of exactly 32² or 96², which COCO counts as "
            "small and medium, or medium and large, counts as the larger alone",
            *(where, _ORIGINALS[split], _folder(builder)),
        )
    if info is not None and info.filepaths and _in_records(builder):
        # The order of the records: that of the shards, each from its first byte to its last.
        source = records.Records(info.filepaths, _KEYS, 1)
        document = _load_document(builder, split, where, names, info.filepaths, original)
        return source, coco.parse(document, where)
    if int(builder.info.dataset_size or 0) > catalog.LARGEST:
        raise catalog.too_large(builder)
    contents = []
    document = _document(builder, split, names, contents.append, original)
    called = [f"{where}, {image['file_name']}" for image in document["images"]]
    return Contents(contents, np.zeros(len(contents)), called), coco.parse(document, where)


def _folder(builder):
    """Return the folder of TFDS's datasets, in which that of COCO lies."""
    return str(builder.data_dir).rstrip("/").removesuffix(builder.info.full_name).rstrip("/")


def _find_original(builder, split):
    """Return the path of COCO's document of a split, or "" where there is none."""
    for place in _PLACES:
        pattern = os.path.join(_folder(builder), place, _ORIGINALS[split])
        for path in sorted(tf.io.gfile.glob(pattern)):
            return path
    return ""


def _restore(document, original, where):
    """Return a document with the objects and categories of COCO's own in place of TFDS's."""
    whole = coco.read_document(original)
    coco.parse({**whole, "annotations": []}, original)
    objects = {image["id"]: [] for image in document["images"]}
    for entry in whole["annotations"]:
        if entry["image_id"] in objects:
            kept = ("id", "image_id", "category_id", "bbox", "area", "iscrowd")
            objects[entry["image_id"]].append({key: entry[key] for key in kept})
    restored = {
        **document,
        "annotations": [entry for entries in objects.values() for entry in entries],
        "categories": whole["categories"],
    }
    if odd := sorted(_compared(restored) ^ _compared(document)):
        raise ValueError(
            f"{original} must be the document that {where} was prepared from. Received: another, "
            f"of whose objects {len(odd)} differ, such as annotation {odd[0][0]} of image "
            f"{odd[0][1]}."
        )
    return restored


def _compared(document):
    """Return what COCO and TFDS must both say of every object."""
    names = {entry["id"]: entry["name"] for entry in document["categories"]}
    return {
        (entry["id"], entry["image_id"], names.get(entry["category_id"], ""), int(entry["area"]))
        for entry in document["annotations"]
    }


def _in_records(builder):
    return str(builder.info.file_format) == "FileFormat.TFRECORD"


def _load_document(builder, split, where, names, paths, original):
    """Return a split's document, which is kept beside the records' index for the next time."""
    key = f"{names} {records.digest(paths, _KEYS)} {_digest(original)}".encode()
    name = f"coco-{hashlib.blake2b(key, digest_size=16).hexdigest()}.json"
    file = pathlib.Path(records.cache_folder()) / name
    if file.is_file():
        try:
            return json.loads(file.read_text())
        except ValueError as error:
            _LOG.warning("%s is damaged, and is made again: %s", file, error)
    _LOG.info("%s is read once, for its annotations", where)
    document = _document(builder, split, names, lambda content: None, original)
    records.keep(file, lambda path: path.write_text(json.dumps(document)))
    return document


def _digest(path):
    if not path:
        return "whole areas and a half"
    with tf.io.gfile.GFile(path, "rb") as file:
        return digest(file.read())


def _document(builder, split, names, take, original):
    """Return a split's annotations as COCO's document, and hand each encoded image over."""
    import tensorflow_datasets as tfds

    dataset = builder.as_dataset(
        split=split,
        shuffle_files=False,
        decoders={"image": tfds.decode.SkipDecoding()},
        read_config=tfds.ReadConfig(interleave_cycle_length=1),
    )
    ids = CATEGORY_IDS if len(names) == len(CATEGORY_IDS) else range(1, len(names) + 1)
    document = {
        "images": [],
        "annotations": [],
        "categories": [{"id": key, "name": name} for key, name in zip(ids, names, strict=True)],
    }
    for example in dataset.as_numpy_iterator():
        take(example["image"])
        key, objects = int(example["image/id"]), example["objects"]
        name = example["image/filename"].decode()
        try:
            height, width, _ = tf.io.extract_jpeg_shape(example["image"]).numpy().tolist()
        except tf.errors.OpError as error:
            # Its boxes are given as shares of a size that nobody knows.
            raise ValueError(
                f"{builder.info.full_name}, {split}: {name}, image {key},{UNREADABLE}"
            ) from error
        document["images"].append({"id": key, "file_name": name, "height": height, "width": width})
        for index, (y1, x1, y2, x2) in enumerate(objects["bbox"].astype(np.float64).tolist()):
            # A hundredth of a pixel, to which COCO's own numbers are given.
            box = [x1 * width, y1 * height, (x2 - x1) * width, (y2 - y1) * height]
            document["annotations"].append(
                {
                    "id": int(objects["id"][index]),
                    "image_id": key,
                    "category_id": ids[int(objects["label"][index])],
                    "bbox": [round(value, 2) for value in box],
                    "area": int(objects["area"][index]) + (0 if original else 0.5),
                    "iscrowd": int(objects["is_crowd"][index]),
                }
            )
    if original:
        return _restore(document, original, f"{builder.info.full_name}, {split}")
    return document
