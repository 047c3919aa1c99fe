"""COCO's documents: what they say, what is left out of them, and what ends the run."""

import copy
import json
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfbio.detection import coco


def document():
    """Return a sound document: ids in no order, an image without objects, a crowd."""
    return {
        "images": [
            {"id": 30, "file_name": "c.jpg", "height": 40, "width": 60},
            {"id": 10, "file_name": "inner/a.jpg", "height": 50, "width": 50},
            {"id": 20, "file_name": "b.jpg", "height": 20, "width": 30},
        ],
        "categories": [{"id": 90, "name": "toothbrush"}, {"id": 1, "name": "person"}],
        "annotations": [
            {"id": 5, "image_id": 20, "category_id": 90, "bbox": [1, 2, 10, 5], "area": 7.5},
            {"id": 0, "image_id": 30, "category_id": 1, "bbox": [0, 0, 60, 40], "iscrowd": 1},
            {"id": 7, "image_id": 20, "category_id": 1, "bbox": [25.5, 0, 10, 10]},
        ],
    }


def changed(*path, value=None, drop=False):
    """Return a document of which one value is another."""
    whole = document()
    *before, last = path
    place = whole
    for key in before:
        place = place[key]
    if drop:
        del place[last]
    else:
        place[last] = value
    return whole


def test_a_document_is_read():
    found = coco.parse(document(), "a.json")
    assert found.category_ids == (1, 90)
    assert found.class_names == ("person", "toothbrush")
    assert found.image_ids.tolist() == [30, 10, 20]
    assert found.file_names == ("c.jpg", "inner/a.jpg", "b.jpg")
    assert found.sizes.tolist() == [[40, 60], [50, 50], [20, 30]]
    # By image, and in the document's order within.
    assert found.ids.tolist() == [0, 5, 7]
    assert found.images.tolist() == [0, 2, 2]
    assert found.classes.tolist() == [0, 1, 0]
    assert found.crowds.tolist() == [True, False, False]
    assert found.areas.tolist() == [2400, 7.5, 100]
    assert found.corners().tolist() == [[0, 0, 60, 40], [1, 2, 11, 7], [25.5, 0, 30, 10]]


def test_a_document_survives_the_way_back():
    found = coco.parse(document(), "a.json")
    again = coco.parse(json.loads(json.dumps(found.document())), "a.json")
    for name, value in vars(found).items():
        np.testing.assert_array_equal(getattr(again, name), value, name)


def test_a_part_has_its_own_images_and_objects():
    part = coco.parse(document(), "a.json").taken([1, 2])
    assert part.image_ids.tolist() == [10, 20]
    assert part.ids.tolist() == [5, 7]
    assert part.images.tolist() == [1, 1]
    assert part.file_names == ("inner/a.jpg", "b.jpg")


def test_categories_of_one_name_are_told_apart():
    found = coco.parse(changed("categories", 0, "name", value="person"), "a.json")
    assert found.class_names == ("person (1)", "person (90)")


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (
            ("annotations", 0, "image_id"),
            99,
            "1 annotation left out, with an image that is not there: .* 5 of",
        ),
        (("annotations", 0, "category_id"), 2, "an unknown category: annotation 5 .*, category 2"),
        (("annotations", 0, "id"), 7, "with an id that was there before: annotation 7 of image 20"),
        (("annotations", 0, "bbox"), [1, 2, 0, 5], "without an area: annotation 5 .*, b.jpg, box"),
        (("annotations", 0, "bbox"), [1, 2, 3, -5], "a box without an area: annotation 5 of image"),
        (("annotations", 0, "bbox"), [30, 2, 3, 5], "outside of the image: annotation 5 of image"),
        (("annotations", 0, "bbox"), [-9, -9, 3, 5], "a box outside of the image: annotation 5"),
    ],
)
def test_what_can_be_done_without_is_left_out_and_told(path, value, message, caplog):
    found = coco.parse(changed(*path, value=value), "a.json")
    assert len(found.ids) == 2
    assert len(found.boxes) == len(found.areas) == len(found.crowds) == 2
    lines = [record.getMessage() for record in caplog.records if "left out" in record.getMessage()]
    assert len(lines) == 1
    assert re.search(message, lines[0])
    assert lines[0].startswith("a.json: ")


def test_boxes_that_reach_over_their_image_are_told(caplog):
    coco.parse(document(), "a.json")
    assert "a.json: training cuts 1 box at the image's border" in caplog.text
    assert "annotation 7 of image 20, b.jpg, box [25.5, 0.0, 10.0, 10.0]" in caplog.text


def test_many_that_are_left_out_are_counted_and_some_are_named(caplog):
    whole = document()
    whole["annotations"] += [
        {"id": 100 + index, "image_id": 20, "category_id": 1, "bbox": [0, 0, 0, 0]}
        for index in range(25)
    ]
    assert len(coco.parse(whole, "a.json").ids) == 3
    assert "25 annotations left out" in caplog.text
    assert "annotation 109" in caplog.text
    assert "annotation 110" not in caplog.text
    assert "and 15 more" in caplog.text


@pytest.mark.parametrize(
    ("whole", "message"),
    [
        ([], r"a.json must hold an object with the lists .* Received: \[\]"),
        (changed("images", drop=True), "must hold a list of 'images'. Received: nothing"),
        (changed("annotations", value=None), "must hold a list of 'annotations'. Received: None"),
        (changed("categories", value={}), "must hold a list of 'categories'"),
        (changed("images", value=[]), "a.json has no image"),
        (changed("categories", value=[]), "a.json has no category"),
        (
            changed("images", 1, value=3),
            "images with an integer 'id' each. Received: 3, at pos.* 1",
        ),
        (changed("images", 1, "id", value="10"), "'id' each"),
        (changed("annotations", 1, "id", drop=True), "annotations with an integer 'id' each"),
        (changed("images", 1, "id", value=True), "images with an integer 'id'"),
        (
            changed("images", 1, "id", value=30),
            "image an id of its own. Received: image 30 2 times",
        ),
        (
            changed("categories", 0, "id", value=1),
            "category an id of its own. .* category 1 2 times",
        ),
        (changed("images", 0, "height", value=0), "image 30: 'height' must be a number of pixels"),
        (changed("images", 0, "width", value=6.5), "image 30: 'width' must be .*Received: 6.5"),
        (changed("images", 0, "width", drop=True), "image 30: 'width' must be .*Received: None"),
        (changed("images", 0, "file_name", value=7), "image 30: 'file_name' must be a text"),
        (changed("images", 0, "file_name", value="../a.jpg"), "30: 'file_name' must be .* within"),
        (changed("images", 0, "file_name", value="a/../../b.jpg"), "'file_name' must be .* within"),
        (changed("images", 0, "file_name", value="/etc/passwd"), "'file_name' must be .* within"),
        (changed("images", 0, "file_name", value="C:\\a.jpg"), "'file_name' must be .* within"),
        (changed("images", 0, "file_name", value="..\\a.jpg"), "'file_name' must be .* within"),
        (changed("images", 0, "file_name", value="gs://b/a.jpg"), "'file_name' must be .* within"),
        (changed("images", 0, "file_name", value="a\0.jpg"), "'file_name' must be .* within"),
        (changed("images", 0, "file_name", value=""), "'file_name' must be .* within"),
        (changed("images", 0, "file_name", value="\ud800.jpg"), "'file_name' must .* UTF-8"),
        (changed("categories", 0, "name", drop=True), "category 90: 'name' must be a text"),
        (changed("annotations", 0, "bbox", value=[1, 2, 3]), "annotation 5: 'bbox' must be x, y"),
        (
            changed("annotations", 0, "bbox", value=[1, 2, 3, float("nan")]),
            "5: 'bbox' must be x, y",
        ),
        (changed("annotations", 0, "bbox", value=[1, 2, 3, 10**400]), "5: 'bbox' must be x, y"),
        (changed("annotations", 0, "bbox", drop=True), "annotation 5: 'bbox' must be x, y"),
        (changed("annotations", 0, "area", value=-1), "annotation 5: 'area' must be a number"),
        (changed("annotations", 0, "iscrowd", value=2), "annotation 5: 'iscrowd' must be 0 or 1"),
        (
            changed("annotations", 0, "image_id", value="20"),
            "annotation 5: 'image_id' must be an in",
        ),
        (
            changed("annotations", 0, "category_id", value=None),
            "5: 'category_id' must be an integer",
        ),
        (
            changed("annotations", value=[document()["annotations"][0] | {"image_id": 1}]),
            "nothing is left of 1 annotation in a.json: 1 with an image that is not there",
        ),
    ],
)
def test_what_cannot_be_understood_is_refused(whole, message):
    with pytest.raises(ValueError, match=message) as caught:
        coco.parse(whole, "a.json")
    assert str(caught.value).startswith("a.json") or "nothing is left" in message


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff\xfe\x00", b"[" * 100_000, b"nul", b"1" * 5000]
)
def test_a_file_that_is_no_json_is_refused(content, tmp_path):
    path = tmp_path / "instances.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r".*instances.json"):
        coco.read(path)
    with pytest.raises(FileNotFoundError, match=r"There is no file '.*other.json'"):
        coco.read(tmp_path / "other.json")
    with pytest.raises(IsADirectoryError, match=r"^.* must be a file of JSON. Received"):
        coco.read(tmp_path)


ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([0, 1, 5, 7, 10, 20, 30, 90, 2**63, -1, 10**400]),
    st.floats(),
    st.text(max_size=8),
    st.lists(st.integers(-9, 99) | st.floats() | st.none(), max_size=5),
    st.dictionaries(st.sampled_from(["id", "bbox"]), st.integers(), max_size=2),
)


def places(whole):
    """Yield the way to every value within a document."""
    items = whole.items() if isinstance(whole, dict) else enumerate(whole)
    for key, value in items:
        yield (key,)
        if isinstance(value, dict | list):
            yield from ((key, *inner) for inner in places(value))


PLACES = sorted(places(document()), key=repr)


@given(st.lists(st.tuples(st.sampled_from(PLACES), ODD, st.booleans()), min_size=1, max_size=4))
def test_a_mutated_document_is_read_or_refused(mutations):
    whole = copy.deepcopy(document())
    for path, value, drop in mutations:
        place = whole
        try:
            for key in path[:-1]:
                place = place[key]
            if drop:
                del place[path[-1]]
            else:
                place[path[-1]] = value
        except (KeyError, IndexError, TypeError):
            continue  # an earlier mutation took the place away
    try:
        found = coco.parse(whole, "a.json")
    except ValueError as error:
        found, message = None, str(error)
    if found is None:
        assert message.startswith("a.json")
        return
    corners = found.corners()
    assert (corners[:, 2:] > corners[:, :2]).all()
    assert (corners >= 0).all()
    assert len(found.ids) <= 3
    coco.parse(found.document(), "again")
