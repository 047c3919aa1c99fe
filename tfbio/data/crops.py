"""Crops: what is cut out of a photograph for training, at random, and for evaluation."""

import math
from collections.abc import Callable, Sequence

import tensorflow as tf

from tfbio.data import chance

_ATTEMPTS = 10
_AREA = (0.08, 1.0)
_LOG_RATIO = (math.log(3 / 4), math.log(4 / 3))
_VECTOR = 16  # float32 numbers in the widest vectors of processors
_MARGIN = 256 / 224  # the shorter side that evaluation resizes to, over what it cuts out


def random_boxes(sides: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
    """Return the boxes of random-resized crops.

    A box's area is a uniform share of 8 % to 100 % of the image's, and the logarithm of its width
    over its height is uniform from log 3/4 to log 4/3. The first of ten attempts that fits inside
    counts; where none does, the largest central box of an admitted ratio.

    Args:
        sides: The images' (height, width), an integer tensor (N, 2).
        draws: 63 random bits for each, an int64 tensor (N,), that alone decide: a box is the same
            whatever the others.

    Returns:
        An int32 tensor (N, 4) of (top, left, height, width).

    Example:
        >>> random_boxes([[375, 500], [100, 80]], tf.constant([7, 8], tf.int64)).shape
        TensorShape([2, 4])

    References:
        Szegedy et al. 2015, "Going deeper with convolutions"; torchvision's RandomResizedCrop.
    """
    count = tf.shape(draws)[0]
    # The exponential's last bit differs between a processor's vectors and the elements that are
    # left over after them: so none ever are.
    missing = -count % _VECTOR
    full = tf.cast(tf.pad(sides, [[0, missing], [0, 0]], constant_values=1), tf.float32)
    uniform = chance.uniform(tf.pad(draws, [[0, missing]]), 4 * _ATTEMPTS)
    uniform = tf.reshape(uniform, (-1, 4, _ATTEMPTS))
    area = tf.reduce_prod(full, -1, keepdims=True)
    area *= _AREA[0] + (_AREA[1] - _AREA[0]) * uniform[:, 0]
    ratio = tf.exp(_LOG_RATIO[0] + (_LOG_RATIO[1] - _LOG_RATIO[0]) * uniform[:, 1])
    sizes = tf.round(tf.sqrt(tf.stack([area / ratio, area * ratio], -1)))
    fits = tf.reduce_all((sizes > 0) & (sizes <= full[:, None]), -1)
    chosen = tf.argmax(fits, -1)  # the first that fits
    size = tf.gather(sizes, chosen, batch_dims=1)
    at = tf.stack([tf.gather(uniform[:, each], chosen, batch_dims=1) for each in (2, 3)], -1)
    # Rounding in float32 may reach the bound that is excluded.
    corner = tf.minimum(tf.floor(at * (full - size + 1)), full - size)
    low, high = math.exp(_LOG_RATIO[0]), math.exp(_LOG_RATIO[1])
    central = tf.minimum(full, tf.round(full[:, ::-1] * [1 / low, high]))
    found = tf.reduce_any(fits, -1, keepdims=True)
    size = tf.where(found, size, central)
    corner = tf.where(found, corner, (full - central) // 2)
    return tf.cast(tf.concat([corner, size], -1), tf.int32)[:count]


def training_crop(image: tf.Tensor, draw: tf.Tensor, size: Sequence[int]) -> tf.Tensor:
    """Return a random-resized crop of an image, mirrored with probability 1/2.

    It is resized bilinearly and without antialiasing, which would halve the speed of the input.

    Args:
        image: A tensor (height, width, channels).
        draw: 63 random bits, an int64 tensor.
        size: (height, width) that come out.

    Returns:
        A float32 tensor (*size, channels) in the range of `image`.

    Example:
        >>> image = tf.fill((40, 30, 1), 0.5)
        >>> training_crop(image, tf.constant(7, tf.int64), (8, 8)).shape
        TensorShape([8, 8, 1])
    """
    return mirror(tf.image.resize(random_cut(image, draw), size), draw)


def random_cut(image: tf.Tensor, draw: tf.Tensor) -> tf.Tensor:
    """Return the part of an image that `random_boxes` says.

    Args:
        image: A tensor (height, width, channels).
        draw: 63 random bits, an int64 tensor.

    Returns:
        A tensor of the same kind.

    Example:
        >>> random_cut(tf.zeros((1, 1, 3)), tf.constant(7, tf.int64)).shape
        TensorShape([1, 1, 3])
    """
    (box,) = tf.unstack(random_boxes(tf.shape(image)[None, :2], draw[None]), num=1)
    top, left, height, width = tf.unstack(box)
    return image[top : top + height, left : left + width]


def mirror(image: tf.Tensor, draw: tf.Tensor) -> tf.Tensor:
    """Return an image, mirrored where the draw is odd.

    Args:
        image: A tensor (height, width, channels).
        draw: 63 random bits, an int64 tensor.

    Returns:
        A tensor of the same kind.

    Example:
        >>> row, odd = tf.constant([[[0.0], [1.0]]]), tf.constant(1, tf.int64)
        >>> mirror(row, odd).numpy().ravel()
        array([1., 0.], dtype=float32)
    """
    # Along one axis, or along none: to choose between two images would take longer.
    return tf.reverse(image, tf.fill([draw % 2], 1))


def evaluation_crops(image: tf.Tensor, size: int, count: int = 1) -> tf.Tensor:
    """Return the central crop of an image, or ten crops, after the shorter side is resized.

    That side becomes `size`·256/224, antialiased; the longer one keeps the ratio.

    Args:
        image: A tensor (height, width, channels).
        size: Pixels a side of a crop.
        count: 1, or 10: the four corners, the center, and these five mirrored.

    Returns:
        A float32 tensor (size, size, channels), or (10, size, size, channels), in the range of
        `image`.

    Example:
        >>> evaluation_crops(tf.zeros((500, 375, 3), tf.uint8), 224, count=10).shape
        TensorShape([10, 224, 224, 3])

    References:
        Krizhevsky, Sutskever and Hinton 2012, "ImageNet classification with deep convolutional
        neural networks", section 4.1: ten crops.
    """
    shorter = round(size * _MARGIN)
    sides = tf.shape(image)[:2]
    sides = shorter * sides // tf.reduce_min(sides)
    image = tf.image.resize(image, sides, antialias=True)
    last = sides - size
    # Halves to even, as torchvision rounds.
    center = tf.cast(tf.round(tf.cast(last, tf.float32) / 2), tf.int32)

    def at(top, left):
        return tf.ensure_shape(
            image[top : top + size, left : left + size], (size, size, image.shape[-1])
        )

    if count == 1:
        return at(center[0], center[1])
    corners = [at(top, left) for top in (0, last[0]) for left in (0, last[1])]
    five = tf.stack([*corners, at(center[0], center[1])])
    return tf.concat([five, five[:, :, ::-1]], 0)


def as_bytes(image: tf.Tensor) -> tf.Tensor:
    """Return an image of 0 to 255 rounded to bytes, as batches of photographs hold it.

    Args:
        image: A float32 tensor.

    Returns:
        A uint8 tensor.

    Example:
        >>> as_bytes(tf.constant([0.4, 0.6, 255.0])).numpy()
        array([  0,   1, 255], dtype=uint8)
    """
    return tf.cast(image + 0.5, tf.uint8)


def average_over_crops(model: Callable[[tf.Tensor], tf.Tensor], images: tf.Tensor) -> tf.Tensor:
    """Return the logits of images, averaged where there are several crops of each.

    Args:
        model: A function from images to logits.
        images: A tensor (B, H, W, C), or (B, crops, H, W, C).

    Returns:
        A float32 tensor (B, classes). The softmax probabilities of several crops are averaged, and
        the logarithm of the average is returned.

    Example:
        >>> logits = average_over_crops(lambda images: images[:, 0, 0], tf.zeros((2, 10, 1, 1, 4)))
        >>> tf.nn.softmax(logits).numpy()[0]
        array([0.25, 0.25, 0.25, 0.25], dtype=float32)
    """
    if len(images.shape) == 4:
        return tf.cast(model(images), tf.float32)
    # All at once would take ten times the memory of the batch that training fits to the device.
    logs = tf.map_fn(
        lambda index: tf.nn.log_softmax(tf.cast(model(images[:, index]), tf.float32)),
        tf.range(images.shape[1]),
        parallel_iterations=1,
        fn_output_signature=tf.float32,
    )
    return tf.reduce_logsumexp(logs, axis=0) - math.log(images.shape[1])
