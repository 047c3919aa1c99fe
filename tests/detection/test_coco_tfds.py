"""COCO from TensorFlow Datasets: in memory and from shards, the same as from its own documents."""

import io
import json

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from PIL import Image

from tests.detection import coco_files
from tfbio.data import clear_errors
from tfbio.data.photographs import Contents
from tfbio.detection import coco, coco_metrics, coco_tfds, datasets

SIZES = ((50, 80), (64, 40), (33, 47))
BOXES = (
    [[8, 5, 40, 25], [0, 0, 20, 20]],
    [],
    [[4.7, 3.3, 23.5, 16.5]],
)


def examples():
    """Yield COCO's examples as TFDS has them, images encoded."""
    for index, ((height, width), boxes) in enumerate(zip(SIZES, BOXES, strict=True)):
        image = np.full((height, width, 3), 60 * index + 40, np.uint8)
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG")
        corners = np.array(boxes, np.float64).reshape(-1, 4)
        corners[:, 2:] += corners[:, :2]
        scaled = corners / [width, height, width, height]
        yield {
            "image": file.getvalue(),
            "image/filename": f"{index:012}.jpg",
            "image/id": 500 + index,
            "objects": {
                "id": np.arange(len(boxes)) + 9 + 10 * index,
                "area": np.full(len(boxes), 99),
                "bbox": scaled[:, [1, 0, 3, 2]].astype(np.float32),
                "label": np.full(len(boxes), 79 - index),
                "is_crowd": np.arange(len(boxes)) % 2 == 1,
            },
        }


def as_dataset(self, split=None, decoders=None, read_config=None, shuffle_files=False, **options):
    """What mock_data is to give in place of its own nonsense: boxes and labels in their ranges."""
    assert "image" in decoders
    assert not shuffle_files
    spec = {
        "image": tf.TensorSpec((), tf.string),
        "image/filename": tf.TensorSpec((), tf.string),
        "image/id": tf.TensorSpec((), tf.int64),
        "objects": {
            "id": tf.TensorSpec((None,), tf.int64),
            "area": tf.TensorSpec((None,), tf.int64),
            "bbox": tf.TensorSpec((None, 4), tf.float32),
            "label": tf.TensorSpec((None,), tf.int64),
            "is_crowd": tf.TensorSpec((None,), tf.bool),
        },
    }
    return tf.data.Dataset.from_generator(examples, output_signature=spec)


def check(annotations):
    assert annotations.image_ids.tolist() == [500, 501, 502]
    assert annotations.file_names[2] == "000000000002.jpg"
    assert annotations.sizes.tolist() == [list(sides) for sides in SIZES]
    np.testing.assert_allclose(annotations.boxes, BOXES[0] + BOXES[2], atol=0.005)
    assert annotations.areas.tolist() == [99.5, 99.5, 99.5]
    assert annotations.crowds.tolist() == [False, True, False]
    assert annotations.classes.tolist() == [79, 79, 77]
    assert annotations.category_ids[77:] == (88, 89, 90)
    assert annotations.class_names[0] == "person"
    assert annotations.class_names[79] == "toothbrush"


def batch(part):
    with clear_errors():
        ((images, targets),) = part.batches(3)
    return images.numpy(), targets["boxes"].numpy()


@pytest.fixture(scope="module")
def names():
    return ["person", *map("class {}".format, range(1, 79)), "toothbrush"]


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def named(builder, names):
    builder.info.features["objects"]["label"].names = names
    return builder


def test_mock_data_is_read_in_memory(names, monkeypatch):
    monkeypatch.setattr(coco_tfds.catalog.network, "check", lambda remedy: None)
    found = coco_tfds.catalog.find_builder
    monkeypatch.setattr(
        coco_tfds.catalog, "find_builder", lambda *arguments: named(found(*arguments), names)
    )
    with tfds.testing.mock_data(as_dataset_fn=as_dataset):
        whole = datasets.load("coco", download=True, image_size=64)
    check(whole.train.annotations)
    check(whole.test.annotations)
    assert whole.validation is None
    images, boxes = batch(whole.train)
    np.testing.assert_allclose(boxes[0, 0], np.array([8, 5, 48, 30]) * 0.8, atol=0.01)
    assert (boxes[0, 1:] == -1).all()
    assert (boxes[1] == -1).all()
    assert images[:, 0, 0, 0].tolist() == [40, 100, 160]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory, names):
    root = tmp_path_factory.mktemp("tfds")
    features = named(tfds.builder("coco/2017", data_dir=root), names).info.features

    def keyed():
        for key, example in enumerate(examples()):
            yield key, {**example, "image": io.BytesIO(example["image"])}

    tfds.dataset_builders.store_as_tfds_dataset(
        name="coco",
        config="2017",
        version="1.1.0",
        features=features,
        split_datasets={"train": keyed(), "validation": keyed()},
        data_dir=str(root),
        disable_shuffling=True,
    )
    return str(root)


@pytest.fixture(scope="module")
def streamed(prepared, tmp_path_factory):
    """Return the set, its first batch, and the folder where it keeps its annotations."""
    cache = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(cache))
        whole = datasets.load("coco", prepared, image_size=64)
        return whole, batch(whole.train), cache


def test_shards_are_streamed_and_their_annotations_kept(prepared, streamed, monkeypatch):
    def fail(*_, **__):
        raise AssertionError("read again")

    whole, first, cache = streamed
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    check(whole.train.annotations)
    kept = list((cache / "tfbio").glob("coco-*.json"))
    assert len(kept) == 2
    # From here on nothing but the images is read.
    monkeypatch.setattr(tfds.core.DatasetBuilder, "as_dataset", fail)
    again = datasets.load("coco", prepared, image_size=64)
    for one, other in zip(first, batch(again.train), strict=True):
        np.testing.assert_array_equal(one, other)
    assert again.train.fingerprint == whole.train.fingerprint
    for file in kept:
        file.unlink()
    with pytest.raises(AssertionError, match="read again"):
        datasets.load("coco", prepared, image_size=64)


def test_both_forms_give_the_same_batches(streamed):
    contents = [example["image"] for example in examples()]
    document = {
        "images": [
            {"id": 500 + index, "file_name": f"{index:012}.jpg", "height": h, "width": w}
            for index, (h, w) in enumerate(SIZES)
        ],
        "categories": [{"id": key, "name": str(key)} for key in coco_tfds.CATEGORY_IDS],
        "annotations": [
            {
                "id": 9 + position + 10 * index,
                "image_id": 500 + index,
                "category_id": coco_tfds.CATEGORY_IDS[79 - index],
                "bbox": box,
                "area": 99.0,
                "iscrowd": position % 2,
            }
            for index, boxes in enumerate(BOXES)
            for position, box in enumerate(boxes)
        ],
    }
    annotations = coco.parse(json.loads(json.dumps(document)), "a.json")
    source = Contents(contents, np.zeros(3), ["a", "b", "c"])
    images, boxes = batch(datasets.DetectionExamples(source, annotations, 64))
    wanted = streamed[1]
    np.testing.assert_array_equal(images, wanted[0])
    np.testing.assert_allclose(boxes, wanted[1], atol=0.01)


# Areas at COCO's limits, 32² and 96², with and without a fraction, of boxes that are as large.
AREAS = (1023.6, 1024.9, 1025.1, 9215.9, 9216.4, 9300.2, 400.0, 12000.7)


def with_areas(names):
    """Return (TFDS's examples, COCO's document) of objects of two classes, one on an image each."""
    file = io.BytesIO()
    Image.fromarray(np.full((120, 160, 3), 90, np.uint8)).save(file, "JPEG")
    found, images, objects = [], [], []
    for index, area in enumerate(AREAS):
        side, name, label = round(area**0.5, 2), f"{index:012}.jpg", index % 2
        x, y = 2.0 + index, 4.5
        images.append({"id": index, "file_name": name, "height": 120, "width": 160})
        entry = {"id": 70 + index, "image_id": index, "area": area, "iscrowd": 0}
        category = coco_tfds.CATEGORY_IDS[label]
        entry |= {"bbox": [x, y, side, side], "category_id": category, "segmentation": [[0.0, 1.0]]}
        objects.append(entry)
        corners = y / 120, x / 160, (y + side) / 120, (x + side) / 160
        entry = {"id": 70 + index, "area": area, "label": names[label], "is_crowd": False}
        found.append(
            {
                "image": io.BytesIO(file.getvalue()),
                "image/filename": name,
                "image/id": index,
                "objects": [{**entry, "bbox": tfds.features.BBox(*corners)}],
            }
        )
    categories = zip(coco_tfds.CATEGORY_IDS, names, strict=True)
    return found, {
        # COCO's own do not come in the order of the images.
        "images": images[::-1],
        "annotations": objects[::-1],
        "categories": [{"id": key, "name": name} for key, name in categories],
    }


@pytest.fixture(scope="module")
def limits(tmp_path_factory, names):
    """Return (folder of TFDS's datasets, COCO's document), whose areas are at the limits."""
    root = tmp_path_factory.mktemp("limits")
    features = named(tfds.builder("coco/2017", data_dir=root), names).info.features
    tfds.dataset_builders.store_as_tfds_dataset(
        name="coco",
        config="2017",
        version="1.1.0",
        features=features,
        split_datasets={
            split: ((example["image/id"], example) for example in with_areas(names)[0])
            for split in ("train", "validation")
        },
        data_dir=str(root),
        disable_shuffling=True,
    )
    return root, with_areas(names)[1]


def results_of(document):
    """Return results, some of which miss: they differ by the sizes of objects."""
    return [
        {
            "image_id": entry["image_id"],
            "category_id": entry["category_id"],
            "bbox": [entry["bbox"][0] + 3 * (entry["id"] % 3), *entry["bbox"][1:]],
            "score": 0.9 - entry["id"] / 100,
        }
        for entry in document["annotations"]
    ]


@pytest.mark.parametrize(
    "place", ["", "annotations", "downloads/extracted/ZIP.trainval/annotations"]
)
def test_areas_are_those_of_cocos_own_document(limits, tmp_path, caplog, place):
    root, document = limits
    (tmp_path / place).mkdir(parents=True, exist_ok=True)
    (tmp_path / "coco").symlink_to(root / "coco")
    for name in ("train", "val"):
        path = tmp_path / place / f"instances_{name}2017.json"
        path.write_text(json.dumps(document))
    whole = datasets.load("coco", str(tmp_path), image_size=64)
    assert "whole numbers" not in caplog.text
    assert whole.test.annotations.areas.tolist() == list(AREAS)
    results = results_of(document)
    measured = list(coco_metrics.evaluate(whole.test.annotations, results).summary.values())
    wanted = coco_files.by_pycocotools(document, results)
    assert len(set(wanted[3:6].tolist())) == 3
    np.testing.assert_allclose(measured, wanted, rtol=1e-12)
    # The document of another set is not taken for it.
    document["annotations"][0]["area"] += 1
    path.write_text(json.dumps(document))
    document["annotations"][0]["area"] -= 1
    with pytest.raises(
        ValueError, match=r"instances_val2017.json must be the document that coco/2"
    ):
        datasets.load("coco", str(tmp_path), image_size=64)


def test_without_it_areas_count_once_and_the_log_says_how(limits, caplog):
    root, document = limits
    whole = datasets.load("coco", str(root), image_size=64)
    assert "areas are whole numbers in TensorFlow Datasets, and instances_val2017" in caplog.text
    assert f"was not found in {root}. Half" in caplog.text
    found = whole.test.annotations
    assert found.areas.tolist() == [int(area) + 0.5 for area in AREAS]
    results = results_of(document)
    measured = list(coco_metrics.evaluate(found, results).summary.values())
    # No area is exactly at a limit.
    np.testing.assert_allclose(measured, coco_files.by_pycocotools(document, results), rtol=1e-6)


def test_what_is_not_prepared_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"^coco was not found in `data_dir=.*in"):
        datasets.load("coco", str(tmp_path))


def test_an_image_whose_size_cannot_be_known_is_named(monkeypatch):
    whole = list(examples())
    whole[1]["image"] = b"\xff\xd8\xff no image"
    monkeypatch.setattr(coco_tfds.catalog.network, "check", lambda remedy: None)
    monkeypatch.setitem(globals(), "examples", lambda: iter(whole))
    message = r"coco/2017.*, train: 000000000001.jpg, image 501, cannot be read as an image"
    with (
        tfds.testing.mock_data(as_dataset_fn=as_dataset),
        pytest.raises(ValueError, match=message),
    ):
        datasets.load("coco", download=True)


def test_the_categories_are_cocos():
    assert len(coco_tfds.CATEGORY_IDS) == 80
    assert (coco_tfds.CATEGORY_IDS[0], coco_tfds.CATEGORY_IDS[-1]) == (1, 90)
