"""Canvases: digits_detection, scikit-learn's digits on its two photographs, with a box for each."""

from __future__ import annotations

import io
import json
import logging
import os
import pathlib
import shutil
import tempfile
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tfbio._extras import require
from tfbio.data import chance, records
from tfbio.training.checkpoints import digest

if TYPE_CHECKING:
    from tfbio.data.chance import Draws

_LOG = logging.getLogger("tfbio")
_VERSION = 1  # of what is drawn: another one is another dataset
PARTS = ("train", "validation", "test")
# The share of a photograph's columns that a part's backgrounds are cut from.
_COLUMNS = {"train": (0.0, 0.6), "validation": (0.6, 0.8), "test": (0.8, 1.0)}
_HELD_OUT = 300  # digits for validation; 360 are for test, the same as in the dataset "digits"
_LARGEST_COUNT = 6  # digits on a canvas
_HEIGHTS = (0.18, 0.55)  # of a digit, as a share of the canvas
_GAP = 0.02  # between two digits' boxes, as a share of the canvas
_ATTEMPTS = 20  # at a place for a digit, before it is left out
_INK = 0.45  # the gray from which on a pixel belongs to a digit, and to its box
_QUALITY = 90  # of the JPEGs
_MANIFEST = "manifest.json"


class Counts(NamedTuple):
    """The numbers of canvases.

    Attributes:
        train: For training.
        validation: To follow the training, and select by.
        test: To select nothing by.
    """

    train: int = 2000
    validation: int = 300
    test: int = 300


def prepare(
    size: int = 128,
    counts: Sequence[int] | None = None,
    seed: int = 0,
    cache: str | os.PathLike[str] = "",
) -> pathlib.Path:
    """Return the folder that holds the canvases, which are drawn where it is not there or damaged.

    It has train.json's likes as COCO's documents, instances_train.json, instances_validation.json
    and instances_test.json, and a folder of JPEGs for each. On a canvas are 0 to 6 digits, each 18
    to 55 % as high as the canvas, in a color that stands out from the background, and not one over
    the other. No digit and no part of a photograph is in two of the three parts.

    Args:
        size: Pixels a side of a canvas, a multiple of 32.
        counts: `Counts`, or None for 2,000, 300 and 300.
        seed: An integer, 0 or more, that alone decides what is drawn.
        cache: The folder to keep it in; "" for `$XDG_CACHE_HOME/tfbio` or `~/.cache/tfbio`.

    Returns:
        A `pathlib.Path`.

    Raises:
        ValueError: If an argument is out of range.
        OSError: If the folder cannot be written.

    Example:
        >>> folder = prepare(64, Counts(2, 1, 1), cache=tempfile.mkdtemp())
        >>> sorted(path.name for path in folder.iterdir())[:3]
        ['instances_test.json', 'instances_train.json', 'instances_validation.json']
        >>> len(list((folder / "train").iterdir()))
        2
    """
    counts = Counts() if counts is None else Counts(*counts)
    if type(size) is not int or not 32 <= size <= 4096 or size % 32:
        raise ValueError(
            f"`size` must be a multiple of 32, 32 to 4096, in pixels. Received: {size!r}."
        )
    if any(type(count) is not int or count < 1 for count in counts):
        raise ValueError(f"`counts` must be integers of 1 or more. Received: {counts}.")
    if type(seed) is not int or not 0 <= seed < 2**63:
        raise ValueError(f"`seed` must be an integer of 0 or more. Received: {seed!r}.")
    home = pathlib.Path(cache).expanduser() if cache else records.cache_folder()
    name = "-".join(map(str, ("digits_detection", f"v{_VERSION}", size, *counts, seed)))
    folder = home / name
    if _whole(folder):
        return folder
    _LOG.info("digits_detection is drawn in %s", folder)
    home.mkdir(parents=True, exist_ok=True)
    unfinished = pathlib.Path(tempfile.mkdtemp(prefix=f".{name}-", dir=home))
    try:
        _write(unfinished, size, counts, seed)
        _put_in_place(unfinished, folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return folder


def _put_in_place(unfinished, folder):
    """Rename a finished folder, so that nobody ever sees half of one."""
    if folder.exists() and not _whole(folder):
        _LOG.warning("%s is damaged, and is drawn again", folder)
        folder.rename(unfinished / "damaged")  # goes with it
    unfinished.chmod(0o755)
    damaged = unfinished / "damaged"
    if damaged.exists():
        aside = pathlib.Path(tempfile.mkdtemp(prefix=".damaged-", dir=folder.parent))
        damaged.rename(aside / "damaged")
        shutil.rmtree(aside, ignore_errors=True)
    try:
        unfinished.rename(folder)
    except OSError:
        # Another process was first.
        if not _whole(folder):
            raise


def _whole(folder):
    """Return whether a folder holds every file that its manifest names, to the byte."""
    try:
        manifest = json.loads((folder / _MANIFEST).read_text())
        return all(digest((folder / name).read_bytes()) == text for name, text in manifest.items())
    except (OSError, ValueError, AttributeError):
        return False


def _write(folder, size, counts, seed):
    digits, photographs = split_digits(), load_photographs()
    manifest, first = {}, 1  # ids of objects are not used twice
    for index, (part, count) in enumerate(zip(PARTS, counts, strict=True)):
        (folder / part).mkdir()
        document = {
            "info": {"description": f"digits_detection, {part}"},
            "images": [],
            "annotations": [],
            "categories": [{"id": digit + 1, "name": str(digit)} for digit in range(10)],
        }
        backgrounds = [cut_columns(photograph, part) for photograph in photographs]
        for number in range(count):
            draws = chance.Draws(seed, index * 2**40 + number, chance.CANVAS)
            canvas, objects = draw(draws, size, backgrounds, digits[part])
            name, content = f"{number:06}.jpg", _jpeg(canvas)
            (folder / part / name).write_bytes(content)
            manifest[f"{part}/{name}"] = digest(content)
            # No image is in two parts, so none has the id of another part's.
            key = 10**6 * (index + 1) + number
            document["images"].append({"id": key, "file_name": name, "height": size, "width": size})
            for digit, box in objects:
                document["annotations"].append(
                    {
                        "id": first,
                        "image_id": key,
                        "category_id": digit + 1,
                        "bbox": box,
                        "area": box[2] * box[3],
                        "iscrowd": 0,
                    }
                )
                first += 1
        content = json.dumps(document).encode()
        (folder / f"instances_{part}.json").write_bytes(content)
        manifest[f"instances_{part}.json"] = digest(content)
    (folder / _MANIFEST).write_text(json.dumps(manifest))


def draw(
    draws: Draws, size: int, backgrounds: Sequence[Any], digits: tuple[np.ndarray, np.ndarray]
) -> tuple[np.ndarray, list[Any]]:
    """Draw a canvas.

    Args:
        draws: `tfbio.data.chance.Draws`.
        size: Pixels a side.
        backgrounds: Photographs to cut its background from, PIL images.
        digits: (images of 8×8, 0 to 16; labels) to choose from.

    Returns:
        (a uint8 array (size, size, 3), a list of (digit, [x, y, width, height])).

    Example:
        >>> digits = np.full((1, 8, 8), 16.0), np.array([3])
        >>> from PIL import Image
        >>> draws = chance.Draws(0, 2, chance.CANVAS)
        >>> canvas, objects = draw(draws, 64, [Image.new("RGB", (90, 90))], digits)
        >>> canvas.shape, {digit for digit, _ in objects} <= {3}
        ((64, 64, 3), True)
    """
    canvas = _background(draws, size, backgrounds)
    placed = []
    # One canvas in seven or so has no object at all.
    for _ in range(draws.below(_LARGEST_COUNT + 1)):
        which = draws.below(len(digits[1]))
        low, high = np.log(_HEIGHTS)
        height = round(size * float(np.exp(draws.between(low, high))))
        ink = _ink(digits[0][which], height, draws.between(0.8, 1.2))
        height, width = ink.shape
        for _ in range(_ATTEMPTS):
            x, y = draws.below(max(size - width, 0) + 1), draws.below(max(size - height, 0) + 1)
            box = [x, y, width, height]
            if width <= size and not any(_near(box, other, _GAP * size) for _, other in placed):
                _paint(canvas, ink, box, draws)
                placed.append((int(digits[1][which]), box))
                break
    return np.rint(canvas).astype(np.uint8), placed


def _background(draws, size, backgrounds):
    from PIL import Image

    photograph = backgrounds[draws.below(len(backgrounds))]
    shorter = min(photograph.size)
    side = round(draws.between(0.4, 1.0) * shorter)
    left = draws.below(photograph.width - side + 1)
    top = draws.below(photograph.height - side + 1)
    cut = photograph.resize(
        (size, size), Image.Resampling.BILINEAR, (left, top, left + side, top + side)
    )
    canvas = np.asarray(cut, np.float64) * draws.between(0.5, 1.0)
    return canvas[:, ::-1].copy() if draws.below(2) else canvas


def _ink(image, height, stretch):
    """Return how much of each pixel a digit covers, 0 to 1, cut to its box, `height` high."""
    from PIL import Image

    rows, columns = np.nonzero(image >= _INK * 16)
    image = image[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] / 16.0
    width = max(round(height * image.shape[1] / image.shape[0] * stretch), 3)
    large = Image.fromarray(image.astype(np.float32)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    # Steeper than the scan's gray edges, which a large digit would blur over many pixels.
    return np.clip((np.asarray(large, np.float64) - _INK) * 3.0 + 0.5, 0.0, 1.0)


def _near(box, other, gap):
    return all(
        box[axis] < other[axis] + other[axis + 2] + gap
        and other[axis] < box[axis] + box[axis + 2] + gap
        for axis in (0, 1)
    )


def _paint(canvas, ink, box, draws):
    x, y, width, height = box
    place = canvas[y : y + height, x : x + width]
    color = np.array([draws.between(0, 70) for _ in range(3)])
    if place.mean() < 110:  # light on dark
        color = 255.0 - color
    place += ink[..., None] * (color - place)


def split_digits() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return scikit-learn's digits by part, none of them in two.

    Returns:
        A dict from each of `PARTS` to (images (N, 8, 8), 0 to 16; labels (N,)).

    Raises:
        MissingExtraError: If scikit-learn is not installed.

    Example:
        >>> {part: len(labels) for part, (_, labels) in split_digits().items()}
        {'train': 1137, 'validation': 300, 'test': 360}
    """
    require("sklearn", extra="demo")
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    images, test_images, labels, test_labels = train_test_split(
        digits.images, digits.target, test_size=360, stratify=digits.target, random_state=0
    )
    images, held_images, labels, held_labels = train_test_split(
        images, labels, test_size=_HELD_OUT, stratify=labels, random_state=0
    )
    return {
        "train": (images, labels),
        "validation": (held_images, held_labels),
        "test": (test_images, test_labels),
    }


def load_photographs() -> list[Any]:
    """Return scikit-learn's two photographs.

    Returns:
        A list of PIL images.

    Raises:
        MissingExtraError: If scikit-learn is not installed.

    Example:
        >>> [photograph.size for photograph in load_photographs()]
        [(640, 427), (640, 427)]
    """
    require("sklearn", extra="demo")
    from PIL import Image
    from sklearn.datasets import load_sample_images

    return [Image.fromarray(image) for image in load_sample_images().images]


def cut_columns(photograph: Any, part: str) -> Any:
    """Return the columns of a photograph that a part's backgrounds are cut from.

    Args:
        photograph: A PIL image.
        part: One of `PARTS`, each of which has columns of its own.

    Returns:
        A PIL image.

    Example:
        >>> from PIL import Image
        >>> cut_columns(Image.new("RGB", (100, 80)), "validation").size
        (20, 80)
    """
    low, high = (round(share * photograph.width) for share in _COLUMNS[part])
    return photograph.crop((low, 0, high, photograph.height))


def _jpeg(canvas):
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(canvas).save(file, "JPEG", quality=_QUALITY)
    return file.getvalue()
