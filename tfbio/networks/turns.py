"""Turns: whether an optimizer's turns go with the rule of a network.

An optimizer of `tfbio.optimizers` can update the weights of the feedback path and all other weights
in turns (`tfbio.optimizers.Feedback`). A rule of target propagation decides whether it must.
"""

from collections.abc import Iterable
from typing import Any

from tfbio.rules import Rule


def get_feedback(optimizer: Any) -> Any:
    """Return an optimizer's `tfbio.optimizers.Feedback`, or None if it has none.

    Args:
        optimizer: Any Keras optimizer, or one around it that scales the loss.

    Example:
        >>> import keras
        >>> get_feedback(keras.optimizers.SGD()) is None
        True
    """
    return getattr(getattr(optimizer, "inner_optimizer", optimizer), "feedback", None)


def check(rules: Iterable[Rule], optimizer: Any) -> None:
    """Refuse an optimizer whose turns do not go with a network's rules.

    Args:
        rules: The rules of the network's layers.
        optimizer: The optimizer to compile with.

    Raises:
        ValueError: If a rule needs turns that the optimizer does not take, or has no inverse to
            take turns with, or if the optimizer takes turns where all weights learn at every step.

    Example:
        >>> import tfbio
        >>> feedback = tfbio.optimizers.Feedback(alternate=2)
        >>> check([tfbio.rules.get("dtp")], tfbio.optimizers.get("sgd", 0.1, feedback=feedback))
        Traceback (most recent call last):
        ...
        ValueError: `alternate` does not go with rule 'dtp': schedule='parallel' lets all weights...
    """
    rules = [rule for rule in rules if not rule.has_gradient]
    if not rules:
        return
    rule, feedback = rules[-1], get_feedback(optimizer)
    alternate = feedback.alternate if feedback else 0
    if alternate and not rule.takes_turns:
        raise ValueError(
            f"`alternate` does not go with rule {rule.alias!r}: schedule='parallel' lets all "
            "weights learn at every step. Give the optimizer's Feedback alternate=0"
            + (", or the rule schedule='alternating'" if rule.learns else "")
            + f". Received: alternate={alternate}."
        )
    if not rule.takes_turns:
        return
    if not any(hasattr(each, "inverse_kernel") for each in rules):
        raise ValueError(
            f"Rule {rule.alias!r} with schedule='alternating' has no inverse to take turns with: "
            "the model has one hidden layer, whose target comes from the loss. Give "
            "schedule='parallel'."
        )
    if not alternate:
        raise ValueError(
            f"Rule {rule.alias!r} with schedule='alternating' needs an optimizer that takes turns: "
            "compile with one of tfbio.optimizers, such as tfbio.optimizers.get('adam', 0.001, "
            "feedback=tfbio.optimizers.Feedback(alternate=steps)), steps being those of an epoch. "
            f"Received: {type(optimizer).__name__}."
        )
