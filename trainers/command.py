"""The command: what trainers.classify and trainers.detect do with an experiment of their task."""

import dataclasses
import pathlib

from absl import flags

from tfbio import training
from tfbio.studies.runs import format_score
from tfbio.training import strategies, tasks, use
from tfbio.training.divergence import ADVICE
from tfbio.training.experiment import CHECKPOINTS

from . import cli, compare

MODES = ("train", "evaluate", "predict", "export")


@dataclasses.dataclass(frozen=True)
class Command:
    """What to do with an experiment.

    Raises:
        ValueError: If an option is unknown or does not go with the mode.
    """

    mode: str = cli.option("train", f"What to do: {', '.join(MODES)}.")
    checkpoint: str = cli.option(
        "last", f"The weights to evaluate, predict with or export: {', '.join(CHECKPOINTS)}."
    )
    images: str = cli.option("", "With --mode=predict: the folder of images.")
    output: str = cli.option(
        "",
        "With --mode=predict or export: where to write; empty: predictions (predictions.csv of a "
        "classifier) or export in the workdir.",
    )

    def __post_init__(self):
        """Check every option."""
        for name, known in (("mode", MODES), ("checkpoint", CHECKPOINTS)):
            value = getattr(self, name)
            if value not in known:
                raise ValueError(
                    f"--{name} must be one of {', '.join(known)}. Received: {value!r}."
                )
        if bool(self.images) != (self.mode == "predict"):
            raise ValueError(
                "--images and --mode=predict go together. "
                f"Received: --mode={self.mode} --images={self.images}."
            )
        if self.output and self.mode not in ("predict", "export"):
            raise ValueError(f"--output does not go with --mode={self.mode}.")
        if self.checkpoint != "last" and self.mode == "train":
            raise ValueError("--checkpoint does not go with --mode=train.")


def main(task):
    """Run the command line of a task.

    Args:
        task: One of `tfbio.training.tasks.names()`.
    """
    define(flags.FLAGS, task)
    cli.run(lambda values: act(values, task))


def define(values, task):
    """Define the command's flags.

    Args:
        values: The `absl.flags.FlagValues` to define them in.
        task: The task's name.
    """
    cli.define(Command, values)
    cli.define(tasks.get(task).experiment, values, lists=compare.LISTS)


def act(values, task):
    """Do what the flags say; wrong options are reported in one line.

    Args:
        values: The parsed `absl.flags.FlagValues`.
        task: The task's name.
    """
    kind = tasks.get(task).experiment
    console = cli.console()
    with cli.errors_in_one_line():
        command = Command(**cli.options(Command, values))
        if command.mode != "train":
            _use(command, cli.experiment_of_run(values, kind), console)
            return
        experiments = compare.experiments(values, kind)
    if len(experiments) > 1:
        compare.compare(experiments, values.workdir, console)
        return
    with cli.errors_in_one_line():
        experiment = dataclasses.replace(experiments[0], workdir=values.workdir)
        with cli.progress(console) as (tell, bar):
            name = training.slug(experiment.parsed_rule)
            summary = training.train_and_evaluate(
                experiment, tell, bar(name), measuring=bar(f"{name}, measuring")
            )
        if not strategies.get_devices(experiment).chief:
            return  # one of several workers speaks
        path = pathlib.Path(experiment.workdir)
        boxes = f"Boxes:       {path / 'boxes.png'}\n" if (path / "boxes.png").exists() else ""
        console.print(
            f"{format_score(experiment, summary)} after {summary['steps']:,} steps\n"
            f"Results:     {path / 'summary.json'}\n{boxes}"
            f"TensorBoard: {cli.python()} -m tensorboard.main --logdir {experiment.workdir}",
            soft_wrap=True,
            highlight=False,
        )
        if summary.get("diverged"):
            cli.fail(f"The training has diverged. {summary['diverged']} {ADVICE}")


def _use(command, experiment, console):
    path = pathlib.Path(experiment.workdir)
    tell = cli.tell_on(console)
    if command.mode == "evaluate":
        with cli.progress(console) as (tell, bar):
            found = use.evaluate(experiment, command.checkpoint, tell, bar("measuring"))
        for name, value in found.items():
            console.print(f"{name} {value}", highlight=False)
    elif command.mode == "predict":
        output = command.output or path / tasks.get(experiment.task).predictions
        count = use.predict(experiment, command.images, output, command.checkpoint, tell)
        what = "image" if count == 1 else "images"
        console.print(f"{count} {what}: {output}", soft_wrap=True, highlight=False)
    else:
        output = command.output or path / "export"
        use.export(experiment, output, command.checkpoint, tell)
        console.print(f"Exported: {output}", soft_wrap=True, highlight=False)
