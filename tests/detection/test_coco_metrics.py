"""COCO metrics against cases computed by hand, by both evaluators."""

import json
import math
import sys

import numpy as np
import pytest

from tfbio.detection import coco, coco_metrics, coco_results

BACKENDS = ("pycocotools", "faster_coco_eval")


def annotations(objects, images=2, categories=2):
    """Return annotations: objects are (image, category, box, more); ids of images from 1."""
    return coco.parse(
        {
            "images": [
                {"id": index + 1, "file_name": f"{index}.jpg", "height": 200, "width": 200}
                for index in range(images)
            ],
            "categories": [{"id": 10 * index, "name": f"c{index}"} for index in range(categories)],
            "annotations": [
                {"id": index, "image_id": image, "category_id": category, "bbox": box, **more}
                for index, (image, category, box, more) in enumerate(objects)
            ],
        },
        "a.json",
    )


def result(image, category, box, score=0.9):
    return {"image_id": image, "category_id": category, "bbox": box, "score": score}


A, B = [10, 10, 20, 20], [100, 100, 50, 50]  # small, medium
LARGE = [0, 0, 100, 100]
HALF = pytest.approx(51 / 101)  # recall 0.5 is reached at 51 of 101 recalls


@pytest.fixture(params=BACKENDS)
def measure(request, capfd):
    def measured(*arguments):
        found = coco_metrics.evaluate(*arguments, backend=request.param)
        written = capfd.readouterr()
        assert (written.out, written.err) == ("", "")
        return found

    return measured


def test_class_0_counts_and_object_0_too(measure):
    # Category 0 is class 0, and the annotation's id is 0.
    found = measure(annotations([(1, 0, A, {})]), [result(1, 0, A)])
    assert found.summary["AP"] == pytest.approx(1)
    assert found.summary["AR_1"] == pytest.approx(1)
    assert found.by_class["c0"] == pytest.approx(1)
    assert math.isnan(found.by_class["c1"])
    assert math.isnan(found.summary["AP_large"])


def test_images_without_predictions_count(measure):
    # One of two objects is found: precision 1 up to a recall of 0.5, then 0.
    found = measure(annotations([(1, 0, A, {}), (2, 0, B, {})]), [result(1, 0, A)])
    assert found.summary["AP"] == found.summary["AP50"] == found.summary["AP75"] == HALF
    assert found.summary["AR_100"] == 0.5
    assert found.summary["AP_small"] == pytest.approx(1)
    assert found.summary["AP_medium"] == 0


def test_no_predictions_at_all_are_an_ap_of_0(measure):
    found = measure(annotations([(1, 0, A, {}), (1, 10, B, {})]), [])
    assert found.summary["AP"] == found.summary["AR_100"] == 0
    assert found.by_class == {"c0": 0, "c1": 0}


def test_no_objects_at_all_are_no_measure(measure):
    found = measure(annotations([]), [result(1, 0, A)])
    assert all(map(math.isnan, [*found.summary.values(), *found.by_class.values()]))
    assert tuple(found.summary) == coco_metrics.NAMES


def test_a_false_positive_on_an_image_without_objects_counts(measure):
    found = measure(annotations([(1, 0, A, {})]), [result(2, 0, A, 0.95), result(1, 0, A, 0.9)])
    assert found.summary["AP"] == pytest.approx(0.5)  # precision 1/2 at every recall
    assert found.summary["AR_1"] == 1


def test_a_second_box_on_an_object_is_wrong(measure):
    objects = [(1, 0, A, {}), (2, 0, A, {})]
    results = [result(1, 0, A, 0.9), result(1, 0, A, 0.8), result(2, 0, A, 0.7)]
    # Precision 1 at recalls of 0 to 0.5, then 2/3.
    assert measure(annotations(objects), results).summary["AP"] == pytest.approx(
        (51 + 50 * 2 / 3) / 101
    )


def test_the_overlap_decides_by_threshold(measure):
    # IoU 20·15 / 20·20 = 0.75: right at the thresholds .50 to .75, which are 6 of 10.
    found = measure(annotations([(1, 0, A, {})]), [result(1, 0, [10, 10, 20, 15])])
    assert found.summary["AP"] == pytest.approx(0.6)
    assert found.summary["AP50"] == found.summary["AP75"] == pytest.approx(1)


def test_what_lies_in_a_crowd_is_neither_right_nor_wrong(measure):
    objects = [(1, 0, A, {}), (1, 0, LARGE, {"iscrowd": 1})]
    within = [result(1, 0, [40, 40, 30, 30], 0.99), result(1, 0, [60, 60, 30, 30], 0.98)]
    found = measure(annotations(objects), [*within, result(1, 0, A, 0.5)])
    assert found.summary["AP"] == pytest.approx(1)
    plain = [(1, 0, A, {}), (1, 0, LARGE, {})]
    assert measure(annotations(plain), [*within, result(1, 0, A)]).summary["AP"] < 0.2
    # A crowd alone is no object.
    assert math.isnan(measure(annotations(objects[1:]), within).summary["AP"])


def test_the_area_is_the_files_and_not_the_boxs(measure):
    found = measure(annotations([(1, 0, LARGE, {"area": 1000.0})]), [result(1, 0, LARGE)])
    assert found.summary["AP_small"] == pytest.approx(1)
    assert math.isnan(found.summary["AP_large"])


def test_only_the_most_confident_of_an_image_count(measure):
    objects = [(1, 0, [index * 15, 0, 10, 10], {}) for index in range(12)]
    results = [result(1, 0, box, 1 - index / 100) for index, (*_, box, _) in enumerate(objects)]
    found = measure(annotations(objects), results).summary
    assert (found["AR_1"], found["AR_10"], found["AR_100"]) == pytest.approx((1 / 12, 10 / 12, 1))


def test_a_part_of_the_images_is_all_that_counts(measure):
    whole = annotations([(1, 0, A, {}), (2, 0, B, {})])
    assert measure(whole.taken([0]), [result(1, 0, A)]).summary["AP"] == pytest.approx(1)


def test_both_evaluators_agree(measure):
    random = np.random.default_rng(0)

    def box():
        return [*random.uniform(0, 120, 2).tolist(), *random.uniform(5, 110, 2).tolist()]

    objects = [
        (image, category, box(), {"iscrowd": int(random.random() < 0.1)})
        for image in range(1, 21)
        for category in (0, 10, 20)
        for _ in range(random.integers(4))
    ]
    results = [
        result(image, category, (np.array(near) + random.normal(0, 4, 4)).clip(1).tolist(), score)
        for image, category, near, _ in objects
        for score in random.random(2).tolist()
    ]
    held = annotations(objects, images=25, categories=3)
    found = measure(held, results)
    assert 0.1 < found.summary["AP"] < 0.9
    reference = coco_metrics.evaluate(held, results, backend="pycocotools")
    assert found.summary == pytest.approx(reference.summary, abs=1e-9)
    assert found.by_class == pytest.approx(reference.by_class, abs=1e-9)


def test_the_faster_evaluator_is_taken_where_it_is_installed(monkeypatch):
    assert "faster" in coco_metrics.import_backend(None)[1].__module__
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    assert coco_metrics.import_backend(None)[1].__module__ == "pycocotools.cocoeval"
    with pytest.raises(ImportError):
        coco_metrics.import_backend("faster_coco_eval")
    with pytest.raises(ValueError, match=r"`backend` must be .* Received: 'other'"):
        coco_metrics.import_backend("other")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({}, "Results must be a list. Received: dict"),
        ([7], "must have image_id, category_id, bbox and score. Received: int, at position 0"),
        ([result(9, 0, A)], "one of the 2 image ids in a.json. Received: 9, at position 0"),
        ([result(1, 0, A), result(1, 5, A)], "category ids in a.json. Received: 5, at position 1"),
        ([result(1, 0, A[:3])], "x, y, width and height"),
        ([result(1, 0, [1, 2, 3, math.inf])], "all finite"),
        ([result(1, 0, A, math.nan)], "all finite. .* score nan, at position 0"),
        ([result("1", 0, A)], "Received: '1'"),
        ([result([], 0, A)], r"Received: \[\]"),
    ],
)
def test_results_of_something_else_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        coco_metrics.evaluate(annotations([]), wrong)


def test_results_come_from_batches_and_survive_a_file(tmp_path):
    predictions = {
        "boxes": np.float32([[[1, 2, 11, 22], [0, 0, 90, 90]], [[5, 5, 5, 9], [-1] * 4]]),
        "confidence": np.float32([[0.123456789, 0.5], [0.9, -1]]),
        "classes": np.array([[1, 0], [0, -1]]),
    }
    about = {
        "ids": np.array([2, 1]),
        "sizes": np.array([[100, 200], [200, 200]]),
        "scales": np.float32([[0.5, 0.25], [1, 1]]),
        "weights": np.float32([1, 1]),
    }
    found = coco_results.convert_batch(annotations([]), predictions, about)
    # The second image's box has no area.
    assert found == [
        result(2, 10, [4.0, 4.0, 40.0, 40.0], 0.123457),
        result(2, 0, [0.0, 0.0, 200.0, 100.0], 0.5),
    ]
    coco_results.write(tmp_path / "results.json", found)
    assert json.loads((tmp_path / "results.json").read_text()) == found
    assert coco_results.read(tmp_path / "results.json") == found
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]
    about["weights"] = np.float32([0, 1])
    assert coco_results.convert_batch(annotations([]), predictions, about) == []


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("boxes", [[[0, 0, math.nan, 1]]], "finite"),
        ("confidence", [[math.inf]], "finite"),
        ("classes", [[2]], r"must be 0 to 1, or −1 for none. Received: \[2.0\]"),
    ],
)
def test_predictions_that_are_none_are_refused(key, value, message):
    predictions = {"boxes": [[[0, 0, 1, 1]]], "confidence": [[0.5]], "classes": [[0]]}
    about = {"ids": [1], "sizes": [[9, 9]], "scales": [[1, 1]], "weights": [1]}
    with pytest.raises(ValueError, match=message):
        coco_results.convert_batch(annotations([]), predictions | {key: value}, about)
