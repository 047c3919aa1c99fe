"""The time of a training step under each rule of target propagation, over backpropagation's.

Bartunov et al.'s networks for MNIST, one step of each in turn, in one process. Both phases of the
alternating schedule are timed apart: a step of the inverses, and one of the forward weights. A
second copy under backpropagation shows how far from 1 mere chance leads.
"""

import keras
import numpy as np
import tensorflow as tf
from absl import flags

import tfbio
from benchmarks import common
from tfbio import models, optimizers
from trainers import cli

RULES = {
    "backprop": "backprop",
    "backprop again": "backprop",
    "feedback_alignment": "feedback_alignment",
    "direct_feedback_alignment": "direct_feedback_alignment",
    "tp": "tp",
    "dtp": "dtp",
    "dtp, a step of inverses": "dtp(schedule='alternating')",
    "dtp, a step of forward weights": "dtp(schedule='alternating')",
    "sdtp": "sdtp",
    "ao_sdtp": "ao_sdtp(auxiliary=512)",
    "l_drl, 20 iterations": "l_drl(rate=1e-5)",
}

NETWORKS = flags.DEFINE_list(
    "networks", ["bartunov_fc_mnist", "bartunov_lc_mnist"], "What to train."
)
ROUNDS = flags.DEFINE_integer("rounds", 30, "Timed rounds.", lower_bound=1)
BATCH_SIZE = flags.DEFINE_integer("examples", 100, "Examples per batch.", lower_bound=1)
for name in ("networks", "rounds", "examples"):
    flags.FLAGS.register_key_flag_for_module("benchmarks.target_propagation", flags.FLAGS[name])


@flags.validator("networks", "must be names of networks of tfbio.models.")
def _check_networks(names):
    return set(names) <= set(models.names())


def main():
    """Run the command line."""
    cli.run(_main)


def _main(_):
    print(common.machine())
    for name in NETWORKS.value:
        seconds = measure(name, BATCH_SIZE.value, ROUNDS.value)
        rows = []
        for variant, taken in seconds.items():
            low, median, high = np.percentile(taken / seconds["backprop"], (25, 50, 75))
            ms = f"{1000 * np.median(taken):.2f}"
            rows.append([variant, ms, f"{median:.2f}", f"{low:.2f}–{high:.2f}"])
        common.report(
            f"A step of {name}, batch {BATCH_SIZE.value}, Adam, {ROUNDS.value} rounds",
            ["variant", "median ms", "over backprop", "quartiles"],
            rows,
        )


def measure(name, size, rounds):
    """Return a dict from variant to the seconds of its steps.

    Args:
        name: The network.
        size: Examples per batch.
        rounds: The number of timed rounds.
    """
    images = tf.random.stateless_uniform((size, 28, 28, 1), (0, 0))
    labels = tf.range(size) % 10
    steps = {v: _step(name, rule, v, (images, labels)) for v, rule in RULES.items()}
    return common.interleave(steps, rounds, warmup=3)


def _step(name, rule, variant, batch):
    keras.utils.set_random_seed(0)
    model = tfbio.convert(models.build(name, 10, (28, 28, 1)), rule)
    feedback = None
    if "alternating" in rule:
        # Turns that no measurement sees the end of.
        feedback = optimizers.Feedback(alternate=10**6)
    optimizer = optimizers.get("adam", 1e-5, feedback=feedback)
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    optimizer.build(model.trainable_variables)
    if "forward" in variant:
        optimizer.iterations.assign(10**6)
    compiled = tf.function(model.train_step, jit_compile=False, autograph=False)

    def step():
        loss = compiled(batch)["loss"]
        tf.test.experimental.sync_devices()
        return float(loss)

    return step


if __name__ == "__main__":
    main()
