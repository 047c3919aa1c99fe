"""What is documented is true: every docstring's example, the README's, and the tables in it."""

import doctest
import importlib
import inspect
import pathlib
import pkgutil
import re
from unittest import mock

import pytest

import tfbio
import trainers
from tests.cases import RULES, long_but

ROOT = pathlib.Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
MODULES = sorted(
    name
    for package in (tfbio, trainers)
    for _, name, _ in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
)


SLOW = ("tfbio.detection", "tfbio.studies", "tfbio.training", "tfbio.models.resnet",
        "tfbio.rules.weight_mirror")  # fmt: skip
"""Packages and modules whose examples train or build large networks, as their own tests do."""


@pytest.mark.parametrize(
    "name",
    long_but(
        ["tfbio", *(name for name in MODULES if not name.startswith(SLOW))], ["tfbio", *MODULES]
    ),
)
def test_the_examples_in_docstrings_are_true(name):
    # Not by attribute: tfbio.convert is the function, which the module of its name defines.
    module = importlib.import_module(name)
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    with mock.patch.dict(tfbio.layers.TWINS):  # the layers of examples are no twins after them
        result = doctest.testmod(module, optionflags=flags)
    assert not result.failed


def public():
    """Yield every public function and class that the packages define."""
    for name in MODULES:
        module = importlib.import_module(name)
        for attribute, value in vars(module).items():
            defined_here = getattr(value, "__module__", None) == name
            if not attribute.startswith("_") and defined_here and callable(value):
                yield f"{name}.{attribute}", value


def test_public_functions_of_the_library_have_an_example():
    without = [
        name
        for name, value in public()
        # Those of _keras.py are not public; the contract test calls each.
        if re.match(r"tfbio\.[^_]", name)
        and inspect.isfunction(value)
        and ">>>" not in value.__doc__
    ]
    # Their results are pictures, tables and files, which the trainer's tests look at.
    assert without == [
        "tfbio.detection.predictions.predict",
        "tfbio.studies.comparison.table",
        "tfbio.studies.comparison.save",
        "tfbio.studies.comparison_figure.draw",
        "tfbio.studies.sweep.draw",
        "tfbio.training.predictions.predict",
        "tfbio.training.use.evaluate",
        "tfbio.training.use.predict",
        "tfbio.training.use.export",
        "tfbio.training.use.restored",
    ]


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_states_equation_example_source_and_stands_in_the_readme(rule):
    cls = type(tfbio.rules.get(rule))
    equation = r"``.*B.*=|B ~|∂h_l = .*B_l|ĥ_.* = h|ĥ_l = g|ĥ_L = logits"
    assert re.search(equation, cls.__doc__), "no equation such as ``B = …`` or ``R(B) = …``"
    for part in ("Example:", "References:"):
        assert part in cls.__doc__
    if cls.options():
        assert "Raises:" in cls.__doc__
    rows = [line for line in README.splitlines() if line.startswith(f"| `{rule}`")]
    assert len(rows) == 1, f"README's table of rules must have one row for {rule}"
    (row,) = rows
    for alias in tfbio.rules.aliases(rule):
        assert f"`{alias}`" in row


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_has_a_page(rule):
    assert (ROOT / "docs" / "rules" / f"{rule}.md").exists()
    assert f"{rule}.md" in (ROOT / "docs" / "rules" / "README.md").read_text()


def test_the_readmes_examples_run():
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(blocks) >= 2
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {"__name__": "readme"})
    assert len([line for line in blocks[0].splitlines() if line.strip()]) <= 12


def test_the_readme_names_only_files_that_exist():
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target
    for config in re.findall(r"configs/[\w/]+\.cfg", README):
        assert (ROOT / config).exists(), config


def test_the_first_sentence_is_the_same_everywhere():
    sentence = tfbio.__doc__.strip().splitlines()[0]
    assert sentence in README
