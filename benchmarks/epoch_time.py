"""Where an epoch's time goes, and what the training loop costs over plain `fit`.

LeNet on a share of Fashion-MNIST (12,000 images resized to 32×32): short epochs, so that a machine
whose speed drifts has little time to between those compared. In one process, an epoch of each in
turn, in another order every round:

- fit: plain `model.fit` on the same batches, with as many steps per execution as the loop takes
  per call;
- loop: the compiled steps of `tfbio.training`, and nothing else;
- training: the whole of it, with records and checkpoints at their default intervals;
- input: the same batches read and thrown away;
- steps: the loop again, on batches that were made ready before and stay in memory.
"""

import pathlib
import tempfile
import time

import numpy as np
from absl import flags

from benchmarks import common
from tfbio import training
from tfbio.training.loop import Loop
from tfbio.training.run import Reporter, Training
from tfbio.training.signals import Signals
from trainers import cli

RULE = flags.DEFINE_string("rule", "sign_symmetry", "The learning rule.")
DATA_DIR = flags.DEFINE_string("data_dir", "", "The folder of Fashion-MNIST; empty: usual places.")
ROUNDS = flags.DEFINE_integer("rounds", 30, "Timed epochs of each.", lower_bound=1)
for name in ("rule", "data_dir", "rounds"):
    flags.FLAGS.register_key_flag_for_module("benchmarks.epoch_time", flags.FLAGS[name])


def main():
    """Run the command line."""
    cli.run(_main)


def _main(_):
    with tempfile.TemporaryDirectory() as workdir, cli.errors_in_one_line():
        experiment = training.Classification(
            dataset="fashion_mnist",
            data_dir=DATA_DIR.value,
            image_size=32,
            model="lenet",
            rule=RULE.value,
            validation_fraction=0.0,
            train_fraction=0.2,
            learning_rate=0.01,
            epochs=ROUNDS.value + 1,
            workdir=workdir,
        )
        run = Training(
            training.prepare(experiment),
            pathlib.Path(workdir),
            Reporter(lambda text: None),
            Signals(),
        )
        seconds = measure(variants(experiment, run), ROUNDS.value)
        saving = measure({"checkpoint": lambda index: run.save()}, 20)["checkpoint"][:, 0]
        steps = run.prepared.steps_per_epoch
    print(common.machine())
    rows = []
    for name, taken in seconds.items():
        clock, processor = np.median(taken / seconds["fit"], axis=0)
        median = np.median(taken[:, 0])
        milliseconds = f"{1000 * median / steps:.2f}"
        rows.append([name, f"{median:.2f}", milliseconds, f"{clock:.3f}", f"{processor:.3f}"])
    common.report(
        f"An epoch of LeNet on a fifth of Fashion-MNIST, batch {experiment.batch_size},\n"
        f"{RULE.value}, {ROUNDS.value} rounds",
        ["", "median s", "ms a step", "over fit", "processor's"],
        rows,
        common.CSV.value,
    )
    between = experiment.checkpoint_every * np.median(seconds["training"][:, 0]) / steps
    print(
        f"A checkpoint takes {1000 * np.median(saving):.1f} ms: {np.median(saving) / between:.2%} "
        f"of the {experiment.checkpoint_every} steps between two."
    )


def variants(experiment, run):
    """Return what to time.

    Args:
        experiment: The `Experiment`.
        run: Its `Training`.

    Returns:
        A dict from name to a function of the round, from 0, that does one epoch's work.
    """
    for_fit, for_loop, for_steps = (training.prepare(experiment) for _ in range(3))
    steps = for_fit.steps_per_epoch
    for_fit.model.compile(
        for_fit.model.optimizer,
        for_fit.model.loss,
        metrics=["accuracy"],
        steps_per_execution=experiment.steps_per_call,
        jit_compile=False,
    )
    loop, loop_in_memory = Loop(for_loop), Loop(for_steps)
    ready = for_steps.epoch(0, 0).cache()  # filled by the first round, which is not timed

    def fit(index):
        for_fit.model.fit(for_fit.epoch(index, 0), epochs=1, shuffle=False, verbose=0)

    def steps_of(loop, batches):
        loop.prepared.model.reset_metrics()
        left = steps
        while left:
            taken, _ = loop.train(batches, min(left, experiment.steps_per_call))
            left -= taken

    def read(index):
        for _ in for_loop.epoch(index, 0):
            pass

    return {
        "fit": fit,
        "loop": lambda index: steps_of(loop, iter(for_loop.epoch(index, 0))),
        "training": lambda index: run.train_epoch(),
        "input": read,
        "steps": lambda index: steps_of(loop_in_memory, iter(ready)),
    }


def measure(work, rounds):
    """Return the seconds of each variant's rounds, after one that compiles: (rounds, 2).

    The first are the clock's, the second the processor's: these count all cores, and other
    processes do not disturb them.
    """
    seconds = {name: [] for name in work}
    names = list(work)
    for index in range(rounds + 1):
        for name in names:
            begin = time.perf_counter(), time.process_time()
            work[name](index)
            if index:
                taken = time.perf_counter() - begin[0], time.process_time() - begin[1]
                seconds[name].append(taken)
        names = names[1:] + names[:1]
    return {name: np.array(taken) for name, taken in seconds.items()}


if __name__ == "__main__":
    main()
