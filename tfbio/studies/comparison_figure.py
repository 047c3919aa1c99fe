"""The figure of a comparison: learning curves, angles and times."""

import statistics

from tfbio.studies import plots
from tfbio.studies.comparison import mean_of

_STROKES = ("-", "--", ":", "-.")  # where colors come again
_FEW = 4  # names for which there is room among the curves
_LETTERS = 11  # to an inch
_ANGLES = {
    "weight_angle": ("between W and B", "Weight angle, mean over layers"),
    "gradient_angle": ("to backprop's gradient", "Gradient angle, mean over layers"),
}


def draw(results, path):
    """Draw learning curves, angles and times, mean and spread over seeds, to a PNG.

    The angles of gradients, global ones, are drawn where runs have measured them.

    Args:
        results: What `by_settings` returned.
        path: The file to write.
    """
    measured = any(
        _curve(run, mean_of("gradient_angle"), "gradient_angle")
        for runs in results.values()
        for run in runs
    )
    fig, (curves, *of_angles, times) = plots.subplots(
        1,
        4 if measured else 3,
        figsize=(17 if measured else 13, 4.2),
        width_ratios=(5, 5, 5, 3) if measured else (5, 5, 3),
    )
    from matplotlib.ticker import MaxNLocator

    panels = dict(zip(_ANGLES, of_angles, strict=False))
    first = next(iter(results.values()))[0]
    of, column, factor = _followed(first)
    scores = []
    for index, (name, runs) in enumerate(results.items()):
        color = plots.color(index)
        style = {"color": color, "ls": plots.cycle(index, _STROKES)}
        followed = [_curve(run, lambda r: factor * r[column], column) for run in runs]
        _band(curves, followed, name, style)
        scores += followed
        for column_of, axes in panels.items():
            followed = [_curve(run, mean_of(column_of), column_of) for run in runs]
            if all(followed):
                _band(axes, followed, name, style)
        seconds = [1000 * run.summary["seconds_per_step"] for run in runs if run.summary]
        if seconds:
            # Where colors come again, as lines are dashed then.
            hatch = "" if index < len(plots.COLORS) else "////"
            mean = statistics.fmean(seconds)
            times.barh(name, mean, color=color, height=0.6, hatch=hatch, edgecolor="white", lw=0)
            times.plot(seconds, [name] * len(seconds), "o", color=plots.GRAY, ms=3)
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
        plots.tidy(axes)
    if max(map(len, results)) <= plots.SHORT_NAME and len(results) <= _FEW:
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
    plots.save(fig, path)


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


def _band(axes, curves, label, style):
    """Plot the mean over curves and their range, as far as all of them go."""
    epochs = sorted(set.intersection(*(set(curve) for curve in curves)))
    columns = [[curve[epoch] for curve in curves] for epoch in epochs]
    alone = "o" if len(epochs) == 1 else None  # a line of one point is not seen
    plots.band(axes, epochs, columns, label=label, marker=alone, **style)
