"""Checkpoints: a training's whole state in one file, written at once or not at all."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pathlib
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

_NAME = re.compile(r"step-(\d{9,})-([0-9a-f]{16})\.npz")


class Checkpoints:
    """The newest checkpoints of one folder.

    A checkpoint is one `.npz` file of arrays and of the training's progress, with the step and a
    digest of the content in its name. It is written beside, flushed to the disk and renamed, so
    that a name always stands for a whole file; whatever happens to the file later, the digest
    tells.

    Args:
        folder: Where they are; made if need be.
        keep: How many to keep.

    Example:
        >>> import tempfile
        >>> checkpoints = Checkpoints(tempfile.mkdtemp(), keep=1)
        >>> for step in (10, 20):
        ...     _ = checkpoints.save(step, {"w": np.ones(2)}, {"best": None})
        >>> step, arrays, progress = checkpoints.latest()
        >>> step, arrays["w"], progress
        (20, array([1., 1.]), {'best': None})
    """

    def __init__(self, folder: str | os.PathLike[str], keep: int):
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.keep = keep

    def save(
        self, step: int, arrays: Mapping[str, np.ndarray], progress: Mapping[str, Any]
    ) -> pathlib.Path:
        """Write one checkpoint, then remove the oldest beyond `keep`.

        Args:
            step: The number of steps done.
            arrays: A dict from name to array.
            progress: What else there is to know, for JSON.

        Returns:
            The file's path.

        Raises:
            OSError: If it cannot be written; the older ones are then all still there.
        """
        buffer = io.BytesIO()
        text = json.dumps(progress).encode()
        np.savez(buffer, progress=np.frombuffer(text, np.uint8), **dict[str, Any](arrays))
        content = buffer.getbuffer()
        path = self.folder / f"step-{step:09d}-{digest(content)}.npz"
        write(path, content)
        # The one just written counts as newest, even after a fall-back to an older step.
        others = [old for _, _, old in self._files() if old != path]
        # A process that was killed as it wrote has left its file, of which no other has the name.
        for old in (*others[self.keep - 1 :], *self.folder.glob("*.writing")):
            old.unlink(missing_ok=True)
        return path

    def latest(
        self, tell: Callable[[str], Any] = print
    ) -> tuple[int, dict[str, np.ndarray], dict[str, Any]] | None:
        """Return the newest checkpoint that is whole.

        Args:
            tell: Called with a line of text for every damaged file that is passed over.

        Returns:
            (step, arrays, progress), or None if there is none.
        """
        for step, expected, path in self._files():
            content = path.read_bytes()
            if digest(content) == expected:
                with np.load(io.BytesIO(content)) as archive:
                    arrays = dict(archive)
                return step, arrays, json.loads(arrays.pop("progress").tobytes())
            tell(f"Checkpoint {path} is damaged; falling back to the one before, if there is one.")
            # Out of the way, or it would pass for the newest again and again.
            path.rename(path.with_suffix(".damaged"))
        return None

    def _files(self):
        """Return (step, digest, path) of every checkpoint, newest first."""
        names = [(_NAME.fullmatch(path.name), path) for path in self.folder.iterdir()]
        files = [(int(name[1]), name[2], path) for name, path in names if name]
        return sorted(files, key=lambda file: file[0], reverse=True)


def write(path: str | os.PathLike[str], content: bytes | memoryview) -> None:
    """Write a file so that it is there whole, or as it was before.

    Args:
        path: The file.
        content: Its bytes.

    Raises:
        OSError: If it cannot be written.

    Example:
        >>> import tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp(), "a.txt")
        >>> write(path, b"whole")
        >>> path.read_text()
        'whole'
    """
    path = pathlib.Path(path)
    beside = path.with_name(path.name + ".writing")
    try:
        with beside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from error  # it names no file
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the new name, too
    finally:
        os.close(folder)


def digest(content: bytes | memoryview) -> str:
    """Return 64 bits that differ where contents do, in hexadecimal digits.

    Args:
        content: Bytes.

    Example:
        >>> len(digest(b"content"))
        16
    """
    return hashlib.blake2b(content, digest_size=8).hexdigest()
