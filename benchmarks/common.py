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

CLASSES = 1000

BATCH_SIZE = flags.DEFINE_integer("batch_size", 16, "Images per batch.", lower_bound=1)
IMAGE_SIZE = flags.DEFINE_integer("image_size", 112, "Height and width in pixels.", lower_bound=32)
CSV = flags.DEFINE_string("csv", None, "A file to write the table's rows to, as CSV.")


@flags.validator("csv", "must be in a folder that exists.")
def _check_csv(path):
    # Found out now, and not after minutes of measurement.
    return path is None or os.path.isdir(os.path.dirname(path) or ".")


def resnet18(image_size, classes=CLASSES, fan="fan_out"):
    """Return ResNet-18 as torchvision defines it: topology, padding, batch norm and initial values.

    Convolutions have no bias and start as He's ``N(0, √(2/fan))``, torchvision's fan being k·Cout
    with k kernel positions; the dense layer starts as PyTorch's ``U(−1/√fan_in, 1/√fan_in)``.

    Args:
        image_size: Height and width in pixels.
        classes: The number of outputs (logits).
        fan: "fan_out", or "fan_in" for k·Cin.

    Returns:
        An uncompiled `keras.Model` from images to logits.

    References:
        He et al. 2016, "Deep residual learning for image recognition".
    """

    def convolve(x, filters, size, stride, name):
        # PyTorch pads both sides alike; Keras's "same" with a stride pads the far side only.
        if size > 1:
            x = keras.layers.ZeroPadding2D(size // 2, name=f"{name}_pad")(x)
        he = keras.initializers.VarianceScaling(2.0, fan, "untruncated_normal")
        x = keras.layers.Conv2D(
            filters, size, stride, use_bias=False, kernel_initializer=he, name=f"{name}_conv"
        )(x)
        return keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{name}_norm")(x)

    def block(x, filters, stride, name):
        shortcut = x
        if stride > 1:
            shortcut = convolve(x, filters, 1, stride, f"{name}_shortcut")
        x = keras.layers.ReLU(name=f"{name}_1_relu")(convolve(x, filters, 3, stride, f"{name}_1"))
        x = convolve(x, filters, 3, 1, f"{name}_2")
        x = keras.layers.Add(name=f"{name}_add")([x, shortcut])
        return keras.layers.ReLU(name=f"{name}_relu")(x)

    images = keras.Input((image_size, image_size, 3), name="images")
    x = keras.layers.ReLU(name="stem_relu")(convolve(images, 64, 7, 2, "stem"))
    # After a ReLU, padding with zeros is padding with minus infinity.
    x = keras.layers.ZeroPadding2D(1, name="pool_pad")(x)
    x = keras.layers.MaxPooling2D(3, 2, name="pool")(x)
    for stage, filters in enumerate((64, 128, 256, 512), 1):
        x = block(x, filters, 1 if stage == 1 else 2, f"stage{stage}_block1")
        x = block(x, filters, 1, f"stage{stage}_block2")
    x = keras.layers.GlobalAveragePooling2D(name="average")(x)
    lecun = keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform")
    bias = keras.initializers.RandomUniform(-(512**-0.5), 512**-0.5)
    logits = keras.layers.Dense(
        classes, kernel_initializer=lecun, bias_initializer=bias, name="logits"
    )(x)
    return keras.Model(images, logits, name="resnet18")


def build(name, image_size):
    """Build a network with fresh weights, from images to `CLASSES` logits.

    Args:
        name: "resnet18", "resnet18_fan_in" (the same with He's other fan), or "keras:" and the name
            of a network of `keras.applications`.
        image_size: Height and width in pixels.

    Returns:
        An uncompiled `keras.Model`.

    Raises:
        ValueError: If the name is unknown, or the images too small for the network.
    """
    if name in ("resnet18", "resnet18_fan_in"):
        return resnet18(image_size, fan="fan_in" if name == "resnet18_fan_in" else "fan_out")
    origin, _, network = name.partition(":")
    if origin != "keras" or not network[:1].isupper() or not hasattr(keras.applications, network):
        raise ValueError(
            f"Unknown model {name!r}: neither 'resnet18' nor 'resnet18_fan_in' nor 'keras:' and a "
            "network of keras.applications, such as 'keras:ResNet50'."
        )
    return getattr(keras.applications, network)(
        weights=None,
        input_shape=(image_size, image_size, 3),
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
