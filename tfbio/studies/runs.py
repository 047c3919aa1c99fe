"""Runs: found and loaded from their folders, and trained where they are missing."""

import pathlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from tfbio.metrics import AveragedLayers
from tfbio.training import folder, memory
from tfbio.training.divergence import ADVICE
from tfbio.training.experiment import Experiment
from tfbio.training.preparation import slug
from tfbio.training.records import read
from tfbio.training.run import DIVERGED, Diverged
from tfbio.training.train import SUMMARY, train_and_evaluate


class Run(NamedTuple):
    """A run, as its folder holds it.

    Attributes:
        experiment: The `Experiment`, of a kind.
        summary: What `train_and_evaluate` returned, or None of a run that is not finished.
        records: The lines of metrics.csv, as `tfbio.training.records.read` gives them.
        starts: The circumstances of its starts.
        averaged: The layers of its means, `tfbio.metrics.AveragedLayers`; None where it does not
            say.
        failure: Why it ended before its last step, as the loss or a weight was no finite number;
            empty if it did not.
    """

    experiment: Experiment
    summary: dict | None
    records: list[dict]
    starts: list[dict]
    averaged: AveragedLayers | None = None
    failure: str = ""

    @property
    def diverged(self) -> str:
        """Why it has diverged, with a loss that is no finite number or a great one; or empty."""
        return self.failure or (self.summary or {}).get("diverged") or ""


def load(workdir: str | pathlib.Path) -> Run:
    """Return a run, finished or not.

    Args:
        workdir: Its folder.

    Returns:
        A `Run`.

    Raises:
        ValueError: If the folder holds none, or one that has not written down anything yet.

    Example:
        >>> load("no/such/folder")
        Traceback (most recent call last):
        ...
        ValueError: no/such/folder holds no run: it has no flags.cfg.
    """
    path = pathlib.Path(workdir)
    experiment = folder.read_flags(path)
    if experiment is None:
        raise ValueError(f"{path} holds no run: it has no flags.cfg.")
    starts = folder.read_json(path / "run.json", ["starts"], needed=True)["starts"]
    records = read(path)
    if not records:
        raise ValueError(f"{path} has nothing to compare yet: its metrics.csv is empty.")
    summary = folder.read_json(path / "summary.json", (f"test_{experiment.score}", *SUMMARY))
    layers = folder.read_json(path / "layers.json", AveragedLayers._fields)
    averaged = AveragedLayers(**layers) if layers else None
    failure = folder.read_json(path / DIVERGED, ["reason"]) or {"reason": ""}
    return Run(experiment, summary, records, starts, averaged, failure["reason"])


def find_folders(runs: Iterable[str | pathlib.Path]) -> list[pathlib.Path]:
    """Return the folders of the runs within folders, at any depth, each once.

    Args:
        runs: The folders to look in.

    Raises:
        ValueError: If a folder has no run.

    Example:
        >>> find_folders(["no/such/folder"])
        Traceback (most recent call last):
        ...
        ValueError: `runs`: no run in 'no/such/folder': nowhere is a flags.cfg.
    """
    by_target = {}  # each once, however many of the folders it is in
    for each in runs:
        paths = sorted(path.parent for path in pathlib.Path(each).rglob("flags.cfg"))
        if not paths:
            raise ValueError(f"`runs`: no run in {each!r}: nowhere is a flags.cfg.")
        by_target |= {path.resolve(): path for path in paths}
    return list(by_target.values())


def load_all(runs: Iterable[str | pathlib.Path], tell: Callable[[str], Any] = print) -> list[Run]:
    """Return the runs within folders, at any depth, finished or not.

    Args:
        runs: The folders to look in.
        tell: Called with a line of text for each run that has nothing to show yet.

    Returns:
        A list of `Run`, by path.

    Raises:
        ValueError: If a folder has no run, or none has begun.

    Example:
        >>> import tempfile
        >>> from tfbio.training import Classification
        >>> path = pathlib.Path(tempfile.mkdtemp())
        >>> _ = (path / "flags.cfg").write_text(folder.flagfile(Classification()))
        >>> load_all([path], tell=lambda text: None)
        Traceback (most recent call last):
        ...
        ValueError: `runs`: no run has begun.
    """
    begun = []
    for path in find_folders(runs):
        if (path / "metrics.csv").exists():
            begun.append(load(path))
        else:
            tell(f"{path} has not begun, and is left out.")
    if not begun:
        raise ValueError("`runs`: no run has begun.")
    return begun


def check_folders(experiments: list[Experiment]) -> None:
    """Check, before any is trained, that the folders of experiments are free or hold the same run.

    Args:
        experiments: The experiments, each with a workdir of its own.

    Raises:
        ValueError: If a folder is another run's or in use, or one process cannot train them all.

    Example:
        >>> from tfbio.training import Classification
        >>> check_folders([Classification(strategy="multi_worker")])
        Traceback (most recent call last):
        ...
        ValueError: `strategy='multi_worker'` goes with one run at a time, a trainer's command...
    """
    if any(experiment.strategy == "multi_worker" for experiment in experiments):
        raise ValueError(
            "`strategy='multi_worker'` goes with one run at a time, a trainer's command with one "
            f"`rule` and one `seed`: {len(experiments)} would be compared."
        )
    for experiment in experiments:
        with folder.locked(experiment.workdir) as path:
            folder.check(path, experiment)


def train_missing(
    experiments: list[Experiment], reporting: Callable[[str], dict[str, Any]]
) -> list[Run]:
    """Train the experiments that are not finished, one after the other, and load all of them.

    Interrupted runs are resumed.

    Args:
        experiments: The experiments, each with a workdir of its own.
        reporting: A function from a run's name to the arguments of `train_and_evaluate` that
            report on it, with `tell` among them.

    Returns:
        A list of `Run`. Those that diverged are reported by `tell`.

    Raises:
        ValueError: If options do not go together, or a folder is another run's or in use.
        OSError: If data cannot be read or a folder not be written.
        Interrupted: After SIGTERM or SIGINT; the same call resumes.

    Example:
        >>> import tempfile
        >>> from tfbio.training import Classification
        >>> experiment = Classification(epochs=1, workdir=tempfile.mkdtemp())
        >>> (run,) = train_missing([experiment], lambda name: {"tell": lambda text: None})
        >>> "test_accuracy" in run.summary
        True
    """
    runs = []
    for experiment in experiments:
        reports = reporting(format_name(experiment))
        try:
            with memory.freed():
                train_and_evaluate(experiment, **reports)
        except Diverged as error:
            reports["tell"](str(error))
            runs.append(load(experiment.workdir))
            continue
        runs.append(load(experiment.workdir))
        reports["tell"](format_score(experiment, runs[-1].summary))
        if reason := runs[-1].diverged:
            reports["tell"](f"It has diverged. {reason} {ADVICE}")
    return runs


def format_name(experiment: Experiment) -> str:
    """Return an experiment's rule and seed as text.

    Args:
        experiment: The `Experiment`.

    Example:
        >>> from tfbio.training import Classification
        >>> format_name(Classification(rule="usf(agreement=0.9)", seed=1))
        'sign_symmetry-agreement=0.9, seed 1'
    """
    return f"{slug(experiment.parsed_rule)}, seed {experiment.seed}"


def format_score(experiment: Experiment, summary: Mapping[str, Any]) -> str:
    """Return the score on test as text.

    Args:
        experiment: The `Experiment`.
        summary: What `train_and_evaluate` returned.

    Example:
        >>> from tfbio.training import Classification
        >>> format_score(Classification(), {"test_accuracy": 0.971})
        'test accuracy 97.10%'
    """
    value = summary[f"test_{experiment.score}"]
    # None, where there was nothing to measure it by.
    return f"test {experiment.label} " + ("–" if value is None else f"{value:.2%}")
