"""The time of a training step under each learning rule, over the same step in plain Keras.

Every variant has a copy of the same network with the same weights, batch, loss and optimizer (SGD
with momentum), compiled as `model.fit` compiles it. All are timed in one process, a step of each
per round, and each step is compared with plain Keras's of the same round. A second plain copy,
"plain Keras again", shows how far from 1 mere chance leads.
"""

import math
import sys

import keras
import numpy as np
import tensorflow as tf
from absl import app, flags

import tfbio
from benchmarks import common

PLAIN, AGAIN = "plain Keras", "plain Keras again"

MODEL = flags.DEFINE_string(
    "model", "resnet18", "The network: resnet18, or keras: and a name in keras.applications."
)
RULES = flags.DEFINE_list("rules", tfbio.rules.names(), "Learning rules, without options.")
ROUNDS = flags.DEFINE_integer("rounds", 30, "Timed rounds.", lower_bound=1)
WARMUP = flags.DEFINE_integer("warmup", 3, "Rounds before them, not timed.", lower_bound=1)
JIT = flags.DEFINE_bool("jit", False, "Compile with XLA.")
flags.adopt_module_key_flags(common)
flags.register_validator("model", common.check_model)


@flags.validator("rules")
def _check_rules(names):
    try:
        return all(tfbio.rules.get(name) for name in names)
    except ValueError as error:
        raise flags.ValidationError(str(error)) from error


def train_step(model, batch, jit):
    """Compile a model, and return a function that takes one training step on the batch.

    Args:
        model: An uncompiled `keras.Model` from images to logits.
        batch: Images and labels.
        jit: Whether to compile with XLA.

    Returns:
        A function without arguments that returns the loss, once the step is done.
    """
    model.compile(
        # Slow enough to stay finite under every rule: overflowed numbers take another time.
        keras.optimizers.SGD(0.001, momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=jit,
    )
    model.make_train_function()
    batches = iter(tf.data.Dataset.from_tensors(batch).repeat())

    def step():
        loss = model.train_function(batches)["loss"]
        tf.test.experimental.sync_devices()
        return float(loss)

    return step


def variants(name, rules, image_size):
    """Return the models to compare, all of the same weights.

    Args:
        name: The network, see `benchmarks.common.build`.
        rules: The rules' names.
        image_size: Height and width in pixels.

    Returns:
        A dict from `PLAIN`, `AGAIN` and each rule's name to a model.
    """
    keras.utils.set_random_seed(0)
    models = {variant: common.build(name, image_size) for variant in (PLAIN, AGAIN, *rules)}
    weights = models[PLAIN].get_weights()
    for variant, model in models.items():
        model.set_weights(weights)
        if variant not in (PLAIN, AGAIN):
            tfbio.convert(model, variant)
    return models


def main(argv):
    """Time every variant and print the table."""
    common.refuse_arguments(argv)
    size, batch_size = common.IMAGE_SIZE.value, common.BATCH_SIZE.value
    batch = common.random_batch(batch_size, size, seed=0)
    models = variants(MODEL.value, RULES.value, size)
    steps = {variant: train_step(model, batch, JIT.value) for variant, model in models.items()}
    seconds = common.interleave(steps, ROUNDS.value, WARMUP.value)
    overflowed = [variant for variant, step in steps.items() if not math.isfinite(step())]
    if overflowed:
        sys.exit(f"The loss overflowed, so that times mean nothing, under {', '.join(overflowed)}.")
    rows = []
    for variant, taken in seconds.items():
        low, median, high = np.percentile(taken / seconds[PLAIN], (25, 50, 75))
        quartiles = f"{low:.3f}–{high:.3f}"
        rows.append([variant, f"{1000 * np.median(taken):.1f}", f"{median:.3f}", quartiles])
    print(common.machine())
    common.report(
        f"A training step of {MODEL.value} (batch {batch_size}, {size}×{size}, float32, "
        f"{'XLA' if JIT.value else 'tf.function'}), {ROUNDS.value} rounds",
        ["", "ms, median", f"over {PLAIN}, median", "quartiles"],
        rows,
        common.CSV.value,
    )


if __name__ == "__main__":
    app.run(main)
