"""Divergence: whether the loss of a training blew up and did not come back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

ABOVE_CHANCE = 100
"""The loss has blown up where it is more than so many times that of a network that guesses."""

BACK = 0.9
"""It has come back where it ends below this share of a guessing network's loss."""

ADVICE = "A lower `learning_rate` may help; give it with another `workdir`."


def find_divergence(records: Sequence[Mapping[str, Any]], chance: float) -> str:
    """Return why a training that ended with a finite loss has diverged all the same, or "".

    It has if its training loss, a mean over an epoch so far, was more than `ABOVE_CHANCE` times
    that of guessing, and is not below `BACK` times that of guessing at the end: it stays high, or
    the network is dead. A loss that blows up and comes back, as it may under feedback alignment, is
    no divergence, nor is one that merely does not fall. What layers add to the loss
    (`kernel_regularizer`, `add_loss`) is part of it.

    Args:
        records: The lines of metrics.csv, as `tfbio.training.records.read` gives them.
        chance: The loss of guessing, a task's `chance_loss`.

    Example:
        >>> print(find_divergence([{"step": step, "loss": 10.0**step} for step in (1, 5)], 2.3))
        The training loss rose to 1e+05, more than 100 times that of guessing (2.3), and is 1e+05...
        >>> find_divergence([{"step": 1, "loss": 1e9}, {"step": 2, "loss": 0.5}], 2.3)
        ''
    """
    losses = [record["loss"] for record in records if "loss" in record]
    if not losses or max(losses) <= ABOVE_CHANCE * chance or losses[-1] < BACK * chance:
        return ""
    return (
        f"The training loss rose to {max(losses):.3g}, more than {ABOVE_CHANCE} times that of "
        f"guessing ({chance:.3g}), and is {losses[-1]:.3g} at the end."
    )
