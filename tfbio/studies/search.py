"""The search: the best of so many random configurations, by validation alone.

A trial is an ordinary run with options drawn from ranges (`tfbio.studies.ranges`), in a folder of
its own. What is drawn is a pure function of the search's seed and the trial's number, so that a
search that was interrupted ends as one that was not.
"""

import dataclasses
import math
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

from tfbio.studies import study
from tfbio.studies.parameters import format_values, with_values
from tfbio.studies.ranges import Range
from tfbio.training import folder, memory
from tfbio.training.experiment import CHECKPOINTS, Experiment
from tfbio.training.options import check, option
from tfbio.training.run import Diverged
from tfbio.training.train import train_and_evaluate


@dataclasses.dataclass(frozen=True)
class Settings:
    """How to search: options, which the command line's flags are made from.

    Raises:
        ValueError: If an option is unknown, of the wrong type or out of its range; the message
            names it.

    Example:
        >>> Settings(trials=60).search_by
        'last'
    """

    # Bartunov et al. 2018 took 60.
    trials: int = option(60, "How many configurations to try.", low=1, high=10**5)
    # By the step that the reports are of, and that a run of best.cfg ends with. The best of many
    # epochs is, of noisy curves, the luckiest.
    search_by: str = option(
        "last",
        "The score on validation that decides: after the last epoch, or of the best epoch.",
        choices=CHECKPOINTS,
    )
    search_seed: int = option(
        0,
        "Seed for sampling the trials' configurations; `seed` is the same for all trials.",
        low=0,
        high=2**31 - 1,
    )

    def __post_init__(self):
        """Check every option."""
        for field in dataclasses.fields(self):
            check(field, getattr(self, field.name))


class Trial(NamedTuple):
    """One configuration, and what came of it.

    Attributes:
        number: Its number, from 0.
        experiment: The `Experiment`.
        parameters: What was drawn, a dict from a range's name to its value.
        score: The score on validation that decides; None of one that is not finished, or failed.
        step: The step that the score is of.
        failed: Why there is no score; empty where there is one, or none yet.
    """

    number: int
    experiment: Experiment
    parameters: dict
    score: float | None = None
    step: int | None = None
    failed: str = ""

    @property
    def name(self) -> str:
        """The name of its folder."""
        return f"trial{self.number:03d}"


class Outcome(NamedTuple):
    """A search, so far or at its end.

    Attributes:
        experiment: The `Experiment` whose options are varied.
        space: The ranges.
        settings: The `Settings`.
        trials: The trials that are finished or have failed, by number.
        tested: Of the best trial, once all are done, its measures on test; None before.
    """

    experiment: Experiment
    space: list[Range]
    settings: Settings
    trials: list[Trial]
    tested: dict[str, Any] | None = None

    @property
    def best(self) -> Trial | None:
        """The trial of the best score, of equal ones the first; None where all have failed."""
        scored = [trial for trial in self.trials if trial.score is not None]
        return max(scored, key=lambda trial: (trial.score, -trial.number), default=None)


def draw_trials(experiment: Experiment, space: list[Range], settings: Settings) -> list[Trial]:
    """Return the trials of a search, none of them begun.

    Args:
        experiment: The `Experiment` whose options are varied.
        space: The ranges.
        settings: The `Settings`.

    Returns:
        A list of `Trial`. What is drawn for one depends on the ranges, the search's seed and its
        number, and not on how many there are.

    Raises:
        ValueError: If what is drawn for one does not go together.

    Example:
        >>> from tfbio.studies import ranges
        >>> from tfbio.training import Classification
        >>> experiment = Classification()
        >>> space = [ranges.parse("batch_size = choice(32, 64, 128)", experiment)]
        >>> two = draw_trials(experiment, space, Settings(trials=2))
        >>> two == draw_trials(experiment, space, Settings(trials=3))[:2]
        True
    """
    trials = []
    for number in range(settings.trials):
        parameters = study.draw_parameters(space, settings.search_seed, number)
        trial = Trial(number, experiment, parameters)
        try:
            varied = with_values(experiment, parameters)
        except ValueError as error:
            raise ValueError(
                f"{trial.name} would have {format_values(parameters)}: {error}"
            ) from error
        workdir = str(pathlib.Path(experiment.workdir, trial.name))
        trials.append(trial._replace(experiment=dataclasses.replace(varied, workdir=workdir)))
    return trials


def run(
    experiment: Experiment,
    space: list[Range],
    settings: Settings,
    reporting: Callable[[str], dict[str, Any]],
    after_trial: Callable[[Outcome], Any] = lambda outcome: None,
) -> Outcome:
    """Search from where a search in the folder was interrupted; then test the best trial.

    The folder, `experiment.workdir`, then holds one of each trial, and study.journal.

    Args:
        experiment: The `Experiment` whose options are varied.
        space: The ranges.
        settings: The `Settings`.
        reporting: A function from a trial's name to the arguments of `train_and_evaluate` that
            report on its run, such as `tell` and `progress`.
        after_trial: Called with the `Outcome` so far after each trial that this call ran.

    Returns:
        The `Outcome`.

    Raises:
        ValueError: If options do not go together, or the folder is another search's, a run's, or
            in use.
        OSError: If data cannot be read or the folder not be written.
        Interrupted: After SIGTERM or SIGINT; the same call goes on.

    Example:
        >>> import tempfile
        >>> from tfbio.studies import ranges
        >>> from tfbio.training import Classification
        >>> experiment = Classification(epochs=1, workdir=tempfile.mkdtemp())
        >>> space = [ranges.parse("learning_rate = log(1e-4, 1e-1)", experiment)]
        >>> silent = {"tell": lambda text: None}
        >>> outcome = run(experiment, space, Settings(trials=1), lambda name: silent)
        >>> outcome.best.name, "test_accuracy" in outcome.tested
        ('trial000', True)
    """
    if not experiment.validation_fraction:
        raise ValueError(
            "`validation_fraction` must be more than 0: a search chooses by validation. "
            "Received: 0."
        )
    if experiment.strategy == "multi_worker":
        raise ValueError(
            "`strategy='multi_worker'` goes with one run at a time. Give `strategy='one_device'` "
            "or `strategy='mirrored'`."
        )
    trials = draw_trials(experiment, space, settings)
    with folder.locked(experiment.workdir) as path:
        if folder.read_flags(path) is not None:
            raise ValueError(f"`workdir={path}` holds a run. Give another folder to a search.")
        record = study.Record(path, experiment, space, settings)
        outcome = Outcome(experiment, space, settings, record.read(trials))
        for trial in trials[len(outcome.trials) :]:
            finished = _train(trial, settings, reporting(trial.name))
            record.add(finished)
            outcome.trials.append(finished)
            after_trial(outcome)
        if outcome.best is None:
            return outcome
        chosen = outcome.best.experiment
        summary = train_and_evaluate(chosen, **reporting(f"{outcome.best.name}, the best"))
        of_step = summary["best"] if settings.search_by == "best" else summary
        tested = {f"test_{name}": of_step.get(f"test_{name}") for name in chosen.measures}
        return outcome._replace(tested=tested)


def _train(trial, settings, arguments):
    """Train a trial, and return it with its score on validation."""
    experiment = trial.experiment
    column = f"validation_{experiment.score}"
    progress = arguments.get("progress", lambda done, total: None)
    tell: Callable[[str], Any] = arguments.get("tell", print)
    try:
        with memory.freed():
            values = train_and_evaluate(experiment, **arguments, test=False)
    except Diverged as error:
        progress(1, 1)
        tell(str(error))
        # Without the advice, whose paths are where the folder is now.
        return trial._replace(failed=str(error).partition(";")[0])
    of_step = {"step": values["steps"], **values}
    if settings.search_by == "best":
        of_step = values["best"]
    score = of_step[column]
    if values.get("diverged"):
        return trial._replace(failed=values["diverged"])
    if score is None or not math.isfinite(score):
        return trial._replace(failed=f"The {column} is no finite number at the end.")
    return trial._replace(score=score, step=of_step["step"])
