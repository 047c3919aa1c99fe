"""The sweep: runs that differ in one number of their rule's, drawn against that number."""

import numbers
import pathlib
import statistics
from typing import NamedTuple

from tfbio.studies import plots
from tfbio.studies.runs import Run
from tfbio.training.experiment import differences


class Sweep(NamedTuple):
    """Finished runs under one rule, by the value of one of its options.

    Attributes:
        rule: The rule's name.
        option: The option's.
        runs: A dict from value to a list of `tfbio.studies.runs.Run`, in ascending order.
    """

    rule: str
    option: str
    runs: dict[float, list[Run]]


def find(runs: list[Run]) -> Sweep | None:
    """Return the sweep that runs form, or None if they form none.

    They form one if they differ in nothing but their seeds and one option of their rule, whose
    values are two or more numbers.

    Args:
        runs: A list of `tfbio.studies.runs.Run`; those that are not finished are left out.

    Example:
        >>> from tfbio.training import Classification
        >>> rules_ = [f"sign_symmetry(agreement={share})" for share in (1.0, 0.5)]
        >>> sweep = find([Run(Classification(rule=rule), {"steps": 1}, [], []) for rule in rules_])
        >>> sweep.option, list(sweep.runs)
        ('agreement', [0.5, 1.0])
    """
    finished = [run for run in runs if run.summary and not run.diverged]
    if not finished:
        return None
    first = finished[0].experiment
    run_rules = [run.experiment.parsed_rule for run in finished]
    if len({rule.alias for rule in run_rules}) > 1:
        return None
    options = [rule.get_config() for rule in run_rules]
    varied = {name for each in options for name in each if each[name] != options[0][name]}
    others = set().union(*(differences(run.experiment, first) for run in finished))
    if len(varied) != 1 or others - {"rule", "seed"}:
        return None
    (option,) = varied
    values = [each[option] for each in options]
    if not all(isinstance(v, numbers.Real) and not isinstance(v, bool) for v in values):
        return None
    by_value = {value: [] for value in sorted(set(values))}
    for value, run in zip(values, finished, strict=True):
        by_value[value].append(run)
    return Sweep(run_rules[0].alias, option, by_value)


def draw(sweep: Sweep, path: str | pathlib.Path) -> None:
    """Draw the score of a sweep's runs on test, each run and the mean, to a PNG.

    Args:
        sweep: A `Sweep`.
        path: The file to write.
    """
    experiment = next(iter(sweep.runs.values()))[0].experiment
    column, label = f"test_{experiment.score}", f"test {experiment.label}, %"
    scores = {
        v: [100 * (run.summary or {})[column] for run in runs] for v, runs in sweep.runs.items()
    }
    fig, axes = plots.subplots(figsize=(5.2, 3.8))
    axes.plot(list(scores), list(map(statistics.fmean, scores.values())), color=plots.BLUE)
    for value, each in scores.items():
        axes.plot([value] * len(each), each, "o", color=plots.BLUE, alpha=0.6, ms=5)
    most = max(map(len, scores.values()))
    title = f"{sweep.rule}, {most} runs a value and their mean" if most > 1 else sweep.rule
    axes.set(xlabel=sweep.option, ylabel=label, title=title)
    plots.tidy(axes)
    plots.save(fig, path)
