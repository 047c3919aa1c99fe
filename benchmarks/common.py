"""What the benchmarks share: networks, random batches, interleaved timing and tables."""

import csv
import os
import platform
import time

import keras
import numpy as np
import tensorflow as tf
from absl import flags
from rich.console import Console
from rich.table import Table

from tfbio import models

CLASSES = 1000

BATCH_SIZE = flags.DEFINE_integer("batch_size", 16, "Images per batch.", lower_bound=1)
IMAGE_SIZE = flags.DEFINE_integer("image_size", 112, "Height and width in pixels.", lower_bound=32)
CSV = flags.DEFINE_string("csv", None, "A file to write the table's rows to, as CSV.")


@flags.validator("csv", "must be in a folder that exists.")
def _check_csv(path):
    # Found out now, and not after minutes of measurement.
    return path is None or os.path.isdir(os.path.dirname(path) or ".")


def build(name, image_size):
    """Build a network with fresh weights, from images to `CLASSES` logits.

    Args:
        name: One of `tfbio.models`, "resnet18_fan_in" (resnet18 with He's other fan), or "keras:"
            and the name of a network of `keras.applications`.
        image_size: Height and width in pixels.

    Returns:
        An uncompiled `keras.Model`.

    Raises:
        ValueError: If the name is unknown, or the images too small for the network.
    """
    shape = (image_size, image_size, 3)
    if name == "resnet18_fan_in":
        return models.resnet(18, CLASSES, shape, "fan_in")
    if name in models.names():
        return models.build(name, CLASSES, shape)
    origin, _, network = name.partition(":")
    if origin != "keras" or not network[:1].isupper() or not hasattr(keras.applications, network):
        raise ValueError(
            f"Unknown model {name!r}: neither {', '.join(models.names())} nor resnet18_fan_in nor "
            "'keras:' and a network of keras.applications, such as 'keras:ResNet50'."
        )
    return getattr(keras.applications, network)(
        weights=None,
        input_shape=shape,
        classes=CLASSES,
        classifier_activation=None,
    )


def random_batch(batch_size, image_size, seed):
    """Return a batch of images, every value drawn from N(0, 1), and of random labels."""
    shape = (batch_size, image_size, image_size, 3)
    images = tf.random.stateless_normal(shape, (seed, 0))
    labels = tf.random.stateless_uniform((batch_size,), (seed, 1), 0, CLASSES, tf.int32)
    return images, labels


def interleave(steps, rounds, warmup):
    """Time several functions round robin, so that a machine's moods fall on all of them alike.

    Each round calls every function once; the order rotates by one from round to round.

    Args:
        steps: A dict from name to a function without arguments, which returns when its work is
            done.
        rounds: The number of timed rounds.
        warmup: The number of rounds before them, not timed.

    Returns:
        A dict from name to an array of `rounds` durations in seconds.
    """
    names = list(steps)
    seconds = {name: np.zeros(rounds) for name in names}
    for index in range(-warmup, rounds):
        first = index % len(names)
        for name in names[first:] + names[:first]:
            start = time.perf_counter()
            steps[name]()
            if index >= 0:
                seconds[name][index] = time.perf_counter() - start
    return seconds


def machine():
    """Return a line that names the processor, its cores, any GPU, and the libraries' versions."""
    name = platform.processor() or platform.machine()
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            named = (line.partition(":")[2].strip() for line in lines if "model name" in line)
            name = next(named, name)
    gpus = [
        tf.config.experimental.get_device_details(gpu).get("device_name", gpu.name)
        for gpu in tf.config.list_physical_devices("GPU")
    ]
    devices = ", ".join([f"{name}, {os.cpu_count()} cores", *gpus])
    return (
        f"{devices}; Python {platform.python_version()}, TensorFlow {tf.__version__}, "
        f"Keras {keras.__version__}, NumPy {np.__version__}"
    )


def report(title, header, rows, path=None):
    """Print a table, and write it to a CSV file as well if a path is given.

    Args:
        title: The table's title.
        header: The columns' names; the first column is aligned left, the others right.
        rows: A list of rows, each a sequence of strings.
        path: A file to write header and rows to, or None.

    Raises:
        OSError: If the file cannot be written; the table stands printed then.
    """
    table = Table(title=title)
    for index, column in enumerate(header):
        table.add_column(column, justify="right" if index else "left")
    for row in rows:
        table.add_row(*row)
    Console().print(table)
    if path is not None:
        with open(path, "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([header, *rows])
