"""Ranges: what a search may try, as comments in a config say it.

One line for each flag, ``# Search: --flag=range``, where a range is one of

- ``log(low, high)``: a number whose logarithm is uniform,
- ``uniform(low, high)``: a number,
- ``choice(a, b, ...)``: one of these literals,
- ``rule(option=range, ...)``, for a flag that names a rule: ranges of the rule's own options.

Both ends belong to a range; a flag or an option of integers takes integers.
"""

import ast
import dataclasses
import difflib
import math
import pathlib
import re

from tfbio import rules

FUNCTIONS = ("log", "uniform", "choice")
"""The kinds of ranges."""

_RULES = ("rule", "last_layer_rule")
"""The flags that name a rule."""
_SYNTAX = (
    "A range must be written as --flag=log(low, high), --flag=uniform(low, high), "
    "--flag=choice(a, b, ...) or, of a rule's options, --rule=name(option=log(low, high))."
)
_OTHER_IMAGES = "scores on other images cannot be compared"
_FIXED = {
    "seed": "a seed is luck and no setting",
    "dataset": _OTHER_IMAGES,
    "validation_fraction": _OTHER_IMAGES,
    "strategy": "where steps run is no setting of the rule's",
    "log_every": "it changes nothing but the records",
    "telemetry_every": "it changes nothing but the records",
}
"""Flags that no search may change, and why."""
_GREATEST = 1e15
"""No number here needs to be greater, and differences of the greatest ones are infinite."""
# What a line that is meant as a range begins with, right or nearly so.
_LINE = re.compile(r"\s*#+\s*search\s*(?::|=|--)", re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class Range:
    """The range of one parameter.

    Attributes:
        name: The flag, such as "learning_rate", or flag and option, such as "rule.agreement".
        function: "log", "uniform" or "choice".
        values: Of a choice, what to choose from, else the lowest and the highest number.
        where: Where it is written, such as "configs/demo.cfg, line 5".

    Example:
        >>> str(Range("learning_rate", "log", (1e-05, 0.01)))
        'learning_rate=log(1e-05, 0.01)'
    """

    name: str
    function: str
    values: tuple
    where: str = ""

    def __str__(self):
        return f"{self.name}={self.function}({', '.join(map(repr, self.values))})"

    @property
    def integer(self):
        """Whether its numbers are integers; None of a choice."""
        return None if self.function == "choice" else type(self.values[0]) is int


def lines(paths):
    """Yield (where, text) of every line of files that is meant as a range.

    Args:
        paths: The files, configs.

    Raises:
        ValueError: If a line is not quite as it must be; any other comment is none of ours.
        OSError: If a file cannot be read.

    Example:
        >>> import tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp(), "a.cfg")
        >>> _ = path.write_text("# Search: --momentum=uniform(0.5, 0.99)")
        >>> [text for _, text in lines([path])]
        ['--momentum=uniform(0.5, 0.99)']
    """
    for path in paths:
        for number, line in enumerate(pathlib.Path(path).read_text().split("\n"), 1):
            if not _LINE.match(line):
                continue
            where, line = f"{path}, line {number}", line.strip()
            if not line.startswith("# Search: --"):
                raise ValueError(
                    f"{where}: A line of ranges must begin with '# Search: --'. Received: {line!r}."
                )
            yield where, line.removeprefix("# Search: ")


def read(paths, experiment):
    """Return the ranges that files hold.

    Args:
        paths: The files, configs.
        experiment: The `Experiment` whose options they are of.

    Returns:
        A list of `Range`, one or more.

    Raises:
        ValueError: If there is none, one is malformed, two are of one flag, or an end of one is
            no value for its option; the message names file and line.
        OSError: If a file cannot be read.

    Example:
        >>> import tempfile
        >>> from tfbio.training import Classification
        >>> path = pathlib.Path(tempfile.mkdtemp(), "a.cfg")
        >>> _ = path.write_text("# Search: --rule=usf(agreement=uniform(0.5, 1))")
        >>> print(*read([path], Classification()))
        rule.agreement=uniform(0.5, 1.0)
    """
    found = []
    for where, text in lines(paths):
        flag = text.removeprefix("--").partition("=")[0]
        for other in found:
            if other.name.partition(".")[0] == flag:
                raise ValueError(f"{where}: --{flag} has ranges already, in {other.where}.")
        found += parse(text, experiment, where)
    if not found:
        raise ValueError(
            "There is nothing to search: no line such as "
            "'# Search: --learning_rate=log(1e-4, 1e-1)' in "
            f"{', '.join(map(str, paths)) or 'any --flagfile, of which none is given'}."
        )
    return found


def parse(text, experiment, where="--ranges"):
    """Return the ranges that a line states.

    Args:
        text: Such as ``"--learning_rate=log(1e-5, 1e-2)"``.
        experiment: The `Experiment` whose options they are of.
        where: What the message of an error begins with.

    Returns:
        A list of `Range`, one, or one for each option of a rule.

    Raises:
        ValueError: If it is malformed, or an end is no value for its option.

    Example:
        >>> from tfbio.training import Classification
        >>> parse("--batch_size=choice(32, 64)", Classification())[0].values
        (32, 64)
        >>> parse("--momentum=uniform(0.5, 1)", Classification(), "a.cfg, line 3")
        Traceback (most recent call last):
        ...
        ValueError: a.cfg, line 3: `momentum` must be 0 or more and less than 1. Received: 1.0...
    """
    try:
        found = _parse(text.strip(), experiment, where)
        for one in found:
            for value in one.values:
                with_values(experiment, {one.name: value})
    except ValueError as error:
        raise ValueError(f"{where}: {error} Received: {text!r}.") from error
    return found


def with_values(experiment, values):
    """Return an experiment with values for its parameters.

    Args:
        experiment: The `Experiment`.
        values: A dict from a range's name to a value. The options of a rule that are not named
            keep theirs.

    Raises:
        ValueError: If a value is none for its option, or options do not go together.

    Example:
        >>> from tfbio.training import Classification
        >>> experiment = Classification(rule="usf(scale='xiao')")
        >>> with_values(experiment, {"rule.agreement": 0.9, "momentum": 0.5}).rule
        "sign_symmetry(scale='xiao', agreement=0.9)"
    """
    changes, of_rules = {}, {}
    for name, value in values.items():
        flag, dot, option = name.partition(".")
        if dot:
            of_rules.setdefault(flag, {})[option] = value
        else:
            changes[flag] = value
    for flag, given in of_rules.items():
        rule = rules.get(getattr(experiment, flag))
        defaults, options = rule.options(), {**rule.get_config(), **given}
        texts = [f"{name}={v!r}" for name, v in options.items() if v != defaults[name]]
        changes[flag] = f"{rule.alias}({', '.join(texts)})" if texts else rule.alias
    return dataclasses.replace(experiment, **changes)


def _parse(text, experiment, where):
    flag, equals, expression = text.partition("=")
    name = flag.removeprefix("--")
    if not equals or not flag.startswith("--"):
        raise ValueError(_SYNTAX)
    _check_flag(name, experiment)
    field = experiment.__dataclass_fields__[name]
    function, call = _call(expression)
    if function in FUNCTIONS:
        return [Range(name, function, _values(call, function, field.type), where)]
    if name not in _RULES:
        raise ValueError(f"A range must be one of {_functions()}.{_near(function, FUNCTIONS)}")
    return _of_rule(name, function, call, experiment, where)


def _check_flag(name, experiment):
    """Refuse a flag that there is not, or that no search may change."""
    own = {each.name: each for each in dataclasses.fields(experiment)}
    if name not in own:
        raise ValueError(f"There is no flag --{name}.{_near(name, own, '--')}")
    reason = _FIXED.get(name)
    if reason is None and name in experiment.elsewise:
        reason = "it changes how a score is measured"
    if reason is None and not own[name].metadata["changes_results"]:
        reason = "it does not change what a run results in"
    if reason is not None:
        raise ValueError(f"--{name} cannot be searched: {reason}.")


def _call(expression):
    """Return what an expression calls, by name, and the call as a syntax tree."""
    try:
        node = ast.parse(expression.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(_SYNTAX) from error
    return _called(node), node


def _called(node):
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
        raise ValueError(_SYNTAX)
    return node.func.id


def _of_rule(flag, rule_name, call, experiment, where):
    """Return the ranges of a rule's options."""
    try:
        wanted = rules.get(rule_name)
    except ValueError as error:
        message = f"{rule_name!r} is neither a range, {_functions()}, nor a rule: {error}"
        raise ValueError(message) from error
    own = getattr(experiment, flag)
    if not own or rules.get(own).alias != wanted.alias:
        raise ValueError(
            f"Ranges of {wanted.alias}'s options need --{flag}={wanted.alias}, with whatever "
            f"options are not searched. --{flag} is {own!r}."
        )
    if call.args or not call.keywords or any(each.arg is None for each in call.keywords):
        raise ValueError(_SYNTAX)
    defaults, found = wanted.options(), []
    for keyword in call.keywords:
        option = keyword.arg
        if option not in defaults:
            raise ValueError(
                f"Rule {wanted.alias!r} has no option {option!r}.{_near(option, defaults)} Its "
                f"options: {', '.join(defaults) or 'none'}."
            )
        if option == "seed":
            raise ValueError(f"The option 'seed' cannot be searched: {_FIXED['seed']}.")
        if not isinstance(keyword.value, ast.Call):
            raise ValueError(
                f"The option {option!r} must have a range, {_functions()}; one that is not "
                f"searched stands in --{flag}."
            )
        function = _called(keyword.value)
        if function not in FUNCTIONS:
            raise ValueError(f"A range must be one of {_functions()}.{_near(function, FUNCTIONS)}")
        kind = type(defaults[option])
        # A default such as 'match' or None says nothing of what else there may be.
        kind = kind if kind in (int, float, bool) else None
        found.append(
            Range(f"{flag}.{option}", function, _values(keyword.value, function, kind), where)
        )
    return found


def _values(call, function, kind):
    """Return the ends of a range or the values of a choice.

    Args:
        call: The syntax tree.
        function: One of `FUNCTIONS`.
        kind: The type of the option's values; None for any.
    """
    try:
        values = tuple(ast.literal_eval(each) for each in call.args)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError) as error:
        raise ValueError(f"The values of {function} must be literals.") from error
    if call.keywords:
        raise ValueError(f"The values of {function} have no names.")
    if function == "choice":
        return _choices(values, kind)
    if kind in (str, bool):
        raise ValueError(f"{function} is a range of numbers; here, give choice(a, b, ...).")
    if len(values) != 2 or not all(type(v) in (int, float) and _moderate(v) for v in values):
        raise ValueError(
            f"{function} must have two numbers of at most {_GREATEST:g}, the lowest and the "
            "highest."
        )
    low, high = values
    if kind is int and not all(type(v) is int for v in values):
        raise ValueError(f"The ends of {function} must be integers here.")
    if not low < high:
        raise ValueError(f"The first number of {function} must be less than the second.")
    if function == "log" and low <= 0:
        raise ValueError(f"The numbers of log must be greater than 0, not {low}.")
    return values if kind is int else (float(low), float(high))


def _choices(values, kind):
    known = all(isinstance(v, bool | int | float | str | None) for v in values)
    if kind is float:
        values = tuple(float(v) if type(v) is int and _moderate(v) else v for v in values)
    if len(values) < 2 or not known or len(set(values)) < len(values):
        raise ValueError(
            "choice must have two or more numbers, texts, True, False or None, each once."
        )
    if any(type(v) in (int, float) and not _moderate(v) for v in values):
        raise ValueError(f"The numbers of choice must be of at most {_GREATEST:g}.")
    return values


def _moderate(number):
    return abs(number) <= _GREATEST and not math.isnan(number)


def _functions():
    return f"{', '.join(FUNCTIONS[:-1])} or {FUNCTIONS[-1]}"


def _near(name, known, prefix=""):
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean {prefix}{close[0]}?" if close else ""
