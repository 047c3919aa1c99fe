"""What telemetry costs: the time of training with it, at its default interval, over without.

Two trainings of one experiment in one process, a stretch of steps of each in turn, first the one
and then the other: as many steps as lie between two measurements (--telemetry_every), with the
measurement at their end and all records. The share is that of the time measured apart, in the time
of the steps. Compiling is told apart: it happens once a run.
"""

import dataclasses
import pathlib
import tempfile
import time

import numpy as np
from absl import flags

from benchmarks import common
from tfbio import training
from tfbio.training.options import default
from tfbio.training.signals import Signals
from tfbio.training.train import Telling, Training
from trainers import cli

NETWORKS = {
    "digits_cnn": {},
    "lenet": {"model": "lenet", "dataset": "fashion_mnist", "image_size": 32},
    "resnet18": {"model": "resnet18", "image_size": 32, "learning_rate": 0.01},
}
"""The options of each experiment; digits where no other dataset is named."""

RULE = flags.DEFINE_string("rule", "sign_symmetry", "The learning rule.")
NETWORK = flags.DEFINE_list("networks", ["digits_cnn", "lenet", "resnet18"], "What to train.")
ROUNDS = flags.DEFINE_integer("rounds", 10, "Timed stretches of each.", lower_bound=1)
for name in ("rule", "networks", "rounds"):
    flags.FLAGS.register_key_flag_for_module("benchmarks.telemetry", flags.FLAGS[name])


@flags.validator("networks", f"must be of {', '.join(NETWORKS)}.")
def _check_networks(names):
    return set(names) <= set(NETWORKS)


def main():
    """Run the command line."""
    cli.run(_main)


def _main(_):
    every = default(training.Classification, "telemetry_every")
    rows = []
    with cli.errors_in_one_line():
        for name in NETWORK.value:
            seconds, compiling, measuring = measure(NETWORKS[name], every, ROUNDS.value)
            with_it, without = seconds["with"], seconds["without"]
            ratios = np.quantile(with_it / without, (0.5, 0.25, 0.75))
            rows.append(
                [
                    name,
                    f"{1000 * np.median(without) / every:.2f}",
                    f"{ratios[0]:.3f}",
                    f"{ratios[1]:.3f}–{ratios[2]:.3f}",
                    f"{1000 * np.median(measuring):.1f}",
                    f"{1 + np.median(measuring) / np.median(without):.3f}",
                    f"{compiling:.1f}",
                ]
            )
    print(common.machine())
    common.report(
        f"Training with telemetry every {every} steps, over without,\n"
        f"{RULE.value}, batch {default(training.Classification, 'batch_size')}, "
        f"{ROUNDS.value} rounds",
        [
            "",
            "ms/step",
            "ratio",
            "quartiles",
            "one, ms",
            "1 + share",
            "first, s",
        ],
        rows,
        common.CSV.value,
    )


def measure(options, every, rounds):
    """Time stretches of `every` steps, with telemetry and without.

    Args:
        options: Of the experiment.
        every: The steps between two measurements.
        rounds: The timed stretches of each.

    Returns:
        (a dict from "with" and "without" to seconds by round, the seconds that the first
        measurement takes over another, the seconds of measurements by round).
    """
    with tempfile.TemporaryDirectory() as root:
        experiment = training.Classification(
            **{"learning_rate": 0.001, **options}, rule=RULE.value, epochs=10**6, workdir=root
        )
        runs, first = {}, None
        for name, interval in (("without", 0), ("with", every)):
            one = dataclasses.replace(
                experiment, telemetry_every=interval, workdir=str(pathlib.Path(root, name))
            )
            prepared = training.prepare(one)
            pathlib.Path(one.workdir).mkdir()
            begin = time.perf_counter()
            runs[name] = Training(
                prepared, pathlib.Path(one.workdir), Telling(lambda text: None), Signals()
            )
            first = time.perf_counter() - begin - (first or 0.0)
        stretches = {name: _stretches(run, every) for name, run in runs.items()}
        seconds = common.interleave(
            {name: lambda steps=steps: next(steps) for name, steps in stretches.items()},
            rounds,
            warmup=1,
        )
        telemetry = runs["with"].telemetry
        measuring = common.interleave({"one": telemetry.of_gradients}, rounds, warmup=1)["one"]
    return seconds, first - np.median(measuring), measuring


def _stretches(run, every):
    """Train, and pause each time that `every` steps are done."""
    while True:
        for _ in run.stretches():
            if run.step % every == 0:
                yield


if __name__ == "__main__":
    main()
