"""Photographs: three readers with equal batches, crops, colors, damage, workers, evaluation."""

import gc
import io
import itertools
import math
import shutil
import time

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from PIL import Image

from tests import photographs
from tests.cases import long_but
from tfbio import _keras, data, training
from tfbio.data import chance, crops, decoding, records
from tfbio.data.examples import Plan
from tfbio.data.photographs import Contents, Photographs
from tfbio.training import use

SIZE = 32
ORDER = (3, 5)


@pytest.fixture(scope="module")
def parts():
    return {"train": photographs.examples(40, 0), "validation": photographs.examples(14, 1)}


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def shards(parts, tmp_path_factory):
    return photographs.write_shards(tmp_path_factory.mktemp("shards"), parts)


@pytest.fixture(scope="module")
def folders(parts, tmp_path_factory):
    return photographs.write_folders(tmp_path_factory.mktemp("folders"), parts)


@pytest.fixture(scope="module")
def split(parts):
    return in_memory([content for *_, content in parts["train"]])


@pytest.fixture(scope="module")
def cropped(split):
    """Return an epoch of random crops, and its batches."""
    batches = split.batches(8, ORDER, augmentation="resized_crop_flip", multiple=2)
    return batches, listed(batches)


def in_memory(contents, **options):
    names = [f"photograph {index}" for index in range(len(contents))]
    return Photographs(Contents(contents, np.arange(len(contents)), names), SIZE, **options)


def listed(batches):
    return [tuple(part.numpy() for part in batch) for batch in batches]


def second_halves(batches):
    """Return what the second of two workers takes."""
    return [tuple(part[len(part) // 2 :] for part in batch) for batch in batches]


def joined(workers):
    """Return whole batches from those of workers."""
    together = zip(*workers, strict=True)
    return [tuple(map(np.concatenate, zip(*batch, strict=True))) for batch in together]


def same(one, other):
    assert len(one) == len(other) > 0
    for a, b in zip(one, other, strict=True):
        for x, y in zip(a, b, strict=True):
            assert x.dtype == y.dtype
            np.testing.assert_array_equal(x, y)


def test_three_readers_give_equal_batches(parts, shards, tmp_path):
    places = [
        shards,
        photographs.write_folders(tmp_path / "folders", parts, photographs.WNIDS),
        photographs.write_tfds(tmp_path / "tfds", parts),
    ]
    seen, digests = [], []
    for place in places:
        found = data.load("imagenet2012", place, image_size=SIZE)
        assert found.class_names == photographs.WNIDS == tuple(sorted(photographs.WNIDS))
        assert (found.train.size, found.test.size, found.image_shape) == (40, 14, (SIZE, SIZE, 3))
        assert data.channel_statistics(found.train)[0] == [0.485, 0.456, 0.406]
        seen.append(listed(found.train.batches(8, ORDER, augmentation="flip")))
        splits = (*found.train.hold_out(0.2, seed=1), found.test)
        assert [split.size for split in splits] == [32, 8, 14]
        digests.append([split.fingerprint for split in splits])
    same(seen[0], seen[1])
    same(seen[0], seen[2])
    assert digests[0] == digests[1] == digests[2]  # of the bytes of all images
    assert seen[0][0][0].dtype == np.uint8
    assert {label for batch in seen[0] for label in batch[1]} == {0, 7, 999}


def test_a_place_that_is_no_local_folder_is_read(parts, shards):
    places = [
        shards,
        photographs.write_shards("ram://a/imagenet", parts),
        photographs.write_folders("ram://b/imagenet", parts),
    ]
    splits = [data.load("imagenet2012", place, image_size=SIZE).train for place in places]
    assert splits[0].fingerprint == splits[1].fingerprint  # of the bytes of all 40 images
    images = [next(iter(split.batches(40)))[0] for split in splits[1:]]
    np.testing.assert_array_equal(*images)


def test_some_of_the_classes_are_classes_of_their_own(folders, caplog):
    found = data.load("imagenet2012", folders)
    assert found.class_names == photographs.CLASSES
    assert set(found.train.labels) == {0, 1, 2}
    assert found.image_shape == (224, 224, 3)
    assert "the classes are the 3 folders of" in caplog.text


def test_imagenette_comes_in_its_sizes(parts, tmp_path):
    name = "imagenette/160px-v2"
    few = photographs.catalog.class_names(name)[:3]
    renamed = {
        part: [(few[photographs.CLASSES.index(wnid)], *rest) for wnid, *rest in found]
        for part, found in parts.items()
    }
    root = photographs.write_folders(tmp_path, renamed, photographs.catalog.class_names(name))
    found = data.load(name, root, image_size=SIZE)
    assert (found.num_classes, found.train.size) == (10, 40)
    mean, _ = data.channel_statistics(found.train)
    pixels = next(iter(found.train.batches(40)))[0].numpy() / 255
    np.testing.assert_allclose(mean, np.mean(pixels, (0, 1, 2), np.float64), rtol=1e-5)


def test_mock_data_of_tfds_is_read(tmp_path):
    with tfds.testing.mock_data(num_examples=6):
        builder = tfds.builder("imagenet2012")
        examples = builder.as_dataset(split="train", decoders={"image": tfds.decode.SkipDecoding()})
        mocked = [
            (photographs.WNIDS[int(each["label"])], f"{index}.JPEG", each["image"].numpy())
            for index, each in enumerate(examples)
        ]
    assert {content[:2] for *_, content in mocked} == {b"\xff\xd8"}
    root = photographs.write_tfds(tmp_path, {"train": mocked, "validation": mocked[:2]})
    found = data.load("imagenet2012", root, image_size=SIZE)
    ((images, labels),) = listed(found.train.batches(6))
    assert [photographs.WNIDS[label] for label in labels] == [wnid for wnid, *_ in mocked]
    wanted = decoding.decode(mocked[2][2], 3)
    wanted = crops.evaluation_crops(wanted, SIZE)
    np.testing.assert_allclose(images[2], wanted, atol=0.51)


def test_what_is_missing_is_said(tmp_path, parts):
    with pytest.raises(FileNotFoundError, match=r"`data_dir` must be an existing folder"):
        data.load("imagenet2012", str(tmp_path / "none"))
    with pytest.raises(FileNotFoundError, match=r"imagenet2012 was not found in .*train-00000-of-"):
        data.load("imagenet2012", str(tmp_path))
    root = photographs.write_shards(tmp_path / "a", parts)
    (tmp_path / "a" / "train-00001-of-00003").unlink()
    with pytest.raises(ValueError, match=r"Received: 2 shards; train-00001-of-00003 is missing"):
        data.load("imagenet2012", root)
    root = photographs.write_shards(tmp_path / "b", {"train": parts["train"]})
    with pytest.raises(ValueError, match=r"has no shards validation-00000"):
        data.load("imagenet2012", root)
    root = photographs.write_folders(tmp_path / "c", {"train": parts["train"]})
    with pytest.raises(ValueError, match=r"has the folder train, but no folder val"):
        data.load("imagenet2012", root)


def test_shards_of_other_labels_or_features_are_refused(tmp_path):
    def write(features):
        for part in ("train", "validation"):
            with tf.io.TFRecordWriter(str(tmp_path / f"{part}-00000-of-00001")) as file:
                file.write(records.example(features))

    for label in (0, 1001):
        write({"image/encoded": b"x", "image/class/label": label})
        with pytest.raises(ValueError, match=rf"outside 1 to 1000. Received: {label}"):
            data.load("imagenet2012", str(tmp_path))
    write({"image": b"x", "label": 3})
    with pytest.raises(ValueError, match=r"record 0 must have an image, image/encoded"):
        data.load("imagenet2012", str(tmp_path))
    path = tmp_path / "train-00000-of-00001"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match=r"train-00000-of-00001 is truncated"):
        data.load("imagenet2012", str(tmp_path))


def test_shards_are_indexed_once(shards, monkeypatch):
    def fail(*_):
        raise AssertionError("read again")

    first = data.load("imagenet2012", shards).train
    monkeypatch.setattr(tf.io.gfile, "GFile", fail)
    np.testing.assert_array_equal(data.load("imagenet2012", shards).train.labels, first.labels)
    for file in records.cache_folder().iterdir():
        file.unlink()
    with pytest.raises(AssertionError, match="read again"):
        data.load("imagenet2012", shards)


def test_a_smaller_last_batch_of_photographs_is_dropped(parts):
    contents = [content for *_, content in parts["train"]][:19]
    whole = in_memory(contents)
    damaged = in_memory([contents[0][:40], *contents[1:]])
    for split in (whole, damaged):
        assert split.steps(8, multiple=8) == 2
        batches = split.batches(8, ORDER, augmentation="flip", multiple=8)
        batches = listed(batches)
        assert [len(labels) for _, labels in batches] == [8, 8]
        same(
            batches[1:],
            listed(split.batches(8, ORDER, augmentation="flip", multiple=8, start=1)),
        )


# That of random crops is looked at with damaged images, below.
def test_a_workers_part_of_a_tail_is_the_whole_epochs(split):
    options = {"order": ORDER, "augmentation": "flip", "multiple": 2}
    whole = listed(split.batches(8, **options))
    same(second_halves(whole[1:]), listed(split.batches(8, start=1, shard=(1, 2), **options)))


@pytest.mark.long
@pytest.mark.parametrize("augmentation", ["flip", "resized_crop_flip"])
def test_every_tail_and_every_workers_part_are_the_whole_epochs(split, augmentation):
    options = {"order": ORDER, "augmentation": augmentation, "multiple": 2}
    whole = listed(split.batches(8, **options))
    same(whole, listed(split.batches(8, **options)))
    same(whole[3:], listed(split.batches(8, start=3, **options)))
    halves = [listed(split.batches(8, shard=(index, 2), **options)) for index in range(2)]
    same(whole, joined(halves))
    other = listed(split.batches(8, (3, 6), augmentation=augmentation))
    assert not np.array_equal(other[0][0], whole[0][0])


def test_other_images_have_another_fingerprint(parts, split):
    contents = [content for *_, content in parts["train"]]
    assert in_memory(contents).fingerprint == split.fingerprint
    contents[7] = contents[8]
    assert in_memory(contents).fingerprint != split.fingerprint


def test_the_parallelism_changes_nothing(cropped):
    batches, whole = cropped
    options = tf.data.Options()
    options.threading.private_threadpool_size = 1
    options.autotune.enabled = False
    same(whole, listed(batches.with_options(options)))


def test_damaged_images_are_left_out_named_and_replaced(parts, cropped, caplog):
    contents = [content for *_, content in parts["train"]]
    _, whole = cropped
    order = np.concatenate([labels for _, labels in whole])
    # Two in a row, one of which is truncated, and the last: its substitute is the first. All are
    # the second worker's, and their substitutes are not.
    for place, bad in ((14, b""), (15, contents[order[15]][:-200]), (39, b"\xff\xd8?" * 9)):
        contents[order[place]] = bad
    split = in_memory(contents, max_corrupt=0.1)
    options = {"order": ORDER, "augmentation": "resized_crop_flip", "multiple": 2}
    found = listed(split.batches(8, **options))
    labels = np.concatenate([labels for _, labels in found])
    order[14], order[15], order[39] = order[16], order[16], order[0]
    np.testing.assert_array_equal(labels, order)
    assert [len(labels) for _, labels in found] == [8] * 5
    np.testing.assert_array_equal(found[0][0], whole[0][0])
    named = [record.getMessage() for record in caplog.records if "cannot be read" in record.message]
    assert len(named) == 3
    assert named[2].startswith("photograph ")
    assert named[2].endswith("It is left out; 3 so far")
    same(second_halves(found[1:]), listed(split.batches(8, start=1, shard=(1, 2), **options)))


@pytest.mark.parametrize(
    ("first", "augmentation"),
    long_but(
        [("png", "resized_crop_flip"), ("jpeg", "none")],
        itertools.product(["jpeg", "png"], ["resized_crop_flip", "none"]),
    ),
)
def test_images_read_together_are_those_read_alone(parts, first, augmentation):
    contents = [content for *_, content in parts["train"]] * 2
    png = tf.io.encode_png(decoding.decode(contents[7], 3)).numpy()
    bad = {18: contents[18][:-50], 19: b"?", 70: contents[70][:60], 79: b""}
    contents[40] = png
    contents[0] = png if first == "png" else contents[0]
    for index, content in bad.items():
        contents[index] = content
    split = in_memory(contents, max_corrupt=1)
    order = chance.permutation(80, *ORDER, chance.ORDER)
    draws = (chance.bits(80, *ORDER, chance.AUGMENTATION) >> np.uint64(1)).astype(np.int64)
    found = listed(split.batches(7, ORDER, augmentation=augmentation))
    decode = tf.function(lambda content: decoding.decode(content, 3))
    cut = tf.function(lambda content, draw: decoding.training_crop(content, 3, draw, (SIZE, SIZE)))
    images, labels = (np.concatenate(each) for each in zip(*found, strict=True))
    assert len(images) == 80
    for position, draw in enumerate(draws):
        row = next(row for row in np.roll(order, -position) if row not in bad)
        assert labels[position] == row
        if augmentation == "none":
            wanted = crops.evaluation_crops(decode(tf.constant(contents[row])), SIZE)
        else:
            wanted = cut(tf.constant(contents[row]), tf.constant(draw))
        np.testing.assert_array_equal(images[position], crops.as_bytes(wanted))


def test_damaged_images_weigh_nothing_in_evaluation(parts, caplog):
    contents = [content for *_, content in parts["validation"]]
    contents[5] = contents[5][:300]
    *_, (_, _, weights) = batches = listed(in_memory(contents).batches(7, pad=True))
    assert weights.tolist() == [1.0] * 7
    assert batches[0][2].tolist() == [1.0] * 5 + [0.0, 1.0]
    assert not batches[0][0][5].any()
    assert "photograph 5 cannot be read" in caplog.text


@pytest.mark.parametrize(
    ("share", "bad", "admitted"),
    long_but(
        [(0.05, 3, 2), (0.001, 1, 1), (0.0, 1, 0)],
        [(0.05, 2, 2), (0.05, 3, 2), (0.001, 1, 1), (0.001, 2, 1), (0.0, 1, 0)],
    ),
)
def test_too_much_damage_stops_the_run(parts, share, bad, admitted):
    contents = [b"?"] * bad + [content for *_, content in parts["train"]][bad:]
    split = in_memory(contents, max_corrupt=share)
    if bad <= admitted:
        assert len(listed(split.batches(8, ORDER))) == 5
        return
    images = "image" if admitted == 1 else "images"
    message = rf"^`max_corrupt={share:g}` admits {admitted} damaged {images} of 40 in a pass\. Rec"
    with pytest.raises(ValueError, match=message), data.clear_errors():
        listed(split.batches(8, ORDER))


def test_a_dataset_without_a_good_image_ends_in_an_error():
    split = in_memory([b"?"] * 50, max_corrupt=0.99)
    with pytest.raises(ValueError, match=r"photograph \d+ cannot be read"), data.clear_errors():
        listed(split.batches(8, ORDER))


def test_nothing_of_an_epochs_length_outlives_it(split):
    def plans():
        # Each refers to its class; a look at every object would take seconds.
        return [each for each in gc.get_referrers(Plan) if isinstance(each, Plan)]

    before = plans()  # those of other tests
    kept = Plan(*range(8))
    assert len(plans()) == len(before) + 1  # they are found
    del kept
    for options in ({"order": ORDER, "augmentation": "resized_crop_flip"}, {"pad": True}):
        iter(split.batches(8, **options))
    gc.collect()
    assert not [plan for plan in plans() if all(plan is not other for other in before)]


def test_a_damaged_record_is_named(parts, tmp_path, caplog):
    root = photographs.write_shards(tmp_path, parts)
    path = tmp_path / "train-00001-of-00003"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)
    found = data.load("imagenet2012", root, image_size=SIZE)
    assert found.train.size == 40
    listed(found.train.batches(8))
    assert "train-00001-of-00003, record " in caplog.text


def test_every_kind_of_image_decodes_to_its_colors():
    image = photographs.originals()[1].resize((96, 64))
    png, gif = io.BytesIO(), io.BytesIO()
    image.save(png, "PNG")
    image.quantize(256).save(gif, "GIF")
    kinds = {
        "rgb": photographs.jpeg(image),
        "cmyk": photographs.jpeg(image.convert("CMYK")),
        "gray": photographs.jpeg(image.convert("L")),
        "png": png.getvalue(),
        "gif": gif.getvalue(),
    }
    # PIL writes CMYK only; the marker's last byte says which of the two it is.
    at = kinds["cmyk"].index(b"Adobe") + 11
    assert kinds["cmyk"][at] == 0
    kinds["ycck"] = kinds["cmyk"][:at] + b"\x02" + kinds["cmyk"][at + 1 :]
    for name, content in kinds.items():
        decoded = decoding.decode(content, 3).numpy()
        wanted = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"), np.float32)
        assert np.abs(decoded - wanted).mean() < 3, name
    split = in_memory(list(kinds.values()), max_corrupt=0)
    for name in ("none", "resized_crop_flip"):
        ((images, _),) = listed(split.batches(len(kinds), ORDER, augmentation=name))
        assert len(images) == len(kinds)


def boxes(height, width, count):
    draws = tf.range(count, dtype=tf.int64) * 7919
    return crops.random_boxes([[height, width]] * count, draws).numpy()


def torchvision_box(height, width, random):
    """RandomResizedCrop.get_params, in NumPy."""
    for _ in range(10):
        area = height * width * random.uniform(0.08, 1.0)
        ratio = math.exp(random.uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            return random.integers(0, height - h + 1), random.integers(0, width - w + 1), h, w
    w, h = width, height
    if width / height < 3 / 4:
        h = round(width / (3 / 4))
    elif width / height > 4 / 3:
        w = round(height * (4 / 3))
    return (height - h) // 2, (width - w) // 2, h, w


@pytest.mark.parametrize(("height", "width"), [(375, 500), (300, 60), (1, 1)])
def test_random_boxes_are_distributed_as_torchvisions(height, width):
    found = boxes(height, width, 2000)
    random = np.random.default_rng(0)
    wanted = np.array([torchvision_box(height, width, random) for _ in range(4000)])
    assert (found[:, :2] >= 0).all()
    assert (found[:, 2:] >= 1).all()
    assert (found[:, :2] + found[:, 2:] <= (height, width)).all()
    for name, measure in (
        ("area", lambda box: box[:, 2] * box[:, 3] / (height * width)),
        ("ratio", lambda box: np.log(box[:, 3] / box[:, 2])),
        ("top", lambda box: box[:, 0] / height),
        ("left", lambda box: box[:, 1] / width),
    ):
        for share in (0.1, 0.25, 0.5, 0.75, 0.9):
            near = np.quantile(measure(wanted), share)
            share_of = [np.mean(measure(each) <= near + 1e-9) for each in (found, wanted)]
            assert abs(share_of[0] - share_of[1]) < 0.05, (name, share)  # deviation 0.014


def test_a_random_box_is_the_same_whatever_the_others():
    sides = np.random.default_rng(0).integers(1, 600, (500, 2)).astype(np.int32)
    draws = (chance.bits(500, 0, 0, chance.AUGMENTATION) >> np.uint64(1)).astype(np.int64)
    together = crops.random_boxes(sides, draws).numpy()
    for index in range(0, 500, 5):
        (alone,) = crops.random_boxes(sides[index : index + 1], draws[index : index + 1]).numpy()
        np.testing.assert_array_equal(alone, together[index])


def test_an_image_of_no_admitted_ratio_is_cut_centrally():
    (box,) = boxes(1000, 50, 1)
    np.testing.assert_array_equal(box, (466, 0, 67, 50))


def test_a_crop_is_what_was_cut_resized_and_mirrored(parts):
    content = parts["train"][0][2]
    whole = decoding.decode(content, 3).numpy().astype(np.float32)
    mirrored = 0
    for draw in range(100, 120):
        ((top, left, height, width),) = crops.random_boxes([whole.shape[:2]], [draw]).numpy()
        cut = whole[top : top + height, left : left + width]
        wanted = tf.image.resize(cut, (SIZE, SIZE)).numpy()
        wanted = wanted[:, ::-1] if draw % 2 else wanted
        mirrored += draw % 2
        found = decoding.training_crop(content, 3, tf.constant(draw, tf.int64), (SIZE, SIZE))
        # The decoder smooths colors across the border of a crop less.
        assert np.abs(found - wanted).mean() < 2
    assert mirrored == 10


def test_random_crops_are_for_folders_and_arrays_too(folders, parts):
    found = data.load("folder", folders, image_size=SIZE)
    (images, _), *_ = listed(found.train.batches(8, ORDER, augmentation="resized_crop_flip"))
    bytes_ = data.load("imagenet2012", folders, image_size=SIZE).train
    (wanted, _), *_ = listed(bytes_.batches(8, ORDER, augmentation="resized_crop_flip"))
    assert images.dtype == np.float32
    np.testing.assert_allclose(images * 255, wanted, atol=0.51)
    stored = np.stack([np.asarray(image.resize((48, 40))) for image in photographs.originals()])
    for array in (stored, (stored / 255).astype(np.float32)):
        split = data.Arrays(array, np.arange(4), SIZE)
        ((out, labels),) = listed(split.batches(4, ORDER, augmentation="resized_crop_flip"))
        draws = chance.bits(4, *ORDER, chance.AUGMENTATION) >> np.uint64(1)
        wanted = crops.training_crop(stored[labels[1]], np.int64(draws[1]), (SIZE, SIZE)) / 255
        np.testing.assert_allclose(out[1], wanted, atol=1e-6)


def test_evaluation_resizes_and_cuts_as_pil_does():
    image = photographs.originals()[2].resize((300, 200))
    found = crops.evaluation_crops(np.asarray(image), 56).numpy()
    pil = image.resize((96, 64), Image.Resampling.BILINEAR)
    wanted = np.asarray(pil.crop((20, 4, 76, 60)), np.float32)
    assert np.abs(found - wanted).mean() < 0.6
    ten = crops.evaluation_crops(np.asarray(image), 56, count=10).numpy()
    corners = [(0, 0), (40, 0), (0, 8), (40, 8), (20, 4)]
    five = [np.asarray(pil.crop((x, y, x + 56, y + 56)), np.float32) for x, y in corners]
    wanted = np.stack(five + [cut[:, ::-1] for cut in five])
    assert np.abs(ten - wanted).mean((1, 2, 3)).max() < 0.6


def test_ten_crops_average_probabilities(split):
    images, _ = next(iter(split.batches(4, crops=10)))
    assert images.shape == (4, 10, SIZE, SIZE, 3)
    weights = np.random.default_rng(0).normal(size=(3, 5)).astype("f4")

    def model(images):
        return tf.reduce_mean(tf.cast(images, tf.float32), (1, 2)) / 20 @ weights

    seen = set()

    def seeing(images):
        seen.add(images.shape[0])
        return model(images)

    logits = data.average_over_crops(seeing, images)
    assert seen == {4}  # one crop of each image at a time: more would not fit
    wanted = np.mean([tf.nn.softmax(model(images[:, index])) for index in range(10)], 0)
    np.testing.assert_allclose(tf.nn.softmax(logits), wanted, rtol=1e-5)
    with pytest.raises(ValueError, match=r"`crops` must be 1 or 10. Received: 5"):
        split.check_crops(5)


@pytest.fixture(scope="module")
def small_net(tmp_path_factory):
    path = tmp_path_factory.mktemp("net") / "net.py"
    path.write_text(
        "import keras\n"
        "def net(num_classes, input_shape):\n"
        "    x = inputs = keras.Input(input_shape)\n"
        "    x = keras.layers.Conv2D(8, 5, 4, activation='relu', name='conv')(x)\n"
        "    x = keras.layers.GlobalAveragePooling2D()(x)\n"
        "    x = keras.layers.Dense(num_classes, name='top')(x)\n"
        "    return keras.Model(inputs, x, name='net')\n"
    )
    return f"{path}:net"


@pytest.fixture(scope="module")
def damaged(parts, tmp_path_factory):
    """Folders with a damaged image in each part."""
    root = tmp_path_factory.mktemp("damaged")
    parts = {
        part: [*found[:-1], (*found[-1][:2], found[-1][2][:500])] for part, found in parts.items()
    }
    return photographs.write_folders(root, parts)


def options(place, net, workdir, **changes):
    return training.Classification(
        **{
            "dataset": "imagenet2012",
            "data_dir": place,
            "image_size": SIZE,
            "augmentation": "resized_crop_flip",
            "standardize": True,
            "model": net,
            "rule": "feedback_alignment",
            "epochs": 1,
            "batch_size": 8,
            "checkpoint_every": 2,
            "steps_per_call": 1,
            "telemetry_every": 0,
            "validation_fraction": 0.2,
            "evaluation_crops": 10,
            "workdir": str(workdir),
            **changes,
        }
    )


def train(experiment, progress=lambda step, total: None):
    return training.train_and_evaluate(experiment, tell=lambda text: None, progress=progress)


def test_photographs_train_evaluate_and_predict(damaged, small_net, tmp_path, caplog):
    whole = train(options(damaged, small_net, tmp_path / "whole"))
    assert whole["steps"] == 4
    assert 0 <= whole["test_accuracy"] <= 1
    assert np.isfinite(whole["test_loss"])
    named = [record.getMessage() for record in caplog.records if "cannot be read" in record.message]
    assert len({text.split(" cannot")[0] for text in named}) == 2
    table = tmp_path / "table.csv"
    images = f"{damaged}/train/{photographs.CLASSES[0]}"
    count = use.predict(options(damaged, small_net, tmp_path / "whole"), images, table)
    assert count == 14 == len(table.read_text().splitlines()) - 1
    measured = [
        use.evaluate(options(damaged, small_net, tmp_path / "whole", evaluation_crops=crops))
        for crops in (10, 1)
    ]
    assert measured[0]["test_loss"] == whole["test_loss"] != measured[1]["test_loss"]


# The tails of damaged images, above, and runs of arrays (training/) are resumed to the bit, too.
@pytest.mark.long
def test_photographs_resume(damaged, small_net, tmp_path):
    def progress(step, total):
        if step == 2:  # as if it was killed then
            shutil.copytree(tmp_path / "whole", tmp_path / "cut")

    whole = train(options(damaged, small_net, tmp_path / "whole"), progress)
    resumed = train(options(damaged, small_net, tmp_path / "cut"))
    kept = ("test_loss", "test_accuracy", "validation_loss", "loss", "weight_angles")
    assert {name: resumed[name] for name in kept} == {name: whole[name] for name in kept}
    assert resumed["resumed_at_steps"] == [2]


def test_ten_crops_are_refused_where_images_are_used_as_a_whole(tmp_path):
    with pytest.raises(ValueError, match=r"`evaluation_crops` must be 1 for these images"):
        training.prepare(training.Classification(evaluation_crops=10))


@pytest.fixture
def dispatcher():
    server = tf.data.experimental.service.DispatchServer()
    yield server
    _keras.stop_data_server(server)


def worker(dispatcher):
    address = dispatcher.target.partition("://")[2]
    config = tf.data.experimental.service.WorkerConfig(address, heartbeat_interval_ms=100)
    return tf.data.experimental.service.WorkerServer(config)


def test_a_data_service_gives_the_same_batches(shards, dispatcher, caplog):
    split = data.load("imagenet2012", shards, image_size=SIZE).train
    options = {"order": ORDER, "augmentation": "flip", "start": 1}
    first = worker(dispatcher)
    service = data.Service(dispatcher.target, timeout=60)
    service.check()
    same(listed(split.batches(8, **options, service=service)), listed(split.batches(8, **options)))
    second = worker(dispatcher)
    while _keras.count_data_workers(dispatcher) < 2:
        time.sleep(0.05)
    # The first alone may serve a short stream before the second has begun.
    long = service.stream(tf.data.Dataset.range(10**6))
    with pytest.raises(ValueError, match=r"must have one worker"), data.clear_errors():
        for _ in long:
            pass
    _keras.stop_data_server(first)
    _keras.stop_data_server(second)


def test_a_silent_data_service_ends_in_an_error(split, dispatcher, small_net, tmp_path):
    # A dispatcher without a worker.
    service = data.Service(dispatcher.target, timeout=1)
    message = r"^The tf.data service grpc://.* gave no batch within its timeout of 1 seconds"
    with pytest.raises(ValueError, match=message), data.clear_errors():
        listed(split.batches(8, ORDER, service=service))
    port = dispatcher.target.rpartition(":")[2]
    _keras.stop_data_server(dispatcher)
    with pytest.raises(OSError, match=rf"service grpc://localhost:{port} cannot be reached"):
        data.Service(f"grpc://localhost:{port}", timeout=1).check()
    with pytest.raises(ValueError, match=r"`data_service_timeout` belongs to `data_service"):
        training.Classification(data_service_timeout=3)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_exif_orientation_is_read_and_not_applied(orientation):
    # As torchvision's folders, TensorFlow Datasets and Keras read images; PIL can tell.
    pixels = np.random.default_rng(0).integers(0, 256, (40, 24, 3)).astype("uint8")
    exif = Image.Exif()
    exif[0x0110] = "a camera"  # a tag that comes before
    exif[0x0112] = orientation
    plain = photographs.jpeg(Image.fromarray(pixels))
    tagged = photographs.jpeg(Image.fromarray(pixels), exif=exif.tobytes())
    assert tagged != plain
    assert Image.open(io.BytesIO(tagged)).getexif()[0x0112] == orientation
    assert decoding.read_orientation(tagged) == orientation
    assert decoding.read_orientation(plain) == 1
    for cut in (None, 9, 30, 60):  # damaged: no orientation that can be read, and no error
        assert decoding.read_orientation(tagged[:cut]) in (1, orientation)
    assert decoding.read_orientation(b"GIF89a") == 1
    box, draw = tf.constant([3, 2, 20, 10]), tf.constant(7, tf.int64)
    for read in (
        lambda content: decoding.decode(content, 3),
        lambda content: decoding.window(content, 3, box),
        lambda content: decoding.training_crop(content, 3, draw, (8, 8)),
    ):
        tf.nest.map_structure(np.testing.assert_array_equal, read(tagged), read(plain))
    assert decoding.decode(tagged, 3).shape == (40, 24, 3)
