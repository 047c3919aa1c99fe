"""Train a detector, RetinaNet, under a learning rule; then measure, use or export it.

python -m trainers.detect --rule=sign_symmetry --workdir=runs/boxes
python -m trainers.detect --mode=predict --images=photographs --workdir=runs/boxes

Several rules or seeds, separated by commas, are compared (trainers.compare).
"""

from absl import flags

from tfbio import detection
from tfbio.detection import predictions

from . import cli, command

USES = command.Uses(detection.Detection, predictions.predict, "predictions", predictions.export)


def main():
    """Run the command line."""
    define(flags.FLAGS)
    cli.run(detect)


def define(values):
    """Define the command's flags.

    Args:
        values: The `absl.flags.FlagValues` to define them in.
    """
    command.define(values, USES)


def detect(values):
    """Do what the flags say; wrong options are told in one line.

    Args:
        values: The parsed `absl.flags.FlagValues`.
    """
    command.act(values, USES)


if __name__ == "__main__":
    main()
