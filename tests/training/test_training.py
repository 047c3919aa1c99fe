"""Training: nothing is lost, nothing is written twice, and what cannot go on says so."""

import csv
import dataclasses
import errno
import itertools
import json
import math
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

import tfbio
from tests import kills
from tests.cases import long_but
from tfbio import training
from tfbio.studies.runs import load
from tfbio.training import Classification, folder, use
from tfbio.training.checkpoints import Checkpoints
from tfbio.training.classifier import ClassificationTask
from tfbio.training.optimization import make_schedule
from tfbio.training.records import Records
from tfbio.training.schedules import Schedule

ROOT = pathlib.Path(__file__).parents[2]
# A rule that is compiled soon; what "brsf" draws at each step: kills.py, and the long tier.
OPTIONS = {**kills.OPTIONS, "epochs": 2, "rule": "frsf"}


class Cut(BaseException):
    """Ends a training as abruptly as an exception can."""


def train(workdir, cut_at=None, tell=lambda text: None, **changes):
    """Train; with `cut_at`, end without a word once so many steps are done."""

    def progress(step, total):
        if cut_at is not None and step >= cut_at:
            raise Cut

    options = {**OPTIONS, **changes}
    experiment = training.Classification(**options, workdir=str(workdir))
    return training.train_and_evaluate(experiment, tell, progress)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Return a folder of images of two classes, higher than wide."""
    root = tmp_path_factory.mktemp("images")
    for part, label in itertools.product(("train", "test"), range(2)):
        place = root / part / str(label)
        place.mkdir(parents=True)
        for index in range(10):
            image = np.full((12, 8, 3), 100 * label + index)
            keras.utils.save_img(place / f"{index}.png", image, scale=False)
    return root


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Return the folder of a run that ran through."""
    path = tmp_path_factory.mktemp("runs") / "whole"
    train(path)
    return path


@pytest.fixture(scope="module")
def images_run(tmp_path_factory, images):
    """Return the folder of a run on them that ran through."""
    path = tmp_path_factory.mktemp("runs") / "images"
    options = {"dataset": "folder", "data_dir": str(images), "model": "digits_cnn", "rule": "bp"}
    options |= {"validation_fraction": 0.0, "augmentation": "none", "telemetry_every": 0}
    train(path, **options, batch_size=5, epochs=1)
    return path


@pytest.fixture(scope="module")
def full_disk(tmp_path_factory):
    """Return the folder of a run whose disk was full from step 31 of 52 on, and its error."""
    path = tmp_path_factory.mktemp("runs") / "cut"
    real = Checkpoints.save

    def full(self, step, *rest):
        if step > 30:
            raise OSError(errno.ENOSPC, "No space left on device", str(self.folder / "a.npz"))
        return real(self, step, *rest)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Checkpoints, "save", full)
        with pytest.raises(OSError, match="No space left") as error:
            train(path)
    return path, error


@pytest.fixture(scope="module")
def cut(full_disk):
    """Return the folder of a run that ended after 28 of 52 steps were saved, to take a copy of."""
    return full_disk[0]


def test_a_run_holds_what_it_says(whole):
    rows = list(csv.DictReader((whole / "metrics.csv").read_text().splitlines()))
    steps = [int(row["step"]) for row in rows]
    assert steps == sorted(set(steps))
    assert steps == [0, 10, 20, 26, 30, 40, 50, 52]
    ends = [row for row in rows if row["validation_accuracy"]]
    assert [row["step"] for row in ends] == ["26", "52"]
    summary = json.loads((whole / "summary.json").read_text())
    assert summary["steps"] == 52
    assert summary["resumed_at_steps"] == []
    assert summary["validation_accuracy"] == float(ends[-1]["validation_accuracy"])
    best = max(ends, key=lambda row: float(row["validation_accuracy"]))
    assert summary["best"]["step"] == int(best["step"])
    assert summary["best"]["validation_accuracy"] == float(best["validation_accuracy"])
    assert set(summary["weight_angles"]) == {"conv", "logits"}
    assert 0 < summary["seconds_per_step"] < summary["seconds"]
    for name, degrees in summary["weight_angles"].items():
        assert float(rows[-1][f"weight_angle/{name}"]) == degrees
    measured = [int(row["step"]) for row in rows if row["gradient_angle/conv"]]
    assert measured == [0, 20, 40, 52]
    angles = summary["gradient_angles"]
    assert angles["logits"] == 0 < angles["conv"] == float(rows[-1]["gradient_angle/conv"])
    assert 0 < summary["local_gradient_angles"]["logits"] < 180
    assert keras.utils.load_img(whole / "angles.png").width > 1000
    (start,) = json.loads((whole / "run.json").read_text())["starts"]
    assert start["versions"]["tensorflow"] == tf.__version__
    assert folder.read_flags(whole) == training.Classification(**OPTIONS, workdir=str(whole))
    assert len(list((whole / "checkpoints").iterdir())) == 2


def test_the_schedule_is_the_one_recorded(whole):
    rows = list(csv.DictReader((whole / "metrics.csv").read_text().splitlines()))
    for row in rows[1:]:
        share = (int(row["step"]) - 1) / 52
        expected = 0.02 * (1 + math.cos(math.pi * share)) / 2
        assert float(row["learning_rate"]) == pytest.approx(expected, rel=1e-5)


def assert_cuts_change_nothing(whole, path, *moments):
    for cut_at in moments:
        with pytest.raises(Cut):
            train(path, cut_at)
    train(path)
    assert not kills.differences(kills.outcome(whole), kills.outcome(path))


@pytest.mark.long
def test_a_training_that_was_cut_ends_as_if_it_was_not(whole, tmp_path):
    assert_cuts_change_nothing(whole, tmp_path, 17, 43)


@pytest.mark.long
@settings(max_examples=4)
@given(first=st.integers(1, 51), second=st.integers(1, 52))
def test_a_training_that_was_cut_anywhere_ends_as_if_it_was_not(
    whole, tmp_path_factory, first, second
):
    assert_cuts_change_nothing(whole, tmp_path_factory.mktemp("cut"), first, second)


@pytest.fixture(scope="module")
def processes():
    return kills.context()


def test_a_killed_process_ends_as_if_it_was_not(whole, processes, tmp_path):
    kills.kill_after_checkpoint(OPTIONS, tmp_path, processes)
    train(tmp_path)
    assert json.loads((tmp_path / "summary.json").read_text())["resumed_at_steps"]
    assert not kills.differences(kills.outcome(whole), kills.outcome(tmp_path))


def assert_it_goes_on_to_the_same_bits(whole, path, *steps, **options):
    """Assert it of a run, from its checkpoint at each of the steps."""
    for step in steps:
        cut = path / f"from{step}"
        kills.copy_until(whole, cut, step)
        train(cut, **options)
        assert json.loads((cut / "summary.json").read_text())["resumed_at_steps"] == [step]
        assert not kills.differences(kills.outcome(whole), kills.outcome(cut))


ON_REPLICAS = {"strategy": "mirrored", "epochs": 1, "rule": "brsf", "telemetry_every": 0}


def test_two_replicas_resume_to_the_bit(tmp_path):
    options = {**ON_REPLICAS, "augmentation": "none", "overrides": "conv=bp"}
    ends = []
    for begin in (0, 14):
        told = []
        with pytest.raises(Cut):
            train(tmp_path, 21, tell=told.append, **options)
        assert told == ([f"Going on from step {begin} of 26."] if begin else [])
        newest = max((tmp_path / "checkpoints").glob("step-000000021-*.npz"))
        with np.load(newest) as archive:
            arrays = {name: archive[name].tobytes() for name in set(archive) - {"progress"}}
        ends.append((arrays, (tmp_path / "metrics.csv").read_bytes()))
        newest.unlink()
    assert ends[0] == ends[1]
    # Where replicas differ (the metrics), each has its own; the weights are alike.
    replicas = [sum(name.endswith(f".{index}") for name in arrays) for index in (0, 1)]
    assert 0 < replicas[1] < 6
    assert replicas[0] > 15


@pytest.mark.long
def test_two_replicas_resume_and_end_alike(tmp_path):
    train(tmp_path / "whole", **ON_REPLICAS)
    assert_it_goes_on_to_the_same_bits(tmp_path / "whole", tmp_path, 21, **ON_REPLICAS)


CHAIN = f"{ROOT / 'tests' / 'user_networks.py'}:chain"
ALTERNATING = "sdtp(schedule='alternating')"


@pytest.mark.parametrize(
    "rule", long_but([ALTERNATING], [ALTERNATING, "l_drl(rate=0.01, iterations=2)", "brsf"])
)
def test_what_rules_learn_or_draw_resumes_to_the_bit(tmp_path, rule):
    # Within a turn of the inverses; within one of the forward weights: below.
    options = {"model": CHAIN, "rule": rule, "momentum": 0.5, "epochs": 2}
    options |= {"keep_checkpoints": 9, "telemetry_every": 0, "augmentation": "none"}
    train(tmp_path / "whole", **options)
    steps = (7,) if rule == ALTERNATING else (7, 35)
    assert_it_goes_on_to_the_same_bits(tmp_path / "whole", tmp_path, *steps, **options)


@pytest.mark.long
def test_a_run_that_drops_remainders_resumes_to_the_bit(tmp_path, images):
    options = {"dataset": "folder", "data_dir": str(images), "model": "digits_cnn", "rule": "bp"}
    options |= {"validation_fraction": 0.2, "augmentation": "none", "telemetry_every": 0}
    # Of 20 images 16 are learned from: two batches of 6.
    options |= {"batch_size": 6, "drop_remainder": True, "checkpoint_every": 1}
    options |= {"keep_checkpoints": 9, "log_every": 1, "steps_per_call": 1}
    assert train(tmp_path / "whole", **options)["steps"] == 4
    assert_it_goes_on_to_the_same_bits(tmp_path / "whole", tmp_path, 3, **options)
    with pytest.raises(ValueError, match="drop_remainder"):
        train(tmp_path / "whole", **{**options, "drop_remainder": False})


@pytest.mark.long
def test_a_turn_of_the_forward_weights_resumes_to_the_bit(tmp_path):
    options = {"model": CHAIN, "rule": ALTERNATING, "momentum": 0.5, "epochs": 2}
    train(tmp_path / "whole", **options, keep_checkpoints=9)
    assert_it_goes_on_to_the_same_bits(tmp_path / "whole", tmp_path, 35, **options)


@pytest.mark.long
def test_two_networks_on_replicas_follow_each_other_in_one_process(tmp_path):
    for model, rule in (("digits_cnn", "fa"), (OPTIONS["model"], "brsf")):
        options = {"strategy": "mirrored", "epochs": 1, "model": model, "rule": rule}
        options["telemetry_every"] = 0
        assert train(tmp_path / rule, **options)["steps"] == 26


def damage_all_checkpoints(path):
    for checkpoint in (path / "checkpoints").iterdir():
        checkpoint.write_bytes(b"nothing")


def test_a_run_that_begins_again_and_is_cut_in_validation_is_written_down_once(
    whole, cut, tmp_path, monkeypatch
):
    shutil.copytree(cut, tmp_path, dirs_exist_ok=True)
    damage_all_checkpoints(tmp_path)
    evaluations = []
    real = training.loop.Loop.evaluate

    def evaluate(self, split, heed, *more):
        evaluations.append(split)
        if len(evaluations) == 1:
            signal.raise_signal(signal.SIGTERM)
        return real(self, split, heed, *more)

    monkeypatch.setattr(training.loop.Loop, "evaluate", evaluate)
    told = []
    with pytest.raises(training.Interrupted):
        train(tmp_path, tell=told.append, checkpoint_every=1000)
    assert told[-1].startswith("Saved at step 26;")
    assert not any("Going on" in line for line in told)
    with pytest.raises(Cut):  # it has validated, and not saved since
        train(tmp_path, 40, checkpoint_every=1000)
    train(tmp_path, checkpoint_every=1000)
    assert not kills.differences(kills.outcome(whole), kills.outcome(tmp_path))


def test_a_run_goes_on_with_its_own_data_only(images_run, tmp_path, images):
    shutil.copytree(images_run, tmp_path / "run")
    (tmp_path / "run" / "summary.json").unlink()
    options = dataclasses.asdict(folder.read_flags(images_run))
    del options["workdir"], options["data_dir"]
    others = tmp_path / "others"
    shutil.copytree(images, others)
    changed = others / "train" / "0" / "0.png"
    changed.write_bytes((others / "train" / "1" / "1.png").read_bytes())
    for change in (lambda: None, changed.unlink):
        change()
        with pytest.raises(ValueError, match="differ in fingerprint"):
            train(tmp_path / "run", **options, data_dir=str(others))


@pytest.mark.parametrize("part", long_but(["train"], ["train", "test"]))
def test_a_damaged_image_for_validation_or_test_is_told_before_the_first_step(
    tmp_path, images, part
):
    data_dir = tmp_path / "data"
    shutil.copytree(images, data_dir)
    options = {"dataset": "folder", "data_dir": str(data_dir), "image_size": 8, "rule": "bp"}
    options |= {"model": "digits_cnn", "batch_size": 5, "validation_fraction": 0.5, "epochs": 1}
    options["telemetry_every"] = 0
    validation = training.prepare(training.Classification(**{**OPTIONS, **options})).validation
    held = sorted(validation.sources)
    path = {"train": pathlib.Path(held[3].decode()), "test": data_dir / "test/1/7.png"}[part]
    content = path.read_bytes()
    path.write_bytes(content[:-20])
    message = rf"^{re.escape(str(path))} cannot be read as an image\.$"
    with pytest.raises(ValueError, match=message):
        train(tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()
    path.write_bytes(content)
    with pytest.raises(Cut):
        train(tmp_path / "run", 2, **options)


def points(path):
    """Return a run's curves, those of the clock left out: a list of (step, value) by tag."""
    found = {}
    for name in sorted(path.glob("events.out.tfevents.*")):
        for record in tf.data.TFRecordDataset(str(name)).as_numpy_iterator():
            event = tf.compat.v1.Event.FromString(record)
            for value in event.summary.value:
                if value.tag != "images_per_second":
                    point = event.step, tf.make_ndarray(value.tensor)
                    found.setdefault(value.tag, []).append(point)
    return found


@pytest.mark.parametrize("where", [0.01, 0.5, 0.9, None])
@pytest.mark.parametrize("which", [0, 1])
def test_curves_lost_in_damaged_events_are_written_again(tmp_path, which, where):
    def write(steps, kept):
        records = Records(tmp_path, ["loss", "angle"], kept, tell=told.append)
        for step in steps:
            loss = {"loss": 1 / (step + 1)} if step else {}
            records.add(step, 1, {**loss, "angle": step / 3}, {"images_per_second": 9.0})
        records.close()

    told = []
    write(range(8), None)
    write(range(8, 15), 7)
    whole = points(tmp_path)
    assert [step for step, _ in whole["angle"]] == list(range(15))
    assert not told
    path = sorted(tmp_path.glob("events.out.tfevents.*"))[which]
    content = bytearray(path.read_bytes())
    if where is None:
        path.unlink()
    else:
        content[int(where * len(content))] ^= 255
        path.write_bytes(content)
    write((), 14)
    assert points(tmp_path) == whole
    (line,) = told
    assert re.search(r"are damaged from step \d+ on: .* up to step 14\.$", line)
    write((), 14)
    assert points(tmp_path) == whole
    assert len(told) == 1


@pytest.mark.long
def test_a_run_whose_events_are_lost_goes_on_with_all_of_its_curves(whole, cut, tmp_path):
    shutil.copytree(cut, tmp_path, dirs_exist_ok=True)
    for path in tmp_path.glob("events.out.tfevents.*"):
        path.write_bytes(path.read_bytes()[:40] + b"?" + path.read_bytes()[41:])
    told = []
    train(tmp_path, tell=told.append)
    assert "are damaged from step 0 on: the curves were written again from metrics.csv" in told[1]
    assert not kills.differences(kills.outcome(whole), kills.outcome(tmp_path))
    assert set(points(whole)) == set(points(tmp_path))  # the options as text, too


RECORDS = ["flags.cfg", "run.json", "data.json", "metrics.csv", "summary.json"]


@pytest.mark.parametrize("name", RECORDS)
@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"step,epoch\nx,y\n", b"\xff\xfe\n", None])
def test_a_damaged_record_is_told_in_one_line(whole, tmp_path, name, content):
    path = tmp_path / "run"
    shutil.copytree(whole, path)
    if content is None:
        (path / name).unlink()
    else:
        (path / name).write_bytes(content)
    if (name, content) == ("summary.json", None):
        return  # it is not finished then
    experiment = training.Classification(**OPTIONS, workdir=str(path))
    if name != "data.json":
        with pytest.raises(ValueError, match=name):
            load(path)
    else:
        with pytest.raises(ValueError, match=name):
            use.export(experiment, tmp_path / "export")
    if name != "summary.json":
        (path / "summary.json").unlink()
    no_flags = name == "flags.cfg" and content is None
    with pytest.raises(ValueError, match="so it is not a run's folder" if no_flags else name):
        train(path)


@pytest.mark.parametrize(
    ("edited", "message"),
    [
        (lambda lines: lines[:3] + lines[4:], "it has 7 lines up to step 52, of 8 that were"),
        (lambda lines: [*lines[:3], lines[4], lines[3], *lines[5:]], "at the line '20,"),
        (lambda lines: [*lines[:3], *lines[2:]], "at the line '10,"),
        (lambda lines: [*lines[:3], f"26,{'9' * 200_000}\n", *lines[4:]], "field larger than"),
    ],
    ids=["lost", "swapped", "twice", "endless"],
)
def test_a_table_that_lost_its_lines_is_not_gone_on_with(whole, tmp_path, edited, message):
    path = tmp_path / "run"
    shutil.copytree(whole, path)
    (path / "summary.json").unlink()
    lines = (path / "metrics.csv").read_text().splitlines(keepends=True)
    (path / "metrics.csv").write_text("".join(edited(lines)))
    before = (path / "metrics.csv").read_bytes()
    with pytest.raises(ValueError, match=f"metrics.csv is damaged:? .*{re.escape(message)}"):
        train(path)
    assert (path / "metrics.csv").read_bytes() == before


def test_flags_without_a_task_or_an_option_are_refused(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "old")
    flags = tmp_path / "old" / "flags.cfg"
    task, *lines = flags.read_text().splitlines(keepends=True)
    assert task == "# classification\n"
    fewer = [task, *(line for line in lines if not line.startswith("--telemetry_every"))]
    for content in (lines, ["# sculpture\n", *lines], fewer):
        flags.write_text("".join(content))
        with pytest.raises(ValueError, match="is damaged, or of another version"):
            train(tmp_path / "old")


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda content: content[: len(content) // 2], marks=pytest.mark.long),
        lambda content: content[:900] + b"?" + content[901:],
        pytest.param(lambda content: b"", marks=pytest.mark.long),
    ],
    ids=["cut short", "one byte", "empty"],
)
def test_a_damaged_checkpoint_falls_back_to_the_one_before(whole, cut, tmp_path, damage):
    shutil.copytree(cut, tmp_path, dirs_exist_ok=True)
    newest = max((tmp_path / "checkpoints").iterdir())
    newest.write_bytes(damage(newest.read_bytes()))
    told = []
    train(tmp_path, tell=told.append)
    assert "damaged; falling back to the one before" in told[0]
    assert "Going on from step 21 of 52" in told[1]
    assert not kills.differences(kills.outcome(whole), kills.outcome(tmp_path))


@pytest.mark.long
def test_without_any_good_checkpoint_a_run_begins_again(whole, cut, tmp_path):
    shutil.copytree(cut, tmp_path, dirs_exist_ok=True)
    damage_all_checkpoints(tmp_path)
    train(tmp_path)
    assert not kills.differences(kills.outcome(whole), kills.outcome(tmp_path))


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_save_and_end_the_command(whole, tmp_path, number):
    options = {**OPTIONS, "checkpoint_every": 1}  # the first is there early on
    flags = [f"--{name}={value}" for name, value in options.items()]
    command = [sys.executable, "-m", "trainers.classify", *flags, f"--workdir={tmp_path}"]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while process.poll() is None and not list(tmp_path.glob("checkpoints/step-*")):
        time.sleep(0.01)
    process.send_signal(number)
    output, errors = process.communicate(timeout=240)
    assert process.returncode == 128 + number
    assert "Saved at step" in output
    assert "Traceback" not in errors
    told = []
    train(tmp_path, tell=told.append, checkpoint_every=1)
    assert "Going on from step" in told[0]
    assert not kills.differences(kills.outcome(whole), kills.outcome(tmp_path))


def train_and_tell(workdir, told):
    """Train in another process, and put what it is refused for into a queue."""
    try:
        train(workdir)
    except ValueError as error:
        told.put(str(error))


def test_a_second_process_is_refused(processes, tmp_path):
    told = processes.Queue()
    with folder.locked(tmp_path):
        process = processes.Process(target=train_and_tell, args=(tmp_path, told))
        process.start()
        assert f"in use by another process (process {os.getpid()} on " in told.get(timeout=100)
        process.join()


def test_a_folder_where_nothing_was_written_is_left_as_it_was_found(tmp_path):
    with pytest.raises(ValueError, match="32 or more"):
        train(tmp_path / "runs" / "new", model="lenet")
    assert not list(tmp_path.iterdir())
    (tmp_path / "mine").mkdir()
    for before in ([], ["notes.txt"]):
        for name in before:
            (tmp_path / "mine" / name).write_text("mine")
        with folder.locked(tmp_path / "mine"):
            assert sorted(os.listdir(tmp_path / "mine")) == ["lock", *before]
        assert sorted(os.listdir(tmp_path / "mine")) == (["lock", *before] if before else [])
    with folder.locked(tmp_path / "new" / "run"):
        (tmp_path / "new" / "run" / "flags.cfg").touch()
    assert sorted(os.listdir(tmp_path / "new" / "run")) == ["flags.cfg", "lock"]


def test_a_lock_that_was_removed_as_it_was_opened_is_none(tmp_path, monkeypatch):
    path = tmp_path / "run"
    real = folder.fcntl.flock
    removed = []

    def flock(file, flags):
        if not removed:
            removed.append((path / "lock").unlink())
        real(file, flags)

    monkeypatch.setattr(folder.fcntl, "flock", flock)
    with folder.locked(path):
        assert removed
        with pytest.raises(ValueError, match="in use by another process"), folder.locked(path):
            pass
        assert (path / "lock").exists()  # whoever is refused removes nothing


def test_other_options_are_refused_and_harmless_ones_are_not(whole):
    before = (whole / "summary.json").read_bytes()
    with pytest.raises(ValueError, match=r"other options: `learning_rate=0.02`, now 0.1"):
        train(whole, learning_rate=0.1)
    finished = train(whole, checkpoint_every=9, keep_checkpoints=5, rule="frsf()")
    assert finished == json.loads(before)


def test_a_folder_of_someone_elses_is_left_alone(tmp_path):
    (tmp_path / "metrics.csv").write_text("mine")
    with pytest.raises(ValueError, match="so it is not a run's folder"):
        train(tmp_path)
    assert (tmp_path / "metrics.csv").read_text() == "mine"


def test_a_loss_that_is_no_number_ends_the_run_with_the_step(tmp_path):
    options = {"model": "digits_cnn", "learning_rate": 1e6, "schedule": "constant"}
    options |= {"checkpoint_every": 1, "telemetry_every": 0}
    with pytest.raises(training.Diverged, match=r"at step \d+;") as error:
        train(tmp_path, **options)
    step = int(str(error.value).split("at step ")[1].split(";")[0])
    saved = Checkpoints(tmp_path / "checkpoints", keep=2).latest()
    assert saved is None or saved[0] < step
    for array in saved[1].values() if saved else ():
        assert np.isfinite(array).all()
    assert not (tmp_path / "summary.json").exists()


def test_a_full_disk_harms_nothing(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.save(1, {"w": np.ones(3)}, {})

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        checkpoints.save(2, {"w": np.zeros(3)}, {})
    assert len(list(tmp_path.iterdir())) == 1
    step, arrays, _ = checkpoints.latest()
    assert step == 1
    assert arrays["w"].tolist() == [1, 1, 1]


def test_a_full_disk_is_told_by_the_flag(full_disk):
    assert full_disk[1].match(r"`workdir=.*`: No space left on device, .*a\.npz\. ")


@pytest.mark.long
def test_a_run_whose_disk_was_full_goes_on_later(whole, cut, tmp_path):
    shutil.copytree(cut, tmp_path, dirs_exist_ok=True)
    train(tmp_path)
    assert not kills.differences(kills.outcome(whole), kills.outcome(tmp_path))


def test_what_a_kill_left_half_written_is_removed(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=1)
    (tmp_path / "step-000000001-0123456789abcdef.npz.writing").write_bytes(b"half")
    saved = checkpoints.save(2, {"w": np.ones(3)}, {})
    assert list(tmp_path.iterdir()) == [saved]


def test_without_validation_there_is_no_best(tmp_path):
    options = {"validation_fraction": 0.0, "augmentation": "none", "telemetry_every": 0}
    summary = train(tmp_path, **options, epochs=1)
    assert summary["best"] is None
    assert "validation_accuracy" not in summary
    assert not list((tmp_path / "best").iterdir())


def test_a_finished_run_can_be_measured_again(whole):
    experiment = folder.read_flags(whole)
    summary = json.loads((whole / "summary.json").read_text())
    last = use.evaluate(experiment)
    assert last == {
        "step": 52,
        **{name: summary[name] for name in last if name.startswith(("test", "validation"))},
    }
    best = use.evaluate(experiment, "best")
    with pytest.raises(ValueError, match=r"`checkpoint` must be .* last, best. Received: 'final'"):
        use.evaluate(experiment, "final")
    assert best == {name: summary["best"][name] for name in best}
    elsewhere = use.evaluate(dataclasses.replace(experiment, strategy="mirrored"))
    assert elsewhere == pytest.approx(last, rel=1e-5)


def test_a_finished_run_predicts_and_exports(whole, tmp_path):
    from sklearn.datasets import load_digits

    images = np.uint8(load_digits().images[:40, ..., None] * 255 / 16)
    for index, image in enumerate(images):
        keras.utils.save_img(tmp_path / f"{index:03d}.png", image, scale=False)
    experiment = folder.read_flags(whole)
    use.export(experiment, tmp_path / "export")
    model = keras.models.load_model(tmp_path / "export" / "model.keras")
    assert model.get_layer("conv").rule.alias == "frsf"
    x = np.float32(images / 255)
    expected = keras.ops.softmax(model(x, training=False)).numpy()
    served = tf.saved_model.load(tmp_path / "export" / "saved_model")
    np.testing.assert_allclose(served.serve(x), model(x, training=False), atol=1e-5)
    assert use.predict(experiment, tmp_path, tmp_path / "table.csv") == 40
    rows = list(csv.DictReader((tmp_path / "table.csv").read_text().splitlines()))
    assert [int(row["class"]) for row in rows] == expected.argmax(axis=1).tolist()
    probabilities = [float(row["probability"]) for row in rows]
    np.testing.assert_allclose(probabilities, expected.max(axis=1), atol=1e-4)
    assert [pathlib.Path(row["image"]).name for row in rows] == [f"{i:03d}.png" for i in range(40)]


def test_images_that_are_not_square_are_predicted(images_run, tmp_path, images, monkeypatch):
    experiment = folder.read_flags(images_run)
    assert use.predict(experiment, images / "test", tmp_path / "new" / "table.csv") == 20
    # What cannot be written is told before the work.
    monkeypatch.setattr(use, "restored", None)
    for output in (images / "test", images / "test" / "0" / "0.png" / "table.csv"):
        with pytest.raises(OSError, match=f"`output={output}` cannot be written: "):
            use.predict(experiment, images / "test", output)
    with pytest.raises(OSError, match=r"`output=.*0\.png` cannot be written: File exists"):
        use.export(experiment, images / "test" / "0" / "0.png")


SCHEDULES = [
    (Schedule(0.1, "constant", 100), lambda t: 0.1),
    (Schedule(0.1, "constant", 100, warmup_steps=10), lambda t: 0.1 * min(1, t / 10)),
    (
        Schedule(0.3, "constant", 100, warmup_steps=50, warmup_from=1 / 3),
        lambda t: 0.3 * min(1, (1 - t / 50) / 3 + t / 50),  # Detectron's
    ),
    (
        Schedule(0.1, "step", 100, milestones=(50, 75)),
        lambda t: 0.1 if t < 50 else 0.01 if t < 75 else 0.001,
    ),
    (
        Schedule(0.2, "cosine", 100, warmup_steps=20),
        lambda t: 0.2 * t / 20 if t < 20 else 0.1 * (1 + math.cos(math.pi * (t - 20) / 80)),
    ),
]


@pytest.mark.parametrize(
    ("schedule", "oracle"), SCHEDULES, ids=["constant", "warm-up", "from 1/3", "step", "cosine"]
)
def test_schedules(schedule, oracle):
    again = Schedule.from_config(schedule.get_config())
    for step in (0, 1, 9, 10, 19, 20, 49, 50, 74, 75, 99):
        assert float(schedule(step)) == pytest.approx(oracle(step), rel=1e-5, abs=1e-9)
        compiled = float(tf.function(again)(tf.constant(step)))
        assert compiled == pytest.approx(oracle(step), rel=1e-5, abs=1e-9)


def recursive_cosine(rate, final, length, epochs):
    """Return the rate of every epoch as PyTorch's CosineAnnealingLR computes it, from the last."""
    rates = [rate]
    for epoch in range(1, epochs):
        if (epoch - 1 - length) % (2 * length) == 0:
            risen = (rate - final) * (1 - math.cos(math.pi / length)) / 2
            rates.append(rates[-1] + risen)
        else:
            ratio = 1 + math.cos(math.pi * epoch / length)
            ratio /= 1 + math.cos(math.pi * (epoch - 1) / length)
            rates.append(ratio * (rates[-1] - final) + final)
    return rates


@pytest.mark.parametrize(("length", "epochs"), [(85, 90), (90, 90), (3, 20)])
def test_a_cosine_by_epochs_is_pytorchs_beyond_its_end_too(length, epochs):
    options = {"learning_rate": 0.03618, "final_learning_rate": 1e-5, "epochs": epochs}
    experiment = Classification(
        schedule="cosine", schedule_by="epoch", cosine_epochs=length, **options
    )
    schedule = make_schedule(experiment, 7)
    expected = np.repeat(recursive_cosine(0.03618, 1e-5, length, epochs), 7)
    actual = [float(schedule(step)) for step in range(7 * epochs)]
    np.testing.assert_allclose(actual, expected, rtol=2e-5)
    again = Schedule.from_config(schedule.get_config())
    assert [float(again(step)) for step in (0, 8, 20)] == [actual[step] for step in (0, 8, 20)]


def test_a_cosine_by_steps_ends_at_the_final_rate():
    options = {"schedule": "cosine", "learning_rate": 0.1, "final_learning_rate": 0.02}
    schedule = make_schedule(Classification(epochs=10, warmup_epochs=2, **options), 5)
    for step in (10, 11, 30, 49, 50, 60):
        share = min((step - 10) / 40, 1)
        oracle = 0.02 + 0.08 * (1 + math.cos(math.pi * share)) / 2
        assert float(schedule(step)) == pytest.approx(oracle, rel=1e-5)


def test_warm_up_rises_at_every_step_before_a_cosine_by_epochs():
    options = {"schedule": "cosine", "schedule_by": "epoch", "learning_rate": 0.1}
    schedule = make_schedule(Classification(epochs=4, warmup_epochs=2, **options), 5)
    rates = [float(schedule(step)) for step in range(20)]
    expected = [*np.linspace(0, 0.09, 10), *[0.1] * 5, *[0.05] * 5]
    np.testing.assert_allclose(rates, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cosine_epochs": 5}, "`cosine_epochs` belongs to `schedule='cosine'`, not to"),
        (
            {"final_learning_rate": 0.01, "schedule": "step", "milestones": "2"},
            "`final_learning_rate` belongs to `schedule='cosine'`, not to `schedule='step'`",
        ),
        ({"schedule_by": "epoch"}, "`schedule_by` belongs to `schedule='cosine'`"),
        (
            {"schedule": "cosine", "final_learning_rate": 0.1, "learning_rate": 0.1},
            "`final_learning_rate` must be less than `learning_rate=0.1`. Received: 0.1",
        ),
        (
            {"schedule": "cosine", "cosine_epochs": 6, "epochs": 5},
            "`cosine_epochs` must be `epochs=5` at most",
        ),
        (
            {"schedule": "cosine", "cosine_epochs": 2, "warmup_epochs": 2, "epochs": 5},
            "`cosine_epochs` must be more than `warmup_epochs=2",
        ),
    ],
)
def test_options_of_the_cosine_that_mean_nothing_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Classification(**options)


def test_images_are_standardized_with_the_numbers_that_are_given():
    colors = np.random.default_rng(0).random((4, 2, 2, 3)).astype("f4")
    train = tfbio.data.Arrays(colors, np.arange(4))
    dataset = tfbio.data.Dataset(train, train, 4, tuple("abcd"))
    for mean, std, expected in (
        ("0.5", "0.25", ([0.5] * 3, [0.25] * 3)),
        ("0, 0.2, 1", "1,2,10", ([0.0, 0.2, 1.0], [1.0, 2.0, 10.0])),
    ):
        experiment = Classification(
            standardize=True, channel_mean=mean, channel_std=std, model="lee_mnist"
        )
        facts = ClassificationTask().describe_data(experiment, dataset, train)
        assert (facts.mean, facts.std) == expected
        model = ClassificationTask().build_network(experiment, facts)
        layer = model.get_layer("standardize")
        np.testing.assert_allclose(layer(colors), (colors - facts.mean) / facts.std, rtol=1e-5)
    experiment = Classification(standardize=True, channel_mean="0.5,1", channel_std="1,2")
    with pytest.raises(ValueError, match=r"one for each of the 3 channels of `dataset=digits`"):
        ClassificationTask().describe_data(experiment, dataset, train)


def test_images_are_standardized_by_what_is_left_for_training():
    images = np.random.default_rng(0).random((6, 2, 2, 3)).astype("f4")
    whole = tfbio.data.Arrays(images, np.arange(6) % 2)
    dataset = tfbio.data.Dataset(whole, whole, 2, tuple("ab"))
    train = tfbio.data.Arrays(images[:4], np.arange(4) % 2)
    facts = ClassificationTask().describe_data(Classification(standardize=True), dataset, train)
    np.testing.assert_allclose(facts.mean, images[:4].mean((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(facts.std, images[:4].std((0, 1, 2)), rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channel_mean": "0.5", "standardize": True}, "`channel_std` go together"),
        ({"channel_mean": "0.5", "channel_std": "1"}, "belong to `standardize`, which is not"),
        *(
            (
                {"channel_mean": mean, "channel_std": std, "standardize": True},
                "equally many numbers",
            )
            for mean, std in (("0.5,1", "1"), ("a", "1"), ("0.5", "0"), ("inf", "1"))
        ),
        *(
            (
                {"channel_mean": mean, "channel_std": std, "standardize": True},
                "Those of pixels of 0 to 255 are divided by 255",
            )
            for mean, std in (("125.3", "0.5"), ("-0.1", "0.5"), ("0.5", "63"), ("0.5", "1e-9"))
        ),
    ],
)
def test_channel_statistics_that_mean_nothing_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Classification(**options)


def test_a_run_outlives_the_file_of_its_first_weights(tmp_path):
    first = tmp_path / "first.weights.h5"
    options = {"rule": "bp", "augmentation": "none", "telemetry_every": 0}
    tfbio.models.build(OPTIONS["model"], 10, (8, 8, 1)).save_weights(first)
    with pytest.raises(Cut):
        train(tmp_path / "run", 7, **options, weights=str(first))
    first.unlink()
    assert use.evaluate(folder.read_flags(tmp_path / "run"))["step"] == 7


@pytest.mark.long
def test_a_run_that_was_killed_once_claimed_ends_as_if_it_was_not(whole, tmp_path, monkeypatch):
    def killed(*arguments):
        raise Cut

    with monkeypatch.context() as patched:
        patched.setattr(training.train, "Training", killed)
        with pytest.raises(Cut):
            train(tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["data.json", "flags.cfg", "lock"]
    train(tmp_path)
    assert not kills.differences(kills.outcome(whole), kills.outcome(tmp_path))
