"""Detection: a split of images with boxes, as keras-cv's RetinaNet trains and predicts on them."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from tfbio._arguments import check_integer, is_integer
from tfbio.data import crops, decoding
from tfbio.data.damage import Damage, count_damage, read_images
from tfbio.data.examples import Examples
from tfbio.detection import boxes as geometry
from tfbio.detection.report import count, join_first

if TYPE_CHECKING:
    from tfbio.detection.annotations import Annotations

_LOG = logging.getLogger("tfbio")
_REASON = (
    " cannot be read as an image, or is not of the size that the annotations say, as stored: an "
    "EXIF orientation is not applied."
)
_MULTIPLE = 32  # keras-cv's feature pyramid needs multiples of it as sides


class DetectionExamples(Examples):
    """Encoded images of any size, and the boxes and classes of the objects in them.

    `batches` gives for training (images, targets): uint8 of 0 to 255 (B, height, width, 3), and a
    dict of "boxes", float32 (B, `max_boxes`, 4), and "classes", float32 (B, `max_boxes`), both
    filled up with −1, which is what keras-cv's `fit` takes, `bounding_box_format` "xyxy". An image
    keeps its aspect ratio, lies in the upper left corner, and has `padding` beside and below it.
    Crowds are no objects here; images without any are kept.

    For evaluation (`pad`) it gives (images, targets, about), where `about` is a dict of "ids",
    int64 (B,), "sizes", int32 (B, 2), the (height, width) of the image as it is stored, "scales",
    float32 (B, 2), by which these were multiplied, and "weights", float32 (B,): 0 where a batch is
    filled up or an image cannot be read. `original` takes predictions back by it.

    An image that cannot be read, or is of another size than the annotations say, is left out, as
    those of `Photographs` are: in training the next one takes its place. Annotations must be of the
    image as it is stored: the orientation in a JPEG's EXIF data is not applied.

    Args:
        source: `Files`, `records.Records` or `Contents`: the encoded images.
        annotations: `Annotations` of the same images in the same order.
        image_size: Pixels a side of the canvas that comes out, or (height, width): multiples of
            32. An image becomes as large as fits into it. 0 with `shorter_side`.
        max_boxes: How many objects of an image can be kept, N; of more, the largest are.
        max_corrupt: The share of the images that may be damaged, as for `Photographs`.
        trains: Whether the split is for training: objects beyond `max_boxes` are logged then.
        shorter_side: Pixels of an image's shorter side, or 0 to have it fit into `image_size`.
        longest_side: The most pixels of an image's longer side, which goes with `shorter_side`.
            The canvas is a square of this side, rounded up to a multiple of 32, so that images of
            both orientations have the same scale and batches have one shape.
        padding: The color beside and below an image, three integers of 0 to 255. That of a
            network's mean is what zeros are after standardization, to the rounding of a byte.

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> from tfbio.detection import coco
        >>> from tfbio.data.photographs import Contents
        >>> jpeg = tf.io.encode_jpeg(tf.fill((40, 80, 3), tf.constant(128, tf.uint8))).numpy()
        >>> annotations = coco.parse(
        ...     {
        ...         "images": [{"id": 7, "file_name": "a.jpg", "height": 40, "width": 80}],
        ...         "categories": [{"id": 3, "name": "cat"}],
        ...         "annotations": [
        ...             {"id": 1, "image_id": 7, "category_id": 3, "bbox": [10, 0, 20, 40]}
        ...         ],
        ...     },
        ...     "a.json",
        ... )
        >>> source = Contents([jpeg], [0], ["a.jpg"])
        >>> split = DetectionExamples(source, annotations, 64, max_boxes=2)
        >>> ((images, targets, about),) = split.batches(1, pad=True)
        >>> targets["boxes"][0].numpy().tolist(), targets["classes"][0].numpy().tolist()
        ([[8.0, 0.0, 24.0, 32.0], [-1.0, -1.0, -1.0, -1.0]], [0.0, -1.0])
        >>> images.shape, original(targets["boxes"], about)[0, 0]
        (TensorShape([1, 64, 64, 3]), array([10.,  0., 30., 40.]))
    """

    augmentations = geometry.augmentations()

    def __init__(
        self,
        source: Any,
        annotations: Annotations,
        image_size: int | Sequence[int],
        max_boxes: int = 100,
        max_corrupt: float = 0.001,
        trains: bool = True,
        shorter_side: int = 0,
        longest_side: int = 0,
        padding: Sequence[int] = (0, 0, 0),
    ):
        if len(padding) != 3 or not all(is_integer(c, low=0) and c < 256 for c in padding):
            raise ValueError(
                f"`padding` must be three integers of 0 to 255. Received: {padding!r}."
            )
        self.padding = tuple(map(int, padding))
        canvas = canvas_sides(image_size, shorter_side, longest_side)
        super().__init__(len(annotations.image_ids), (*canvas, 3))
        self.shorter_side, self.longest_side = shorter_side, longest_side
        self._source, self._annotations = source, annotations
        self.max_boxes = check_integer("max_boxes", max_boxes, low=1)
        self.max_corrupt = max_corrupt
        kept = _largest(annotations, max_boxes, trains)
        counts = np.bincount(annotations.images[kept], minlength=len(annotations.image_ids))
        with tf.device("CPU:0"):
            self._boxes = tf.constant(annotations.corners()[kept], tf.float32)
            self._classes = tf.constant(annotations.classes[kept], tf.float32)
            self._ends = tf.constant(np.concatenate([[0], np.cumsum(counts)]), tf.int64)
            self._sizes = tf.constant(annotations.sizes, tf.int32)

    @property
    def annotations(self) -> Annotations:
        """The `Annotations` of this split's images, crowds included, to evaluate by."""
        return self._annotations.taken(self._chosen)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes."""
        return self._annotations.class_names

    @property
    def fingerprint(self) -> str:
        """A digest of all annotations and of 64 of the images: other data have another."""
        held, digest = self.annotations, hashlib.blake2b(digest_size=16)
        for array in (held.image_ids, held.sizes, held.images, held.classes, held.boxes):
            digest.update(np.ascontiguousarray(array).tobytes())
        for content in self._sample():
            digest.update(content)
        return digest.hexdigest()

    def _content(self, row):
        return self._source.content(row).numpy()

    def check(self) -> None:
        """Refuse nothing: a damaged image is left out and counted when its batch comes."""

    def _objects(self, row):
        begin, end = self._ends[row], self._ends[row + 1]
        return self._boxes[begin:end], self._classes[begin:end]

    def _read(self, plan, row, draw):
        """Return (image, boxes, classes, about) of the image at a row."""
        size, sides, content = self.image_shape[:2], self._sizes[row], self._source.content(row)
        scaling = self.shorter_side, self.longest_side
        if "jitter" in plan.augmentation:
            # An odd draw mirrors: what is cut must not depend on that.
            window, out = geometry.jitter(sides, size, draw // 2, *scaling)
            image, real = decoding.window(content, 3, window)
        else:
            image = decoding.decode(content, 3)
            real = tf.shape(image)[:2]
            window = tf.concat([[0, 0], sides], 0)
            out = geometry.fit(sides, size, *scaling)
        same = tf.debugging.Assert(tf.reduce_all(real == sides), ["size"])
        with tf.control_dependencies([same]):
            image = tf.identity(image)
        boxes, classes = self._objects(row)
        boxes, seen = geometry.move(boxes, window, out)
        if not plan.evaluation:
            boxes, classes = boxes[seen], classes[seen]
        if "flip" in plan.augmentation:
            flip, width = draw % 2 == 1, tf.cast(out[1], tf.float32)
            image = tf.cond(flip, lambda: tf.reverse(image, [1]), lambda: image)
            boxes = tf.where(flip, geometry.mirror(boxes, width), boxes)
        # Where augmentation cuts, speed counts; elsewhere an image looks as in evaluation.
        image = _resize(image, out, antialias="jitter" not in plan.augmentation)
        beside = [[0, size[0] - out[0]], [0, size[1] - out[1]], [0, 0]]
        inside = tf.pad(tf.ones_like(image, tf.bool), beside)
        image = tf.where(inside, tf.pad(image, beside), tf.constant(self.padding, tf.uint8))
        return (
            tf.ensure_shape(image, self.image_shape),
            geometry.pad(boxes, self.max_boxes),
            geometry.pad(classes, self.max_boxes),
            {"sizes": sides, "scales": tf.cast(out / window[2:], tf.float32)},
        )

    def _blank(self):
        return (
            tf.zeros(self.image_shape, tf.uint8),
            tf.fill((self.max_boxes, 4), -1.0),
            tf.fill((self.max_boxes,), -1.0),
            {"sizes": tf.zeros(2, tf.int32), "scales": tf.zeros(2)},
        )

    def _examples(self, plan):
        return read_images(plan, lambda row, draw: self._read(plan, row, draw), self._blank)

    def _checked_examples(self, dataset, plan):
        damage = Damage(self._name, len(plan.rows), self.max_corrupt, _REASON)

        def checked(example, wanted, found):
            images, boxes, classes, about = example
            rows = count_damage(plan, damage, wanted, found)
            with tf.control_dependencies([rows]):
                images = tf.identity(images)
            if not plan.evaluation:
                return images, {"boxes": boxes, "classes": classes}
            weights = tf.cast(found >= 0, tf.float32)
            ids = tf.gather(self._annotations.image_ids, rows)
            targets = {"boxes": boxes, "classes": classes}
            return (
                images,
                _blank_targets(targets, weights),
                {**about, "ids": ids, "weights": weights},
            )

        return dataset.map(checked)

    def _name(self, row):
        return f"{self._source.name(row)} (image {self._annotations.image_ids[row]})"

    def _fill(self, dataset, batch_size, missing):
        return (
            super()
            ._fill(dataset, batch_size, missing)
            .map(
                lambda images, targets, about: (
                    images,
                    _blank_targets(targets, about["weights"]),
                    about,
                )
            )
        )


def original(boxes: np.ndarray, about: Mapping[str, Any]) -> np.ndarray:
    """Return boxes in the coordinates of the images as they are stored, clipped to them.

    Args:
        boxes: An array (B, n, 4), (x1, y1, x2, y2) in pixels of the images of a batch.
        about: The third part of that batch, of evaluation.

    Returns:
        A float64 array (B, n, 4).

    Example:
        >>> about = {"scales": np.array([[0.5, 2.0]]), "sizes": np.array([[100, 40]])}
        >>> original(np.array([[[20.0, 10.0, 200.0, 50.0]]]), about)
        array([[[ 10.,  20.,  40., 100.]]])
    """
    scales, sizes = (np.asarray(about[key], np.float64) for key in ("scales", "sizes"))
    # The sides were resized to whole pixels, which float32 has exactly, unlike the ratios. Where a
    # batch is filled up, both are 0.
    scales = np.maximum(np.rint(scales * sizes), 1.0) / np.maximum(sizes, 1.0)
    whole = np.asarray(boxes, np.float64) / np.tile(scales[:, None, ::-1], 2)
    return np.clip(whole, 0.0, np.tile(sizes[:, None, ::-1], 2))


def _blank_targets(targets, weights):
    """Return targets without the objects of images of weight 0."""
    real = weights > 0
    return {
        "boxes": tf.where(real[:, None, None], targets["boxes"], -1.0),
        "classes": tf.where(real[:, None], targets["classes"], -1.0),
    }


def _resize(image, out, antialias):
    """Return an image as bytes of the sides `out`; antialiased where it shrinks, if asked."""
    sides = tf.shape(image)[:2]

    def smoothed():
        return crops.as_bytes(tf.clip_by_value(tf.image.resize(image, out, antialias=True), 0, 255))

    def plain():
        return crops.as_bytes(tf.image.resize(image, out))

    shrinks = tf.reduce_any(out < sides) if antialias else tf.constant(False)
    return tf.cond(
        tf.reduce_all(out == sides),
        lambda: image,
        lambda: tf.cond(shrinks, smoothed, plain),
    )


def canvas_sides(
    image_size: int | Sequence[int], shorter_side: int = 0, longest_side: int = 0
) -> tuple[int, int]:
    """Return the sides of the canvas that images lie on.

    Args:
        image_size: Pixels a side, or (height, width): multiples of 32; or 0 with `shorter_side`.
        shorter_side: Pixels of an image's shorter side, or 0.
        longest_side: The most pixels of an image's longer side, or 0.

    Returns:
        (height, width) in pixels.

    Raises:
        ValueError: If a side is out of range, both ways to resize are given, or one of
            `shorter_side` and `longest_side` without the other.

    Example:
        >>> canvas_sides(512), canvas_sides((320, 512)), canvas_sides(0, 800, 1333)
        ((512, 512), (320, 512), (1344, 1344))

    References:
        Detectron, `detectron/utils/blob.py`, `im_list_to_blob`, which pads a batch to its largest
        image and multiples of 128.
    """
    for name, side in (("shorter_side", shorter_side), ("longest_side", longest_side)):
        check_integer(name, side, low=0)
    if bool(shorter_side) != bool(longest_side) or longest_side < shorter_side:
        raise ValueError(
            "`shorter_side` and `longest_side` go together, the second at least as long as the "
            f"first, such as 800 and 1333. Received: `shorter_side={shorter_side}` "
            f"`longest_side={longest_side}`."
        )
    if longest_side:
        if image_size:
            raise ValueError(
                "`image_size` does not go with `shorter_side`, whose canvas is a square of "
                f"`longest_side`. Received: `image_size={image_size}` "
                f"`shorter_side={shorter_side}`."
            )
        image_size = _MULTIPLE * math.ceil(longest_side / _MULTIPLE)
    pair: Any = image_size if isinstance(image_size, tuple | list) else [image_size] * 2
    if len(pair) != 2 or not all(
        is_integer(side, low=_MULTIPLE) and side % _MULTIPLE == 0 for side in pair
    ):
        raise ValueError(
            f"`image_size` must be a multiple of {_MULTIPLE}, or two of them, height and "
            f"width. Received: {image_size!r}."
        )
    return int(pair[0]), int(pair[1])


def _largest(annotations, max_boxes, warn):
    """Return which objects are kept, bool: no crowds, and no more of an image than `max_boxes`."""
    kept, images = ~annotations.crowds, annotations.images
    counts = np.bincount(images[kept], minlength=len(annotations.image_ids))
    over = np.flatnonzero(counts > max_boxes)
    for image in over:
        (mine,) = np.nonzero(kept & (images == image))
        areas = annotations.boxes[mine, 2] * annotations.boxes[mine, 3]
        kept[mine[np.argsort(-areas, kind="stable")[max_boxes:]]] = False
    if warn and len(over):
        names = [
            f"image {annotations.image_ids[image]}, {annotations.file_names[image]}, with "
            f"{counts[image]}"
            for image in over
        ]
        _LOG.warning(
            "`max_boxes=%d`: %s: of %s, training keeps only the largest objects: %s",
            *(max_boxes, annotations.where, count(len(over), "image"), join_first(names)),
        )
    return kept
