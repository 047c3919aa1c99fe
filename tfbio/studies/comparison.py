"""The comparison: runs grouped by what they differ in, as a table and as a record."""

import dataclasses
import math
import statistics

from rich.table import Table

from tfbio.studies.plots import format_mean
from tfbio.training import folder
from tfbio.training.experiment import differences
from tfbio.training.preparation import slug

# Backprop with these is backprop still, which others are timed against.
_OF_RULES = {"rule", "last_layer_rule", "overrides", "rule_module"}


def by_settings(runs):
    """Return runs grouped by what they differ in beside the seed, in the order of their firsts.

    Args:
        runs: A list of `Run`.

    Returns:
        A dict from a name to a list of `Run`. The name is the rule's, with its options that are
        not the default, and then the other options in which the runs differ, where they are not
        the default.

    Raises:
        ValueError: If the runs are of several kinds.

    Example:
        >>> from tfbio.training import Classification
        >>> from tfbio.studies.runs import Run
        >>> usf, fa = Classification(rule="usf"), Classification(rule="fa", model="lenet")
        >>> list(by_settings([Run(usf, None, [], []), Run(fa, None, [], [])]))
        ['sign_symmetry', 'feedback_alignment, model=lenet']
    """
    kinds = {run.experiment.task for run in runs}
    if len(kinds) > 1:
        raise ValueError(
            "Runs of several kinds cannot be compared. Received: " + ", ".join(sorted(kinds)) + "."
        )
    odd = set()
    for run in runs:
        odd |= differences(runs[0].experiment, run.experiment).keys()
    fields = dataclasses.fields(runs[0].experiment)
    fields = [f for f in fields if f.name in odd - {"rule", "seed"}]
    found = {}
    for run in runs:
        values = ((f, getattr(run.experiment, f.name)) for f in fields)
        others = (f"{f.name}={value}" for f, value in values if value != f.default)
        found.setdefault(", ".join((slug(run.experiment.parsed_rule), *others)), []).append(run)
    return found


def mean_angle(angles):
    """Return the mean over kernels, those without a direction left out.

    Example:
        >>> mean_angle({"a": 30.0, "b": 60.0, "dead": None})
        45.0
    """
    known = [value for value in angles.values() if value is not None and not math.isnan(value)]
    return statistics.fmean(known) if known else math.nan


def table(results):
    """Return the comparison as a rich table.

    The score on test, and the error, are means and sample standard deviations over the seeds of
    finished runs, after the last step; the time per step is the median over seeds of the ratio to
    that of backprop's run of the same seed and other options, where there is one; the angle is the
    mean over kernels and seeds at the end, or so far. The published error is the one that the runs'
    own options name.

    Args:
        results: What `by_settings` returned.

    Returns:
        A `rich.table.Table`.
    """
    out = Table(title="Learning rules compared")
    out.add_column("rule", overflow="fold")
    first = next(iter(results.values()))[0].experiment
    headings = [f"test\n{first.label}, %", "time per step\n÷ backprop", "final weight\nangle, °"]
    published = published_errors(results)
    if published:
        headings += ["test\nerror, %", "published\nerror, %"]
    running = any(run.summary is None for runs in results.values() for run in runs)
    if running:
        headings.append(f"unfinished\n(epochs: {first.label}, %)")
    for heading in headings:
        out.add_column(heading, justify="right", no_wrap=True)
    for name, runs in results.items():
        scores = [_percent(run.summary[f"test_{first.score}"]) for run in runs if run.summary]
        ratio = time_ratio(runs, baseline(runs, results))
        degrees = statistics.fmean(map(_last_angle, runs))
        cells = [
            format_mean(scores, 1),
            "–" if ratio is None else f"{ratio:.2f}",
            # Direct feedback has no B of W's shape.
            "–" if math.isnan(degrees) else f"{degrees:.1f}",
        ]
        if published:
            paper = published.get(name)
            cells += [
                format_mean([100 - value for value in scores], 2),
                "–" if paper is None else f"{paper:.2f}",
            ]
        if running:
            cells.append("\n".join(_so_far(run) for run in runs if run.summary is None))
        out.add_row(name, *cells)
    return out


def baseline(runs, results):
    """Return the runs under backprop whose other options are those of the runs given.

    Args:
        runs: A list of `Run` that differ in their seeds alone.
        results: What `by_settings` returned.

    Example:
        >>> from tfbio.training import Classification
        >>> from tfbio.studies.runs import Run
        >>> bp, ss = (Run(Classification(rule=name), None, [], []) for name in ("bp", "ss"))
        >>> baseline([ss], by_settings([bp, ss])) == [bp]
        True
    """
    return [
        run
        for group in results.values()
        for run in group
        if slug(run.experiment.parsed_rule) == "backprop"
        and differences(run.experiment, runs[0].experiment).keys() <= {*_OF_RULES, "seed"}
    ]


def published_errors(results):
    """Return the published errors that the runs' options name, by rule, in percent.

    Args:
        results: What `by_settings` returned.

    Returns:
        A dict from the names in `results`; only for rules with no option but a scale or a seed of
        their own: others are not what the paper reports on.

    Example:
        >>> from tfbio.training import Classification
        >>> from tfbio.studies.runs import Run
        >>> experiment = Classification(rule="fa", published="bp=9.2, fa=13.06")
        >>> published_errors(by_settings([Run(experiment, {}, [], [])]))
        {'feedback_alignment': 13.06}
    """
    found = {}
    for name, runs in results.items():
        own = runs[0].experiment.parsed_rule
        error = runs[0].experiment.published_errors().get(own.alias)
        defaults = own.options()
        changed = {name for name, v in own.get_config().items() if v != defaults[name]}
        if error is not None and changed <= {"scale", "seed"}:
            found[name] = error
    return found


def time_ratio(runs, others):
    """Return the median over common seeds of the ratio of times per step, or None without any.

    Args:
        runs: A list of `Run`.
        others: Those to compare with.

    Example:
        >>> from tfbio.training import Classification
        >>> from tfbio.studies.runs import Run
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


def save(results, path):
    """Write the comparison to a JSON file: options, circumstances and summary of each run.

    Args:
        results: What `by_settings` returned.
        path: The file to write.
    """
    document = {
        "runs": [
            {
                "flags": folder.flagfile(run.experiment).splitlines(),
                "starts": run.starts,
                "summary": run.summary,
            }
            for runs in results.values()
            for run in runs
        ]
    }
    folder.save_json(path, document)


def mean_of(column):
    """Return a function from a line of metrics.csv to the mean angle over layers in a column.

    Args:
        column: What its columns' names begin with, such as "weight_angle".

    Example:
        >>> mean_of("weight_angle")({"epoch": 1, "weight_angle/a": 30.0, "weight_angle/b": 60.0})
        45.0
    """
    return lambda record: mean_angle(
        {name: value for name, value in record.items() if name.startswith(f"{column}/")}
    )


def _last_angle(run):
    """Return the mean angle at the end, or the newest one of a run that is not finished."""
    if run.summary:
        return mean_angle(run.summary["weight_angles"])
    measured = [record for record in run.records if "weight_angle" in str(record)]
    return mean_of("weight_angle")(measured[-1]) if measured else math.nan


def _so_far(run):
    """Return how far a run has come, and with what score."""
    score = run.experiment.score
    for record in reversed(run.records):
        for name in (f"validation_{score}", score):
            if name in record:
                done = f"{record['epoch']}/{run.experiment.epochs}"
                return f"{done}: {100 * record[name]:.1f} {name.partition(f'_{score}')[0]}"
    return f"0/{run.experiment.epochs}"


def _percent(share):
    return math.nan if share is None else 100 * share
