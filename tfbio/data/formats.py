"""A format: one way in which a dataset's own files lie in a folder, and how they are read."""

import pathlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Format(NamedTuple):
    """One layout of files.

    Attributes:
        files: The names of its files, relative to the folder.
        read: A function of the folder that returns ((images, labels), (images, labels)), for
            training and test: uint8 (N, height, width, channels) and integers (N,).
        folders: Where, relative to the folder given, the files may lie.
        suffixes: What may follow the names.
    """

    files: tuple[str, ...]
    read: Callable
    folders: tuple[str, ...] = ("",)
    suffixes: tuple[str, ...] = ("",)

    def find(self, folder: pathlib.Path | str) -> pathlib.Path | None:
        """Return the folder that has at least one of the files, or None.

        One is enough: that another is missing is then an error that names it, not a reason to
        look elsewhere.

        Args:
            folder: Where to look.

        Returns:
            A `pathlib.Path` or None.
        """
        for inner in self.folders:
            place = pathlib.Path(folder, inner)
            names = [name + suffix for name in self.files for suffix in self.suffixes]
            if any((place / name).is_file() for name in names):
                return place
        return None


class Published(NamedTuple):
    """A dataset whose own files can be read.

    Attributes:
        class_names: The classes' names in the order of the labels.
        formats: The layouts of its files, in the order in which they are looked for.
    """

    class_names: tuple[str, ...]
    formats: tuple[Format, ...]


def find_file(folder: pathlib.Path | str, *names: str) -> pathlib.Path:
    """Return the first of the files that exists.

    Args:
        folder: A folder.
        *names: The names that the file may have.

    Returns:
        A `pathlib.Path`.

    Raises:
        FileNotFoundError: If there is none.

    Example:
        >>> find_file("/nowhere", "train.bin")
        Traceback (most recent call last):
        FileNotFoundError: /nowhere has no train.bin.
    """
    for name in names:
        if (path := pathlib.Path(folder, name)).is_file():
            return path
    raise FileNotFoundError(f"{folder} has no {' or '.join(names)}.")


def check(
    path: pathlib.Path | str,
    images: np.ndarray,
    labels: np.ndarray,
    shape: tuple[int, ...],
    num_classes: int,
    first: int = 0,
    count: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Refuse images and labels that do not fit together, or a dataset.

    Args:
        path: What to name in the message.
        images: An array.
        labels: An array.
        shape: What an image's shape must be.
        num_classes: The number of classes.
        first: What the first class is called in the file.
        count: How many images there must be; None where the file itself states how many it has,
            so that it cannot be cut short without a trace.

    Returns:
        images, in C order, and labels as int64, 0 to `num_classes` − 1.

    Raises:
        ValueError: If anything does not fit.

    Example:
        >>> check("a.bin", np.zeros((2, 8, 8, 1), "uint8"), np.array([3, 10]), (8, 8, 1), 10)
        Traceback (most recent call last):
        ValueError: a.bin has labels outside the 10 classes, 0 to 9. Received: 3 to 10.
    """
    if images.dtype != np.uint8 or labels.dtype.kind not in "ui":
        raise ValueError(
            f"{path} must hold uint8 images and integer labels. "
            f"Received: {images.dtype} and {labels.dtype}."
        )
    if images.shape[1:] != shape or not len(images):
        raise ValueError(
            f"{path} must hold images of {' × '.join(map(str, shape))}, one or more. "
            f"Received: an array of shape {images.shape}."
        )
    if labels.shape != images.shape[:1]:
        raise ValueError(
            f"{path} must hold one integer label for each of its {len(images)} images. "
            f"Received: labels of shape {labels.shape}."
        )
    if count is not None and len(labels) != count:
        raise ValueError(
            f"{path} must hold {count} images, as published: the file is truncated, or of another "
            f"dataset. Received: {len(labels)}."
        )
    last = first + num_classes - 1
    if labels.min() < first or labels.max() > last:
        raise ValueError(
            f"{path} has labels outside the {num_classes} classes, {first} to {last}. "
            f"Received: {labels.min()} to {labels.max()}."
        )
    return np.ascontiguousarray(images), labels.astype(np.int64) - first
