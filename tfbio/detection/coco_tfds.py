"""COCO from TensorFlow Datasets, in the form in which its own documents are read."""

import hashlib
import json
import logging
import pathlib
from typing import Any

import numpy as np
import tensorflow as tf

from tfbio.data import records
from tfbio.data import tfds as catalog
from tfbio.data.errors import UNREADABLE
from tfbio.data.photographs import Contents
from tfbio.detection import coco

_LOG = logging.getLogger("tfbio")
_KEYS = records.Keys("image", "", 0)
# COCO numbers its 80 categories from 1 to 90, and TFDS from 0 to 79.
_UNUSED = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)
CATEGORY_IDS = tuple(key for key in range(1, 91) if key not in _UNUSED)
"""The ids of COCO's categories, for results as others read them."""
_PARTS = {"train": "train", "val": "validation"}  # the test split has no annotations


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
        ValueError: If the dataset is damaged on disk, or not of COCO's kind.
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
    if info is not None and info.filepaths and _in_records(builder):
        # The order of the records: that of the shards, each from its first byte to its last.
        source = records.Records(info.filepaths, _KEYS, 1)
        return source, coco.parse(
            _load_document(builder, split, where, names, info.filepaths), where
        )
    if int(builder.info.dataset_size or 0) > catalog.LARGEST:
        raise catalog.too_large(builder)
    contents = []
    document = _document(builder, split, names, contents.append)
    called = [f"{where}, {image['file_name']}" for image in document["images"]]
    return Contents(contents, np.zeros(len(contents)), called), coco.parse(document, where)


def _in_records(builder):
    return str(builder.info.file_format) == "FileFormat.TFRECORD"


def _load_document(builder, split, where, names, paths):
    """Return a split's document, which is kept beside the records' index for the next time."""
    key = f"{names} {records.digest(paths, _KEYS)}".encode()
    name = f"coco-{hashlib.blake2b(key, digest_size=16).hexdigest()}.json"
    file = pathlib.Path(records.cache_folder()) / name
    if file.is_file():
        try:
            return json.loads(file.read_text())
        except ValueError as error:
            _LOG.warning("%s is damaged, and is made again: %s", file, error)
    _LOG.info("%s is read once, for its annotations", where)
    document = _document(builder, split, names, lambda content: None)
    records.keep(file, lambda path: path.write_text(json.dumps(document)))
    return document


def _document(builder, split, names, take):
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
                    "area": float(objects["area"][index]),
                    "iscrowd": int(objects["is_crowd"][index]),
                }
            )
    return document
