"""Annotations: the images of a detection set, and the objects in them."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Annotations:
    """The images of a document, and the objects in them.

    Attributes:
        where: What the document is called in messages.
        image_ids: The images' ids, int64 (n,), in the document's order.
        file_names: Their files, relative to the images' folder.
        sizes: Their (height, width) in pixels, int64 (n, 2).
        category_ids: The categories' ids, ascending. The class of the i-th one is i, from 0.
        class_names: Their names in the same order, no two alike.
        ids: The objects' ids, int64 (m,).
        images: For each object, the position of its image, int64 (m,), ascending.
        classes: Its class, int64 (m,).
        boxes: Its box (x, y, width, height), from the upper left corner and in pixels, as it is in
            the document, float64 (m, 4).
        areas: The area that decides whether it counts as small, medium or large, float64 (m,).
        crowds: Whether it is a crowd, whose objects are not annotated one by one, bool (m,).

    Example:
        >>> from tfbio.detection import coco
        >>> annotations = coco.parse(
        ...     {
        ...         "images": [{"id": 7, "file_name": "a.jpg", "height": 20, "width": 30}],
        ...         "categories": [{"id": 5, "name": "dog"}, {"id": 3, "name": "cat"}],
        ...         "annotations": [
        ...             {"id": 1, "image_id": 7, "category_id": 5, "bbox": [1, 2, 3, 4]}
        ...         ],
        ...     },
        ...     "a.json",
        ... )
        >>> annotations.class_names, annotations.classes, annotations.areas
        (('cat', 'dog'), array([1]), array([12.]))
    """

    where: str
    image_ids: np.ndarray
    file_names: tuple
    sizes: np.ndarray
    category_ids: tuple
    class_names: tuple
    ids: np.ndarray
    images: np.ndarray
    classes: np.ndarray
    boxes: np.ndarray
    areas: np.ndarray
    crowds: np.ndarray

    def taken(self, rows: np.ndarray) -> Annotations:
        """Return the annotations of some of the images.

        Args:
            rows: The images' positions, ascending.

        Returns:
            `Annotations` of no other images.
        """
        rows = np.asarray(rows, np.int64)
        positions = np.full(len(self.image_ids), -1)
        positions[rows] = np.arange(len(rows))
        images = positions[self.images]
        kept = images >= 0
        objects = ("ids", "classes", "boxes", "areas", "crowds")
        return dataclasses.replace(
            self,
            image_ids=self.image_ids[rows],
            file_names=tuple(self.file_names[row] for row in rows),
            sizes=self.sizes[rows],
            images=images[kept],
            **{name: getattr(self, name)[kept] for name in objects},
        )

    def corners(self) -> np.ndarray:
        """Return the objects' (x1, y1, x2, y2), clipped to their images, float64 (m, 4)."""
        return clip_corners(self.boxes, self.sizes[self.images])

    def document(self) -> dict[str, Any]:
        """Return the document that says all this, a dict that JSON can hold."""
        images = zip(self.image_ids.tolist(), self.file_names, self.sizes.tolist(), strict=True)
        objects = zip(
            self.ids.tolist(),
            self.image_ids[self.images].tolist(),
            np.array(self.category_ids, np.int64)[self.classes].tolist(),
            self.boxes.tolist(),
            self.areas.tolist(),
            self.crowds.astype(int).tolist(),
            strict=True,
        )
        keys = ("id", "image_id", "category_id", "bbox", "area", "iscrowd")
        categories = zip(self.category_ids, self.class_names, strict=True)
        return {
            "images": [
                {"id": key, "file_name": name, "height": height, "width": width}
                for key, name, (height, width) in images
            ],
            "annotations": [dict(zip(keys, values, strict=True)) for values in objects],
            "categories": [{"id": key, "name": name} for key, name in categories],
        }


def clip_corners(boxes: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Return the corners of boxes, clipped to their images.

    Args:
        boxes: (x, y, width, height) in pixels, an array (m, 4).
        sizes: The images' (height, width), an array (m, 2).

    Returns:
        An array (m, 4) of (x1, y1, x2, y2).

    Example:
        >>> clip_corners(np.array([[-5.0, 2.0, 20.0, 30.0]]), np.array([[20, 10]]))
        array([[ 0.,  2., 10., 20.]])
    """
    low, high = boxes[:, :2], boxes[:, :2] + boxes[:, 2:]
    limits = sizes[:, ::-1]
    return np.concatenate([np.clip(low, 0, limits), np.clip(high, 0, limits)], axis=1)
