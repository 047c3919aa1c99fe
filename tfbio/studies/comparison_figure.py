"""The figure of a comparison: learning curves, angles and times."""

import math
import pathlib
import statistics
from collections.abc import Callable
from typing import Any

from tfbio.metrics import random_spread
from tfbio.studies import comparison, plots
from tfbio.studies.runs import Run

_STROKES = ("-", "--", ":", "-.")  # distinguish lines where colors repeat
_NAMES_INSIDE = 4  # that fit among the curves; more go below them
_LETTERS_PER_INCH = 11
_ANGLES = {
    "weight_angle": ("between W and B", "Weight angle"),
    "gradient_angle": ("to backprop's gradient", "Gradient angle"),
}


def draw(results: dict[str, list[Run]], path: str | pathlib.Path) -> None:
    """Draw learning curves, angles and times, mean and standard deviation over seeds, to a PNG.

    The angles of gradients, global ones, are drawn where runs have measured them. About a weight
    angle of 90° a band shows where 95 of 100 means of unrelated matrices lie
    (`tfbio.metrics.random_spread`).

    Args:
        results: What `tfbio.studies.comparison.group_by_settings` returned.
        path: The file to write.
    """
    measured = any(_angle_curve(run, "gradient_angle") for runs in results.values() for run in runs)
    fig, (curves, *angle_panels, times) = plots.subplots(
        1,
        4 if measured else 3,
        figsize=(17 if measured else 13, 4.2),
        width_ratios=(5, 5, 5, 3) if measured else (5, 5, 3),
    )
    from matplotlib.ticker import MaxNLocator

    panels = dict(zip(_ANGLES, angle_panels, strict=False))
    first = next(iter(results.values()))[0]
    label, column, factor = _choose_score(first)
    scores = []
    for index, (name, runs) in enumerate(results.items()):
        color = plots.color(index)
        style = {"color": color, "ls": plots.cycle(index, _STROKES)}
        # One that diverged may end early, and would cut the curves of all.
        shown = [run for run in runs if not run.diverged] or runs
        diverged = comparison.describe_divergence(runs)
        label_of_rule = f"{name} ({diverged})" if diverged else name
        histories = [_curve(run, lambda r: factor * r[column], column) for run in shown]
        _plot_band(curves, histories, label_of_rule, style)
        scores += histories
        for kind, axes in panels.items():
            histories = [_angle_curve(run, kind) for run in shown]
            if all(histories):
                _plot_band(axes, histories, name, style)
        seconds = [1000 * run.summary["seconds_per_step"] for run in runs if run.summary]
        if seconds:
            # Hatched where colors repeat, as lines are dashed then.
            hatch = "" if index < len(plots.COLORS) else "////"
            mean = statistics.fmean(seconds)
            times.barh(name, mean, color=color, height=0.6, hatch=hatch, edgecolor="white", lw=0)
            times.plot(seconds, [name] * len(seconds), "o", color=plots.GRAY, ms=3)
    curves.set(xlabel="epoch", ylabel=label, title="Learning curves")
    if column != "loss" and (limits := _late_limits(scores)):
        curves.set_ylim(*limits)
        curves.set_title(f"Learning curves, from {limits[0]:.0f} % on")
    for kind, axes in panels.items():
        between, title = _ANGLES[kind]
        layers = comparison.describe_layers(results, kind)
        axes.set(xlabel="epoch", ylabel=f"angle {between}, degrees", ylim=(-3, 100))
        axes.set_title(f"{title}, mean over\n{layers}")
        if kind == "weight_angle":
            _draw_random_angles(axes, results)
    times.set(xlabel="milliseconds", title="Time per step")
    times.set_yticks([])  # the colors say which
    times.invert_yaxis()
    for axes in (curves, *angle_panels):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axes in (curves, *angle_panels, times):
        plots.tidy(axes)
    if max(map(len, results)) <= plots.SHORT_NAME and len(results) <= _NAMES_INSIDE:
        curves.legend(loc="lower right", frameon=False)
    else:  # it would cover the curves
        columns = max(
            1, int(_LETTERS_PER_INCH * fig.get_figwidth()) // (max(map(len, results)) + 8)
        )
        rows = -(-len(results) // columns)
        fig.set_figheight(fig.get_figheight() + 0.23 * rows)
        fig.legend(
            *curves.get_legend_handles_labels(),
            loc="outside lower left",
            frameon=False,
            ncols=columns,
        )
    fig.suptitle(plots.describe_spread(max(len(runs) for runs in results.values())))
    plots.save(fig, path)


def _choose_score(run: Run) -> tuple[str, str, int]:
    """Return what learning curves show: (label, column of metrics.csv, factor)."""
    score, label = run.experiment.score, run.experiment.label
    recorded = {name for record in run.records for name in record}
    for column, split in ((f"validation_{score}", "validation"), (score, "training")):
        if column in recorded:
            return f"{split} {label}, %", column, 100
    return "training loss", "loss", 1


def _angle_curve(run: Run, kind: str) -> dict[int, float]:
    """Return {epoch: mean angle over layers}."""
    curve = _curve(run, lambda record: comparison.mean_recorded_angle(run, record, kind), kind)
    return {epoch: angle for epoch, angle in curve.items() if not math.isnan(angle)}


def _draw_random_angles(axes, results):
    """Draw where mean angles of unrelated matrices lie, of the widest spread among the runs."""
    runs = [run for runs in results.values() for run in runs if run.averaged is not None]
    spreads = {random_spread(run.averaged.feedback.values()) for run in runs}
    spread = 2 * max((each for each in spreads if not math.isnan(each)), default=math.nan)
    if math.isnan(spread):
        return
    axes.axhspan(90 - spread, 90 + spread, color=plots.GRAY, alpha=0.3, lw=0)
    text = f"unrelated matrices: 90° ± {spread:.1f}° (2 sd)"
    axes.text(0.98, 90 + spread, text, transform=axes.get_yaxis_transform(), fontsize=8,
              color="#555555", ha="right", va="bottom")  # fmt: skip
    axes.set_ylim(-3, max(100, 95 + spread))


def _curve(run: Run, value: Callable[[dict[str, Any]], float], column: str) -> dict[int, float]:
    """Return {epoch: value} of the lines that have the column, one an epoch."""
    return {
        record["epoch"]: value(record)
        for record in run.records
        if column in record or any(name.startswith(f"{column}/") for name in record)
    }


def _late_limits(curves: list[dict[int, float]]) -> tuple[float, float] | None:
    """Return the limits of an axis for all but the first fifth of each run's scores.

    None, for the whole range, unless those first epochs take more than half of it: the curves to
    compare would be drawn on top of each other.
    """
    late = [c for curve in curves for epoch, c in curve.items() if 5 * epoch > max(curve)]
    everything = [c for curve in curves for c in curve.values()]
    if not late or min(late) - min(everything) <= (max(everything) - min(everything)) / 2:
        return None
    margin = (max(everything) - min(late)) / 10
    return min(late) - margin, max(everything) + margin


def _plot_band(axes: Any, curves: list[dict[int, float]], label: str, style: dict[str, Any]):
    """Plot the mean over curves and their deviation, as far as all of them go."""
    epochs = sorted(set.intersection(*(set(curve) for curve in curves)))
    columns = [[curve[epoch] for curve in curves] for epoch in epochs]
    alone = "o" if len(epochs) == 1 else None  # a line of one point is not seen
    plots.band(axes, epochs, columns, label=label, marker=alone, **style)
