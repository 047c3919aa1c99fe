"""Attack trained classifiers by their gradient, the true one and the rule's own: how many survive.

python -m trainers.attack --run=runs/mine
python -m trainers.attack --runs=runs/demo --attacks=pgd --epsilons=0,2/255,8/255 --examples=200

Prints the table, and writes attack.json and attack.png. The accuracy under the true gradient says
how robust a network is, within what these attacks find. Under the rule's own it says how misleading
that gradient is: it passes through B, and is not the gradient of what the network computes.
"""

import contextlib
import dataclasses
import os
import pathlib
import re

from absl import flags

from tfbio import training
from tfbio._extras import require
from tfbio.studies import robustness, robustness_report
from tfbio.studies.attack_options import Attack
from tfbio.studies.runs import find_folders
from tfbio.training import outputs

from . import cli


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
        return [os.path.expanduser(self.run)] if self.run else cli.split_folders(self.runs)

    @property
    def flag(self):
        """The flag that names them."""
        return "--run" if self.run else "--runs"

    def paths(self):
        """Return the folders of the runs to attack, a list."""
        return find_folders(self.folders) if self.runs else self.folders

    def moved(self, run):
        """Return a run with the data where the command line says."""
        if not self.data_dir:
            return run
        options = cli.absolute({"data_dir": self.data_dir})
        return run._replace(experiment=dataclasses.replace(run.experiment, **options))


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
    cli.define(Attack, values)


def run(values):
    """Attack what the flags say; wrong options are told in one line.

    Args:
        values: The parsed `absl.flags.FlagValues`.
    """
    console = cli.console()
    with cli.errors_in_one_line():
        command = Command(**cli.options(Command, values))
        attack = Attack(**cli.options(Attack, values))
        require("matplotlib", extra="plots")  # before the work
        with cli.progress(console) as (tell, bar), _naming_flags(command.flag):
            runs = robustness.load_runs(command.paths(), attack.checkpoint, tell)
            runs = [command.moved(run) for run in runs]
            output = pathlib.Path(command.output or command.folders[0])
            with outputs.naming_output(output):  # before the work
                output.mkdir(parents=True, exist_ok=True)
            measured = robustness.measure_runs(runs, attack, tell, bar)
        results = robustness_report.group(runs, measured)
        console.print(robustness_report.table(results, attack))
        for line in robustness_report.describe_masked(results):
            console.print(line, highlight=False)
        with outputs.naming_output(output):
            robustness_report.save(runs, measured, attack, output / "attack.json")
            robustness_report.figure(results, attack, output / "attack.png")
        counts = " or ".join(map(str, sorted({each.examples for each in measured})))
        console.print(
            f"{counts} images of the {attack.split} split a run\n"
            f"Results: {output / 'attack.json'}\nFigure:  {output / 'attack.png'}",
            soft_wrap=True,
            highlight=False,
        )


@contextlib.contextmanager
def _naming_flags(flag):
    """Name flags in errors about a run: the one that gave its folder, and those of its training.

    Args:
        flag: What stands in place of `workdir`.
    """
    try:
        yield
    except ValueError as error:
        message = re.sub(r"`workdir(=[^`]*)?`", lambda found: flag + (found[1] or ""), str(error))
        trained = {field.name for field in dataclasses.fields(training.Classification)}
        raise ValueError(cli.name_flags(message, trained)) from error


if __name__ == "__main__":
    main()
