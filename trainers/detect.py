"""Train a detector, RetinaNet, under a learning rule; then measure, use or export it.

python -m trainers.detect --rule=sign_symmetry --workdir=runs/boxes
python -m trainers.detect --mode=predict --images=photographs --workdir=runs/boxes

Several rules or seeds, separated by commas, are compared (trainers.compare).
"""

from . import command


def main():
    """Run the command line."""
    command.main("detection")


if __name__ == "__main__":
    main()
