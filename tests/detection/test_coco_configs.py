"""The data of COCO's configs: from their flags alone, on a small set in the form of its files."""

import json
import pathlib

import numpy as np
import pytest
from absl import flags

from tests.detection import coco_files
from tfbio.data import clear_errors
from tfbio.detection import Detection, coco_metrics, coco_results, task
from trainers import cli, command, compare

ROOT = pathlib.Path(__file__).parents[2]
CONFIGS = sorted(ROOT.glob("configs/xiao2018/retinanet_*.cfg"))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return coco_files.write(tmp_path_factory.mktemp("coco") / "data")


def configured(config, *arguments):
    """Return the experiment of a config, with some flags given otherwise."""
    values = flags.FlagValues()
    command.define(values, "detection")
    cli.parse(values, ["detect", f"--flagfile={config}", *arguments])
    (experiment,) = compare.experiments(values, Detection)
    return experiment


def without_model(experiment):
    """Return the flags that data depend on."""
    names = ("dataset", "image_size", "shorter_side", "longest_side", "augmentation", "mean", "std",
             "max_boxes", "validation_fraction", "batch_size")  # fmt: skip
    return {name: getattr(experiment, name) for name in names}


def test_all_configs_have_the_same_data():
    found = [without_model(configured(config)) for config in CONFIGS]
    assert len(found) == 6
    assert found[0]["shorter_side"] == 800
    assert all(each == found[0] for each in found)


def test_an_epoch_and_an_evaluation_of_a_config(files):
    # Its own flags, at a tenth of its scale.
    one = configured(CONFIGS[0], f"--data_dir={files}", "--shorter_side=80", "--longest_side=133")
    dataset = task.TASK.load(one)
    train, held = task.TASK.split(one, dataset)
    assert (train.size, held.size, dataset.test.size) == (31, 1, 6)
    assert (dataset.image_shape, dataset.category_ids) == ((160, 160, 3), (1, 18, 44))
    with clear_errors():
        batches = train.batches(one.batch_size, (one.seed, 0), augmentation=one.augmentation)
        seen = [targets["classes"] for _, targets in batches.as_numpy_iterator()]
    assert [len(classes) for classes in seen] == [16, 15]
    # Crowds are no objects.
    objects = sum((classes >= 0).sum() for classes in seen)
    assert objects == (~train.annotations.crowds).sum() < len(train.annotations.crowds)

    results, scales = [], set()
    with clear_errors():
        for _, targets, about in dataset.test.batches(4, pad=True).as_numpy_iterator():
            score = np.where(targets["classes"] < 0, -1.0, 0.5)
            predicted = {**targets, "confidence": score}
            results += coco_results.convert_batch(dataset.test.annotations, predicted, about)
            sides = np.rint(about["scales"] * about["sizes"]).astype(int)
            scales |= {tuple(pair) for pair in sides[about["weights"] > 0].tolist()}
    assert scales == {(80, 107), (107, 80), (80, 119), (75, 133), (80, 80)}
    document = json.loads(pathlib.Path(files, "annotations/instances_val2017.json").read_text())
    measured = coco_metrics.evaluate(dataset.test.annotations, results).summary
    wanted = coco_files.by_pycocotools(document, results)
    assert measured["AP"] == pytest.approx(1)
    # pycocotools has -1 where there is no object.
    found = np.nan_to_num(list(measured.values()), nan=-1)
    np.testing.assert_allclose(found, wanted, rtol=1e-12)
