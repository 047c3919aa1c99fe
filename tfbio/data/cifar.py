"""CIFAR's layouts: the binary version, and the Python version of pickles."""

import io
import pathlib
import pickle
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tfbio.data import formats

_SHAPE = (32, 32, 3)
_CIFAR10 = (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch")

COUNTS = {**dict.fromkeys(_CIFAR10, 10_000), "train": 50_000, "test": 10_000}
"""The published number of images in each file."""


def read_binary(
    folder: Path, train: Sequence[str], test: str, label_bytes: int, num_classes: int
) -> tuple[Any, Any]:
    """Read files of records: the labels, of a byte each, then 3,072 bytes of red, green and blue.

    Args:
        folder: Holds the files.
        train: Their names, without ".bin".
        test: Another.
        label_bytes: 1, or 2 where a coarse label comes first.
        num_classes: The number of classes.

    Returns:
        ((images, labels), (images, labels)) for training and test.

    Raises:
        ValueError: If a file is truncated, holds another number of images than published, or
            labels outside the classes.
        OSError: If one is missing or cannot be read.

    Example:
        >>> read_binary("/nowhere", ["train"], "test", 2, 100)
        Traceback (most recent call last):
        FileNotFoundError: /nowhere has no train.bin.
    """
    record = label_bytes + 3072

    def part(name):
        path = formats.find_file(folder, f"{name}.bin")
        entries = np.frombuffer(path.read_bytes(), np.uint8)
        if not len(entries) or len(entries) % record:
            raise ValueError(
                f"{path} must hold whole records of {record} bytes, one or more. "
                f"Received: {len(entries)} bytes, {len(entries) % record} too many."
            )
        entries = entries.reshape(-1, record)
        images, labels = _images(entries[:, label_bytes:]), entries[:, label_bytes - 1]
        return formats.check(path, images, labels, _SHAPE, num_classes, count=COUNTS[name])

    return _concatenate(map(part, train)), part(test)


def read_python(
    folder: Path, train: Sequence[str], test: str, key: str, num_classes: int
) -> tuple[Any, Any]:
    """Read pickle files; anything in them but arrays, lists, texts and numbers is refused.

    Args:
        folder: Holds the files.
        train: Their names.
        test: Another.
        key: What the labels are called.
        num_classes: The number of classes.

    Returns:
        ((images, labels), (images, labels)) for training and test.

    Raises:
        ValueError: If a file is damaged, asks for code to be run, or holds another number of
            images than published, or labels outside the classes.
        OSError: If one is missing or cannot be read.

    Example:
        >>> read_python("/nowhere", ["train"], "test", "fine_labels", 100)
        Traceback (most recent call last):
        FileNotFoundError: /nowhere has no train.
    """

    def part(name):
        path = formats.find_file(folder, name)
        content = _unpickle(path)
        if not isinstance(content, dict) or not {b"data", key.encode()} <= set(content):
            raise ValueError(f"{path} must be a pickled dict with data and {key}.")
        pixels, labels = content[b"data"], np.asarray(content[key.encode()])
        if not isinstance(pixels, np.ndarray) or pixels.ndim != 2 or pixels.shape[1] != 3072:
            received = getattr(pixels, "shape", type(pixels).__name__)
            raise ValueError(f"{path} must hold data of shape (N, 3072). Received: {received}.")
        images = _images(pixels)
        return formats.check(path, images, labels, _SHAPE, num_classes, count=COUNTS[name])

    return _concatenate(map(part, train)), part(test)


def _images(pixels):
    return pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)


def _concatenate(parts):
    return tuple(map(np.concatenate, zip(*parts, strict=True)))


class _Unpickler(pickle.Unpickler):
    """Makes arrays; refuses whatever else a pickle may call."""

    def find_class(self, module, name):
        if (module, name) in (("numpy", "ndarray"), ("numpy", "dtype")):
            return getattr(np, name)
        if name == "_reconstruct" and module.endswith(".multiarray"):
            return _make_empty
        if (module, name) == ("_codecs", "encode"):  # how Python 3 writes bytes for Python 2
            return _encode
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is not admitted")


def _make_empty(cls, shape, kind):
    # NumPy's own would take any shape, and the memory for it.
    if cls is not np.ndarray or shape != (0,):
        raise pickle.UnpicklingError("it asks for something other than an array")
    return np.ndarray.__new__(np.ndarray, (0,), kind)


def _encode(text, encoding):
    return str(text).encode("latin1")


def _unpickle(path):
    content = pathlib.Path(path).read_bytes()
    try:
        return _Unpickler(io.BytesIO(content), encoding="bytes").load()
    # Bytes that are no pickle can end in an exception of any kind.
    except Exception as error:
        raise ValueError(
            f"{path} is not a file of CIFAR's Python version, or damaged: {error}."
        ) from error


_TEN = {"train": _CIFAR10[:5], "test": _CIFAR10[5], "num_classes": 10}
_HUNDRED = {"train": ["train"], "test": "test", "num_classes": 100}

CIFAR10 = (
    formats.Format(
        tuple(f"{name}.bin" for name in _CIFAR10),
        partial(read_binary, label_bytes=1, **_TEN),
        ("", "cifar-10-batches-bin"),
    ),
    formats.Format(
        _CIFAR10,
        partial(read_python, key="labels", **_TEN),
        ("", "cifar-10-batches-py", "cifar-10-batches-py-target/cifar-10-batches-py"),
    ),
)
CIFAR100 = (
    formats.Format(
        ("train.bin", "test.bin"),
        partial(read_binary, label_bytes=2, **_HUNDRED),
        ("", "cifar-100-binary"),
    ),
    formats.Format(
        ("train", "test"),
        partial(read_python, key="fine_labels", **_HUNDRED),
        ("", "cifar-100-python", "cifar-100-python-target/cifar-100-python"),
    ),
)
