"""Datasets: images and labels by name, each already split into training and test."""

import difflib
import pathlib
from typing import NamedTuple

import numpy as np

from tfbio.data import idx

FASHION_MNIST_PLACES = (
    "/usr/share/datasets/fashion-mnist",  # Debian's package dataset-fashion-mnist
    "data/fashion-mnist",
)


class Dataset(NamedTuple):
    """Images as float32 of 0 to 1, shape (N, height, width, channels), and integer labels (N,).

    Attributes:
        train: (images, labels) for training and validation.
        test: (images, labels) that select nothing.
        num_classes: The number of classes; labels are 0 to num_classes − 1.
    """

    train: tuple
    test: tuple
    num_classes: int


def names():
    """Return the names that `load` knows.

    Example:
        >>> names()
        ('digits', 'fashion_mnist')
    """
    return tuple(_LOADERS)


def load(name, data_dir=""):
    """Load a dataset that is on this machine.

    Args:
        name: "digits", scikit-learn's 1,797 images of 8×8 pixels, of which 360 are the test split,
            stratified; or "fashion_mnist", 60,000 and 10,000 of 28×28, from IDX files.
        data_dir: The folder of the IDX files. Authoritative where given; otherwise the places in
            `FASHION_MNIST_PLACES` are looked through.

    Returns:
        A `Dataset`.

    Raises:
        ValueError: If the name is unknown, `data_dir` is given where nothing is read, a file is
            damaged or the files do not fit together.
        FileNotFoundError: If the files are not where they should be.

    Example:
        >>> digits = load("digits")
        >>> digits.train[0].shape, digits.test[0].shape
        ((1437, 8, 8, 1), (360, 8, 8, 1))

    References:
        Alpaydin and Kaynak 1998, "Optical recognition of handwritten digits"; Xiao, Rasul and
        Vollgraf 2017, "Fashion-MNIST".
    """
    if name not in _LOADERS:
        close = difflib.get_close_matches(str(name), _LOADERS, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"Unknown dataset {name!r}.{hint} Datasets: {', '.join(_LOADERS)}.")
    return _LOADERS[name](data_dir)


def _digits(data_dir):
    if data_dir:
        raise ValueError(
            "Dataset 'digits' comes with scikit-learn and reads no data_dir. "
            f"Received: data_dir={data_dir!r}."
        )
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    images = (digits.images[..., None] / 16.0).astype(np.float32)
    train_x, test_x, train_y, test_y = train_test_split(
        images, digits.target, test_size=360, stratify=digits.target, random_state=0
    )
    return Dataset((train_x, train_y), (test_x, test_y), 10)


def _fashion_mnist(data_dir):
    places = (data_dir,) if data_dir else FASHION_MNIST_PLACES
    found = [place for place in places if pathlib.Path(place).is_dir()]
    if not found:
        raise FileNotFoundError(
            "Fashion-MNIST was not found: no such folder as "
            + " or ".join(map(repr, places))
            + ". Give --data_dir a folder with its four IDX files, or install Debian's package "
            "dataset-fashion-mnist."
        )
    folder = pathlib.Path(found[0])
    train = _images_and_labels(folder, "train", 10)
    return Dataset(train, _images_and_labels(folder, "t10k", 10), 10)


def _images_and_labels(folder, prefix, num_classes):
    images = idx.read(_one_of(folder, f"{prefix}-images-idx3-ubyte"))
    labels = idx.read(_one_of(folder, f"{prefix}-labels-idx1-ubyte"))
    if images.dtype != np.uint8 or labels.dtype != np.uint8:
        raise ValueError(
            f"The {prefix} files in {folder} must hold unsigned bytes. "
            f"Received: {images.dtype} and {labels.dtype}."
        )
    if images.shape[1:] != (28, 28) or labels.shape != images.shape[:1] or not len(images):
        raise ValueError(
            f"The {prefix} files in {folder} must hold images of shape (N, 28, 28) and as many "
            f"labels. Received: {images.shape} and {labels.shape}."
        )
    if labels.max() >= num_classes:
        raise ValueError(
            f"The {prefix} labels in {folder} must be 0 to {num_classes - 1}. "
            f"Received: {labels.max()}."
        )
    return (images[..., None] / np.float32(255.0)).astype(np.float32), labels.astype(np.int64)


def _one_of(folder, name):
    for path in (folder / f"{name}.gz", folder / name):
        if path.is_file():
            return path
    raise FileNotFoundError(f"{folder} has neither {name}.gz nor {name}.")


_LOADERS = {"digits": _digits, "fashion_mnist": _fashion_mnist}
