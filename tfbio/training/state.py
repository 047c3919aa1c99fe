"""The state of a training: all variables that it changes, by names that say what they hold."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from tfbio import _keras
from tfbio.layers.sites import find_layers
from tfbio.training.checkpoints import digest

if TYPE_CHECKING:
    import keras

    from tfbio.training.strategies import Devices

_LISTED = 10  # names of a kind in an error


def state_variables(model: keras.Model) -> dict:
    """Return all variables that training changes: model, optimizer, metrics, random state.

    The names follow from the model's structure: "conv1/kernel", "conv1/brsf/feedback",
    "optimizer/conv1/kernel/momentum", "metrics/loss/total". Layers that Keras numbered for want of
    a name are numbered here by their order in the model, since Keras's numbers depend on what else
    the process has built.

    Args:
        model: A compiled model, whose optimizer and metrics are built.

    Returns:
        A dict from unique name to `keras.Variable`, each variable once, in an order that depends
        on the model alone.

    Example:
        >>> from tfbio.training import Classification, prepare
        >>> list(state_variables(prepare(Classification(rule="fa")).model))[:3]
        ['conv1/kernel', 'conv1/bias', 'conv1/feedback_alignment/rms']
    """
    of_model = _name_weights(model)
    named = [(of_model[id(variable)], variable) for variable in model.variables]
    named += _name_slots(model.optimizer.variables, named)
    for metric in model.metrics:
        named += [(f"metrics/{metric.name}/{_last(v)}", v) for v in metric.variables]
    # What a layer draws without a seed of its own comes from Keras's global generator.
    named.append(("random/global", _keras.get_global_seed()))
    found, seen = {}, set()
    for name, variable in named:
        if id(variable) not in seen:
            seen.add(id(variable))
            found[_make_unique(name, found)] = variable
    return found


def _name_weights(model):
    """Return the name of each of a model's own variables, by id."""
    names = {id(variable): variable.name for variable in model.variables}
    layers = find_layers(model)
    stable, counts = {}, {}
    for path, layer in layers.items():
        above, _, _ = path.rpartition("/")
        above = stable[above] + "/" if above in stable else ""
        name = _number_by_order(layer, above, counts)
        stable[path] = _make_unique(above + name, set(stable.values()))
        # A layer comes before those below it, whose variables are named anew.
        names |= {id(variable): f"{stable[path]}/{variable.name}" for variable in layer.variables}
    return names


def _number_by_order(layer, above, counts):
    """Return a layer's name; one that Keras made up gets its number among those beside it."""
    base = re.sub(r"_\d+$", "", layer.name)
    if base not in {_snake(kind.__name__) for kind in type(layer).__mro__}:
        return layer.name
    count = counts[above, base] = counts.get((above, base), -1) + 1
    return f"{base}_{count}" if count else base


def _snake(name):
    """Return a class's name as Keras makes a layer's name of it."""
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()


def _name_slots(variables, weights):
    """Return (name, variable) of an optimizer's variables, those of a weight by its name.

    Keras calls a weight's momentum by the weight's path, which may have numbers of the process.
    """
    named = []
    of_prefix, times = {}, {}
    for name, weight in weights:
        of_prefix.setdefault(f"{weight.path.replace('/', '_')}_", []).append(name)
    for variable in variables:
        fitting = [prefix for prefix in of_prefix if variable.name.startswith(prefix)]
        if not fitting:
            named.append((f"optimizer/{_last(variable)}", variable))
            continue
        prefix = max(fitting, key=len)
        slot = variable.name.removeprefix(prefix)
        # Of weights with one path between them, each comes in its turn.
        turn = times[prefix, slot] = times.get((prefix, slot), -1) + 1
        names = of_prefix[prefix]
        named.append((f"optimizer/{names[turn % len(names)]}/{slot}", variable))
    return named


def _last(variable):
    return variable.name.rpartition("/")[2]


def _make_unique(name, taken):
    """Return a name, with a number where it is taken."""
    unique, count = name, 1
    while unique in taken:
        count += 1
        unique = f"{name}#{count}"
    return unique


def snapshot(variables: Mapping[str, keras.Variable], devices: Devices) -> dict:
    """Return the values of variables, those of every replica where replicas differ.

    All workers must call it, and all get the same.

    Args:
        variables: A dict from name to `keras.Variable`.
        devices: The `tfbio.training.strategies.Devices` that they live on.

    Returns:
        A dict from name and replica to array. A replica whose value is the first one's is left
        out.

    Example:
        >>> import keras, tensorflow as tf
        >>> from tfbio.training.strategies import Devices
        >>> snapshot({"w": keras.Variable([1.5])}, Devices(tf.distribute.get_strategy()))
        {'w.0': array([1.5], dtype=float32)}
    """
    values = []
    for variable in variables.values():
        parts = [np.asarray(each.numpy()) for each in _components(variable, devices)]
        values.append(parts * (devices.local // len(parts)))  # one may serve all
    # Compared by digests first: most are alike, and large.
    digests = np.array([[_number(value) for value in parts] for parts in values], np.int64)
    digests = np.concatenate(devices.gather(digests), axis=1)
    arrays = {}
    for name, parts, numbers in zip(variables, values, digests, strict=True):
        if len(np.unique(numbers)) > 1:
            parts = _of_all(parts, devices)
        for replica, number in enumerate(numbers):
            if replica == 0 or number != numbers[0]:
                arrays[f"{name}.{replica}"] = parts[replica]
    return arrays


def restore(
    variables: Mapping[str, keras.Variable], devices: Devices, arrays: Mapping[str, np.ndarray]
) -> None:
    """Give variables the values of a `snapshot`.

    Args:
        variables: The same dict, of a model made in the same way.
        devices: The devices.
        arrays: What `snapshot` returned; on fewer devices than there were, replicas beyond them
            are passed over.

    Raises:
        ValueError: If the arrays are not those of these variables; the message names what is
            missing, unexpected or of another shape or type.

    Example:
        >>> import keras, tensorflow as tf
        >>> from tfbio.training.strategies import Devices
        >>> variable, devices = keras.Variable(0.0), Devices(tf.distribute.get_strategy())
        >>> restore({"w": variable}, devices, {"w.0": np.float32(1.5)})
        >>> float(variable)
        1.5
        >>> restore({"v": variable}, devices, {"w.0": np.float32(1.5)})
        Traceback (most recent call last):
        ...
        ValueError: The checkpoint is of another model or optimizer, or of another version ...
    """
    _check(variables, arrays)
    for name, variable in variables.items():
        for place, component in enumerate(_components(variable, devices)):
            replica = devices.worker * devices.local + place
            component.assign(arrays.get(f"{name}.{replica}", arrays[f"{name}.0"]))


def _check(variables, arrays):
    """Refuse arrays that are not those of variables."""
    expected = {name: _describe(variable) for name, variable in variables.items()}
    given = {key[:-2]: _describe(array) for key, array in arrays.items() if key.endswith(".0")}
    different = [
        f"{name} is {described}, in the checkpoint {given[name]}"
        for name, described in expected.items()
        if given.get(name, described) != described
    ]
    problems = {
        "missing from it": [name for name in expected if name not in given],
        "unexpected in it": [name for name in given if name not in expected],
        "different": different,
    }
    if any(problems.values()):
        raise ValueError(
            "The checkpoint is of another model or optimizer, or of another version of tfbio: "
            + "; ".join(f"{what}: {_list(names)}" for what, names in problems.items() if names)
            + ". Give another folder."
        )


def _describe(value):
    return f"{np.dtype(value.dtype).name} ({', '.join(map(str, value.shape))})"


def _list(names):
    more = len(names) - _LISTED
    return ", ".join(names[:_LISTED]) + (f" and {more} more" if more > 0 else "")


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


def _number(array):
    """Return 64 bits that differ where two arrays do."""
    return int.from_bytes(bytes.fromhex(digest(array.tobytes())), "big", signed=True)
