"""Decoding: images from the bytes of files, as a whole or as far as a random crop needs them.

Images are decoded as they are stored: the orientation in a JPEG's EXIF data, by which viewers turn
or mirror it, is not applied. `read_orientation` reads it.
"""

from collections.abc import Sequence

import tensorflow as tf

from tfbio.data import crops


def decode(content: tf.Tensor, channels: int) -> tf.Tensor:
    """Return an image from its bytes.

    Args:
        content: A string tensor, of PNG, JPEG, BMP or GIF.
        channels: 1 or 3.

    Returns:
        A uint8 tensor (height, width, channels), the sides unknown until it is run.

    Example:
        >>> png = tf.io.encode_png(tf.constant([[[10, 20, 30]]], tf.uint8))
        >>> decode(png, 3).numpy().tolist(), decode(png, 1).numpy().tolist()
        ([[[10, 20, 30]]], [[[18]]])
    """
    start = tf.strings.substr(content, 0, 2)

    def converted():
        # These decoders give the file's own channels and no others.
        image = tf.io.decode_image(content, 0, expand_animations=False)
        if channels == 1:
            image = tf.cond(
                tf.shape(image)[-1] == 1,
                lambda: tf.cast(image, tf.float32),
                lambda: tf.image.rgb_to_grayscale(tf.cast(image[..., :3], tf.float32)),
            )
            return tf.cast(tf.round(image), tf.uint8)
        return tf.cond(
            tf.shape(image)[-1] == 1, lambda: tf.repeat(image, 3, -1), lambda: image[..., :3]
        )

    image = tf.cond(
        (start == "BM") | (start == "GI"),
        converted,
        lambda: tf.io.decode_image(content, channels, expand_animations=False),
    )
    return tf.ensure_shape(image, (None, None, channels))


def training_crop(
    content: tf.Tensor, channels: int, draw: tf.Tensor, size: Sequence[int]
) -> tf.Tensor:
    """Return `crops.training_crop` of an encoded image; of a JPEG, no more than that is decoded.

    Args:
        content: A string tensor, of PNG, JPEG, BMP or GIF.
        channels: 1 or 3.
        draw: 63 random bits, an int64 tensor.
        size: (height, width) that come out.

    Returns:
        A float32 tensor (*size, channels) of 0 to 255.

    Example:
        >>> jpeg = tf.io.encode_jpeg(tf.fill((40, 30, 3), tf.constant(128, tf.uint8)))
        >>> crop = training_crop(jpeg, 3, tf.constant(7, tf.int64), (8, 8))
        >>> crop.shape, float(crop[0, 0, 0])
        (TensorShape([8, 8, 3]), 128.0)
    """
    cut = tf.cond(
        is_whole_jpeg(content),
        lambda: _jpeg_cut(content, channels, crops.random_boxes(_sides([content]), draw[None])[0]),
        lambda: crops.random_cut(decode(content, channels), draw),
    )
    cut = tf.ensure_shape(cut, (None, None, channels))
    return crops.mirror(tf.image.resize(cut, size), draw)


def training_crops(
    jpegs: Sequence[tf.Tensor], channels: int, draws: tf.Tensor, size: Sequence[int]
) -> tf.Tensor:
    """Return `training_crop` of several JPEGs, as bytes; in a map, they cost less than one by one.

    Running it raises an InvalidArgumentError where one of them is no JPEG, or is damaged.

    Args:
        jpegs: A list of string tensors.
        channels: 1 or 3.
        draws: 63 random bits for each, an int64 tensor (N,).
        size: (height, width) that come out.

    Returns:
        A uint8 tensor (N, *size, channels): `crops.as_bytes` of each.

    Example:
        >>> jpeg = tf.io.encode_jpeg(tf.fill((40, 30, 3), tf.constant(128, tf.uint8)))
        >>> training_crops([jpeg, jpeg], 3, tf.constant([7, 8], tf.int64), (8, 8)).shape
        TensorShape([2, 8, 8, 3])
    """
    whole = tf.reduce_all([is_whole_jpeg(jpeg) for jpeg in jpegs])
    with tf.control_dependencies([tf.debugging.Assert(whole, ["no whole JPEG"])]):
        boxes = tf.unstack(crops.random_boxes(_sides(jpegs), draws), num=len(jpegs))
    images = []
    for jpeg, box, draw in zip(jpegs, boxes, tf.unstack(draws, num=len(jpegs)), strict=True):
        cut = tf.ensure_shape(_jpeg_cut(jpeg, channels, box), (None, None, channels))
        # Of bytes fewer are moved.
        images.append(crops.mirror(crops.as_bytes(tf.image.resize(cut, size)), draw))
    return tf.stack(images)


def window(content: tf.Tensor, channels: int, box: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return a part of an encoded image; of a JPEG, no more than that is decoded.

    Args:
        content: A string tensor, of PNG, JPEG, BMP or GIF.
        channels: 1 or 3.
        box: An int32 tensor (top, left, height, width), within the image.

    Returns:
        (a uint8 tensor (height, width, channels), the whole image's (height, width), int32).

    Example:
        >>> png = tf.io.encode_png(tf.zeros((40, 30, 3), tf.uint8))
        >>> part, sides = window(png, 3, tf.constant([5, 5, 10, 20]))
        >>> part.shape, sides.numpy()
        (TensorShape([10, 20, 3]), array([40, 30], dtype=int32))
    """

    def jpeg():
        (sides,) = tf.unstack(_sides([content]), num=1)
        return _jpeg_cut(content, channels, box), sides

    def other():
        image = decode(content, channels)
        top, left, height, width = tf.unstack(box)
        return image[top : top + height, left : left + width], tf.shape(image)[:2]

    part, sides = tf.cond(is_whole_jpeg(content), jpeg, other)
    return tf.ensure_shape(part, (None, None, channels)), sides


def is_whole_jpeg(content: tf.Tensor) -> tf.Tensor:
    """Return whether an image's bytes are a JPEG's, and with its end.

    Without it a part may miss the damage: such an image is decoded as a whole, to fail.

    Args:
        content: A string tensor.

    Returns:
        A boolean tensor.

    Example:
        >>> jpeg = tf.io.encode_jpeg(tf.zeros((4, 4, 3), tf.uint8))
        >>> [bool(is_whole_jpeg(each)) for each in (jpeg, tf.strings.substr(jpeg, 0, 99))]
        [True, False]
    """
    whole = tf.strings.substr(content, 0, 3) == b"\xff\xd8\xff"
    return whole & (tf.strings.substr(content, -2, 2) == b"\xff\xd9")


def read_orientation(content: bytes) -> int:
    """Return the orientation in a JPEG's EXIF data.

    Args:
        content: The file's bytes, of any format.

    Returns:
        1 to 8, as EXIF numbers them: 1 is as stored, 3 is upside down, and from 5 on height and
        width are exchanged. 1 where there is none.

    Example:
        >>> read_orientation(tf.io.encode_jpeg(tf.zeros((4, 4, 3), tf.uint8)).numpy())
        1

    References:
        CIPA DC-008, "Exchangeable image file format", tag 274.
    """
    at = 2
    while content[:2] == b"\xff\xd8" and content[at : at + 1] == b"\xff":
        marker, length = content[at + 1 : at + 2], int.from_bytes(content[at + 2 : at + 4], "big")
        body = content[at + 4 : at + 2 + length]
        if marker == b"\xe1" and body[:6] == b"Exif\0\0":
            return _find_orientation(body[6:])
        if length < 2 or marker == b"\xda":  # the pixels
            break
        at += 2 + length
    return 1


def _find_orientation(tiff):
    """Return the orientation in EXIF data, which have the form of a TIFF file."""
    order = "little" if tiff[:2] == b"II" else "big"

    def number(at, size):
        return int.from_bytes(tiff[at : at + size], order)

    start = number(4, 4)
    for at in range(start + 2, start + 2 + 12 * number(start, 2), 12):
        if number(at, 2) == 274:
            value = number(at + 8, 2)
            return value if 1 <= value <= 8 else 1
    return 1


def _sides(jpegs):
    return tf.stack([tf.io.extract_jpeg_shape(content)[:2] for content in jpegs])


def _jpeg_cut(content, channels, box):
    return tf.io.decode_and_crop_jpeg(content, box, channels)
