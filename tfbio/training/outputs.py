"""Outputs: files of the user's own, which are written where that harms nothing, or not at all."""

from __future__ import annotations

import contextlib
import os
import pathlib
from collections.abc import Iterable, Iterator


def refuse_overwriting(
    folder: str | os.PathLike[str],
    images: Iterable[str],
    output: str | os.PathLike[str],
    written: Iterable[str | os.PathLike[str]],
) -> None:
    """Refuse to overwrite images.

    Args:
        folder: The folder of images, as it was given.
        images: Their paths.
        output: The output, as it was given.
        written: The paths of all files to be written, which may lead to an image through links.

    Raises:
        ValueError: If one of them is an image.

    Example:
        >>> import pathlib, tempfile
        >>> image = pathlib.Path(tempfile.mkdtemp(), "a.png")
        >>> image.touch()
        >>> refuse_overwriting("photos", [image], "a.csv", ["a.csv"])
        >>> refuse_overwriting("photos", [image], image, [image])
        Traceback (most recent call last):
        ValueError: `output=...a.png` would overwrite ...a.png of `images=photos`. Give `output`...
    """
    there = [path for path in written if os.path.exists(path)]
    held = {_file(path): path for path in images if os.path.exists(path)} if there else {}
    for path in there:
        if _file(path) in held:
            raise ValueError(
                f"`output={output}` would overwrite {held[_file(path)]} of `images={folder}`. "
                "Give `output` another place."
            )


def _file(path):
    """Return what a file is known by, whatever links lead to it."""
    status = os.stat(path)
    return status.st_dev, status.st_ino


@contextlib.contextmanager
def making_folder(path: pathlib.Path, output: str | os.PathLike[str]) -> Iterator[None]:
    """Make a folder, and remove it where what is done within fails and leaves it empty.

    Args:
        path: A `pathlib.Path`; folders above it are made, and removed, as well.
        output: What to name in the error if it cannot be made.

    Raises:
        OSError: If it cannot be made.

    Example:
        >>> import pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp(), "deep", "inside")
        >>> with contextlib.suppress(ValueError), making_folder(path, path):
        ...     raise ValueError
        >>> path.parent.exists()
        False
    """
    with naming_output(output):
        missing = [each for each in (path, *path.parents) if not each.exists()]
    try:
        with naming_output(output):
            path.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        for each in missing:
            with contextlib.suppress(OSError):
                each.rmdir()
        raise


@contextlib.contextmanager
def naming_output(path: str | os.PathLike[str]) -> Iterator[None]:
    """Name the option in the error of an output that cannot be written.

    Args:
        path: What is written.

    Raises:
        OSError: Instead of the one within.

    Example:
        >>> with naming_output("/proc/a.csv"):
        ...     raise PermissionError(13, "Permission denied")
        Traceback (most recent call last):
        ...
        OSError: `output=/proc/a.csv` cannot be written: Permission denied. Give another place.
    """
    try:
        yield
    except OSError as error:
        raise OSError(
            f"`output={path}` cannot be written: {error.strerror}. Give another place."
        ) from error
