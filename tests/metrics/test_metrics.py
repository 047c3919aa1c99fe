"""Metrics against values known by hand, and the callback that writes them."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import tfbio
from tests.cases import random
from tfbio import metrics


@given(st.floats(0, 180), st.floats(1e-3, 1e3), st.floats(1e-3, 1e3))
def test_the_angle_is_exact_from_0_to_180_degrees(degrees, w, b):
    theta = math.radians(degrees)
    angle = metrics.angle([w, 0.0], [b * math.cos(theta), b * math.sin(theta)])
    assert angle == pytest.approx(degrees, abs=1e-6)


def test_known_values_and_zero_matrices():
    w, b = np.array([[3.0, -4.0]]), np.array([[0.0, -10.0]])
    assert metrics.angle(w, b) == pytest.approx(math.degrees(math.acos(0.8)))
    assert metrics.norm_ratio(w, b) == 2.0
    assert metrics.agreement(w, b) == 0.5
    assert math.isnan(metrics.angle(w, 0 * b))
    assert math.isnan(metrics.norm_ratio(0 * w, b))


def model(rule, **arguments):
    layers = [keras.Input((9, 9, 3)), keras.layers.SeparableConv2D(30, 3, name="sep")]
    layers += [keras.layers.Flatten(), keras.layers.Dense(40, name="out")]
    return tfbio.convert(keras.Sequential(layers), rule, **arguments)


def test_metrics_measure_the_effective_b():
    frsf = model("frsf")
    assert set(metrics.weight_angles(frsf)) == {"sep/depthwise", "sep/pointwise", "out"}
    # |N(0, 1)| against uniform magnitudes: ⟨|u||n|⟩ / rms = √(3/4)·√(2/π), at equal signs.
    expected = math.degrees(math.acos(math.sqrt(3 / 4) * math.sqrt(2 / math.pi)))
    assert metrics.weight_angles(frsf)["out"] == pytest.approx(expected, abs=1.0)
    assert set(metrics.sign_agreement(frsf).values()) == {1.0}
    assert metrics.norm_ratios(frsf)["out"] == pytest.approx(1.0, abs=0.02)
    fa = model("fa", last_layer="backprop")
    assert metrics.weight_angles(fa)["sep/pointwise"] == pytest.approx(90, abs=15)
    assert metrics.weight_angles(fa)["out"] == 0.0
    partial = model("sign_symmetry(agreement=0.8)")
    assert metrics.sign_agreement(partial)["out"] == pytest.approx(0.8, abs=0.01)
    with pytest.raises(ValueError, match="no feedback layer"):
        metrics.weight_angles(keras.Sequential([keras.layers.Dense(2)]))


def test_the_callback_writes_what_the_metrics_say_at_the_optimizers_steps(tmp_path):
    network = model("sign_symmetry")
    network.compile("sgd", "mse", run_eagerly=True)
    before = metrics.weight_angles(network)
    x, y = random((4, 9, 9, 3), "float32"), random((4, 40), "float32")
    for expected_first in (0, 4):  # a second fit goes on where the first ended
        angles = tfbio.callbacks.WeightAngles(tmp_path)
        network.fit(x, y, batch_size=2, epochs=2, verbose=0, callbacks=[angles])
        assert [step for step, _ in angles.history] == [expected_first + n for n in (0, 2, 4)]
    assert angles.history[-1] == (8, metrics.weight_angles(network))
    events = EventAccumulator(str(tmp_path)).Reload()
    tags = {"mean_weight_angle", *(f"weight_angle/{name}" for name in before)}
    assert set(events.Tags()["tensors"]) == tags
    # The two files may bear the same second in their names, and be read in either order.
    written = sorted(events.Tensors("weight_angle/out"), key=lambda event: event.step)
    assert [event.step for event in written] == [0, 2, 4, 4, 6, 8]
    assert tf.make_ndarray(written[0].tensor_proto) == pytest.approx(before["out"], rel=1e-6)


def test_telemetry_under_fit_records_all_there_is(tmp_path):
    network = tfbio.convert(
        keras.Sequential([
            keras.Input((3,)), keras.layers.Dense(5, "tanh", name="in"),
            keras.layers.Dropout(0.5), keras.layers.Dense(2, name="out"),
        ]),
        "feedback_alignment",
    )  # fmt: skip
    network.compile("sgd", "mse", metrics=["mae"], run_eagerly=True)
    x, y = random((8, 3), "float32"), random((8, 2), "float32", seed=1)
    telemetry = tfbio.callbacks.Telemetry(tmp_path, batch=(x, y), every=3)
    network.fit(x, y, batch_size=2, epochs=2, verbose=0, callbacks=[telemetry])
    assert [step for step, _ in telemetry.history] == [0, 3, 4, 6, 8]
    last = telemetry.history[-1][1]
    tags = metrics.TAGS.values()
    means = {f"mean_{tag}" for tag in tags}
    assert set(last) == means | {f"{tag}/{name}" for tag in tags for name in ("in", "out")}
    for tag in tags:  # of two layers: B teaches above the first, errors pass it below the last
        layer = "in" if tag == "gradient_angle" else "out"
        assert last[f"mean_{tag}"] == last[f"{tag}/{layer}"]
    assert last["weight_angle/in"] == pytest.approx(metrics.weight_angles(network)["in"])
    angles = metrics.GradientMeter(network)(x, y)
    assert last["gradient_angle/in"] == angles.global_["in"] > 0
    assert last["local_gradient_angle/out"] == angles.local_["out"] > 0
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [event.step for event in events.Tensors("gradient_angle/in")] == [0, 3, 4, 6, 8]
    plain = tfbio.callbacks.Telemetry(None)
    network.fit(x, y, batch_size=2, verbose=0, callbacks=[plain])
    assert "gradient_angle/in" not in plain.history[-1][1]
    with pytest.raises(ValueError, match=r"`every` must be an integer of 0 or more\. Received: -1"):
        tfbio.callbacks.Telemetry(None, every=-1)
