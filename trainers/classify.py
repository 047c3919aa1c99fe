"""Train an image classifier under a learning rule; then measure, use or export it.

python -m trainers.classify --rule=sign_symmetry --workdir=runs/mine
python -m trainers.classify --mode=evaluate --workdir=runs/mine

Several rules or seeds, separated by commas, are compared (trainers.compare).
"""

from . import command


def main():
    """Run the command line."""
    command.main("classification")


if __name__ == "__main__":
    main()
