"""Search the options of a run at random, within the ranges of a file; chosen on validation.

python -m trainers.search --flagfile=mine.cfg --ranges=mine.ranges --trials=60
python -m trainers.search --task=detection --flagfile=mine.cfg --ranges=mine.ranges

A file of ranges has a line for each option that is searched:

learning_rate = log(1e-5, 1e-2)
momentum = uniform(0.5, 0.99)
batch_size = choice(32, 64, 128)
rule.agreement = uniform(0.5, 1)

Every trial is a run in a folder of its own, workdir/trial000 and so on. The test split is measured
once, under the best trial. Rerunning the command resumes an interrupted search. Writes search.json,
search.png, and best.cfg for trainers.classify or trainers.detect.
"""

import dataclasses
import pathlib
import re

from absl import flags

from tfbio._extras import require
from tfbio.studies import ranges, search, search_report
from tfbio.studies.runs import format_score
from tfbio.training import tasks

from . import cli

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
        "", "The file of ranges, with a line such as 'learning_rate = log(1e-5, 1e-2)' for each."
    )

    def __post_init__(self):
        """Check every option."""
        if self.task not in tasks.names():
            raise ValueError(
                f"--task must be one of {', '.join(tasks.names())}. Received: {self.task!r}."
            )
        if not self.ranges:
            raise ValueError(
                "--ranges must be a file with lines such as 'learning_rate = log(1e-5, 1e-2)', "
                "such as configs/digits_search.ranges. Received: none."
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
    if values.ranges:
        _refuse_searched(arguments[1:], values.ranges)
    return left


def _refuse_searched(words, path):
    """Refuse a flag on the command line whose values are searched."""
    given = {re.sub(r"^--?|=.*", "", word, flags=re.S) for word in words}
    with cli.errors_in_one_line():
        for where, text in ranges.read_lines(path):
            option = re.split(r"[.=\s]", text)[0]
            if given & {option, f"no{option}"}:
                cli.fail(f"--{option} is given, and searched by {where}. Remove one.", status=2)


def _task(arguments):
    """Return the task, which must be known before the other flags can be."""
    early = flags.FlagValues()
    cli.define(Command, early)
    early.set_gnu_getopt(True)  # what has no "=" between name and value is no end of the flags
    try:
        early(arguments, known_only=True)
    except (flags.Error, OSError, UnicodeDecodeError):
        return "classification"  # errors are reported when all flags are parsed
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
        space = ranges.read(command.ranges, experiment)
        path = pathlib.Path(experiment.workdir)
        require("matplotlib", extra="plots")  # before the work
        with cli.progress(console) as (tell, bar):

            def after_trial(outcome):
                search_report.save(outcome, path)
                console.print(search_report.table(outcome, most=_LEADERS))

            outcome = search.run(experiment, space, settings, cli.reporting(tell, bar), after_trial)
        console.print(search_report.table(outcome))
        for trial in outcome.trials:
            if trial.failed:
                console.print(f"{trial.name}: {trial.failed}", highlight=False, markup=False)
        search_report.save(outcome, path)
        if outcome.best is None or outcome.tested is None:
            raise ValueError(
                f"All of {len(outcome.trials)} trials have failed; {path / 'search.json'} says "
                "how. Give other ranges, such as lower learning rates, and another --workdir."
            )
        trainer = f"{cli.python()} -m {__package__}.{tasks.get(command.task).trainer}"
        console.print(
            f"{outcome.best.name}: validation {experiment.label} {outcome.best.score:.2%}, "
            f"{format_score(experiment, outcome.tested)}\n"
            f"Results:  {path / 'search.json'}\nFigure:   {path / 'search.png'}\n"
            f"Try next: {trainer} --flagfile={path / 'best.cfg'} "
            "--seed=1,2,3",
            soft_wrap=True,
            highlight=False,
        )


if __name__ == "__main__":
    main()
