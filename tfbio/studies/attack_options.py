"""The options of an attack on trained classifiers."""

import dataclasses
import math

from tfbio.training.experiment import CHECKPOINTS
from tfbio.training.options import check, option

ATTACKS = ("fgsm", "pgd")
GRADIENTS = ("true", "rule")
SPLITS = ("test", "validation")


@dataclasses.dataclass(frozen=True)
class Attack:
    """What to attack with: options, which the command line's flags are made from.

    Raises:
        ValueError: If an option is unknown, of the wrong type or out of its range; the message
            names it.

    Example:
        >>> Attack(epsilons="0, 8/255").eps
        {'0': 0.0, '8/255': 0.03137254901960784}
    """

    epsilons: str = option(
        "0,1/255,2/255,4/255,8/255",
        "The most that a pixel changes by, in units of the images' range, 0 to 1; several, "
        "separated by commas.",
    )
    attacks: str = option("fgsm,pgd", f"Of {', '.join(ATTACKS)}, one or both.")
    gradients: str = option(
        "true,rule",
        "Whose gradient to follow, one or both: true, that of the function which the network "
        "computes; rule, what arrives at the images through the rule's feedback.",
    )
    steps: int = option(20, "PGD's steps.", low=1, high=10**5)
    step_size: float = option(0.0, "PGD's step, in the units of eps; 0: 2.5·eps/steps.", low=0)
    restarts: int = option(1, "PGD's random starts; each image keeps its worst.", low=1, high=10**4)
    examples: int = option(
        1000,
        "How many images, at random by the seed, the same for every run on the same data; all "
        "where there are fewer.",
        low=1,
        high=10**9,
    )
    split: str = option("test", "Of which split.", choices=SPLITS)
    checkpoint: str = option("last", "The weights to attack.", choices=CHECKPOINTS)
    seed: int = option(
        0, "Decides which images are attacked, and PGD's starts.", low=0, high=2**31 - 1
    )
    batch_size: int = option(
        0, "Images at a time; 0: as many as the run was trained with.", low=0, high=10**6
    )

    def __post_init__(self):
        """Check every option."""
        for field in dataclasses.fields(self):
            check(field, getattr(self, field.name))
        for name, known in (("attacks", ATTACKS), ("gradients", GRADIENTS)):
            parts = split_commas(getattr(self, name))
            if not parts or len(set(parts)) < len(parts) or not set(parts) <= set(known):
                raise ValueError(
                    f"`{name}` must be of {', '.join(known)}, each at most once. "
                    f"Received: {getattr(self, name)!r}."
                )
        if not self.eps:
            raise ValueError("`epsilons` must be numbers such as 0,2/255,0.03. Received: none.")

    @property
    def eps(self) -> dict[str, float]:
        """The values of eps, as a dict from text to number."""
        values = {}
        for text in split_commas(self.epsilons):
            value = parse_number(text)
            if not 0 <= value <= 1 or value in values.values():
                raise ValueError(
                    "`epsilons` must be numbers of 0 to 1, in units of the images' range, each "
                    f"once, such as 0,2/255,0.03. Received: {text!r} in {self.epsilons!r}."
                )
            values[text] = value
        return values

    @property
    def columns(self) -> list[tuple[str, str]]:
        """The pairs of attack and gradient, in order."""
        return [(a, g) for a in split_commas(self.attacks) for g in split_commas(self.gradients)]


def split_commas(text: str) -> list[str]:
    """Return the parts of a text between commas, without those that are empty.

    Args:
        text: The text.

    Example:
        >>> split_commas("fgsm, pgd")
        ['fgsm', 'pgd']
    """
    return [part.strip() for part in text.split(",") if part.strip()]


def parse_number(text: str) -> float:
    """Return the number that a decimal or a fraction stands for; NaN if it is neither.

    Args:
        text: The text.

    Example:
        >>> parse_number("51/255"), parse_number("0.3"), parse_number("1/0")
        (0.2, 0.3, nan)
    """
    above, slash, below = text.partition("/")
    try:
        return float(above) / (float(below) if slash else 1.0)
    except (ValueError, ZeroDivisionError):
        return math.nan
