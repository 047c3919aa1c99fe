"""The run's folder: one process at a time, with what was run, by which code, on what."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import pathlib
import platform
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Literal, cast, overload

import keras
import numpy as np
import tensorflow as tf

from tfbio.training import tasks
from tfbio.training.checkpoints import write
from tfbio.training.experiment import differences
from tfbio.training.records import REMEDY
from tfbio.version import __version__

if TYPE_CHECKING:
    from tfbio.training.experiment import Experiment


@contextlib.contextmanager
def locked(workdir: str | os.PathLike[str]) -> Iterator[pathlib.Path]:
    """Hold a run's folder for this process; made if need be.

    The lock is the operating system's: it ends with the process, however that ends. Where nothing
    is written meanwhile, the folder is left as it was found: without the lock's file, and gone if
    it was made here.

    Args:
        workdir: The folder.

    Raises:
        OSError: If the folder cannot be written.
        ValueError: If another process has it.

    Example:
        >>> import tempfile
        >>> with locked(tempfile.mkdtemp()) as folder:
        ...     folder.is_dir()
        True
    """
    folder = pathlib.Path(workdir)
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        lock = _lock(folder / "lock")
    except OSError as error:
        cause = f"{error.strerror}, {error.filename}"
        if isinstance(error, FileExistsError | NotADirectoryError):
            cause = f"{error.filename} is, or is in, a file and no folder"
        raise OSError(
            f"`workdir={workdir}` cannot be written: {cause}. Give a folder of your own."
        ) from error
    with lock as file:
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}")
        file.flush()
        try:
            yield folder
        finally:
            with contextlib.suppress(OSError):  # what has other files in it stays
                if os.listdir(folder) == ["lock"]:
                    (folder / "lock").unlink()  # while it is still held
                    for path in new:
                        path.rmdir()


def _lock(path, attempts=100):
    """Return a file, open and held by this process alone, its folder made if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with contextlib.ExitStack() as closed:
            file = closed.enter_context(path.open("a+"))
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                file.seek(0)
                raise ValueError(
                    f"`workdir={path.parent}` is in use by another process "
                    f"({file.read().strip()}). Wait for it, or give another folder."
                ) from error
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                closed.pop_all()
                return file
    except FileNotFoundError:
        if attempts < 1:
            raise
    # Its last holder removed it as we opened it, so that it locks nothing.
    return _lock(path, attempts - 1)


def flagfile(experiment: Experiment) -> str:
    """Return an experiment as the text of a flagfile.

    Args:
        experiment: An `Experiment`.

    Returns:
        A comment that names the task, and a line for every option.

    Example:
        >>> from tfbio.training import Classification
        >>> print(flagfile(Classification())[:42])
        # classification
        --data_dir=
        --nodownload
    """
    lines = [f"# {experiment.task}"]
    for field in dataclasses.fields(experiment):
        value = getattr(experiment, field.name)
        if isinstance(value, bool):
            lines.append(f"--{field.name}" if value else f"--no{field.name}")
        else:
            lines.append(f"--{field.name}={value}")
    return "\n".join(lines) + "\n"


def read_flags(workdir: str | os.PathLike[str]) -> Experiment | None:
    """Return the experiment that a run's folder holds.

    Args:
        workdir: The folder.

    Returns:
        The `Experiment`, or None if the folder holds no run.

    Raises:
        ValueError: If its flags.cfg is damaged.

    Example:
        >>> read_flags("no/such/folder") is None
        True
    """
    path = pathlib.Path(workdir, "flags.cfg")
    if not path.exists():
        return None
    options = {}
    try:
        lines = path.read_text().splitlines()
        kind = tasks.get(lines.pop(0).removeprefix("# ")).experiment
        fields = {field.name: cast(type, field.type) for field in dataclasses.fields(kind)}
        for line in lines:
            name, equals, text = line.removeprefix("--").partition("=")
            if equals:
                options[name] = fields[name](text)
            elif name in fields:
                options[name] = True
            else:
                options[name.removeprefix("no")] = False
        if set(options) != set(fields):
            odd = sorted(set(options) ^ set(fields))
            raise ValueError(f"`{odd[0]}` is missing or unknown")
    except (IndexError, KeyError, ValueError) as error:
        raise ValueError(f"{path} is damaged, or of another version: {error}. {REMEDY}") from error
    return kind(**options)


def comparable(experiment: Experiment) -> dict[str, Any]:
    """Return the options that results depend on, as a dict for JSON: a run's identity.

    Args:
        experiment: An `Experiment`.

    Example:
        >>> from tfbio.training import Classification
        >>> comparable(Classification(workdir="a")) == comparable(Classification(workdir="b"))
        True
    """
    fields = [f.name for f in dataclasses.fields(experiment) if f.metadata["changes_results"]]
    return {name: getattr(experiment, name) for name in fields}


def check(folder: str | os.PathLike[str], experiment: Experiment) -> None:
    """See that a folder is this experiment's, or free to become it.

    Args:
        folder: The folder.
        experiment: The `Experiment`.

    Raises:
        ValueError: If the folder is another run's, or holds files of the same names.

    Example:
        >>> import tempfile
        >>> folder = tempfile.mkdtemp()
        >>> from tfbio.training import Classification
        >>> claim(folder, Classification(), {"class_names": ["zero", "one"]})
        >>> check(folder, Classification(epochs=3))
        Traceback (most recent call last):
        ...
        ValueError: `workdir=...` holds a run with other options: `epochs=30`, now 3. Give...
    """
    folder = pathlib.Path(folder)
    before = read_flags(folder)
    if before is None:
        strange = [name for name in ("metrics.csv", "summary.json") if (folder / name).exists()]
        if strange:
            raise ValueError(
                f"`workdir={folder}` has {strange[0]} but no flags.cfg, so it is not a run's "
                "folder. Give a new or empty one."
            )
        return
    if type(before) is not type(experiment):
        raise ValueError(
            f"`workdir={folder}` holds a run of {before.task}, not of {experiment.task}. Give "
            "another folder."
        )
    odd = differences(before, experiment)
    if odd:
        listed = "; ".join(f"`{name}={a}`, now {b}" for name, (a, b) in odd.items())
        raise ValueError(
            f"`workdir={folder}` holds a run with other options: {listed}. Give another folder, "
            f"or the same options, as {folder / 'flags.cfg'} has them."
        )


def claim(folder: str | os.PathLike[str], experiment: Any, facts: Any) -> None:
    """Write an experiment's options, and the facts on its data, to a folder that has none yet.

    Where the folder has some, the facts must be the same: a run goes on with the data it began
    with.

    Args:
        folder: The folder, held by `locked` and found good by `check`.
        experiment: The `Experiment`, for flags.cfg.
        facts: A dict for data.json.

    Raises:
        ValueError: If the folder's run had other data.
        OSError: If they cannot be written.

    Example:
        >>> import tempfile
        >>> folder = tempfile.mkdtemp()
        >>> from tfbio.training import Classification
        >>> claim(folder, Classification(epochs=3), {"class_names": ["zero", "one"]})
        >>> read_flags(folder).epochs
        3
    """
    path = pathlib.Path(folder, "flags.cfg")
    if not path.exists():
        save_json(path.with_name("data.json"), facts)
        write(path, flagfile(experiment).encode())
    before = read_json(path.with_name("data.json"), facts, needed=True)
    odd = [name for name in facts if before[name] != json.loads(json.dumps(facts[name]))]
    if odd:
        raise ValueError(
            f"`workdir={folder}` holds a run on other data than `dataset={experiment.dataset}` "
            f"`data_dir={experiment.data_dir}` has now: they differ in {', '.join(odd)}. Give the "
            "data that it began with, or another folder."
        )


def note_start(folder: str | os.PathLike[str], step: int | None) -> list[dict[str, Any]]:
    """Add this start to a run's run.json.

    Args:
        folder: The run's folder.
        step: The step it goes on from; None where it begins, which forgets all earlier starts.

    Returns:
        The list of the run's starts, each with its "step", time, command, versions, git commit
        and machine.

    Raises:
        OSError: If it cannot be written.

    Example:
        >>> import tempfile
        >>> folder = tempfile.mkdtemp()
        >>> _ = note_start(folder, None)
        >>> [start["step"] for start in note_start(folder, 42)]
        [0, 42]
    """
    path = pathlib.Path(folder, "run.json")
    starts = [] if step is None else read_json(path, ["starts"], needed=True)["starts"]
    starts.append({"step": step or 0, **circumstances()})
    save_json(path, {"starts": starts})
    return starts


@overload
def read_json(path: pathlib.Path | str, names: Iterable[str], needed: Literal[True]) -> dict: ...


@overload
def read_json(
    path: pathlib.Path | str, names: Iterable[str] = (), needed: bool = False
) -> dict | None: ...


def read_json(path: str | os.PathLike[str], names: Iterable[str] = (), needed: bool = False) -> Any:
    """Return the dict that a JSON file holds, or None if there is no such file.

    Args:
        path: The file.
        names: What the dict must have.
        needed: Whether the file must be there.

    Raises:
        ValueError: If it is missing but needed, no JSON, no dict, or lacks a name.

    Example:
        >>> read_json("no/such/file") is None
        True
    """
    path = pathlib.Path(path)
    if not path.exists():
        if needed:
            raise ValueError(f"{path} is missing, so that the run is not whole.")
        return None
    try:
        found = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}. {REMEDY}") from error
    missing = [name for name in names if not isinstance(found, dict) or name not in found]
    if missing:
        raise ValueError(f"{path} is damaged: it has no {missing[0]!r}. {REMEDY}")
    return found


def circumstances() -> dict[str, Any]:
    """Return versions, the project's git commit and the machine, for JSON.

    Example:
        >>> sorted(circumstances())
        ['command', 'git', 'machine', 'time', 'versions']
    """
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": [pathlib.Path(sys.argv[0]).name, *sys.argv[1:]],
        "versions": {
            "tfbio": __version__,
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        "git": _git(),
        "machine": {
            "platform": platform.platform(),
            "processor": _processor(),
            "cpus": os.cpu_count(),
            "gpus": [device.name for device in tf.config.list_physical_devices("GPU")],
        },
    }


def save_json(path: str | os.PathLike[str], document: Any) -> None:
    """Write JSON to a file, whole or not at all, with null for what is no finite number.

    Args:
        path: The file.
        document: What to write.

    Raises:
        OSError: If it cannot be written.

    Example:
        >>> import tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp(), "a.json")
        >>> save_json(path, {"angle": float("nan")})
        >>> json.loads(path.read_text())
        {'angle': None}
    """
    text = json.dumps(_without_nan(document), indent=1, allow_nan=False)
    write(path, (text + "\n").encode())


def _without_nan(value):
    if isinstance(value, dict):
        return {key: _without_nan(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(each) for each in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _git():
    """Return the commit of the code that runs, and whether it was changed since; None outside."""
    root = pathlib.Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    try:
        commit = _command(root, "git", "rev-parse", "HEAD")
        changed = bool(_command(root, "git", "status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": commit, "changed": changed}


def _command(root, *words):
    done = subprocess.run(words, cwd=root, capture_output=True, text=True, check=True, timeout=10)
    return done.stdout.strip()


def _processor():
    path = pathlib.Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
