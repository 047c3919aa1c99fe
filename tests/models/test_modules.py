"""Modules by path: once each, under a stable name, and errors that say which file."""

import subprocess
import sys

import pytest

import tfbio
from tfbio.models import modules

RULE = """
import tfbio

@tfbio.rules.register("{name}")
class Mine(tfbio.rules.LayerRule):
    def feedback(self, kernel):
        return kernel / 2
"""


def test_a_file_is_imported_once_by_whatever_path(tmp_path, monkeypatch):
    path = tmp_path / "my-net 1.py"
    path.write_text("import sys\nitself = sys.modules[__name__]\ncalls = []\n")
    module = modules.load(path)
    assert module.itself is module
    module.calls.append(1)
    (tmp_path / "link.py").symlink_to(path)
    monkeypatch.chdir(tmp_path)
    for same in (str(path), "my-net 1.py", "./my-net 1.py", tmp_path / "link.py"):
        assert modules.load(same) is module
    assert module.__name__.startswith("tfbio_user_my_net_1_")
    assert sys.modules[module.__name__] is module
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "my-net 1.py").write_text("")
    assert modules.load(tmp_path / "other" / "my-net 1.py") is not module
    monkeypatch.setenv("HOME", str(tmp_path))
    assert modules.load("~/my-net 1.py") is module


@pytest.mark.long
def test_the_name_is_the_same_in_every_process(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("")
    code = f"from tfbio.models import modules; print(modules.load({str(path)!r}).__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == modules.load(path).__name__


def test_a_rule_in_a_file_is_registered(tmp_path):
    path = tmp_path / "rule.py"
    path.write_text(RULE.format(name="test_by_path"))
    modules.load(path)
    modules.load(path)
    assert tfbio.rules.get("test_by_path").alias == "test_by_path"


@pytest.mark.parametrize(
    ("name", "content", "message", "cause"),
    [
        ("missing.py", None, "There is no file '{path}'", None),
        ("net.txt", "", "a file ending in '.py'. Received: {path}", None),
        ("folder", None, "a file ending in '.py'. Received: {path}", None),
        ("net.py", "1/0", "'{path}' cannot be imported: ZeroDivisionError: ", ZeroDivisionError),
        ("net.py", "def (", "'{path}' cannot be imported: SyntaxError: ", SyntaxError),
        ("net.py", "import nothing_here", "ModuleNotFoundError: No module", ModuleNotFoundError),
        ("net.py", "raise SystemExit(1)", "cannot be imported: SystemExit: 1", SystemExit),
    ],
)
def test_what_cannot_be_imported_is_refused(name, content, message, cause, tmp_path):
    path = tmp_path / name
    if content is not None:
        path.write_text(content)
    before = set(sys.modules)
    for _ in range(2):
        with pytest.raises(ValueError, match=r".") as caught:
            modules.load(path)
        assert message.format(path=path) in str(caught.value)
        assert type(caught.value.__cause__) is (cause or type(None))
    assert not [name for name in set(sys.modules) - before if name.startswith("tfbio_user")]


def test_an_interrupt_stays_one(tmp_path):
    path = tmp_path / "slow.py"
    path.write_text("raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        modules.load(path)
