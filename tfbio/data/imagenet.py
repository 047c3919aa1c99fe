"""ImageNet, and Imagenette, in the forms that people hold them in: one order of labels for all."""

import functools
import logging
import os
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from tfbio.data import records, tfds
from tfbio.data.photographs import Files, Photographs

NAMES = ("imagenet2012", "imagenette")
_IMAGE_SIZE = 224
# The usual constants, of torchvision's "transforms for pretrained models".
_STATISTICS = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
_EXTENSIONS = (".jpeg", ".jpg", ".png")
_LOG = logging.getLogger("tfbio")


def is_imagenet(name: str) -> bool:
    """Return whether a dataset's name is one of `NAMES`; "/" and a configuration may follow.

    Example:
        >>> is_imagenet("imagenette/320px-v2"), is_imagenet("imagenet_v2")
        (True, False)
    """
    return re.split("[/:]", str(name))[0] in NAMES


def photographs(name: str, image_size: int, max_corrupt: float) -> Callable[..., Photographs]:
    """Return the function from a source of encoded images to `Photographs` of a dataset.

    Args:
        name: One of `NAMES`.
        image_size: Pixels a side, or 0 for 224.
        max_corrupt: As for `Photographs`.

    Example:
        >>> photographs("imagenet2012", 0, 0.001)(Files([], [])).image_shape
        (224, 224, 3)
    """
    whole = re.split("[/:]", name)[0] == "imagenet2012"
    return functools.partial(
        Photographs,
        image_size=image_size or _IMAGE_SIZE,
        max_corrupt=max_corrupt,
        statistics=_STATISTICS if whole else None,
    )


def load(name: str, data_dir: str, make: Callable[..., Any]) -> tuple[Any, ...] | None:
    """Read train and validation from shards of TFRecords, or from folders by class.

    The classes are WordNet's identifiers, sorted. Where the folders are not those of TFDS's
    dataset `name`, a subset for example, the classes are those that are there.

    Args:
        name: One of `NAMES`.
        data_dir: Holds train-00000-of-01024 and so on, and validation-00000-of-00128; or
            train/<class>/*.JPEG and val/<class>/*.JPEG. On disk, or any place that `tf.io.gfile`
            reads, such as gs://bucket/folder.
        make: What `photographs` returned.

    Returns:
        (training `Photographs`, test `Photographs`, class names), or None if the folder holds
        neither.

    Raises:
        ValueError: If shards or classes are missing, or shards are damaged.
        OSError: If files cannot be read.

    Example:
        >>> load("imagenet2012", "ram://nothing", photographs("imagenet2012", 0, 0.001)) is None
        True
    """
    classes = tfds.class_names(name)
    shards = [records.shards(data_dir, part) for part in ("train", "validation")]
    if any(shards):
        for part, found in zip(("train", "validation"), shards, strict=True):
            if not found:
                raise ValueError(f"{data_dir} has no shards {part}-00000-of-….")
        _LOG.info("%s is read from the shards of TFRecords in %s", name, data_dir)
        parts = (make(records.Records(found, records.USUAL, len(classes))) for found in shards)
        return (*parts, classes)
    folders = [os.path.join(data_dir, part) for part in ("train", "val")]
    if not tf.io.gfile.isdir(folders[0]):
        return None
    if not tf.io.gfile.isdir(folders[1]):
        raise ValueError(f"{data_dir} has the folder train, but no folder val.")
    found = _list_names(folders[0])
    if found != classes:
        text = "%s: the classes are the %d folders of %s, and not the %d of the whole dataset"
        _LOG.warning(text, name, len(found), folders[0], len(classes))
    if unknown := sorted(set(_list_names(folders[1])) - set(found)):
        raise ValueError(f"{folders[1]} has classes that {folders[0]} lacks: {', '.join(unknown)}.")
    _LOG.info("%s is read from the images by class in %s", name, data_dir)
    return *(make(_find_files(folder, found)) for folder in folders), found


def _list_names(folder):
    names = (name.rstrip("/") for name in tf.io.gfile.listdir(folder))
    return tuple(sorted(name for name in names if name[0] != "."))


def _find_files(folder, classes):
    paths, labels = [], []
    for label, name in enumerate(classes):
        inside = os.path.join(folder, name)
        if not tf.io.gfile.isdir(inside):
            continue
        images = [file for file in _list_names(inside) if file.lower().endswith(_EXTENSIONS)]
        paths += [os.path.join(inside, file) for file in images]
        labels += [label] * len(images)
    if not paths:
        raise ValueError(f"{folder} must hold images <class>/*.JPEG, and has none.")
    return Files(paths, np.array(labels))
