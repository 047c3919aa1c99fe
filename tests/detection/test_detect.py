"""The detector's trainer: what it measures, writes and shows, and that nothing of it is lost."""

import dataclasses
import json
import os
import pathlib
import re
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf
from absl import flags
from PIL import Image

import tfbio
from tests import kills
from tests.cases import assert_same_learning, long_but
from tfbio import detection, models, training
from tfbio.detection import coco, coco_metrics, coco_results, predictions, task
from tfbio.layers.sites import find_sites
from tfbio.studies import comparison
from tfbio.studies.runs import Run, load
from tfbio.training import folder, preparation, strategies, use
from tfbio.training.loop import Loop
from tfbio.training.records import read
from trainers import cli, command, compare

ROOT = pathlib.Path(__file__).parents[2]
CONFIGS = [path for path in sorted(ROOT.glob("configs/**/*.cfg"))
           if "-m trainers.detect " in path.read_text()]  # fmt: skip


@pytest.fixture(scope="module")
def options(tmp_path_factory):
    """Return the options of a training of some seconds."""
    canvases = kills.canvases(tmp_path_factory.mktemp("canvases"))
    # Each layer of a head is traced for five levels, and Adam has two variables for each weight.
    smaller = {"head_layers": 0, "optimizer": "sgd", "epochs": 1, "batch_size": 2}
    return {**kills.RETINANET, "data_dir": canvases, **smaller}


@pytest.fixture(scope="module")
def whole(options, tmp_path_factory):
    """Return the folder of a run that ran through."""
    path = tmp_path_factory.mktemp("runs") / "whole"
    kills.train(options, path)
    return path


@pytest.fixture(scope="module")
def longer(options, tmp_path_factory):
    """Return (options, folder) of a run of two epochs, with larger heads and under Adam."""
    options = {**kills.RETINANET, "data_dir": options["data_dir"]}
    path = tmp_path_factory.mktemp("runs") / "longer"
    kills.train(options, path)
    return options, path


def parsed(*arguments):
    """Return the flags of a command line."""
    values = flags.FlagValues()
    command.define(values, "detection")
    cli.parse(values, ["detect", *map(str, arguments)])
    return values


def in_process(*arguments):
    """Do what the command does, without a process for each."""
    command.act(parsed(*arguments), "detection")


def test_a_run_holds_what_it_says(whole, options):
    records = read(whole)
    assert [record["step"] for record in records] == [0, 2, 4, 6, 8]
    ends = [record for record in records if "validation_ap" in record]
    assert [record["step"] for record in ends] == [8]
    for record in records[1:]:
        parts = record["box_loss"] + record["classification_loss"]
        assert record["loss"] == pytest.approx(parts, rel=1e-4)
    summary = json.loads((whole / "summary.json").read_text())
    assert set(task.Detection.measures) == {"ap", "ap50", "ap75", "ap_small", "ap_medium",
        "ap_large", "ar_1", "ar_10", "ar_100", "ar_small", "ar_medium", "ar_large"}  # fmt: skip
    for name in task.Detection.measures:
        assert {f"test_{name}", f"validation_{name}"} <= set(summary)
    assert 0 <= summary["test_ap"] <= summary["test_ap50"] <= 1
    classes = [name for name in summary if name.startswith("test_ap/")]
    assert np.mean([summary[name] for name in classes]) == pytest.approx(summary["test_ap"])
    assert summary["best"]["step"] == 8
    assert summary["best"]["validation_ap"] == max(record["validation_ap"] for record in ends)
    parts = {name.split("/")[0] for name in summary["weight_angles"]}
    assert parts == {"backbone", "pyramid", "box_head", "class_head"}
    assert folder.read_flags(whole) == detection.Detection(**options, workdir=str(whole))
    facts = json.loads((whole / "data.json").read_text())
    assert facts["category_ids"] == list(range(1, 11))
    assert set(summary["gradient_angles"]) == set(summary["weight_angles"])
    assert 0 < summary["gradient_angles"]["backbone/stem_conv"] < 180
    assert np.asarray(Image.open(whole / "angles.png")).shape[0] > 600
    assert np.asarray(Image.open(whole / "boxes.png")).shape == (256, 520, 3)


def read_points(workdir):
    """Return what TensorBoard shows of a run: by tag, a list of (step, tensor)."""
    points = {}
    for path in workdir.glob("events.out.tfevents.*"):
        for record in tf.data.TFRecordDataset(str(path)):
            event = tf.compat.v1.Event.FromString(record.numpy())
            for value in event.summary.value:
                points.setdefault(value.tag, []).append((event.step, value.tensor))
    return points


def test_tensorboard_shows_losses_ap_angles_and_boxes(whole):
    points = read_points(whole)
    for tag in ("loss", "box_loss", "classification_loss", "learning_rate", "images_per_second"):
        assert [step for step, _ in points[tag]] == [2, 4, 6, 8]
    for tag in ("weight_angle/class_head/logits", "sign_agreement/pyramid/output_p7"):
        assert [step for step, _ in points[tag]][-2:] == [4, 8]
    assert any(tag.startswith("validation_ap/") for tag in points)
    for tag in ("validation_ap", "boxes"):
        assert [step for step, _ in points[tag]] == [8]
    width, height, png = points["boxes"][-1][1].string_val
    assert tf.io.decode_png(png).shape == (int(height), int(width), 3)
    layout = points["custom_scalars__config__"][0][1].string_val[0]
    for pattern in re.findall(rb"\^[\w/()|?$^]+", layout):
        assert any(re.search(pattern.decode(), tag) for tag in points), pattern


@pytest.mark.long
def test_every_epoch_is_validated_and_one_is_the_best(longer):
    _, path = longer
    ends = [record for record in read(path) if "validation_ap" in record]
    assert [record["step"] for record in ends] == [4, 8]
    best = json.loads((path / "summary.json").read_text())["best"]
    assert best["step"] in (4, 8)
    assert best["validation_ap"] == max(record["validation_ap"] for record in ends)
    assert np.asarray(Image.open(path / "boxes.png")).shape == (256, 1048, 3)
    points = read_points(path)
    for tag in ("validation_ap", "boxes"):
        assert [step for step, _ in points[tag]] == [4, 8]


def test_a_run_goes_on_from_a_checkpoint_to_the_same_bits(whole, options, tmp_path):
    kills.copy_until(whole, tmp_path, 6)
    kills.train(options, tmp_path)
    assert json.loads((tmp_path / "summary.json").read_text())["resumed_at_steps"] == [6]
    assert not kills.differences(kills.outcome(whole), kills.outcome(tmp_path))


@pytest.mark.long
def test_a_killed_process_ends_as_if_it_was_not(longer, tmp_path):
    options, whole = longer
    processes = kills.context()
    kills.kill_after_checkpoint(options, tmp_path, processes)
    assert kills.killed(options, tmp_path, [None], processes) == []
    (resumed,) = json.loads((tmp_path / "summary.json").read_text())["resumed_at_steps"]
    assert resumed in (3, 6)
    assert not kills.differences(kills.outcome(whole), kills.outcome(tmp_path))


@pytest.mark.long
def test_two_replicas_measure_what_one_device_does(whole):
    summary = json.loads((whole / "summary.json").read_text())
    run = folder.read_flags(whole)
    measured = use.evaluate(dataclasses.replace(run, strategy="mirrored"))
    for name in ("test_ap", "test_ar_100", "validation_ap"):
        assert measured[name] == pytest.approx(summary[name], abs=1e-6)


@pytest.mark.long
def test_two_replicas_learn_what_one_device_does(options):
    learned, losses = [], []
    for strategy in ("one_device", "mirrored"):
        # Batch normalization would see half of the batch, and Adam blows differences up.
        changes = {"strategy": strategy, "frozen_norm": True, "init_from": "another"}
        prepared = training.prepare(detection.Detection(**{**options, **changes}))
        start = [w.numpy() for w in prepared.model.trainable_variables]
        assert Loop(prepared).train(iter(prepared.epoch(0, 0)), 2) == (2, True)
        learned.append([w.numpy() for w in prepared.model.trainable_variables])
        logs = prepared.model.get_metrics_result()
        losses.append([float(logs[name]) for name in ("loss", "box_loss")])
        strategies.forget_devices()
    one, other = learned
    assert_same_learning(other, one, start)
    np.testing.assert_allclose(*losses, rtol=1e-4)


def test_boxes_are_found_in_images_of_any_size(whole, tmp_path, capsys):
    images = tmp_path / "images"
    (images / "deep").mkdir(parents=True)
    draw = np.random.default_rng(0)
    for name, shape in (("a.jpg", (90, 60, 3)), ("deep/b.png", (40, 200, 3))):
        Image.fromarray(draw.integers(0, 256, shape).astype("uint8")).save(images / name)
    in_process("--mode=predict", f"--images={images}", f"--workdir={whole}",
               f"--output={tmp_path / 'out'}", "--score_threshold=0")  # fmt: skip
    written = sorted(str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*.*"))
    assert written == ["a.png", "deep/b.png", "images.json", "results.json"]
    document = json.loads((tmp_path / "out" / "images.json").read_text())
    assert [image["file_name"] for image in document["images"]] == ["a.jpg", "deep/b.png"]
    results = coco_results.read(tmp_path / "out" / "results.json")
    assert {result["image_id"] for result in results} == {1, 2}
    drawn = sum(result["score"] >= 0.3 for result in results)
    printed = capsys.readouterr().out
    assert f"{len(results)} boxes in results.json. Drawn: {drawn} from a score of 0.3 on" in printed
    assert f"2 images: {tmp_path / 'out'}" in printed
    annotations = coco.parse({**document, "annotations": []}, "images.json")
    assert np.isnan(coco_metrics.evaluate(annotations, results).summary["AP"])
    sizes = {image["id"]: (image["width"], image["height"]) for image in document["images"]}
    for result in results:
        x, y, width, height = result["bbox"]
        limits = sizes[result["image_id"]]
        assert x >= 0
        assert y >= 0
        assert x + width <= limits[0] + 1e-2
        assert y + height <= limits[1] + 1e-2


def test_two_images_that_would_be_drawn_as_one_are_refused():
    names = predictions.name_drawings(["a.jpg", "b/a.png"])
    assert list(map(str, names)) == ["a.png", "b/a.png"]
    with pytest.raises(ValueError, match=r"^`images`: a\.jpg and a\.png would both be drawn as a"):
        predictions.name_drawings(["a.jpg", "b/a.png", "a.png"])


@pytest.fixture
def photos(tmp_path):
    """Return a folder of two images."""
    (tmp_path / "photos" / "deep").mkdir(parents=True)
    for name in ("a.png", "deep/b.png"):
        Image.fromarray(np.zeros((9, 9, 3), "uint8")).save(tmp_path / "photos" / name)
    return tmp_path / "photos"


@pytest.mark.parametrize("where", ["photos", ".", "photos/new", "links", "hard"])
def test_drawings_do_not_overwrite_the_images(photos, tmp_path, where):
    held = {path: path.read_bytes() for path in photos.rglob("*.png")}
    for name in ("links", "hard"):
        (tmp_path / name).mkdir()
    (tmp_path / "links" / "results.json").symlink_to(photos / "deep" / "b.png")
    os.link(photos / "a.png", tmp_path / "hard" / "a.png")
    message = "^`output=.* (must be neither within|would overwrite .* of) `images="
    with pytest.raises(ValueError, match=message):
        predictions.predict(detection.Detection(workdir="none"), photos, tmp_path / where)
    assert {path: path.read_bytes() for path in photos.rglob("*.png")} == held


def test_a_table_does_not_overwrite_an_image(photos):
    with pytest.raises(ValueError, match=r"^`output=.*a.png` would overwrite .*a.png of `images="):
        use.predict(training.Classification(workdir="none"), photos, photos / "a.png")


def test_a_prediction_that_fails_leaves_no_empty_folder(photos, tmp_path):
    one = detection.Detection(workdir=str(tmp_path / "run"))
    for act in (lambda out: predictions.predict(one, photos, out),
                lambda out: use.export(one, out)):  # fmt: skip
        with pytest.raises(ValueError, match="has no last checkpoint"):
            act(tmp_path / "new" / "out")
        assert not (tmp_path / "new").exists()


@pytest.mark.long
def test_an_exported_model_finds_the_same_boxes(whole, tmp_path):
    in_process("--mode=export", f"--workdir={whole}", f"--output={tmp_path}")
    model = keras.models.load_model(tmp_path / "model.keras")
    assert {site.rule.alias for site in find_sites(model).values()} == {"frsf"}
    images = np.random.default_rng(0).random((2, 64, 64, 3)).astype("float32")
    loaded = tf.saved_model.load(str(tmp_path / "saved_model"))  # it holds the variables
    served = loaded.serve(images)
    expected = model.predict(images, verbose=0)
    for name in ("boxes", "confidence", "classes"):
        np.testing.assert_allclose(served[name], expected[name], rtol=1e-4, atol=1e-4)


def test_a_detector_starts_from_a_classifiers_backbone(options):
    classifier = tfbio.convert(models.resnet(10, 100, (32, 32, 3)), "frsf")
    facts = task.Facts((64, 64, 3), ("cat",), (1,))
    one = detection.Detection(**options)
    strategy = tf.distribute.get_strategy()
    model = preparation.build(one, facts, strategy, 0.1, classifier)
    sites = find_sites(model)
    for name, site in find_sites(classifier).items():
        if name != "logits" and f"backbone/{name}" in sites:
            there = sites[f"backbone/{name}"]
            np.testing.assert_array_equal(site.kernel, there.kernel)
            for own, given in zip(there.rule.weights, site.rule.weights, strict=True):
                np.testing.assert_array_equal(own, given)
    assert f"backbone/{next(iter(find_sites(classifier)))}" in sites
    other = dataclasses.replace(one, rule="fa")
    with pytest.raises(ValueError, match=r"the run's feedback of .* `accept_new_feedback`"):
        preparation.build(other, facts, strategy, 0.1, classifier)


@pytest.mark.long
def test_a_classifier_that_does_not_fit_is_refused(options):
    classifier = tfbio.convert(models.resnet(10, 100, (32, 32, 3)), "frsf")
    facts = task.Facts((64, 64, 3), ("cat",), (1,))
    one, strategy = detection.Detection(**options), tf.distribute.get_strategy()
    scaled = models.standardize(models.resnet(10, 100, (32, 32, 3)), [0.5] * 3, [0.25] * 3)
    tfbio.convert(scaled, "frsf")
    given = "`mean='0.5, 0.5, 0.5'` and `std='0.25, 0.25, 0.25'`"
    with pytest.raises(ValueError, match=re.escape(f"standardized otherwise. Give {given}")):
        preparation.build(one, facts, strategy, 0.1, scaled)
    same = detection.Detection(**{**options, "mean": "0.5,0.5,0.5", "std": "0.25,0.25,0.25"})
    assert preparation.build(same, facts, strategy, 0.1, scaled).name == "retinanet"
    other = tfbio.convert(models.resnet(18, 100, (32, 32, 3)), "frsf")
    with pytest.raises(ValueError, match="`init_from`: the classifier has layers that `backbone"):
        preparation.build(one, facts, strategy, 0.1, other)
    bigger = detection.Detection(**{**options, "backbone": "resnet18"})
    with pytest.raises(ValueError, match="`init_from`: Model 'resnet10' has other layers"):
        preparation.build(bigger, facts, strategy, 0.1, classifier)


def test_overrides_leave_a_part_on_backprop(options):
    one = detection.Detection(**{**options, "overrides": "backbone*=backprop; *_head*=fa"})
    facts = task.Facts((64, 64, 3), ("cat",), (1,))
    model = preparation.build(one, facts, tf.distribute.get_strategy(), 0.1)
    found = {(name.split("/")[0], site.rule.alias) for name, site in find_sites(model).items()}
    of_heads = {(head, "feedback_alignment") for head in ("box_head", "class_head")}
    assert found == {("backbone", "backprop"), ("pyramid", "frsf"), *of_heads}


def test_runs_are_compared_by_ap(whole, tmp_path, capsys):
    other = tmp_path / "other"
    shutil.copytree(whole, other)
    flags_cfg = (other / "flags.cfg").read_text()
    (other / "flags.cfg").write_text(flags_cfg.replace("--rule=frsf", "--rule=bp"))
    (other / "summary.json").unlink()
    runs = [load(path) for path in (whole, other)]
    compare.report(runs, tmp_path / "both", cli.console())
    printed = capsys.readouterr().out
    for text in ("AP, %", "frsf", "backprop", "1/1: "):
        assert text in printed
    assert (tmp_path / "both" / "comparison.png").stat().st_size > 10_000
    classification = Run(training.Classification(), None, [], [])
    with pytest.raises(ValueError, match=r"several kinds .* Received: classification, detection"):
        comparison.group_by_settings([*runs, classification])


def test_a_folder_is_of_one_kind_of_run(whole, capsys):
    with pytest.raises(ValueError, match="holds a run of detection, not of classification"):
        folder.check(whole, training.Classification())
    with pytest.raises(SystemExit):
        in_process("--mode=evaluate", f"--workdir={whole}", "--epochs=7")
    assert "--epochs=1, now 7" in capsys.readouterr().err


BAD = [
    (["--backbone=resnet17"], "--backbone must be one of resnet10, resnet18"),
    (["--box_loss=l2"], "--box_loss must be one of retinanet, smoothl1"),
    (
        ["--image_size=100"],
        "--image_size must be HEIGHT,WIDTH in pixels or one number for a square",
    ),
    (
        ["--image_size=64,96,32"],
        "multiples of 32 from 32 to 4096, such as '800,1344'. Received: '64",
    ),
    (["--image_size=64,x"], "Received: '64,x'"),
    (["--shorter_side=64"], "--shorter_side and --longest_side go together"),
    (["--shorter_side=96", "--longest_side=64"], "Received: --shorter_side=96 --longest_side=64"),
    (
        ["--image_size=64", "--shorter_side=64", "--longest_side=96"],
        "--image_size does not go with --shorter_side, whose canvas is a square of --longest_side.",
    ),
    (["--mean=0.5,0.5,0.5"], "--mean and --std go together"),
    (["--mean=0.5,0.5", "--std=1,1,1"], "--mean must be three numbers"),
    (
        ["--mean=0,0,0", "--std=1,1,0"],
        "--std must be three numbers of 1e-06 to 10, for pixels",
    ),
    (["--mean=0,0,nan", "--std=1,1,1"], "--mean must be three numbers"),
    (["--mean=125,120,110", "--std=1,1,1"], "--mean must be three numbers of 0 to 1"),
    (["--frozen_norm"], "--frozen_norm needs --init_from: without another run's moving"),
    (["--best_anchor=detectron"], "--best_anchor must be one of never, from_0.4, always"),
    (["--frozen_norm", "--sync_batch_norm"], "--sync_batch_norm has no effect with --frozen_norm"),
    (["--anchor_scale=0"], "--anchor_scale must be a finite number of 0.01 to 100."),
    (["--head_layers=-1"], "--head_layers must be an integer of 0 to"),
    (
        ["--score_threshold=1"],
        "--score_threshold must be a finite number of 0 or more and less than 1",
    ),
    (["--max_boxes=0"], "--max_boxes must be an integer of 1 to"),
    (["--augmentation=crop_flip"], "--augmentation must be one of none, flip, jitter"),
    (["--dataset=digits"], "--dataset must be one of digits_detection, coco."),
    (
        ["--dataset=coco", "--data_dir=/none"],
        "--data_dir must be an existing folder. Received: '/none'.",
    ),
    (["--init_from=/none"], "--init_from: '/none' is no run's folder"),
    (["--overrides=neck*=bp"], "--overrides"),
    (["--mode=predict"], "--images and --mode=predict go together"),
    (["--mode=evaluate"], "--workdir must be a run's folder, with its flags.cfg"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD, ids=lambda value: str(value))
def test_bad_input_is_told_in_one_line(arguments, message, options, capsys, tmp_path):
    arguments = [f"--data_dir={options['data_dir']}", "--dataset=coco", *arguments]
    with pytest.raises(SystemExit) as ended:
        in_process(*arguments, "--backbone=resnet10" if "neck" in str(arguments) else "--seed=0",
                   f"--workdir={tmp_path / 'run'}")  # fmt: skip
    errors = capsys.readouterr().err
    assert ended.value.code == 1
    assert message in errors
    assert errors.startswith("error: ")
    assert errors.count("\n") == 1


def test_a_fraction_is_held_out_only_where_the_data_have_no_validation(options, tmp_path):
    with pytest.raises(ValueError, match="`validation_fraction` is for data without a validation"):
        training.prepare(detection.Detection(**{**options, "validation_fraction": 0.5}))
    for name in ("instances_train.json", "train", "instances_validation.json", "validation"):
        os.symlink(pathlib.Path(options["data_dir"], name), tmp_path / name)
    changes = {"data_dir": str(tmp_path), "validation_fraction": 0.25}
    one = detection.Detection(**{**options, **changes})
    dataset = task.TASK.load(one)
    parts = task.TASK.split(one, dataset)
    assert [part.size for part in (*parts, dataset.test)] == [12, 4, 6]
    assert len({part.annotations.image_ids.tobytes() for part in parts}) == 2


def test_padding_is_zero_once_images_are_standardized(options):
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    given = {"mean": "0.485, 0.456, 0.406", "std": "0.229, 0.224, 0.225", "image_size": "64,96"}
    for changes, most in ((given, 0.5 / 255 / min(std)), ({"image_size": "64,96"}, 0)):
        one = detection.Detection(**{**options, **changes})
        images, _ = next(iter(task.TASK.load(one).train.batches(4)))
        images = images.numpy() / 255
        if one.mean:
            images = (images - mean) / std
        assert np.abs(images[:, :, 64:]).max() <= most
        assert np.abs(images[:, :, :64]).mean() > 0.3


def prepared_from(config, options, tmp_path):
    """Prepare each run of a config on small images; layers, losses, rule and optimizer are its."""
    smaller = ("--dataset=coco", f"--data_dir={options['data_dir']}", "--image_size=64",
               "--shorter_side=0", "--longest_side=0", "--warmup_steps=5",
               "--channels=8", "--batch_size=2", "--validation_fraction=0.1")  # fmt: skip
    values = parsed(f"--flagfile={config}", *smaller, f"--workdir={tmp_path}")
    return [training.prepare(each) for each in compare.experiments(values, detection.Detection)]


SIGN_SYMMETRIC = [path for path in CONFIGS if "--rule=sign_symmetry" in path.read_text()]
SMALL = [path for path in CONFIGS if path.parent.name == "configs"]


@pytest.mark.parametrize("config", long_but(SMALL, CONFIGS), ids=lambda path: path.stem)
def test_every_config_is_prepared(config, options, tmp_path):
    for prepared in prepared_from(config, options, tmp_path):
        wanted = tfbio.rules.get(prepared.experiment.rule).alias
        found = {site.rule.alias for site in find_sites(prepared.model).values()}
        assert wanted in found <= {wanted, "backprop"}


@pytest.mark.long
@pytest.mark.parametrize("config", SIGN_SYMMETRIC, ids=lambda path: path.stem)
def test_a_step_as_configured_differs(config, options, tmp_path):
    # Other rules' steps have as many operations, and take ten seconds each.
    for prepared in prepared_from(config, options, tmp_path):
        before = [w.numpy() for w in prepared.model.trainable_variables]
        # Two steps: warm-up begins at a rate of 0.
        assert Loop(prepared).train(iter(prepared.epoch(0, 0)), 2) == (2, True)
        after = [w.numpy() for w in prepared.model.trainable_variables]
        assert any((one != other).any() for one, other in zip(before, after, strict=True))


def test_help_lists_every_flag():
    text = parsed().main_module_help()
    for name in (field.name for field in dataclasses.fields(detection.Detection)):
        assert f"--{name}" in text or f"--[no]{name}" in text
