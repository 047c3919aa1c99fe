"""Two processes that train one network: alike to the bit, and nothing is lost when one goes."""

import dataclasses
import json
import os
import pathlib
import shutil
import signal
import socket

import numpy as np
import pytest
import tensorflow as tf

from tests import kills
from tests.cases import assert_same_learning
from tfbio import training
from tfbio.training import folder, records, use
from tfbio.training.loop import Loop
from tfbio.training.run import Training
from tfbio.training.strategies import Devices
from tfbio.training.telemetry import Telemetry

OPTIONS = {
    "model": f"{pathlib.Path(__file__).parents[1] / 'user_networks.py'}:chain",
    "rule": "brsf",
    "overrides": "dense1=bp;dense2=bp",  # compiled sooner
    "epochs": 2,
    # 1150 images: no batch is trimmed to a multiple of two.
    "validation_fraction": 0.2,
    "batch_size": 50,
    "learning_rate": 0.02,
    "steps_per_call": 2,
    "log_every": 2,
    "telemetry_every": 0,
    "checkpoint_every": 7,
}


def work(index, addresses, runs):
    """Train as one of the workers, one run after the other."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    task = {"type": "worker", "index": index}
    os.environ["TF_CONFIG"] = json.dumps({"cluster": {"worker": addresses}, "task": task})
    for workdir, signals, changes in runs:
        with pytest.MonkeyPatch.context() as patched:
            train_and_report(index, workdir, signals, changes, patched)


def train_and_report(index, workdir, signals, changes, patched):
    """Train as a worker, who sends itself a signal at a step, and report."""
    real, end = Training.take_steps, Training.summarize

    def train(self, batches, steps):
        number, step = signals.get(index, (0, None))
        if number and self.step >= step:
            os.kill(os.getpid(), number)
        real(self, batches, steps)
        if self.step == OPTIONS["steps_per_call"]:
            weights = [variable.numpy() for variable in self.model.trainable_variables]
            np.savez(f"{workdir}.first{index}.npz", *weights)

    def summarize(self):
        end(self)
        weights = [variable.numpy() for variable in self.model.trainable_variables]
        np.savez(f"{workdir}.worker{index}.npz", *weights)

    patched.setattr(Training, "take_steps", train)
    patched.setattr(Training, "summarize", summarize)
    options = {**OPTIONS, **changes, "strategy": "multi_worker", "workdir": str(workdir)}
    experiment = training.Classification(**options)
    report = pathlib.Path(f"{workdir}.worker{index}.txt")
    report.unlink(missing_ok=True)
    told = []
    try:
        training.train_and_evaluate(experiment, told.append)
        report.write_text("\n".join(["done", *told]))
    except (training.Interrupted, OSError, ValueError) as error:
        report.write_text("\n".join([f"{type(error).__name__}: {error}", *told]))


def free_addresses():
    with socket.socket() as one, socket.socket() as other:
        for each in (one, other):
            each.bind(("127.0.0.1", 0))
        return [f"127.0.0.1:{each.getsockname()[1]}" for each in (one, other)]


def run_all(*runs):
    """Start both workers; return what each reports of each run, None for one that was killed.

    Args:
        *runs: (workdir, signals, changes) of each.
    """
    addresses, context = free_addresses(), kills.context()
    processes = [context.Process(target=work, args=(index, addresses, runs)) for index in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(300)
        assert process.exitcode is not None, "a worker hangs"
    return [
        [report.read_text() if report.exists() else None for report in reports]
        for reports in (
            [pathlib.Path(f"{workdir}.worker{index}.txt") for index in range(2)]
            for workdir, _, _ in runs
        )
    ]


def run(workdir, signals=None, **changes):
    (reports,) = run_all((workdir, signals or {}, changes))
    return reports


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """Return the folders of two runs of the same workers, and their reports.

    One runs through; in the other, a worker is killed.
    """
    place = tmp_path_factory.mktemp("workers")
    runs = (place / "whole", {}, {}), (place / "cut", {1: (signal.SIGKILL, 12)}, {})
    return [(path, reports) for (path, _, _), reports in zip(runs, run_all(*runs), strict=True)]


@pytest.fixture(scope="module")
def whole(both):
    (path, reports), _ = both
    assert [report.split("\n")[0] for report in reports] == ["done", "done"]
    # The chief alone speaks.
    assert "epoch   2/2" in reports[0]
    assert reports[1] == "done"
    return path


def weights(path):
    with np.load(path) as archive:
        return [archive[name] for name in archive.files]


def test_two_workers_are_alike(whole):
    one, other = (weights(f"{whole}.worker{index}.npz") for index in range(2))
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)


def first_steps(**changes):
    """Return one process's weights before and after its first two steps, and what it measured.

    Eagerly, as there are no more of them.
    """
    prepared = training.prepare(training.Classification(**{**OPTIONS, **changes}))
    variables = prepared.model.trainable_variables
    start = [variable.numpy() for variable in variables]
    steps, batches = OPTIONS["steps_per_call"], iter(prepared.epoch(0, 0))
    tf.config.run_functions_eagerly(True)
    try:
        assert Loop(prepared).train(batches, steps) == (steps, True)
    finally:
        tf.config.run_functions_eagerly(False)
    return start, [variable.numpy() for variable in variables], prepared.model.get_metrics_result()


def test_two_workers_take_the_steps_of_one_process(whole):
    # The first two steps: their float32 sums differ in order, and later steps amplify that.
    start, alone, measured = first_steps()
    for index in range(2):
        assert_same_learning(weights(f"{whole}.first{index}.npz"), alone, start)
    record = records.read(whole)[1]
    assert record["step"] == OPTIONS["steps_per_call"]
    for name, value in measured.items():
        assert record[name] == pytest.approx(float(value), rel=1e-5)
    # What workers would learn that saw other images, or did not average.
    for wrong in ({"batch_size": 25}, {"learning_rate": 0.04}):
        with pytest.raises(AssertionError):
            assert_same_learning(first_steps(**wrong)[1], alone, start)


def test_two_workers_measure_what_one_process_does(whole):
    summary = json.loads((whole / "summary.json").read_text())
    experiment = dataclasses.replace(folder.read_flags(whole), strategy="one_device")
    measured = use.evaluate(experiment)
    assert {"test_accuracy", "test_loss", "validation_accuracy"} <= set(measured)
    for name in measured:
        wanted = summary["steps"] if name == "step" else summary[name]
        assert measured[name] == pytest.approx(wanted, rel=1e-5)


@pytest.mark.long
def test_two_workers_measure_the_angles_of_one_process(tmp_path):
    changes = {"epochs": 1, "telemetry_every": 20}
    reports = run(tmp_path / "run", **changes)
    assert [report.split("\n")[0] for report in reports] == ["done", "done"]
    prepared = training.prepare(training.Classification(**{**OPTIONS, **changes}))
    start = records.read(tmp_path / "run")[0]
    alone = Telemetry(prepared)
    measured = {**alone.of_weights(), **alone.of_gradients()}
    assert any(name.startswith("gradient_angle/") for name in measured)
    for name, value in measured.items():
        assert start[name] == pytest.approx(value, rel=1e-3)


def test_a_worker_that_was_killed_is_missed(both):
    _, (path, (left, killed)) = both
    assert killed is None
    assert left.startswith(
        "WorkerLost: `strategy='multi_worker'`: worker 0 of 2 has lost the others"
    )
    assert "Start all workers again with the same commands" in left
    assert [int(p.name[5:14]) for p in (path / "checkpoints").glob("step-*.npz")] == [7]


@pytest.mark.long
def test_what_is_cut_goes_on_to_the_same_bits(both, whole, tmp_path):
    path = tmp_path / "cut"
    shutil.copytree(both[1][0], path)
    reports = run(path)
    assert "Going on from step 7 of 46." in reports[0]
    assert [report.split("\n")[0] for report in reports] == ["done", "done"]
    assert not kills.differences(kills.outcome(whole), kills.outcome(path))


@pytest.mark.long
def test_a_signal_to_one_worker_saves_and_ends_both(whole, tmp_path):
    path = tmp_path / "cut"
    reports = run(path, {1: (signal.SIGTERM, 30)})
    assert [report.split("\n")[0] for report in reports] == [
        "Interrupted: Ended by SIGTERM." for _ in range(2)
    ]
    steps = [int(p.name[5:14]) for p in (path / "checkpoints").glob("step-*.npz")]
    assert max(steps) >= 30
    assert [report.split("\n")[0] for report in run(path)] == ["done", "done"]
    assert not kills.differences(kills.outcome(whole), kills.outcome(path))


def test_a_worker_that_ends_first_is_no_loss_once_there_is_a_summary(tmp_path, monkeypatch):
    real = Devices.agree

    def agree(self, value):
        if lost():
            raise tf.errors.UnavailableError(None, None, "Socket closed")
        return real(self, value)

    monkeypatch.setattr(Devices, "agree", agree)
    experiment = training.Classification(
        workdir=str(tmp_path), rule="bp", epochs=1, batch_size=400, telemetry_every=0
    )
    lost = (tmp_path / "metrics.csv").exists  # before the end
    with pytest.raises(tf.errors.UnavailableError):
        training.train_and_evaluate(experiment, lambda text: None)
    lost = (tmp_path / "summary.json").exists
    assert training.train_and_evaluate(experiment, lambda text: None)["steps"] == 4


def test_workers_that_were_started_differently_are_told():
    class Two(Devices):
        def gather(self, array):
            return np.stack([array, array + self.worker])

    Two(None, worker=0, workers=2).check_same({"epochs": 3})
    with pytest.raises(ValueError, match="have other options or data than each other"):
        Two(None, worker=1, workers=2).check_same({"epochs": 3})
