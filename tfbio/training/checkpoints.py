"""Checkpoints: a training's whole state in one file, written at once or not at all."""

import hashlib
import io
import json
import os
import pathlib
import re

import numpy as np

from tfbio import _keras

_NAME = re.compile(r"step-(\d{9,})-([0-9a-f]{16})\.npz")


def state_variables(model):
    """Return all variables that training changes: model, optimizer, metrics, random state.

    Args:
        model: A compiled model.

    Returns:
        A list of `keras.Variable`, each one once, in an order that depends on the model alone.

    Example:
        >>> from tfbio.training import Classification, prepare
        >>> len(state_variables(prepare(Classification(rule="bp")).model))
        26
    """
    # What a layer draws without a seed of its own comes from Keras's global generator.
    chance = _keras.get_global_seed()
    every = [*model.variables, *model.optimizer.variables, *model.metrics_variables, chance]
    return list({id(variable): variable for variable in every}.values())


def snapshot(variables, devices):
    """Return the values of variables, those of every replica where replicas differ.

    All workers must call it, and all get the same.

    Args:
        variables: A list of `keras.Variable`.
        devices: The `tfbio.training.strategies.Devices` that they live on.

    Returns:
        A dict from place in the list, and replica, to array. A replica whose value is the first
        one's is left out.

    Example:
        >>> import keras, tensorflow as tf
        >>> from tfbio.training.strategies import Devices
        >>> snapshot([keras.Variable([1.5])], Devices(tf.distribute.get_strategy()))
        {'00000.0': array([1.5], dtype=float32)}
    """
    values = []
    for variable in variables:
        parts = [np.asarray(each.numpy()) for each in _components(variable, devices)]
        values.append(parts * (devices.local // len(parts)))  # one may serve all
    # Compared by digests first: most are alike, and large.
    digests = np.int64([[_number(value) for value in parts] for parts in values])
    digests = np.concatenate(devices.gather(digests), axis=1)
    arrays = {}
    for index, (parts, numbers) in enumerate(zip(values, digests, strict=True)):
        if len(np.unique(numbers)) > 1:
            parts = _of_all(parts, devices)
        for replica, number in enumerate(numbers):
            if replica == 0 or number != numbers[0]:
                arrays[f"{index:05d}.{replica}"] = parts[replica]
    return arrays


def restore(variables, devices, arrays):
    """Give variables the values of a `snapshot`.

    Args:
        variables: The same list, of a model made in the same way.
        devices: The devices.
        arrays: What `snapshot` returned; on fewer devices than there were, replicas beyond them
            are passed over.

    Raises:
        ValueError: If the arrays are not those of these variables.

    Example:
        >>> import keras, tensorflow as tf
        >>> from tfbio.training.strategies import Devices
        >>> variable = keras.Variable(0.0)
        >>> restore([variable], Devices(tf.distribute.get_strategy()), {"00000.0": np.float32(1.5)})
        >>> float(variable)
        1.5
    """
    firsts = {f"{index:05d}.0": variable for index, variable in enumerate(variables)}
    stated = {key: (tuple(v.shape), np.dtype(v.dtype).type) for key, v in firsts.items()}
    given = {k: (array.shape, array.dtype.type) for k, array in arrays.items() if k.endswith(".0")}
    if stated != given:
        odd = sorted(key for key in stated | given if stated.get(key) != given.get(key))
        raise ValueError(
            f"The checkpoint does not fit the model and optimizer: {len(odd)} of their "
            f"{len(stated)} variables differ in shape or type, the first at place {odd[0]}."
        )
    for key, variable in firsts.items():
        for place, component in enumerate(_components(variable, devices)):
            replica = devices.worker * devices.local + place
            component.assign(arrays.get(f"{key[:-2]}.{replica}", arrays[key]))


def _components(variable, devices):
    """Return this worker's tf.Variables, one for each replica if mirrored: each can be assigned."""
    return devices.strategy.experimental_local_results(variable.value)


def _of_all(values, devices):
    """Return the values of all workers' replicas, in order."""
    if devices.workers == 1:
        return values
    # Integers are exchanged: they have the bits of any type, and every backend sends them.
    content = b"".join(value.tobytes() for value in values)
    sent = np.frombuffer(content + bytes(-len(content) % 4), np.int32)
    shape, dtype = values[0].shape, values[0].dtype
    return [
        value.reshape(shape)
        for part in devices.gather(sent)
        for value in np.frombuffer(part.tobytes()[: len(content)], dtype).reshape(len(values), -1)
    ]


class Checkpoints:
    """The newest checkpoints of one folder.

    A checkpoint is one `.npz` file of arrays and of the training's progress, with the step and a
    digest of the content in its name. It is written beside, flushed to the disk and renamed, so
    that a name always stands for a whole file; whatever happens to the file later, the digest
    tells.

    Args:
        folder: Where they are; made if need be.
        keep: How many to keep.

    Example:
        >>> import tempfile
        >>> checkpoints = Checkpoints(tempfile.mkdtemp(), keep=1)
        >>> for step in (10, 20):
        ...     _ = checkpoints.save(step, {"w": np.ones(2)}, {"best": None})
        >>> step, arrays, progress = checkpoints.latest()
        >>> step, arrays["w"], progress
        (20, array([1., 1.]), {'best': None})
    """

    def __init__(self, folder, keep):
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.keep = keep

    def save(self, step, arrays, progress):
        """Write one checkpoint, then remove the oldest beyond `keep`.

        Args:
            step: The number of steps done.
            arrays: A dict from name to array.
            progress: What else there is to know, for JSON.

        Returns:
            The file's path.

        Raises:
            OSError: If it cannot be written; the older ones are then all still there.
        """
        buffer = io.BytesIO()
        text = json.dumps(progress).encode()
        np.savez(buffer, progress=np.frombuffer(text, np.uint8), **arrays)
        content = buffer.getbuffer()
        path = self.folder / f"step-{step:09d}-{_digest(content)}.npz"
        write(path, content)
        # The one just written counts as newest, even after a fall-back to an older step.
        others = [old for old in self._paths() if old != path]
        # A process that was killed as it wrote has left its file, of which no other has the name.
        for old in (*others[self.keep - 1 :], *self.folder.glob("*.writing")):
            old.unlink(missing_ok=True)
        return path

    def latest(self, tell=print):
        """Return the newest checkpoint that is whole.

        Args:
            tell: Called with a line of text for every damaged file that is passed over.

        Returns:
            (step, arrays, progress), or None if there is none.
        """
        for path in self._paths():
            content = path.read_bytes()
            step, digest = _NAME.fullmatch(path.name).groups()
            if _digest(content) == digest:
                with np.load(io.BytesIO(content)) as archive:
                    arrays = dict(archive)
                return int(step), arrays, json.loads(arrays.pop("progress").tobytes())
            tell(f"Checkpoint {path} is damaged; falling back to the one before, if there is one.")
            # Out of the way, or it would pass for the newest again and again.
            path.rename(path.with_suffix(".damaged"))
        return None

    def _paths(self):
        """Return the checkpoints' paths, newest first."""
        named = [path for path in self.folder.iterdir() if _NAME.fullmatch(path.name)]
        return sorted(named, key=lambda path: int(_NAME.fullmatch(path.name)[1]), reverse=True)


def write(path, content):
    """Write a file so that it is there whole, or as it was before.

    Args:
        path: The file.
        content: Its bytes.

    Raises:
        OSError: If it cannot be written.

    Example:
        >>> import tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp(), "a.txt")
        >>> write(path, b"whole")
        >>> path.read_text()
        'whole'
    """
    path = pathlib.Path(path)
    beside = path.with_name(path.name + ".writing")
    try:
        with beside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from error  # it names no file
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the new name, too
    finally:
        os.close(folder)


def _number(array):
    """Return 64 bits that differ where two arrays do."""
    return int.from_bytes(bytes.fromhex(_digest(array.tobytes())), "big", signed=True)


def _digest(content):
    return hashlib.blake2b(content, digest_size=8).hexdigest()
