"""SVHN's layout: the cropped digits in two files of MATLAB's."""

from pathlib import Path
from typing import Any

from tfbio._extras import require
from tfbio.data import formats

_SHAPE = (32, 32, 3)

COUNTS = {"train": 73_257, "test": 26_032}
"""The published number of images in each file."""


def read(folder: Path) -> tuple[Any, ...]:
    """Read train_32x32.mat and test_32x32.mat, where the digit 0 is labeled 10.

    Args:
        folder: Holds the files.

    Returns:
        ((images, labels), (images, labels)) for training and test.

    Raises:
        ValueError: If a file is damaged, or holds another number of images than published, or
            labels outside the classes.
        OSError: If one is missing or cannot be read.

    Example:
        >>> read("/nowhere")
        Traceback (most recent call last):
        FileNotFoundError: /nowhere has no train_32x32.mat.
    """
    return tuple(_part(folder, part) for part in ("train", "test"))


def _part(folder, part):
    require("scipy", extra="demo")
    from scipy.io import loadmat

    path = formats.find_file(folder, f"{part}_32x32.mat")
    try:
        with path.open("rb") as file:
            content = loadmat(file, variable_names=("X", "y"))
        images, labels = content["X"].transpose(3, 0, 1, 2), content["y"].ravel()
    # Bytes that are no such file can end in an exception of any kind.
    except Exception as error:
        raise ValueError(
            f"{path} is not one of SVHN's files of cropped digits, or damaged: {error}."
        ) from error
    images, labels = formats.check(path, images, labels, _SHAPE, 10, first=1, count=COUNTS[part])
    return images, (labels + 1) % 10


SVHN = (formats.Format(("train_32x32.mat", "test_32x32.mat"), read),)
