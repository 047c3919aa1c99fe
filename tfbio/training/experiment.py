"""The experiment: one training run's options, each with its type, default and help in one place."""

import dataclasses
import itertools
import math

from tfbio import data, models, rules


def _option(default, text):
    return dataclasses.field(default=default, metadata={"help": text})


_RANGES = (
    ("epochs", 1, 10**6),
    ("batch_size", 1, 10**6),
    ("image_size", 0, 4096),
    ("seed", 0, 2**31 - 1),
)


@dataclasses.dataclass(frozen=True)
class Experiment:
    """The options of one training run; the command line's flags are made from these fields.

    Raises:
        ValueError: If an option is unknown or out of its range; the message names it.

    Example:
        >>> Experiment(rule="fa", epochs=3).batch_size
        64
    """

    dataset: str = _option("digits", f"The dataset: {', '.join(data.names())}.")
    data_dir: str = _option("", "The folder with the dataset's files; empty: the usual places.")
    image_size: int = _option(0, "Resize images to this many pixels a side; 0: as they are.")
    validation_fraction: float = _option(
        0.1, "The share of the training split that is held out for validation."
    )
    model: str = _option("digits_cnn", f"The network: {', '.join(models.names())}.")
    rule: str = _option(
        "sign_symmetry", f"The learning rule, with options if any: {', '.join(rules.names())}."
    )
    last_layer_rule: str = _option(
        "", "The rule of the last layer; empty: the same as the others'."
    )
    epochs: int = _option(30, "Passes over the training split.")
    batch_size: int = _option(64, "Examples per optimizer step.")
    learning_rate: float = _option(0.05, "The learning rate of SGD.")
    milestones: str = _option(
        "", "Epochs, separated by commas, after which the learning rate is divided by 10."
    )
    momentum: float = _option(0.9, "The momentum of SGD.")
    seed: int = _option(0, "The seed of weights, feedback, validation split and order.")
    workdir: str = _option("runs/classify", "The folder for logs and results.")

    def __post_init__(self):
        """Check every option."""
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not isinstance(value, field.type) and (field.type, type(value)) != (float, int):
                raise ValueError(
                    f"--{field.name} must be of type {field.type.__name__}. Received: {value!r}."
                )
        for name, smallest, largest in _RANGES:
            if not smallest <= getattr(self, name) <= largest:
                raise ValueError(
                    f"--{name} must be {smallest} or more, and at most {largest}. "
                    f"Received: {getattr(self, name)}."
                )
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise ValueError(
                f"--learning_rate must be a number greater than 0. Received: {self.learning_rate}."
            )
        for name in ("momentum", "validation_fraction"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(
                    f"--{name} must be 0 or more and less than 1. Received: {getattr(self, name)}."
                )
        epochs = self.milestone_epochs
        if any(b <= a for a, b in itertools.pairwise((0, *epochs, self.epochs))):
            raise ValueError(
                "--milestones must be epochs in ascending order, from 1 to less than "
                f"--epochs={self.epochs}. Received: {self.milestones!r}."
            )
        if not self.workdir:
            raise ValueError("--workdir must name a folder. Received: nothing.")
        for flag, known in (("dataset", data.names()), ("model", models.names())):
            if getattr(self, flag) not in known:
                raise ValueError(
                    f"--{flag} must be one of {', '.join(known)}. "
                    f"Received: {getattr(self, flag)!r}."
                )
        for flag in ("rule", "last_layer_rule") if self.last_layer_rule else ("rule",):
            try:
                rules.get(getattr(self, flag))
            except ValueError as error:
                raise ValueError(f"--{flag}: {error}") from error

    @property
    def milestone_epochs(self):
        """The milestones as a tuple of integers."""
        parts = [part.strip() for part in self.milestones.split(",")] if self.milestones else []
        if not all(part.isdecimal() for part in parts):
            raise ValueError(
                "--milestones must be integers separated by commas, such as 50,75. "
                f"Received: {self.milestones!r}."
            )
        return tuple(int(part) for part in parts)
