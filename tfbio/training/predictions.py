"""Predictions: the class that a classifier finds in images of one's own, as a table."""

from __future__ import annotations

import csv
import errno
import io
import os
import pathlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from tfbio import data, losses
from tfbio.data.folder import list_images
from tfbio.training import outputs, use
from tfbio.training.options import named

if TYPE_CHECKING:
    from tfbio.training.classification import Classification


def predict(
    experiment: Classification,
    images: pathlib.Path | str,
    output: pathlib.Path,
    checkpoint: str = "last",
    tell: Callable[[str], Any] = print,
) -> int:
    """Classify every image of a folder, and write a CSV file: image, class, probability.

    The probability is the softmax's, or under a loss of sigmoid outputs the class's own sigmoid.

    Args:
        experiment: The `Classification`; its workdir holds the run. Its dataset is not read.
        images: A folder of images, searched with the folders below it.
        output: The file to write, a `pathlib.Path`.
        checkpoint: "last", or "best" by validation.
        tell: Called with lines of text.

    Returns:
        The number of images.

    Raises:
        ValueError: As `tfbio.training.use.predict` does.
        OSError: If files cannot be read or written.
    """
    with outputs.naming_output(output):  # before the work
        if output.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    with named("images", folder="images"):
        paths = list_images(images)
    outputs.refuse_overwriting(images, paths, output, [output])
    with outputs.making_folder(output.parent, output):
        return _predict(experiment, images, output, checkpoint, tell)


def _predict(experiment, images, output, checkpoint, tell):
    model, facts = use.restored(experiment, checkpoint, tell)
    paths, batches = data.images(
        images, facts.image_shape[:2], facts.image_shape[2], cropped=facts.cropped
    )
    rows = []
    with data.clear_errors():
        for batch in batches:
            logits = tf.cast(model(batch, training=False), tf.float32)
            for probabilities in losses.predictions(experiment.loss, logits).numpy():
                chosen = int(np.argmax(probabilities))
                path = paths[len(rows)]
                rows.append((path, facts.class_names[chosen], float(probabilities[chosen])))
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(("image", "class", "probability"))
    table.writerows((path, name, f"{probability:.6f}") for path, name, probability in rows)
    with outputs.naming_output(output):
        output.write_bytes(text.getvalue().encode(errors="surrogateescape"))
    return len(rows)
