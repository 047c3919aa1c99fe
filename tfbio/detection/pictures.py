"""Pictures: images with predicted and true boxes drawn on them, for people to look at."""

import colorsys
import functools
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfbio._extras import require

LEAST = 0.3
"""The score from which on every predicted box is drawn."""
BEST = 3
"""The number of predicted boxes that are drawn at least, whatever their scores."""

_SHORTEST = 480  # pixels of a picture's shorter side, to which a smaller image is magnified
_TRUE, _BLACK = (255, 255, 255), (0, 0, 0)
_MARGIN = 3


def color(index: int) -> tuple[int, int, int]:
    """Return a class's color: neighbors differ much.

    Args:
        index: The class, from 0.

    Returns:
        (red, green, blue), 0 to 255.

    Example:
        >>> color(0), color(1)
        ((255, 89, 89), (89, 138, 255))
    """
    # The golden ratio's multiples never come close to one another.
    hue = index * 0.618034 % 1.0
    red, green, blue = colorsys.hls_to_rgb(hue, (0.675, 0.675, 0.6)[index % 3], 1.0)
    return round(red * 255), round(green * 255), round(blue * 255)


def draw(
    image: np.ndarray,
    class_names: Sequence[str],
    predicted: Mapping[str, Any] | None = None,
    true: Mapping[str, Any] | None = None,
    least: float = 0.0,
    shortest: int = _SHORTEST,
    weak: Mapping[str, Any] | None = None,
) -> np.ndarray:
    """Return an image with boxes on it.

    A predicted box is solid, in its class's color, with name and score above it on that color; a
    weak one is thin and dotted, with name and score in that color on black; a true one is dashed in
    white, with its name below it. Small images are magnified, pixels and all.

    Args:
        image: An array (height, width, 3): uint8, or numbers of 0 to 255.
        class_names: The classes' names.
        predicted: A dict of "boxes" (n, 4), (x1, y1, x2, y2) in the image's pixels, "classes" (n,)
            and "confidence" (n,), or None. Where a class is −1, there is no box.
        true: The same without "confidence".
        least: The least score of what is drawn.
        shortest: The shorter side that smaller images are magnified to, in pixels, about: they are
            magnified by a whole number.
        weak: The same as `predicted`, for boxes of low scores, such as `choose_weak` returns.

    Returns:
        A uint8 array (height, width, 3).

    Raises:
        ValueError: If the image has another shape.

    Example:
        >>> true = {"boxes": [[2, 2, 20, 30]], "classes": [1]}
        >>> draw(np.zeros((32, 32, 3), "uint8"), ("cat", "dog"), true=true).shape
        (480, 480, 3)
    """
    from PIL import Image, ImageDraw

    image = np.asarray(image)
    if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ValueError(f"An image must be (height, width, 3). Received: shape {image.shape}.")
    if image.dtype != np.uint8:
        image = np.rint(np.clip(image, 0, 255)).astype(np.uint8)
    scale = max(1, round(shortest / min(image.shape[:2])))
    picture = Image.fromarray(image).resize(
        (image.shape[1] * scale, image.shape[0] * scale), Image.Resampling.BICUBIC
    )
    shorter = min(picture.size)
    pen = ImageDraw.Draw(picture)
    font, width = _font(max(11, round(shorter / 34))), max(2, round(shorter / 200))
    # The most confident last, and so on top; lines before all labels.
    true_boxes = _drawn(true, 0.0)
    scored, faint = (
        sorted(_drawn(each, limit), key=lambda each: each[2])
        for each, limit in ((predicted, least), (weak, 0.0))
    )
    for box, *_ in true_boxes:
        _dashed(pen, box * scale, width, 5 * width, 5 * width, _TRUE)
    for box, index, _ in faint:
        thin = max(1, width // 2)
        _dashed(pen, box * scale, thin, thin, 3 * thin, color(index))
    for box, index, _ in scored:
        pen.rectangle(_ordered(box * scale), outline=color(index), width=width)
    for box, index, _ in true_boxes:
        _label(pen, picture.size, box * scale, class_names[index], _BLACK, _TRUE, font, below=True)
    for each, on_black in ((faint, True), (scored, False)):
        for box, index, score in each:
            text, pair = f"{class_names[index]} {score:.2f}", (_BLACK, color(index))
            ink, paper = reversed(pair) if on_black else pair
            _label(pen, picture.size, box * scale, text, ink, paper, font, below=False)
    return np.asarray(picture).copy()


def choose_weak(predicted: Mapping[str, Any], strongest: Mapping[str, Any]) -> dict[str, Any]:
    """Return the boxes below `LEAST` that are drawn where a picture would have fewer than `BEST`.

    Args:
        predicted: The detections in an image, as for `draw`.
        strongest: Its most confident boxes whatever their scores, as for `draw`.

    Returns:
        A dict as for `draw`: the most confident of `strongest` that are below `LEAST`, as many as
        are missing.

    Example:
        >>> boxes = {"boxes": [[0, 0, 9, 9]] * 3, "classes": [0, 1, 1]}
        >>> strongest = {**boxes, "confidence": [0.6, 0.2, 0.01]}
        >>> choose_weak({**boxes, "confidence": [0.6, 0.2, 0.1]}, strongest)["confidence"]
        array([0.2 , 0.01])
    """
    confidence = np.asarray(predicted["confidence"])
    missing = BEST - np.sum((confidence >= LEAST) & (np.asarray(predicted["classes"]) >= 0))
    arrays = {key: np.asarray(strongest[key]) for key in ("boxes", "classes", "confidence")}
    order = np.argsort(-arrays["confidence"], kind="stable")
    # A box that lies beside its image, on the canvas, has no area within it.
    seen = (arrays["boxes"][:, 2:] > arrays["boxes"][:, :2]).all(-1)
    order = order[(seen & (arrays["confidence"] < LEAST) & (arrays["classes"] >= 0))[order]]
    return {key: array[order[: max(missing, 0)]] for key, array in arrays.items()}


def grid(pictures: Sequence[np.ndarray], columns: int = 0, gap: int = 8) -> np.ndarray:
    """Return pictures side by side, in rows.

    Args:
        pictures: uint8 arrays (height, width, 3), one or more.
        columns: How many in a row; 0 for about as many as there are rows.
        gap: Pixels between them.

    Returns:
        A uint8 array (height, width, 3); what is left over is white.

    Example:
        >>> grid([np.zeros((10, 20, 3), "uint8")] * 3, columns=2, gap=4).shape
        (24, 44, 3)
    """
    columns = columns or math.ceil(math.sqrt(len(pictures)))
    rows = math.ceil(len(pictures) / columns)
    height, width = (max(picture.shape[axis] for picture in pictures) for axis in (0, 1))
    sides = rows * (height + gap) - gap, columns * (width + gap) - gap
    whole = np.full((*sides, 3), 255, np.uint8)
    for index, picture in enumerate(pictures):
        top, left = (index // columns) * (height + gap), (index % columns) * (width + gap)
        whole[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    return whole


def _drawn(boxes, least):
    if boxes is None:
        return []
    arrays = [np.asarray(boxes[key], np.float64) for key in ("boxes", "classes")]
    scores = np.asarray(boxes.get("confidence", np.ones(len(arrays[1]))), np.float64)
    return [
        (box, int(index), float(score))
        for box, index, score in zip(*arrays, scores, strict=True)
        if index >= 0 and score >= least and np.isfinite(box).all()
    ]


def _ordered(box):
    # PIL refuses a corner that is left of the other.
    x1, y1, x2, y2 = box
    return [min(x1, x2), min(y1, y2), max(x1, x2 - 1), max(y1, y2 - 1)]


def _dashed(pen, box, width, dash, gap, fill):
    x1, y1, x2, y2 = _ordered(box)
    for (x, y), (dx, dy), length in (
        ((x1, y1), (1, 0), x2 - x1),
        ((x1, y2), (1, 0), x2 - x1),
        ((x1, y1), (0, 1), y2 - y1),
        ((x2, y1), (0, 1), y2 - y1),
    ):
        for start in np.arange(0.0, max(length, 1.0), dash + gap):
            end = min(start + dash, length)
            line = [x + dx * start, y + dy * start, x + dx * end, y + dy * end]
            # Black beneath, to be seen on white.
            pen.line(line, fill=_BLACK, width=width + 2)
            pen.line(line, fill=fill, width=width)


def _label(pen, size, box, text, ink, paper, font, below):
    """Write a label at a box's outside where there is room, and else at its inside."""
    x1, y1, _, y2 = _ordered(box)
    left, top, right, bottom = pen.textbbox((0, 0), text, font=font)
    width, height = right - left + 2 * _MARGIN, bottom - top + 2 * _MARGIN
    y = y2 + 1 if below else y1 - height
    if below and y + height > size[1]:
        y = y2 - height
    y = min(max(y, 0), size[1] - height)
    x = min(max(x1, 0), max(size[0] - width, 0))
    pen.rectangle([x, y, x + width - 1, y + height - 1], fill=paper)
    pen.text((x + _MARGIN - left, y + _MARGIN - top), text, fill=ink, font=font)


@functools.lru_cache(maxsize=8)
def _font(size):
    require("matplotlib", extra="detection")
    import matplotlib
    from PIL import ImageFont

    fonts = pathlib.Path(matplotlib.get_data_path(), "fonts", "ttf")
    return ImageFont.truetype(str(fonts / "DejaVuSans-Bold.ttf"), size)
