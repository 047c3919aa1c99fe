"""Train image classifiers under one learning rule, or compare several over several seeds.

python -m trainers.classify --rule=backprop,sign_symmetry --seed=0,1,2 --workdir=runs/mine
"""

import dataclasses
import os
import pathlib
import sys

import keras
import tensorflow as tf
from absl import flags
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tfbio import training
from trainers import cli

LISTS = ("rule", "seed")
"""The options of which a command line may name several."""


def main():
    """Run the command line."""
    cli.define(training.Experiment, flags.FLAGS, lists=LISTS)
    cli.run(compare)


def compare(values):
    """Train every rule with every seed, and report; wrong options are told in one line.

    Args:
        values: The parsed `absl.flags.FlagValues`.
    """
    console = Console()
    workdir = pathlib.Path(values.workdir)
    try:
        experiments = _experiments(values)
        for experiment in experiments:  # rather now than after an hour of training
            _check_writable(pathlib.Path(experiment.workdir))
        first = training.prepare(experiments[0])
    except (ValueError, OSError) as error:
        cli.fail(error)
    try:
        results = _train_all(experiments, first, console)
        console.print(training.report.table(results))
        training.report.save(results, workdir / "results.json")
        label = "validation accuracy" if values.validation_fraction else "training accuracy"
        training.report.figure(results, workdir / "comparison.png", label)
    except (OSError, tf.errors.OpError) as error:
        cli.fail(error)
    # The interpreter that runs this has the packages; the shell's may not.
    binaries = pathlib.Path(os.path.relpath(sys.executable)).parent
    python = "python" if str(binaries).startswith("..") else str(binaries / "python")
    trainer = f"{python} -m trainers.classify"
    console.print(
        f"Results:     {workdir / 'results.json'}\n"
        f"Figure:      {workdir / 'comparison.png'}\n"
        f"TensorBoard: {python} -m tensorboard.main --logdir {workdir}\n"
        f"Try next:    {trainer} --rule='sign_symmetry(agreement=0.8)'\n"
        f"             {trainer} --rule=backprop,frsf,brsf --seed=0,1,2\n"
        f"             {trainer} --flagfile=configs/fashion_mnist_lenet.cfg\n"
        f"             {trainer} --help",
        soft_wrap=True,
        highlight=False,
    )


def _check_writable(folder):
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("metrics.csv", "../../results.json", "../../comparison.png"):
        with (folder / name).open("a"):
            pass


def _experiments(values):
    """Return the experiments in the order to run: all rules of a seed, then the next seed."""
    options = {f.name: values[f.name].value for f in dataclasses.fields(training.Experiment)}
    chosen = cli.split(options["rule"])
    seeds = []
    for text in cli.split(options["seed"]):
        if not text.isdecimal():
            raise ValueError(f"--seed must be integers of 0 or more. Received: {text!r}.")
        seeds.append(int(text))
    experiments = []
    for seed in seeds:
        for rule in chosen:
            one = training.Experiment(**{**options, "rule": rule, "seed": seed})
            folder = pathlib.Path(one.workdir, training.slug(rule), f"seed{seed}")
            experiments.append(dataclasses.replace(one, workdir=str(folder)))
    folders = [experiment.workdir for experiment in experiments]
    if len(set(folders)) < len(folders):
        raise ValueError(
            "--rule and --seed must not name one twice. "
            f"Received: --rule={options['rule']} --seed={options['seed']}."
        )
    return experiments


def _train_all(experiments, first, console):
    results = {}
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("epochs, left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("", total=sum(experiment.epochs for experiment in experiments))
        for index, experiment in enumerate(experiments):
            name = training.slug(experiment.rule)
            progress.update(bar, description=f"{name}, seed {experiment.seed}")
            tick = keras.callbacks.LambdaCallback(
                on_epoch_end=lambda epoch, logs: progress.advance(bar)
            )
            prepared = training.prepare(experiment) if index else first
            result = training.train(experiment, prepared, [tick])
            results.setdefault(name, []).append(result)
            progress.console.print(
                f"{name}, seed {experiment.seed}: test accuracy {result.test_accuracy:.2%}",
                highlight=False,
            )
    return results


if __name__ == "__main__":
    main()
