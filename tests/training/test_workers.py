"""Two processes that train one network: alike to the bit, and nothing is lost when one goes."""

import json
import os
import pathlib
import signal
import socket

import numpy as np
import pytest

from tests import kills
from tfbio import training
from tfbio.training.strategies import Devices
from tfbio.training.train import Training

OPTIONS = {
    "rule": "brsf",
    "epochs": 2,
    # 1150 images: no batch is trimmed to a multiple of two.
    "validation_fraction": 0.2,
    "batch_size": 50,
    "learning_rate": 0.02,
    "steps_per_call": 2,
    "log_every": 10,
    "telemetry_every": 20,
    "checkpoint_every": 7,
}


def work(index, addresses, workdir, signals):
    """Train as one of the workers, who sends itself a signal at a step, and report."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    task = {"type": "worker", "index": index}
    os.environ["TF_CONFIG"] = json.dumps({"cluster": {"worker": addresses}, "task": task})
    real, end = Training._train, Training.summarize

    def train(self, batches, steps):
        number, step = signals.get(index, (0, None))
        if number and self.step >= step:
            os.kill(os.getpid(), number)
        real(self, batches, steps)

    def summarize(self):
        end(self)
        weights = [variable.numpy() for variable in self.model.trainable_variables]
        np.savez(f"{workdir}.worker{index}.npz", *weights)

    Training._train, Training.summarize = train, summarize
    experiment = training.Classification(**OPTIONS, strategy="multi_worker", workdir=str(workdir))
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


def run(workdir, signals=None):
    """Start both workers; return what each reports, None for one that was killed."""
    addresses, context = free_addresses(), kills.context()
    processes = [
        context.Process(target=work, args=(index, addresses, workdir, signals or {}))
        for index in range(2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(300)
        assert process.exitcode is not None, "a worker hangs"
    reports = [pathlib.Path(f"{workdir}.worker{index}.txt") for index in range(2)]
    return [report.read_text() if report.exists() else None for report in reports]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("workers") / "whole"
    reports = run(path)
    assert [report.split("\n")[0] for report in reports] == ["done", "done"]
    # The chief alone speaks.
    assert "epoch   2/2" in reports[0]
    assert reports[1] == "done"
    return path


def weights(path):
    with np.load(path) as archive:
        return [archive[name] for name in archive.files]


def test_two_workers_are_alike_and_equal_one_process(whole, tmp_path):
    one, other = (weights(f"{whole}.worker{index}.npz") for index in range(2))
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)
    experiment = training.Classification(**OPTIONS, workdir=str(tmp_path))
    summary = training.train_and_evaluate(experiment, lambda text: None)
    with np.load(max((tmp_path / "checkpoints").glob("step-*.npz"))) as archive:
        alone = [archive[f"{place:05d}.0"] for place in range(len(archive.files) - 1)]
    for a in one:
        same = [b for b in alone if b.shape == a.shape]
        assert min(np.abs(a - b).max() for b in same) < 1e-5
    together = json.loads((whole / "summary.json").read_text())
    for name in ("test_accuracy", "test_loss", "validation_accuracy", "loss", "accuracy"):
        assert together[name] == pytest.approx(summary[name], abs=1e-5)


def test_what_is_cut_goes_on_to_the_same_bits(whole, tmp_path):
    path = tmp_path / "cut"
    left, killed = run(path, {1: (signal.SIGKILL, 12)})
    assert killed is None
    assert left.startswith(
        "WorkerLost: `strategy='multi_worker'`: worker 0 of 2 has lost the others"
    )
    assert "Start all workers again with the same commands" in left
    reports = run(path, {1: (signal.SIGTERM, 30)})
    assert [report.split("\n")[0] for report in reports] == [
        "Interrupted: Ended by SIGTERM." for _ in range(2)
    ]
    assert "Going on from step 7 of 46." in reports[0]
    steps = [int(p.name[5:14]) for p in (path / "checkpoints").glob("step-*.npz")]
    assert max(steps) >= 30
    assert [report.split("\n")[0] for report in run(path)] == ["done", "done"]
    assert not kills.differences(kills.outcome(whole), kills.outcome(path))


def test_workers_that_were_started_differently_are_told():
    class Two(Devices):
        def gather(self, array):
            return np.stack([array, array + self.worker])

    Two(None, worker=0, workers=2).check_same({"epochs": 3})
    with pytest.raises(ValueError, match="have other options or data than each other"):
        Two(None, worker=1, workers=2).check_same({"epochs": 3})
