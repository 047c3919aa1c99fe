"""The harness of kills: a training that is killed again and again must end as if it never was.

python -m tests.kills --kills=200
python -m tests.kills --kills=20 --network=resnet18
python -m tests.kills --kills=20 --network=retinanet

Each training is killed with SIGKILL at random moments of its process's life (building, training,
validating, writing checkpoints and records, testing) until it ends; then its weights, metrics.csv,
TensorBoard curves and summary are compared, to the bit, with those of one that ran through.
"""

import argparse
import itertools
import json
import multiprocessing
import os
import pathlib
import random
import shutil
import signal
import sys
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

OPTIONS = {
    "model": f"{pathlib.Path(__file__).parent / 'user_networks.py'}:network",
    "rule": "brsf",
    "augmentation": "crop_flip",
    "epochs": 12,
    "batch_size": 50,
    "learning_rate": 0.02,
    "schedule": "cosine",
    "steps_per_call": 4,
    "log_every": 10,
    "telemetry_every": 20,
    "checkpoint_every": 7,
}
"""A training of some seconds, a good part of which goes into records and checkpoints."""

RESNET18 = {
    "model": "resnet18",
    "image_size": 32,
    "rule": "sign_symmetry",
    "train_fraction": 0.2,
    "epochs": 3,
    "batch_size": 50,
    "weight_decay": 1e-4,
    "steps_per_call": 2,
    "log_every": 2,
    "telemetry_every": 4,
    "checkpoint_every": 3,
}
"""One of large operations, many of which run at the same time."""

RETINANET = {
    "dataset": "coco",
    "image_size": "64",
    "augmentation": "jitter_flip",
    "backbone": "resnet10",
    "channels": 8,
    "head_layers": 1,
    "anchor_scale": 0.5,
    "rule": "frsf",
    "epochs": 2,
    "batch_size": 4,
    "optimizer": "adam",
    "learning_rate": 0.001,
    "steps_per_call": 2,
    "log_every": 2,
    "telemetry_every": 4,
    "checkpoint_every": 3,
}
"""The same of a detector, on the canvases in `data_dir`, see `canvases`."""

CLOCK = ("seconds", "seconds_per_step", "resumed_at_steps")
"""What of a summary depends on when and how often the training was started."""


def canvases(folder):
    """Draw a few canvases of 64×64, and return their folder."""
    from tfbio.detection.canvases import Counts, prepare

    return str(prepare(64, Counts(16, 6, 6), cache=str(folder)))


def train(options, workdir):
    """Train, in a process that may be killed."""
    from tfbio import detection, training

    kind = detection.Detection if "backbone" in options else training.Classification
    training.train_and_evaluate(kind(**options, workdir=str(workdir)), tell=lambda text: None)


def outcome(workdir):
    """Return all that must not depend on kills: a dict from name to something to compare."""
    import numpy as np
    import tensorflow as tf

    workdir = pathlib.Path(workdir)
    found = {"metrics.csv": (workdir / "metrics.csv").read_bytes()}
    summary = json.loads((workdir / "summary.json").read_text())
    found["summary"] = {name: value for name, value in summary.items() if name not in CLOCK}
    for folder in ("checkpoints", "best"):
        newest = max((workdir / folder).glob("step-*.npz"))
        with np.load(newest) as archive:
            for name in archive.files:
                if name != "progress":  # its times
                    found[f"{folder}/{newest.name[:14]}/{name}"] = archive[name].tobytes()
    curves = {}
    for path in sorted(workdir.glob("events.out.tfevents.*")):
        for record in tf.data.TFRecordDataset(str(path)):
            event = tf.compat.v1.Event.FromString(record.numpy())
            for value in event.summary.value:
                if value.tag != "images_per_second":
                    content = value.tensor.SerializeToString()
                    curves.setdefault(value.tag, []).append((event.step, content))
    for tag, points in curves.items():
        if not tag.startswith(("_hparams_", "options/")):  # the start's time, the folder's name
            # Points out of order are an overlap; a gap is a difference.
            found[f"events/{tag}"] = points
    return found


def differences(one, other):
    """Return the names of what differs between two outcomes."""
    names = [*one, *(name for name in other if name not in one)]
    return [name for name in names if one.get(name) != other.get(name)]


def killed(options, workdir, delays, context):
    """Train to the end through kills; return the moments of the kills, in seconds of life."""
    moments = []
    for delay in delays:
        process = context.Process(target=train, args=(options, workdir))
        begin = time.monotonic()
        process.start()
        process.join(delay)
        if process.is_alive():
            os.kill(process.pid, signal.SIGKILL)
            process.join()
            moments.append(time.monotonic() - begin)
        elif process.exitcode == 0:
            return moments
        else:
            raise RuntimeError(f"The training in {workdir} ended with {process.exitcode}.")
    raise RuntimeError(f"The training in {workdir} did not come to its end.")


def kill_after_checkpoint(options, workdir, context):
    """Kill a training in a process of its own as soon as it has written a checkpoint."""
    process = context.Process(target=train, args=(options, workdir))
    process.start()
    while process.is_alive() and not list(pathlib.Path(workdir).glob("checkpoints/step-*.npz")):
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    if process.exitcode != -signal.SIGKILL or (pathlib.Path(workdir) / "summary.json").exists():
        raise RuntimeError(f"The training in {workdir} was over before it could be killed.")


def copy_until(whole, path, step):
    """Copy a run as a kill after its last step leaves it, had it last been saved at `step`."""
    shutil.copytree(whole, path, dirs_exist_ok=True)
    for checkpoint in (path / "checkpoints").iterdir():
        if int(checkpoint.name[5:14]) > step:
            checkpoint.unlink()
    (path / "summary.json").unlink()


def context():
    """Return a multiprocessing context whose processes have TensorFlow imported."""
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(["tfbio.training"])
    return found


def main(arguments=None):
    """Kill trainings until there are as many kills as asked for; return how many differed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--network", choices=("small", "resnet18", "retinanet"), default="small")
    chosen = parser.parse_args(arguments)
    folder = pathlib.Path(tempfile.mkdtemp(prefix="kills-"))
    draw = random.Random(chosen.seed)
    processes = context()
    warm = processes.Process()  # TensorFlow is imported once, and that is no part of a life
    warm.start()
    warm.join()
    options = {"small": OPTIONS, "resnet18": RESNET18, "retinanet": RETINANET}[chosen.network]
    if chosen.network == "retinanet":
        options = {**options, "data_dir": canvases(folder)}
    begin = time.monotonic()
    killed(options, folder / "whole", [None], processes)
    life = time.monotonic() - begin
    reference = outcome(folder / "whole")
    print(f"uninterrupted: {life:.1f} s, {len(reference)} things to compare", flush=True)
    kills = failures = resumed = 0
    for number in itertools.count():
        if kills >= chosen.kills:
            break
        workdir = folder / f"run{number}"
        # Half of the lives end early on: more kills for a training, and in its preparation.
        delays = (draw.uniform(0, life * draw.choice((0.5, 1.1))) for _ in range(1000))
        moments = killed(options, workdir, delays, processes)
        odd = differences(reference, outcome(workdir))
        summary = json.loads((workdir / "summary.json").read_text())
        resumed += len(summary["resumed_at_steps"])
        kills += len(moments)
        failures += bool(odd)
        steps = ", ".join(map(str, summary["resumed_at_steps"]))
        print(
            f"run {number}: {len(moments)} kills, resumed at steps {steps or '–'}: "
            + (f"DIFFERS in {odd[:5]}" if odd else "identical"),
            flush=True,
        )
        if not odd:
            shutil.rmtree(workdir)
    print(
        f"{kills} kills in {number} runs, {resumed} resumptions from a checkpoint, "
        f"{failures} runs that differ, {time.monotonic() - begin:.0f} s"
    )
    if not failures:
        shutil.rmtree(folder)
    return failures


if __name__ == "__main__":
    sys.exit(min(main(), 1))
