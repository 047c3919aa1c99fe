"""The comparison: runs grouped by what they differ in, as a table and as a record."""

import dataclasses
import math
import pathlib
import statistics
from collections.abc import Mapping
from typing import Any

from rich.table import Table

from tfbio.metrics import TAGS, mean_over
from tfbio.studies.plots import SPREAD, format_mean
from tfbio.studies.runs import Run
from tfbio.training import folder
from tfbio.training.experiment import differences
from tfbio.training.preparation import slug

# Runs under backprop are a baseline whatever these are.
_RULE_OPTIONS = {"rule", "last_layer_rule", "overrides", "rule_module"}


def group_by_settings(runs: list[Run]) -> dict[str, list[Run]]:
    """Return runs grouped by the options in which they differ, other than the seed.

    Args:
        runs: A list of `Run`.

    Returns:
        A dict from a name to a list of `Run`, in the order of their first ones. The name is the
        rule's, with its options that are not the default, and then the other options in which the
        runs differ, where they are not the default.

    Raises:
        ValueError: If the runs are of several kinds.

    Example:
        >>> from tfbio.training import Classification
        >>> usf, fa = Classification(rule="usf"), Classification(rule="fa", model="lenet")
        >>> list(group_by_settings([Run(usf, None, [], []), Run(fa, None, [], [])]))
        ['sign_symmetry', 'feedback_alignment, model=lenet']
    """
    kinds = {run.experiment.task for run in runs}
    if len(kinds) > 1:
        raise ValueError(
            "Runs of several kinds cannot be compared. Received: " + ", ".join(sorted(kinds)) + "."
        )
    varied = set()
    for run in runs:
        varied |= differences(runs[0].experiment, run.experiment).keys()
    fields = dataclasses.fields(runs[0].experiment)
    fields = [f for f in fields if f.name in varied - {"rule", "seed"}]
    groups = {}
    for run in runs:
        values = ((f, getattr(run.experiment, f.name)) for f in fields)
        others = (f"{f.name}={value}" for f, value in values if value != f.default)
        groups.setdefault(", ".join((slug(run.experiment.parsed_rule), *others)), []).append(run)
    return groups


def table(results: dict[str, list[Run]]) -> Table:
    """Return the comparison as a rich table.

    The score on test, and the error, are means and sample standard deviations (of n − 1) over the
    seeds of finished runs, after the last step; the time per step is the median over seeds of the
    ratio to that of backprop's run of the same seed and other options, where there is one; the
    angle, at the end or so far, is such a mean over seeds of each run's mean over layers
    (`tfbio.metrics.find_averaged_layers`). The caption says which layers these are. The published
    error is the one that the runs' own options name. Runs that have diverged are counted, and in no
    mean unless all of a row have.

    Args:
        results: What `group_by_settings` returned.

    Returns:
        A `rich.table.Table`.
    """
    out = Table(title="Learning rules compared", caption=_caption(results), caption_justify="left")
    out.add_column("rule", overflow="fold")
    first = next(iter(results.values()))[0].experiment
    headings = [f"test\n{first.label}, %", "time per step\n÷ backprop", "final weight\nangle, °"]
    published = published_errors(results)
    if published:
        headings += ["test\nerror, %", "published\nerror, %"]
    running = any(is_running(run) for runs in results.values() for run in runs)
    if running:
        headings.append(f"unfinished\n(epochs: {first.label}, %)")
    for heading in headings:
        out.add_column(heading, justify="right", no_wrap=True)
    for name, runs in results.items():
        good = [run for run in runs if not run.diverged]
        scores = [_to_percent(run.summary[f"test_{first.score}"]) for run in good if run.summary]
        ratio = time_ratio(runs, find_baseline(runs, results))
        degrees = [angle for angle in map(_last_angle, good or runs) if not math.isnan(angle)]
        cells = [
            _with_divergence(format_mean(scores, 1), runs),
            "–" if ratio is None else f"{ratio:.2f}",
            format_mean(degrees, 1),  # none under direct feedback, which has no B of W's shape
        ]
        if published:
            paper = published.get(name)
            cells += [
                format_mean([100 - value for value in scores], 2),
                "–" if paper is None else f"{paper:.2f}",
            ]
        if running:
            cells.append("\n".join(_format_progress(run) for run in runs if is_running(run)))
        out.add_row(name, *cells)
    return out


def find_baseline(runs: list[Run], results: dict[str, list[Run]]) -> list[Run]:
    """Return the runs under backprop whose other options are those of the runs given.

    Args:
        runs: A list of `Run` that differ in their seeds alone.
        results: What `group_by_settings` returned.

    Example:
        >>> from tfbio.training import Classification
        >>> bp, ss = (Run(Classification(rule=name), None, [], []) for name in ("bp", "ss"))
        >>> find_baseline([ss], group_by_settings([bp, ss])) == [bp]
        True
    """
    return [
        run
        for group in results.values()
        for run in group
        if slug(run.experiment.parsed_rule) == "backprop"
        and differences(run.experiment, runs[0].experiment).keys() <= {*_RULE_OPTIONS, "seed"}
    ]


def published_errors(results: dict[str, list[Run]]) -> dict[str, float]:
    """Return the published errors that the runs' options name, by rule, in percent.

    Args:
        results: What `group_by_settings` returned.

    Returns:
        A dict from the names in `results`; only for rules with no option but a scale or a seed of
        their own: others are not what the paper reports on.

    Example:
        >>> from tfbio.training import Classification
        >>> experiment = Classification(rule="fa", published="bp=9.2, fa=13.06")
        >>> published_errors(group_by_settings([Run(experiment, {}, [], [])]))
        {'feedback_alignment': 13.06}
    """
    errors = {}
    for name, runs in results.items():
        rule = runs[0].experiment.parsed_rule
        error = runs[0].experiment.published_errors().get(rule.alias)
        defaults = rule.options()
        changed = {option for option, v in rule.get_config().items() if v != defaults[option]}
        if error is not None and changed <= {"scale", "seed"}:
            errors[name] = error
    return errors


def time_ratio(runs: list[Run], others: list[Run]) -> float | None:
    """Return the median over common seeds of the ratio of times per step, or None without any.

    Args:
        runs: A list of `Run`.
        others: Those to compare with.

    Example:
        >>> from tfbio.training import Classification
        >>> run = Run(Classification(), {"seconds_per_step": 0.2}, [], [])
        >>> time_ratio([run], [run])
        1.0
    """
    taken, base = (
        {run.experiment.seed: run.summary["seconds_per_step"] for run in each if run.summary}
        for each in (runs, others)
    )
    ratios = [seconds / base[seed] for seed, seconds in taken.items() if seed in base]
    return statistics.median(ratios) if ratios else None


def save(results: dict[str, list[Run]], path: str | pathlib.Path) -> None:
    """Write the comparison to a JSON file: options, circumstances and summary of each run.

    Args:
        results: What `group_by_settings` returned.
        path: The file to write.
    """
    document = {
        "runs": [
            {
                "flags": folder.flagfile(run.experiment).splitlines(),
                "starts": run.starts,
                "summary": run.summary,
                "diverged": run.diverged or None,
            }
            for runs in results.values()
            for run in runs
        ]
    }
    folder.save_json(path, document)


def mean_recorded_angle(run: Run, record: Mapping[str, Any], kind: str) -> float:
    """Return the mean angle of a kind in a line of metrics.csv, over the run's averaged layers.

    Args:
        run: The `Run`.
        record: The line.
        kind: What the columns' names begin with, such as "weight_angle".

    Returns:
        Degrees; NaN where none is recorded, or the run does not say which layers to average.

    Example:
        >>> from tfbio.metrics import AveragedLayers
        >>> from tfbio.training import Classification
        >>> run = Run(Classification(), None, [], [], AveragedLayers({"b": 4}, {"a": 4}))
        >>> record = {"epoch": 1, "weight_angle/a": 90.0, "weight_angle/b": 60.0}
        >>> mean_recorded_angle(run, record, "weight_angle")
        60.0
    """
    if run.averaged is None:
        return math.nan
    (metric,) = (name for name, tag in TAGS.items() if tag == kind)
    angles = {name.removeprefix(f"{kind}/"): value for name, value in record.items()}
    return mean_over(angles, run.averaged.of(metric))


def describe_layers(results: dict[str, list[Run]], kind: str) -> str:
    """Return which layers the means of a kind are over, as text.

    Args:
        results: What `group_by_settings` returned.
        kind: "weight_angle", or "gradient_angle".

    Returns:
        Such as "all layers but conv1". Where runs differ in it, or leave out three layers or more,
        "the layers above the first" or "the layers below the last".

    Example:
        >>> from tfbio.metrics import AveragedLayers
        >>> from tfbio.training import Classification
        >>> record = {"epoch": 1, "weight_angle/a": 90.0, "weight_angle/b": 60.0}
        >>> run = Run(Classification(), None, [record], [], AveragedLayers({"b": 4}, {"a": 4}))
        >>> describe_layers({"backprop": [run]}, "weight_angle")
        'all layers but a'
    """
    general = "the layers " + ("above the first" if kind == "weight_angle" else "below the last")
    left_out = set()
    for run in (run for runs in results.values() for run in runs):
        columns = {name for record in run.records for name in record}
        prefix = f"{kind}/"
        names = [name.removeprefix(prefix) for name in columns if name.startswith(prefix)]
        if run.averaged is not None and names:
            (metric,) = (name for name, tag in TAGS.items() if tag == kind)
            averaged = run.averaged.of(metric)
            left_out.add(tuple(sorted(name for name in names if name not in averaged)))
    if len(left_out) != 1 or len(found := left_out.pop()) > 2:
        return general
    return "all layers but " + " and ".join(found) if found else "all layers"


def _caption(results):
    """Return what the numbers of the table are."""
    lines = [f"Angle between W and B, mean over {describe_layers(results, 'weight_angle')}."]
    if max(map(len, results.values())) > 1:
        lines.append(f"± is the {SPREAD}.")
    return "\n".join(lines)


def _last_angle(run):
    """Return the mean angle at the end, or the newest one of a run that is not finished."""
    for record in reversed(run.records):
        if any(name.startswith("weight_angle/") for name in record):
            return mean_recorded_angle(run, record, "weight_angle")
    return math.nan


def is_running(run: Run) -> bool:
    """Return whether a run is neither finished nor ended by a loss that is no finite number.

    Example:
        >>> from tfbio.training import Classification
        >>> is_running(Run(Classification(), None, [], []))
        True
    """
    return run.summary is None and not run.diverged


def describe_divergence(runs: list[Run]) -> str:
    """Return how many of some runs have diverged, as text; empty if none has.

    Example:
        >>> from tfbio.training import Classification
        >>> run = Run(Classification(), None, [], [])
        >>> describe_divergence([run, run._replace(failure="The loss is no finite number.")])
        '1 of 2 diverged'
    """
    count = sum(bool(run.diverged) for run in runs)
    if not count:
        return ""
    return "diverged" if count == len(runs) else f"{count} of {len(runs)} diverged"


def _with_divergence(text, runs):
    diverged = describe_divergence(runs)
    if not diverged:
        return text
    return diverged if all(run.diverged for run in runs) else f"{text}\n{diverged}"


def _format_progress(run):
    """Return the epochs and the score that an unfinished run has reached."""
    score = run.experiment.score
    for record in reversed(run.records):
        for name in (f"validation_{score}", score):
            if name in record:
                done = f"{record['epoch']}/{run.experiment.epochs}"
                return f"{done}: {100 * record[name]:.1f} {name.partition(f'_{score}')[0]}"
    return f"0/{run.experiment.epochs}"


def _to_percent(share):
    return math.nan if share is None else 100 * share
