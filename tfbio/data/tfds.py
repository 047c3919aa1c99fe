"""TFDS: the image classification datasets of TensorFlow Datasets' catalog, by name."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from tfbio._arguments import suggest
from tfbio.data import network, records
from tfbio.data.arrays import Arrays
from tfbio.data.encoded import Encoded
from tfbio.data.photographs import Contents

if TYPE_CHECKING:
    from tfbio.data.photographs import Photographs

LARGEST = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
"""Bytes of a dataset that is held in memory as it is stored: half of what this machine has."""
_TESTS = ("test", "validation")
_DECODED = 2 * 2**30  # bytes of images that are rather held decoded
_LOG = logging.getLogger("tfbio")


def check_name(name: str, first: Iterable[str]) -> None:
    """Refuse a name that neither the catalog nor we have.

    Args:
        name: A dataset's name; "/" and a configuration may follow.
        first: Names to suggest before the catalog's.

    Raises:
        ValueError: If it is unknown.

    Example:
        >>> check_name("caltech102", ("digits",))
        Traceback (most recent call last):
        ValueError: Unknown dataset 'caltech102'. Did you mean 'caltech101' or ...
    """
    if not is_known(name):
        hint = suggest(name, [*first, *_catalog()], count=3)
        raise ValueError(
            f"Unknown dataset {name!r}.{hint} Datasets: {', '.join(first)}; or a name in the "
            "catalog of TensorFlow Datasets."
        )


def is_known(name: str) -> bool:
    """Return whether the catalog has a dataset.

    Args:
        name: A dataset's name; "/" and a configuration may follow.

    Example:
        >>> is_known("mnist"), is_known("cells")
        (True, False)
    """
    # Without a namespace: those of other hubs are looked up in the network.
    valid = isinstance(name, str) and re.fullmatch(r"\w+(/[\w.+-]+)?(:\d+\.\d+\.\d+)?", name)
    return bool(valid) and re.split("[/:]", name)[0] in _catalog()


def _catalog():
    return _tfds().list_builders(with_community_datasets=False)


def class_names(name: str) -> tuple[str, ...]:
    """Return the names of a dataset's classes in the order of its labels; it need not be prepared.

    Args:
        name: A name in the catalog.

    Returns:
        A tuple of names.

    Example:
        >>> class_names("imagenet2012")[:2]
        ('n01440764', 'n01443537')
    """
    tfds = _tfds()
    return tuple(tfds.builder(name, data_dir=os.devnull).info.features["label"].names)


def load(
    name: str,
    data_dir: str,
    download: bool,
    image_size: int,
    remedy: str,
    photographs: Callable[..., Photographs],
    streamed: bool = False,
) -> tuple[Any, ...] | None:
    """Read a prepared dataset, or prepare it where a download is wanted.

    Args:
        name: A name in the catalog.
        data_dir: The folder of prepared datasets, or "" for TFDS's own.
        download: Whether to download what is not prepared.
        image_size: Pixels a side to resize to, or 0 where all images are of one size.
        remedy: What else could be done, for messages.
        photographs: A function from a source of encoded images to `Photographs`.
        streamed: Whether to use it for a dataset that fits in half of the memory, too.

    Returns:
        (training `Split`, test `Split`, class names), or None if the dataset is not prepared.

    Raises:
        ValueError: If the dataset is of another kind than images with one label, too large, or
            damaged on disk, or images differ in size without `image_size`.
        OSError: If the download fails.

    Example:
        >>> import tempfile
        >>> load("mnist", tempfile.mkdtemp(), False, 0, remedy="", photographs=None) is None
        True
    """
    tfds = _tfds()
    kinds = []
    builder = find_builder(
        name,
        data_dir,
        download,
        remedy,
        check=lambda features: kinds.append(_kind(tfds, name, features)),
    )
    if builder is None:
        return None
    kind, classes = kinds[0]
    large = int(builder.info.dataset_size) > LARGEST
    # The test split of ImageNet has no labels.
    train, test = _splits(name, builder.info.splits, ("validation",) if streamed else _TESTS)

    if large and not (streamed or image_size):
        raise ValueError(
            f"`image_size` must be given for {name}, which takes more than half of the memory, "
            "and is streamed as photographs that are cropped."
        )

    def read(split):
        if streamed or large:
            return photographs(_source(tfds, builder, split, len(classes), large))
        return _part(tfds, builder, split, kind, image_size)

    try:
        parts = [read(split) for split in (train, test)]
    except (tf.errors.OpError, OSError) as error:
        raise unreadable(name, data_dir, error) from error
    for part, split in zip(parts, (train, test), strict=True):
        if not 0 <= part.labels.min() <= part.labels.max() < len(classes):
            raise ValueError(
                f"{name} has labels outside the {len(classes)} classes in its split "
                f"{split!r}. Received: {part.labels.min()} to {part.labels.max()}."
            )
    return (*parts, classes)


def find_builder(
    name: str,
    data_dir: str,
    download: bool,
    remedy: str,
    check: Callable[..., None] = lambda features: None,
) -> Any:
    """Return the builder of a prepared dataset, or prepare it where a download is wanted.

    Args:
        name: A name in the catalog.
        data_dir: The folder of prepared datasets, or "" for TFDS's own.
        download: Whether to download what is not prepared.
        remedy: What else could be done, for messages.
        check: Called with the dataset's features before anything is downloaded.

    Returns:
        A `tfds.core.DatasetBuilder`, or None if the dataset is not prepared.

    Raises:
        ValueError: If it is damaged on disk.
        OSError: If the download fails.

    Example:
        >>> import tempfile
        >>> find_builder("mnist", tempfile.mkdtemp(), download=False, remedy="") is None
        True
    """
    tfds = _tfds()
    try:
        builder = tfds.builder(name, data_dir=data_dir or None)
        features, prepared = builder.info.features, bool(builder.info.splits)
    # A builder's own code and the files of its metadata can fail in any way.
    except Exception as error:
        raise unreadable(name, data_dir, error) from error
    check(features)
    if not prepared and not download:
        return None
    if not prepared:
        _download(builder, name, remedy)
        builder = tfds.builder(name, data_dir=data_dir or None)
    return builder


def _tfds():
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise OSError(
            f"TensorFlow Datasets, which has the other datasets, cannot be imported: {error}. "
            "Run `pip install tensorflow-datasets importlib_resources`."
        ) from error
    return tfds


def unreadable(name: str, data_dir: str, error: Exception) -> ValueError:
    """Return an error that says that a prepared dataset cannot be read.

    Args:
        name: The dataset's name.
        data_dir: Where it is.
        error: What went wrong.

    Returns:
        A ValueError.

    Example:
        >>> raise unreadable("mnist", "data", OSError("no such file"))
        Traceback (most recent call last):
        ValueError: mnist cannot be read from data: OSError: no such file
    """
    place = data_dir or "the default folder of TensorFlow Datasets"
    return ValueError(f"{name} cannot be read from {place}: {_first_line(error)}")


def _first_line(error):
    # Without what TensorFlow says of its own insides.
    text = re.sub(r"\{\{.*?\}\}|\[Op:.*", "", str(error))
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'without a message'}"


def _kind(tfds, name, features):
    """Return the image feature and the class names, or refuse."""
    have = dict(features) if isinstance(features, tfds.features.FeaturesDict) else {}
    image: Any = have.get("image")
    label: Any = have.get("label")
    if (
        not isinstance(image, tfds.features.Image)
        or not isinstance(label, tfds.features.ClassLabel)
        or image.np_dtype != np.uint8
        or image.shape[2] not in (1, 3)
    ):
        raise ValueError(
            f"{name} is not for image classification: it must have an image of bytes in "
            f"1 or 3 channels and a class label. Received: features {', '.join(sorted(have))}."
        )
    return image, tuple(label.names)


def _download(builder, name, remedy):
    network.check(remedy)
    try:
        builder.download_and_prepare()
    # Requests, checksums, archives, scripts of the catalog: all of them can fail in their own way.
    except Exception as error:
        raise OSError(f"The download of {name} failed: {_first_line(error)} {remedy}") from error


def _splits(name, splits, tests):
    test = next((split for split in tests if split in splits), None)
    if "train" not in splits or test is None:
        raise ValueError(
            f"{name} must have the splits train and {', or '.join(tests)}. "
            f"Received: {', '.join(splits)}."
        )
    if test != tests[0]:
        _LOG.warning("the split %s of %s stands for the test split, which it lacks", test, name)
    return "train", test


def _part(tfds, builder, split, image, image_size):
    name = builder.info.full_name
    if None in image.shape[:2] and not image_size:
        raise ValueError(f"`image_size` must be given for {name}, whose images differ in size.")
    contents, labels, names = _in_memory(tfds, builder, split)
    height, width, channels = image.shape
    if None in image.shape[:2] or len(labels) * height * width * channels > _DECODED:
        size = (image_size, image_size) if image_size else (height, width)
        return Encoded(contents, labels, (*size, channels), names)
    return Arrays(Encoded(contents, labels, image.shape, names).decoded(), labels, image_size)


def _in_memory(tfds, builder, split):
    """Return (encoded images, labels, what they are called)."""
    decoders = tfds.decode.PartialDecoding(
        {"image": True, "label": True}, {"image": tfds.decode.SkipDecoding()}
    )
    contents, labels = [], []
    for batch in builder.as_dataset(split=split, decoders=decoders).batch(1024):
        contents += batch["image"].numpy().tolist()
        labels += batch["label"].numpy().tolist()
    name = f"{builder.info.full_name}, {split}, example"
    return contents, labels, [f"{name} {index}" for index in range(len(labels))]


def too_large(builder: Any) -> ValueError:
    """Return the error of a dataset that can neither be held nor streamed.

    Args:
        builder: A `tfds.core.DatasetBuilder`.

    Example:
        >>> raise too_large(tfds.builder("mnist"))  # doctest: +SKIP
    """
    return ValueError(
        f"{builder.name} does not fit in half of the memory and must be in files of "
        f"TFRecords to be streamed. Received: {builder.info.file_format}."
    )


def _source(tfds, builder, split, num_classes, large):
    """Return a source of encoded images: files where they are of TFRecords, else memory."""
    info = builder.info.splits[split]
    if str(builder.info.file_format) == "FileFormat.TFRECORD" and info.filepaths:
        return records.Records(info.filepaths, records.TFDS, num_classes)
    if large:
        raise too_large(builder)
    return Contents(*_in_memory(tfds, builder, split))
