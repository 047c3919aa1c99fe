"""Telemetry of trainings: the same on all devices, from one fixed batch, drawn as heat maps."""

import pathlib
import re

import numpy as np
import pytest

from tfbio import training
from tfbio.metrics import AveragedLayers
from tfbio.training import board, heatmap, strategies, telemetry
from tfbio.training.records import Records

OPTIONS = {
    "model": f"{pathlib.Path(__file__).parents[1] / 'user_networks.py'}:chain",
    "rule": "feedback_alignment",
    "telemetry_every": 5,
}


@pytest.fixture(autouse=True)
def _no_devices():
    strategies.forget_devices()  # a strategy of this test's own


def measured(**options):
    prepared = training.prepare(training.Classification(**OPTIONS, **options))
    of_run = telemetry.Telemetry(prepared)
    return of_run.of_weights() | of_run.of_gradients()


@pytest.fixture(scope="module")
def alone():
    return measured()


@pytest.mark.parametrize(
    ("options", "tolerance"),
    [
        ({"strategy": "mirrored"}, 1e-3),
        ({"accumulate": 2}, 1e-3),
        pytest.param({"jit": True}, 1e-3, marks=pytest.mark.long),
        pytest.param({"precision": "mixed_float16"}, 1.0, marks=pytest.mark.long),
    ],
    ids=str,
)
def test_it_is_the_same_however_the_steps_are_run(alone, options, tolerance):
    found = measured(**options)
    assert found == {name: pytest.approx(value, abs=tolerance) for name, value in alone.items()}


def test_the_batch_is_a_function_of_the_seed_and_of_several_classes():
    batches = [
        telemetry.batch(training.prepare(training.Classification(seed=seed, **more)))
        for seed, more in ((0, {}), (0, {}), (1, {}), (0, {"validation_fraction": 0.0}))
    ]
    images = [np.array(images) for images, _ in batches]
    np.testing.assert_array_equal(images[0], images[1])
    assert not np.array_equal(images[0], images[2])
    assert not np.array_equal(images[0], images[3])  # of the training split
    assert all(len(set(np.array(labels))) > 4 for _, labels in batches)


@pytest.mark.parametrize("rule", ["sign_symmetry", "direct_feedback_alignment", "dtp"])
def test_no_chart_of_the_board_is_empty(rule):
    options = {**OPTIONS, "rule": rule, "model": "bartunov_fc_mnist"}
    prepared = training.prepare(training.Classification(**options))
    columns = [*prepared.model.get_metrics_result(), *telemetry.Telemetry(prepared).columns]
    charts = board.get_charts(prepared.experiment)
    patterns = [tag for name in ("Feedback", "Targets") for (tag,) in charts.get(name, {}).values()]
    assert patterns
    for pattern in patterns:
        assert any(re.search(pattern, column) for column in columns), pattern


def test_without_telemetry_no_gradient_is_measured():
    off = {**OPTIONS, "telemetry_every": 0}
    of_run = telemetry.Telemetry(training.prepare(training.Classification(**off)))
    assert not of_run.due(5)
    assert of_run.of_gradients() == {}
    assert not [name for name in of_run.columns if "gradient" in name]
    assert set(of_run.of_weights()) == set(of_run.columns)


def test_the_heat_map_has_a_row_for_every_layer_and_is_the_same_again():
    def records(layers):
        return [
            {
                "step": step,
                **{f"weight_angle/layer{n}": 90.0 / (1 + n + step) for n in range(layers)},
                **({} if step % 2 else {"gradient_angle/layer0": float("nan")}),
            }
            for step in range(4)
        ]

    few, many = (heatmap.draw(records(layers)) for layers in (3, 40))
    assert few.dtype == many.dtype == np.uint8
    assert many.shape[0] > 40 * 20 > few.shape[0]  # pixels of a line of text
    np.testing.assert_array_equal(few, heatmap.draw(records(3)))
    assert (few == 0xCC).all(axis=-1).mean() > 0.1  # gray where there is no angle
    averaged = AveragedLayers({"layer1": 50, "layer2": 50}, {})
    marked = heatmap.draw(records(3), averaged)
    assert not np.array_equal(marked[:, : few.shape[1]], few)  # layers of no mean, and the scatter
    narrow = heatmap.draw([{"step": 0, "weight_angle/a": 1.0}])
    assert narrow.shape[1] < few.shape[1]


def test_a_picture_is_shown_once(tmp_path):
    image = np.zeros((4, 4, 3), np.uint8)
    for kept in (None, 3, 3):
        records = Records(tmp_path, ["loss"], kept)
        if kept is None:
            records.add(3, 1, {"loss": 1.0})
        records.show(3, "angles", image)
        records.close()
    from tests.training.test_training import points

    assert [step for step, _ in points(tmp_path)["angles"]] == [3]
