"""The pages in docs/ whose code is complete: it runs as it stands, from top to bottom."""

import pathlib
import re
from unittest import mock

import pytest

from tfbio.rules import registry

DOCS = pathlib.Path(__file__).parent.parent / "docs"


def blocks(page):
    """Return the page's code, each block at the lines where it stands, for tracebacks."""
    text = (DOCS / page).read_text()
    for found in re.finditer(r"```python\n(.*?)```", text, re.DOTALL):
        yield "\n" * text[: found.start(1)].count("\n") + found[1]


@pytest.mark.parametrize("page", ["write_a_rule.md"])
def test_a_pages_code_runs(page):
    namespace = {"__name__": page}
    # The page's rules are no rules of the tests that follow.
    with mock.patch.dict(registry.RULES), mock.patch.dict(registry.ALIASES):
        code = list(blocks(page))
        for block in code:
            exec(compile(block, page, "exec"), namespace)
    assert len(code) >= 6
