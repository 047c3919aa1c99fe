"""The report on a search: trials as a table, a figure and a record, and the best as a config."""

import dataclasses
import json
import pathlib

from rich.table import Table

from tfbio._extras import require
from tfbio.training import folder
from tfbio.training.checkpoints import write

_BLUE, _RED, _GRAY = "#0072B2", "#D55E00", "#888888"
_ACROSS = 4  # panels
_STEP = {"last": "last\nstep", "best": "best\nstep"}


def table(found, most=None):
    """Return the trials of a search as a rich table, the best one marked.

    Nothing in it is of the test split.

    Args:
        found: A `tfbio.studies.search.Found`.
        most: With a number, only so many of the best, and the newest trial.

    Returns:
        A `rich.table.Table`, a row for every trial, by number.

    Example:
        >>> from tfbio.studies import ranges, search
        >>> from tfbio.training import Classification
        >>> base, settings = Classification(), search.Settings(trials=1)
        >>> of = ranges.parse("--batch_size=choice(32, 64)", base)
        >>> (trial,) = search.draw(base, of, settings)
        >>> found = search.Found(base, of, settings, [trial._replace(score=0.912, step=42)])
        >>> first, *_, score, step = (list(column.cells)[0] for column in table(found).columns)
        >>> first, score, step
        ('trial000 *', '91.20', '42')
    """
    best = found.best
    shown = found.trials
    out = Table()
    if most is not None and len(shown) > most + 1:
        ranked = sorted(
            (trial for trial in shown if trial.score is not None),
            key=lambda trial: (-trial.score, trial.number),
        )
        shown = sorted({trial.number: trial for trial in [*ranked[:most], shown[-1]]}.items())
        shown = [trial for _, trial in shown]
        out.title = f"The best {most} of {len(found.trials)} trials so far, and the newest"
    else:
        out.title = f"{len(found.trials)} of {found.settings.trials} trials"
    out.add_column("trial", no_wrap=True)
    for one in found.ranges:
        out.add_column(one.name, justify="right", overflow="fold")
    label = found.experiment.label
    out.add_column(f"validation\n{label}, %", justify="right", no_wrap=True)
    out.add_column(_STEP[found.settings.search_by], justify="right", no_wrap=True)
    for trial in shown:
        mark = " *" if best is not None and trial.number == best.number else ""
        values = (_short(trial.parameters[one.name]) for one in found.ranges)
        score = "failed" if trial.score is None else f"{100 * trial.score:.2f}"
        step = "–" if trial.step is None else f"{trial.step:,}"
        out.add_row(f"{trial.name}{mark}", *values, score, step, style="bold" if mark else None)
    if best is not None:
        out.caption = "* the best"
    return out


def save(found, path):
    """Write what was found to a folder: search.json, search.png and, of the best trial, best.cfg.

    Neither holds a time, so that a search which was cut ends with the same files.

    Args:
        found: A `tfbio.studies.search.Found`.
        path: The folder.

    Raises:
        OSError: If it cannot be written.

    Example:
        >>> import tempfile
        >>> from tfbio.studies import ranges, search
        >>> from tfbio.training import Classification
        >>> base, settings = Classification(), search.Settings(trials=1)
        >>> of = ranges.parse("--batch_size=choice(32, 64)", base)
        >>> (trial,) = search.draw(base, of, settings)
        >>> folder_ = tempfile.mkdtemp()
        >>> save(search.Found(base, of, settings, [trial._replace(score=0.9, step=42)]), folder_)
        >>> sorted(each.name for each in pathlib.Path(folder_).iterdir())
        ['best.cfg', 'search.json', 'search.png']
    """
    path = pathlib.Path(path)
    folder.save_json(path / "search.json", document(found))
    figure(found, path / "search.png")
    if found.best is not None:
        write(path / "best.cfg", config(found, path).encode())


def document(found):
    """Return what was found as a dict for JSON.

    Args:
        found: A `tfbio.studies.search.Found`.

    Example:
        >>> from tfbio.studies import search
        >>> from tfbio.training import Classification
        >>> sorted(document(search.Found(Classification(), [], search.Settings(), [])))
        ['best', 'options', 'ranges', 'search_by', 'search_seed', 'task', 'test', 'trials']
    """
    best = found.best
    return {
        "task": found.experiment.task,
        "ranges": list(map(str, found.ranges)),
        "search_by": found.settings.search_by,
        "search_seed": found.settings.search_seed,
        "options": folder.comparable(found.experiment),
        "trials": [
            {
                "trial": trial.name,
                "parameters": trial.parameters,
                f"validation_{found.experiment.score}": trial.score,
                "step": trial.step,
                "failed": trial.failed or None,
            }
            for trial in found.trials
        ],
        "best": best and best.name,
        "test": found.tested,
    }


def config(found, path):
    """Return the best trial as the text of a config, whose run has a folder of its own.

    Args:
        found: A `tfbio.studies.search.Found` with a best trial.
        path: The search's folder.

    Example:
        >>> from tfbio.studies import search
        >>> from tfbio.training import Classification
        >>> trial = search.Trial(2, Classification(), {"epochs": 30}, score=0.9, step=42)
        >>> found = search.Found(Classification(), [], search.Settings(), [trial])
        >>> print(config(found, "runs/search").splitlines()[1])
        # trial002, the best of 1 by validation accuracy: 90.00 %, after the last step, 42.
    """
    best, path = found.best, pathlib.Path(path)
    trainer = {"classification": "classify", "detection": "detect"}
    kind, *flags = folder.flagfile(
        dataclasses.replace(best.experiment, workdir=str(path / "best"))
    ).splitlines()
    when = "after the last step" if found.settings.search_by == "last" else "of the best step"
    name = trainer[best.experiment.task]
    lines = [
        kind,
        f"# {best.name}, the best of {len(found.trials)} by validation {best.experiment.label}: "
        f"{100 * best.score:.2f} %, {when}, {best.step}.",
        f"# Found: {json.dumps(best.parameters)}",
        f"# Command: python -m trainers.{name} --flagfile={path / 'best.cfg'}",
        *flags,
    ]
    return "\n".join(lines) + "\n"


def figure(found, path):
    """Draw the score against every parameter, a panel each, to a PNG.

    Args:
        found: A `tfbio.studies.search.Found`.
        path: The file to write.

    Example:
        >>> import tempfile
        >>> from tfbio.studies import ranges, search
        >>> from tfbio.training import Classification
        >>> base, settings = Classification(), search.Settings(trials=2)
        >>> of = ranges.parse("--learning_rate=log(1e-3, 1e-1)", base)
        >>> one, two = search.draw(base, of, settings)
        >>> trials = [one._replace(score=0.9, step=42), two._replace(failed="The loss is none.")]
        >>> figure(search.Found(base, of, settings, trials), tempfile.mkdtemp() + "/a.png")
    """
    require("matplotlib", extra="plots")
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    across = min(len(found.ranges), _ACROSS)
    down = -(-len(found.ranges) // across)
    fig, panels = plt.subplots(
        down,
        across,
        figsize=(max(1.2 + 3.1 * across, 5), 0.9 + 3.1 * down),
        layout="constrained",
        squeeze=False,
        sharey=True,
    )
    for axes in panels.flat[len(found.ranges) :]:
        axes.remove()
    for axes, one in zip(panels.flat, found.ranges, strict=False):
        _panel(axes, found, one)
    for row in panels:
        row[0].set_ylabel(f"validation {found.experiment.label}, %")
    handles, labels = panels[0][0].get_legend_handles_labels()
    if handles:
        fig.legend(handles, labels, loc="outside lower left", ncols=3, frameon=False)
    fig.suptitle(
        f"{len(found.trials)} of {found.settings.trials} trials, score "
        + ("after the last step" if found.settings.search_by == "last" else "of the best step")
    )
    fig.savefig(path, dpi=140)
    plt.close(fig)


def _panel(axes, found, one):
    """Draw the score against one parameter."""
    from matplotlib.transforms import blended_transform_factory

    best = found.best
    place = _places(axes, one)
    scored = [trial for trial in found.trials if trial.score is not None]
    failed = [trial for trial in found.trials if trial.score is None]
    axes.plot(
        [place(trial) for trial in scored],
        [100 * trial.score for trial in scored],
        "o",
        color=_BLUE,
        alpha=0.6,
        ms=5,
        label="a trial",
    )
    if best is not None:
        axes.plot(
            place(best), 100 * best.score, "*", color=_RED, ms=15, mec="white", label="the best"
        )
    if failed:  # they have no score: at the lower edge
        axes.plot(
            [place(trial) for trial in failed],
            [0.03] * len(failed),
            "x",
            color=_GRAY,
            ms=6,
            transform=blended_transform_factory(axes.transData, axes.transAxes),
            label="failed",
        )
    axes.set_xlabel(one.name)
    axes.margins(y=0.1)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def _places(axes, one):
    """Prepare an axis for a range, and return the function from a trial to its place there."""
    if one.function == "choice":
        axes.set_xticks(range(len(one.values)), [str(value) for value in one.values])
        axes.set_xlim(-0.5, len(one.values) - 0.5)
        if sum(len(str(value)) + 2 for value in one.values) > 30:
            axes.tick_params("x", rotation=30)
            for label in axes.get_xticklabels():
                label.set_ha("right")
        return lambda trial: one.values.index(trial.parameters[one.name])
    low, high = one.values
    if one.function == "log":
        axes.set_xscale("log")
        edge = (high / low) ** 0.05
        axes.set_xlim(low / edge, high * edge)
    else:
        edge = 0.05 * (high - low)
        axes.set_xlim(low - edge, high + edge)
    return lambda trial: trial.parameters[one.name]


def _short(value):
    return f"{value:.4g}" if isinstance(value, float) else str(value)
