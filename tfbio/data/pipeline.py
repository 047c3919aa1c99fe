"""The pipeline: from arrays to batches on the device, with tf.data."""

import numpy as np
import tensorflow as tf


def resize(images, size):
    """Return `images` resized to `size` × `size` pixels by bilinear interpolation.

    Args:
        images: A float array (N, height, width, channels).
        size: Pixels a side, or 0 to leave the images as they are.

    Returns:
        A float32 array.

    Example:
        >>> resize(np.ones((1, 28, 28, 1), "float32"), 32).shape
        (1, 32, 32, 1)
    """
    if size in (0, *{images.shape[1]} & {images.shape[2]}):
        return images
    chunks = [
        tf.image.resize(images[start : start + 4096], (size, size)).numpy()
        for start in range(0, len(images), 4096)
    ]
    return np.concatenate(chunks)


def split(images, labels, fraction, seed):
    """Split a validation set off the training set, at random by `seed`.

    Args:
        images: An array of N images.
        labels: Their N labels.
        fraction: The share of the validation set, 0 or more and less than 1.
        seed: An integer.

    Returns:
        ((images, labels) to train on, (images, labels) to validate on).

    Example:
        >>> train, validation = split(np.zeros((10, 1)), np.zeros(10), 0.2, seed=0)
        >>> len(train[1]), len(validation[1])
        (8, 2)
    """
    order = np.random.default_rng(seed).permutation(len(images))
    held_out = round(fraction * len(images))
    kept = np.sort(order[held_out:])
    held = np.sort(order[:held_out])
    return (images[kept], labels[kept]), (images[held], labels[held])


def batches(images, labels, batch_size, seed=None):
    """Return a tf.data.Dataset of batches; with a seed, in a new random order every epoch.

    Args:
        images: An array of N images.
        labels: Their N labels.
        batch_size: Examples per batch; the last may be smaller.
        seed: An integer, or None to keep the order.

    Returns:
        A `tf.data.Dataset` of (images, labels).

    Example:
        >>> len(batches(np.zeros((10, 1)), np.zeros(10), batch_size=4))
        3
    """
    dataset = tf.data.Dataset.from_tensor_slices((images, labels))
    if seed is not None:
        dataset = dataset.shuffle(len(images), seed=seed, reshuffle_each_iteration=True)
    return dataset.batch(batch_size).prefetch(tf.data.AUTOTUNE)
