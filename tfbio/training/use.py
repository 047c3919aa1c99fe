"""Use: what a run's folder is good for once it is trained: measure, predict, export."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from tfbio.training import folder, outputs, preparation, tasks
from tfbio.training.checkpoints import Checkpoints
from tfbio.training.experiment import CHECKPOINTS
from tfbio.training.loop import Loop
from tfbio.training.schedules import Schedule
from tfbio.training.state import restore, state_variables
from tfbio.training.strategies import Devices

if TYPE_CHECKING:
    import keras

    from tfbio.training.experiment import Experiment
    from tfbio.training.preparation import Prepared


def evaluate(
    experiment: Experiment,
    checkpoint: str = "last",
    tell: Callable[[str], Any] = print,
    measuring: Callable[[int, int], Any] = lambda done, total: None,
) -> dict[str, float]:
    """Measure a run's weights on its validation and test splits, as its training does.

    Args:
        experiment: The `Experiment`; its workdir holds the run, whose `strategy` and what it
            says `elsewise` may be others.
        checkpoint: "last", or "best" by validation.
        tell: Called with lines of text.
        measuring: Called with the batches measured of a split, and those in all.

    Returns:
        A dict of "step" and what the experiment `measures`, such as "test_accuracy", and where
        there is a validation split "validation_accuracy".

    Raises:
        ValueError: If the folder holds no such run or checkpoint, or options do not fit.
        OSError: If data cannot be read.
    """
    step, prepared = measurable(experiment, checkpoint, tell)
    loop = Loop(prepared)
    found: dict[str, Any] = {"step": step}
    for name, split in (("validation", prepared.validation), ("test", prepared.dataset.test)):
        if split is not None:
            measured = loop.evaluate(split, measuring)
            found |= {f"{name}_{key}": value for key, value in measured.items()}
    return found


def measurable(
    experiment: Experiment, checkpoint: str = "last", tell: Callable[[str], Any] = print
) -> tuple[int, Prepared]:
    """Return a run's network with its trained weights, and its data.

    Args:
        experiment: As for `evaluate`.
        checkpoint: "last", or "best" by validation.
        tell: Called with lines of text.

    Returns:
        (the checkpoint's step, a `tfbio.training.Prepared`).

    Raises:
        ValueError: If the folder holds no such run or checkpoint, or options do not fit.
        OSError: If data cannot be read.

    Example:
        >>> from tfbio.training import Classification
        >>> measurable(Classification(workdir="no/such/folder"))
        Traceback (most recent call last):
        ...
        ValueError: `workdir=no/such/folder` has no last checkpoint. Give the folder of a run...
    """
    step, arrays = _load(experiment, checkpoint, tell)
    prepared = preparation.prepare(_here(experiment))
    folder.claim(experiment.workdir, experiment, prepared.facts._asdict())
    restore(state_variables(prepared.model), prepared.devices, arrays)
    return step, prepared


def predict(
    experiment: Experiment,
    images: str | os.PathLike[str],
    output: str | os.PathLike[str],
    checkpoint: str = "last",
    tell: Callable[[str], Any] = print,
) -> int:
    """Predict on every image of a folder, and write what was found.

    Args:
        experiment: The `Experiment`; its workdir holds the run. Its dataset is not read.
        images: A folder of images, searched with the folders below it.
        output: What to write: of a classifier, a CSV file with image, class and probability; of a
            detector, a folder, see `tfbio.detection.predictions`.
        checkpoint: "last", or "best" by validation.
        tell: Called with lines of text.

    Returns:
        The number of images.

    Raises:
        ValueError: If the folder holds no such run or checkpoint, or no images, or a damaged one;
            or the output would overwrite one of them.
        OSError: If files cannot be read or written.
    """
    task = tasks.get(experiment.task)
    return task.predict(experiment, os.fspath(images), pathlib.Path(output), checkpoint, tell)


def export(
    experiment: Experiment,
    output: str | os.PathLike[str],
    checkpoint: str = "last",
    tell: Callable[[str], Any] = print,
) -> None:
    """Write a run's model for use elsewhere.

    Args:
        experiment: The `Experiment`; its workdir holds the run. Its dataset is not read.
        output: The folder to write: `model.keras`, which Keras loads after `import tfbio`, rule
            and feedback included; `saved_model`, from images of 0 to 1 to logits, or to what a
            detector's `decode_predictions` returns; and `data.json`, with the classes' names and
            what was done to the images.
        checkpoint: "last", or "best" by validation.
        tell: Called with lines of text.

    Raises:
        ValueError: If the folder holds no such run or checkpoint, or the model cannot be saved.
        OSError: If files cannot be read or written.
    """
    path = pathlib.Path(output)
    with outputs.making_folder(path, path):
        model, facts = restored(experiment, checkpoint, tell)
        tasks.get(experiment.task).export(model, facts, str(path / "saved_model"))
        folder.save_json(path / "data.json", facts._asdict())
        model.save(path / "model.keras")


def latest(
    workdir: str | os.PathLike[str], checkpoint: str, tell: Callable[[str], Any] = print
) -> Any:
    """Return a run's newest checkpoint that is whole.

    Args:
        workdir: The run's folder.
        checkpoint: "last", or "best" by validation.
        tell: Called with lines of text.

    Returns:
        (step, arrays, progress), as of `Checkpoints.latest`; None if there is none.

    Raises:
        ValueError: If `checkpoint` is neither.

    Example:
        >>> latest("no/such/folder", "last") is None
        True
    """
    if checkpoint not in CHECKPOINTS:
        known = ", ".join(CHECKPOINTS)
        raise ValueError(f"`checkpoint` must be one of {known}. Received: {checkpoint!r}.")
    inside = pathlib.Path(workdir, {"last": "checkpoints", "best": "best"}[checkpoint])
    return Checkpoints(inside, keep=1).latest(tell) if inside.is_dir() else None


def _load(experiment, checkpoint, tell):
    """Return (step, arrays) of a run's checkpoint."""
    path = pathlib.Path(experiment.workdir)
    found = latest(path, checkpoint, tell)
    if found is None:
        raise ValueError(
            f"`workdir={path}` has no {checkpoint} checkpoint. Give the folder of a run that was "
            "trained" + (" with validation." if checkpoint == "best" else ".")
        )
    # Where and how a run is measured makes it no other run.
    run = folder.read_flags(path) or experiment
    names = [name for name in (*experiment.elsewise, "strategy", "tpu") if hasattr(run, name)]
    folder.check(
        path, dataclasses.replace(experiment, **{name: getattr(run, name) for name in names})
    )
    return found[:2]


def _here(experiment):
    """Return the experiment as this process can evaluate it, all weights from the checkpoint."""
    # Evaluation takes the moving statistics, on any devices.
    started = {"sync_batch_norm": False}
    if hasattr(experiment, "weights"):
        started |= {"weights": ""}
    if experiment.strategy == "multi_worker":
        started |= {"strategy": "one_device"}
    return dataclasses.replace(experiment, **started)


def restored(
    experiment: Experiment, checkpoint: str, tell: Callable[[str], Any] = print
) -> tuple[keras.Model, Any]:
    """Return a run's network, on one device, without its data.

    Args:
        experiment: The run's `Experiment`.
        checkpoint: "last", or "best" by validation.
        tell: Called with lines of text.

    Returns:
        (the compiled model with its trained weights, the experiment's `facts` on its data).

    Raises:
        ValueError: If the folder holds no such run or checkpoint.
    """
    _, arrays = _load(experiment, checkpoint, tell)
    path = pathlib.Path(experiment.workdir, "data.json")
    kind = tasks.get(experiment.task).facts
    facts = kind(**folder.read_json(path, kind._fields, needed=True))
    devices = Devices(tf.distribute.get_strategy())
    # A number would be a variable of the optimizer, which the checkpoint does not have.
    schedule = Schedule(experiment.learning_rate, "constant", total_steps=1)
    model = preparation.build(_here(experiment), facts, devices.strategy, schedule)
    restore(state_variables(model), devices, arrays)
    return model, facts
