"""Training: an experiment from its first step, or its newest checkpoint, to its summary."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import pathlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tfbio.training import folder, strategies, use
from tfbio.training.options import named
from tfbio.training.preparation import prepare
from tfbio.training.run import Reporter, Training, show_nothing
from tfbio.training.signals import Signals

if TYPE_CHECKING:
    from tfbio.training.experiment import Experiment

SUMMARY = ("weight_angles", "seconds_per_step", "steps")
"""Keys that every summary contains besides the measures."""


def train_and_evaluate(
    experiment: Experiment,
    tell: Callable[[str], Any] = print,
    progress: Callable[[int, int], Any] = show_nothing,
    tell_epochs: bool = True,
    measuring: Callable[[int, int], Any] = show_nothing,
    test: bool = True,
) -> dict[str, Any]:
    """Train to the end, from the newest checkpoint where there is one, and test once.

    The run's folder, `experiment.workdir`, then holds flags.cfg, run.json (versions, git commit
    and machine of every start), metrics.csv, TensorBoard events, checkpoints, summary.json and
    angles.png, all layers' angles over the steps; a detector's also boxes.png, the first test
    images with predicted and true boxes.
    Whenever the process ends, the same call goes on, to the same bits.

    Args:
        experiment: An `Experiment`.
        tell: Called with lines of text on how it goes.
        progress: Called with the steps done and the steps in all.
        tell_epochs: Whether to report every epoch.
        measuring: Called while a split is measured, with the batches done and those in all.
        test: Whether to test. Without, no image of the test split is measured and there is no
            summary.json; the same call with it takes the run up where this one left it.

    Returns:
        The summary, a dict: what the experiment `measures`, on test (`test_accuracy`,
        `test_loss`) and validation (`validation_accuracy`, ...), and on the training split as it
        was learned (`accuracy`, `loss`), `weight_angles`, `norm_ratios`, `sign_agreement`,
        `gradient_angles` (global) and `local_gradient_angles` by layer, the last two None where
        they are not measured, their means (`mean_weight_angle`, ...) and the `averaged_layers`,
        over which these are, `steps`, all as they are after the last step; `best`, the
        measures at the step of the best validation `score`, or None without validation;
        `seconds_per_step`, the median; `seconds` of training steps in all; `resumed_at_steps`.
        `diverged` says why a run whose loss stayed finite has diverged all the same
        (`tfbio.training.divergence`), or is None.
        Without `test`, of a run that was not tested before, only the measures on validation,
        `best`, `steps` and `diverged`.

    Raises:
        ValueError: If options do not fit together, data are damaged, or the folder is another
            run's or in use.
        OSError: If data cannot be read or the folder not be written.
        Interrupted: After SIGTERM or SIGINT, once the state is saved.
        Diverged: If the loss or a weight is no finite number; the last checkpoint is good, and
            diverged.json says when and why.
        WorkerLost: If another worker of `strategy='multi_worker'` has ended or does not answer.

    Example:
        >>> import tempfile
        >>> from tfbio.training import Classification
        >>> experiment = Classification(epochs=2, workdir=tempfile.mkdtemp())
        >>> summary = train_and_evaluate(experiment, tell=lambda text: None)
        >>> summary["steps"], summary["resumed_at_steps"]
        (42, [])
    """
    # Before anything that TensorFlow computes.
    devices = strategies.get_devices(experiment)
    with strategies.explaining_lost_worker(devices):
        if devices.chief:
            with folder.locked(experiment.workdir) as path:
                folder.check(path, experiment)
                with _explaining_full_disk(path):
                    reporter = Reporter(tell, progress, tell_epochs, measuring)
                    return _run(experiment, devices, path, reporter, test)
        # Only the chief reports.
        reporter = Reporter(lambda text: None, epochs=False)
        return _run(experiment, devices, pathlib.Path(experiment.workdir), reporter, test)


@contextlib.contextmanager
def _explaining_full_disk(path):
    """Name the option in the error of a full disk, which may come from any writing."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise OSError(
            f"`workdir={path}`: {error.strerror}, {error.filename or 'in its records'}. The "
            "checkpoints are whole: the same command goes on from the newest once there is room."
        ) from error


def _run(experiment, devices, path, reporter, test) -> Any:
    """Train on this process. All workers run the same steps; only the chief writes."""
    devices.check_same(folder.comparable(experiment))
    summary = path / "summary.json"
    finished = folder.read_json(summary, SUMMARY) if devices.chief else None
    if not devices.agree(finished is not None):
        source = _load_source(experiment, devices, reporter.tell)
        new = devices.chief and folder.read_flags(path) is None
        # It sets the seeds: from here on, all starts do the same.
        prepared = prepare(experiment, source)
        facts = prepared.facts._asdict()
        devices.check_same(facts)
        if new:
            prepared.check_images()
        if devices.chief:
            folder.claim(path, experiment, facts)
        with Signals(devices.agree) as signals:  # until here there is nothing to save
            training = Training(prepared, path, reporter, signals)
            training.run()
            if test:
                training.summarize()
        try:
            # The chief has written the summary, or the last line of metrics.csv.
            devices.agree(0)
        except strategies.LOST:
            # A worker may end as soon as it has heard of the others: with a summary, that is all.
            if folder.read_json(summary, SUMMARY) is None:
                raise
        if not test:
            return training.validated_only()
    return folder.read_json(summary, SUMMARY)


def _load_source(experiment, devices, tell):
    """Return the model to start from; None for none, and where a checkpoint has all weights."""
    if not experiment.init_from:
        return None
    found = use.latest(experiment.workdir, "last", tell) if devices.chief else None
    if devices.agree(found is not None):
        return None
    with named("init_from", workdir="init_from"):
        run = folder.read_flags(experiment.init_from)
        if run is None:
            raise ValueError(f"{experiment.init_from!r} is no run's folder: it has no flags.cfg.")
        run = dataclasses.replace(run, workdir=experiment.init_from)
        model, _ = use.restored(run, experiment.init_checkpoint, tell)
    tell(f"Starting from the weights of {experiment.init_from}, {experiment.init_checkpoint}.")
    return model
