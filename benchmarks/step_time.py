"""The time of a training step under each learning rule, over the same step in plain Keras.

Every variant has a copy of the same network with the same weights, batch, loss and optimizer (SGD
with momentum), and its `train_step` is compiled. All are timed in one process, a step of each per
round, and each step is compared with plain Keras's of the same round. A second plain copy, "plain
Keras again", shows how far from 1 mere chance leads.
"""

import math

import keras
import numpy as np
from absl import flags

import tfbio
from benchmarks import common, training_step
from benchmarks.training_step import MODEL, PLAIN, RULES, train_step
from trainers import cli

AGAIN = "plain Keras again"

ROUNDS = flags.DEFINE_integer("rounds", 60, "Timed rounds.", lower_bound=1)
WARMUP = flags.DEFINE_integer("warmup", 3, "Rounds before them, not timed.", lower_bound=1)
JIT = flags.DEFINE_bool("jit", False, "Compile with XLA.")
flags.adopt_module_key_flags(common)
flags.adopt_module_key_flags(training_step)


def main():
    """Run the command line."""
    cli.run(_main)


def _main(_):
    size, batch_size = common.IMAGE_SIZE.value, common.BATCH_SIZE.value
    batch = common.random_batch(batch_size, size, seed=0)
    try:
        models = variants(MODEL.value, cli.split(RULES.value), size)
    except ValueError as error:
        cli.fail(error)
    steps = {variant: train_step(model, batch, JIT.value) for variant, model in models.items()}
    seconds = common.interleave(steps, ROUNDS.value, WARMUP.value)
    overflowed = [variant for variant, step in steps.items() if not math.isfinite(step())]
    if overflowed:
        cli.fail(f"the loss overflowed, and times mean nothing then: {', '.join(overflowed)}.")
    rows = []
    for variant, taken in seconds.items():
        low, median, high = np.percentile(taken / seconds[PLAIN], (25, 50, 75))
        quartiles = f"{low:.3f}–{high:.3f}"
        rows.append([variant, f"{1000 * np.median(taken):.1f}", f"{median:.3f}", quartiles])
    print(common.machine())
    try:
        common.report(
            f"A training step of {MODEL.value}, batch {batch_size}, {size}×{size}, float32,\n"
            f"{'XLA' if JIT.value else 'tf.function'}, {ROUNDS.value} rounds",
            ["variant", "median ms", f"over {PLAIN}", "quartiles"],
            rows,
            common.CSV.value,
        )
    except OSError as error:
        cli.fail(error)


def variants(name, rules, image_size):
    """Return the models to compare, all of the same weights.

    Args:
        name: The network, see `benchmarks.common.build`.
        rules: The rules' names.
        image_size: Height and width in pixels.

    Returns:
        A dict from `PLAIN`, `AGAIN` and each rule's name to a model.

    Raises:
        ValueError: If the network or a rule is unknown, or they do not fit together.
    """
    keras.utils.set_random_seed(0)
    models = {variant: common.build(name, image_size) for variant in (PLAIN, AGAIN, *rules)}
    weights = models[PLAIN].get_weights()
    for variant, model in models.items():
        model.set_weights(weights)
        if variant not in (PLAIN, AGAIN):
            tfbio.convert(model, variant)
    return models


if __name__ == "__main__":
    main()
