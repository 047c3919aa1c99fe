"""Plots: the colors, bands and axes that the figures of studies share."""

import pathlib
import statistics
from collections.abc import Sequence
from typing import Any

from tfbio._extras import require

# Okabe and Ito's palette, which readers with any color vision can tell apart.
COLORS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""The colors of rules and settings, in order."""
BLUE, RED, GRAY = COLORS[1], COLORS[2], "#888888"
SPREAD = "standard deviation over seeds (n − 1)"
"""What stands after ± in tables, and what bands of figures show about means over seeds."""
SHORT_NAME = 24
"""Letters of a name for which there is room beside or among the curves."""


def color(index: int) -> str:
    """Return the color of the rule or setting of this index; after the last, the first again.

    Example:
        >>> color(1) == color(8) == BLUE
        True
    """
    return COLORS[index % len(COLORS)]


def cycle(index: int, styles: Sequence[Any]) -> Any:
    """Return the stroke, marker or hatch that tells indices of one color apart.

    Example:
        >>> cycle(0, "os"), cycle(7, "os")
        ('o', 's')
    """
    return styles[index // len(COLORS) % len(styles)]


def subplots(*args: Any, **options: Any) -> tuple[Any, Any]:
    """Return a figure and its axes, drawn to files only; arguments are Matplotlib's.

    Example:
        >>> figure, axes = subplots(1, 2)
        >>> len(axes)
        2
    """
    require("matplotlib", extra="plots")
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    return plt.subplots(*args, layout="constrained", **options)


def band(
    axes: Any, places: Sequence[float], columns: Sequence[list], alpha: float = 0.15, **style: Any
) -> None:
    """Plot the mean of the values at each place, and a band of one standard deviation about it.

    It is the sample standard deviation, of n − 1, as `format_mean` gives it; of one value there is
    none, and no band.

    Args:
        axes: Matplotlib's axes.
        places: The places on the horizontal axis.
        columns: The values at each place, one list a place.
        alpha: The opacity of the band.
        style: Arguments of the line, such as `color` and `label`.

    Example:
        >>> _, axes = subplots()
        >>> band(axes, [1, 2], [[0.0, 1.0], [2.0, 4.0]], color=BLUE)
        >>> axes.get_lines()[0].get_ydata().tolist()
        [0.5, 3.0]
    """
    means = [statistics.fmean(values) for values in columns]
    axes.plot(places, means, **style)
    if all(len(values) > 1 for values in columns):
        spreads = [statistics.stdev(values) for values in columns]
        low = [mean - spread for mean, spread in zip(means, spreads, strict=True)]
        high = [mean + spread for mean, spread in zip(means, spreads, strict=True)]
        axes.fill_between(places, low, high, color=style["color"], alpha=alpha, lw=0)


def describe_spread(runs: int) -> str:
    """Return what lines and bands of so many runs are, for the title of a figure.

    Example:
        >>> describe_spread(3)
        '3 seeds; lines are means, bands ± the standard deviation over seeds (n − 1)'
        >>> describe_spread(1)
        'one seed'
    """
    if runs == 1:
        return "one seed"
    return f"{runs} seeds; lines are means, bands ± the {SPREAD}"


def tidy(axes: Any) -> None:
    """Draw a faint grid, and no frame at the top and on the right.

    Example:
        >>> _, axes = subplots()
        >>> tidy(axes)
        >>> axes.spines["top"].get_visible()
        False
    """
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def save(figure: Any, path: str | pathlib.Path) -> None:
    """Write a figure to a PNG and free it.

    Example:
        >>> import tempfile
        >>> save(subplots()[0], tempfile.mkdtemp() + "/a.png")
    """
    import matplotlib.pyplot as plt

    figure.savefig(path, dpi=140)
    plt.close(figure)


def format_mean(values: Sequence[float], digits: int) -> str:
    """Return the mean and, of two values or more, the sample standard deviation as text.

    Example:
        >>> format_mean([1.0, 2.0], 1), format_mean([1.0], 2), format_mean([], 1)
        ('1.5 ± 0.7', '1.00', '–')
    """
    if not values:
        return "–"
    spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.{digits}f}{spread}"
