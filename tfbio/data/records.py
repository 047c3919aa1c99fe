"""Records: images in TFRecord shards, read one by one from where an index says that they begin."""

import concurrent.futures
import hashlib
import logging
import os
import pathlib
import re
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from google.protobuf import message

_LOG = logging.getLogger("tfbio")
_READERS = 16  # shards that are indexed at a time
_HEADER, _FOOTER = 12, 4  # a record's length and its checksum; the checksum of its content
_BUFFER = 128 * 1024  # what is read at a time: about one photograph


class Keys(NamedTuple):
    """What a record's features are called.

    Attributes:
        image: The encoded image.
        label: Its class, or "" where the records have none, and all are of class 0.
        first: The label of the first class.
    """

    image: str
    label: str
    first: int


USUAL = Keys("image/encoded", "image/class/label", 1)
"""As most scripts write ImageNet's shards, where 0 is a background class that no image has."""
TFDS = Keys("image", "label", 0)


class Records:
    """A source of encoded images: the records of some shards in the order of files and bytes.

    Opening them reads every record once, to learn where it begins and what its label is, and keeps
    that in `$XDG_CACHE_HOME/tfbio` or `~/.cache/tfbio` for the next time; the shards' paths, sizes
    and times of change are its key.

    Args:
        paths: The shards, on disk or in any place that `tf.io.gfile` reads.
        keys: A `Keys`.
        num_classes: Labels are less than this, after `keys.first` is subtracted.

    Attributes:
        labels: The labels, int64, from 0. That of a record that cannot be parsed is 0.

    Raises:
        ValueError: If a shard is cut short, a feature is missing, or a label is out of range.
        OSError: If a shard cannot be read.

    Example:
        >>> import tempfile
        >>> path = tempfile.mkdtemp() + "/train-00000-of-00001"
        >>> features = {"image": b"...", "label": 3}
        >>> with tf.io.TFRecordWriter(path) as file:
        ...     file.write(example(features))
        >>> records = Records([path], TFDS, num_classes=10)
        >>> records.labels, records.content(0).numpy()
        (array([3]), b'...')
    """

    def __init__(self, paths: Sequence[str], keys: Keys, num_classes: int):
        self._paths, self._keys = list(map(str, paths)), keys
        shards, offsets, labels = _load_index(self._paths, keys)
        wrong = (labels < keys.first) | (labels >= keys.first + num_classes)
        wrong &= labels != _UNKNOWN
        if wrong.any():
            first = int(np.argmax(wrong))
            raise ValueError(
                f"{self._paths[shards[first]]} has labels outside "
                f"{keys.first} to {keys.first + num_classes - 1}. Received: {labels[first]}, in "
                f"{int(wrong.sum())} such records."
            )
        self.labels = np.where(labels == _UNKNOWN, 0, labels - keys.first)
        self._shards, self._offsets = shards, offsets
        with tf.device("CPU:0"):
            self._files = tf.constant(self._paths)
            self._where = tf.constant(np.stack([shards, offsets], 1))

    def content(self, row: tf.Tensor) -> tf.Tensor:
        """Return the encoded image of a record, a string tensor; checksums are verified."""
        shard, offset = tf.unstack(self._where[row])
        record = _records_from(self._files[shard], offset).take(1).get_single_element()
        spec = {self._keys.image: tf.io.FixedLenFeature((), tf.string)}
        return tf.io.parse_single_example(record, spec)[self._keys.image]

    def name(self, row: int) -> str:
        """Return what a record is called in messages."""
        shard = self._shards[row]
        number = row - int(np.searchsorted(self._shards, shard))
        return f"{self._paths[shard]}, record {number}"


def _records_from(path, offset):
    """Return the records of a shard from one of its bytes on: TFRecordDataset does not offer it."""
    variant = tf.raw_ops.TFRecordDatasetV2(
        filenames=path[None],
        compression_type="",
        buffer_size=tf.constant(_BUFFER, tf.int64),
        byte_offsets=offset[None],
    )
    return tf.data.experimental.from_variant(variant, tf.TensorSpec((), tf.string))


_UNKNOWN = np.iinfo(np.int64).min


def shards(folder: str | os.PathLike[str], part: str) -> list[str]:
    """Return the shards of a part in a folder, all of them.

    Args:
        folder: A path.
        part: Such as "train".

    Returns:
        Sorted paths such as `folder`/train-00000-of-01024, or an empty list.

    Raises:
        ValueError: If some of them are missing, or they are of several sets.

    Example:
        >>> shards("/nowhere", "train")
        []
    """
    found = sorted(tf.io.gfile.glob(os.path.join(folder, f"{part}-?????-of-?????")))
    if not found:
        return []
    totals = sorted({path[-5:] for path in found})
    wanted = [f"{part}-{index:05}-of-{totals[0]}" for index in range(int(totals[0]))]
    missing = sorted(set(wanted) - set(map(os.path.basename, found)))
    if len(totals) > 1 or missing:
        first = f"{missing[0]} is missing" if missing else f"sets of {' and of '.join(totals)}"
        raise ValueError(
            f"{folder} must hold all of {wanted[0]} to {wanted[-1]} and no other shards of "
            f"{part}. Received: {len(found)} shards; {first}."
        )
    return found


def example(features: Mapping[str, bytes | int]) -> bytes:
    """Return a record, for files that `Records` reads.

    Args:
        features: A dict from name to bytes, or to an integer.

    Returns:
        The bytes of a `tf.train.Example`.

    Example:
        >>> len(example({"label": 3}))
        18
    """

    def feature(value):
        if isinstance(value, bytes):
            return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
        return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))

    features = {name: feature(value) for name, value in features.items()}
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


def _load_index(paths, keys):
    """Return (shard, offset, label) of every record, three int64 arrays."""
    file = cache_folder() / f"records-{digest(paths, keys)}.npy"
    if file.is_file():
        try:
            return np.load(file)
        except (ValueError, EOFError) as error:
            _LOG.warning("%s is damaged, and is made again: %s", file, error)
    _LOG.info("%s and %d other shards are read once, to index them", paths[0], len(paths) - 1)
    with concurrent.futures.ThreadPoolExecutor(_READERS) as pool:
        parts = list(pool.map(lambda path: _scan(path, keys), paths))
    index = np.concatenate(
        [np.insert(part, 0, shard, 1) for shard, part in enumerate(parts)], dtype=np.int64
    ).T
    keep(file, lambda path: np.save(path, index))
    return index


def digest(paths: Sequence[str], keys: Keys) -> str:
    """Return a text that is another one when a shard changes.

    Args:
        paths: The shards.
        keys: A `Keys`.

    Returns:
        A text.

    Example:
        >>> len(digest([], USUAL))
        32
    """
    found = hashlib.blake2b(repr(keys).encode(), digest_size=16)
    for path in paths:
        stat = tf.io.gfile.stat(path)
        found.update(repr((str(path), stat.length, stat.mtime_nsec)).encode())
    return found.hexdigest()


def cache_folder() -> pathlib.Path:
    """Return `$XDG_CACHE_HOME/tfbio` or `~/.cache/tfbio`.

    Returns:
        A `pathlib.Path`.

    Example:
        >>> cache_folder().name
        'tfbio'
    """
    return pathlib.Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "tfbio"


def keep(file: pathlib.Path, write: Callable[..., Any]) -> None:
    """Write a file of the cache, so that nobody ever sees half of it; log where that fails.

    Args:
        file: Its `pathlib.Path`.
        write: A function of the path to write to.

    Example:
        >>> import tempfile
        >>> file = pathlib.Path(tempfile.mkdtemp(), "inner", "index.txt")
        >>> keep(file, lambda path: path.write_text("1"))
        >>> file.read_text()
        '1'
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        unfinished = file.with_suffix(f".{os.getpid()}{file.suffix}")
        write(unfinished)
        unfinished.replace(file)
    except OSError as error:
        _LOG.warning("the index is not kept, and is made again by the next run: %s", error)


def _scan(path, keys):
    """Return (offset, label) of every record of a shard, int64 (N, 2)."""
    found, position = [], 0
    length = tf.io.gfile.stat(path).length
    with tf.io.gfile.GFile(path, "rb") as file:
        while position < length:
            header = file.read(_HEADER)
            size = struct.unpack("<Q", header[:8])[0] if len(header) == _HEADER else length
            end = position + _HEADER + size + _FOOTER
            if end > length:
                raise ValueError(
                    f"{path} is truncated, or is not a file of TFRecords: its record "
                    f"{len(found)} would end after its last byte, {length:,}."
                )
            content = file.read(size)
            file.read(_FOOTER)
            found.append((position, _label(content, keys, f"{path}, record {len(found)}")))
            position = end
    return np.array(found, np.int64).reshape(-1, 2)


def _label(content, keys, name):
    try:
        features = tf.train.Example.FromString(content).features.feature
    except message.DecodeError as error:
        _LOG.warning("%s cannot be parsed: %s", name, re.sub(r"\s+", " ", str(error)))
        return _UNKNOWN
    values = features[keys.label].int64_list.value if keys.label in features else ()
    if not keys.label:
        values = [keys.first]
    if len(values) != 1 or keys.image not in features:
        raise ValueError(
            f"{name} must have an image, {keys.image}, and one label, {keys.label}. "
            f"Received: {', '.join(sorted(features)[:10])}."
        )
    return values[0]
