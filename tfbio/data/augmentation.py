"""Augmentation: random changes to images, each a pure function of the image and its random bits."""

import tensorflow as tf

CROP = "resized_crop_flip"
"""The one that reads no more of an image than it shows; the others change images of one size."""

_PADDING = 4  # pixels a side, of He et al.'s 32×32 images
_OFFSETS = 2 * _PADDING + 1


def augmentations() -> tuple[str, ...]:
    """Return the names of the augmentations.

    "flip" mirrors an image left to right with probability 1/2. "crop_flip" also pads it with 4
    pixels of zeros on each side and cuts its size out again at random; "edge_crop_flip" pads it
    with its outermost pixels, repeated. "resized_crop_flip" is ImageNet's: a random part of the
    image as it is stored, resized, as `crops.training_crop` says.

    Returns:
        A tuple of names.

    Example:
        >>> augmentations()
        ('none', 'flip', 'crop_flip', 'edge_crop_flip', 'resized_crop_flip')

    References:
        He, Zhang, Ren and Sun 2016, "Deep residual learning for image recognition", section 4.2;
        the code of Ernoult et al. 2022 ("edge_crop_flip"); Szegedy et al. 2015, "Going deeper with
        convolutions".
    """
    return ("none", "flip", "crop_flip", "edge_crop_flip", CROP)


def check(name: str, order: tuple[int, int] | None, names: tuple[str, ...] | None = None) -> None:
    """Refuse a name that is unknown, or an augmentation without an order to be random by.

    Args:
        name: A name.
        order: (seed, epoch), or None.
        names: Those that are known; `augmentations()` where None.

    Raises:
        ValueError: If it is refused.

    Example:
        >>> check("flip", (0, 1))
    """
    names = augmentations() if names is None else names
    if name not in names:
        raise ValueError(f"`augmentation` must be one of {', '.join(names)}. Received: {name!r}.")
    if name != "none" and order is None:
        raise ValueError(
            f"`augmentation={name!r}` is random: `order` must be (seed, epoch). Received: None."
        )


def apply(name: str, images: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
    """Return the images augmented.

    Args:
        name: "flip", "crop_flip" or "edge_crop_flip".
        images: A batch (n, height, width, channels).
        draws: 63 random bits for each image, int64 (n,).

    Returns:
        Images of the same shape.

    Example:
        >>> images = tf.reshape(tf.range(12.0), (2, 1, 6, 1))
        >>> apply("flip", images, tf.constant([0, 1], tf.int64))[:, 0, :, 0].numpy()
        array([[ 0.,  1.,  2.,  3.,  4.,  5.],
               [11., 10.,  9.,  8.,  7.,  6.]], dtype=float32)
    """
    shape = images.shape
    mirrored = draws[:, None] % 2 == 1
    columns = tf.range(shape[2], dtype=tf.int64)[None]
    columns = tf.where(mirrored, shape[2] - 1 - columns, columns)
    if name != "flip":
        offsets = draws[:, None] // 2 // tf.constant([1, _OFFSETS], tf.int64) % _OFFSETS
        rows = tf.range(shape[1], dtype=tf.int64)[None] + offsets[:, :1]
        columns += offsets[:, 1:]
        if name == "crop_flip":
            pad = [_PADDING, _PADDING]
            images = tf.pad(images, [[0, 0], pad, pad, [0, 0]])
        else:
            rows, columns = (
                tf.clip_by_value(place - _PADDING, 0, side - 1)
                for place, side in ((rows, shape[1]), (columns, shape[2]))
            )
        images = tf.gather(images, rows, axis=1, batch_dims=1)
    images = tf.gather(images, columns, axis=2, batch_dims=1)
    images.set_shape(shape)
    return images
