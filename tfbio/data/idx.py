"""IDX: the file format in which MNIST and its kin are published."""

import gzip
import math
import os
import pathlib
import struct
import zlib

import numpy as np

_DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def read(path: str | os.PathLike[str]) -> np.ndarray:
    """Read an IDX file, plain or compressed with gzip.

    Two zero bytes, one for the type, one for the number of dimensions, each dimension as a
    big-endian 32-bit integer, then the entries in C order, and nothing after them.

    Args:
        path: The file.

    Returns:
        A `numpy.ndarray` of the stated shape and type, in native byte order.

    Raises:
        ValueError: If the file is no IDX file, holds nothing, or its header does not agree with
            its length. What the header claims is never allocated.
        OSError: If it cannot be read.

    Example:
        >>> import pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp(), "labels-idx1-ubyte")
        >>> _ = path.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 8, 9]))
        >>> read(path)
        array([7, 8, 9], dtype=uint8)

    References:
        LeCun, Cortes and Burges, "The MNIST database of handwritten digits".
    """
    path = pathlib.Path(path)
    try:
        with path.open("rb") as file:
            compressed = file.read(2) == b"\x1f\x8b"
        # No stream of gzip's is more than 1032 times its file.
        most = path.stat().st_size * (1032 if compressed else 1)
        with gzip.open(path) if compressed else path.open("rb") as file:
            return _read(file, path, most)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path} is a damaged or truncated gzip file: {error}.") from error


def _read(file, path, most):
    """Read an open file that cannot hold more than `most` bytes."""
    start = file.read(4)
    if len(start) < 4 or start[:2] != b"\0\0" or start[2] not in _DTYPES:
        raise ValueError(
            f"{path} is not an IDX file: it must start with two zero bytes and a type code. "
            f"Received: {start.hex(' ') or 'an empty file'}."
        )
    dtype, rank = np.dtype(_DTYPES[start[2]]), start[3]
    header = file.read(4 * rank)
    if not 0 < rank <= 32 or len(header) < 4 * rank:
        raise ValueError(f"{path} has an IDX header of {rank} dimensions, too many or truncated.")
    shape = struct.unpack(f">{rank}I", header)
    if 0 in shape:
        raise ValueError(f"{path} has an IDX header of shape {shape}, which holds nothing.")
    expected = math.prod(shape) * dtype.itemsize
    # Never more than the file can hold, whatever its header says; and one byte, to see the end.
    entries = file.read(min(expected, most) + 1)
    if len(entries) != expected:
        raise ValueError(
            f"{path} does not hold what its IDX header states: shape {shape} of "
            f"{dtype.itemsize}-byte entries is {expected} bytes. Received: "
            f"{'more' if len(entries) > expected else len(entries)}."
        )
    return np.frombuffer(entries, dtype).reshape(shape).astype(dtype.newbyteorder("="))
