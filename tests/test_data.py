"""Datasets: files true and false, and what is said of each."""

import contextlib
import gzip
import pathlib
import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tfbio import data
from tfbio.data import idx

CODES = {"u1": 8, "i1": 9, "i2": 11, "i4": 12, "f4": 13, "f8": 14}


def encode(array):
    code = CODES[array.dtype.str[1:]]
    header = bytes([0, 0, code, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("idx")


@settings(max_examples=50)
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


HEADERS = st.builds(
    lambda code, dims, tail: (
        bytes([0, 0, code, len(dims)]) + struct.pack(f">{len(dims)}I", *dims) + tail
    ),
    st.sampled_from(sorted(CODES.values())),
    st.lists(st.integers(0, 3) | st.integers(0, 2**32 - 1), max_size=40),
    st.binary(max_size=12),
)


@given(st.binary(max_size=40) | HEADERS, st.sampled_from([None, 0, 9]), st.integers(0, 60))
def test_any_bytes_are_an_array_or_a_value_error(folder, content, compression, cut):
    path = folder / "any"
    path.write_bytes(
        content if compression is None else gzip.compress(content, compression)[: cut or None]
    )
    with contextlib.suppress(ValueError):
        array = idx.read(path)
        assert encode(array) == content


@pytest.mark.parametrize("wrap", [bytes, gzip.compress])
def test_a_header_that_claims_too_much_is_refused_without_the_memory(tmp_path, wrap):
    path = tmp_path / "huge"
    path.write_bytes(wrap(b"\0\0\x08\x03" + struct.pack(">3I", *[2**32 - 1] * 3)))
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"is 79228162458924105385300197375 bytes. Received: 0"):
        idx.read(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**20


def test_lying_headers_and_damaged_files_are_named(tmp_path):
    good = encode(np.arange(6, dtype="u1").reshape(2, 3))
    for content, message in (
        (good[:-1], r"states: shape \(2, 3\) of 1-byte entries is 6 bytes. Received: 5"),
        (good + b"x", "Received: more"),
        (good[:6], "2 dimensions, too many or cut short"),
        (bytes([0, 0, 8, 33]) + bytes(200), "33 dimensions, too many"),
        (bytes([0, 0, 8, 0, 1]), "0 dimensions"),
        (bytes([0, 0, 8, 2, 0, 0, 0, 9, 0, 0, 0, 0]), r"shape \(9, 0\), which holds nothing"),
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


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_idx_files_are_read_from_an_explicit_folder_only(tmp_path, monkeypatch, name):
    dataset = data.load(name, write_fashion(tmp_path), image_size=32)
    train_x, train_y = dataset.train
    assert train_x.shape == (6, 32, 32, 1)
    assert dataset.image_shape == (32, 32, 1)
    assert (list(train_y), list(dataset.test.labels)) == (list(range(6)), list(range(4)))
    assert dataset.num_classes == len(dataset.class_names) == 10
    (tmp_path / "cwd" / "data").mkdir(parents=True)
    (tmp_path / "cwd" / "data" / name).symlink_to(tmp_path)
    monkeypatch.chdir(tmp_path / "cwd")
    assert data.load(name).train.size == 6
    with pytest.raises(FileNotFoundError, match=r"--data_dir: no such folder as '.*none'"):
        data.load(name, str(tmp_path / "none"))
    (tmp_path / "train-labels-idx1-ubyte.gz").unlink()
    for data_dir in ("", str(tmp_path)):
        with pytest.raises(FileNotFoundError, match=r"has no train-labels-idx1-ubyte\.gz or train"):
            data.load(name, data_dir)


def test_the_layout_of_torchvision_and_plain_files_are_read(tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    write_fashion(raw)
    for path in list(raw.iterdir()):
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    assert data.load("mnist", str(tmp_path)).train.size == 6
    with pytest.raises(FileNotFoundError, match=r"must hold train-images.*It holds MNIST"):
        data.load("fashion_mnist", str(tmp_path))


@pytest.mark.parametrize(
    ("replaced", "message"),
    [
        ({"train_labels_idx1_ubyte": np.full(6, 10, "u1")}, "outside the 10 classes.*10 to 10"),
        ({"train_labels_idx1_ubyte": np.zeros(6, "f4")}, "labels. Received: uint8 and float32"),
        ({"t10k_labels_idx1_ubyte": np.zeros(3, "u1")}, r"\(4, 28, 28, 1\) and \(3,\)"),
        ({"train_images_idx3_ubyte": np.zeros((6, 28, 27), "u1")}, r"\(6, 28, 27, 1\)"),
        ({"train_images_idx3_ubyte": np.zeros((6, 784), "u1")}, r"28 × 28 × 1.*\(6, 784\)"),
    ],
)
def test_files_that_do_not_fit_together_are_refused(tmp_path, replaced, message):
    with pytest.raises(ValueError, match=message) as caught:
        data.load("fashion_mnist", write_fashion(tmp_path, **replaced))
    assert str(tmp_path) in str(caught.value)


@pytest.mark.skipif(
    not pathlib.Path("/usr/share/datasets/fashion-mnist").is_dir(), reason="Debian's package"
)
def test_debians_fashion_mnist_is_found(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    dataset = data.load("fashion_mnist", image_size=32)
    assert (dataset.train.size, dataset.test.size) == (60000, 10000)
    assert set(np.bincount(dataset.train.labels)) == {6000}
    assert dataset.class_names[dataset.train.labels[0]] == "Ankle boot"  # as published
    images, _ = next(iter(dataset.train.batches(64)))
    assert images.shape == (64, 32, 32, 1)
    assert 0.2 < float(np.mean(images)) < 0.4


def write_npz(folder, **replaced):
    arrays = {
        "x_train": np.zeros((6, 28, 28), "u1"),
        "y_train": np.arange(6, dtype="u1"),
        "x_test": np.ones((4, 28, 28), "u1"),
        "y_test": np.arange(4, dtype="u1"),
    }
    np.savez_compressed(folder / "mnist.npz", **{**arrays, **replaced})
    return str(folder)


def test_the_npz_of_keras_is_read_where_keras_puts_it(tmp_path, monkeypatch):
    (tmp_path / "datasets").mkdir()
    write_npz(tmp_path / "datasets")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    dataset = data.load("mnist")
    assert (dataset.train.size, dataset.test.size) == (6, 4)
    assert next(iter(dataset.test)).max() == np.float32(1 / 255)


def test_a_damaged_or_lying_npz_is_refused(tmp_path):
    for replaced, message in (
        ({"y_train": np.array([object()] * 6)}, "cannot be read safely"),
        ({"y_test": np.full(4, 12)}, "outside the 10 classes, 0 to 9. Received: 12 to 12"),
        ({"x_test": np.zeros((4, 28, 28))}, "unsigned bytes"),
    ):
        with pytest.raises(ValueError, match=message):
            data.load("mnist", write_npz(tmp_path, **replaced))
    write_npz(tmp_path)
    content = (tmp_path / "mnist.npz").read_bytes()
    for damaged in (content[:500], b"", content[:70] + b"?" * 20 + content[90:], content[50:]):
        (tmp_path / "mnist.npz").write_bytes(damaged)
        with pytest.raises(ValueError, match=r"mnist\.npz is not Keras's mnist\.npz, or damaged"):
            data.load("mnist", str(tmp_path))


def test_digits_are_real_and_split_the_same_every_time():
    first, second = data.load("digits"), data.load("digits")
    assert set(np.bincount(first.test.labels)) <= {35, 36, 37}  # stratified
    np.testing.assert_array_equal(next(iter(first.test)), next(iter(second.test)))
    assert first.class_names == tuple("0123456789")
    with pytest.raises(ValueError, match=r"reads no --data_dir. Received: --data_dir=somewhere"):
        data.load("digits", "somewhere")


@pytest.mark.parametrize("size", [-1, 2.5, "32"])
def test_an_image_size_out_of_range_is_refused(size):
    with pytest.raises(ValueError, match=r"--image_size must be .*Received: "):
        data.load("digits", image_size=size)


def test_an_unknown_name_is_met_with_the_nearest():
    with pytest.raises(ValueError, match=r"Received: 'digit'\. Did you mean 'digits'\?"):
        data.load("digit")
