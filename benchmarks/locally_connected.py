"""The time of a locally connected layer's step over that of a convolution of the same shape.

A step is the forward pass, the gradient of the input and that of the kernel, compiled, on random
numbers. The shapes are those of Bartunov et al. 2018's networks, all with "same" padding. The two
are timed in one process in turn, and compared round by round.
"""

import math

import keras
import numpy as np
import tensorflow as tf
from absl import flags

from benchmarks import common
from tfbio.layers import LocallyConnected2D
from trainers import cli

NETWORKS = {
    "mnist": ((28, 1), [(3, 32, 2), (3, 64, 2)]),
    "cifar": ((32, 3), [(5, 64, 2), (5, 128, 2), (3, 256, 1)]),
    "imagenet": (
        (224, 3),
        [(9, 48, 4), (3, 48, 2), (5, 96, 1), (3, 96, 2), (3, 192, 1), (3, 192, 2), (3, 384, 1)],
    ),
}
"""Height (and width) and channels of the images, and (kernel size, filters, stride) by layer."""

NETWORK = flags.DEFINE_list("networks", list(NETWORKS), "Whose layers to time.")
ROUNDS = flags.DEFINE_integer("rounds", 15, "Timed rounds.", lower_bound=1)
JIT = flags.DEFINE_bool("jit", False, "Compile with XLA.")
for name in ("networks", "rounds", "jit", "batch_size", "csv"):
    flags.FLAGS.register_key_flag_for_module("benchmarks.locally_connected", flags.FLAGS[name])
flags.FLAGS.set_default("batch_size", 64)


@flags.validator("networks", f"must be of {', '.join(NETWORKS)}.")
def _check_networks(names):
    return set(names) <= set(NETWORKS)


def main():
    """Run the command line."""
    cli.run(_main)


def _main(_):
    rows = []
    for network in NETWORK.value:
        (size, channels), layers = NETWORKS[network]
        totals, weights = {"local": 0.0, "convolution": 0.0}, 0
        for kernel_size, filters, stride in layers:
            shape = (common.BATCH_SIZE.value, size, size, channels)
            label = f"{network} {size}²·{channels}→({kernel_size},{filters},/{stride})"
            seconds, count = measure(shape, kernel_size, filters, stride, ROUNDS.value)
            rows.append(_row(label, count, seconds))
            totals = {name: totals[name] + taken for name, taken in seconds.items()}
            weights += count
            size, channels = -(-size // stride), filters
        rows.append(_row(f"{network}, sum", weights, totals))
    print(common.machine())
    try:
        common.report(
            f"A step of locally connected layers over convolutions, batch "
            f"{common.BATCH_SIZE.value}, float32,\n"
            f"{'XLA' if JIT.value else 'tf.function'}, {ROUNDS.value} rounds",
            ["layer", "weights", "conv, ms", "local, ms", "ratio", "quartiles"],
            rows,
            common.CSV.value,
        )
    except OSError as error:
        cli.fail(error)


def _row(label, weights, seconds):
    low, median, high = np.percentile(seconds["local"] / seconds["convolution"], (25, 50, 75))
    return [
        label,
        f"{weights / 1e6:.2f} M",
        f"{1000 * np.median(seconds['convolution']):.1f}",
        f"{1000 * np.median(seconds['local']):.1f}",
        f"{median:.2f}",
        f"{low:.2f}–{high:.2f}",
    ]


def measure(shape, kernel_size, filters, stride, rounds):
    """Time both layers on inputs of one shape.

    Args:
        shape: The inputs' shape (N, height, width, channels).
        kernel_size: The kernels' height and width.
        filters: Their number.
        stride: The steps between positions.
        rounds: The timed rounds.

    Returns:
        (a dict from "convolution" and "local" to seconds by round, the number of the locally
        connected layer's weights).
    """
    arguments = {"filters": filters, "kernel_size": kernel_size, "strides": stride}
    layers = {
        "convolution": keras.layers.Conv2D(**arguments, padding="same"),
        "local": LocallyConnected2D(**arguments, padding="same"),
    }
    steps = {name: _step(layer, shape) for name, layer in layers.items()}
    weights = sum(math.prod(weight.shape) for weight in layers["local"].weights)
    return common.interleave(steps, rounds, warmup=2), weights


def _step(layer, shape):
    x = tf.random.stateless_normal(shape, (0, 0))
    e = tf.random.stateless_normal(layer(x).shape, (0, 1))

    @tf.function(jit_compile=JIT.value, autograph=False)
    def compiled(x, e):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x)
        return y, tape.gradient(y, [x, *layer.trainable_variables], e)

    def step():
        results = compiled(x, e)
        tf.test.experimental.sync_devices()
        return results

    return step


if __name__ == "__main__":
    main()
