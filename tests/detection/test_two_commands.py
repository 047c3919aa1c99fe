"""COCO in two commands, from the configs: a classifier, then a detector that starts from it."""

import dataclasses
import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from absl import flags
from PIL import Image

import tfbio
from tests import kills
from tests.cases import rehearsed
from tfbio import _keras, models, rules, training
from tfbio.detection import task
from tfbio.layers.sites import find_layers, find_sites
from tfbio.training import preparation, strategies, use
from trainers import cli, command, compare

ROOT = pathlib.Path(__file__).parents[2]
CONFIGS = sorted(ROOT.glob("configs/xiao2018/retinanet_*.cfg"))
RULES = ("backprop", "sign_symmetry", "feedback_alignment")


def test_there_is_a_config_for_each_backbone_and_rule():
    names = {f"retinanet_resnet{depth}_{rule}" for depth in (18, 50) for rule in RULES}
    assert {path.stem for path in CONFIGS} == names


def parsed(kind, *arguments):
    """Return the flags of a command line."""
    values = flags.FlagValues()
    command.define(values, kind)
    cli.parse(values, [kind, *map(str, arguments)])
    return values


def configured(kind, config, *arguments):
    """Return the experiment of a config, with some flags given otherwise."""
    values = parsed(kind, f"--flagfile={config}", *arguments)
    (experiment,) = compare.experiments(values, training.tasks.get(kind).experiment)
    return dataclasses.replace(experiment, workdir=values.workdir)  # as for a single run


def classifier_of(config):
    """Return the config of the run that a detector's config starts from."""
    experiment = configured("detection", config)
    start = pathlib.Path(experiment.init_from)
    assert start.parts[-3:-1] == ("runs", "xiao2018")
    found = config.with_name(f"{start.name}.cfg")
    run = configured("classification", found)
    assert pathlib.Path(run.workdir).parts == start.parts[-3:]
    assert run.model == experiment.backbone
    return found


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_a_config_and_its_classifiers_have_one_rule_in_the_backbone(config):
    one, run = configured("detection", config), configured("classification", classifier_of(config))
    assert repr(one.parsed_rule) == repr(run.parsed_rule)
    assert not any(pattern.startswith("backbone") for pattern in one.override_rules())
    assert one.standardization() == ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    assert run.standardize


def test_a_backbone_keeps_the_feedback_it_learned_under_and_its_first_stage():
    # On ResNet-10, from networks instead of runs; the configs' own networks are trained below.
    config = next(path for path in CONFIGS if path.stem == "retinanet_resnet18_feedback_alignment")
    run = configured("classification", classifier_of(config))
    classifier = models.resnet(10, 7, (64, 64, 3))
    classifier = models.standardize(classifier, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    tfbio.convert(classifier, run.rule, last_layer=run.last_layer_rule)
    one = configured("detection", config, "--backbone=resnet10", "--channels=8")
    facts = task.Facts((64, 64, 3), ("cat",), (1,))
    model = preparation.build(one, facts, tf.distribute.get_strategy(), 0.1, classifier)
    there = {name.rpartition("/")[2]: site for name, site in find_sites(classifier).items()}
    scales = {}
    for name, site in find_sites(model).items():
        part, _, layer = name.partition("/")
        scales.setdefault(part, set()).add(site.rule.get_config().get("scale"))
        if part == "backbone":
            np.testing.assert_array_equal(site.kernel, there[layer].kernel)
            np.testing.assert_array_equal(site.rule.matrix, there[layer].rule.matrix)
    heads = {"match", None}  # None is backprop's, in the last layers
    assert scales == {"backbone": {"xiao"}, "pyramid": {"match"}, "box_head": heads,
                      "class_head": heads}  # fmt: skip
    learns = {name for name, layer in find_layers(model).items() if layer.trainable_variables}
    norms = [layer for layer in find_layers(model).values()
             if isinstance(layer, keras.layers.BatchNormalization)]  # fmt: skip
    assert norms
    assert not any(layer.trainable for layer in norms)
    assert not {name for name in learns if name.startswith(("backbone/stem", "backbone/stage1"))}
    assert {"backbone/stage2_block1_1_conv", "pyramid/lateral_p3", "box_head/boxes"} <= learns


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Return a folder of a few small images in ImageNet's form."""
    root, draw = tmp_path_factory.mktemp("imagenet"), np.random.default_rng(0)
    for part in ("train", "val"):
        for label in ("n01440764", "n01443537"):
            (root / part / label).mkdir(parents=True)
            for index in range(2):
                pixels = draw.integers(0, 256, (72, 80, 3)).astype("uint8")
                Image.fromarray(pixels).save(root / part / label / f"{index}.JPEG")
    return root


@pytest.fixture(scope="module")
def canvases(tmp_path_factory):
    return kills.canvases(tmp_path_factory.mktemp("canvases"))


@pytest.mark.parametrize(
    "config",
    rehearsed([path for path in CONFIGS if "18_feedback_alignment" in path.stem], CONFIGS),
    ids=lambda path: path.stem,
)
def test_a_detector_starts_from_its_classifier_resumes_and_is_measured(
    config, photos, canvases, tmp_path
):
    rehearsal = ("--epochs=1", "--schedule=constant", "--milestones=", "--telemetry_every=0",
                 "--log_every=1", "--steps_per_call=1",
                 # Two steps leave moving statistics under which the published rates diverge.
                 "--learning_rate=1e-5")  # fmt: skip
    run = configured("classification", classifier_of(config), *rehearsal, f"--data_dir={photos}",
                     "--image_size=64", "--batch_size=2",
                     f"--workdir={tmp_path / 'classifier'}")  # fmt: skip
    assert training.train_and_evaluate(run, lambda text: None)["steps"] == 2

    # The strategy is the commands'; one config stands for all, as it doubles the time.
    strategy = "mirrored" if config.stem == "retinanet_resnet18_sign_symmetry" else "one_device"
    smaller = (*rehearsal, f"--init_from={run.workdir}", f"--data_dir={canvases}",
               "--shorter_side=64", "--longest_side=64", "--channels=8", "--head_layers=1",
               "--batch_size=4", "--validation_fraction=0.1", "--warmup_steps=2",
               "--checkpoint_every=2", f"--strategy={strategy}")  # fmt: skip
    workdirs = [tmp_path / "whole", tmp_path / "resumed"]
    one, again = (configured("detection", config, *smaller, f"--workdir={workdir}")
                  for workdir in workdirs)  # fmt: skip
    make_new_devices()
    summary = training.train_and_evaluate(one, lambda text: None)
    kills.copy_until(*workdirs, 2)
    make_new_devices()
    resumed = training.train_and_evaluate(again, lambda text: None)
    assert (summary["steps"], resumed["steps"], resumed["resumed_at_steps"]) == (4, 4, [2])
    assert not kills.differences(*map(kills.outcome, workdirs))
    make_new_devices()
    measured = use.evaluate(one)
    assert measured["test_ap"] == pytest.approx(summary["test_ap"], nan_ok=True)
    rates = [float(value) for value in read_column(workdirs[0], "learning_rate")]
    np.testing.assert_allclose(rates, [1e-5 / 3, 2e-5 / 3, 1e-5, 1e-5], rtol=1e-5)

    source, _ = use.restored(run, "last")
    model, _ = use.restored(one, "last")
    there = {name.rpartition("/")[2]: site for name, site in find_sites(source).items()}
    for name, site in find_sites(model.backbone).items():
        kept = bool((site.kernel.numpy() == there[name].kernel.numpy()).all())
        assert kept == name.startswith(("stem", "stage1"))
        for variable, value in zip(site.rule.weights, there[name].rule.weights, strict=True):
            np.testing.assert_array_equal(variable, value)
        assert rules.serialize(site.rule) == rules.serialize(there[name].rule)


def make_new_devices():
    """Forget the devices of a training, as a command's end does."""
    strategies.forget_devices()
    _keras.separate_collectives()  # see conftest


def read_column(workdir, name):
    """Return the values of a column of metrics.csv, as text."""
    lines = (workdir / "metrics.csv").read_text().splitlines()
    index = lines[0].split(",").index(name)
    return [line.split(",")[index] for line in lines[1:] if line.split(",")[index]]
