"""The papers' configs: every setting has a source, and no header claims more than its table."""

import dataclasses
import importlib.util
import pathlib
import re
import sys

import pytest

from tfbio.detection import Detection
from tfbio.training import Classification

ROOT = pathlib.Path(__file__).parents[1]
_SPEC = importlib.util.spec_from_file_location("sources", ROOT / "docs" / "sources.py")
sources = importlib.util.module_from_spec(_SPEC)
sys.modules["sources"] = sources
_SPEC.loader.exec_module(sources)

MISSING = ("xiao2018",)
"""Papers whose table is not complete yet."""


@pytest.mark.parametrize("name", sources.find_papers())
def test_every_setting_of_a_paper_has_a_source(name):
    paper = sources.read_paper(sources.CONFIGS / name)
    if name in MISSING:
        pytest.skip("its table is not complete yet")
    problems = sources.find_all_problems([paper])
    assert not problems, "\n".join(["Run python docs/sources.py --write, and mend:", *problems])


def test_the_headers_of_no_papers_configs_claim_nothing():
    paths = sorted(sources.CONFIGS.glob("*.cfg"))
    assert len(paths) > 5
    problems = [
        problem
        for path in paths
        for problem in sources.find_claims(sources.read_config(path), None)
    ]
    assert not problems


def test_the_table_of_counts_is_drawn_from_the_tables():
    papers = [sources.read_paper(sources.CONFIGS / name) for name in sources.find_papers()]
    drawn = sources.draw_table([paper for paper in papers if paper.rows])
    text = (sources.CONFIGS / "README.md").read_text()
    written = text.partition(sources.BEGIN)[2].partition(sources.END)[0]
    assert written == drawn, "Run python docs/sources.py --write."


@pytest.mark.parametrize("experiment", [Classification, Detection])
def test_defaults_are_read_from_the_source(experiment):
    defaults = {field.name: str(field.default) for field in dataclasses.fields(experiment)}
    as_flags = {"True": "true", "False": "false"}
    expected = {name: as_flags.get(value, value) for name, value in defaults.items()}
    assert sources.read_defaults(experiment.task) == expected


CONFIG = """\
# A Paper 2000: a row.
# Command: python -m trainers.classify --flagfile=configs/paper/{name}.cfg
--dataset=mnist
--standardize
--model={model}
--rule=fa(seed=1)
--learning_rate=0.0001
--workdir=runs/paper/{name}
"""
VALUES = {
    "dataset": "mnist",
    "standardize": "true",
    "rule": "`fa(seed=1)`",
    "learning_rate": "1e-4",
}
"""The flags of the configs, as a table writes them; the others are at their defaults."""


def write_paper(folder, old="", new=""):
    """Write a paper's folder without a mistake but for a text that is replaced, and read it."""
    defaults = sources.read_defaults("classification")
    without = {"decay_factor", "weight_decay_exclude"}
    required = set(sources.REQUIRED["classification"]) & set(defaults) - without
    values = {**{name: defaults[name] for name in sorted(required)}, **VALUES}
    rows = [
        f"| `--{name}` | {value} | {value} | `{{one,two}}` | code: `a.py:{line}` |"
        for line, (name, value) in enumerate(values.items(), 1)
    ]
    configs = {"one": "lenet", "two": "resnet20"}
    for name, model in configs.items():
        rows.append(f"| `--model` | {model} | {model} | `{name}` | paper: section 2 |")
        rows += [
            f"| {model}: {each} | not known | ours | `{name}*` | ours: because |"
            for each in sources.PROPERTIES
        ]
    columns = [f"| {' | '.join(sources.COLUMNS)} |", "|---|---|---|---|---|"]
    texts = {"SOURCES.md": "\n".join(["# Sources", "", *columns, *rows, ""])}
    texts |= {f"{n}.cfg": CONFIG.format(name=n, model=model) for n, model in configs.items()}
    assert not old or sum(old in text for text in texts.values()) == 1, old
    for name, text in texts.items():
        (folder / name).write_text(text.replace(old, new, 1) if old else text)
    return sources.read_paper(folder)


def test_a_paper_whose_settings_all_have_a_source_is_accepted(tmp_path):
    paper = write_paper(tmp_path)
    problems = sources.find_all_problems([paper])
    assert len(problems) == 2
    assert all("the header must have, once: # Settings: " in problem for problem in problems)
    sources.write_counts(paper)
    written = [config.path.read_text() for config in paper.configs]
    rows = len([row for row in paper.rows if row.matches("one")])
    counts = f"# Settings: {rows - 6} from their code, 1 from the paper, 5 ours; see SOURCES.md."
    assert written[0] == (tmp_path / "one.cfg").read_text()
    assert written[0].splitlines()[1] == counts
    paper = sources.read_paper(tmp_path)
    assert not sources.find_all_problems([paper])
    sources.write_counts(paper)
    assert [config.path.read_text() for config in paper.configs] == written
    total = f"| {len(paper.configs)} | {rows - 6} | 2 | 10 |"
    assert total in sources.draw_table([paper])
    config = tmp_path / "one.cfg"
    config.write_text(f"{counts}\n{config.read_text()}")
    (problem,) = sources.find_all_problems([sources.read_paper(tmp_path)])
    assert problem.endswith(f"one.cfg: the header must have, once: {counts}")


EPOCHS = "| `--epochs` | 30 | 30 | `{one,two}` |"
PADDING = "| lenet: padding | not known | ours | `one*` | ours: because |"
MISTAKES = [
    ("`--learning_rate`", "`--feedback_delay`", "--learning_rate has no row."),
    (EPOCHS, "| `--steps_per_call` | 20 | 20 | `one` |", "--epochs, 30 by default, has no row."),
    (EPOCHS, "| `--epochs` | 31 | 31 | `{one,two}` |", "--epochs is 30 here, and 31 in line 10."),
    (EPOCHS, "| `--epochs` | 31 | 30 | `{one,two}` |", "which is 31, and is 30"),
    (EPOCHS, "| `--epoch` | 30 | 30 | `{one,two}` |", "--epoch, line 10, is no option"),
    (EPOCHS, "| epochs | 30 | 30 | `{one,two}` |", "a setting must be a flag"),
    (EPOCHS, "| `--epochs` | 30 | 30 | `*`, `three` |", "`three` matches no config."),
    (PADDING, f"{PADDING}\n{PADDING}", "lenet: padding has 2 rows, in lines"),
    ("lenet: padding", "lenet: border", "`lenet: padding` has no row."),
    (PADDING, PADDING.replace("one*", "*"), "it matches configs of another network: two."),
    (PADDING, PADDING.replace("ours: because", "ours:"), "the last column must begin with"),
    (PADDING, PADDING.replace("ours: because", "because"), "the last column must begin with"),
    ("code: `a.py:1`", "code: `a.py`", "the last column must give a file and line"),
    ("lenet: padding | not known | ours | `one*` | ours", "lenet: padding | a | b | `one` | paper",
     "the value is called theirs, which is a, and is b"),
    ("# A Paper 2000: a row.\n# Command: python -m trainers.classify --flagfile=configs/paper/one",
     "# Settings are theirs.\n# Command: python -m trainers.classify --flagfile=configs/paper/one",
     "this belongs into SOURCES.md, not into the header: # Settings are theirs."),
    ("--workdir=runs/paper/one", "--works=1", "--works is no option of classification."),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "message"), MISTAKES, ids=[m for *_, m in MISTAKES])
def test_a_mistake_is_reported(tmp_path, old, new, message):
    problems = sources.find_all_problems([write_paper(tmp_path, old, new)])
    assert any(message in problem for problem in problems), problems


UNREADABLE = [
    (
        "| setting |",
        "| flag |",
        "line 3: the columns must be setting, theirs, ours, configs, source",
    ),
    (EPOCHS, "| `--epochs` | 30 | `{one,two}` |", "line 10: a row must have 5 columns."),
    (EPOCHS, "| `--epochs` | 30 | 30 | one, two |", "line 10: the configs must be patterns in"),
    ("--workdir=runs/paper/one", "workdir=1", "one.cfg:8: each flag must be written once"),
    ("--workdir=runs/paper/one", "--standardize", "one.cfg:8: each flag must be written once"),
]


@pytest.mark.parametrize(("old", "new", "message"), UNREADABLE, ids=[m for *_, m in UNREADABLE])
def test_what_cannot_be_read_is_reported(tmp_path, old, new, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        write_paper(tmp_path, old, new)


def test_a_flag_without_effect_needs_no_row(tmp_path):
    row = "| `--momentum` | 0.9 | 0.9 |"
    paper = write_paper(tmp_path, row, "| `--feedback_delay` | 0 | 0 |")
    problems = sources.find_all_problems([paper])
    assert sum("--momentum, 0.9 by default, has no row." in problem for problem in problems) == 2
    for config in paper.configs:
        config.path.write_text(config.path.read_text() + "--optimizer=adam\n--schedule=step\n")
    problems = sources.find_all_problems([sources.read_paper(tmp_path)])
    assert not any("--momentum" in problem for problem in problems)
    assert sum("--decay_factor, 0.1 by default, has no" in problem for problem in problems) == 2


def test_values_are_compared_as_numbers():
    assert sources.is_same("0.0001", "1e-4")
    assert sources.is_same("", sources.EMPTY)
    assert not sources.is_same("0", "")
    assert not sources.is_same("50,75", "5075")
