"""The shape of the library: private names in one module, and imports that only run downward."""

import ast
import graphlib
import pathlib
import re

import pytest

from tfbio import _keras

ROOT = pathlib.Path(__file__).parent.parent
ONE_MODULE = ROOT / "tfbio" / "_keras.py"
LIBRARY = sorted(
    p for top in ("tfbio", "trainers", "benchmarks") for p in ROOT.glob(f"{top}/**/*.py")
)
# It runs the tests that Keras ships, which are in keras.src.
TESTS = sorted(set(ROOT.glob("tests/**/*.py")) - {ROOT / "tests/layers/test_keras_suite.py"})

PRIVATE = ("keras.src", "tensorflow.python", "tensorflow.compiler")
NAMEDTUPLE = {"_asdict", "_fields", "_make", "_replace"}  # public in spite of their names
OF_PYTHON = {"os._exit"}
OF_NUMPY = {"np._core", "np._core.multiarray._reconstruct"}
OWN_MODULES = {"_keras", "_extras", "_arguments"}  # shared by the library and its tests
# One calls what `tfbio._keras` wraps; the other has examples of what is not allowed.
EXEMPT = {"test_keras_contract.py", "test_architecture.py"}
PATCHES = {"setattr", "getattr", "delattr", "hasattr", "object", "attrgetter"}

# From the ground up: a room imports from rooms of earlier lines, and from itself.
ROOMS = """
    feedback version _keras _arguments _extras
    losses
    rules
    layers
    saving
    networks
    convert
    optimizers
    summary metrics attacks
    callbacks
    training
    detection
    studies
    tfbio
    trainers
"""
RANK = {room: rank for rank, line in enumerate(ROOMS.strip().splitlines()) for room in line.split()}
# Aside from that order, and known to all above the layers: what each imports besides the ground.
GROUND = {"_keras", "_arguments", "_extras"}
ASIDE = {"data": {"data"}, "models": {"models", "layers"}}


def parse(path):
    return ast.parse(path.read_text(), str(path))


def imports(path):
    """Yield (module, name or None) for the imports of a file, except those for type checkers."""
    package = path.relative_to(ROOT).parent.parts

    def visit(node):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for child in node.orelse:
                yield from visit(child)
            return
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*above, *filter(None, [node.module])])
            yield from ((module, alias.name) for alias in node.names)
        for child in ast.iter_child_nodes(node):
            yield from visit(child)

    return visit(parse(path))


def is_private(attribute):
    return attribute.startswith("_") and not attribute.startswith("__")


def private_attributes(tree):
    return [n for n in ast.walk(tree) if isinstance(n, ast.Attribute) and is_private(n.attr)]


def is_super(node):
    return ast.unparse(node.value) == "super()"


def defined(tree):
    """Return the names that a module gives to attributes, functions and methods."""
    names = {n.attr for n in private_attributes(tree) if isinstance(n.ctx, ast.Store)}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            targets = [t for n in node.body if isinstance(n, ast.Assign) for t in n.targets]
            targets += [n.target for n in node.body if isinstance(n, ast.AnnAssign)]
            names |= {target.id for target in targets if isinstance(target, ast.Name)}
        # Past Keras's tracking: vars(layer)["_name"] = value.
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            names.add(node.value)
    return names


FORBIDDEN = {n.attr for n in private_attributes(parse(ONE_MODULE))} - _keras.HOOKS.keys()
"""The private attributes that `tfbio._keras` reaches for, and nobody else may."""


@pytest.mark.parametrize("path", [*LIBRARY, *TESTS], ids=lambda p: str(p.relative_to(ROOT)))
def test_nothing_private_is_imported_elsewhere(path):
    if path == ONE_MODULE:
        return
    for module, name in imports(path):
        full = f"{module}.{name}" if name else module
        assert not f"{full}.".startswith(tuple(f"{each}." for each in PRIVATE)), full


@pytest.mark.parametrize("path", [*LIBRARY, *TESTS], ids=lambda p: str(p.relative_to(ROOT)))
def test_nothing_private_is_reached_for_elsewhere(path):
    if path == ONE_MODULE:
        return
    tree = parse(path)
    reached = {
        ast.unparse(node)
        for node in private_attributes(tree)
        if node.attr in FORBIDDEN or (node.attr in _keras.HOOKS and not is_super(node))
    }
    reached |= {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and node.value in FORBIDDEN
    }
    reached |= {ast.unparse(n) for n in ast.walk(tree) if isinstance(n, ast.Attribute)} & {
        "tf.__internal__",
        "keras.src",
        "tensorflow.python",
    }
    assert not reached


def test_private_attributes_of_the_library_are_its_own():
    """Finds names of Keras that `tfbio._keras` does not wrap: nothing of ours is called so."""
    trees = {path: parse(path) for path in LIBRARY if path != ONE_MODULE}
    ours = NAMEDTUPLE.union(*map(defined, trees.values()))
    foreign = {
        f"{path.relative_to(ROOT)}: {ast.unparse(node)}"
        for path, tree in trees.items()
        for node in private_attributes(tree)
        if node.attr not in ours and ast.unparse(node) not in OF_PYTHON
    }
    assert not foreign


@pytest.mark.parametrize("path", LIBRARY, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_private_attribute_is_used_in_its_own_module(path):
    if path == ONE_MODULE:
        return
    tree = parse(path)
    others = {
        ast.unparse(node)
        for node in private_attributes(tree)
        if ast.unparse(node.value) not in ("self", "cls") and not is_super(node)
        if node.attr not in defined(tree) | NAMEDTUPLE
    }
    assert not others - OF_PYTHON


def private_names(tree):
    """Yield the names of others that begin with an underscore: read, imported, patched, quoted.

    Quoted are those after a dot, as in code for another process.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            if ast.unparse(node.value) != "self" and node.attr not in NAMEDTUPLE:
                yield ast.unparse(node)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            paths = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            yield from (part for path in paths for part in path.split(".") if is_private(part))
        elif isinstance(node, ast.Call):
            function = getattr(node.func, "attr", getattr(node.func, "id", None))
            values = [each.value for each in node.args if isinstance(each, ast.Constant)]
            texts = [value for value in values if isinstance(value, str)]
            if function in PATCHES:
                yield from filter(is_private, texts)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from re.findall(r"\w\.(_[a-zA-Z]\w*)", node.value)


@pytest.mark.parametrize(
    "path", sorted(ROOT.glob("tests/**/*.py")), ids=lambda p: str(p.relative_to(ROOT))
)
def test_tests_use_public_names_only(path):
    if path.name in EXEMPT:
        return
    found = set(private_names(parse(path))) - OF_PYTHON - OF_NUMPY
    assert {name for name in found if name.rpartition(".")[2] not in OWN_MODULES} == set()


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("split._chosen", "split._chosen"),
        ("a.b()._Private(c)", "a.b()._Private"),
        ("from tfbio.detection.retinanet import _Saved", "_Saved"),
        ("import tfbio._other.part", "_other"),
        ("from tfbio._other import public", "_other"),
        ("monkeypatch.setattr(records, '_scan', None)", "_scan"),
        ("mock.patch.object(records, '_scan')", "_scan"),
        ("mock.patch('tfbio.data.records._scan')", "_scan"),
        ("getattr(split, '_chosen')", "_chosen"),
        ("code = 'import a; a._b()'", "_b"),
    ],
)
def test_a_private_name_in_a_test_is_found(code, name):
    assert name in set(private_names(ast.parse(code)))


def test_names_that_only_look_private_are_not_found():
    code = "self._x\nsuper().__init__()\npair._replace(a=1)\nmodule.__name__\ndef _f(): ..."
    assert not set(private_names(ast.parse(code)))


def graph():
    """Return, for every module of tfbio and trainers, the modules that it imports."""
    modules = {}
    for path in LIBRARY:
        parts = path.relative_to(ROOT).with_suffix("").parts
        if parts[0] != "benchmarks":
            modules[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    edges = {}
    for module, path in modules.items():
        pairs = [(m, f"{m}.{name}" if name else m) for m, name in imports(path)]
        edges[module] = {full if full in modules else m for m, full in pairs} & modules.keys()
    return edges


def room(module):
    top, *rest = module.split(".")
    return rest[0] if rest and top == "tfbio" else top


def test_imports_go_round_in_no_circle():
    tuple(graphlib.TopologicalSorter(graph()).static_order())  # raises CycleError, which names it


def test_imports_run_downward_between_rooms():
    upward = [
        f"{importer} imports {imported}"
        for importer, modules in graph().items()
        for imported in sorted(modules)
        if not may_import(room(importer), room(imported))
    ]
    assert not upward


def may_import(importer, imported):
    if importer == imported:
        return True
    if importer in ASIDE:
        return imported in ASIDE[importer] | GROUND
    if imported in ASIDE:
        return RANK[importer] > RANK["layers"]
    return RANK[imported] < RANK[importer]


def test_every_room_has_its_place():
    assert {room(module) for module in graph()} == RANK.keys() | ASIDE.keys()
