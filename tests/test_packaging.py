"""What an installation holds and needs, and what `import tfbio` shows."""

import ast
import configparser
import importlib
import json
import pathlib
import pkgutil
import subprocess
import sys
from unittest import mock

import pytest
from packaging.requirements import Requirement
from setuptools import find_packages

import tfbio
from tfbio._extras import MissingExtraError, require
from trainers import cli

ROOT = pathlib.Path(__file__).parent.parent
PACKAGES = [
    "tfbio",
    *(
        name
        for _, name, is_package in pkgutil.walk_packages(tfbio.__path__, "tfbio.")
        if is_package
    ),
]
DISTRIBUTIONS = {"sklearn": "scikit-learn", "faster_coco_eval": "faster-coco-eval"}


@pytest.fixture(scope="module")
def setup():
    """Return setup.cfg."""
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


def requirements(text):
    lines = (line.strip() for line in text.splitlines())
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


@pytest.mark.parametrize("name", PACKAGES)
def test_dir_shows_the_public_names_and_nothing_else(name):
    package = importlib.import_module(name)
    assert dir(package) == sorted(package.__all__)
    for public in package.__all__:
        assert hasattr(package, public), public


def test_an_unknown_attribute_is_an_error_that_names_it():
    with pytest.raises(AttributeError, match="'tfbio' has no attribute 'rulez'"):
        tfbio.rulez  # noqa: B018


IMPORTING = """
import json, sys
import keras, tensorflow  # Keras loads matplotlib and scikit-learn itself where they are installed
before = set(sys.modules)
import tfbio
early = "tfbio.data" in sys.modules
found = f"{tfbio.data.load} {tfbio.convert}"
import tfbio.training, tfbio.studies.search_report
loaded = sorted(set(sys.modules) - before)
print(json.dumps({"early": early, "found": found, "loaded": loaded}))
"""


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    """Return what `import tfbio` finds and loads in a folder that holds another one of its name.

    As the parent of a clone does. An editable installation must win over it, and does as the
    clone stands on sys.path.
    """
    path = tmp_path_factory.mktemp("parent")
    (path / "tfbio").mkdir()
    environment = {"PYTHONPATH": str(ROOT), "PATH": "", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-c", IMPORTING]
    done = subprocess.run(
        command, cwd=path, env=environment, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def test_import_from_a_folder_that_holds_another_named_tfbio(imported):
    assert imported["found"].startswith("<function load")
    assert "<function convert" in imported["found"]
    assert not imported["early"]  # packages of the library are loaded on first use


def test_importing_the_library_is_light(imported):
    heavy = {"keras_cv", "matplotlib", "optuna", "pycocotools", "sklearn", "tensorboard"}
    loaded = {name.split(".")[0] for name in imported["loaded"]}
    assert not loaded & (heavy | {"tensorflow_datasets"})
    assert "absl.flags" not in imported["loaded"]


def test_an_editable_installation_puts_the_clone_on_the_path(setup):
    # Setuptools does so if this is all that is said of folders, and else uses an import hook, over
    # which any folder named tfbio wins.
    assert setup["options"]["package_dir"].split() == ["=", "."]


def test_an_installation_takes_no_generic_name(setup):
    include = setup["options.packages.find"]["include"].split()
    packages = find_packages(str(ROOT), include=include)
    assert {name.split(".")[0] for name in packages} == {"tfbio", "tfbio_trainers"}


def test_every_trainer_is_a_command(setup):
    lines = setup["options.entry_points"]["console_scripts"].strip().splitlines()
    commands = dict(line.split(" = ") for line in lines)
    for command, target in commands.items():
        name = command.removeprefix("tfbio-")
        assert target == f"tfbio_trainers.{name}:main"
    mains = {
        path.stem for path in (ROOT / "trainers").glob("*.py") if "__main__" in path.read_text()
    }
    assert set(commands) == {f"tfbio-{name}" for name in mains}


def test_the_trainers_in_an_installation_are_these():
    assert (ROOT / "tfbio_trainers").resolve() == (ROOT / "trainers").resolve()


def test_the_package_declares_that_it_is_typed(setup):
    assert setup["options.package_data"]["tfbio"] == "py.typed"
    assert (ROOT / "tfbio" / "py.typed").exists()


def required():
    """Yield (path, package, extra) of every call of `require`."""
    for folder in ("tfbio", "trainers"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "require":
                    (package,) = node.args
                    (extra,) = node.keywords
                    yield path, package.value, extra.value.value


def test_every_extra_that_is_asked_for_installs_the_package(setup):
    found = list(required())
    assert {"matplotlib", "optuna", "pycocotools", "scipy", "sklearn"} <= {row[1] for row in found}
    for file, package, extra in found:
        names = {each.name for each in requirements(setup["options.extras_require"][extra])}
        assert DISTRIBUTIONS.get(package, package) in names, (file, package, extra)


def test_every_optional_package_is_asked_for_where_it_is_imported():
    asked = {}
    for path, package, _ in required():
        asked.setdefault(path, set()).add(package)
    optional = set().union(*asked.values())
    plots = ROOT / "tfbio" / "studies" / "plots.py"
    for path in sorted((ROOT / "tfbio").rglob("*.py")):
        nodes = list(ast.walk(ast.parse(path.read_text())))
        plain = [each.name for node in nodes if isinstance(node, ast.Import) for each in node.names]
        sources = [node.module for node in nodes if isinstance(node, ast.ImportFrom)]
        imported = {name.split(".")[0] for name in plain + sources}
        known = asked.get(path, set())
        if "plots.subplots(" in path.read_text():  # asks, and comes first in a figure
            known = known | asked[plots]
        assert imported & optional <= known, path


def test_a_missing_package_is_one_line_with_the_command_that_installs_it(capsys):
    message = 'optuna is not installed. Run: pip install "tfbio[search]"'
    with mock.patch.dict(sys.modules, {"optuna": None}):
        with pytest.raises(MissingExtraError) as caught:
            require("optuna", extra="search")
        assert str(caught.value) == message
        with pytest.raises(SystemExit, match="1"), cli.errors_in_one_line():
            require("optuna", extra="search")
    assert capsys.readouterr().err == f"error: {message}\n"


def test_all_has_every_optional_package(setup):
    (everything,) = requirements(setup["options.extras_require"]["all"])
    assert everything.name == "tfbio"
    assert everything.extras == {"detection", "search", "plots", "demo"}
