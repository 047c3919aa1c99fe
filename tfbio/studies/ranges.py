"""Ranges: which values a search may try, read from a file with one line for each parameter.

::

    # Lines like this one, and empty ones, are comments.
    learning_rate = log(1e-5, 1e-2)
    batch_size = choice(32, 64, 128)
    rule.agreement = uniform(0.5, 1)

What stands on the left is a parameter (`tfbio.studies.parameters`). A range is one of

- ``log(low, high)``: a number whose logarithm is uniformly distributed,
- ``uniform(low, high)``: a uniformly distributed number,
- ``choice(a, b, ...)``: one of these values, written as in Python.

Both ends belong to a range. Options that are integers take integers.
"""

import ast
import dataclasses
import pathlib
from collections.abc import Iterator

from tfbio._arguments import suggest
from tfbio.studies import parameters
from tfbio.training.experiment import Experiment

KINDS = ("log", "uniform", "choice")
"""The kinds of ranges."""

_GREATEST = 1e15
"""The greatest number a range may hold: differences of the greatest floats are infinite."""
_SYNTAX_ERRORS = (SyntaxError, ValueError, TypeError, RecursionError, MemoryError)
"""What Python's parser raises for a text that is no expression, or no literal."""


@dataclasses.dataclass(frozen=True)
class Range:
    """The range of one parameter.

    Attributes:
        name: The parameter, such as "learning_rate" or "rule.agreement".
        kind: "log", "uniform" or "choice".
        values: The values of a choice; otherwise the lowest and the highest number.
        where: Where it is written, such as "configs/digits_search.ranges, line 2".

    Example:
        >>> str(Range("learning_rate", "log", (1e-05, 0.01)))
        'learning_rate=log(1e-05, 0.01)'
    """

    name: str
    kind: str
    values: tuple
    where: str = ""

    def __str__(self) -> str:
        return f"{self.name}={self.kind}({', '.join(map(repr, self.values))})"

    @property
    def integer(self) -> bool | None:
        """Whether its numbers are integers; None for a choice."""
        return None if self.kind == "choice" else type(self.values[0]) is int


def read(path: str | pathlib.Path, experiment: Experiment) -> list[Range]:
    """Return the ranges in a file.

    Args:
        path: The file.
        experiment: The experiment whose options are searched.

    Returns:
        One range or more, in the order of the file.

    Raises:
        ValueError: If there is no range, a line is malformed, a parameter has two ranges, or a
            value does not fit its option; the message names file and line.
        OSError: If the file cannot be read.

    Example:
        >>> import tempfile
        >>> from tfbio.training import Classification
        >>> path = pathlib.Path(tempfile.mkdtemp(), "mine.ranges")
        >>> _ = path.write_text("rule.agreement = uniform(0.5, 1)")
        >>> print(*read(path, Classification(rule="sign_symmetry")))
        rule.agreement=uniform(0.5, 1.0)
    """
    ranges = {}
    for where, text in read_lines(path):
        added = parse(text, experiment, where)
        for name, other in ranges.items():
            # A choice of rules and a range of a rule's option exclude each other.
            if f"{added.name}.".startswith(f"{name}.") or name.startswith(f"{added.name}."):
                raise ValueError(
                    f"{where}: `{added.name}` is searched already, by {str(other)!r} in "
                    f"{other.where}. Remove one of the two lines."
                )
        ranges[added.name] = added
    if not ranges:
        raise ValueError(
            f"There is nothing to search: {path} has no line such as "
            "'learning_rate = log(1e-4, 1e-1)'."
        )
    return list(ranges.values())


def read_lines(path: str | pathlib.Path) -> Iterator[tuple[str, str]]:
    r"""Yield (where, text) for each line of a file that is neither empty nor a comment.

    Args:
        path: The file.

    Raises:
        ValueError: If the file is not a text in UTF-8.
        OSError: If it cannot be read.

    Example:
        >>> import tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp(), "mine.ranges")
        >>> _ = path.write_text("# After the paper:\nmomentum = uniform(0.5, 0.99)")
        >>> [text for _, text in read_lines(path)]
        ['momentum = uniform(0.5, 0.99)']
    """
    try:
        text = pathlib.Path(path).read_text()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} must be a text file in UTF-8: {error}.") from error
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip() and not line.lstrip().startswith("#"):
            yield f"{path}, line {number}", line.strip()


def parse(text: str, experiment: Experiment, where: str = "ranges") -> Range:
    """Return the range in a line.

    Args:
        text: The line, such as ``"learning_rate = log(1e-5, 1e-2)"``.
        experiment: The experiment whose options are searched.
        where: Where the line is; error messages begin with it.

    Raises:
        ValueError: If the line is malformed, or a value does not fit its option.

    Example:
        >>> from tfbio.training import Classification
        >>> parse("batch_size = choice(32, 64)", Classification()).values
        (32, 64)
        >>> parse("momentum = uniform(0.9, 0.5)", Classification(), "mine.ranges, line 3")
        Traceback (most recent call last):
        ...
        ValueError: mine.ranges, line 3: The first number of uniform must be less than the second...
    """
    try:
        name, kind, values = _split(text)
        option_type = parameters.get_type(name, experiment)
        if kind not in KINDS:
            raise ValueError(f"A range must be one of {', '.join(KINDS)}.{suggest(kind, KINDS)}")
        if kind == "choice":
            values = _check_choice(values, option_type)
        else:
            values = _check_ends(kind, values, option_type)
        for value in values:
            parameters.with_values(experiment, {name: value})
    except ValueError as error:
        raise ValueError(f"{where}: {error} The line: {text!r}.") from error
    return Range(name, kind, values, where)


def _split(text):
    """Return (parameter, kind, values) of a line."""
    try:
        match ast.parse(text).body:
            case [ast.Assign([target], ast.Call(ast.Name(kind), values, []))]:
                return ast.unparse(target), kind, tuple(map(ast.literal_eval, values))
    except _SYNTAX_ERRORS as error:
        cause = error
    else:
        cause = None
    raise ValueError(
        "A line must be written as option = log(low, high), option = uniform(low, high) or "
        "option = choice(a, b, ...), with numbers, quoted texts, True, False or None as values."
    ) from cause


def _check_ends(kind, values, option_type):
    """Return the ends of a range of numbers, as integers or as floats."""
    if option_type in (str, bool):
        raise ValueError(f"{kind} is a range of numbers; this option needs choice(a, b, ...).")
    if len(values) != 2 or not all(_is_moderate(value) for value in values):
        raise ValueError(
            f"{kind} must have two numbers, the lowest and the highest, of at most {_GREATEST:g}."
        )
    low, high = values
    if option_type is int and not all(type(value) is int for value in values):
        raise ValueError(f"The numbers of {kind} must be integers for this option.")
    if not low < high:
        raise ValueError(f"The first number of {kind} must be less than the second.")
    if kind == "log" and low <= 0:
        raise ValueError(f"The numbers of log must be greater than 0, not {low}.")
    return values if option_type is int else (float(low), float(high))


def _check_choice(values, option_type):
    """Return the values of a choice; integers become floats for an option that is a float."""
    known = all(isinstance(value, bool | int | float | str | None) for value in values)
    if option_type is float:
        values = tuple(float(v) if type(v) is int and _is_moderate(v) else v for v in values)
    if len(values) < 2 or not known or len(set(values)) < len(values):
        raise ValueError(
            "choice must have two or more numbers, texts, True, False or None, each once."
        )
    if any(type(value) in (int, float) and not _is_moderate(value) for value in values):
        raise ValueError(f"The numbers of choice must be at most {_GREATEST:g}.")
    return values


def _is_moderate(value):
    """Return whether a value is a number of at most `_GREATEST`, and not NaN."""
    return type(value) in (int, float) and abs(value) <= _GREATEST
