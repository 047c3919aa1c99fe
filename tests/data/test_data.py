"""Datasets: files true and false, and what is said of each."""

import contextlib
import gzip
import os
import pathlib
import pickle
import re
import struct
import tracemalloc

import numpy as np
import pytest
import scipy.io
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tfbio import data
from tfbio.data import cifar, idx, stl10, svhn

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
        (good[:6], "2 dimensions, too many or truncated"),
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
    with pytest.raises(
        FileNotFoundError, match=r"`data_dir` must be an existing folder. Received: '.*none'"
    ):
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
    with pytest.raises(FileNotFoundError, match=r"which holds MNIST\. Give `data_dir` a folder"):
        data.load("fashion_mnist", str(tmp_path))


@pytest.mark.parametrize(
    ("replaced", "message"),
    [
        ({"train_labels_idx1_ubyte": np.full(6, 10, "u1")}, "outside the 10 classes.*10 to 10"),
        ({"train_labels_idx1_ubyte": np.zeros(6, "f4")}, "labels. Received: uint8 and float32"),
        (
            {"t10k_labels_idx1_ubyte": np.zeros(3, "u1")},
            r"its 4 images. Received: labels of shape \(3,\)",
        ),
        ({"train_images_idx3_ubyte": np.zeros((6, 28, 27), "u1")}, r"\(6, 28, 27, 1\)"),
        ({"train_images_idx3_ubyte": np.zeros((6, 784), "u1")}, r"28 × 28 × 1.*\(6, 784\)"),
    ],
)
def test_files_that_do_not_fit_together_are_refused(tmp_path, replaced, message):
    with pytest.raises(ValueError, match=message) as caught:
        data.load("fashion_mnist", write_fashion(tmp_path, **replaced))
    assert str(caught.value).startswith(f"{tmp_path}")


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
        ({"x_test": np.zeros((4, 28, 28))}, "uint8 images"),
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
    with pytest.raises(
        ValueError, match=r"`data_dir` must be empty for digits.*Received: 'somewhere'"
    ):
        data.load("digits", "somewhere")


@pytest.mark.parametrize("size", [-1, 2.5, "32"])
def test_an_image_size_out_of_range_is_refused(size):
    with pytest.raises(ValueError, match=r"`image_size` must be .*Received: "):
        data.load("digits", image_size=size)


def digits_as(count, size, channels):
    """Return real digits as bytes, with values in every channel that differ, and labels 0 to 9."""
    split = data.load("digits", image_size=size).train
    images, labels = (part[:count] for part in split)
    tint = np.linspace(1, 0.5, channels)
    return np.rint(images * 255 * tint).astype("u1"), labels.astype("u1")


def planes(images):
    return images.transpose(0, 3, 1, 2).reshape(len(images), -1)


def write_cifar10_binary(folder, images, labels):
    records = np.concatenate([labels[:, None], planes(images)], 1)
    for number, part in enumerate(np.split(records, 6)):
        name = f"data_batch_{number + 1}" if number < 5 else "test_batch"
        (folder / f"{name}.bin").write_bytes(part.tobytes())


def write_cifar10_python(folder, images, labels):
    for number, chosen in enumerate(np.split(np.arange(len(labels)), 6)):
        name = f"data_batch_{number + 1}" if number < 5 else "test_batch"
        content = {b"data": planes(images)[chosen], b"labels": labels[chosen].tolist()}
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))


def write_cifar100_binary(folder, images, labels):
    records = np.concatenate([labels[:, None] // 5, labels[:, None], planes(images)], 1)
    (folder / "train.bin").write_bytes(records[:-10].tobytes())
    (folder / "test.bin").write_bytes(records[-10:].tobytes())


def write_cifar100_python(folder, images, labels):
    for name, part in (("train", slice(-10)), ("test", slice(-10, None))):
        content = {b"data": planes(images)[part], b"fine_labels": labels[part].tolist()}
        (folder / name).write_bytes(pickle.dumps(content))


def write_svhn(folder, images, labels):
    for name, part in (("train", slice(-10)), ("test", slice(-10, None))):
        content = {
            "X": images[part].transpose(1, 2, 3, 0),
            "y": np.where(labels[part] == 0, 10, labels[part])[:, None],
        }
        scipy.io.savemat(folder / f"{name}_32x32.mat", content, do_compression=True)


def write_stl10(folder, images, labels):
    for name, part in (("train", slice(-10)), ("test", slice(-10, None))):
        columns = images[part].transpose(0, 3, 2, 1)
        (folder / f"{name}_X.bin").write_bytes(columns.tobytes())
        (folder / f"{name}_y.bin").write_bytes((labels[part] + 1).tobytes())


@pytest.fixture
def small(monkeypatch):
    """Let 60 images, the last 10 or each 10 in a file of their own, pass for the published ones."""
    for module in (cifar, stl10, svhn):
        counts = {name: 50 if name == "train" else 10 for name in module.COUNTS}
        monkeypatch.setattr(module, "COUNTS", counts)


FORMATS = [
    ("cifar10", write_cifar10_binary, "cifar-10-batches-bin"),
    ("cifar10", write_cifar10_python, "cifar-10-batches-py"),
    ("cifar10", write_cifar10_python, "cifar-10-batches-py-target/cifar-10-batches-py"),
    ("cifar100", write_cifar100_binary, "cifar-100-binary"),
    ("cifar100", write_cifar100_python, "cifar-100-python"),
    ("svhn_cropped", write_svhn, ""),
    ("stl10", write_stl10, "stl10_binary"),
]


@pytest.mark.parametrize(("name", "write", "inner"), FORMATS)
@pytest.mark.usefixtures("small")
def test_real_images_are_read_back_from_every_format(tmp_path, name, write, inner):
    images, labels = digits_as(60, 96 if name == "stl10" else 32, 3)
    (tmp_path / inner).mkdir(parents=True, exist_ok=True)
    write(tmp_path / inner, images, labels)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for place in {tmp_path, tmp_path / inner}:
        dataset = data.load(name, str(place))
        read = [np.concatenate(parts) for parts in zip(dataset.train, dataset.test, strict=True)]
        np.testing.assert_array_equal(read[0], images / np.float32(255))
        np.testing.assert_array_equal(read[1], labels)
        assert dataset.test.size == 10
    # Each file in turn is truncated, made empty, filled with nonsense, or taken away.
    for path, content in before.items():
        for damaged in (content[:-1], content[: len(content) // 2 + 1], b"", b"nonsense" * 99):
            path.write_bytes(damaged)
            with pytest.raises(ValueError, match=re.escape(str(path))) as caught:
                data.load(name, str(tmp_path))
            assert "\n" not in str(caught.value)
            assert path.read_bytes() == damaged
        path.unlink()
        with pytest.raises(FileNotFoundError, match=rf"has no {path.name}\."):
            data.load(name, str(tmp_path))
        path.write_bytes(content)


@pytest.mark.parametrize(("name", "write", "inner"), FORMATS)
@pytest.mark.usefixtures("small")
def test_a_file_of_fewer_or_more_images_than_published_is_refused(tmp_path, name, write, inner):
    for count in (54, 66):
        write(tmp_path, *digits_as(count, 96 if name == "stl10" else 32, 3))
        wanted, first = (10, count // 6) if name == "cifar10" else (50, count - 10)
        message = rf"must hold {wanted} images, as published: the file is trun.*Received: {first}\."
        with pytest.raises(ValueError, match=message) as caught:
            data.load(name, str(tmp_path))
        assert str(caught.value).startswith(f"{tmp_path}")


def test_as_many_images_as_published_are_taken_and_one_record_less_is_not(tmp_path):
    for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"):
        test = tmp_path / f"{name}.bin"
        test.touch()
        os.truncate(test, 10_000 * 3073)  # zeros that take no room on the disk
    dataset = data.load("cifar10", str(tmp_path))
    assert (dataset.train.size, dataset.test.size) == (50_000, 10_000)
    os.truncate(test, 9_999 * 3073)
    with pytest.raises(ValueError, match=r"test_batch\.bin must hold 10000 .* Received: 9999\."):
        data.load("cifar10", str(tmp_path))


@pytest.mark.parametrize(("name", "write", "inner"), FORMATS)
@pytest.mark.usefixtures("small")
def test_labels_outside_the_classes_are_refused_in_every_format(tmp_path, name, write, inner):
    images, labels = digits_as(60, 96 if name == "stl10" else 32, 3)
    labels[57] = 100
    write(tmp_path, images, labels)
    classes = 100 if name == "cifar100" else 10
    with pytest.raises(ValueError, match=rf"has labels outside the {classes} classes.* to 10[01]"):
        data.load(name, str(tmp_path))


class Malice:
    def __reduce__(self):
        return (print, ("code was run",))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (Malice(), r"asks for (builtins|__builtin__)\.print, which is not admitted"),
        (np.zeros((2, 3072), "u1"), "must be a pickled dict with data and labels"),
        ({b"data": np.zeros((2, 3072), "u1")}, "must be a pickled dict with data and labels"),
        ({b"data": [0], b"labels": [0]}, "Received: list"),
        ({b"data": np.zeros((2, 9), "u1"), b"labels": [0, 1]}, r"Received: \(2, 9\)"),
        (
            {b"data": np.zeros((2, 3072), "u1"), b"labels": [0]},
            r"one integer label for each.*\(1,\)",
        ),
        ({b"data": np.zeros((2, 3072)), b"labels": [0, 1]}, "float64"),
        ({b"data": np.zeros((2, 3072), "u1"), b"labels": ["cat", None]}, "labels. Received"),
    ],
)
@pytest.mark.usefixtures("small")
def test_pickles_make_arrays_and_nothing_else(tmp_path, capsys, content, message):
    write_cifar10_python(tmp_path, *digits_as(60, 32, 3))
    (tmp_path / "data_batch_3").write_bytes(pickle.dumps(content, protocol=2))
    with pytest.raises(ValueError, match=message) as caught:
        data.load("cifar10", str(tmp_path))
    assert str(tmp_path / "data_batch_3") in str(caught.value)
    assert "code was run" not in capsys.readouterr().out


@pytest.mark.usefixtures("small")
def test_an_array_of_any_size_cannot_be_asked_for(tmp_path):
    class Huge:
        def __reduce__(self):
            return (np._core.multiarray._reconstruct, (np.ndarray, (2**40,), b"b"))

    write_cifar10_python(tmp_path, *digits_as(60, 32, 3))
    (tmp_path / "test_batch").write_bytes(pickle.dumps({b"data": Huge()}, protocol=2))
    with pytest.raises(ValueError, match=r"asks for something other than an array"):
        data.load("cifar10", str(tmp_path))


@settings(max_examples=50)
@given(st.binary(max_size=60) | st.binary(max_size=40).map(lambda tail: b"\x80\x02}" + tail))
def test_any_bytes_for_a_pickle_are_a_value_error(folder, content):
    path = folder / "train"
    path.write_bytes(content)
    (folder / "test").write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(str(path))):
        data.load("cifar100", str(folder))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("digit", r"Unknown dataset 'digit'\. Did you mean 'digits'"),
        ("cifar_10", r"Did you mean 'cifar10'"),
        ("fashion_minst", r"Did you mean 'fashion_mnist'\?"),
        ("caltech102", r"Did you mean 'caltech101'"),
        ("no such thing", r"'no such thing'\..* or a name in the catalog of TensorFlow Datasets\."),
        ("huggingface:mnist", r"Unknown dataset 'huggingface:mnist'"),
        ("../mnist", r"Unknown dataset '\.\./mnist'"),
        (None, "Unknown dataset None"),
    ],
)
def test_an_unknown_name_is_met_with_the_nearest(name, message):
    with pytest.raises(ValueError, match=message) as caught:
        data.load(name)
    assert str(caught.value).startswith(f"Unknown dataset {name!r}.")
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("name", [*(name for name, _, _ in FORMATS), "mnist", "oxford_flowers102"])
def test_a_folder_that_is_missing_empty_or_of_another_format_is_named(tmp_path, monkeypatch, name):
    for data_dir, found in (("none", None), ("empty", "nothing"), ("other", "a, b, c, d, e, …")):
        if found:
            (tmp_path / data_dir).mkdir()
        if data_dir == "other":
            for other in "abcdef":
                (tmp_path / data_dir / other).write_text("text")
        with pytest.raises(FileNotFoundError) as caught:
            data.load(name, str(tmp_path / data_dir))
        message = str(caught.value)
        if found is None:
            assert (
                message
                == f"`data_dir` must be an existing folder. Received: '{tmp_path / data_dir}'."
            )
            continue
        assert f"{name} is not in `data_dir='{tmp_path / data_dir}'`, " in message
        assert f"which holds {found}. Give `data_dir` a folder with " in message
        assert message.endswith("Or download it with `download`.")
    for variable in ("HOME", "KERAS_HOME", "TFDS_DATA_DIR"):
        monkeypatch.setenv(variable, str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=rf"^{name} was not found in .*`download`"):
        data.load(name)
    (tmp_path / "file").write_text("text")
    with pytest.raises(
        FileNotFoundError, match=r"`data_dir` must be an existing folder. Received: '.*file'"
    ):
        data.load(name, str(tmp_path / "file"), download=True)
