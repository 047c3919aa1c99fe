"""The heat maps: the angles of all layers over all steps of a run, in one picture."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tfbio._extras import require
from tfbio.metrics import random_spread

if TYPE_CHECKING:
    from tfbio.metrics import AveragedLayers

_PANELS = {
    "weight_angle": "Between W and B",
    "gradient_angle": "Between the gradient and backprop's",
}
_NOT_AVERAGED = {
    "weight_angle": ("feedback", "its B teaches no weights"),
    "gradient_angle": ("gradients", "no feedback above it"),
}
"""Which layers of a panel stand in no mean, and why, as a picture says it."""

_HIGHEST = 120  # degrees; random ones are about 90, and more is rare
_COLORS = "viridis_r"  # perceptually uniform: the smaller the angle, the brighter
_LEAST_ROWS, _ROW = 8, 0.21  # of text of 8 points, and inches each


def draw(
    records: Sequence[Mapping[str, Any]], averaged: AveragedLayers | None = None
) -> np.ndarray | None:
    """Return a picture of layers × steps, weight angles and, where measured, gradient angles.

    Args:
        records: The lines of metrics.csv, as `tfbio.training.records.read` gives them.
        averaged: The layers of the means. The others are marked as such, and beside each weight
            angle stands how far unrelated matrices of so many entries are from 90°, two standard
            deviations (`tfbio.metrics.random_spread`). None for no such marks.

    Returns:
        A uint8 array (height, width, 3): layers from first to last downwards, one color scale from
        0 degrees up; gray where an angle is not defined.

    Example:
        >>> draw([{"step": step, "weight_angle/out": 90.0 / (1 + step)} for step in range(3)]).ndim
        3
    """
    require("matplotlib", extra="plots")
    from matplotlib import colormaps
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine
    from matplotlib.ticker import FixedLocator, MaxNLocator

    tables = {tag: table(records, tag) for tag in _PANELS}
    tables = {tag: found for tag, found in tables.items() if found[1]}
    rows = max((len(names) for _, names, _ in tables.values()), default=0)
    figure = Figure(
        figsize=(2.6 + 4.2 * len(tables), 1.1 + _ROW * max(rows, _LEAST_ROWS)),
        layout=ConstrainedLayoutEngine(wspace=0.03),
        dpi=120,
    )
    colors = colormaps[_COLORS].with_extremes(bad="#cccccc")
    panels = figure.subplots(1, len(tables), squeeze=False)[0] if tables else []
    drawn = None
    for axes, (tag, (steps, names, values)) in zip(panels, tables.items(), strict=True):
        drawn = axes.pcolormesh(
            edges(steps), np.arange(len(names) + 1), values, cmap=colors, vmin=0, vmax=_HIGHEST
        )
        axes.set_title(_PANELS[tag], fontsize=10)
        axes.set_xlabel("step", fontsize=9)
        axes.xaxis.set_major_locator(
            MaxNLocator(5, integer=True) if len(steps) > 1 else FixedLocator(steps)
        )
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.set_yticks(np.arange(len(names)) + 0.5, names if axes is panels[0] else [])
        axes.tick_params(labelsize=8)
        axes.tick_params(axis="y", length=0)
        axes.invert_yaxis()
        axes.spines[:].set_visible(False)
        if averaged is not None:
            _mark_layers(axes, tag, names, averaged)
    if drawn is not None:
        bar = figure.colorbar(
            drawn,
            ax=panels,
            extend="max",
            extendfrac=0.03,
            aspect=2 * max(rows, _LEAST_ROWS),  # as wide whatever the height
            ticks=range(0, _HIGHEST + 1, 30),
        )
        bar.set_label("angle, degrees", fontsize=9)
        bar.ax.tick_params(labelsize=8)
        bar.outline.set_visible(False)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _mark_layers(axes, tag, names, averaged):
    """Say which layers stand in no mean, and how far random angles are from 90°."""
    attribute, reason = _NOT_AVERAGED[tag]
    of_mean = getattr(averaged, attribute)
    for row, name in enumerate(names):
        if name not in of_mean:
            box = {"facecolor": "white", "alpha": 0.7, "lw": 0, "pad": 1.5}
            at = {"transform": axes.get_yaxis_transform(), "ha": "center", "va": "center"}
            axes.text(0.5, row + 0.5, f"{reason}: in no mean", fontsize=7, bbox=box, **at)
    if tag == "weight_angle":
        right = axes.secondary_yaxis("right")
        spreads = [
            f"±{2 * random_spread([of_mean[n]]):.1f}°" if n in of_mean else "" for n in names
        ]
        right.set_yticks(np.arange(len(names)) + 0.5, spreads)
        right.tick_params(labelsize=7, length=0)
        right.set_ylabel("random: 90° ± 2 sd", fontsize=7)
        right.spines[:].set_visible(False)


def table(records: Sequence[Mapping[str, Any]], tag: str) -> tuple[Any, ...]:
    """Return (steps, layers, values) of what is recorded under a tag, values of layers × steps.

    Args:
        records: The lines of metrics.csv.
        tag: What stands before "/" in its columns.

    Example:
        >>> table([{"step": 0, "a/x": 1.0, "a/y": 2.0}, {"step": 1}, {"step": 2, "a/x": 3.0}], "a")
        ([0, 2], ['x', 'y'], array([[ 1.,  3.],
               [ 2., nan]]))
    """
    prefix = f"{tag}/"
    lines = [line for line in records if any(name.startswith(prefix) for name in line)]
    names = list(dict.fromkeys(n for line in lines for n in line if n.startswith(prefix)))
    values = np.array([[line.get(name, math.nan) for line in lines] for name in names])
    return [line["step"] for line in lines], [n.removeprefix(prefix) for n in names], values


def edges(steps: Sequence[int]) -> np.ndarray:
    """Return where the cells of measurements end: halfway to the next ones, if there are any.

    Args:
        steps: Ascending numbers, one or more.

    Example:
        >>> edges([0, 10, 30]).tolist()
        [0.0, 5.0, 20.0, 30.0]
    """
    middles = np.asarray(steps, float)
    if len(middles) == 1:
        return np.array([middles[0] - 0.5, middles[0] + 0.5])
    return np.array([middles[0], *(middles[1:] + middles[:-1]) / 2, middles[-1]])
