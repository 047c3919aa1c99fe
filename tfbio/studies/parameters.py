"""The parameters of a search: options of an experiment, or of its rule, that runs may differ in.

A parameter is named as its option is, such as ``learning_rate``; the option of a rule follows the
name of the option that holds the rule, such as ``rule.agreement`` or ``last_layer_rule.scale``.
"""

import dataclasses
from typing import Any, cast

from tfbio import rules
from tfbio._arguments import suggest
from tfbio.training.experiment import Experiment

_RULES = ("rule", "last_layer_rule")
"""The options that hold a rule."""
_OTHER_IMAGES = "scores on other images cannot be compared"
_FIXED = {
    "seed": "a seed is luck and no setting",
    "dataset": _OTHER_IMAGES,
    "validation_fraction": _OTHER_IMAGES,
    "strategy": "where steps run is no setting of the rule's",
    "log_every": "it changes nothing but the records",
    "telemetry_every": "it changes nothing but the records",
}
"""Options that no search may change, and why."""


def get_type(name: str, experiment: Experiment) -> type | None:
    """Return the type of a parameter's values.

    Args:
        name: The parameter's name.
        experiment: The experiment whose options are searched.

    Returns:
        The type, or None if the parameter takes values of several types.

    Raises:
        ValueError: If there is no such parameter or it cannot be searched.

    Example:
        >>> from tfbio.training import Classification
        >>> get_type("rule.agreement", Classification(rule="sign_symmetry"))
        <class 'float'>
    """
    option, dot, rule_option = name.partition(".")
    if dot:
        return _get_type_of_rule_option(option, rule_option, experiment)
    fields = {field.name: field for field in dataclasses.fields(experiment)}
    if name not in fields:
        raise ValueError(f"There is no option `{name}`.{suggest(name, list(fields))}")
    reason = _FIXED.get(name)
    if reason is None and name in experiment.elsewise:
        reason = "it changes how a score is measured"
    if reason is None and not fields[name].metadata["changes_results"]:
        reason = "it does not change a run's results"
    if reason is not None:
        raise ValueError(f"`{name}` cannot be searched: {reason}.")
    return cast(type, fields[name].type)


def _get_type_of_rule_option(option, rule_option, experiment):
    if option not in _RULES:
        raise ValueError(
            f"Only a rule has options of its own: {' or '.join(f'`{name}`' for name in _RULES)}, "
            f"not `{option}`.{suggest(option, _RULES)}"
        )
    name = getattr(experiment, option)
    if not name:
        raise ValueError(f"`{option}.{rule_option}` needs a rule in `{option}`, which is empty.")
    rule = rules.get(name)
    defaults = rule.options()
    if rule_option not in defaults:
        raise ValueError(
            f"Rule {rule.alias!r} has no option {rule_option!r}."
            f"{suggest(rule_option, list(defaults))} Its options: {', '.join(defaults) or 'none'}."
        )
    if rule_option == "seed":
        raise ValueError(f"`{option}.seed` cannot be searched: {_FIXED['seed']}.")
    kind = type(defaults[rule_option])
    # A default such as 'match' or None says nothing of what else there may be.
    return kind if kind in (int, float, bool) else None


def with_values(experiment: Experiment, values: dict[str, Any]) -> Experiment:
    """Return an experiment with other values for some parameters.

    Args:
        experiment: The experiment.
        values: A dict from a parameter's name to its value. A rule keeps its other options.

    Raises:
        ValueError: If a value does not fit its option, or the options do not go together.

    Example:
        >>> from tfbio.training import Classification
        >>> experiment = Classification(rule="usf(scale='xiao')")
        >>> with_values(experiment, {"rule.agreement": 0.9, "momentum": 0.5}).rule
        "sign_symmetry(scale='xiao', agreement=0.9)"
    """
    changes, rule_changes = {}, {}
    for name, value in values.items():
        option, dot, rule_option = name.partition(".")
        if dot:
            rule_changes.setdefault(option, {})[rule_option] = value
        else:
            changes[option] = value
    for option, changed in rule_changes.items():
        rule = rules.get(getattr(experiment, option))
        defaults, options = rule.options(), {**rule.get_config(), **changed}
        texts = [f"{name}={v!r}" for name, v in options.items() if v != defaults[name]]
        changes[option] = f"{rule.alias}({', '.join(texts)})" if texts else rule.alias
    return dataclasses.replace(experiment, **changes)


def format_values(values: dict[str, Any]) -> str:
    """Return parameters and their values as text.

    Example:
        >>> format_values({"momentum": 0.5, "rule.scale": "xiao"})
        "momentum=0.5, rule.scale='xiao'"
    """
    return ", ".join(f"{name}={value!r}" for name, value in values.items())
