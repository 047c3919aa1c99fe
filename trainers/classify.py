"""Train an image classifier under a learning rule; then measure, use or export it.

python -m trainers.classify --rule=sign_symmetry --workdir=runs/mine
python -m trainers.classify --mode=evaluate --workdir=runs/mine

Several rules or seeds, separated by commas, are compared (trainers.compare).
"""

import dataclasses
import pathlib

from absl import flags

from tfbio import training
from tfbio.training import strategies, use
from tfbio.training.experiment import CHECKPOINTS
from trainers import cli, compare

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
        "With --mode=predict, the table to write, with --mode=export, the folder; empty: "
        "predictions.csv or export in the workdir.",
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


def main():
    """Run the command line."""
    define(flags.FLAGS)
    cli.run(classify)


def define(values):
    """Define the command's flags.

    Args:
        values: The `absl.flags.FlagValues` to define them in.
    """
    cli.define(Command, values)
    cli.define(training.Classification, values, lists=compare.LISTS)


def classify(values):
    """Do what the flags say; wrong options are told in one line.

    Args:
        values: The parsed `absl.flags.FlagValues`.
    """
    console = cli.console()
    with cli.errors_in_one_line():
        command = Command(**cli.options(Command, values))
        if command.mode != "train":
            _use(command, cli.experiment_of_run(values, training.Classification), console)
            return
        experiments = compare.experiments(values)
    if len(experiments) > 1:
        compare.compare(experiments, values.workdir, console)
        return
    with cli.errors_in_one_line():
        experiment = dataclasses.replace(experiments[0], workdir=values.workdir)
        with cli.progress(console) as (tell, bar):
            summary = training.train_and_evaluate(
                experiment, tell, bar(training.slug(experiment.rule))
            )
        if not strategies.of(experiment).chief:
            return  # one of several workers speaks
        console.print(
            f"test accuracy {summary['test_accuracy']:.2%} after {summary['steps']:,} steps\n"
            f"Results:     {pathlib.Path(experiment.workdir, 'summary.json')}\n"
            f"TensorBoard: {cli.python()} -m tensorboard.main --logdir {experiment.workdir}",
            soft_wrap=True,
            highlight=False,
        )


def _use(command, experiment, console):
    path = pathlib.Path(experiment.workdir)
    tell = console.print
    if command.mode == "evaluate":
        for name, value in use.evaluate(experiment, command.checkpoint, tell).items():
            console.print(f"{name} {value}", highlight=False)
    elif command.mode == "predict":
        output = command.output or path / "predictions.csv"
        count = use.predict(experiment, command.images, output, command.checkpoint, tell)
        console.print(f"{count} images: {output}", soft_wrap=True, highlight=False)
    else:
        output = command.output or path / "export"
        use.export(experiment, output, command.checkpoint, tell)
        console.print(f"Exported: {output}", soft_wrap=True, highlight=False)


if __name__ == "__main__":
    main()
