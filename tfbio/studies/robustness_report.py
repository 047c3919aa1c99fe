"""The report on robustness: accuracy under attack of several rules, as a table and as a figure."""

import statistics

from rich.table import Table

from tfbio._extras import require
from tfbio.studies.comparison import _COLORS

_SHORT = 24  # letters of a name
_MARKERS = "os^D"  # where colors come again


def table(results, attack):
    """Return accuracies under attack as a rich table, means and spreads over seeds, in percent.

    Args:
        results: A dict from a rule's name to a list of `Robustness`.
        attack: The `Attack` that they are of.

    Returns:
        A `rich.table.Table`, a row for every rule and eps.

    Example:
        >>> from tfbio.studies.robustness import Attack, Robustness
        >>> attack = Attack(epsilons="0.1", attacks="fgsm", gradients="true")
        >>> found = Robustness(100, 360, 0.97, {"true": 0.0}, {("fgsm", "true", "0.1"): 0.25})
        >>> [list(column.cells) for column in table({"backprop": [found]}, attack).columns]
        [['backprop'], ['97.0'], ['0.1'], ['25.0']]
    """
    out = Table(title="Accuracy under attack, %")
    out.add_column("rule", overflow="fold")
    for heading in ("clean", "eps", *(f"{a}, {g}\ngradient" for a, g in attack.columns)):
        out.add_column(heading, justify="right", no_wrap=True)
    for name, found in results.items():
        first = (name, _mean_and_spread([each.clean for each in found]))
        for text in attack.eps:
            cells = [[each.accuracy[*column, text] for each in found] for column in attack.columns]
            out.add_row(*first, text, *map(_mean_and_spread, cells))
            first = ("", "")
        out.add_section()
    return out


def figure(results, attack, path):
    """Draw accuracy against eps to a PNG, the true gradient's solid and the rule's dashed.

    Args:
        results: A dict from a rule's name to a list of `Robustness`.
        attack: The `Attack` that they are of.
        path: The file to write.

    Example:
        >>> import tempfile
        >>> from tfbio.studies.robustness import Attack, Robustness
        >>> attack = Attack(epsilons="0.1", attacks="fgsm", gradients="true")
        >>> found = Robustness(100, 360, 0.97, {"true": 0.0}, {("fgsm", "true", "0.1"): 0.25})
        >>> figure({"backprop": [found]}, attack, tempfile.mkdtemp() + "/a.png")
    """
    require("matplotlib", extra="plots")
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt
    from matplotlib.lines import Line2D

    names = list(dict.fromkeys(a for a, _ in attack.columns))
    fig, panels = plt.subplots(
        1, len(names), figsize=(3 + 4.4 * len(names), 4.2), layout="constrained", squeeze=False,
        sharey=True,
    )  # fmt: skip
    eps = dict(sorted(attack.eps.items(), key=lambda item: item[1]))
    places = [255 * value for value in eps.values()]
    titles = {"fgsm": "FGSM", "pgd": f"PGD, {attack.steps} steps"}
    strokes = {
        "true": {"ls": "-", "ms": 4},
        "rule": {"ls": (0, (4, 2.5)), "ms": 6, "markerfacecolor": "none"},
    }
    for axes, kind in zip(panels[0], names, strict=True):
        for index, (name, found) in enumerate(results.items()):
            style = _style(index)
            for gradient in (g for a, g in attack.columns if a == kind):
                columns = [[100 * each.accuracy[kind, gradient, t] for each in found] for t in eps]
                means = [statistics.fmean(c) for c in columns]
                axes.plot(places, means, label=name, **style, **strokes[gradient])
                low, high = [min(c) for c in columns], [max(c) for c in columns]
                axes.fill_between(places, low, high, color=style["color"], alpha=0.12, lw=0)
        axes.set(title=titles[kind], xlabel="eps, in 1/255 of the images' range", ylim=(-3, 103))
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0][0].set_ylabel("accuracy, %")
    handles = [
        Line2D([], [], ls="none", ms=8, label=name, **_style(index))
        for index, name in enumerate(results)
    ]
    handles += [
        Line2D([], [], color="#666666", marker="o", label=f"{of} gradient", **strokes[gradient])
        for gradient, of in (("true", "true"), ("rule", "the rule's own"))
        if gradient in {g for _, g in attack.columns}
    ]
    # Long names would leave the panels no room beside them.
    beside = "outside right upper" if max(map(len, results)) <= _SHORT else "outside lower left"
    fig.legend(handles=handles, loc=beside, frameon=False, handlelength=3)
    most = max(map(len, results.values()))
    if most > 1:
        fig.suptitle(f"{most} runs a rule; lines are means, bands minimum to maximum")
    fig.savefig(path, dpi=140)
    plt.close(fig)


def _style(index):
    return {
        "color": _COLORS[index % len(_COLORS)],
        "marker": _MARKERS[index // len(_COLORS) % len(_MARKERS)],
    }


def _mean_and_spread(shares):
    values = [100 * share for share in shares]
    spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.1f}{spread}"
