"""Train an image classifier under a learning rule; then measure, use or export it.

python -m trainers.classify --rule=sign_symmetry --workdir=runs/mine
python -m trainers.classify --mode=evaluate --workdir=runs/mine

Several rules or seeds, separated by commas, are compared (trainers.compare).
"""

from absl import flags

from tfbio import training
from tfbio.training import use

from . import cli, command

USES = command.Uses(training.Classification, use.predict, "predictions.csv", use.export)


def main():
    """Run the command line."""
    define(flags.FLAGS)
    cli.run(classify)


def define(values):
    """Define the command's flags.

    Args:
        values: The `absl.flags.FlagValues` to define them in.
    """
    command.define(values, USES)


def classify(values):
    """Do what the flags say; wrong options are told in one line.

    Args:
        values: The parsed `absl.flags.FlagValues`.
    """
    command.act(values, USES)


if __name__ == "__main__":
    main()
