"""STL-10's layout: images and labels in binary files; the unlabeled images are not used."""

from pathlib import Path
from typing import Any

import numpy as np

from tfbio.data import formats

_SHAPE = (96, 96, 3)

COUNTS = {"train": 5_000, "test": 8_000}
"""The published number of images in each part."""


def read(folder: Path) -> tuple[Any, ...]:
    """Read train_X.bin, train_y.bin, test_X.bin and test_y.bin, whose images are column-major.

    Args:
        folder: Holds the files.

    Returns:
        ((images, labels), (images, labels)) for training and test.

    Raises:
        ValueError: If a file is truncated, the files do not fit together or hold another number
            of images than published, or labels are outside the classes.
        OSError: If one is missing or cannot be read.

    Example:
        >>> read("/nowhere")
        Traceback (most recent call last):
        FileNotFoundError: /nowhere has no train_X.bin.
    """
    return tuple(_part(folder, part) for part in ("train", "test"))


def _part(folder, part):
    paths = [formats.find_file(folder, f"{part}_{kind}.bin") for kind in "Xy"]
    images, labels = (np.frombuffer(path.read_bytes(), np.uint8) for path in paths)
    size = np.prod(_SHAPE)
    if len(images) % size:
        raise ValueError(
            f"{paths[0]} must hold whole images of {size} bytes. "
            f"Received: {len(images)} bytes, {len(images) % size} too many."
        )
    images = images.reshape(-1, *_SHAPE[::-1]).transpose(0, 3, 2, 1)
    where = " with ".join(map(str, paths))
    return formats.check(where, images, labels, _SHAPE, 10, first=1, count=COUNTS[part])


STL10 = (
    formats.Format(
        ("train_X.bin", "train_y.bin", "test_X.bin", "test_y.bin"), read, ("", "stl10_binary")
    ),
)
