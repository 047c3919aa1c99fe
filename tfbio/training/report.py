"""The report: rules compared, as a table and as a figure."""

import dataclasses
import json
import math
import os
import pathlib
import platform
import statistics

import keras
import tensorflow as tf
from rich.table import Table

from tfbio.version import __version__

# Okabe and Ito's palette, which readers with any colour vision can tell apart.
_COLORS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")


def table(results):
    """Return the comparison as a rich table.

    Test accuracy is the mean and the sample standard deviation over seeds; the time per step is
    the median over seeds of the ratio to backprop's run of the same seed, where there is one; the
    angle is the mean over kernels and seeds at the end.

    Args:
        results: A dict from rule to a list of `Result`, one per seed, in the same order of seeds.

    Returns:
        A `rich.table.Table`.
    """
    out = Table(title="Learning rules compared")
    out.add_column("rule", overflow="fold")
    for heading in ("test\naccuracy, %", "time per step\n÷ backprop", "final weight\nangle, °"):
        out.add_column(heading, justify="right", no_wrap=True)
    for rule, runs in results.items():
        accuracy = [100 * run.test_accuracy for run in runs]
        spread = f" ± {statistics.stdev(accuracy):.1f}" if len(accuracy) > 1 else ""
        baseline = results.get("backprop")
        ratio = "–"
        if baseline:
            pairs = zip(runs, baseline, strict=True)
            ratios = [run.seconds_per_step / base.seconds_per_step for run, base in pairs]
            ratio = f"{statistics.median(ratios):.2f}"
        angle = statistics.fmean(mean_angle(run.angles[-1][1]) for run in runs)
        out.add_row(rule, f"{statistics.fmean(accuracy):.1f}{spread}", ratio, f"{angle:.1f}")
    return out


def mean_angle(angles):
    """Return the mean over a dict's kernels, those without a direction left out.

    Example:
        >>> mean_angle({"a": 30.0, "b": 60.0, "dead": float("nan")})
        45.0
    """
    known = [value for value in angles.values() if not math.isnan(value)]
    return statistics.fmean(known) if known else math.nan


def save(results, path):
    """Write the comparison to a JSON file, with versions and machine.

    Args:
        results: A dict from rule to a list of `Result`, one per seed.
        path: The file to write.
    """
    runs = [
        {
            "options": dataclasses.asdict(run.experiment),
            "test_accuracy": run.test_accuracy,
            "curve": run.curve,
            "seconds_per_step": run.seconds_per_step,
            "weight_angles": run.angles[-1][1],
        }
        for each in results.values()
        for run in each
    ]
    versions = {"tfbio": __version__, "tensorflow": tf.__version__, "keras": keras.__version__}
    machine = {"platform": platform.platform(), "cpus": os.cpu_count()}
    machine["gpus"] = len(tf.config.list_physical_devices("GPU"))
    document = {"versions": versions, "machine": machine, "runs": runs}
    text = json.dumps(_without_nan(document), indent=1, allow_nan=False)
    pathlib.Path(path).write_text(text + "\n")


def _without_nan(value):
    """Return a nested value with null where it is no finite number: JSON has no NaN."""
    if isinstance(value, dict):
        return {key: _without_nan(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_without_nan(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def figure(results, path, curve_label):
    """Draw learning curves and weight angles, mean and spread over seeds, to a PNG.

    Args:
        results: A dict from rule to a list of `Result`, one per seed.
        path: The file to write.
        curve_label: What the curves are, such as "validation accuracy".
    """
    import matplotlib
    import numpy as np

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    fig, (curves, angles) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    for index, (rule, runs) in enumerate(results.items()):
        color = _COLORS[index % len(_COLORS)]
        _band(curves, np.array([run.curve for run in runs]) * 100, 1, rule, color)
        degrees = np.array([[mean_angle(a) for _, a in run.angles] for run in runs])
        _band(angles, degrees, 0, rule, color)
    curves.set(xlabel="epoch", ylabel=f"{curve_label}, %", title="Learning curves")
    angles.set(
        xlabel="epoch",
        ylabel="angle between W and B, degrees",
        title="Weight angle, mean over layers",
        ylim=(-3, 100),
    )
    for axes in (curves, angles):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    curves.legend(loc="lower right", frameon=False)
    seeds = len(next(iter(results.values())))
    fig.suptitle(f"{seeds} seed{'s' if seeds > 1 else ''}; bands are minimum to maximum")
    fig.savefig(path, dpi=140)
    plt.close(fig)


def _band(axes, rows, first, label, color):
    steps = range(first, first + rows.shape[1])
    axes.plot(steps, rows.mean(axis=0), label=label, color=color)
    axes.fill_between(steps, rows.min(axis=0), rows.max(axis=0), color=color, alpha=0.15, lw=0)
