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
    network.compile("sgd", "mse")
    before = metrics.weight_angles(network)
    x, y = random((4, 9, 9, 3), "float32"), random((4, 40), "float32")
    for expected_first in (0, 4):  # a second fit goes on where the first ended
        angles = tfbio.callbacks.WeightAngles(tmp_path)
        network.fit(x, y, batch_size=2, epochs=2, verbose=0, callbacks=[angles])
        assert [step for step, _ in angles.history] == [expected_first + n for n in (0, 2, 4)]
    assert angles.history[-1] == (8, metrics.weight_angles(network))
    events = EventAccumulator(str(tmp_path)).Reload()
    assert set(events.Tags()["tensors"]) == {f"weight_angle/{name}" for name in before}
    written = events.Tensors("weight_angle/out")
    assert [event.step for event in written] == [0, 2, 4, 4, 6, 8]
    assert tf.make_ndarray(written[0].tensor_proto) == pytest.approx(before["out"], rel=1e-6)
