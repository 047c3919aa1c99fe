"""TensorFlow Datasets, offline: prepared datasets of real digits, and what is wrong with others."""

import os
import shutil
import socket
import threading
import time

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from tfbio import data
from tfbio.data import network
from tfbio.data import tfds as reader


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    def refused(*arguments, **options):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", refused)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


def store(root, name, splits):
    """Prepare a dataset on disk, of (images, labels) by split, as TFDS itself does."""
    features = tfds.builder(name, data_dir=root).info.features
    more = sorted(set(features) - {"image", "label"})

    def examples(images, labels):
        for image, label in zip(images, labels, strict=True):
            yield {"image": image, "label": label, **dict.fromkeys(more, b"text")}

    signature = {key: tf.TensorSpec((), tf.string) for key in more}
    signature["image"] = tf.TensorSpec((None, None, None), tf.uint8)
    signature["label"] = tf.TensorSpec((), tf.int64)
    tfds.dataset_builders.store_as_tfds_dataset(
        name=name,
        version=str(tfds.builder_cls(name).VERSION),
        features=features,
        split_datasets={
            split: tf.data.Dataset.from_generator(examples, args=parts, output_signature=signature)
            if isinstance(parts[0], np.ndarray)
            else tf.data.Dataset.from_generator(
                lambda parts=parts: examples(*parts), output_signature=signature
            )
            for split, parts in splits.items()
        },
        data_dir=root,
        disable_shuffling=True,
    )
    return str(root)


def digits(count, size, channels):
    images, labels = (part[:count] for part in data.load("digits", image_size=size).train)
    return np.repeat(np.rint(images * 255).astype("u1"), channels, -1), labels


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    root = tmp_path_factory.mktemp("tfds")
    images, labels = digits(60, 32, 3)
    parts = {"train": (images[:50], labels[:50]), "test": (images[50:], labels[50:])}
    store(root, "svhn_cropped", parts | {"extra": parts["test"]})
    images, labels = digits(40, 28, 1)
    store(root, "mnist", {"train": (images, labels), "test": (images[:20], labels[:20])})
    return str(root)


@pytest.fixture
def copied(prepared, tmp_path):
    return shutil.copytree(prepared, tmp_path / "copy")


def test_a_prepared_dataset_is_read_back(prepared):
    images, labels = digits(60, 32, 3)
    dataset = data.load("svhn_cropped", prepared)
    np.testing.assert_array_equal(next(iter(dataset.train)), images[:50] / np.float32(255))
    np.testing.assert_array_equal(dataset.test.labels, labels[50:])
    assert isinstance(dataset.train, data.Arrays)
    assert dataset.class_names == tuple("0123456789")
    resized = data.load("svhn_cropped", prepared, download=True, image_size=16)
    assert resized.image_shape == (16, 16, 3)


def test_a_prepared_dataset_is_found_in_the_folder_of_tfds(prepared, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", prepared)
    assert data.load("svhn_cropped").train.size == 50


def test_images_of_many_sizes_are_kept_encoded_and_need_an_image_size(tmp_path, caplog):
    images, labels = digits(30, 12, 3)
    cut = [image[: 9 + index % 3] for index, image in enumerate(images)]
    parts = {"train": (cut, labels), "validation": (cut[:7], labels[:7])}
    root = store(tmp_path, "oxford_flowers102", parts)
    with pytest.raises(ValueError, match=r"`image_size` must be given for oxford_flowers102"):
        data.load("oxford_flowers102", root)
    dataset = data.load("oxford_flowers102", root, image_size=6)
    assert "the split validation of oxford_flowers102 stands for the test split" in caplog.text
    assert isinstance(dataset.train, data.Encoded)
    assert dataset.class_names[0] == "pink primrose"
    ((read, read_labels),) = dataset.train.batches(30)
    np.testing.assert_array_equal(read_labels, labels)
    # The catalog stores this dataset as JPEG.
    wanted = tf.image.resize(cut[2] / np.float32(255), (6, 6), antialias=True)
    np.testing.assert_allclose(read[2], wanted, atol=0.1)


def test_a_split_that_falls_short_is_refused(copied):
    (path,) = copied.rglob("mnist-train*")
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    path.write_bytes(content[length + 16 :])  # without its first record
    with pytest.raises(ValueError, match=r"expected to contain 40 elements but .* 39 elements\.$"):
        data.load("mnist", str(copied))


@pytest.mark.parametrize("damage", ["cut", "bytes", "gone", "metadata"])
def test_a_damaged_dataset_is_named_and_left_as_it_is(copied, damage):
    name = "dataset_info.json" if damage == "metadata" else "mnist-train*"
    (path,) = (copied / "mnist").rglob(name)
    content = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        middle = len(content) // 2
        tail = b"?" * 9 + content[middle + 9 :] if damage == "bytes" else b""
        path.write_bytes(content[:middle] + tail)
    before = {path: path.stat().st_mtime_ns for path in copied.rglob("*")}
    for download in (False, True):
        with pytest.raises(ValueError, match=r"^mnist cannot be read from ") as caught:
            data.load("mnist", str(copied), download=download)
        assert "\n" not in str(caught.value)
        assert before == {path: path.stat().st_mtime_ns for path in copied.rglob("*")}


def test_datasets_that_are_no_image_classification_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"^coco is not for image class.*objects"):
        data.load("coco", str(tmp_path))
    with pytest.raises(ValueError, match=r"Received: features text"):
        data.load("tiny_shakespeare", str(tmp_path))
    root = store(tmp_path, "tf_flowers", {"train": (digits(5, 8, 3)[0], np.arange(5))})
    with pytest.raises(ValueError, match=r"splits train and test, or validation. Received: train"):
        data.load("tf_flowers", root)


def test_a_dataset_too_large_for_memory_is_streamed(prepared, monkeypatch):
    monkeypatch.setattr(reader, "LARGEST", 1000)
    with pytest.raises(ValueError, match=r"`image_size` must be given for mnist, which takes more"):
        data.load("mnist", prepared)
    dataset = data.load("mnist", prepared, image_size=14)
    assert isinstance(dataset.train, data.Photographs)
    ((images, labels),) = dataset.train.batches(40)
    assert (images.shape, images.dtype) == ((40, 14, 14, 3), np.uint8)
    np.testing.assert_array_equal(labels, digits(40, 28, 1)[1])


@pytest.mark.parametrize("name", ["mnist", "oxford_flowers102"])
def test_a_download_without_network_ends_at_once(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", str(tmp_path / "default"))
    start = time.monotonic()
    for data_dir in ("", str(tmp_path / "new"), str(tmp_path)):
        with pytest.raises(OSError, match=r"^`download` needs the network.*not known.*`data_dir`"):
            data.load(name, data_dir, download=True)
    assert time.monotonic() - start < 5
    assert not os.listdir(tmp_path)


def test_a_resolver_that_never_answers_is_not_waited_for(monkeypatch):
    waiting = threading.Event()

    def silent(*_, **__):
        waiting.wait(30)
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", silent)
    start = time.monotonic()
    with pytest.raises(OSError, match=r"no answer within 0\.2 seconds\. Do something else\."):
        network.check("Do something else.", seconds=0.2)
    assert time.monotonic() - start < 5
    waiting.set()


def test_a_proxy_stands_for_the_network(monkeypatch):
    asked = []

    def refused(host, port, *_, **__):
        asked.append((host, port))
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", refused)
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    with pytest.raises(OSError, match=r"proxy\.example cannot be reached"):
        network.check("")
    assert asked == [("proxy.example", 3128)]


def test_a_download_that_fails_is_told_in_one_line(tmp_path, monkeypatch):
    def broken(self):
        raise RuntimeError("checksum of x\nis wrong")

    monkeypatch.setattr(network, "check", lambda remedy: None)
    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", broken)
    with pytest.raises(
        OSError, match=r"^The download of mnist failed: RuntimeError: checksum of x "
    ):
        data.load("mnist", str(tmp_path), download=True)


def test_what_is_downloaded_is_read(prepared, tmp_path, monkeypatch):
    def prepare(self):
        shutil.copytree(prepared, tmp_path / "new")

    monkeypatch.setattr(network, "check", lambda remedy: None)
    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", prepare)
    assert data.load("mnist", str(tmp_path / "new"), download=True).train.size == 40
