"""Statistics: the mean and standard deviation of a split's pixels, channel by channel."""

import numpy as np

from tfbio.data.scaling import to_float
from tfbio.data.split import Split


def channel_statistics(split: Split) -> tuple[list[float], list[float]]:
    """Return the mean and the standard deviation over all pixels of all images.

    For `Photographs` these are the ones that they come with, ImageNet's well-known constants, or
    those of the central crops of 5,000 images.

    Args:
        split: A `Split`.

    Returns:
        (mean, std), each a list with a number for every channel. A channel that never varies has
        standard deviation 1.

    Example:
        >>> from tfbio import data
        >>> images = np.array([[[[0.0]]], [[[1.0]]]], "float32")
        >>> channel_statistics(data.Arrays(images, [0, 1]))
        ([0.5], [0.5])
    """
    if split.statistics is not None:
        return split.statistics
    count, total, squares = 0, np.zeros(()), np.zeros(())
    for images, _ in split.for_statistics().batches(256):
        images = to_float(images, "float64").numpy()
        pixels = images.astype(np.float64).reshape(-1, split.image_shape[-1])
        count += len(pixels)
        total = total + pixels.sum(axis=0)
        squares = squares + np.square(pixels).sum(axis=0)
    mean = total / count
    variance = np.maximum(squares / count - mean**2, 0.0)
    std = np.where(variance > 1e-12, np.sqrt(variance), 1.0)
    return mean.tolist(), std.tolist()
