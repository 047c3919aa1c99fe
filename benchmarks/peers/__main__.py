"""Compare this library's gradients with BioTorch's, layer by layer, in float64.

python -m benchmarks.peers FOLDER [--write FILE]

FOLDER holds what `biotorch_gradients.py` wrote. Each network is built here, gets BioTorch's weights
and, under a rule, its B; one training step's gradients on its images and labels are then compared:

    max |ours − theirs| / max |theirs|        of every weight's gradient

The exit status is 1 if one of them differs by more than 1e-10.
"""

import argparse
import pathlib
import platform
import sys

import keras
import numpy as np
import tensorflow as tf

import tfbio
from tfbio import models

TOLERANCE = 1e-10
RULES = {
    "bp": "backprop",
    "fa": "feedback_alignment(scale='xavier')",
    "usf": "sign_symmetry(scale='xavier')",
    "frsf": "frsf(scale='xavier')",
    # Within one step brsf is frsf with the magnitudes of that step, which can be given.
    "brsf": "frsf(scale='xavier')",
}
GRADIENTS = ("kernel", "bias", "gamma", "beta")
STATISTICS = ("moving_mean", "moving_variance")


def compare(path):
    """Compare one file's gradients with ours.

    Args:
        path: `<network>_<rule>.npz`, as `biotorch_gradients.py` writes it.

    Returns:
        A dict from (layer, part) to the greatest relative difference. Parts are those of
        `GRADIENTS`, "feedback" where both libraries compute B (usf), "moving_mean", and
        "moving_variance", theirs multiplied so that the batch's variance is divided by n, as ours
        is, and not by n − 1.

    Raises:
        ValueError: If the file's weights are not the network's.
    """
    network, rule = path.stem.split("_")
    theirs = dict(np.load(path))
    images, labels = theirs.pop("images"), theirs.pop("labels")
    model = build(network, images.shape[1:], theirs, rule)
    ours = compute(model, images, labels)
    if rule == "usf":
        ours |= {(x.name, "feedback"): x.feedback for x in model.layers if hasattr(x, "kernel")}
    counts = count_values(model, len(images))
    differences = {}
    for (layer, part), value in ours.items():
        name = f"{layer}/gradient_of_{part}" if part in GRADIENTS else f"{layer}/{part}"
        their = theirs[name]
        if part == "moving_variance":
            their = without_correction(their, counts[layer])
        differences[layer, part] = float(np.abs(value - their).max() / np.abs(their).max())
    return differences


def without_correction(moving_variance, count):
    """Return PyTorch's moving variance after one step as it were with variances divided by n.

    Args:
        moving_variance: 0.9 + 0.1·n/(n − 1)·variance, PyTorch's from 1.
        count: n, the number of values that a variance is taken over.
    """
    return 0.9 + (moving_variance - 0.9) * (count - 1) / count


def build(network, shape, weights, rule):
    """Return one of our networks in float64 with the given weights, under a rule with their B."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float64")
    try:
        classes = weights["logits/kernel"].shape[1]
        model = models.build(network, classes, shape)
        tfbio.convert(model, RULES[rule])
    finally:
        keras.config.set_dtype_policy(before)
    for layer in model.layers:
        for variable in layer.trainable_variables:
            name = f"{layer.name}/{variable.name}"
            if name not in weights or weights[name].shape != tuple(variable.shape):
                raise ValueError(f"Weight {name} of {network} is not in the file, in its shape.")
            variable.assign(weights[name])
        if f"{layer.name}/feedback" in weights:
            give_feedback(layer, weights[f"{layer.name}/feedback"], rule)
    return model


def give_feedback(layer, feedback, rule):
    """Give a layer the B of a file; under usf it makes its own."""
    if rule == "fa":
        layer.rule.matrix.assign(feedback)
    elif rule in ("frsf", "brsf"):
        layer.rule.magnitudes.assign(np.abs(feedback))


def compute(model, images, labels):
    """Return the gradients and moving statistics of one training step, by (layer, part)."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, dtype="float64")
    with tf.GradientTape() as tape:
        value = loss(labels, model(images, training=True))
    values = {}
    variables = [(x.name, v) for x in model.layers for v in x.trainable_variables]
    gradients = tape.gradient(value, [v.value for _, v in variables])
    for (layer, variable), gradient in zip(variables, gradients, strict=True):
        values[layer, variable.name] = gradient.numpy()
    for layer in model.layers:
        for name in STATISTICS:
            if hasattr(layer, name):
                values[layer.name, name] = getattr(layer, name).numpy()
    return values


def count_values(model, batch_size):
    """Return over how many values each batch norm takes a channel's variance, by layer."""
    return {
        layer.name: batch_size * int(np.prod(layer.output.shape[1:-1]))
        for layer in model.layers
        if hasattr(layer, "moving_variance")
    }


def draw_table(results):
    """Return all differences as text, a line for each layer, and the largest of each rule.

    Args:
        results: A dict from (network, rule) to what `compare` returns.
    """
    lines = []
    for network in dict.fromkeys(name for name, _ in results):
        rules = [rule for name, rule in results if name == network]
        lines += [f"{network}", f"{'weight':<45}" + "".join(f"{rule:>10}" for rule in rules)]
        places = dict.fromkeys(place for rule in rules for place in results[network, rule])
        for place in places:
            found = [results[network, rule].get(place) for rule in rules]
            cells = ["–" if value is None else f"{value:.1e}" for value in found]
            lines.append(f"{' '.join(place):<45}" + "".join(f"{cell:>10}" for cell in cells))
        worst = [max(results[network, rule].values()) for rule in rules]
        lines += [f"{'largest':<45}" + "".join(f"{value:>10.1e}" for value in worst), ""]
    return "\n".join(lines)


def main():
    """Print the table; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers")
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--write", type=pathlib.Path, help="a file to write the table to")
    arguments = parser.parse_args()
    order = {network: i for i, network in enumerate(("lenet", "resnet18"))}
    paths = sorted(
        arguments.folder.glob("*.npz"),
        key=lambda path: (order[path.stem.split("_")[0]], [*RULES].index(path.stem.split("_")[1])),
    )
    if not paths:
        parser.error(f"there are no .npz files in {arguments.folder}")
    versions = [f"TensorFlow {tf.__version__}", f"Keras {keras.__version__}"]
    versions += [f"tfbio {tfbio.__version__}", *np.load(paths[0])["versions"]]
    results = {}
    for path in paths:
        network, rule = path.stem.split("_")
        results[network, rule] = compare(path)
        keras.backend.clear_session()
    text = "\n".join(
        [
            "BioTorch's gradients and ours: max |ours − theirs| / max |theirs|, in float64, on",
            "equal weights, images, labels and B, in training mode.",
            f"{', '.join(versions)}; {platform.machine()}.",
            "Command: make bench-peers",
            "",
            draw_table(results),
        ]
    )
    print(text)
    if arguments.write:
        arguments.write.write_text(text)
    return int(max(max(each.values()) for each in results.values()) > TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())
