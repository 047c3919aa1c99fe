"""Search the options of a run at random, within ranges that a config states; chosen on validation.

python -m trainers.search --flagfile=configs/digits_search.cfg --trials=12
python -m trainers.search --task=detection --flagfile=mine.cfg --trials=60

A config states ranges as comments, one for each flag:

# Search: --learning_rate=log(1e-5, 1e-2)
# Search: --momentum=uniform(0.5, 0.99)
# Search: --batch_size=choice(32, 64, 128)
# Search: --rule=sign_symmetry(agreement=uniform(0.5, 1))

Every trial is a run in a folder of its own, workdir/trial000 and so on. The test split is measured
once, under the best trial. The same command again goes on where a search was cut. Writes
search.json, search.png, and best.cfg for trainers.classify or trainers.detect.
"""

import dataclasses
import pathlib
import re

from absl import flags

from tfbio._extras import require
from tfbio.studies import ranges, search, search_report
from tfbio.training import tasks

from . import cli
from .compare import TRAINERS

_LEADERS = 5
"""The trials that are listed after each one."""


@dataclasses.dataclass(frozen=True)
class Command:
    """What to search.

    Raises:
        ValueError: If the task is unknown.
    """

    task: str = cli.option(
        "classification",
        f"What is learned, which decides what other flags there are: {', '.join(tasks.names())}.",
    )
    ranges: str = cli.option(
        "",
        "The files, separated by commas, that state the ranges; empty: those of --flagfile.",
    )

    def __post_init__(self):
        """Check every option."""
        if self.task not in tasks.names():
            raise ValueError(
                f"--task must be one of {', '.join(tasks.names())}. Received: {self.task!r}."
            )


def main():
    """Run the command line."""
    cli.run(run, parse)


def define(values, task="classification"):
    """Define the command's flags.

    Args:
        values: The `absl.flags.FlagValues` to define them in.
        task: One of `tasks.names()`.
    """
    cli.define(Command, values)
    cli.define(search.Settings, values)
    cli.define(tasks.get(task).experiment, values)
    # A folder of runs is no run's folder.
    values.set_default("workdir", "runs/search")


def parse(values, arguments):
    """Define the flags that there are for the task, and parse a command line.

    Args:
        values: The `absl.flags.FlagValues` to define them in and set.
        arguments: The command line, the program's name first.

    Returns:
        The program's name, in a list.
    """
    task = _task(arguments)
    if task not in tasks.names():
        cli.fail(f"--task must be one of {', '.join(tasks.names())}. Received: {task!r}.", status=2)
    define(values, task)
    left = cli.parse(values, arguments)
    paths = cli.split(values.ranges) if values.ranges else cli.flagfiles(arguments[1:])
    values.ranges = ",".join(paths)
    with cli.errors_in_one_line():
        given = {re.sub(r"^--?(no)?|=.*", "", each, flags=re.S) for each in arguments[1:]}
        for where, text in ranges.lines(paths):
            name = text.partition("=")[0].removeprefix("--")
            if name in given:
                cli.fail(
                    f"--{name} is given, and searched by {where}. Leave out one of the two.",
                    status=2,
                )
    return left


def _task(arguments):
    """Return the task, which must be known before the other flags can be."""
    early = flags.FlagValues()
    cli.define(Command, early)
    early.set_gnu_getopt(True)  # what has no "=" between name and value is no end of the flags
    try:
        early(arguments, known_only=True)
    except (flags.Error, OSError, UnicodeDecodeError):
        return "classification"  # the command line is parsed again, and what is wrong told then
    return early.task


def run(values):
    """Search as the flags say; wrong options are told in one line.

    Args:
        values: The parsed `absl.flags.FlagValues`.
    """
    console = cli.console()
    with cli.errors_in_one_line():
        command = Command(**cli.options(Command, values))
        settings = search.Settings(**cli.options(search.Settings, values))
        kind = tasks.get(command.task).experiment
        experiment = kind(**cli.absolute(cli.options(kind, values)))
        of = ranges.read(cli.split(command.ranges) if command.ranges else [], experiment)
        path = pathlib.Path(experiment.workdir)
        require("matplotlib", extra="plots")  # before the work
        with cli.progress(console) as (tell, bar):

            def telling(name):
                return {
                    "tell": lambda text: tell(f"{name}: {text}"),
                    "progress": bar(name),
                    "tell_epochs": False,
                    "measuring": bar(f"{name}, measuring"),
                }

            def after(found):
                search_report.save(found, path)
                console.print(search_report.table(found, most=_LEADERS))

            found = search.run(experiment, of, settings, telling, after)
        console.print(search_report.table(found))
        for trial in found.trials:
            if trial.failed:
                console.print(f"{trial.name}: {trial.failed}", highlight=False, markup=False)
        search_report.save(found, path)
        if found.best is None:
            raise ValueError(
                f"All of {len(found.trials)} trials have failed; {path / 'search.json'} says how. "
                "Give other ranges, such as lower learning rates, and another --workdir."
            )
        trainer = f"{cli.python()} -m {__package__}.{TRAINERS[command.task]}"
        console.print(
            f"{found.best.name}: validation {experiment.label} {found.best.score:.2%}, "
            f"{cli.result(experiment, found.tested)}\n"
            f"Results:  {path / 'search.json'}\nFigure:   {path / 'search.png'}\n"
            f"Try next: {trainer} --flagfile={path / 'best.cfg'} "
            "--seed=1,2,3",
            soft_wrap=True,
            highlight=False,
        )


if __name__ == "__main__":
    main()
