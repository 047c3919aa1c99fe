"""Detection: images and boxes that belong together, whatever is done to them; pure functions."""

import functools
import io
import itertools
import json
import shutil

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tests.cases import long_but
from tfbio.data import clear_errors
from tfbio.data.photographs import Contents
from tfbio.detection import (
    DetectionExamples,
    boxes,
    canvases,
    coco,
    coco_metrics,
    coco_results,
    datasets,
    examples,
)

ORDER = (3, 1)
GREEN, GRAY = (0, 255, 0), (90, 90, 90)


def jpeg(image, form="JPEG"):
    file = io.BytesIO()
    Image.fromarray(image).save(file, form, quality=95)
    return file.getvalue()


def rectangles(count, form="JPEG", seed=0):
    """Return (encoded images, document): gray images, each with one green rectangle, its object."""
    random = np.random.default_rng(seed)
    contents, images, objects = [], [], []
    for index in range(count):
        height, width = (int(side) for side in random.integers(60, 140, 2))
        image = np.full((height, width, 3), GRAY, np.uint8)
        x, y = (int(start) for start in random.integers(0, 25, 2))
        w, h = (int(side) for side in random.integers(25, 35, 2))
        image[y : y + h, x : x + w] = GREEN
        contents.append(jpeg(image, form))
        images.append(
            {"id": 100 + index, "file_name": f"{index}.jpg", "height": height, "width": width}
        )
        objects.append(
            {"id": index, "image_id": 100 + index, "category_id": 5, "bbox": [x, y, w, h]}
        )
    categories = [{"id": 5, "name": "green"}]
    return contents, {"images": images, "annotations": objects, "categories": categories}


def split_of(contents, document, size=96, **options):
    names = [image["file_name"] for image in document["images"]]
    source = Contents(contents, np.zeros(len(contents)), names)
    return DetectionExamples(
        source, coco.parse(document, "a.json"), size, **{"max_boxes": 3, **options}
    )


@pytest.fixture(scope="module")
def split():
    return split_of(*rectangles(11))


def listed(batches):
    with clear_errors():
        return list(batches.as_numpy_iterator())


def same(found, wanted):
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        tf.nest.map_structure(np.testing.assert_array_equal, one, other)


def is_green(images):
    """Return where a pixel is rather green than gray."""
    images = images.astype(int)
    return images[..., 1] - images[..., 0] > 127


WIDE = (64, 128)
FAST = [
    ("none", "JPEG", WIDE),
    ("flip", "PNG", WIDE),
    ("jitter", "PNG", WIDE),
    ("jitter_flip", "JPEG", WIDE),
]


@pytest.fixture(scope="module")
def augmented():
    """Return a function of an augmentation, a form and a size that gives an epoch as one batch."""

    @functools.cache
    def read(augmentation, form, size):
        split = split_of(*rectangles(60, form), size)
        (batch,) = listed(split.batches(60, ORDER, augmentation=augmentation))
        return batch

    return read


@pytest.mark.parametrize(
    ("augmentation", "form", "size"),
    long_but(FAST, itertools.product(boxes.augmentations(), ("JPEG", "PNG"), (WIDE, 96))),
)
def test_boxes_go_with_their_objects(augmented, augmentation, form, size):
    images, targets = augmented(augmentation, form, size)
    assert images.shape == (60, *(WIDE if size == WIDE else (96, 96)), 3)
    assert (images.dtype, targets["boxes"].dtype) == (np.uint8, np.float32)
    for image, box, index in zip(images, targets["boxes"][:, 0], targets["classes"], strict=True):
        assert index.tolist() == [0, -1, -1]
        rows, columns = np.nonzero(is_green(image))
        pixels = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        np.testing.assert_allclose(box, pixels, atol=1.5)
    assert (targets["boxes"][:, 1:] == -1).all()


def test_padding_is_black_and_the_aspect_ratio_is_kept(split):
    ((images, targets, about),) = listed(split.batches(11, pad=True))
    for image, scale, size in zip(images, about["scales"], about["sizes"], strict=True):
        height, width = np.rint(scale * size).astype(int)
        assert max(height, width) == 96
        assert abs(scale[0] / scale[1] - 1) < 0.02
        assert (image[:height, :width].max(-1) > 60).all()
        assert not image[height:].any()
        assert not image[:, width:].any()
    back = examples.original(targets["boxes"], about)[:, 0]
    np.testing.assert_allclose(back, split.annotations.corners(), atol=1e-4)
    assert about["ids"].tolist() == list(range(100, 111))


@pytest.mark.parametrize("augmentation", ["none", "jitter_flip"])
def test_padding_may_have_a_color(augmentation):
    split = split_of(*rectangles(6, "PNG"), WIDE, padding=(124, 116, 104))
    black = split_of(*rectangles(6, "PNG"), WIDE)
    options = {"order": ORDER, "augmentation": augmentation}
    (images, targets), (others, same_targets) = (
        listed(each.batches(6, **options))[0] for each in (split, black)
    )
    beside = (others == 0).all(-1)
    assert 0.1 < beside.mean() < 0.9
    assert (images[beside] == (124, 116, 104)).all()
    np.testing.assert_array_equal(images[~beside], others[~beside])
    np.testing.assert_array_equal(targets["boxes"], same_targets["boxes"])
    with pytest.raises(ValueError, match=r"`padding` must be three integers of 0 to 255"):
        split_of(*rectangles(1), padding=(0.485, 0.456, 0.406))


def test_jitter_scales_cuts_and_mirrors_at_random(augmented):
    # Whether an image is a JPEG or a PNG does not change its boxes.
    plain, flipped, jittered, both = (augmented(*each)[1]["boxes"][:, 0] for each in FAST)
    sides = [each[:, 3] - each[:, 1] for each in (jittered, plain)]
    ratios = sides[0] / sides[1]
    assert ratios.min() < 0.85
    assert 1.15 < ratios.max() < 1.3
    mirrored = (flipped != plain).any(1)
    assert 15 < mirrored.sum() < 45
    # Heights do not depend on the mirroring, nor on whether there is one.
    np.testing.assert_array_equal(both[:, [1, 3]], jittered[:, [1, 3]])
    np.testing.assert_array_equal((both != jittered).any(1), mirrored)


# A worker's part of a tail is looked at with damaged images, below.
@pytest.mark.long
@pytest.mark.parametrize("augmentation", ["flip", "jitter_flip"])
def test_every_tail_is_the_whole_epochs(split, augmentation):
    options = {"order": ORDER, "augmentation": augmentation, "multiple": 2}
    whole = listed(split.batches(4, **options))
    assert [len(images) for images, _ in whole] == [4, 4, 2]
    same(listed(split.batches(4, **options)), whole)
    for start in (1, 3):
        same(listed(split.batches(4, start=start, **options)), whole[start:])
    other = listed(split.batches(4, **{**options, "order": (3, 2)}))
    assert (other[0][0] != whole[0][0]).any()


@pytest.mark.long
def test_every_workers_part_is_the_whole_epochs(split):
    options = {"order": ORDER, "augmentation": "jitter_flip", "multiple": 2}
    whole = listed(split.batches(4, **options))
    parts = [listed(split.batches(4, shard=(index, 2), **options)) for index in range(2)]
    joined = [
        tf.nest.map_structure(lambda *each: np.concatenate(each), *pair)
        for pair in zip(*parts, strict=True)
    ]
    same(joined, whole)


# With batches that are read, above and below.
@pytest.mark.long
def test_shapes_are_static_where_batches_are_full(split):
    images, targets = split.batches(4, ORDER, multiple=4).element_spec
    assert images.shape == (4, 96, 96, 3)
    assert (targets["boxes"].shape, targets["classes"].shape) == ((4, 3, 4), (4, 3))
    spec = split.batches(4, pad=True).element_spec
    assert all(part.shape[0] == 4 for part in tf.nest.flatten(spec))


def test_a_batch_of_evaluation_is_filled_up_with_nothing(split):
    batches = split.batches(4, pad=True, shard=(1, 2))
    assert all(part.shape[0] == 2 for part in tf.nest.flatten(batches.element_spec))
    batches = listed(batches)
    ids, weights = (
        np.concatenate([about[key] for *_, about in batches]) for key in ("ids", "weights")
    )
    assert ids.tolist() == [102, 103, 106, 107, 110, 0]
    assert weights.tolist() == [1, 1, 1, 1, 1, 0]
    assert (batches[2][1]["boxes"][1] == -1).all()
    assert (batches[2][1]["classes"][1] == -1).all()
    assert examples.original(batches[2][1]["boxes"], batches[2][2]).shape == (2, 3, 4)


def test_crowds_are_not_learned_and_images_without_objects_are_kept():
    contents, document = rectangles(3)
    document["annotations"][0]["iscrowd"] = 1
    del document["annotations"][1]
    split = split_of(contents, document)
    ((images, targets),) = listed(split.batches(3))
    assert (targets["classes"] >= 0).sum(1).tolist() == [0, 0, 1]
    assert images.max((1, 2, 3)).min() > 80
    assert split.annotations.crowds.tolist() == [True, False]
    train, held = split.hold_out(0.34, seed=0)
    assert (train.size, held.size) == (2, 1)
    assert len(held.annotations.image_ids) == 1
    other_images = split_of(contents[::-1], document)
    assert len({part.fingerprint for part in (split, train, held, other_images)}) == 4


def test_more_objects_than_the_padding_holds_are_told_and_the_largest_kept(caplog):
    contents, document = rectangles(2)
    document["annotations"] += [
        {"id": 10 + side, "image_id": 101, "category_id": 5, "bbox": [0, 0, side, side]}
        for side in (3, 50, 40, 2)
    ]
    split = split_of(contents, document)
    assert "`max_boxes=3`: a.json: of 1 image, training" in caplog.text
    assert "image 101, 1.jpg, with 5" in caplog.text
    caplog.clear()
    split_of(contents, document, trains=False)
    assert not caplog.text
    found = listed(split.batches(1, start=1, pad=True))[0]
    back = examples.original(found[1]["boxes"], found[2])[0]
    # In the document's order.
    assert np.rint(back[1:, 2]).tolist() == [50, 40]
    assert len(split.annotations.ids) == 6


def test_what_a_cut_leaves_of_an_object_decides():
    objects = tf.constant([[0.0, 0.0, 8.0, 8.0], [0.0, 0.0, 20.0, 20.0], [12.0, 12.0, 13.0, 13.0]])
    found, seen = boxes.move(objects, tf.constant([5, 5, 10, 10]), tf.constant([5, 10]))
    np.testing.assert_allclose(found[1], [0, 0, 10, 5])
    # 9/64 of the first is left, 1/4 of the second; the third is half a pixel high.
    assert seen.numpy().tolist() == [False, True, False]


def test_an_object_that_is_cut_away_is_no_object():
    contents, document = rectangles(40)
    for index, (image, entry) in enumerate(
        zip(document["images"], document["annotations"], strict=True)
    ):
        height, width = image["height"], image["width"]
        pixels = np.full((height, width, 3), GRAY, np.uint8)
        pixels[-8:, -8:] = GREEN
        contents[index] = jpeg(pixels, "PNG")
        entry["bbox"] = [width - 8, height - 8, 8, 8]
    split = split_of(contents, document)
    ((images, targets),) = listed(split.batches(40, ORDER, augmentation="jitter"))
    there = targets["classes"][:, 0] == 0
    green = is_green(images).sum((1, 2))
    assert 10 < there.sum() < 40
    assert green[there].min() > 0
    # Less than a quarter of what was 8×8 pixels, enlarged.
    assert green[~there].max() < 30
    assert (targets["boxes"][~there] == -1).all()
    x1, y1, x2, y2 = targets["boxes"][there, 0].T
    assert min((x2 - x1).min(), (y2 - y1).min()) >= 1


def with_damage():
    """Return a split of six images, two of which are damaged."""
    contents, document = rectangles(6)
    contents[2] = b"\xff\xd8\xff no image"
    document["images"][4]["height"] += 1  # the annotations are of another image
    return split_of(contents, document, max_corrupt=0.4)


@pytest.mark.parametrize("augmentation", long_but(["jitter"], ["none", "jitter"]))
def test_damaged_images_are_replaced_in_training(augmentation, caplog):
    split = with_damage()
    options = {"order": ORDER, "augmentation": augmentation, "multiple": 2}
    batches = split.batches(2, **options)
    assert all(part.shape[0] == 2 for part in tf.nest.flatten(batches.element_spec))
    batches = listed(batches)
    assert [len(images) for images, _ in batches] == [2, 2, 2]
    assert all((targets["classes"][:, 0] == 0).all() for _, targets in batches)
    for name in ("2.jpg (image 102)", "4.jpg (image 104)"):
        told = f"{name} cannot be read as an image, or is not of the size that"
        assert told in caplog.text
    # The first of two workers, with the first half of each batch, has all the damaged ones there.
    part = listed(split.batches(2, start=1, shard=(0, 2), **options))
    same(part, tf.nest.map_structure(lambda each: each[:1], batches[1:]))


def test_damaged_images_weigh_nothing_in_evaluation():
    split = with_damage()
    ((_, targets, about),) = listed(split.batches(6, pad=True))
    assert about["weights"].tolist() == [1, 1, 0, 1, 0, 1]
    assert about["ids"].tolist() == list(range(100, 106))
    assert (targets["classes"][:, 0] == -1).tolist() == [False, False, True, False, True, False]
    split.max_corrupt = 0.2
    with pytest.raises(
        ValueError, match=r"admits 1 damaged image of 6 .* is 4.jpg \(image 104\)\.$"
    ):
        listed(split.batches(6, pad=True))


def test_annotations_are_of_the_image_as_stored_whatever_its_exif_orientation(caplog, tmp_path):
    contents, document = rectangles(2)
    exif = Image.Exif()
    exif[0x0112] = 6  # viewers turn it by a quarter
    for index, content in enumerate(contents):
        file = io.BytesIO()
        Image.open(io.BytesIO(content)).save(file, "JPEG", quality=95, exif=exif.tobytes())
        contents[index] = file.getvalue()
    # The second one's annotations are of the turned image, and are refused.
    image = document["images"][1]
    image["height"], image["width"] = image["width"], image["height"]
    split = split_of(contents, document)
    ((images, targets, about),) = listed(split.batches(2, pad=True))
    assert about["weights"].tolist() == [1, 0]
    assert "as stored: an EXIF orientation is not applied." in caplog.text
    rows, columns = np.nonzero(is_green(images[0]))
    pixels = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    np.testing.assert_allclose(targets["boxes"][0, 0], pixels, atol=1.5)
    path = tmp_path / "a.jpg"
    path.write_bytes(contents[0])
    datasets.images([str(path)], 96)
    assert f"The EXIF orientation of 1 image is not applied: {path}" in caplog.text


@pytest.mark.parametrize("size", [0, 100, 33, 96.0, (64, 65), (64,), "64"])
def test_sides_that_are_no_multiple_of_32_are_refused(size):
    with pytest.raises(ValueError, match=r"`image_size` must be .* Received: "):
        split_of(*rectangles(1), size)


def detectron_sides(height, width, shorter, longest):
    """Return (sides, scale) of Detectron's `prep_im_for_blob`; cv2.resize rounds the sides."""
    scale = float(shorter) / float(min(height, width))
    if np.round(scale * max(height, width)) > longest:
        scale = float(longest) / float(max(height, width))
    return [int(np.round(height * scale)), int(np.round(width * scale))], scale


def test_the_shorter_side_is_resized_as_detectron_resizes_it():
    # COCO's frequent sizes, both orientations, long ones, and what enlarges many times.
    sizes = [(480, 640), (640, 480), (427, 640), (640, 360), (612, 612), (51, 640), (640, 59)]
    random = np.random.default_rng(0)
    sizes += random.integers(20, 700, (40, 2)).tolist()
    for shorter, longest in ((800, 1333), (600, 1000), (64, 96)):
        canvas = examples.canvas_sides(0, shorter, longest)
        assert canvas == (-(-longest // 32) * 32,) * 2
        for size in sizes:
            wanted, _ = detectron_sides(*size, shorter, longest)
            found = boxes.fit(tf.constant(size), canvas, shorter, longest).numpy().tolist()
            assert found == wanted
            assert max(found) <= longest


def test_images_of_both_orientations_keep_one_scale_on_a_canvas():
    contents, document = [], rectangles(3)[1]
    for image, entry, size in zip(
        document["images"], document["annotations"], ((40, 90), (90, 40), (60, 60)), strict=True
    ):
        image["height"], image["width"] = size
        pixels = np.full((*size, 3), GRAY, np.uint8)
        x, y, w, h = entry["bbox"] = [5, 7, 25, 30]
        pixels[y : y + h, x : x + w] = GREEN
        contents.append(jpeg(pixels, "PNG"))
    split = split_of(contents, document, 0, shorter_side=72, longest_side=150)
    assert split.image_shape == (160, 160, 3)
    ((images, targets, about),) = listed(split.batches(3, pad=True))
    assert np.rint(about["scales"] * about["sizes"]).tolist() == [[67, 150], [150, 67], [72, 72]]
    for image, box, scale, size in zip(
        images, targets["boxes"][:, 0], about["scales"], about["sizes"], strict=True
    ):
        rows, columns = np.nonzero(is_green(image))
        pixels = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        np.testing.assert_allclose(box, pixels, atol=1.5)
        height, width = np.rint(scale * size).astype(int)
        assert not image[height:].any()
        assert not image[:, width:].any()
    # Exactly: the ratio of whole sides, not Detectron's scale, is what the image was resized by.
    back = examples.original(targets["boxes"], about)[:, 0]
    np.testing.assert_allclose(back, [[5, 7, 30, 37]] * 3, atol=1e-5)
    # Jitter changes this scale, and an epoch is the same function of seed and epoch as ever.
    options = {"order": ORDER, "augmentation": "jitter"}
    whole = listed(split.batches(1, **options))
    same(listed(split.batches(1, start=1, **options)), whole[1:])
    sides = [targets["boxes"][0, 0, 3] - targets["boxes"][0, 0, 1] for _, targets in whole]
    assert all(30 * 1.2 * 0.8 - 1 < side < 30 * 1.667 * 1.25 + 1 for side in sides)


def test_other_options_are_refused(split):
    for options, message in (
        ({"shorter_side": 64}, r"`shorter_side` and `longest_side` go together"),
        ({"shorter_side": 96, "longest_side": 64}, r"the second at least as long as the first"),
        ({"shorter_side": -1, "longest_side": 64}, r"`shorter_side` must be an integer of 0 or"),
        (
            {"shorter_side": 64, "longest_side": 96},
            r"`image_size` does not go with `shorter_side`.*`image_size=96` `shorter_side=64`",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            split_of(*rectangles(1), **options)
    with pytest.raises(ValueError, match=r"`max_boxes` must be an integer of 1 or more"):
        split_of(*rectangles(1), max_boxes=0)
    with pytest.raises(ValueError, match=r"must be one of none, flip, jitter, jitter_flip.*'crop"):
        split.batches(1, ORDER, augmentation="crop_flip")
    with pytest.raises(
        ValueError, match=r"`augmentation='flip'` is random: `order` must be \(seed, epoch\)"
    ):
        split.batches(1, augmentation="flip")
    with pytest.raises(ValueError, match=r"`crops` must be 1 for these images"):
        split.batches(1, pad=True, crops=10)


# Sets by name.


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    cache = tmp_path_factory.mktemp("canvases")
    return canvases.prepare(64, canvases.Counts(30, 8, 8), cache=str(cache))


def test_digits_on_canvases_are_a_whole_set(drawn):
    found = datasets.load(
        "digits_detection", str(drawn.parent), canvas_size=64, canvas_counts=(30, 8, 8)
    )
    assert (found.train.size, found.validation.size, found.test.size) == (30, 8, 8)
    assert found.class_names == tuple("0123456789")
    assert found.category_ids == tuple(range(1, 11))
    assert (found.num_classes, found.image_shape) == (10, (64, 64, 3))
    held = [part.annotations for part in (found.train, found.validation, found.test)]
    ids = np.concatenate([each.image_ids for each in held])
    assert len(set(ids.tolist())) == 46
    counts = np.bincount(held[0].images, minlength=30)
    assert counts.min() == 0
    assert counts.max() >= 4
    sides = held[0].boxes[:, 3]
    assert sides.min() < 16 < 28 < sides.max()
    assert (held[0].boxes[:, :2] + held[0].boxes[:, 2:] <= 64).all()
    images, targets = listed(found.train.batches(30))[0]
    for image, objects in zip(images, targets["boxes"], strict=True):
        for x1, y1, x2, y2 in objects[objects[:, 0] >= 0].astype(int):
            assert image[y1:y2, x1:x2].std() > 8  # ink on what lies beneath


def test_perfect_predictions_are_an_ap_of_1(drawn):
    found = datasets.load(
        "digits_detection",
        str(drawn.parent),
        image_size=(96, 160),
        canvas_size=64,
        canvas_counts=(30, 8, 8),
    )
    annotations, results = found.train.annotations, []
    for _, targets, about in listed(found.train.batches(7, pad=True)):
        predictions = {**targets, "confidence": np.where(targets["classes"] < 0, -1.0, 0.5)}
        results += coco_results.convert_batch(annotations, predictions, about)
    assert len(results) == len(annotations.ids)
    assert coco_metrics.evaluate(annotations, results).summary["AP"] == pytest.approx(1)


def test_canvases_are_drawn_once_and_again_where_damaged(drawn, tmp_path, caplog):
    folder = tmp_path / drawn.name
    shutil.copytree(drawn, folder)
    again = {"size": 64, "counts": canvases.Counts(30, 8, 8), "cache": str(tmp_path)}
    stamp = (folder / "manifest.json").stat().st_mtime_ns
    assert canvases.prepare(**again) == folder
    assert (folder / "manifest.json").stat().st_mtime_ns == stamp
    wanted = (folder / "train" / "000003.jpg").read_bytes()
    (folder / "train" / "000003.jpg").write_bytes(wanted[:-9])
    (folder / "instances_test.json").unlink()
    assert canvases.prepare(**again) == folder
    assert "is damaged, and is drawn again" in caplog.text
    # To the byte.
    for path in sorted(path for path in drawn.rglob("*") if path.is_file()):
        assert (folder / path.relative_to(drawn)).read_bytes() == path.read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == [drawn.name]
    other = canvases.prepare(**again | {"seed": 1})
    assert (other / "train" / "000003.jpg").read_bytes() != wanted


def test_no_digit_and_no_background_is_in_two_parts():
    digits = canvases.split_digits()
    held = [{image.tobytes() for image in images} for images, _ in digits.values()]
    assert [len(labels) for _, labels in digits.values()] == [1137, 300, 360]
    assert len(set.union(*held)) == sum(map(len, held))
    for photograph in canvases.load_photographs():
        parts = [canvases.cut_columns(photograph, part) for part in canvases.PARTS]
        assert sum(part.width for part in parts) == photograph.width
        joined = np.concatenate([np.asarray(part) for part in parts], axis=1)
        np.testing.assert_array_equal(joined, np.asarray(photograph))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 100}, "`size` must be a multiple of 32"),
        ({"counts": (1, 0, 1)}, "`counts` must be integers of 1 or more"),
        ({"seed": -1}, "`seed` must be an integer of 0 or more"),
    ],
)
def test_canvases_of_wrong_options_are_refused(options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        canvases.prepare(**options, cache=str(tmp_path))
    assert not list(tmp_path.iterdir())


def write_coco(root, year="2017", place="annotations", parts=("train", "val")):
    """Write COCO's own layout."""
    (root / place).mkdir(parents=True, exist_ok=True)
    for seed, part in enumerate(parts):
        contents, document = rectangles(5, seed=seed)
        (root / f"{part}{year}").mkdir()
        for image, content in zip(document["images"], contents, strict=True):
            (root / f"{part}{year}" / image["file_name"]).write_bytes(content)
        (root / place / f"instances_{part}{year}.json").write_text(json.dumps(document))
    return root


@pytest.mark.parametrize(
    ("year", "place", "parts"),
    [
        ("2017", "annotations", ("train", "val")),
        ("2017", "", ("train", "val")),
        ("", "", ("train", "validation", "test")),
    ],
)
def test_cocos_layout_is_read(year, place, parts, tmp_path):
    root = write_coco(tmp_path, year, place, parts)
    found = datasets.load("coco", str(root), image_size=64)
    assert (found.train.size, found.test.size) == (5, 5)
    assert (found.validation is None) == (len(parts) == 2)
    assert found.class_names == ("green",)
    # Of the annotations, and of the files' bytes.
    assert found.train.fingerprint == split_of(*rectangles(5)).fingerprint


def test_missing_images_are_told_left_out_or_too_many(tmp_path, caplog):
    root = write_coco(tmp_path)
    (root / "train2017" / "3.jpg").unlink()
    found = datasets.load("coco", str(root), image_size=64)
    assert "instances_train2017.json names 1 file that is not in" in caplog.text
    assert "3.jpg of image 103" in caplog.text
    ((images, targets),) = listed(found.train.batches(5, ORDER))
    assert images.shape == (5, 64, 64, 3)
    assert (targets["classes"][:, 0] == 0).all()
    (root / "train2017" / "1.jpg").unlink()
    with pytest.raises(ValueError, match=r"names 2 files .* admits 1 of 5: 1.jpg of .*; 3.jpg of"):
        datasets.load("coco", str(root))


def changed(path, change):
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def test_sets_that_do_not_fit_together_are_refused(tmp_path, caplog):
    root = write_coco(tmp_path)
    val, train = (root / "annotations" / f"instances_{part}2017.json" for part in ("val", "train"))
    sound = val.read_text()
    changed(val, lambda document: document["categories"][0].update(name="red"))
    with pytest.raises(ValueError, match=r"val2017.json must have the categories of .*5 red"):
        datasets.load("coco", str(root))
    val.write_text(sound)
    changed(val, lambda document: document["annotations"].clear())
    datasets.load("coco", str(root))
    assert "val2017.json has no object to evaluate" in caplog.text
    assert "train2017.json has no object" not in caplog.text
    val.write_text(sound)
    changed(train, lambda document: document["annotations"].clear())
    with pytest.raises(ValueError, match=r"train2017.json has no object to learn from"):
        datasets.load("coco", str(root))
    val.unlink()
    with pytest.raises(FileNotFoundError, match=r"must have documents for train and val"):
        datasets.load("coco", str(root))
    shutil.rmtree(root / "train2017")
    with pytest.raises(FileNotFoundError, match=r"instances_train2017.json, but no folder train20"):
        datasets.load("coco", str(root))
    with pytest.raises(ValueError, match=r"Unknown detection set 'cocoa'. Did you mean 'coco'\?"):
        datasets.load("cocoa")


def test_keras_cvs_label_encoder_takes_what_comes(augmented):
    import keras_cv
    from keras_cv.src.models.object_detection.retinanet import RetinaNetLabelEncoder

    images, targets = augmented(*FAST[0])
    anchors = keras_cv.models.RetinaNet.default_anchor_generator(boxes.FORMAT)
    encoder = RetinaNetLabelEncoder(boxes.FORMAT, anchors, box_variance=[0.1, 0.1, 0.2, 0.2])
    encoded, classes = encoder(images, targets)
    assert np.isfinite(np.asarray(encoded)).all()
    assert set(np.unique(classes)) <= {-2, -1, 0}
    assert (np.asarray(classes) == 0).any(1).mean() > 0.5
