"""The report on robustness: accuracy under attack of several rules, as a table and as a figure."""

import dataclasses
import pathlib
from collections.abc import Iterator

from rich.table import Table

from tfbio.studies import comparison, plots
from tfbio.studies.attack_options import Attack
from tfbio.studies.robustness import Robustness
from tfbio.studies.runs import Run
from tfbio.training import folder

_MARKERS = "os^D"  # where colors come again


def group(runs: list[Run], measured: list[Robustness]) -> dict[str, list[Robustness]]:
    """Return what was measured, grouped by the settings in which the runs differ.

    Args:
        runs: The runs.
        measured: The `Robustness` of each.

    Returns:
        A dict from a name, as `tfbio.studies.comparison.group_by_settings` has them, to a list.

    Example:
        >>> from tfbio.training import Classification
        >>> runs = [Run(Classification(rule="fa", seed=seed), None, [], []) for seed in (0, 1)]
        >>> measured = [Robustness(100, 360, clean, {}, {}) for clean in (0.8, 0.9)]
        >>> {name: len(each) for name, each in group(runs, measured).items()}
        {'feedback_alignment': 2}
    """
    by_run = {id(run): each for run, each in zip(runs, measured, strict=True)}
    groups = comparison.group_by_settings(runs).items()
    return {name: [by_run[id(run)] for run in members] for name, members in groups}


def describe_masked(results: dict[str, list[Robustness]]) -> Iterator[str]:
    """Yield a line for every gradient that is zero all over some images.

    Args:
        results: What `group` returned.

    Example:
        >>> measured = Robustness(100, 360, 0.9, {"true": 0.5}, {})
        >>> list(describe_masked({"backprop": [measured]}))
        ['backprop: the true gradient of 180 of 360 images is zero: nothing by it can move them.']
    """
    for name, measured in results.items():
        for gradient in measured[0].masked:
            count = sum(round(each.masked[gradient] * each.examples) for each in measured)
            if count:
                yield (
                    f"{name}: the {gradient} gradient of {count} of "
                    f"{sum(each.examples for each in measured)} images is zero: nothing by it "
                    "can move them."
                )


def save(
    runs: list[Run], measured: list[Robustness], attack: Attack, path: str | pathlib.Path
) -> None:
    """Write the options of an attack, its circumstances and what was measured to a JSON file.

    Args:
        runs: The runs.
        measured: The `Robustness` of each.
        attack: The `Attack`.
        path: The file to write.

    Raises:
        OSError: If it cannot be written.

    Example:
        >>> import json, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp(), "attack.json")
        >>> save([], [], Attack(steps=5), path)
        >>> json.loads(path.read_text())["attack"]["steps"]
        5
    """
    document = {
        "attack": dataclasses.asdict(attack),
        **folder.circumstances(),
        "runs": [
            {
                "flags": folder.flagfile(run.experiment).splitlines(),
                "starts": run.starts,
                "finished": run.summary is not None,
                **each.document(),
            }
            for run, each in zip(runs, measured, strict=True)
        ],
    }
    folder.save_json(path, document)


def table(results: dict[str, list[Robustness]], attack: Attack) -> Table:
    """Return accuracies under attack as a rich table, means and spreads over seeds, in percent.

    Args:
        results: A dict from a rule's name to a list of `Robustness`.
        attack: The `Attack` that they are of.

    Returns:
        A `rich.table.Table`, a row for every rule and eps.

    Example:
        >>> attack = Attack(epsilons="0.1", attacks="fgsm", gradients="true")
        >>> measured = Robustness(100, 360, 0.97, {"true": 0.0}, {("fgsm", "true", "0.1"): 0.25})
        >>> [list(column.cells) for column in table({"backprop": [measured]}, attack).columns]
        [['backprop'], ['97.0'], ['0.1'], ['25.0']]
    """
    several = max(map(len, results.values())) > 1
    caption = f"± is the {plots.SPREAD}." if several else None
    out = Table(title="Accuracy under attack, %", caption=caption, caption_justify="left")
    out.add_column("rule", overflow="fold")
    for heading in ("clean", "eps", *(f"{a}, {g}\ngradient" for a, g in attack.columns)):
        out.add_column(heading, justify="right", no_wrap=True)
    for name, measured in results.items():
        first = (name, _format_shares([each.clean for each in measured]))
        for text in attack.eps:
            cells = [
                [each.accuracy[*column, text] for each in measured] for column in attack.columns
            ]
            out.add_row(*first, text, *map(_format_shares, cells))
            first = ("", "")
        out.add_section()
    return out


def figure(results: dict[str, list[Robustness]], attack: Attack, path: str | pathlib.Path) -> None:
    """Draw accuracy against eps to a PNG, the true gradient's solid and the rule's dashed.

    Args:
        results: A dict from a rule's name to a list of `Robustness`.
        attack: The `Attack` that they are of.
        path: The file to write.

    Example:
        >>> import tempfile
        >>> attack = Attack(epsilons="0.1", attacks="fgsm", gradients="true")
        >>> measured = Robustness(100, 360, 0.97, {"true": 0.0}, {("fgsm", "true", "0.1"): 0.25})
        >>> figure({"backprop": [measured]}, attack, tempfile.mkdtemp() + "/a.png")
    """
    names = list(dict.fromkeys(a for a, _ in attack.columns))
    fig, panels = plots.subplots(
        1, len(names), figsize=(3 + 4.4 * len(names), 4.2), squeeze=False,
        sharey=True,
    )  # fmt: skip
    from matplotlib.lines import Line2D

    eps = dict(sorted(attack.eps.items(), key=lambda item: item[1]))
    places = [255 * value for value in eps.values()]
    titles = {"fgsm": "FGSM", "pgd": f"PGD, {attack.steps} steps"}
    strokes = {
        "true": {"ls": "-", "ms": 4},
        "rule": {"ls": (0, (4, 2.5)), "ms": 6, "markerfacecolor": "none"},
    }
    for axes, kind in zip(panels[0], names, strict=True):
        for index, (name, measured) in enumerate(results.items()):
            style = _style(index)
            for gradient in (g for a, g in attack.columns if a == kind):
                columns = [
                    [100 * each.accuracy[kind, gradient, t] for each in measured] for t in eps
                ]
                plots.band(axes, places, columns, 0.12, label=name, **style, **strokes[gradient])
        axes.set(title=titles[kind], xlabel="eps, in 1/255 of the images' range", ylim=(-3, 103))
        plots.tidy(axes)
    panels[0][0].set_ylabel("accuracy, %")
    handles = [
        Line2D([], [], ls="none", ms=8, label=name, **_style(index))
        for index, name in enumerate(results)
    ]
    handles += [
        Line2D([], [], color="#666666", marker="o", label=f"{whose} gradient", **strokes[gradient])
        for gradient, whose in (("true", "true"), ("rule", "the rule's own"))
        if gradient in {g for _, g in attack.columns}
    ]
    # Long names would leave the panels no room beside them.
    beside = (
        "outside right upper"
        if max(map(len, results)) <= plots.SHORT_NAME
        else "outside lower left"
    )
    fig.legend(handles=handles, loc=beside, frameon=False, handlelength=3)
    most = max(map(len, results.values()))
    if most > 1:
        fig.suptitle(plots.describe_spread(most))
    plots.save(fig, path)


def _style(index):
    return {"color": plots.color(index), "marker": plots.cycle(index, _MARKERS)}


def _format_shares(shares):
    return plots.format_mean([100 * share for share in shares], 1)
