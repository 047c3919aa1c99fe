"""What docs/add_a_dataset.md says is true: its code runs, and prints what the page shows."""

import pathlib
import re

import pytest

from tfbio.data import datasets

PAGE = (pathlib.Path(__file__).parents[2] / "docs" / "add_a_dataset.md").read_text()
BLOCKS = re.findall(r"^```(python)?\n(.*?)^```$", PAGE, re.S | re.M)


@pytest.fixture
def cells(monkeypatch):
    """Run the page; the table of datasets is as before after the test."""
    monkeypatch.setattr(datasets, "DATASETS", dict(datasets.DATASETS))
    names = {}
    for language, code in BLOCKS:
        if language:
            exec(code, names)
    return names


def test_the_code_of_the_page_runs_and_prints_what_it_shows(cells, capsys):
    (shown,) = (code for language, code in BLOCKS if not language)
    assert capsys.readouterr().out == shown


def test_the_dataset_of_the_page_is_known_and_its_damage_is_named(cells, tmp_path):
    assert "cells" in datasets.names()
    with pytest.raises(FileNotFoundError, match=r"cells\.h5"):
        datasets.load("cells", tmp_path)
    (tmp_path / "cells.h5").write_bytes(b"no HDF5")
    with pytest.raises(ValueError, match=rf"^{re.escape(str(tmp_path))}\S*cells\.h5 is not a file"):
        datasets.load("cells", tmp_path)
