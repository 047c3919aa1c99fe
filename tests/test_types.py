"""Public signatures are annotated; pyright checks in `make lint` that the annotations hold."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parent.parent
MODULES = sorted(ROOT.glob("tfbio/**/*.py"))


def is_public(name):
    return not name.startswith("_") or name == "__init__"


def public(body, within=""):
    """Yield (name, whether it is a method, node) of the public functions below a body."""
    for node in body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from public(node.body, f"{within}{node.name}.")
        elif isinstance(node, ast.FunctionDef) and is_public(node.name):
            yield f"{within}{node.name}", bool(within), node


def bare(function, method):
    """Return the arguments of a function without annotation, and "return" if it has none."""
    signature = function.args
    named = [*signature.posonlyargs, *signature.args]
    static = any(ast.unparse(each) == "staticmethod" for each in function.decorator_list)
    named = named[1:] if method and not static else named
    named += [*signature.kwonlyargs, *filter(None, (signature.vararg, signature.kwarg))]
    missing = [each.arg for each in named if each.annotation is None]
    if function.returns is None and function.name != "__init__":
        missing.append("return")
    return missing


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_public_signatures_are_annotated(path):
    found = public(ast.parse(path.read_text()).body)
    missing = {name: bare(node, method) for name, method, node in found}
    assert {name: each for name, each in missing.items() if each} == {}


def test_a_missing_annotation_is_found():
    code = "class A:\n    def __init__(self, x): ...\n    def f(self, y: int, *, z=0): ..."
    found = {name: bare(node, method) for name, method, node in public(ast.parse(code).body)}
    assert found == {"A.__init__": ["x"], "A.f": ["z", "return"]}
