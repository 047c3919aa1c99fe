"""Data: IDX files true and false, the datasets, and the pipeline."""

import contextlib
import gzip
import pathlib
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tfbio import data
from tfbio.data import datasets, idx

CODES = {"u1": 8, "i1": 9, "i2": 11, "i4": 12, "f4": 13, "f8": 14}


def encode(array):
    code = CODES[array.dtype.str[1:]]
    header = bytes([0, 0, code, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("idx")


@given(
    st.sampled_from(sorted(CODES)).flatmap(
        lambda code: hnp.arrays(code, hnp.array_shapes(max_dims=3, max_side=4))
    ),
    st.booleans(),
)
def test_every_idx_array_is_read_back(folder, array, compressed):
    path = folder / "file"
    path.write_bytes(gzip.compress(encode(array)) if compressed else encode(array))
    read = idx.read(path)
    assert read.dtype == array.dtype
    np.testing.assert_array_equal(read, array)


@given(st.binary(max_size=40) | st.binary(max_size=12).map(lambda tail: b"\0\0\x08\x01" + tail))
def test_any_bytes_are_an_array_or_a_value_error(folder, content):
    path = folder / "any"
    path.write_bytes(content)
    with contextlib.suppress(ValueError):
        array = idx.read(path)
        assert encode(array) == content


def test_lying_headers_and_damaged_files_are_named(tmp_path):
    good = encode(np.arange(6, dtype="u1").reshape(2, 3))
    for content, message in (
        (good[:-1], r"states: shape \(2, 3\) of 1-byte entries is 6 bytes. Received: 5"),
        (good + b"x", "Received: 7"),
        (good[:6], "cut short"),
        (b"", "an empty file"),
        (b"PNG!", "not an IDX file.*50 4e 47 21"),
        (gzip.compress(good)[:-9], "damaged or truncated gzip"),
        (gzip.compress(good)[:12] + b"garbage and more", "damaged or truncated gzip"),
    ):
        path = tmp_path / "broken"
        path.write_bytes(content)
        with pytest.raises(ValueError, match=message) as caught:
            idx.read(path)
        assert str(path) in str(caught.value)


def write_fashion(folder, train=6, test=4, **replaced):
    for prefix, count in (("train", train), ("t10k", test)):
        images = np.random.default_rng(count).integers(0, 256, (count, 28, 28)).astype("u1")
        files = {f"{prefix}-images-idx3-ubyte": images}
        files[f"{prefix}-labels-idx1-ubyte"] = (np.arange(count) % 10).astype("u1")
        for name, array in files.items():
            array = replaced.get(name.replace("-", "_"), array)
            pathlib.Path(folder, f"{name}.gz").write_bytes(gzip.compress(encode(array)))
    return str(folder)


def test_fashion_mnist_is_read_from_an_explicit_folder_only(tmp_path):
    dataset = data.load("fashion_mnist", write_fashion(tmp_path))
    (train_x, train_y), (test_x, test_y), classes = dataset
    assert train_x.shape == (6, 28, 28, 1)
    assert test_x.shape == (4, 28, 28, 1)
    assert train_x.dtype == np.float32
    assert 0 <= train_x.min() < train_x.max() == 1.0
    assert (list(train_y), list(test_y), classes) == (list(range(6)), list(range(4)), 10)
    with pytest.raises(FileNotFoundError, match=r"no such folder as '.*none'.*--data_dir"):
        data.load("fashion_mnist", str(tmp_path / "none"))
    (tmp_path / "train-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(FileNotFoundError, match=r"neither train-labels-idx1-ubyte\.gz nor"):
        data.load("fashion_mnist", str(tmp_path))


def test_the_usual_places_are_looked_through_in_order(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "FASHION_MNIST_PLACES", ("/nowhere", write_fashion(tmp_path)))
    assert len(data.load("fashion_mnist").train[0]) == 6
    monkeypatch.setattr(datasets, "FASHION_MNIST_PLACES", ("/nowhere",))
    with pytest.raises(FileNotFoundError, match="dataset-fashion-mnist"):
        data.load("fashion_mnist")


@pytest.mark.parametrize(
    ("replaced", "message"),
    [
        ({"train_labels_idx1_ubyte": np.full(6, 10, "u1")}, "must be 0 to 9. Received: 10"),
        (
            {"train_labels_idx1_ubyte": np.zeros(6, "f4")},
            "unsigned bytes. Received: uint8 and floa",
        ),
        ({"t10k_labels_idx1_ubyte": np.zeros(3, "u1")}, r"\(4, 28, 28\) and \(3,\)"),
        ({"train_images_idx3_ubyte": np.zeros((6, 28, 27), "u1")}, r"\(6, 28, 27\)"),
    ],
)
def test_files_that_do_not_fit_together_are_refused(tmp_path, replaced, message):
    with pytest.raises(ValueError, match=message):
        data.load("fashion_mnist", write_fashion(tmp_path, **replaced))


def test_digits_are_real_and_split_the_same_every_time():
    first, second = data.load("digits"), data.load("digits")
    assert set(np.bincount(first.test[1])) <= {35, 36, 37}  # stratified
    np.testing.assert_array_equal(first.test[0], second.test[0])
    assert first.train[0].min() == 0.0
    assert first.train[0].max() == 1.0
    with pytest.raises(ValueError, match="reads no data_dir"):
        data.load("digits", "somewhere")
    with pytest.raises(ValueError, match=r"Unknown dataset 'digit'\. Did you mean 'digits'\?"):
        data.load("digit")


@given(st.integers(2, 50), st.floats(0, 0.9), st.integers(0, 5))
def test_the_validation_split_parts_the_examples_and_follows_the_seed(count, fraction, seed):
    images, labels = np.arange(count), np.arange(count) + 100
    train, validation = data.split(images, labels, fraction, seed)
    assert sorted([*train[0], *validation[0]]) == list(images)
    assert len(validation[0]) == round(fraction * count)
    for part_images, part_labels in (train, validation):
        np.testing.assert_array_equal(part_images + 100, part_labels)
    np.testing.assert_array_equal(train[0], data.split(images, labels, fraction, seed)[0][0])


def test_batches_cover_every_epoch_in_an_order_of_its_own():
    images = labels = np.arange(20)
    epochs = []
    for _ in range(2):
        dataset = data.batches(images, labels, 8, seed=1)
        epochs.append([np.concatenate([x for x, _ in dataset]) for _ in range(2)])
    np.testing.assert_array_equal(epochs[0], epochs[1])
    assert not np.array_equal(epochs[0][0], epochs[0][1])
    assert sorted(epochs[0][0]) == list(range(20))
    in_order = np.concatenate([x for x, _ in data.batches(images, labels, 8)])
    np.testing.assert_array_equal(in_order, images)


def test_resizing_is_bilinear_and_only_where_asked():
    image = np.zeros((1, 2, 2, 1), "float32")
    image[0, :, 1] = 1.0
    np.testing.assert_allclose(data.resize(image, 4)[0, 0, :, 0], [0, 0.25, 0.75, 1])
    assert data.resize(image, 0) is image
    assert data.resize(image, 2) is image
    assert data.resize(np.zeros((1, 2, 3, 1), "float32"), 3).shape == (1, 3, 3, 1)
