"""The report on a search: trials as a table, a figure and a record, and the best as a config."""

import dataclasses
import json
import pathlib
from typing import Any

from rich.table import Table

from tfbio.studies import plots
from tfbio.studies.search import Outcome
from tfbio.training import folder, tasks
from tfbio.training.checkpoints import write

_ACROSS = 4  # panels
_STEP = {"last": "last\nstep", "best": "best\nstep"}


def table(outcome: Outcome, most: int | None = None) -> Table:
    """Return the trials of a search as a rich table, the best one marked.

    Nothing in it is of the test split.

    Args:
        outcome: A `tfbio.studies.search.Outcome`.
        most: With a number, only so many of the best, and the newest trial.

    Returns:
        A `rich.table.Table`, a row for every trial, by number.

    Example:
        >>> from tfbio.studies import ranges, search
        >>> from tfbio.training import Classification
        >>> base, settings = Classification(), search.Settings(trials=1)
        >>> space = [ranges.parse("batch_size = choice(32, 64)", base)]
        >>> (trial,) = search.draw_trials(base, space, settings)
        >>> outcome = search.Outcome(base, space, settings, [trial._replace(score=0.912, step=42)])
        >>> first, *_, score, step = (list(column.cells)[0] for column in table(outcome).columns)
        >>> first, score, step
        ('trial000 *', '91.20', '42')
    """
    best = outcome.best
    shown = outcome.trials
    out = Table()
    if most is not None and len(shown) > most + 1:
        ranked = sorted(
            (trial for trial in shown if trial.score is not None),
            key=lambda trial: (-(trial.score or 0.0), trial.number),
        )
        shown = sorted({trial.number: trial for trial in [*ranked[:most], shown[-1]]}.items())
        shown = [trial for _, trial in shown]
        out.title = f"The best {most} of {len(outcome.trials)} trials so far, and the newest"
    else:
        out.title = f"{len(outcome.trials)} of {outcome.settings.trials} trials"
    out.add_column("trial", no_wrap=True)
    for one in outcome.space:
        out.add_column(one.name, justify="right", overflow="fold")
    label = outcome.experiment.label
    out.add_column(f"validation\n{label}, %", justify="right", no_wrap=True)
    out.add_column(_STEP[outcome.settings.search_by], justify="right", no_wrap=True)
    for trial in shown:
        mark = " *" if best is not None and trial.number == best.number else ""
        values = (_short(trial.parameters[one.name]) for one in outcome.space)
        score = "failed" if trial.score is None else f"{100 * trial.score:.2f}"
        step = "–" if trial.step is None else f"{trial.step:,}"
        out.add_row(f"{trial.name}{mark}", *values, score, step, style="bold" if mark else None)
    if best is not None:
        out.caption = "* the best"
    return out


def save(outcome: Outcome, path: str | pathlib.Path) -> None:
    """Write the outcome to a folder: search.json, search.png and, of the best trial, best.cfg.

    Neither holds a time, so that an interrupted search ends with the same files.

    Args:
        outcome: A `tfbio.studies.search.Outcome`.
        path: The folder.

    Raises:
        OSError: If it cannot be written.

    Example:
        >>> import tempfile
        >>> from tfbio.studies import ranges, search
        >>> from tfbio.training import Classification
        >>> base, settings = Classification(), search.Settings(trials=1)
        >>> space = [ranges.parse("batch_size = choice(32, 64)", base)]
        >>> (trial,) = search.draw_trials(base, space, settings)
        >>> outcome = search.Outcome(base, space, settings, [trial._replace(score=0.9, step=42)])
        >>> path = tempfile.mkdtemp()
        >>> save(outcome, path)
        >>> sorted(each.name for each in pathlib.Path(path).iterdir())
        ['best.cfg', 'search.json', 'search.png']
    """
    path = pathlib.Path(path)
    folder.save_json(path / "search.json", document(outcome))
    figure(outcome, path / "search.png")
    if outcome.best is not None:
        write(path / "best.cfg", config(outcome, path).encode())


def document(outcome: Outcome) -> dict[str, Any]:
    """Return the outcome as a dict for JSON.

    Args:
        outcome: A `tfbio.studies.search.Outcome`.

    Example:
        >>> from tfbio.studies import search
        >>> from tfbio.training import Classification
        >>> sorted(document(search.Outcome(Classification(), [], search.Settings(), [])))
        ['best', 'options', 'ranges', 'search_by', 'search_seed', 'task', 'test', 'trials']
    """
    best = outcome.best
    return {
        "task": outcome.experiment.task,
        "ranges": list(map(str, outcome.space)),
        "search_by": outcome.settings.search_by,
        "search_seed": outcome.settings.search_seed,
        "options": folder.comparable(outcome.experiment),
        "trials": [
            {
                "trial": trial.name,
                "parameters": trial.parameters,
                f"validation_{outcome.experiment.score}": trial.score,
                "step": trial.step,
                "failed": trial.failed or None,
            }
            for trial in outcome.trials
        ],
        "best": best and best.name,
        "test": outcome.tested,
    }


def config(outcome: Outcome, path: str | pathlib.Path) -> str:
    """Return the best trial as the text of a config, whose run has a folder of its own.

    Args:
        outcome: A `tfbio.studies.search.Outcome` with a best trial.
        path: The search's folder.

    Example:
        >>> from tfbio.studies import search
        >>> from tfbio.training import Classification
        >>> trial = search.Trial(2, Classification(), {"epochs": 30}, score=0.9, step=42)
        >>> outcome = search.Outcome(Classification(), [], search.Settings(), [trial])
        >>> print(config(outcome, "runs/search").splitlines()[1])
        # trial002, the best of 1 by validation accuracy: 90.00 %, after the last step, 42.
    """
    best: Any = outcome.best
    path = pathlib.Path(path)
    kind, *flags = folder.flagfile(
        dataclasses.replace(best.experiment, workdir=str(path / "best"))
    ).splitlines()
    when = "after the last step" if outcome.settings.search_by == "last" else "of the best step"
    name = tasks.get(best.experiment.task).trainer
    lines = [
        kind,
        f"# {best.name}, the best of {len(outcome.trials)} by validation {best.experiment.label}: "
        f"{100 * best.score:.2f} %, {when}, {best.step}.",
        f"# Found: {json.dumps(best.parameters)}",
        f"# Command: python -m trainers.{name} --flagfile={path / 'best.cfg'}",
        *flags,
    ]
    return "\n".join(lines) + "\n"


def figure(outcome: Outcome, path: str | pathlib.Path) -> None:
    """Draw the score against every parameter, a panel each, to a PNG.

    Args:
        outcome: A `tfbio.studies.search.Outcome`.
        path: The file to write.

    Example:
        >>> import tempfile
        >>> from tfbio.studies import ranges, search
        >>> from tfbio.training import Classification
        >>> base, settings = Classification(), search.Settings(trials=2)
        >>> space = [ranges.parse("learning_rate = log(1e-3, 1e-1)", base)]
        >>> one, two = search.draw_trials(base, space, settings)
        >>> trials = [one._replace(score=0.9, step=42), two._replace(failed="The loss is none.")]
        >>> figure(search.Outcome(base, space, settings, trials), tempfile.mkdtemp() + "/a.png")
    """
    across = min(len(outcome.space), _ACROSS)
    down = -(-len(outcome.space) // across)
    fig, panels = plots.subplots(
        down,
        across,
        figsize=(max(1.2 + 3.1 * across, 5), 0.9 + 3.1 * down),
        squeeze=False,
        sharey=True,
    )
    for axes in panels.flat[len(outcome.space) :]:
        axes.remove()
    for axes, one in zip(panels.flat, outcome.space, strict=False):
        _panel(axes, outcome, one)
    for row in panels:
        row[0].set_ylabel(f"validation {outcome.experiment.label}, %")
    handles, labels = panels[0][0].get_legend_handles_labels()
    if handles:
        fig.legend(handles, labels, loc="outside lower left", ncols=3, frameon=False)
    fig.suptitle(
        f"{len(outcome.trials)} of {outcome.settings.trials} trials, score "
        + ("after the last step" if outcome.settings.search_by == "last" else "of the best step")
    )
    plots.save(fig, path)


def _panel(axes, outcome, one):
    """Draw the score against one parameter."""
    from matplotlib.transforms import blended_transform_factory

    best = outcome.best
    place = _places(axes, one)
    scored = [trial for trial in outcome.trials if trial.score is not None]
    failed = [trial for trial in outcome.trials if trial.score is None]
    axes.plot(
        [place(trial) for trial in scored],
        [100 * trial.score for trial in scored],
        "o",
        color=plots.BLUE,
        alpha=0.6,
        ms=5,
        label="a trial",
    )
    if best is not None:
        axes.plot(
            place(best),
            100 * best.score,
            "*",
            color=plots.RED,
            ms=15,
            mec="white",
            label="the best",
        )
    if failed:  # they have no score: at the lower edge
        axes.plot(
            [place(trial) for trial in failed],
            [0.03] * len(failed),
            "x",
            color=plots.GRAY,
            ms=6,
            transform=blended_transform_factory(axes.transData, axes.transAxes),
            label="failed",
        )
    axes.set_xlabel(one.name)
    axes.margins(y=0.1)
    plots.tidy(axes)


def _places(axes, one):
    """Prepare an axis for a range, and return the function from a trial to its place there."""
    if one.kind == "choice":
        axes.set_xticks(range(len(one.values)), [str(value) for value in one.values])
        axes.set_xlim(-0.5, len(one.values) - 0.5)
        if sum(len(str(value)) + 2 for value in one.values) > 30:
            axes.tick_params("x", rotation=30)
            for label in axes.get_xticklabels():
                label.set_ha("right")
        return lambda trial: one.values.index(trial.parameters[one.name])
    low, high = one.values
    if one.kind == "log":
        axes.set_xscale("log")
        edge = (high / low) ** 0.05
        axes.set_xlim(low / edge, high * edge)
    else:
        edge = 0.05 * (high - low)
        axes.set_xlim(low - edge, high + edge)
    return lambda trial: trial.parameters[one.name]


def _short(value):
    return f"{value:.4g}" if isinstance(value, float) else str(value)
