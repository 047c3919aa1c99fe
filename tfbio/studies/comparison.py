"""The report: runs compared by what they differ in, as a table, as a figure and as a record."""

import dataclasses
import math
import pathlib
import statistics
from typing import NamedTuple

from rich.table import Table

from tfbio._extras import require
from tfbio.training import folder
from tfbio.training.experiment import Experiment, differences
from tfbio.training.preparation import slug
from tfbio.training.records import read
from tfbio.training.train import SUMMARY

# Okabe and Ito's palette, which readers with any color vision can tell apart; then other strokes.
_COLORS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_STROKES = ("-", "--", ":", "-.")
_SHORT = 24  # letters of a name for which there is room among the curves
_FEW = 4  # names likewise
_LETTERS = 11  # to an inch
_ANGLES = {
    "weight_angle": ("between W and B", "Weight angle, mean over layers"),
    "gradient_angle": ("to backprop's gradient", "Gradient angle, mean over layers"),
}
# Backprop with these is backprop still, which others are timed against.
_OF_RULES = {"rule", "last_layer_rule", "overrides", "rule_module"}


class Run(NamedTuple):
    """A run, as its folder holds it.

    Attributes:
        experiment: The `Experiment`, of a kind.
        summary: What `train_and_evaluate` returned, or None of a run that is not finished.
        records: The lines of metrics.csv, as `tfbio.training.records.read` gives them.
        starts: The circumstances of its starts.
    """

    experiment: Experiment
    summary: dict
    records: list
    starts: list


def load(workdir):
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
    run = folder.read_json(path / "run.json", ["starts"], needed=True)
    records = read(path)
    if not records:
        raise ValueError(f"{path} has nothing to compare yet: its metrics.csv is empty.")
    summary = folder.read_json(path / "summary.json", (f"test_{experiment.score}", *SUMMARY))
    return Run(experiment, summary, records, run["starts"])


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
            _mean_and_spread(scores, 1),
            "–" if ratio is None else f"{ratio:.2f}",
            # Direct feedback has no B of W's shape.
            "–" if math.isnan(degrees) else f"{degrees:.1f}",
        ]
        if published:
            paper = published.get(name)
            cells += [
                _mean_and_spread([100 - value for value in scores], 2),
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


def figure(results, path):
    """Draw learning curves, angles and times, mean and spread over seeds, to a PNG.

    The angles of gradients, global ones, are drawn where runs have measured them.

    Args:
        results: What `by_settings` returned.
        path: The file to write.
    """
    require("matplotlib", extra="plots")
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import MaxNLocator

    measured = any(
        _curve(run, _mean_of("gradient_angle"), "gradient_angle")
        for runs in results.values()
        for run in runs
    )
    fig, (curves, *of_angles, times) = plt.subplots(
        1,
        4 if measured else 3,
        figsize=(17 if measured else 13, 4.2),
        layout="constrained",
        width_ratios=(5, 5, 5, 3) if measured else (5, 5, 3),
    )
    panels = dict(zip(_ANGLES, of_angles, strict=False))
    first = next(iter(results.values()))[0]
    of, column, factor = _followed(first)
    scores = []
    for index, (name, runs) in enumerate(results.items()):
        color = _COLORS[index % len(_COLORS)]
        style = {"color": color, "ls": _STROKES[index // len(_COLORS) % len(_STROKES)]}
        followed = [_curve(run, lambda r: factor * r[column], column) for run in runs]
        _band(curves, followed, name, style)
        scores += followed
        for column_of, axes in panels.items():
            followed = [_curve(run, _mean_of(column_of), column_of) for run in runs]
            if all(followed):
                _band(axes, followed, name, style)
        seconds = [1000 * run.summary["seconds_per_step"] for run in runs if run.summary]
        if seconds:
            # Where colors come again, as lines are dashed then.
            hatch = "" if index < len(_COLORS) else "////"
            mean = statistics.fmean(seconds)
            times.barh(name, mean, color=color, height=0.6, hatch=hatch, edgecolor="white", lw=0)
            times.plot(seconds, [name] * len(seconds), "o", color="#888888", ms=3)
    curves.set(xlabel="epoch", ylabel=of, title="Learning curves")
    if column != "loss" and (limits := _magnified(scores)):
        curves.set_ylim(*limits)
        curves.set_title(f"Learning curves, from {limits[0]:.0f} % on")
    for column_of, axes in panels.items():
        of, title = _ANGLES[column_of]
        axes.set(xlabel="epoch", ylabel=f"angle {of}, degrees", title=title, ylim=(-3, 100))
    times.set(xlabel="milliseconds", title="Time per step")
    times.set_yticks([])  # the colors say which
    times.invert_yaxis()
    for axes in (curves, *of_angles):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axes in (curves, *of_angles, times):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    if max(map(len, results)) <= _SHORT and len(results) <= _FEW:
        curves.legend(loc="lower right", frameon=False)
    else:  # it would cover the curves
        columns = max(1, int(_LETTERS * fig.get_figwidth()) // (max(map(len, results)) + 8))
        rows = -(-len(results) // columns)
        fig.set_figheight(fig.get_figheight() + 0.23 * rows)
        fig.legend(
            *curves.get_legend_handles_labels(),
            loc="outside lower left",
            frameon=False,
            ncols=columns,
        )
    most = max(len(runs) for runs in results.values())
    if most > 1:
        fig.suptitle(f"{most} runs a rule; lines and bars are means, bands minimum to maximum")
    fig.savefig(path, dpi=140)
    plt.close(fig)


def _followed(run):
    """Return what learning curves show: (label, column of metrics.csv, factor)."""
    score, label = run.experiment.score, run.experiment.label
    there = {name for record in run.records for name in record}
    for column, of in ((f"validation_{score}", "validation"), (score, "training")):
        if column in there:
            return f"{of} {label}, %", column, 100
    return "training loss", "loss", 1


def _curve(run, value, column):
    """Return {epoch: value} of the lines that have the column, one an epoch."""
    return {
        record["epoch"]: value(record)
        for record in run.records
        if column in record or any(name.startswith(f"{column}/") for name in record)
    }


def _magnified(curves):
    """Return the limits of an axis for all but the first fifth of each run's scores.

    None, for the whole range, unless those first epochs take more than half of it: they would
    press into one line what is to be compared.
    """
    late = [c for curve in curves for epoch, c in curve.items() if 5 * epoch > max(curve)]
    everything = [c for curve in curves for c in curve.values()]
    if not late or min(late) - min(everything) <= (max(everything) - min(everything)) / 2:
        return None
    margin = (max(everything) - min(late)) / 10
    return min(late) - margin, max(everything) + margin


def _mean_of(column):
    """Return a function of a line that gives the mean over layers of what begins with `column`."""
    return lambda record: mean_angle(
        {name: value for name, value in record.items() if name.startswith(f"{column}/")}
    )


def _band(axes, curves, label, style):
    """Plot the mean over curves and their range, as far as all of them go."""
    epochs = sorted(set.intersection(*(set(curve) for curve in curves)))
    columns = [[curve[epoch] for curve in curves] for epoch in epochs]
    alone = "o" if len(epochs) == 1 else None  # a line of one point is not seen
    means = [statistics.fmean(c) for c in columns]
    axes.plot(epochs, means, label=label, marker=alone, **style)
    low, high = [min(c) for c in columns], [max(c) for c in columns]
    axes.fill_between(epochs, low, high, color=style["color"], alpha=0.15, lw=0)


def _last_angle(run):
    """Return the mean angle at the end, or the newest one of a run that is not finished."""
    if run.summary:
        return mean_angle(run.summary["weight_angles"])
    measured = [record for record in run.records if "weight_angle" in str(record)]
    return _mean_of("weight_angle")(measured[-1]) if measured else math.nan


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


def _mean_and_spread(values, digits):
    if not values:
        return "–"
    spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.{digits}f}{spread}"
