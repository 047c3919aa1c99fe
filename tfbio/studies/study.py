"""The study: Optuna draws a search's parameters, and keeps its finished trials in a journal.

The journal, ``study.journal`` in the search's folder, is one that Optuna's own tools can read.
"""

import dataclasses
import pathlib
from typing import Any

import numpy as np

from tfbio._extras import require
from tfbio.studies.parameters import format_values
from tfbio.studies.ranges import Range
from tfbio.training import folder
from tfbio.training.experiment import differences
from tfbio.training.records import REMEDY


def draw_parameters(space: list[Range], seed: int, number: int) -> dict[str, Any]:
    """Return the parameters of a trial: a pure function of these arguments.

    Args:
        space: The ranges.
        seed: The search's seed.
        number: The trial's number.

    Returns:
        A dict from a range's name to a value.

    Example:
        >>> space = [Range("momentum", "uniform", (0.5, 0.99))]
        >>> 0.5 <= draw_parameters(space, 0, 3)["momentum"] <= 0.99
        True
        >>> draw_parameters(space, 0, 3) == draw_parameters(space, 0, 3)
        True
        >>> draw_parameters(space, 0, 3) == draw_parameters(space, 1, 3)
        False
    """
    optuna = _optuna()
    # The sampler alone would go on from trial to trial, and begin anew when a search is resumed.
    derived = np.random.SeedSequence([seed, number]).generate_state(1)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=int(derived[0])))
    return study.ask(_distributions(space)).params


class Record:
    """The record of a search's finished trials, on disk.

    Args:
        path: The search's folder, held by `tfbio.training.folder.locked`.
        experiment: The `Experiment` whose options are varied.
        space: The ranges.
        settings: The `Settings`.

    Raises:
        ValueError: If the folder is another search's, or the record is damaged.
    """

    def __init__(self, path, experiment, space, settings):
        self.path = pathlib.Path(path, "study.journal")
        optuna = _optuna()
        self.distributions = _distributions(space)
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        self._mend()
        try:
            storage = JournalStorage(JournalFileBackend(str(self.path)))
            self.study = optuna.create_study(
                storage=storage, study_name="search", direction="maximize", load_if_exists=True
            )
            before = self.study.user_attrs.get("search")
        except (ValueError, KeyError, TypeError, AssertionError) as error:  # Optuna asserts
            raise ValueError(f"{self.path} is damaged: {error}. {REMEDY}") from error
        identity = {
            "task": experiment.task,
            "options": folder.comparable(experiment),
            "ranges": list(map(str, space)),
            "search_by": settings.search_by,
            "search_seed": settings.search_seed,
        }
        if before is None and self.study.trials:
            raise ValueError(f"{self.path} is damaged: it does not say what was searched. {REMEDY}")
        if before is None:
            self.study.set_user_attr("search", identity)
        else:
            _check_same(path, experiment, before, identity)

    def _mend(self):
        """Remove what a process that was killed may have left, as no other has the folder."""
        # Optuna's own lock is a file that stays, and would be waited for.
        self.path.with_name(f"{self.path.name}.lock").unlink(missing_ok=True)
        if self.path.exists():
            # What was cut within a line would make the next one unreadable.
            content = self.path.read_bytes()
            whole = content.rfind(b"\n") + 1
            if whole < len(content):
                with self.path.open("r+b") as file:
                    file.truncate(whole)

    def read(self, trials):
        """Return the trials that the record has, with their results.

        Args:
            trials: All of the search's.

        Raises:
            ValueError: If there are fewer than it has, or one was drawn otherwise.
        """
        recorded = self.study.get_trials(deepcopy=False)
        if len(recorded) > len(trials):
            raise ValueError(
                f"`workdir={self.path.parent}` has {len(recorded)} trials already. Give "
                f"`trials={len(recorded)}` or more, or another folder. "
                f"Received: `trials={len(trials)}`."
            )
        finished = []
        for trial, one in zip(trials, recorded, strict=False):
            if one.params != trial.parameters:
                raise ValueError(
                    f"`workdir={self.path.parent}`: {trial.name} was drawn as "
                    f"{format_values(one.params)}, and would now be "
                    f"{format_values(trial.parameters)}: by another version of "
                    "Optuna or NumPy. Give another folder, or that version."
                )
            attributes = one.user_attrs
            finished.append(
                trial._replace(
                    score=one.value, step=attributes["step"], failed=attributes["failed"]
                )
            )
        return finished

    def add(self, trial):
        """Write a trial that is finished or has failed: one line, whole or not at all."""
        from optuna.trial import TrialState, create_trial

        self.study.add_trial(
            create_trial(
                state=TrialState.FAIL if trial.failed else TrialState.COMPLETE,
                value=trial.score,
                params=trial.parameters,
                distributions=self.distributions,
                user_attrs={"step": trial.step, "failed": trial.failed, "folder": trial.name},
            )
        )


def _check_same(path, experiment, before, now):
    """Refuse a folder of another search."""
    changed = [
        f"{name}: {before.get(name)}, now {now[name]}"
        for name in ("task", "ranges", "search_by", "search_seed")
        if before.get(name) != now[name]
    ]
    if before.get("task") == now["task"]:
        try:
            earlier = dataclasses.replace(experiment, **before["options"])
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"`workdir={path}` holds a search of another version: {error}."
            ) from error
        odd = differences(earlier, experiment)
        changed += [f"`{name}={a}`, now {b}" for name, (a, b) in odd.items()]
    if changed:
        raise ValueError(
            f"`workdir={path}` holds another search: {'; '.join(changed)}. Give another folder, or "
            "the same options."
        )


def _optuna():
    """Return Optuna, which says nothing below a warning."""
    require("optuna", extra="search")
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _distributions(space):
    from optuna.distributions import (
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    distributions = {}
    for searched in space:
        if searched.kind == "choice":
            distributions[searched.name] = CategoricalDistribution(searched.values)
        else:
            kind = IntDistribution if searched.integer else FloatDistribution
            log = searched.kind == "log"
            distributions[searched.name] = kind(*searched.values, log=log)
    return distributions
