"""MNIST's layouts: four IDX files, or the npz file that Keras downloads."""

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from tfbio.data import formats, idx

_SHAPE, _CLASSES = (28, 28, 1), 10


def read_idx(folder: Path) -> tuple[Any, ...]:
    """Read the four IDX files of MNIST, Fashion-MNIST or another dataset made after them.

    Args:
        folder: Holds them, plain or compressed with gzip.

    Returns:
        ((images, labels), (images, labels)) for training and test.

    Raises:
        ValueError: If a file is damaged, or the files do not fit together.
        OSError: If one is missing or cannot be read.

    Example:
        >>> read_idx("/nowhere")
        Traceback (most recent call last):
        FileNotFoundError: /nowhere has no train-images-idx3-ubyte.gz or train-...
    """
    parts = []
    for prefix in ("train", "t10k"):
        names = [f"{prefix}-{kind}-ubyte" for kind in ("images-idx3", "labels-idx1")]
        paths = [formats.find_file(folder, f"{name}.gz", name) for name in names]
        images, labels = map(idx.read, paths)
        where = " with ".join(map(str, paths))
        if images.ndim == 3:
            images = images[..., None]
        parts.append(formats.check(where, images, labels, _SHAPE, _CLASSES))
    return tuple(parts)


def read_npz(folder: Path) -> tuple[Any, ...]:
    """Read mnist.npz, as `keras.datasets.mnist` leaves it.

    Args:
        folder: Holds it.

    Returns:
        ((images, labels), (images, labels)) for training and test.

    Raises:
        ValueError: If the file is damaged.
        OSError: If it is missing or cannot be opened.

    Example:
        >>> read_npz("/nowhere")
        Traceback (most recent call last):
        FileNotFoundError: /nowhere has no mnist.npz.
    """
    path = formats.find_file(folder, "mnist.npz")
    try:
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            arrays = {
                name: _array(archive, f"{name}.npy")
                for name in ("x_train", "y_train", "x_test", "y_test")
            }
    # What the zipfile module raises for damaged archives, one way or another.
    except (
        *(ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error),
        *(NotImplementedError, RuntimeError, SyntaxError, OSError),
    ) as error:
        raise ValueError(f"{path} is not Keras's mnist.npz, or damaged: {error}") from error
    return tuple(
        formats.check(path, arrays[f"x_{part}"][..., None], arrays[f"y_{part}"], _SHAPE, _CLASSES)
        for part in ("train", "test")
    )


def _array(archive, name):
    """Return an array of the archive, without the memory that a lying header would ask for."""
    size = archive.getinfo(name).file_size
    # Deflate's ratio is at most 1032.
    if size > 1032 * archive.getinfo(name).compress_size + 1032:
        raise ValueError(f"{name} claims to unpack to {size} bytes.")
    with archive.open(name) as file:
        if np.lib.format.read_magic(file) != (1, 0):
            raise ValueError(f"{name} is of another version of NumPy's format.")
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
        entries = file.read()
    if fortran or dtype.hasobject:
        raise ValueError(f"{name} holds {dtype} that cannot be read safely or in order.")
    return np.frombuffer(entries, dtype).reshape(shape)


_FILES = tuple(
    f"{prefix}-{kind}-ubyte"
    for prefix in ("train", "t10k")
    for kind in ("images-idx3", "labels-idx1")
)
NPZ = formats.Format(("mnist.npz",), read_npz)


def idx_format(torchvision: str) -> formats.Format:
    """Return the format of four IDX files.

    Args:
        torchvision: The name of torchvision's folder for the dataset.

    Returns:
        A `Format`.

    Example:
        >>> idx_format("MNIST").folders
        ('', 'raw', 'MNIST/raw')
    """
    return formats.Format(_FILES, read_idx, ("", "raw", f"{torchvision}/raw"), ("", ".gz"))
