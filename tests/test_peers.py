"""The comparison with BioTorch: its half in TensorFlow, on a file made here instead of there."""

import numpy as np
import pytest

import tfbio
from benchmarks.peers import __main__ as peers
from tfbio import models


@pytest.fixture
def file(tmp_path):
    """Return the path of a LeNet's file under feedback alignment, and what is in it."""
    draw = np.random.default_rng(0)
    images = draw.normal(size=(3, 32, 32, 1)).astype("float32").astype("float64")
    labels = draw.integers(0, 10, 3)
    arrays = {}
    for layer in models.build("lenet", 10, (32, 32, 1)).layers:
        for variable in layer.trainable_variables:
            shape = tuple(variable.shape)
            arrays[f"{layer.name}/{variable.name}"] = 0.1 * draw.normal(size=shape)
            if variable.name == "kernel":
                arrays[f"{layer.name}/feedback"] = 0.1 * draw.normal(size=shape)
    model = peers.build("lenet", images.shape[1:], arrays, "fa")
    assert all(rule in tfbio.rules.names() or "(" in rule for rule in peers.RULES.values())
    for (layer, part), gradient in peers.compute(model, images, labels).items():
        arrays[f"{layer}/gradient_of_{part}"] = gradient
    path = tmp_path / "lenet_fa.npz"
    arrays |= {"images": images, "labels": labels}
    np.savez(path, versions=["nothing 1.0"], **arrays)
    return path, arrays


def test_equal_gradients_do_not_differ_and_others_do_where_they_are(file):
    path, arrays = file
    differences = peers.compare(path)
    assert len(differences) == 10  # kernel and bias of five layers
    assert max(differences.values()) < 1e-12
    # Another B of the third layer changes the gradients below it, and no others.
    np.savez(path, **arrays | {"conv3/feedback": 1.5 * arrays["conv3/feedback"]})
    changed = {place for place, value in peers.compare(path).items() if value > 1e-12}
    assert changed == {(layer, part) for layer in ("conv1", "conv2") for part in ("kernel", "bias")}
    text = peers.draw_table({("lenet", "fa"): peers.compare(path)})
    assert "conv1 kernel" in text
    assert "5.0e-01" in text.splitlines()[-1]


def test_a_file_of_another_network_is_refused(file):
    path, arrays = file
    np.savez(path, **{k: v for k, v in arrays.items() if k != "conv2/kernel"})
    with pytest.raises(ValueError, match="Weight conv2/kernel of lenet is not in the file"):
        peers.compare(path)


def test_a_moving_variance_is_compared_without_its_correction():
    assert peers.without_correction(0.9 + 0.1 * 4 / 3 * 2.5, 4) == pytest.approx(0.9 + 0.1 * 2.5)
