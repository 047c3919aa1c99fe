"""Splits: what an epoch's batches are, a function of order, start and augmentation."""

import collections
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.cases import long_but
from tfbio import data
from tfbio.data import augmentation

RANDOM = [((3, 5), name) for name in data.augmentations()]


@pytest.fixture(scope="module")
def digits():
    return data.load("digits").test  # 360 images


@pytest.fixture(scope="module")
def bytes_split():
    images = np.random.default_rng(0).integers(0, 256, (50, 12, 10, 3)).astype("u1")
    return data.Arrays(images, np.arange(50) % 7, image_size=16)


def listed(dataset):
    return [tuple(part.numpy() for part in batch) for batch in dataset]


def same(one, other):
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        for x, y in zip(a, b, strict=True):
            assert x.dtype == y.dtype
            np.testing.assert_array_equal(x, y)


def test_an_arrays_split_unpacks_as_images_and_labels(digits, bytes_split):
    images, labels = digits
    assert images.shape == (360, *digits.image_shape) == (360, 8, 8, 1)
    assert (images.dtype, labels.dtype) == (np.float32, np.int64)
    assert (images.min(), images.max()) == (0.0, 1.0)
    images, labels = bytes_split
    assert images.shape == (50, 16, 16, 3)
    same(listed(bytes_split.batches(50)), [(images, labels)])


def test_bytes_become_floats_of_0_to_1():
    images, _ = data.Arrays(np.arange(256, dtype="u1").reshape(1, 16, 16, 1), [0])
    np.testing.assert_array_equal(images.ravel(), np.arange(256, dtype="f4") / np.float32(255))


def test_channel_statistics_are_over_all_pixels_of_all_images():
    images = np.random.default_rng(0).random((300, 2, 2, 3)).astype("f4")
    images = images * np.float32([1, 0.5, 0]) + np.float32([0, 0.2, 0.4])
    mean, std = data.channel_statistics(data.Arrays(images, np.zeros(300)))
    pixels = images.astype("f8").reshape(-1, 3)
    np.testing.assert_allclose(mean, pixels.mean(0), rtol=1e-9)
    np.testing.assert_allclose(std, [*pixels.std(0)[:2], 1], rtol=1e-9)


def test_resizing_is_bilinear_and_smooth_and_stays_within_0_and_1():
    image = np.zeros((1, 2, 2, 1), "f4")
    image[0, :, 1] = 1.0
    ((grown,), _) = data.Arrays(image, [0], 4)
    np.testing.assert_allclose(grown[0, :, 0], [0, 0.25, 0.75, 1])
    # Plain bilinear interpolation would see the two zeros of every four pixels only.
    stripes = np.tile([[[1.0], [0.0], [0.0], [1.0]]], (1, 32, 8, 1)).astype("f4")
    ((shrunk,), _) = data.Arrays(stripes, [0], 8)
    np.testing.assert_allclose(shrunk[:, 2:-2], 0.5, atol=0.05)
    white, _ = data.Arrays(np.ones((1, 31, 31, 1), "f4"), [0], 8)
    assert white.max() <= 1.0


@settings(max_examples=12)
@given(st.integers(1, 60), st.integers(1, 20), st.sampled_from([None, (0, 0), (2, 9)]))
def test_an_epoch_holds_every_example_once(size, batch_size, order):
    images = np.arange(size, dtype="f4").reshape(-1, 1, 1, 1)
    split = data.Arrays(images, np.arange(size))
    batches = listed(split.batches(batch_size, order))
    assert len(batches) == split.steps(batch_size) == len(split.batches(batch_size, order))
    assert {len(labels) for _, labels in batches[:-1]} <= {batch_size}
    labels = np.concatenate([labels for _, labels in batches])
    np.testing.assert_array_equal(np.concatenate([x.ravel() for x, _ in batches]), labels)
    assert sorted(labels) == list(range(size))
    if order is None:
        assert list(labels) == list(range(size))


def test_the_order_differs_by_seed_and_by_epoch(digits):
    orders = [
        tuple(np.concatenate([x for x, _ in digits.batches(64, order)]).sum((1, 2, 3)))
        for order in ((0, 0), (0, 1), (1, 0), (1, 1), None)
    ]
    assert len(set(orders)) == 5


def each_with(split, *augmentations):
    """Return parameters of this split for some of the augmentations, in a random order."""
    return [(split, order, name) for order, name in RANDOM if name in augmentations]


@pytest.mark.parametrize(
    ("name", "order", "augmentation"),
    long_but(
        [
            ("digits", None, "none"),
            *each_with("digits", "crop_flip"),
            *each_with("bytes_split", "none", "flip", "resized_crop_flip"),
        ],
        [(name, *each) for name in ("digits", "bytes_split") for each in [(None, "none"), *RANDOM]],
    ),
)
def test_every_tail_is_bit_identical_to_the_whole_epochs(name, order, augmentation, request):
    split = request.getfixturevalue(name)
    size, multiple = {"digits": (64, 1), "bytes_split": (12, 2)}[name]
    options = {"order": order, "augmentation": augmentation, "multiple": multiple}
    whole = listed(split.batches(size, **options))
    same(whole, listed(split.batches(size, **options)))
    for start in (1, len(whole) - 1, len(whole)):
        same(whole[start:], listed(split.batches(size, start=start, **options)))


SCRIPT = """
import hashlib
from tfbio import data
split = data.load("digits", image_size=12).train.hold_out(0.1, seed=4)[0]
digest = hashlib.sha256()
for images, labels in split.batches(100, (3, 5), augmentation="crop_flip"):
    digest.update(images.numpy().tobytes() + labels.numpy().tobytes())
digest = digest.hexdigest()
"""


# Trainings that are killed and resumed in another process show the same (training/, detection/).
@pytest.mark.long
def test_another_process_sees_the_same_epoch():
    here = {}
    exec(SCRIPT, here)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT + "print(digest)"], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == here["digest"]


def test_the_order_stays_what_it_is():
    # A run that was begun by an earlier version is resumed in the order it began with.
    split = data.Arrays(np.zeros((8, 1, 1, 1), "f4"), np.arange(8))
    ((_, labels),) = listed(split.batches(8, (0, 1)))
    assert list(labels) == [5, 3, 7, 2, 4, 1, 0, 6]


def test_flips_are_of_whole_images_and_half_of_them():
    images = np.random.default_rng(0).random((400, 6, 5, 2)).astype("f4")
    split = data.Arrays(images, np.arange(400))
    ((out, labels),) = listed(split.batches(400, (0, 0), augmentation="flip"))
    kept = (out == images[labels]).all((1, 2, 3))
    np.testing.assert_array_equal(out[~kept], images[labels][~kept][:, :, ::-1])
    assert 160 < kept.sum() < 240


@pytest.mark.parametrize(
    ("augmentation", "mode"), [("crop_flip", "constant"), ("edge_crop_flip", "edge")]
)
def test_crops_are_every_shift_of_a_padded_image_alike_often(augmentation, mode):
    image = np.arange(1, 37, dtype="f4").reshape(1, 6, 6, 1) / 36
    split = data.Arrays(np.repeat(image, 8100, 0), np.zeros(8100))
    ((out, _),) = listed(split.batches(8100, (0, 0), augmentation=augmentation))
    padded = np.pad(image[0], ((4, 4), (4, 4), (0, 0)), mode)
    cuts = [padded[y : y + 6, x : x + 6] for y in range(9) for x in range(9)]
    wanted = {cut.tobytes() for cut in cuts} | {cut[:, ::-1].tobytes() for cut in cuts}
    seen = collections.Counter(crop.tobytes() for crop in out)
    assert len(wanted) == 162
    assert set(seen) == wanted
    assert 20 < min(seen.values()) <= max(seen.values()) < 90  # 50 expected, deviation 7


def test_in_stored_order_other_images_are_flipped_in_every_epoch(digits):
    (images, labels), *epochs = (
        listed(digits.batches(360, order, augmentation=name, shuffle=False))[0]
        for order, name in ((None, "none"), ((0, 0), "flip"), ((0, 1), "flip"))
    )
    flipped = []
    for out, out_labels in epochs:
        np.testing.assert_array_equal(out_labels, labels)
        flipped.append((out != images).any((1, 2, 3)))
    assert 90 < np.sum(flipped[0] != flipped[1]) < 270


def test_an_augmentation_needs_an_order_and_a_name(digits):
    with pytest.raises(ValueError, match=r"`augmentation='flip'` is random: `order` must"):
        digits.batches(10, augmentation="flip")
    with pytest.raises(
        ValueError, match=r"one of none, flip, crop_flip, edge_crop_flip, resized_crop_flip\. Rec"
    ):
        digits.batches(10, (0, 0), augmentation="cutmix")
    augmentation.check("none", None)


@settings(max_examples=12)
@given(st.integers(0, 100), st.integers(1, 8), st.integers(1, 4))
def test_the_last_batch_is_trimmed_to_a_multiple(size, per_replica, replicas):
    split = data.Arrays(np.zeros((size, 1, 1, 1), "f4"), np.arange(size))
    batch_size = per_replica * replicas
    sizes = [len(y) for _, y in split.batches(batch_size, multiple=replicas)]
    assert len(sizes) == split.steps(batch_size, replicas)
    assert all(count and count % replicas == 0 for count in sizes)
    assert size - replicas < sum(sizes) <= size
    with pytest.raises(
        ValueError, match=r"`batch_size` must be a multiple of the 2 replicas. Received: 9"
    ):
        split.steps(9, multiple=2)


@settings(max_examples=12)
@given(st.integers(1, 70), st.integers(1, 4), st.integers(1, 4), st.booleans(), st.data())
def test_workers_together_take_the_batches_of_one_process(size, each, workers, pad, more):
    images = np.arange(size, dtype="f4").reshape(-1, 1, 1, 1) + 1
    split = data.Arrays(images, np.arange(size))
    batch_size = 2 * each * workers
    options = {"order": None if pad else (1, 2), "pad": pad, "multiple": 2 * workers}
    start = more.draw(st.integers(0, split.steps(batch_size, 1 if pad else 2 * workers)))
    whole = listed(split.batches(batch_size, start=start, **options))
    parts = [
        listed(split.batches(batch_size, start=start, shard=(index, workers), **options))
        for index in range(workers)
    ]
    together = list(zip(*parts, strict=True))
    same([tuple(map(np.concatenate, zip(*batch, strict=True))) for batch in together], whole)
    assert all(len({len(labels) for _, labels, *_ in batch}) == 1 for batch in together)


def test_workers_that_cannot_share_a_batch_are_refused(digits):
    with pytest.raises(
        ValueError, match=r"`batch_size` .* multiples of the 2 workers. Received: 9"
    ):
        digits.batches(9, shard=(0, 2), pad=True)
    with pytest.raises(ValueError, match=r"multiples of the 2 workers. Received: 10 and 1"):
        digits.batches(10, shard=(0, 2))
    with pytest.raises(ValueError, match=r"`shard` must be .* Received: \(2, 2\)"):
        digits.batches(10, shard=(2, 2), multiple=2)


@pytest.mark.parametrize("batch_size", [50, 90, 1000])
def test_padding_drops_nothing_and_weighs_nothing(digits, batch_size):
    batches = listed(digits.batches(batch_size, pad=True, multiple=batch_size))
    assert {x.shape for x, _, _ in batches} == {(batch_size, 8, 8, 1)}
    weights = np.concatenate([w for *_, w in batches])
    assert weights.dtype == np.float32
    np.testing.assert_array_equal(weights, np.arange(len(weights)) < 360)
    for index, whole in enumerate(digits):
        joined = np.concatenate([batch[index] for batch in batches])
        np.testing.assert_array_equal(joined[:360], whole)
        assert not joined[360:].any()


def test_shapes_are_static_where_they_can_be(digits):
    for batches, count in (
        (digits.batches(90), 90),
        (digits.batches(100), None),
        (digits.batches(100, multiple=100), 100),
        (digits.batches(100, pad=True), 100),
        (digits.batches(90, (0, 0), augmentation="crop_flip"), 90),
    ):
        images, labels, *_ = batches.element_spec
        assert (images.shape, labels.shape) == ((count, 8, 8, 1), (count,))


@settings(max_examples=12)
@given(st.integers(2, 50), st.floats(0, 0.99), st.integers(0, 5))
def test_holding_out_parts_the_examples_and_follows_the_seed(size, fraction, seed):
    split = data.Arrays(np.zeros((size, 1, 1, 1), "f4"), np.arange(size))
    count = round(fraction * size)
    if (fraction and not count) or count == size:
        with pytest.raises(
            ValueError, match=r"`fraction` must leave at least one image to train on and one to"
        ):
            split.hold_out(fraction, seed)
        return
    train, held = split.hold_out(fraction, seed)
    assert sorted([*train.labels, *held.labels]) == list(range(size))
    assert held.size == count
    assert list(train.labels) == sorted(train.labels)  # in stored order
    np.testing.assert_array_equal(held.labels, split.hold_out(fraction, seed)[1].labels)
    ((_, seen),) = listed(train.batches(size))
    np.testing.assert_array_equal(seen, train.labels)


def test_holding_out_twice_is_of_what_is_left(digits):
    train, held = digits.hold_out(0.5, seed=0)
    inner, outer = train.hold_out(0.5, seed=0)
    images, labels = digits
    assert (train.size, held.size, inner.size, outer.size) == (180, 180, 90, 90)
    assert not np.array_equal(held.labels, digits.hold_out(0.5, seed=1)[1].labels)
    rows = np.concatenate([inner.rows, outer.rows, held.rows])
    assert sorted(rows) == list(range(360))
    np.testing.assert_array_equal(next(iter(outer)), images[outer.rows])
    np.testing.assert_array_equal(outer.labels, labels[outer.rows])


@settings(max_examples=12)
@given(st.integers(2, 50), st.floats(0.02, 1), st.floats(0.02, 1), st.integers(0, 5))
def test_a_share_has_smaller_ones_within_and_follows_the_seed(size, one, other, seed):
    split = data.Arrays(np.arange(size, dtype="f4").reshape(-1, 1, 1, 1), np.arange(size))
    less, more = sorted([one, other])
    if not round(less * size):
        with pytest.raises(ValueError, match=r"`fraction` must .* leave an image"):
            split.share(less, seed)
        return
    part, greater = split.share(less, seed), split.share(more, seed)
    assert part.size == round(less * size)
    assert list(part.labels) == sorted(part.labels)  # in stored order
    assert set(part.labels) <= set(greater.labels)
    np.testing.assert_array_equal(part.labels, split.share(less, seed).labels)
    ((images, seen),) = listed(part.batches(size))
    np.testing.assert_array_equal(images.ravel(), seen)


def test_shares_follow_the_seed_and_are_not_the_held_out(digits):
    chosen = [tuple(digits.share(0.5, seed).rows) for seed in range(3)]
    assert len(set(chosen)) == 3
    assert set(chosen[0]) != set(digits.hold_out(0.5, 0)[1].rows)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "`batch_size` must be an integer of 1 or more. Received: 0"),
        ({"batch_size": 2.5}, "Received: 2.5"),
        ({"order": 3}, r"`order` must be \(seed, epoch\).*Received: 3"),
        ({"order": (0, -1)}, r"Received: \(0, -1\)"),
        ({"order": (0, 0.5)}, r"Received: \(0, 0.5\)"),
        ({"start": 5}, "`start` must be an integer, 0 to the 4 batches. Received: 5"),
        ({"multiple": 0}, "`multiple` must be an integer of 1 or more"),
    ],
)
def test_arguments_out_of_range_are_refused(digits, arguments, message):
    with pytest.raises(ValueError, match=message):
        digits.batches(**{"batch_size": 100, **arguments})


@pytest.mark.parametrize("fraction", [-0.1, 0, 1.5, float("nan")])
def test_shares_out_of_range_are_refused(digits, fraction):
    with pytest.raises(ValueError, match=r"`fraction` must be more than 0, at most 1"):
        digits.share(fraction, seed=0)


@pytest.mark.parametrize("fraction", [-0.1, 1, 1.5, float("nan")])
def test_fractions_out_of_range_are_refused(digits, fraction):
    with pytest.raises(ValueError, match=r"`fraction` must be 0 or more"):
        digits.hold_out(fraction, seed=0)
