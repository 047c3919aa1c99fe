"""The report: finished runs compared by rule, as a table, as a figure and as a record."""

import math
import pathlib
import statistics
from typing import NamedTuple

from rich.table import Table

from tfbio import rules
from tfbio.training import folder
from tfbio.training.experiment import Experiment
from tfbio.training.preparation import slug
from tfbio.training.records import read
from tfbio.training.train import SUMMARY

# Okabe and Ito's palette, which readers with any colour vision can tell apart.
_COLORS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")


class Run(NamedTuple):
    """A finished run, as its folder holds it.

    Attributes:
        experiment: The `Experiment`.
        summary: What `train_and_evaluate` returned.
        records: The lines of metrics.csv, as `tfbio.training.records.read` gives them.
        starts: The circumstances of its starts.
    """

    experiment: Experiment
    summary: dict
    records: list
    starts: list


def load(workdir):
    """Return a finished run.

    Args:
        workdir: Its folder.

    Returns:
        A `Run`.

    Raises:
        ValueError: If the folder holds none.

    Example:
        >>> load("no/such/folder")
        Traceback (most recent call last):
        ...
        ValueError: no/such/folder holds no finished run: it has no summary.json.
    """
    path = pathlib.Path(workdir)
    summary = folder.read_json(path / "summary.json", SUMMARY)
    if summary is None:
        raise ValueError(f"{path} holds no finished run: it has no summary.json.")
    run = folder.read_json(path / "run.json", ["starts"], needed=True)
    experiment, records = folder.read_flags(path), read(path)
    if experiment is None or not records:
        raise ValueError(f"{path} is not whole: flags.cfg or metrics.csv is missing or empty.")
    return Run(experiment, summary, records, run["starts"])


def by_rule(runs):
    """Return runs grouped by rule, in the order of their first seeds.

    Args:
        runs: A list of `Run`.

    Returns:
        A dict from the rule's name, with options that are not the default, to a list of `Run`.

    Example:
        >>> list(by_rule([Run(Experiment(rule="usf"), {}, [], [])]))
        ['sign_symmetry']
    """
    found = {}
    for run in runs:
        found.setdefault(slug(run.experiment.rule), []).append(run)
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

    Test accuracy and error are means and sample standard deviations over seeds, after the last
    step; the time per step is the median over seeds of the ratio to backprop's run of the same
    seed, where there is one; the angle is the mean over kernels and seeds at the end. The
    published error is the one that the runs' own options name.

    Args:
        results: What `by_rule` returned.

    Returns:
        A `rich.table.Table`.
    """
    out = Table(title="Learning rules compared")
    out.add_column("rule", overflow="fold")
    headings = ["test\naccuracy, %", "time per step\n÷ backprop", "final weight\nangle, °"]
    published = published_errors(results)
    if published:
        headings += ["test\nerror, %", "published\nerror, %"]
    for heading in headings:
        out.add_column(heading, justify="right", no_wrap=True)
    for rule, runs in results.items():
        accuracy = [100 * run.summary["test_accuracy"] for run in runs]
        ratio = time_ratio(runs, results.get("backprop", []))
        angle = statistics.fmean(mean_angle(run.summary["weight_angles"]) for run in runs)
        cells = [
            _mean_and_spread(accuracy, 1),
            "–" if ratio is None else f"{ratio:.2f}",
            f"{angle:.1f}",
        ]
        if published:
            paper = published.get(rule)
            cells += [
                _mean_and_spread([100 - value for value in accuracy], 2),
                "–" if paper is None else f"{paper:.2f}",
            ]
        out.add_row(rule, *cells)
    return out


def published_errors(results):
    """Return the published errors that the runs' options name, by rule, in percent.

    Args:
        results: What `by_rule` returned.

    Returns:
        A dict; only for rules with no option but a scale or a seed of their own: others are not
        what the paper reports on.

    Example:
        >>> experiment = Experiment(rule="fa", published="bp=9.2, fa=13.06")
        >>> published_errors(by_rule([Run(experiment, {}, [], [])]))
        {'feedback_alignment': 13.06}
    """
    found = {}
    for rule, runs in results.items():
        own = rules.get(runs[0].experiment.rule)
        error = runs[0].experiment.published_errors().get(own.alias)
        defaults = own.options()
        changed = {name for name, v in own.get_config().items() if v != defaults[name]}
        if error is not None and changed <= {"scale", "seed"}:
            found[rule] = error
    return found


def time_ratio(runs, baseline):
    """Return the median over common seeds of the ratio of times per step, or None without any.

    Args:
        runs: A list of `Run`.
        baseline: Those of the rule to compare with.

    Example:
        >>> run = Run(Experiment(), {"seconds_per_step": 0.2}, [], [])
        >>> time_ratio([run], [run])
        1.0
    """
    base = {run.experiment.seed: run.summary["seconds_per_step"] for run in baseline}
    ratios = [
        run.summary["seconds_per_step"] / base[run.experiment.seed]
        for run in runs
        if run.experiment.seed in base
    ]
    return statistics.median(ratios) if ratios else None


def save(results, path):
    """Write the comparison to a JSON file: options, circumstances and summary of each run.

    Args:
        results: What `by_rule` returned.
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


def figure(results, path):
    """Draw learning curves, weight angles and times, mean and spread over seeds, to a PNG.

    Args:
        results: What `by_rule` returned.
        path: The file to write.
    """
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import MaxNLocator

    fig, (curves, angles, times) = plt.subplots(
        1, 3, figsize=(13, 4.2), layout="constrained", width_ratios=(5, 5, 3)
    )
    first = next(iter(results.values()))[0]
    validated = any("validation_accuracy" in record for record in first.records)
    column = "validation_accuracy" if validated else "accuracy"
    for index, (rule, runs) in enumerate(results.items()):
        color = _COLORS[index % len(_COLORS)]
        _band(curves, [_curve(run, lambda r: 100 * r[column], column) for run in runs], rule, color)
        _band(angles, [_curve(run, _mean_angle_of, "weight_angle/") for run in runs], rule, color)
        seconds = [1000 * run.summary["seconds_per_step"] for run in runs]
        times.barh(rule, statistics.fmean(seconds), color=color, height=0.6)
        times.plot(seconds, [rule] * len(seconds), "o", color="#888888", ms=3)
    label = "validation accuracy" if validated else "training accuracy"
    curves.set(xlabel="epoch", ylabel=f"{label}, %", title="Learning curves")
    angles.set(
        xlabel="epoch",
        ylabel="angle between W and B, degrees",
        title="Weight angle, mean over layers",
        ylim=(-3, 100),
    )
    times.set(xlabel="milliseconds", title="Time per step")
    times.set_yticks([])  # the colors say which
    times.invert_yaxis()
    for axes in (curves, angles):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axes in (curves, angles, times):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    curves.legend(loc="lower right", frameon=False)
    most = max(len(runs) for runs in results.values())
    if most > 1:
        fig.suptitle(f"{most} runs a rule; lines and bars are means, bands minimum to maximum")
    fig.savefig(path, dpi=140)
    plt.close(fig)


def _curve(run, value, column):
    """Return {epoch: value} of the lines that have the column, one an epoch."""
    return {
        record["epoch"]: value(record)
        for record in run.records
        if any(name.startswith(column) for name in record)
    }


def _mean_angle_of(record):
    return mean_angle({k: v for k, v in record.items() if k.startswith("weight_angle/")})


def _band(axes, curves, label, color):
    epochs = sorted(set.intersection(*(set(curve) for curve in curves)))
    rows = [[curve[epoch] for epoch in epochs] for curve in curves]
    columns = list(zip(*rows, strict=True))
    axes.plot(epochs, [statistics.fmean(c) for c in columns], label=label, color=color)
    low, high = [min(c) for c in columns], [max(c) for c in columns]
    axes.fill_between(epochs, low, high, color=color, alpha=0.15, lw=0)


def _mean_and_spread(values, digits):
    spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.{digits}f}{spread}"
