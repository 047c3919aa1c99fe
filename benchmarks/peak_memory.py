"""The peak memory of training under each learning rule, over the same in plain Keras.

Every variant builds, compiles and trains in a process of its own, several times, in turn. What is
counted is the peak of the process's resident memory less what it held before the network was built;
on a GPU, the peak of what TensorFlow allocated there.
"""

import json
import pathlib
import subprocess
import sys

import keras
import numpy as np
import tensorflow as tf
from absl import flags

import tfbio
from benchmarks import common, training_step
from benchmarks.training_step import MODEL, PLAIN, RULES, train_step
from trainers import cli

STEPS = flags.DEFINE_integer("steps", 5, "Training steps.", lower_bound=1)
ROUNDS = flags.DEFINE_integer("rounds", 3, "Processes of every variant.", lower_bound=1)
ONLY = flags.DEFINE_string("only", None, "Measure this one variant, here, and print bytes.")
flags.adopt_module_key_flags(common)
flags.adopt_module_key_flags(training_step)


def main():
    """Run the command line."""
    cli.run(_main)


def _main(_):
    if ONLY.value is not None:
        with cli.errors_in_one_line():
            print(json.dumps(peak(ONLY.value)))
        return
    variants = [PLAIN, *cli.split(RULES.value)]
    found = {variant: [] for variant in variants}
    for _ in range(ROUNDS.value):
        for variant in variants:
            found[variant].append(_in_a_process(variant))
    plain = np.median(found[PLAIN])
    rows = [
        [variant, f"{np.median(peaks) / 2**20:.0f}", f"{np.median(peaks) / plain:.3f}"]
        for variant, peaks in found.items()
    ]
    print(common.machine())
    size, batch_size = common.IMAGE_SIZE.value, common.BATCH_SIZE.value
    try:
        common.report(
            f"Peak memory of training {MODEL.value}, batch {batch_size}, {size}×{size}, float32,\n"
            f"{STEPS.value} steps, median of {ROUNDS.value} processes",
            ["variant", "MiB", f"over {PLAIN}"],
            rows,
            common.CSV.value,
        )
    except OSError as error:
        cli.fail(error)


def peak(variant):
    """Return the bytes that training takes at its peak, over those before it.

    Args:
        variant: `PLAIN`, or a rule's name.

    Returns:
        The number of bytes.

    Raises:
        ValueError: If the network or the rule is unknown.
    """
    size = common.IMAGE_SIZE.value
    batch = common.random_batch(common.BATCH_SIZE.value, size, seed=0)
    before = _status("VmRSS")
    keras.utils.set_random_seed(0)
    model = common.build(MODEL.value, size)
    if variant != PLAIN:
        model = tfbio.convert(model, variant)
    step = train_step(model, batch, jit=False)
    for _ in range(STEPS.value):
        step()
    if gpus := tf.config.list_logical_devices("GPU"):
        return tf.config.experimental.get_memory_info(gpus[0].name[-5:])["peak"]
    return _status("VmHWM") - before


def _status(name):
    """Return a line of /proc/self/status, in bytes."""
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return 1024 * int(line.split()[1])
    raise OSError(f"/proc/self/status has no {name}: this benchmark needs Linux.")


def _in_a_process(variant):
    values = {"model": MODEL, "steps": STEPS, "batch_size": common.BATCH_SIZE}
    values["image_size"] = common.IMAGE_SIZE
    words = [f"--{name}={flag.value}" for name, flag in values.items()]
    command = [sys.executable, "-m", "benchmarks.peak_memory", f"--only={variant}", *words]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        cli.fail(done.stderr.strip().splitlines()[-1].removeprefix("error: "))
    return int(json.loads(done.stdout.splitlines()[-1]))


if __name__ == "__main__":
    main()
