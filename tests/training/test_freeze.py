"""Frozen layers, and checkpoints by time."""

import time

import numpy as np
import pytest

from tests import kills
from tests.cases import long_but
from tfbio import training
from tfbio.layers.sites import find_layers
from tfbio.training.checkpoints import Checkpoints
from tfbio.training.loop import Loop

NETWORK = """
import keras

def network(num_classes, input_shape):
    return keras.Sequential([
        keras.Input(input_shape),
        keras.layers.Conv2D(4, 3, name="stem_conv"),
        keras.layers.BatchNormalization(name="stem_norm"),
        keras.layers.ReLU(name="stem_relu"),
        keras.layers.Conv2D(4, 3, name="conv"),
        keras.layers.BatchNormalization(name="norm"),
        keras.layers.Flatten(),
        keras.layers.Dense(num_classes, name="last"),
    ])
"""


@pytest.fixture
def options(tmp_path):
    (tmp_path / "network.py").write_text(NETWORK)
    return {"model": f"{tmp_path / 'network.py'}:network", "learning_rate": 0.1, "epochs": 1}


RULES = ["kolen_pollack", "weight_mirror", "backprop", "symmetric_alignment", "brsf", "dfa"]


@pytest.mark.parametrize("rule", long_but(RULES[:2], RULES))
def test_frozen_layers_keep_all_they_have(options, rule):
    """Kernels, biases, B, γ and β, and the moving statistics, as Keras has it."""
    prepared = training.prepare(training.Classification(**options, rule=rule, freeze="stem*"))
    frozen = [
        v
        for name, layer in find_layers(prepared.model).items()
        if name.startswith("stem") and "/" not in name
        for v in layer.variables
    ]
    assert frozen
    trained = {v.path for v in prepared.model.trainable_variables}
    assert not any(path.startswith("stem") for path in trained)
    before = [v.numpy() for v in frozen]
    moving = find_layers(prepared.model)["norm"].moving_mean
    others = [*prepared.model.trainable_variables, moving]
    started = [v.numpy() for v in others]
    assert Loop(prepared).train(iter(prepared.epoch(0, 0)), 3) == (3, True)
    for old, v in zip(before, frozen, strict=True):
        np.testing.assert_array_equal(v, old, err_msg=v.path)
    moved = [bool((old != v.numpy()).any()) for old, v in zip(started, others, strict=True)]
    assert np.mean(moved) > 0.8, [v.path for v in others]
    assert moved[-1]


@pytest.mark.long
def test_a_run_with_frozen_layers_is_measured_and_resumed(options, tmp_path):
    """Angles, checkpoints and resumption take frozen kernels, to the same bits."""
    options |= {"rule": "kolen_pollack", "freeze": "stem_conv, stem_norm", "batch_size": 200}
    options |= {"telemetry_every": 3, "augmentation": "none", "optimizer": "adam", "momentum": 0.9}
    options |= {"learning_rate": 0.001, "checkpoint_every": 3}
    summaries = []
    for name in ("whole", "cut"):
        experiment = training.Classification(**options, workdir=str(tmp_path / name))

        def progress(step, total, cut=name == "cut"):
            if cut and step >= 3:
                raise KeyError

        if name == "cut":
            with pytest.raises(KeyError):
                training.train_and_evaluate(experiment, lambda text: None, progress)
        summaries.append(training.train_and_evaluate(experiment, lambda text: None))
    assert summaries[0]["weight_angles"].keys() == {"stem_conv", "conv", "last"}
    assert summaries[1]["resumed_at_steps"] == [3]
    for name in ("test_loss", "weight_angles", "gradient_angles"):
        assert summaries[1][name] == summaries[0][name]


@pytest.mark.parametrize(
    ("freeze", "more", "message"),
    [
        ("stem*,stage*", {}, r"matches no layer with weights: 'stage\*'. The layers: stem_conv, s"),
        ("stem_relu", {}, "matches no layer with weights: 'stem_relu'"),
        ("*", {}, "`freeze` must leave layers that learn"),
        ("last", {"last_layer_learning_rate": 0.3}, "have nothing to train: last"),
        ("norm", {"weight_decay": 0.1, "weight_decay_exclude": "norm"}, "'norm', which matches no"),
    ],
)
def test_what_cannot_be_frozen_is_told(options, freeze, more, message):
    with pytest.raises(ValueError, match=message):
        training.prepare(training.Classification(**options, **more, rule="bp", freeze=freeze))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"warmup_epochs": 1.5, "warmup_steps": 3}, "say the same thing: give one of them"),
        ({"warmup_from": 0.3}, "`warmup_from` belongs to `warmup_epochs` or `warmup_steps`"),
        ({"warmup_epochs": 0.001}, "`warmup_epochs` must be 0, or a step or more.* 21 steps an"),
        ({"warmup_steps": 42}, "`warmup_steps` must end before the first milestone"),
        ({"warmup_epochs": 1.99}, "`warmup_epochs` must end before the first milestone"),
        ({"warmup_from": 1.0}, "`warmup_from` must be a finite number of 0 or more and less"),
    ],
)
def test_a_warm_up_that_cannot_be_is_told(options, message):
    with pytest.raises(ValueError, match=message):
        training.optimization.make_schedule(training.Classification(epochs=2, **options), 21)


def test_warm_up_by_steps_and_by_parts_of_an_epoch_is_the_same():
    make = training.optimization.make_schedule
    steps = make(training.Classification(warmup_steps=10, warmup_from=0.25), 20)
    parts = make(training.Classification(warmup_epochs=0.5, warmup_from=0.25), 20)
    assert steps.get_config() == parts.get_config()
    assert float(parts(0)) == pytest.approx(0.25 * 0.05)
    assert float(parts(5)) == pytest.approx((0.25 + 0.75 / 2) * 0.05)


def test_checkpoints_are_written_by_time_and_change_nothing(tmp_path, monkeypatch):
    options = {**kills.OPTIONS, "epochs": 1, "rule": "brsf", "checkpoint_every": 10**6}
    options |= {"steps_per_call": 5, "telemetry_every": 0, "keep_checkpoints": 1000}
    now = time.monotonic
    clock = []
    saved = []
    real = Checkpoints.save

    def note(self, step, *rest):
        if self.folder.name == "checkpoints":
            saved[-1].append(step)
        return real(self, step, *rest)

    monkeypatch.setattr(Checkpoints, "save", note)
    # A minute between two looks at the clock.
    monkeypatch.setattr(
        "tfbio.training.run.time.monotonic", lambda: clock.append(60) or now() + sum(clock)
    )
    summaries = []
    for minutes in (0.0, 3.0):
        saved.append([])
        experiment = training.Classification(
            **options, checkpoint_minutes=minutes, workdir=str(tmp_path / str(minutes))
        )
        summaries.append(training.train_and_evaluate(experiment, lambda text: None))
    assert len(saved[0]) == 1
    assert saved[0][-1] == saved[1][-1] == summaries[0]["steps"]
    # A call of 5 steps is a minute or more, and so is a checkpoint.
    assert 1 < len(saved[1]) <= 3
    assert saved[1][0] >= 10
    assert all(step % 5 == 0 for step in saved[1][:-1])
    for name in ("test_loss", "weight_angles"):
        assert summaries[0][name] == summaries[1][name]
