"""Datasets: images and labels by name, each already split into training and test."""

import functools
import logging
import os
import pathlib
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tfbio._arguments import check_integer
from tfbio._extras import require
from tfbio.data import cifar, folder, imagenet, mnist, stl10, svhn, tfds
from tfbio.data.arrays import Arrays
from tfbio.data.formats import Published
from tfbio.data.photographs import Photographs
from tfbio.data.split import Split

_LOG = logging.getLogger("tfbio")


class Dataset(NamedTuple):
    """What `load` returns.

    Attributes:
        train: The `Split` for training and validation.
        test: The `Split` that selects nothing.
        num_classes: The number of classes; labels are 0 to num_classes − 1.
        class_names: Their names, or the numbers as text.
    """

    train: Split
    test: Split
    num_classes: int
    class_names: tuple[str, ...]

    @property
    def image_shape(self) -> tuple[int, ...]:
        """(height, width, channels) of every image."""
        return self.train.image_shape


_DIGITS = tuple(map(str, range(10)))

DATASETS = {
    "fashion_mnist": Published(
        (
            *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
            *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
        ),
        (mnist.idx_format("FashionMNIST"),),
    ),
    "mnist": Published(_DIGITS, (mnist.idx_format("MNIST"), mnist.NPZ)),
    "cifar10": Published(
        (
            *("airplane", "automobile", "bird", "cat", "deer"),
            *("dog", "frog", "horse", "ship", "truck"),
        ),
        cifar.CIFAR10,
    ),
    "cifar100": Published(tuple(map(str, range(100))), cifar.CIFAR100),
    "svhn_cropped": Published(_DIGITS, svhn.SVHN),
    "stl10": Published(
        (
            *("airplane", "bird", "car", "cat", "deer"),
            *("dog", "horse", "monkey", "ship", "truck"),
        ),
        stl10.STL10,
    ),
}
"""The datasets that are read from files of their own, by name; docs/add_a_dataset.md adds one."""


def names() -> tuple[str, ...]:
    """Return the names that `load` knows.

    Example:
        >>> names()[:4]
        ('digits', 'fashion_mnist', 'mnist', 'cifar10')
    """
    return ("digits", *DATASETS, *imagenet.NAMES, "folder")


def load(
    name: str,
    data_dir: pathlib.Path | str = "",
    download: bool = False,
    image_size: int = 0,
    max_corrupt: float = 0.001,
) -> Dataset:
    """Load a dataset that is on this machine, or if asked, download it.

    Args:
        name: "digits", scikit-learn's 1,797 images of 8×8 pixels, of which 360 are the test split,
            stratified; "folder", images by class as `tfbio.data.folder.load` says; another of
            `names()`, as its authors, Keras or torchvision leave it on disk, or prepared by
            TensorFlow Datasets (TFDS); or any other image classification dataset of TFDS.
        data_dir: The folder of the dataset's files, or of TFDS's datasets. Authoritative where
            given; otherwise the well-known places are looked through, then TFDS's own folder.
        download: Whether to have TFDS download and prepare, in `data_dir` or its own folder, what
            is not there.
        image_size: Pixels a side to resize to, or 0 to leave the images as they are; they are
            cropped to it, 224 if it is 0, in "imagenet2012" and "imagenette", which are read as
            `tfbio.data.imagenet.load` says, or as TFDS prepares them.
        max_corrupt: The share of those two's images that may be damaged, as `Photographs` says.

    Returns:
        A `Dataset`.

    Raises:
        ValueError: If an option is out of range, `data_dir` is given where nothing is read, a file
            is damaged or the files do not fit together.
        OSError: If the files are not where they should be, or cannot be read or downloaded.

    Example:
        >>> digits = load("digits", image_size=16)
        >>> digits.train.size, digits.test.size, digits.image_shape
        (1437, 360, (16, 16, 1))

    References:
        Alpaydin and Kaynak 1998, "Optical recognition of handwritten digits"; Xiao, Rasul and
        Vollgraf 2017, "Fashion-MNIST"; LeCun et al. 1998, "Gradient-based learning applied to
        document recognition"; Krizhevsky 2009, "Learning multiple layers of features from tiny
        images"; Netzer et al. 2011, "Reading digits in natural images with unsupervised feature
        learning"; Coates, Lee and Ng 2011, "An analysis of single-layer networks".
    """
    image_size = check_integer("image_size", image_size, low=0)
    if name == "digits":
        return _digits(data_dir, image_size)
    if name == "folder":
        return _dataset(*folder.load(data_dir, image_size))
    if name not in DATASETS:
        tfds.check_name(name, names())
    if imagenet.is_imagenet(name):
        return _imagenet(name, data_dir, download, image_size, max_corrupt)
    missing = data_dir and not pathlib.Path(data_dir).is_dir()
    # Only a folder that is not there yet can be made for a download.
    makes = download and tfds.is_known(name)
    if missing and (pathlib.Path(data_dir).exists() or not makes):
        raise _no_folder(data_dir)
    for place in (data_dir,) if data_dir else _places(name):
        for layout in _formats(name):
            if found := layout.find(place):
                _LOG.info("%s is read from %s", name, found)
                train, test = (
                    Arrays(images, labels, image_size) for images, labels in layout.read(found)
                )
                return _dataset(train, test, DATASETS[name].class_names)
    if not tfds.is_known(name):
        raise FileNotFoundError(_describe_missing(name, data_dir))
    make = functools.partial(Photographs, image_size=image_size, max_corrupt=max_corrupt)
    parts: Any = tfds.load(name, str(data_dir), download, image_size, _remedy(name), make)
    if parts is None:
        raise FileNotFoundError(_describe_missing(name, data_dir))
    return _dataset(*parts)


def _imagenet(name, data_dir, download, image_size, max_corrupt):
    if data_dir and not tf.io.gfile.isdir(data_dir) and not download:
        raise _no_folder(data_dir)
    remedy = (
        "Give `data_dir` a folder with train-00000-of-01024 and so on, with train/<class>/*.JPEG "
        f"and val/<class>/*.JPEG, or with {name} as TensorFlow Datasets prepares it."
    )
    make = imagenet.photographs(name, image_size, max_corrupt)
    parts: Any = imagenet.load(name, data_dir, make) if data_dir else None
    if parts is None:
        parts = tfds.load(name, data_dir, download, image_size, remedy, make, streamed=True)
    if parts is None:
        place = f"`data_dir={str(data_dir)!r}`" if data_dir else "the folder of TensorFlow Datasets"
        raise FileNotFoundError(f"{name} was not found in {place}. {remedy}")
    return _dataset(*parts)


def _formats(name):
    return DATASETS[name].formats if name in DATASETS else ()


def _dataset(train, test, class_names):
    return Dataset(train, test, len(class_names), class_names)


def _digits(data_dir, image_size):
    if data_dir:
        raise ValueError(
            "`data_dir` must be empty for digits, which come with scikit-learn. "
            f"Received: {str(data_dir)!r}."
        )
    require("sklearn", extra="demo")
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    images = (digits.images[..., None] / 16.0).astype(np.float32)
    train_x, test_x, train_y, test_y = train_test_split(
        images, digits.target, test_size=360, stratify=digits.target, random_state=0
    )
    return _dataset(
        Arrays(train_x, train_y, image_size), Arrays(test_x, test_y, image_size), _DIGITS
    )


def _places(name):
    """Return the folders to search without `data_dir`, first to last."""
    dashed = name.replace("_", "-")
    keras = pathlib.Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser() / "datasets"
    places = (
        pathlib.Path("data", name),
        pathlib.Path("data", dashed),
        pathlib.Path("/usr/share/datasets", dashed),  # Debian's package dataset-fashion-mnist
        keras / dashed,
        keras,
    )
    return tuple(dict.fromkeys(places))  # a name without "_" is dashed already


def _remedy(name):
    layouts = _formats(name)
    choices = [" or ".join(_name_files(layout) for layout in layouts)] if layouts else []
    if tfds.is_known(name):
        choices.append(f"{name} as TensorFlow Datasets prepares it")
    return f"Give `data_dir` a folder with {', or '.join(choices)}."


def _name_files(layout):
    return layout.files[0] + (" and so on" if len(layout.files) > 1 else "")


def _no_folder(data_dir):
    return FileNotFoundError(f"`data_dir` must be an existing folder. Received: {str(data_dir)!r}.")


def _describe_missing(name, data_dir):
    """Return what to say where neither a format's files nor a prepared dataset is found."""
    if data_dir:
        held = sorted(path.name for path in pathlib.Path(data_dir).iterdir())
        listed = ", ".join(held[:5]) + (", …" if len(held) > 5 else "") or "nothing"
        found = f"is not in `data_dir={str(data_dir)!r}`, which holds {listed}."
    else:
        places = _places(name) if name in DATASETS else ()
        prepared = ("the folder of TensorFlow Datasets",) if tfds.is_known(name) else ()
        looked = ", ".join(map(str, (*places, *prepared)))
        found = f"was not found in {looked}."
    download = " Or download it with `download`." if tfds.is_known(name) else ""
    return f"{name} {found} {_remedy(name)}{download}"
