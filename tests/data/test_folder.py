"""Folders of real images by class, what is wrong with them, and images to predict."""

import pathlib
import re

import numpy as np
import pytest
import tensorflow as tf

from tests.cases import long_but
from tfbio import data

ENCODERS = {
    "png": tf.io.encode_png,
    "bmp": None,
    "jpg": lambda image: tf.io.encode_jpeg(image, quality=100),
    "JPEG": lambda image: tf.io.encode_jpeg(image, quality=100),
}


@pytest.fixture(scope="module")
def digits():
    images, labels = data.load("digits", image_size=12).train
    return np.rint(images[:90] * 255).astype("u1"), labels[:90]


def bmp(image):
    """Return 24-bit BMP bytes of a gray image, which TensorFlow decodes but does not encode."""
    height, width, _ = image.shape
    rows = np.repeat(image[::-1], 3, -1).reshape(height, -1)
    rows = np.pad(rows, ((0, 0), (0, -rows.shape[1] % 4)))
    body = rows.tobytes()
    numbers = [54 + len(body), 0, 54, 40, width, height]
    head = b"BM" + np.array(numbers, "<u4").tobytes() + np.array([1, 24], "<u2").tobytes()
    return head + np.array([0, len(body), 0, 0, 0, 0], "<u4").tobytes() + body


def write(root, images, labels, suffix="png"):
    for index, (image, label) in enumerate(zip(images, labels, strict=True)):
        path = root / f"digit{label}" / f"{index:03}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        encode = ENCODERS[suffix]
        path.write_bytes(bmp(image) if encode is None else encode(image).numpy())


def listed(split, **options):
    return [tuple(part.numpy() for part in batch) for batch in split.batches(16, **options)]


@pytest.mark.parametrize(
    ("suffix", "test"),
    [("png", "test"), ("bmp", "val"), ("jpg", "validation"), ("JPEG", "test")],
)
def test_images_by_class_are_read_back(tmp_path, digits, suffix, test, caplog):
    images, labels = digits
    write(tmp_path / "train", images[:70], labels[:70], suffix)
    write(tmp_path / test, images[70:], labels[70:], suffix)
    dataset = data.load("folder", str(tmp_path))
    assert dataset.image_shape == (12, 12, 3)
    assert dataset.class_names == tuple(f"digit{index}" for index in range(10))
    assert ("stands for the test split" in caplog.text) == (test != "test")
    order = np.lexsort((np.arange(20), labels[70:]))
    read, read_labels = (np.concatenate(parts) for parts in zip(*listed(dataset.test), strict=True))
    np.testing.assert_array_equal(read_labels, labels[70:][order])
    wanted = np.repeat(images[70:][order], 3, -1) / np.float32(255)
    np.testing.assert_allclose(read, wanted, atol=0 if suffix in ("png", "bmp") else 0.1)


def test_a_class_without_test_images_moves_no_label(tmp_path, digits):
    images, labels = digits
    write(tmp_path / "train", images, labels)
    write(tmp_path / "test", images[labels == 7], [7] * sum(labels == 7))
    dataset = data.load("folder", str(tmp_path))
    assert dataset.num_classes == 10
    assert set(dataset.test.labels) == {7}


def test_an_epoch_of_files_is_pure_and_its_tails_are_its_own(tmp_path, digits):
    write(tmp_path / "train", *digits)
    write(tmp_path / "test", *digits)
    split, held = data.load("folder", str(tmp_path), image_size=10).train.hold_out(0.3, seed=0)
    options = {"order": (1, 2), "augmentation": "crop_flip"}
    whole = listed(split, **options)
    assert len(whole) == split.steps(16) == len(split.batches(16)) == 4
    for start in (0, 1, 4):
        tail = listed(split, start=start, **options)
        assert len(tail) == 4 - start
        for one, other in zip(whole[start:], tail, strict=True):
            np.testing.assert_array_equal(one[0], other[0])
            np.testing.assert_array_equal(one[1], other[1])
    assert sum(batch[2].sum() for batch in listed(held, pad=True)) == held.size == 27


def test_a_fifth_of_each_class_is_the_test_split_where_there_is_none(tmp_path, digits, caplog):
    write(tmp_path, *digits)
    (tmp_path / "readme.txt").write_text("no class")
    (tmp_path / ".cache").mkdir()
    (tmp_path / "digit0" / ".hidden.png").write_bytes(b"")
    (tmp_path / "digit0" / "notes.txt").write_text("no image")
    dataset = data.load("folder", str(tmp_path))
    assert "a fifth of each class is the test split" in caplog.text
    counts = np.bincount(digits[1])
    np.testing.assert_array_equal(np.bincount(dataset.test.labels), np.round(counts / 5))
    assert dataset.train.size + dataset.test.size == 90
    paths = [set(split.sources) for split in dataset[:2]]
    assert not paths[0] & paths[1]
    again = data.load("folder", str(tmp_path))
    np.testing.assert_array_equal(dataset.test.sources, again.test.sources)


def test_gray_color_and_animated_images_come_in_the_channels_wanted(tmp_path):
    gray = np.full((4, 4, 1), 200, "u1")
    color = np.stack([gray[..., 0], gray[..., 0] // 2, gray[..., 0] // 4], -1)
    frames = (
        b"GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\xff\xff\xff"
        b"!\xf9\x04\x00\x00\x00\x00\x00,\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02L\x01\x00;"
    )
    (tmp_path / "a.gif").write_bytes(frames)
    (tmp_path / "b.bmp").write_bytes(bmp(gray))
    (tmp_path / "c.png").write_bytes(tf.io.encode_png(color).numpy())
    (tmp_path / "d.png").write_bytes(tf.io.encode_png(gray).numpy())
    alpha = np.concatenate([color, gray], -1)
    (tmp_path / "e.png").write_bytes(tf.io.encode_png(alpha).numpy())
    for channels, wanted in ((1, [255, 200, 122, 200, 122]), (3, None)):
        paths, batches = data.images(str(tmp_path), (2, 2), channels)
        assert [path[-5:] for path in paths] == ["a.gif", "b.bmp", "c.png", "d.png", "e.png"]
        (batch,) = batches
        assert batch.shape == (5, 2, 2, channels)
        pixels = np.rint(batch[:, 0, 0].numpy() * 255)
        if wanted:
            np.testing.assert_allclose(pixels[:, 0], wanted, atol=2)
        else:
            np.testing.assert_array_equal(pixels[1:4], [[200] * 3, [200, 100, 50], [200] * 3])
            np.testing.assert_array_equal(pixels[4], [200, 100, 50])


def test_images_to_predict_are_found_at_any_depth_and_sorted(tmp_path, digits):
    write(tmp_path / "deep" / "deeper", *digits)
    paths, batches = data.images(tmp_path, (12, 12), 1, batch_size=32)
    assert len(paths) == 90
    assert paths == sorted(paths)
    assert [len(batch) for batch in batches] == [32, 32, 26]
    image = tf.io.decode_png(tf.io.read_file(paths[40]))
    np.testing.assert_array_equal(list(batches)[1][8], image / 255)
    assert next(iter(data.images(tmp_path, None, 3)[1])).shape == (64, 12, 12, 3)
    with pytest.raises(
        FileNotFoundError, match=r"^`folder` must be an existing folder. Received: '.*none'"
    ):
        data.images(tmp_path / "none", (12, 12), 1)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"^.*empty holds no images: none of \.png"):
        data.images(tmp_path / "empty", (12, 12), 1)
    pathlib.Path(paths[40]).write_bytes(b"no image")
    message = rf"^{re.escape(paths[40])} cannot be read as an image\.$"
    with pytest.raises(ValueError, match=message), data.clear_errors():
        list(data.images(tmp_path, (12, 12), 1)[1])
    with pytest.raises(ValueError, match=message):
        data.images(tmp_path, None, 1)


@pytest.mark.parametrize(
    ("suffix", "damage"),
    long_but(
        # Cut JPEGs are in test_photographs.py, too.
        [("png", "cut"), ("bmp", "cut"), ("png", "gone")],
        [
            *(("png", "cut"), ("jpg", "cut"), ("bmp", "cut")),
            *(("png", "empty"), ("jpg", "text"), ("png", "gone")),
        ],
    ),
)
def test_a_damaged_image_is_named(tmp_path, digits, suffix, damage):
    write(tmp_path / "train", *digits, suffix)
    write(tmp_path / "test", *digits, suffix)
    dataset = data.load("folder", str(tmp_path), image_size=8)
    path = sorted((tmp_path / "train" / "digit7").iterdir())[3]
    content = path.read_bytes()
    damaged = {"cut": content[: len(content) // 2], "empty": b"", "text": b"text " * 50}
    path.unlink()
    if damage in damaged:
        path.write_bytes(damaged[damage])
    message = rf"^{re.escape(str(path))} cannot be read as an image\.$"
    with pytest.raises(ValueError, match=message), data.clear_errors():
        listed(dataset.train, order=(0, 0))
    with pytest.raises(tf.errors.InvalidArgumentError, match=re.escape(str(path))):
        listed(dataset.train)
    with pytest.raises(ValueError, match=message):
        dataset.train.check()
    dataset.test.check()
    # Of a part, only the part.
    parts = dataset.train.hold_out(0.5, seed=0)
    for part in parts:
        if str(path).encode() in part.sources:
            with pytest.raises(ValueError, match=message):
                part.check()
        else:
            part.check()
    if damage != "gone":
        with pytest.raises(ValueError, match=message):
            data.load("folder", str(tmp_path))


def test_a_damaged_image_in_memory_is_named_when_all_are_decoded(digits):
    contents = [tf.io.encode_png(image).numpy() for image in digits[0][:5]]
    names = [f"example {index}" for index in range(5)]
    split = data.Encoded(contents, digits[1][:5], (12, 12, 1), names)
    np.testing.assert_array_equal(split.decoded(), digits[0][:5])
    contents[3] = contents[3][:40]
    split = data.Encoded(contents, digits[1][:5], (12, 12, 1), names)
    with pytest.raises(ValueError, match=r"^example 3 cannot be read as an image\.$"):
        split.decoded()


def test_other_errors_than_of_images_stay_what_they_are():
    with pytest.raises(tf.errors.InvalidArgumentError), data.clear_errors():
        tf.reshape(tf.zeros(3), (2, 2))


def test_images_that_differ_in_size_need_an_image_size(tmp_path, digits):
    images, labels = digits
    write(tmp_path / "train", images, labels)
    write(tmp_path / "test", images, labels)
    odd = tmp_path / "test" / "digit3" / "odd.png"
    odd.write_bytes(tf.io.encode_png(images[0][:7]).numpy())
    with pytest.raises(ValueError, match=r"^`image_size` must .* 12 × 12 and .*odd.png of 7 × 12"):
        data.load("folder", str(tmp_path))
    assert data.load("folder", str(tmp_path), image_size=9).image_shape == (9, 9, 3)
    with pytest.raises(ValueError, match=r"`image_size` must be given"):
        data.images(tmp_path, None, 1)


def test_folders_that_lack_something_are_refused(tmp_path, digits):
    def refused(message, data_dir=tmp_path, kind=ValueError):
        with pytest.raises(kind, match=message):
            data.load("folder", data_dir and str(data_dir), image_size=8)

    refused("`data_dir` must be the folder of images by class", "")
    refused(
        "`data_dir` must be an existing folder. Received: '.*none'",
        tmp_path / "none",
        FileNotFoundError,
    )
    refused("must hold a folder for each class, and has none")
    (tmp_path / "loose.png").write_bytes(b"")
    refused("must hold a folder for each class, and has none")
    write(tmp_path / "few", digits[0][:2], [0, 1])
    refused("must have a class of 3 images or more", tmp_path / "few")
    write(tmp_path / "train", *digits)
    refused("has the folder train, but none of test, val, validation")
    (tmp_path / "test" / "digit0").mkdir(parents=True)
    refused(r"The class .*test/digit0 holds no images: none of \.png")
    write(tmp_path / "test", digits[0][:1], [0])
    write(tmp_path / "test", digits[0][:2], ["x", "y"])
    refused(r"test has classes that .*train lacks: digitx, digity\.")


def test_links_are_followed_but_not_in_circles(tmp_path, digits):
    write(tmp_path / "stored", *digits)
    (tmp_path / "linked").mkdir()
    for path in (tmp_path / "stored").iterdir():
        (tmp_path / "linked" / path.name).symlink_to(path)
    names = [data.load("folder", str(tmp_path / name)).class_names for name in ("stored", "linked")]
    assert names[0] == names[1]
    assert len(data.images(tmp_path / "linked", None, 1)[0]) == 90
    (tmp_path / "stored" / "again").symlink_to("../stored")
    message = r"^\S*again links to \S*stored, within which it is: .*Remove the link\.$"
    with pytest.raises(ValueError, match=message):
        data.load("folder", str(tmp_path / "stored"))
    with pytest.raises(ValueError, match=message):
        data.images(tmp_path / "stored", None, 1)
