"""Compare learning rules over seeds: train what is missing, print the table, draw the figure.

python -m trainers.compare --rule=backprop,sign_symmetry --seed=0,1,2 --workdir=runs/mine
python -m trainers.compare --runs=runs/mine,runs/yours --workdir=runs/all

trainers.classify and trainers.detect do the same where several rules or seeds are named.
Runs that are finished are not repeated, runs that were cut go on. With --runs, nothing is trained:
the runs in those folders, finished or still running, are compared by the options they differ in.
"""

import dataclasses
import pathlib
import sys

from absl import flags

from tfbio import training
from tfbio._extras import require
from tfbio.studies import comparison, comparison_figure, sweep
from tfbio.studies.runs import check_folders, load_all, train_missing
from tfbio.training import tasks

from . import cli

LISTS = ("rule", "seed")
"""The options of which a command line may name several."""


@dataclasses.dataclass(frozen=True)
class Command:
    """What to compare."""

    runs: str = cli.option(
        "", "Folders, separated by commas: compare the runs within, finished or not; train nothing."
    )


def main():
    """Run the command line."""
    define(flags.FLAGS)
    cli.run(run)


def define(values):
    """Define the command's flags.

    Args:
        values: The `absl.flags.FlagValues` to define them in.
    """
    cli.define(Command, values)
    cli.define(training.Classification, values, lists=LISTS)


def run(values):
    """Compare what the flags say; wrong options are told in one line.

    Args:
        values: The parsed `absl.flags.FlagValues`.
    """
    console = cli.console()
    with cli.errors_in_one_line():
        if values.runs:
            fields = {field.name for field in dataclasses.fields(training.Classification)}
            odd = [name for name in fields - {"workdir"} if values[name].present]
            if odd:
                raise ValueError(f"--{odd[0]} does not go with --runs, which trains nothing.")
            runs = load_all(cli.split_folders(values.runs), cli.tell_on(console))
            report(runs, values.workdir, console)
            return
        chosen = experiments(values)
    compare(chosen, values.workdir, console)


def experiments(values, kind=training.Classification):
    """Return the experiments in the order to run: all rules of a seed, then the next seed.

    Each one's workdir is a folder of its own in the one given.

    Args:
        values: The parsed `absl.flags.FlagValues`.
        kind: The kind of experiment, a class.

    Returns:
        A list of `Experiment`.

    Raises:
        ValueError: If an option is wrong, or a rule or seed is named twice.
    """
    options = cli.absolute(cli.options(kind, values))
    seeds = []
    for text in cli.split(options["seed"]):
        if not (text.isascii() and text.isdecimal()):
            raise ValueError(f"--seed must be integers of 0 or more. Received: {text!r}.")
        seeds.append(int(text))
    found = []
    for seed in seeds:
        for rule in cli.split(options["rule"]):
            one = kind(**{**options, "rule": rule, "seed": seed})
            folder = pathlib.Path(one.workdir, training.slug(rule), f"seed{seed}")
            found.append(dataclasses.replace(one, workdir=str(folder)))
    if len({experiment.workdir for experiment in found}) < len(found):
        raise ValueError(
            "--rule and --seed must not name one twice. "
            f"Received: --rule={options['rule']} --seed={options['seed']}."
        )
    return found


def compare(chosen, workdir, console):
    """Train what is missing, and report.

    Args:
        chosen: The experiments.
        workdir: The folder for results.json and comparison.png.
        console: A `rich.console.Console`.
    """
    with cli.errors_in_one_line():
        require("matplotlib", extra="plots")  # before the work
        check_folders(chosen)
        with cli.progress(console) as (tell, bar):
            runs = train_missing(chosen, cli.reporting(tell, bar))
        report(runs, workdir, console)
        _tell_what_next(chosen[0].task, console)
    if any(run.diverged for run in runs):
        sys.exit(1)


def report(runs, workdir, console):
    """Print the table, and write results.json, comparison.png and, of a sweep, sweep.png.

    Args:
        runs: A list of `tfbio.studies.runs.Run`.
        workdir: The folder to write to.
        console: A `rich.console.Console`.
    """
    workdir = pathlib.Path(workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    results = comparison.group_by_settings(runs)
    console.print(comparison.table(results))
    comparison.save(results, workdir / "results.json")
    comparison_figure.draw(results, workdir / "comparison.png")
    figures = [workdir / "comparison.png"]
    if swept := sweep.find(runs):
        figures.append(workdir / "sweep.png")
        sweep.draw(swept, figures[-1])
    console.print(
        f"Results:     {workdir / 'results.json'}\n"
        + "".join(f"Figure:      {path}\n" for path in figures)
        + f"TensorBoard: {cli.python()} -m tensorboard.main --logdir {workdir}",
        soft_wrap=True,
        highlight=False,
    )


def _tell_what_next(task, console):
    task = tasks.get(task)
    trainer = f"{cli.python()} -m {__package__}.{task.trainer}"
    console.print(
        f"Try next:    {trainer} --rule='sign_symmetry(agreement=0.8)'\n"
        f"             {trainer} --rule=backprop,frsf,brsf --seed=0,1,2\n"
        f"             {trainer} --flagfile=configs/{task.example}.cfg\n"
        f"             {trainer} --help",
        soft_wrap=True,
        highlight=False,
    )


if __name__ == "__main__":
    main()
