"""IDX: the file format in which MNIST and its kin are published."""

import gzip
import math
import pathlib
import struct
import zlib

import numpy as np

_DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def read(path):
    """Read an IDX file, plain or compressed with gzip.

    Two zero bytes, one for the type, one for the number of dimensions, each dimension as a
    big-endian 32-bit integer, then the entries in C order, and nothing after them.

    Args:
        path: The file.

    Returns:
        A `numpy.ndarray` of the stated shape and type, in native byte order.

    Raises:
        ValueError: If the file is no IDX file, or its header does not agree with its length.
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
    data = pathlib.Path(path).read_bytes()
    if data[:2] == b"\x1f\x8b":
        try:
            data = gzip.decompress(data)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise ValueError(f"{path} is a damaged or truncated gzip file: {error}.") from error
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] not in _DTYPES:
        raise ValueError(
            f"{path} is not an IDX file: it must start with two zero bytes and a type code. "
            f"Received: {data[:4].hex(' ') or 'an empty file'}."
        )
    dtype, rank = np.dtype(_DTYPES[data[2]]), data[3]
    start = 4 + 4 * rank
    if rank == 0 or len(data) < start:
        raise ValueError(f"{path} has an IDX header of {rank} dimensions that is cut short.")
    shape = struct.unpack(f">{rank}I", data[4:start])
    expected = math.prod(shape) * dtype.itemsize
    if len(data) - start != expected:
        raise ValueError(
            f"{path} does not hold what its IDX header states: shape {shape} of "
            f"{dtype.itemsize}-byte entries is {expected} bytes. Received: {len(data) - start}."
        )
    return np.frombuffer(data, dtype, offset=start).reshape(shape).astype(dtype.newbyteorder("="))
