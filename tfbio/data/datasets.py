"""Datasets: images and labels by name, each already split into training and test."""

import difflib
import logging
import numbers
import os
import pathlib
from typing import NamedTuple

import numpy as np

from tfbio.data import formats, mnist
from tfbio.data.arrays import Arrays
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
    def image_shape(self):
        """(height, width, channels) of every image."""
        return self.train.image_shape


class _Known(NamedTuple):
    """A dataset whose own files can be read: its formats, where Keras puts them, its classes."""

    formats: tuple[formats.Format, ...]
    class_names: tuple[str, ...]
    keras: str = ""


_TEN = tuple(map(str, range(10)))
_KNOWN = {
    "fashion_mnist": _Known(
        (mnist.idx_format("FashionMNIST"),),
        (
            *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
            *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
        ),
        keras="fashion-mnist",
    ),
    "mnist": _Known((mnist.idx_format("MNIST"), mnist.NPZ), _TEN),
}


def names():
    """Return the names that `load` knows.

    Example:
        >>> names()
        ('digits', 'fashion_mnist', 'mnist')
    """
    return ("digits", *_KNOWN)


def load(name, data_dir="", download=False, image_size=0):
    """Load a dataset that is on this machine.

    Args:
        name: "digits", scikit-learn's 1,797 images of 8×8 pixels, of which 360 are the test split,
            stratified; or one of the other `names()`.
        data_dir: The folder of the dataset's files. Authoritative where given; otherwise the
            well-known places are looked through.
        download: Whether to download what is not there.
        image_size: Pixels a side to resize to, or 0 to leave the images as they are.

    Returns:
        A `Dataset`.

    Raises:
        ValueError: If an option is out of range, `data_dir` is given where nothing is read, a file
            is damaged or the files do not fit together.
        OSError: If the files are not where they should be, or cannot be read.

    Example:
        >>> digits = load("digits", image_size=16)
        >>> digits.train.size, digits.test.size, digits.image_shape
        (1437, 360, (16, 16, 1))

    References:
        Alpaydin and Kaynak 1998, "Optical recognition of handwritten digits"; Xiao, Rasul and
        Vollgraf 2017, "Fashion-MNIST"; LeCun et al. 1998, "Gradient-based learning applied to
        document recognition".
    """
    if not isinstance(image_size, numbers.Integral) or image_size < 0:
        raise ValueError(
            "--image_size must be pixels a side, or 0 to leave the images as they are. "
            f"Received: {image_size!r}."
        )
    if name == "digits":
        return _digits(data_dir, image_size)
    if name not in _KNOWN:
        close = difflib.get_close_matches(str(name), names(), n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ValueError(
            f"--dataset must be one of {', '.join(names())}. Received: {name!r}.{hint}"
        )
    known = _KNOWN[name]
    for place in (data_dir,) if data_dir else _places(name):
        for layout in known.formats:
            if folder := layout.find(place):
                _LOG.info("%s is read from %s", name, folder)
                train, test = (Arrays(*part, image_size) for part in layout.read(folder))
                return Dataset(train, test, len(known.class_names), known.class_names)
    raise FileNotFoundError(_nowhere(name, data_dir))


def _digits(data_dir, image_size):
    if data_dir:
        raise ValueError(
            "--dataset=digits comes with scikit-learn and reads no --data_dir. "
            f"Received: --data_dir={data_dir}."
        )
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    images = (digits.images[..., None] / 16.0).astype(np.float32)
    train_x, test_x, train_y, test_y = train_test_split(
        images, digits.target, test_size=360, stratify=digits.target, random_state=0
    )
    return Dataset(
        Arrays(train_x, train_y, image_size), Arrays(test_x, test_y, image_size), 10, _TEN
    )


def _places(name):
    """Return the folders to look through without --data_dir, first to last."""
    dashed = name.replace("_", "-")
    keras = pathlib.Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser() / "datasets"
    return (
        pathlib.Path("data", name),
        pathlib.Path("data", dashed),
        pathlib.Path("/usr/share/datasets", dashed),  # Debian's package dataset-fashion-mnist
        keras / _KNOWN[name].keras,
    )


def _nowhere(name, data_dir):
    """Return what to say where no format's files are found."""
    wanted = " or ".join(layout.files[0] for layout in _KNOWN[name].formats)
    if not data_dir:
        looked = ", ".join(map(str, _places(name)))
        return f"--dataset={name} was not found in {looked}. Give --data_dir a folder with {wanted}"
    folder = pathlib.Path(data_dir)
    if not folder.is_dir():
        return f"--data_dir: no such folder as {data_dir!r}."
    held = sorted(path.name for path in folder.iterdir())
    listed = ", ".join(held[:5]) + (", …" if len(held) > 5 else "") or "nothing"
    return f"--data_dir={data_dir} must hold {wanted} and so on. It holds {listed}."
