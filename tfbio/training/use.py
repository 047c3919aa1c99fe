"""Use: what a run's folder is good for once it is trained: measure, predict, export."""

import contextlib
import csv
import dataclasses
import errno
import io
import os
import pathlib

import numpy as np
import tensorflow as tf

from tfbio import data
from tfbio.data.folder import list_images
from tfbio.training import folder, preparation
from tfbio.training.checkpoints import Checkpoints, restore, state_variables
from tfbio.training.loop import Loop
from tfbio.training.schedules import Schedule
from tfbio.training.strategies import Devices


def evaluate(experiment, checkpoint="last", tell=print, measuring=lambda done, total: None):
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
    found = {"step": step}
    for name, split in (("validation", prepared.validation), ("test", prepared.dataset.test)):
        if split is not None:
            measured = loop.evaluate(split, measuring)
            found |= {f"{name}_{key}": value for key, value in measured.items()}
    return found


def measurable(experiment, checkpoint="last", tell=print):
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
        ValueError: --workdir=no/such/folder has no last checkpoint. Give the folder of a run...
    """
    step, arrays = _load(experiment, checkpoint, tell)
    prepared = preparation.prepare(_here(experiment))
    folder.claim(experiment.workdir, experiment, prepared.facts._asdict())
    restore(state_variables(prepared.model), prepared.devices, arrays)
    return step, prepared


def predict(experiment, images, output, checkpoint="last", tell=print):
    """Classify every image of a folder, and write a table.

    Args:
        experiment: The `Experiment`; its workdir holds the run. Its dataset is not read.
        images: A folder of images, searched with the folders below it.
        output: The CSV file to write: image, class, probability.
        checkpoint: "last", or "best" by validation.
        tell: Called with lines of text.

    Returns:
        The number of images.

    Raises:
        ValueError: If the folder holds no such run or checkpoint, or no images, or a damaged one;
            or the table would overwrite one of them.
        OSError: If files cannot be read or written.
    """
    output = pathlib.Path(output)
    with output_told(output):  # before the work
        if output.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    spare(images, list_images(images), output, [output])
    with folder_made(output.parent, output):
        return _predict(experiment, images, output, checkpoint, tell)


def _predict(experiment, images, output, checkpoint, tell):
    model, facts = restored(experiment, checkpoint, tell)
    paths, batches = data.images(
        images, facts.image_shape[:2], facts.image_shape[2], cropped=facts.cropped
    )
    rows = []
    with data.clear_errors():
        for batch in batches:
            logits = tf.cast(model(batch, training=False), tf.float32)
            for probabilities in tf.nn.softmax(logits).numpy():
                chosen = int(np.argmax(probabilities))
                path = paths[len(rows)]
                rows.append((path, facts.class_names[chosen], float(probabilities[chosen])))
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(("image", "class", "probability"))
    table.writerows((path, name, f"{probability:.6f}") for path, name, probability in rows)
    with output_told(output):
        output.write_bytes(text.getvalue().encode(errors="surrogateescape"))
    return len(rows)


def export(experiment, output, checkpoint="last", tell=print):
    """Write a run's model for use elsewhere.

    Args:
        experiment: The `Experiment`; its workdir holds the run. Its dataset is not read.
        output: The folder to write: `model.keras`, which Keras loads after `import tfbio`, rule
            and feedback included; `saved_model`, from images of 0 to 1 to logits; and
            `data.json`, with the classes' names and what was done to the images.
        checkpoint: "last", or "best" by validation.
        tell: Called with lines of text.

    Raises:
        ValueError: If the folder holds no such run or checkpoint, or the model cannot be saved.
        OSError: If files cannot be read or written.
    """
    path = pathlib.Path(output)
    with folder_made(path, path):
        model, facts = restored(experiment, checkpoint, tell)
        model.export(str(path / "saved_model"), verbose=False)
        folder.save_json(path / "data.json", facts._asdict())
        model.save(path / "model.keras")


def spare(folder, images, output, written):
    """Refuse to overwrite images.

    Args:
        folder: The folder of images, as it was given.
        images: Their paths.
        output: The output, as it was given.
        written: The paths of all files to be written, which may lead to an image through links.

    Raises:
        ValueError: If one of them is an image.

    Example:
        >>> import tempfile
        >>> image = pathlib.Path(tempfile.mkdtemp(), "a.png")
        >>> image.touch()
        >>> spare("photos", [image], "a.csv", ["a.csv"])
        >>> spare("photos", [image], image, [image])
        Traceback (most recent call last):
        ValueError: --output=...a.png would overwrite ...a.png of --images=photos. Give --output...
    """
    there = [path for path in written if os.path.exists(path)]
    held = {_file(path): path for path in images if os.path.exists(path)} if there else {}
    for path in there:
        if _file(path) in held:
            raise ValueError(
                f"--output={output} would overwrite {held[_file(path)]} of --images={folder}. "
                "Give --output another place."
            )


def _file(path):
    """Return what a file is known by, whatever links lead to it."""
    status = os.stat(path)
    return status.st_dev, status.st_ino


@contextlib.contextmanager
def folder_made(path, output):
    """Make a folder, and remove it where what is done within fails and leaves it empty.

    Args:
        path: A `pathlib.Path`; folders above it are made, and removed, as well.
        output: What to name in the error if it cannot be made.

    Raises:
        OSError: If it cannot be made.

    Example:
        >>> import tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp(), "deep", "inside")
        >>> with contextlib.suppress(ValueError), folder_made(path, path):
        ...     raise ValueError
        >>> path.parent.exists()
        False
    """
    with output_told(output):
        missing = [each for each in (path, *path.parents) if not each.exists()]
    try:
        with output_told(output):
            path.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        for each in missing:
            with contextlib.suppress(OSError):
                each.rmdir()
        raise


@contextlib.contextmanager
def output_told(path):
    """Name the flag in the error of an output that cannot be written.

    Args:
        path: What is written.

    Raises:
        OSError: Instead of the one within.

    Example:
        >>> with output_told("/proc/a.csv"):
        ...     raise PermissionError(13, "Permission denied")
        Traceback (most recent call last):
        ...
        OSError: --output=/proc/a.csv cannot be written: Permission denied. Give another place.
    """
    try:
        yield
    except OSError as error:
        raise OSError(
            f"--output={path} cannot be written: {error.strerror}. Give another place."
        ) from error


def latest(workdir, checkpoint, tell=print):
    """Return a run's newest checkpoint that is whole.

    Args:
        workdir: The run's folder.
        checkpoint: "last", or "best" by validation.
        tell: Called with lines of text.

    Returns:
        (step, arrays, progress), as of `Checkpoints.latest`; None if there is none.

    Example:
        >>> latest("no/such/folder", "last") is None
        True
    """
    inside = pathlib.Path(workdir, {"last": "checkpoints", "best": "best"}[checkpoint])
    return Checkpoints(inside, keep=1).latest(tell) if inside.is_dir() else None


def _load(experiment, checkpoint, tell):
    """Return (step, arrays) of a run's checkpoint."""
    path = pathlib.Path(experiment.workdir)
    found = latest(path, checkpoint, tell)
    if found is None:
        raise ValueError(
            f"--workdir={path} has no {checkpoint} checkpoint. Give the folder of a run that was "
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
    started = {"init_from": "", "init_checkpoint": "last"}
    if hasattr(experiment, "weights"):
        started |= {"weights": ""}
    # Evaluation takes the moving statistics, on any devices.
    started |= {"sync_batch_norm": False}
    if experiment.strategy == "multi_worker":
        started |= {"strategy": "one_device"}
    return dataclasses.replace(experiment, **started)


def restored(experiment, checkpoint, tell=print):
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
    kind = experiment.facts
    facts = kind(**folder.read_json(path, kind._fields, needed=True))
    devices = Devices(tf.distribute.get_strategy())
    # A number would be a variable of the optimizer, which the checkpoint does not have.
    schedule = Schedule(experiment.learning_rate, "constant", total_steps=1)
    model = preparation.build(_here(experiment), facts, devices.strategy, schedule)
    restore(state_variables(model), devices, arrays)
    return model, facts
