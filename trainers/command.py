"""The command: what trainers.classify and trainers.detect do with an experiment of their kind."""

import dataclasses
import pathlib
from collections.abc import Callable

from tfbio import training
from tfbio.training import strategies, use
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


@dataclasses.dataclass(frozen=True)
class Uses:
    """How runs of a kind are used.

    Attributes:
        kind: The kind of experiment, a class.
        predict: A function of experiment, folder of images, output, checkpoint and tell, which
            returns the number of images.
        predictions: What `predict` writes in the workdir where no output is given.
        export: A function of experiment, output, checkpoint and tell.
    """

    kind: type
    predict: Callable
    predictions: str
    export: Callable


def define(values, uses):
    """Define the command's flags.

    Args:
        values: The `absl.flags.FlagValues` to define them in.
        uses: The `Uses`.
    """
    cli.define(Command, values)
    cli.define(uses.kind, values, lists=compare.LISTS)


def act(values, uses):
    """Do what the flags say; wrong options are told in one line.

    Args:
        values: The parsed `absl.flags.FlagValues`.
        uses: The `Uses`.
    """
    console = cli.console()
    with cli.errors_in_one_line():
        command = Command(**cli.options(Command, values))
        if command.mode != "train":
            _use(command, cli.experiment_of_run(values, uses.kind), uses, console)
            return
        experiments = compare.experiments(values, uses.kind)
    if len(experiments) > 1:
        compare.compare(experiments, values.workdir, console)
        return
    with cli.errors_in_one_line():
        experiment = dataclasses.replace(experiments[0], workdir=values.workdir)
        with cli.progress(console) as (tell, bar):
            name = training.slug(experiment.rule)
            summary = training.train_and_evaluate(
                experiment, tell, bar(name), measuring=bar(f"{name}, measuring")
            )
        if not strategies.of(experiment).chief:
            return  # one of several workers speaks
        path = pathlib.Path(experiment.workdir)
        boxes = f"Boxes:       {path / 'boxes.png'}\n" if (path / "boxes.png").exists() else ""
        console.print(
            f"{cli.result(experiment, summary)} after {summary['steps']:,} steps\n"
            f"Results:     {path / 'summary.json'}\n{boxes}"
            f"TensorBoard: {cli.python()} -m tensorboard.main --logdir {experiment.workdir}",
            soft_wrap=True,
            highlight=False,
        )


def _use(command, experiment, uses, console):
    path = pathlib.Path(experiment.workdir)
    tell = cli.tell_on(console)
    if command.mode == "evaluate":
        with cli.progress(console) as (tell, bar):
            found = use.evaluate(experiment, command.checkpoint, tell, bar("measuring"))
        for name, value in found.items():
            console.print(f"{name} {value}", highlight=False)
    elif command.mode == "predict":
        output = command.output or path / uses.predictions
        count = uses.predict(experiment, command.images, output, command.checkpoint, tell)
        what = "image" if count == 1 else "images"
        console.print(f"{count} {what}: {output}", soft_wrap=True, highlight=False)
    else:
        output = command.output or path / "export"
        uses.export(experiment, output, command.checkpoint, tell)
        console.print(f"Exported: {output}", soft_wrap=True, highlight=False)
