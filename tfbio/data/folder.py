"""A folder: any images by class, or for prediction, any images."""

import itertools
import logging
import os
import pathlib

import numpy as np
import tensorflow as tf

from tfbio.data.chance import choose_test
from tfbio.data.encoded import Encoded, common_size

EXTENSIONS = (".png", ".jpg", ".jpeg", ".bmp", ".gif")
_TESTS = ("test", "val", "validation")
_LOG = logging.getLogger("tfbio")


def load(
    data_dir: str | os.PathLike[str], image_size: int
) -> tuple[Encoded, Encoded, tuple[str, ...]]:
    """Read a folder of images by class, in three channels.

    Args:
        data_dir: Holds train/<class>/ and test/<class>/, for which val/ or validation/ may stand;
            or <class>/, of which a fifth of each class, fixed, becomes the test split.
        image_size: Pixels a side to resize to, or 0 where all images are of one size.

    Returns:
        (training `Encoded`, test `Encoded`, class names: the sorted names of the classes' folders).

    Raises:
        ValueError: If classes or images are missing, or differ in size without `image_size`.
        OSError: If the folder is missing or cannot be read.

    Example:
        >>> load("/nowhere", 32)
        Traceback (most recent call last):
        FileNotFoundError: There is no folder '/nowhere'.
    """
    if not data_dir:
        raise ValueError("`data_dir` must be the folder of images by class. Received: none.")
    root = _folder(data_dir)
    if (root / "train").is_dir():
        test = next((root / name for name in _TESTS if (root / name).is_dir()), None)
        if test is None:
            raise ValueError(f"{root} has the folder train, but none of {', '.join(_TESTS)}.")
        classes, paths, labels = _list_classes(root / "train")
        others, test_paths, test_labels = _list_classes(test)
        if unknown := sorted(set(others) - set(classes)):
            raise ValueError(
                f"{test} has classes that {root / 'train'} lacks: {', '.join(unknown)}."
            )
        if test.name != "test":
            _LOG.warning("%s stands for the test split, which %s lacks", test, root)
        # Its own numbers count its own folders.
        test_labels = np.array([classes.index(name) for name in others])[test_labels]
    else:
        classes, every, labels = _list_classes(root)
        held = choose_test(labels, 0.2)
        if not held.any():
            raise ValueError(
                f"{root} must have a class of 3 images or more, one of which is the test split."
            )
        _LOG.warning("%s has no train folder: a fifth of each class is the test split", root)
        every = np.array(every, object)
        paths, test_paths = list(every[~held]), list(every[held])
        labels, test_labels = labels[~held], labels[held]
    shape = (image_size, image_size) if image_size else common_size(paths + test_paths)
    shape = (*shape, 3)
    return Encoded(paths, labels, shape), Encoded(test_paths, test_labels, shape), tuple(classes)


def images(
    folder: pathlib.Path | str,
    size: tuple[int, int] | None,
    channels: int,
    batch_size: int = 64,
    cropped: bool = False,
) -> tuple[list[str], tf.data.Dataset]:
    """Return the images of a folder and of all folders within, to predict their classes.

    Args:
        folder: A path.
        size: (height, width) to resize to, or None where all images are of one size.
        channels: 1 or 3.
        batch_size: Images per batch; the last may be smaller.
        cropped: Whether they are cropped centrally, as photographs are, and not resized as a whole.

    Returns:
        (sorted paths, a `tf.data.Dataset` of float32 images of 0 to 1, in the paths' order). A
        damaged image is an error of the dataset's, which `clear_errors` turns into a
        ValueError.

    Raises:
        ValueError: If there are no images, or they differ in size where `size` is None.
        OSError: If the folder is missing or cannot be read.

    Example:
        >>> import tempfile
        >>> place = tempfile.mkdtemp()
        >>> for name in ("b.png", "a.png"):
        ...     png = tf.io.encode_png(tf.zeros((9, 9, 3), tf.uint8))
        ...     tf.io.write_file(f"{place}/{name}", png)
        >>> paths, batches = images(place, size=(8, 8), channels=1)
        >>> [path[-5:] for path in paths], next(iter(batches)).shape
        (['a.png', 'b.png'], TensorShape([2, 8, 8, 1]))
    """
    paths = list_images(folder)
    shape = size or common_size(paths)
    split = Encoded(paths, np.zeros(len(paths)), (*shape, channels), cropped=cropped)
    return paths, split.batches(batch_size).map(lambda images, _: images)


def list_images(folder: pathlib.Path | str) -> list[str]:
    """Return the sorted paths of the images in a folder and in all folders within.

    Args:
        folder: A path.

    Raises:
        ValueError: If there are no images, or a link leads back to a folder that it is in.
        OSError: If the folder is missing.

    Example:
        >>> list_images("/nowhere")
        Traceback (most recent call last):
        FileNotFoundError: There is no folder '/nowhere'.
    """
    root = _folder(folder)
    paths = _images_within(root)
    if not paths:
        raise ValueError(f"{root} holds no images: none of {', '.join(EXTENSIONS)}.")
    return paths


def _folder(path):
    if not pathlib.Path(path).is_dir():
        raise FileNotFoundError(f"There is no folder {str(path)!r}.")
    return pathlib.Path(path)


def _images_within(folder):
    """Return the paths of all images in a folder, hidden ones left out."""
    paths = []
    for place, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        here = pathlib.Path(place).resolve()
        for name in folders:
            target = (here / name).resolve()
            if here.is_relative_to(target):
                raise ValueError(
                    f"{os.path.join(place, name)} links to {target}, within which it is: its "
                    "images would be read again and again. Remove the link."
                )
        paths += [
            os.path.join(place, name)
            for name in names
            if name.lower().endswith(EXTENSIONS) and not name.startswith(".")
        ]
    return sorted(paths)


def _list_classes(root):
    """Return the sorted names of the folders in `root`, their images, and the images' labels."""
    folders = [path for path in sorted(root.iterdir()) if path.is_dir() and path.name[0] != "."]
    if not folders:
        raise ValueError(f"{root} must hold a folder for each class, and has none.")
    lists = [_images_within(folder) for folder in folders]
    for folder, paths in zip(folders, lists, strict=True):
        if not paths:
            raise ValueError(
                f"The class {folder} holds no images: none of {', '.join(EXTENSIONS)}."
            )
    labels = np.repeat(np.arange(len(lists)), list(map(len, lists)))
    return [folder.name for folder in folders], list(itertools.chain(*lists)), labels
