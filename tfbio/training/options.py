"""Options: how the fields of an experiment are declared, checked and named in errors."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from tfbio._arguments import check_integer, check_number


def option(
    default: Any,
    text: str,
    choices: Sequence[str] = (),
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    below: float | None = None,
    changes_results: bool = True,
) -> Any:
    """Return a dataclass field that knows the help and the limits of an option.

    The command line makes its flags from these fields, and `check` reads the limits.

    Args:
        default: The default.
        text: The help.
        choices: The strings that are allowed; empty: any.
        low: The least number.
        high: The greatest number.
        above: The number must be greater than this.
        below: The number must be less than this.
        changes_results: Whether a run with another value gives other results.

    Example:
        >>> option("none", "The layers.", choices=("none", "all")).metadata["help"]
        'The layers. One of none, all.'
    """
    if choices:
        text += f" One of {', '.join(choices)}."
    limits = {"low": low, "high": high, "above": above, "below": below}
    metadata = {"help": text, "changes_results": changes_results, "choices": choices}
    return dataclasses.field(default=default, metadata={**metadata, "limits": limits})


def default(experiment: Any, name: str) -> Any:
    """Return an option's default.

    Args:
        experiment: An `Experiment`, or a class of them.
        name: The option.

    Example:
        >>> from tfbio.training import Experiment
        >>> default(Experiment, "epochs")
        30
    """
    return experiment.__dataclass_fields__[name].default


def check(field: Any, value: Any) -> None:
    """Refuse a value that an option cannot have.

    Args:
        field: A dataclass field that `option` returned.
        value: The value.

    Raises:
        ValueError: Unless it has the field's type and is within its limits.

    Example:
        >>> from tfbio.training import Experiment
        >>> check(Experiment.__dataclass_fields__["epochs"], 0)
        Traceback (most recent call last):
        ...
        ValueError: `epochs` must be an integer of 1 to 1000000. Received: 0.
    """
    name, limits, choices = field.name, field.metadata["limits"], field.metadata["choices"]
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    fits = is_number if field.type is float else type(value) is field.type
    if not fits:
        raise ValueError(f"`{name}` must be of type {field.type.__name__}. Received: {value!r}.")
    if field.type is float:
        check_number(name, value, **limits)
    elif field.type is int:
        check_integer(name, value, limits["low"], limits["high"])
    # flags.cfg has one line for each option.
    elif isinstance(value, str) and value and value.splitlines() != [value]:
        raise ValueError(f"`{name}` must be one line of text. Received: {value!r}.")
    if choices and value not in choices:
        raise ValueError(f"`{name}` must be one of {', '.join(choices)}. Received: {value!r}.")


class named:  # noqa: N801
    """A context that makes the message of an error begin with the option that is wrong.

    ValueError and OSError are raised again with that message.

    Args:
        option: The option's name.
        **arguments: The options behind a function's arguments. A message that begins with one of
            these arguments is about its option, not about `option`.

    Example:
        >>> with named("rule"):
        ...     raise ValueError("Unknown rule 'x'.")
        Traceback (most recent call last):
        ...
        ValueError: `rule`: Unknown rule 'x'.
        >>> with named("rule", last_layer="last_layer_rule"):
        ...     raise ValueError("`last_layer` cannot be found.")
        Traceback (most recent call last):
        ...
        ValueError: `last_layer_rule` cannot be found.
    """

    def __init__(self, option: str, **arguments: str):
        self.option = option
        self.arguments = arguments

    def __enter__(self):
        return self

    def __exit__(self, kind, error, traceback):
        if not isinstance(error, ValueError | OSError):
            return
        message = f"`{self.option}`: {error}"
        for argument, flag in self.arguments.items():
            if str(error).startswith((f"`{argument}`", f"`{argument}=")):
                message = str(error).replace(f"`{argument}", f"`{flag}", 1)
        raise (ValueError if isinstance(error, ValueError) else OSError)(message) from error


def named_values(flag: str, text: str, separator: str, example: str) -> dict[str, str]:
    """Return an option that is written as names with values, as a dict of strings.

    Args:
        flag: The option's name.
        text: Its value.
        separator: What stands between two pairs.
        example: What would be right.

    Raises:
        ValueError: If it is written otherwise.

    Example:
        >>> named_values("overrides", "conv1=bp; dense*=fa", ";", "conv1=bp")
        {'conv1': 'bp', 'dense*': 'fa'}
    """
    found = {}
    for part in filter(None, (part.strip() for part in text.split(separator))):
        name, equals, value = (each.strip() for each in part.partition("="))
        if not (name and equals and value) or name in found:
            raise ValueError(
                f"`{flag}` must be names with values, each name once, such as '{example}'. "
                f"Received: {text!r}."
            )
        found[name] = value
    return found
