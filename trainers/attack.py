"""Attack trained classifiers by their gradient, the true one and the rule's own: how many survive.

python -m trainers.attack --run=runs/mine
python -m trainers.attack --runs=runs/demo --attacks=pgd --epsilons=0,2/255,8/255 --examples=200

Prints the table, and writes attack.json and attack.png. The accuracy under the true gradient says
how robust a network is, within what these attacks find. Under the rule's own it says how misleading
that gradient is: it passes through B, and is not the gradient of what the network computes.
"""

import dataclasses
import os
import pathlib

from absl import flags

from tfbio import training
from tfbio._extras import require
from tfbio.studies import comparison, robustness, robustness_report
from tfbio.training import folder, memory, outputs, use

from . import cli, compare


@dataclasses.dataclass(frozen=True)
class Command:
    """What to attack, and where to write.

    Raises:
        ValueError: If not one of `run` and `runs` is given, or `output` is missing.
    """

    run: str = cli.option("", "The folder of a run of trainers.classify.")
    runs: str = cli.option(
        "", "Or folders, separated by commas: attack the runs within, of whatever rules and seeds."
    )
    data_dir: str = cli.option(
        "", "The folder with the dataset's files; empty: that of the run's own --data_dir."
    )
    output: str = cli.option(
        "", "The folder for attack.json and attack.png; empty: that of --run, or of one --runs."
    )

    def __post_init__(self):
        """Check every option."""
        if bool(self.run) == bool(self.runs):
            raise ValueError(
                "Give --run, the folder of a run, or --runs, folders that hold some. "
                f"Received: --run={self.run} --runs={self.runs}."
            )
        if len(self.folders) > 1 and not self.output:
            raise ValueError(
                f"--output must be a folder where --runs names several. Received: {self.runs!r}."
            )

    @property
    def folders(self):
        """The folders, a list."""
        given = [self.run] if self.run else filter(None, cli.split(self.runs))
        return [os.path.expanduser(each) for each in given]

    @property
    def flag(self):
        """The flag that names them."""
        return "--run" if self.run else "--runs"


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
    cli.define(robustness.Attack, values)


def run(values):
    """Attack what the flags say; wrong options are told in one line.

    Args:
        values: The parsed `absl.flags.FlagValues`.
    """
    console = cli.console()
    with cli.errors_in_one_line():
        command = Command(**cli.options(Command, values))
        attack = robustness.Attack(**cli.options(robustness.Attack, values))
        require("matplotlib", extra="plots")  # before the work
        with cli.progress(console) as (tell, bar):
            runs = runs_of(command, attack, tell)
            output = pathlib.Path(command.output or command.folders[0])
            with outputs.naming_output(output):  # before the work
                output.mkdir(parents=True, exist_ok=True)
            found = [_attacked(command, attack, run, tell, bar) for run in runs]
        results = _grouped(runs, found)
        console.print(robustness_report.table(results, attack))
        for line in _masked(results):
            console.print(line, highlight=False)
        with outputs.naming_output(output):
            _save(output / "attack.json", attack, runs, found)
            robustness_report.figure(results, attack, output / "attack.png")
        counts = " or ".join(map(str, sorted({each.examples for each in found})))
        console.print(
            f"{counts} images of the {attack.split} split a run\n"
            f"Results: {output / 'attack.json'}\nFigure:  {output / 'attack.png'}",
            soft_wrap=True,
            highlight=False,
        )


def runs_of(command, attack, tell):
    """Return the runs to attack, each found good for it.

    Args:
        command: The `Command`.
        attack: The `tfbio.studies.robustness.Attack`.
        tell: Called with lines of text.

    Returns:
        A list of `comparison.Run`, whose experiments' workdirs are where they are now.

    Raises:
        ValueError: If a folder holds no run, one of another kind, or none of its weights.
    """
    flag, paths = command.flag, [pathlib.Path(command.folders[0])]
    if command.runs:
        paths = compare.paths_in(command.folders)
    runs = []
    for path in paths:
        experiment = folder.read_flags(path)
        if experiment is None:
            raise ValueError(
                f"{flag} must be a run's folder, with its flags.cfg. Received: {str(path)!r}."
            )
        if experiment.task != "classification":
            raise ValueError(
                f"{flag}: {path} holds a run of {experiment.task}. Give one of "
                "classification, by trainers.classify."
            )
        if use.latest(path, attack.checkpoint, tell) is None:
            raise ValueError(
                f"{flag}: {path} has no {attack.checkpoint} checkpoint. Give a run that was trained"
                + (", with validation." if attack.checkpoint == "best" else ".")
            )
        experiment = dataclasses.replace(experiment, workdir=str(path))
        if command.data_dir:
            moved = cli.absolute({"data_dir": command.data_dir})
            experiment = dataclasses.replace(experiment, **moved)
        runs.append(comparison.load(path)._replace(experiment=experiment))
    return runs


def _attacked(command, attack, run, tell, bar):
    """Return the `Robustness` of a run."""
    name = f"{training.slug(run.experiment.parsed_rule)}, seed {run.experiment.seed}"
    workdir = f"`workdir={run.experiment.workdir}`"
    try:
        with memory.freed():
            found = robustness.measure(run.experiment, attack, tell, bar(name))
    except ValueError as error:  # by the flag that there is here
        message = str(error).replace(workdir, f"{command.flag}={run.experiment.workdir}")
        raise ValueError(message) from error
    if run.summary is None:
        tell(f"{run.experiment.workdir} is not finished: attacked as of step {found.step}.")
    return found


def _grouped(runs, found):
    """Return the results by what the runs differ in beside the seed."""
    by_run = {id(run): each for run, each in zip(runs, found, strict=True)}
    groups = comparison.by_settings(runs).items()
    return {name: [by_run[id(run)] for run in group] for name, group in groups}


def _masked(results):
    """Yield a line for every gradient that is zero all over some images."""
    for name, found in results.items():
        for gradient in found[0].masked:
            count = sum(round(each.masked[gradient] * each.examples) for each in found)
            if count:
                yield (
                    f"{name}: the {gradient} gradient of {count} of "
                    f"{sum(each.examples for each in found)} images is zero: nothing by it "
                    "can move them."
                )


def _save(path, attack, runs, found):
    document = {
        "attack": dataclasses.asdict(attack),
        **folder.circumstances(),
        "runs": [
            {
                "flags": folder.flagfile(run.experiment).splitlines(),
                "starts": run.starts,
                "finished": run.summary is not None,
                **each.document(),
            }
            for run, each in zip(runs, found, strict=True)
        ],
    }
    folder.save_json(path, document)


if __name__ == "__main__":
    main()
