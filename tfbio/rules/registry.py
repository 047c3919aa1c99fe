"""The registry: from a rule's name, with options, to the rule."""

import ast
import keyword
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras

from tfbio._arguments import suggest
from tfbio.rules.rule import Rule

RULES: dict[str, type[Rule]] = {}
"""The class of every registered rule, by its name; `register` adds to it."""

ALIASES: dict[str, str] = {}
"""The name that each alias stands for."""


def register(name: str, aliases: Sequence[str] = ()) -> Callable[[type[Rule]], type[Rule]]:
    """Register a rule class under `name`; decorates the class.

    Args:
        name: The rule's name, lower case, a Python identifier.
        aliases: Further names for it, a list or tuple.

    Returns:
        The decorator.

    Raises:
        TypeError: If `name` is not a string, `aliases` is no sequence of strings, or the decorated
            object is not a subclass of `Rule`.
        ValueError: If a name is taken by another rule, or no identifier in lower case.

    Example:
        >>> import tfbio
        >>> @register("quarter")
        ... class Quarter(tfbio.rules.LayerRule):
        ...     def feedback(self, kernel):
        ...         return kernel / 4
        >>> get("quarter")
        quarter()
    """
    if not isinstance(name, str):
        raise TypeError(
            '`register` takes the rule\'s name: write @tfbio.rules.register("name") above the '
            f"class. Received: {name!r}."
        )
    if isinstance(aliases, str) or not all(isinstance(alias, str) for alias in aliases):
        raise TypeError(
            '`aliases` must be a list or tuple of names, such as ("ss",). '
            f"Received: {aliases!r} of type {type(aliases).__name__}."
        )

    def decorate(cls):
        if not (isinstance(cls, type) and issubclass(cls, Rule)):
            raise TypeError(
                f"A rule must be a subclass of LayerRule or NetworkRule. Received: {cls!r}."
            )
        for each in (name, *aliases):
            if not each.isidentifier() or keyword.iskeyword(each) or each != each.lower():
                raise ValueError(
                    f"A rule's name must be an identifier in lower case. Received: {each!r}."
                )
            taken = RULES.get(ALIASES.get(each, each))
            # The same definition run again, as in a notebook's cell, replaces itself.
            if taken and (taken.__module__, taken.__qualname__) != (
                cls.__module__,
                cls.__qualname__,
            ):
                raise ValueError(f"The rule name {each!r} is taken, by {taken.__qualname__}.")
        cls.alias = name
        RULES[name] = keras.saving.register_keras_serializable("tfbio")(cls)
        ALIASES.update(dict.fromkeys(aliases, name))
        return cls

    return decorate


def names() -> tuple[str, ...]:
    """Return the names of all registered rules, without aliases, in order of registration.

    Example:
        >>> "sign_symmetry" in names()
        True
    """
    return tuple(RULES)


def aliases(name: str) -> tuple[str, ...]:
    """Return the aliases of the rule called `name`.

    Example:
        >>> aliases("backprop")
        ('bp', 'sham')
    """
    return tuple(alias for alias, target in ALIASES.items() if target == name)


def serialize(rule: Rule) -> dict[str, Any]:
    """Return the config dict of a rule, from which `get` makes a copy.

    Args:
        rule: A `Rule`.

    Returns:
        A dict with "class_name", the registered name, and "config", the options.

    Example:
        >>> serialize(get("frsf"))
        {'class_name': 'frsf', 'config': {'scale': 'match', 'seed': None}}
    """
    return {"class_name": rule.alias, "config": rule.get_config()}


def deserialize(config: Mapping[str, Any]) -> Rule:
    """Return the rule that a config dict of `serialize` describes; see `get` for the errors.

    Example:
        >>> deserialize({"class_name": "frsf", "config": {"seed": 1}})
        frsf(scale='match', seed=1)
    """
    return get(config)


def get(identifier: str | Mapping[str, Any] | type[Rule] | Rule) -> Rule:
    """Return a rule.

    Args:
        identifier: A name or alias (``"usf"``), one with options, all literals
            (``"feedback_alignment(scale='xavier', seed=1)"``), a config dict of `serialize`, a
            rule class, or a rule, which is returned as it is.

    Returns:
        A `Rule`.

    Raises:
        ValueError: If the name or an option is unknown, or an option has a wrong value.
        TypeError: If `identifier` is none of these.

    Example:
        >>> get("usf")
        sign_symmetry(scale='match', agreement=1.0, seed=None)
    """
    if isinstance(identifier, Rule):
        _check_registered(type(identifier))
        return identifier
    if isinstance(identifier, type) and issubclass(identifier, Rule):
        _check_registered(identifier)
        return _create(identifier, {})
    if isinstance(identifier, Mapping):
        keys = set(identifier) == {"class_name", "config"}
        if not keys or not isinstance(identifier["config"], Mapping):
            raise ValueError(
                "A rule's config must have the keys 'class_name' and 'config', a name and a dict. "
                f"Received: {identifier!r}."
            )
        return _create(_lookup(identifier["class_name"]), identifier["config"])
    if isinstance(identifier, str):
        name, options = _parse(identifier)
        return _create(_lookup(name), options)
    raise TypeError(
        "`rule` must be a rule's name, a config dict, a rule's class or instance. "
        f"Received: {identifier!r} of type {type(identifier).__name__}."
    )


def _check_registered(cls):
    if getattr(cls, "alias", None) not in RULES:
        raise TypeError(
            f'{cls.__qualname__} is not registered: write @tfbio.rules.register("name") above the '
            "class."
        )


def _lookup(name):
    name = ALIASES.get(str(name), str(name))
    if name in RULES:
        return RULES[name]
    hint = suggest(name, [*RULES, *ALIASES])
    raise ValueError(f"Unknown rule {name!r}.{hint} Registered rules: {', '.join(RULES)}.")


def _create(cls, options):
    unknown = sorted(set(options) - set(cls.options()))
    if unknown:
        known = ", ".join(cls.options()) or "none"
        raise ValueError(
            f"Rule {cls.alias!r} has no option {unknown[0]!r}. Its options: {known}. "
            f"Received: {options!r}."
        )
    return cls(**options)


def _parse(text):
    """Split ``name(option=literal, …)`` into the name and a dict of options."""
    malformed = ValueError(
        "A rule must be written as name or name(option=literal, …), such as "
        f"\"sign_symmetry(scale='xavier')\". Received: {text!r}."
    )
    try:
        node = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise malformed from error
    if isinstance(node, ast.Name):
        return node.id, {}
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
        raise malformed
    if node.args or any(option.arg is None for option in node.keywords):
        raise malformed
    given = [option.arg for option in node.keywords]
    if len(set(given)) < len(given):
        raise ValueError(f"A rule's option must be given once. Received: {text!r}.")
    try:
        return node.func.id, {k.arg: ast.literal_eval(k.value) for k in node.keywords}
    except (ValueError, TypeError) as error:
        raise malformed from error
