"""Check the tables that say where the settings of the papers' configs come from.

Each folder configs/<paper> has a SOURCES.md with tables of five columns: the setting, a flag of the
command line or a property of the network; the paper's value; the config's; the configs, as glob
patterns over their names; and the source, or the reason for another value.

python docs/sources.py                    print what is wrong with the tables and the configs
python docs/sources.py sanfiz2021         the same for one paper
python docs/sources.py --write            write each config's line of counts, and the table of all
                                          papers between its markers in configs/README.md
"""

import ast
import fnmatch
import pathlib
import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

ROOT = pathlib.Path(__file__).resolve().parents[1]
CONFIGS = ROOT / "configs"
BEGIN, END = "<!-- sources: begin -->\n", "<!-- sources: end -->\n"
COLUMNS = ("setting", "theirs", "ours", "configs", "source, or why")
EMPTY = "–"
"""How a table writes an empty value, and one that does not exist."""

UNCHECKED = ("workdir", "published", "data_dir")
"""Flags without a row: they say where files are, and what was published."""
REQUIRED = {
    "classification": (
        *("dataset", "image_size", "augmentation", "standardize", "validation_fraction", "loss"),
        *("initialization", "drop_remainder", "rule", "last_layer_rule", "epochs", "batch_size"),
        *("optimizer", "learning_rate", "momentum", "weight_decay", "weight_decay_exclude"),
        *("schedule", "decay_factor", "warmup_epochs", "clip_norm"),
    ),
    "detection": (
        *("dataset", "image_size", "augmentation", "mean", "std", "validation_fraction"),
        *("backbone", "frozen_norm", "freeze", "init_from", "channels", "head_layers"),
        *("anchor_scale", "box_loss", "drop_remainder", "rule", "last_layer_rule", "epochs"),
        *("batch_size", "optimizer", "learning_rate", "bias_learning_rate_scale", "momentum"),
        *("weight_decay", "weight_decay_exclude", "schedule", "decay_factor", "warmup_epochs"),
        *("warmup_steps", "clip_norm"),
    ),
}
"""The flags that need a row also where a config leaves them at their default."""
WITH_EFFECT = {
    "momentum": lambda value: value("optimizer") in ("sgd", "nesterov", "rmsprop"),
    "decay_factor": lambda value: value("schedule") == "step",
    "weight_decay_exclude": lambda value: float(value("weight_decay")) > 0,
}
"""Whether a flag has an effect, by the values of others; where it has none it needs no row."""
PROPERTIES = ("initialization", "padding", "pooling", "normalization", "last layer")
"""The properties that a table must have of every network, as `resnet20: padding`."""
OPTIONS = {
    "classification": (
        ("tfbio/training/experiment.py", "Experiment"),
        ("tfbio/training/classification.py", "Classification"),
    ),
    "detection": (
        ("tfbio/training/experiment.py", "Experiment"),
        ("tfbio/detection/options.py", "Detection"),
    ),
}
"""Where a task's options stand: files and classes."""
TASKS = {"detect": "detection"}
"""The task of a trainer; of any other, classification."""

COMING = {"loss": "cross_entropy"}
"""Options that are still to come, by their default; those that are there are read instead."""

KINDS = {"code": "code", "code (not read again)": "code", "paper": "paper", "ours": "ours"}
PLACE = re.compile(r"`[^`]+:\d+(?:[-–,]\d+)*`")
"""A file and its lines, as `` `biotorch/datasets/cifar.py:41` ``."""
CLAIM = re.compile(r"\btheirs\b|\bsettings\b(?! are this project's)", re.IGNORECASE)
"""What a header must not say of its settings beside the line of counts."""
COUNTS = "# Settings: {code} from their code, {paper} from the paper, {ours} ours; see SOURCES.md."


class Row(NamedTuple):
    """A row of a table.

    Attributes:
        line: Its line in SOURCES.md.
        setting: A flag, `--epochs`, or a property, `resnet20: padding`.
        theirs: The paper's value.
        ours: That of the configs.
        patterns: Glob patterns over the configs' names.
        source: The last column.
    """

    line: int
    setting: str
    theirs: str
    ours: str
    patterns: tuple[str, ...]
    source: str

    @property
    def kind(self) -> str | None:
        """Where the value is from: "code", "paper" or "ours"; None if the row does not say."""
        return KINDS.get(self.source.partition(":")[0])

    def matches(self, name: str) -> bool:
        """Return whether the row is about a config."""
        return any(fnmatch.fnmatchcase(name, pattern) for pattern in self.patterns)


class Config(NamedTuple):
    """A config of a paper.

    Attributes:
        path: The file.
        task: What is learned, "classification" or "detection".
        header: The lines of comments that it opens with.
        flags: The flags' values as they are written; `--standardize` is "true".
    """

    path: pathlib.Path
    task: str
    header: tuple[str, ...]
    flags: Mapping[str, str]

    @property
    def name(self) -> str:
        """The file's name without .cfg."""
        return self.path.stem


def read_defaults(task: str) -> dict[str, str]:
    """Return the defaults of a task's options, read from the sources, as a flagfile writes them."""
    defaults: dict[str, str] = {}
    for path, name in OPTIONS[task]:
        tree = ast.parse((ROOT / path).read_text())
        (options,) = (
            node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name
        )
        for node in options.body:
            if (
                isinstance(node, ast.AnnAssign)
                and isinstance(node.target, ast.Name)
                and isinstance(node.value, ast.Call)
                and ast.unparse(node.value.func) == "option"
            ):
                value = ast.literal_eval(node.value.args[0])
                defaults[node.target.id] = str(value)
    as_flags = {"True": "true", "False": "false"}
    return {name: as_flags.get(value, value) for name, value in defaults.items()}


def read_config(path: pathlib.Path) -> Config:
    """Read a config.

    Raises:
        ValueError: If a line is neither a comment nor a flag, or a flag is given twice.
    """
    lines = path.read_text().splitlines()
    count = next((i for i, line in enumerate(lines) if not line.startswith("#")), len(lines))
    flags = {}
    for number, line in enumerate(lines[count:], count + 1):
        if not line or line.startswith("#"):
            continue
        form = re.fullmatch(r"--(\w+)(?:=(.*))?", line)
        if not form or form[1] in flags:
            raise ValueError(f"{path}:{number}: each flag must be written once, as --name=value.")
        flags[form[1]] = "true" if form[2] is None else form[2]
    trainer = re.search(r"^# Command: python -m trainers\.(\w+)", path.read_text(), re.MULTILINE)
    task = TASKS.get(trainer[1] if trainer else "", "classification")
    return Config(path, task, tuple(lines[:count]), flags)


def expand_braces(pattern: str) -> list[str]:
    """Return a pattern's alternatives: `{a,b}_*` stands for `a_*` and `b_*`."""
    form = re.fullmatch(r"([^{]*)\{([^{}]*)\}(.*)", pattern)
    if not form:
        return [pattern]
    before, parts, after = form.groups()
    return [each for part in parts.split(",") for each in expand_braces(before + part + after)]


def read_rows(text: str) -> list[Row]:
    """Read all tables of a SOURCES.md.

    Args:
        text: What it contains.

    Raises:
        ValueError: If a table has other columns, or a row another number of them.
    """
    rows, inside = [], False
    for number, line in enumerate(text.splitlines(), 1):
        if not line.startswith("|"):
            inside = False
            continue
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if not inside:
            if tuple(cells) != COLUMNS:
                raise ValueError(
                    f"line {number}: the columns must be {', '.join(COLUMNS)}. Received: {cells}."
                )
            inside = True
            continue
        if all(re.fullmatch(":?-+:?", cell) for cell in cells):
            continue
        if len(cells) != len(COLUMNS):
            raise ValueError(f"line {number}: a row must have {len(COLUMNS)} columns.")
        setting, theirs, ours, configs, source = cells
        patterns = [
            each for name in re.findall("`([^`]+)`", configs) for each in expand_braces(name)
        ]
        if re.sub("`[^`]+`", "", configs).strip(" ,") or not patterns:
            raise ValueError(
                f"line {number}: the configs must be patterns in backticks, separated by commas. "
                f"Received: {configs}."
            )
        setting, theirs, ours = (_unquote(cell) for cell in (setting, theirs, ours))
        rows.append(Row(number, setting, theirs, ours, tuple(patterns), source))
    return rows


def _unquote(cell):
    inner = cell[1:-1] if len(cell) > 2 and cell[0] == cell[-1] == "`" else cell
    return cell if "`" in inner else inner


def is_same(one: str, other: str) -> bool:
    """Return whether two values are the same, numbers in any notation: 0.0001 is 1e-4."""
    empty = ("", EMPTY)
    if one in empty or other in empty:
        return one in empty and other in empty
    try:
        return float(one) == float(other)
    except ValueError:
        return one == other


class Paper(NamedTuple):
    """A folder of configs with its tables.

    Attributes:
        folder: The folder.
        rows: The rows of its SOURCES.md.
        configs: Its configs.
    """

    folder: pathlib.Path
    rows: Sequence[Row]
    configs: Sequence[Config]

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    @property
    def table(self) -> pathlib.Path:
        """The path of SOURCES.md."""
        return self.folder / "SOURCES.md"

    def count(self, config: Config | None = None) -> Counter:
        """Return the number of rows by kind, of all or of those about a config."""
        return Counter(row.kind for row in self.rows if config is None or row.matches(config.name))

    def counts_line(self, config: Config) -> str:
        """Return the line of counts that a config's header must have."""
        counts = self.count(config)
        return COUNTS.format(**{kind: counts[kind] for kind in ("code", "paper", "ours")})


def read_paper(folder: pathlib.Path) -> Paper:
    """Read a folder of configs and its SOURCES.md, which may be missing.

    Raises:
        ValueError: If a config or the table cannot be read.
    """
    table = folder / "SOURCES.md"
    try:
        rows = read_rows(table.read_text()) if table.exists() else []
    except ValueError as error:
        raise ValueError(f"{folder.name}/{table.name}, {error}") from error
    return Paper(folder, rows, [read_config(path) for path in sorted(folder.glob("*.cfg"))])


def find_papers() -> list[str]:
    """Return the names of the folders with configs."""
    return sorted({path.parent.name for path in CONFIGS.glob("*/*.cfg")})


def find_problems(paper: Paper, defaults: Mapping[str, Mapping[str, str]]) -> Iterator[str]:
    """Yield what is wrong with a paper's table and configs, a sentence each.

    Args:
        paper: The `Paper`.
        defaults: The default of every option by task.
    """
    if not paper.table.exists():
        yield f"{paper.name} has no SOURCES.md."
        return
    for row in paper.rows:
        for problem in _row_problems(row, paper):
            yield f"{paper.name}/SOURCES.md:{row.line}: {row.setting}: {problem}"
    for config in paper.configs:
        for problem in _config_problems(config, paper, defaults[config.task]):
            yield f"{paper.name}/{config.path.name}: {problem}"
        yield from find_claims(config, paper.counts_line(config))


def _row_problems(row, paper):
    """Yield what is wrong with a row, whatever the values in the configs."""
    for pattern in row.patterns:
        if not any(fnmatch.fnmatchcase(config.name, pattern) for config in paper.configs):
            yield f"`{pattern}` matches no config."
    model, colon, _ = row.setting.partition(": ")
    if not row.setting.startswith("--") and not colon:
        yield "a setting must be a flag, as `--epochs`, or a property, as `resnet20: padding`."
    if colon and model in {_network(config) for config in paper.configs}:
        others = [c.name for c in paper.configs if row.matches(c.name) and _network(c) != model]
        if others:
            yield f"it matches configs of another network: {', '.join(others)}."
    reason = row.source.partition(":")[2].strip()
    if row.kind is None or not reason:
        yield f"the last column must begin with {', '.join(f'`{kind}:`' for kind in KINDS)}."
    elif row.source.startswith("code:") and not PLACE.search(row.source):
        yield "the last column must give a file and line of the code, as `datasets/cifar.py:41`."
    if row.kind in ("code", "paper") and not is_same(row.theirs, row.ours):
        yield (
            f"the value is called theirs, which is {row.theirs}, and is {row.ours}: write the same "
            "or begin the last column with `ours:`."
        )


def _network(config):
    return config.flags.get("backbone" if config.task == "detection" else "model", "")


def _config_problems(config, paper, defaults):
    """Yield the flags and properties of a config that lack a row or have another value."""
    rows = [row for row in paper.rows if row.matches(config.name)]
    by_setting = Counter(row.setting for row in rows)
    for setting, count in by_setting.items():
        if count > 1:
            lines = [row.line for row in rows if row.setting == setting]
            yield f"{setting} has {count} rows, in lines {', '.join(map(str, lines))}."

    def value(name):
        return config.flags.get(name, defaults[name])

    for name in config.flags:
        if name not in defaults:
            yield f"--{name} is no option of {config.task}."
        elif name not in UNCHECKED and f"--{name}" not in by_setting:
            yield f"--{name} has no row."
    for name in REQUIRED[config.task]:
        if name not in defaults or name in config.flags or f"--{name}" in by_setting:
            continue
        if name not in WITH_EFFECT or WITH_EFFECT[name](value):
            yield f"--{name}, {value(name) or EMPTY} by default, has no row."
    for row in rows:
        name = row.setting.removeprefix("--")
        if name == row.setting:
            continue
        if name not in defaults:
            yield f"{row.setting}, line {row.line}, is no option of {config.task}."
        elif not is_same(value(name), row.ours):
            yield (
                f"--{name} is {value(name) or EMPTY} here, and {row.ours or EMPTY} in line "
                f"{row.line}."
            )
    for name in PROPERTIES:
        if f"{_network(config)}: {name}" not in by_setting:
            yield f"`{_network(config)}: {name}` has no row."


def find_claims(config: Config, counts: str | None) -> Iterator[str]:
    """Yield what a config's header says of its settings other than their counts.

    Args:
        config: The `Config`.
        counts: The line that it must have, or None if there is no table.
    """
    name = f"{config.path.parent.name}/{config.path.name}"
    if counts is not None and config.header.count(counts) != 1:
        yield f"{name}: the header must have, once: {counts}"
    for line in config.header:
        if line != counts and CLAIM.search(line):
            yield f"{name}: this belongs into SOURCES.md, not into the header: {line}"


def write_counts(paper: Paper) -> None:
    """Write each config's line of counts, in place of the old one or before the command."""
    for config in paper.configs:
        counts = paper.counts_line(config)
        lines = config.path.read_text().splitlines()
        if counts in lines:
            continue
        old = [i for i, line in enumerate(lines) if line.startswith("# Settings:")]
        if old:
            lines[old[0]] = counts
        else:
            command = [i for i, line in enumerate(lines) if line.startswith("# Command:")]
            lines.insert(command[0], counts)
        config.path.write_text("\n".join(lines) + "\n")


def draw_table(papers: Sequence[Paper]) -> str:
    """Return a table with the number of settings by source, a line for each paper."""
    lines = [
        "| paper | configs | settings from their code | from the paper | ours |",
        "|---|---|---|---|---|",
    ]
    for paper in papers:
        counts = paper.count()
        cells = [len(paper.configs), *(counts[kind] for kind in ("code", "paper", "ours"))]
        link = f"[{paper.name}]({paper.name}/SOURCES.md)"
        lines.append(f"| {' | '.join(map(str, [link, *cells]))} |")
    return "\n".join([*lines, ""])


def find_all_problems(papers: Sequence[Paper]) -> list[str]:
    """Return what is wrong with all papers' tables and configs, a sentence each."""
    defaults = {task: COMING | read_defaults(task) for task in OPTIONS}
    return [problem for paper in papers for problem in find_problems(paper, defaults)]


def main() -> int:
    """Print what is wrong, with --write after writing what can be written.

    Returns:
        The exit status: 1 if something is wrong.
    """
    arguments = sys.argv[1:]
    names = [each for each in arguments if each != "--write"] or find_papers()
    papers = [read_paper(CONFIGS / name) for name in names]
    if "--write" in arguments:
        for paper in papers:
            if paper.table.exists():
                write_counts(paper)
        with_tables = [p for p in map(read_paper, map(CONFIGS.joinpath, find_papers())) if p.rows]
        readme = CONFIGS / "README.md"
        before, _, rest = readme.read_text().partition(BEGIN)
        readme.write_text(before + BEGIN + draw_table(with_tables) + END + rest.partition(END)[2])
        papers = [read_paper(paper.folder) for paper in papers]
    problems = find_all_problems(papers)
    print("\n".join(problems))
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
