"""Photographs: a split of encoded images of any size, streamed from files, that may be damaged."""

import copy

import numpy as np
import tensorflow as tf

from tfbio.data import augmentation, chance, crops, decoding
from tfbio.data.damage import TROUBLE, Damage
from tfbio.data.examples import PARALLEL
from tfbio.data.split import Split

_SUBSTITUTES = 32  # images that may be damaged in a row
_STATISTICS = 5000  # images that stand for all in channel statistics


class Files:
    """A source of encoded images: a file each.

    Args:
        paths: The files, on disk or in any place that `tf.io.gfile` reads.
        labels: The integer labels.

    Attributes:
        labels: The labels, int64.

    Example:
        >>> tf.io.write_file("ram://files/one.jpg", b"...")
        >>> files = Files(["ram://files/one.jpg"], [0])
        >>> files.content(0).numpy(), files.name(0)
        (b'...', 'ram://files/one.jpg')
    """

    def __init__(self, paths, labels):
        self.labels = np.asarray(labels, np.int64)
        with tf.device("CPU:0"):
            self._paths = tf.constant(paths, tf.string)

    def content(self, row):
        """Return a file's bytes, a string tensor."""
        return tf.io.read_file(self._paths[row])

    def name(self, row):
        """Return a file's path."""
        return self._paths[row].numpy().decode()


class Contents:
    """A source of encoded images: their bytes in memory.

    Args:
        contents: The bytes of each.
        labels: The integer labels.
        names: What they are called in messages.

    Attributes:
        labels: The labels, int64.

    Example:
        >>> Contents([b"..."], [0], ["one"]).content(0).numpy()
        b'...'
    """

    def __init__(self, contents, labels, names):
        self.labels = np.asarray(labels, np.int64)
        self._names = names
        with tf.device("CPU:0"):
            self._contents = tf.constant(contents, tf.string)

    def content(self, row):
        """Return an image's bytes, a string tensor."""
        return self._contents[row]

    def name(self, row):
        """Return what an image is called."""
        return self._names[row]


class Photographs(Split):
    """Encoded images that are cropped: at random for training, centrally for evaluation.

    Its batches are uint8. With "resized_crop_flip" they hold `crops.training_crop` of the images,
    otherwise `crops.evaluation_crops`.

    An image that cannot be read is left out. In training the next one in the epoch's order that
    can be read takes its place, too: so batches stay full, and depend neither on where they begin
    nor on the workers. In evaluation (`pad`) it has weight 0. `Damage` counts and names it.

    Args:
        source: `Files`, `records.Records` or `Contents`.
        image_size: Pixels a side of what comes out, in three channels.
        max_corrupt: The share of the images that may be damaged, in one pass and on one worker,
            before an error is raised; one always may, unless this is 0.
        statistics: (mean, std) by channel that are to stand for the images' own, or None.

    Example:
        >>> jpeg = tf.io.encode_jpeg(tf.fill((40, 30, 3), tf.constant(128, tf.uint8))).numpy()
        >>> split = Photographs(Contents([jpeg, b"?"], [0, 1], ["a", "b"]), image_size=8)
        >>> for images, labels, weights in split.batches(2, pad=True):
        ...     print(images.shape, images.dtype, labels.numpy(), weights.numpy())
        (2, 8, 8, 3) <dtype: 'uint8'> [0 1] [1. 0.]
    """

    def __init__(self, source, image_size, max_corrupt=0.001, statistics=None):
        super().__init__(source.labels, (image_size, image_size, 3))
        self._source = source
        self.max_corrupt, self.statistics = max_corrupt, statistics

    def check_crops(self, count):
        """Refuse any number but 1 and 10."""
        if count not in (1, 10):
            raise ValueError(f"--evaluation_crops must be 1 or 10. Received: {count!r}.")

    def check(self):
        """Refuse nothing: a damaged image is left out and counted when its batch comes."""

    def for_statistics(self):
        """Return a part that stands for all in statistics: 5,000 images, always the same."""
        part = copy.copy(self)
        order = chance.permutation(self.size, 0, 0, chance.TEST)[:_STATISTICS]
        part._chosen = self._chosen[np.sort(order)]
        return part

    def _images(self, rows, draws, batch_size, drop_remainder):
        # `_examples` gives images and what became of them together.
        raise NotImplementedError

    def _image(self, content, plan, draw):
        size = self.image_shape[0]
        if plan.augmentation == augmentation.CROP:
            image = decoding.training_crop(content, 3, draw, (size, size))
        else:
            image = crops.evaluation_crops(decoding.decode(content, 3), size, plan.crops)
        image = crops.as_bytes(image)
        shape = self.image_shape if plan.crops == 1 else (plan.crops, *self.image_shape)
        return tf.ensure_shape(image, shape)

    def _examples(self, plan):
        """Return batches of (images, position wanted, position found, or -1)."""
        rows = tf.constant(plan.rows)
        count = len(plan.rows)
        reach = 1 if plan.evaluation else min(_SUBSTITUTES, count)
        draws = plan.draws if plan.draws is not None else np.zeros(len(plan.part), np.int64)

        def one(position, draw):
            def read(candidate):
                content = self._source.content(rows[candidate % count])
                return self._image(content, plan, draw), position, candidate % count

            def none(candidate):
                shape = self.image_shape if plan.crops == 1 else (plan.crops, *self.image_shape)
                return tf.zeros(shape, tf.uint8), position, tf.constant(-1, tf.int64)

            # Candidates are read until one can be: lazily, so that it is the first as a rule.
            candidates = tf.data.Dataset.range(position, position + reach)
            found = candidates.map(read).ignore_errors()
            missing = tf.data.Dataset.range(1).map(none)
            return found.concatenate(missing).take(1)

        dataset = tf.data.Dataset.from_tensor_slices((plan.part, draws))
        dataset = dataset.interleave(one, **PARALLEL)
        dataset = dataset.apply(tf.data.experimental.assert_cardinality(len(plan.part)))
        dataset = dataset.batch(plan.batch_size, plan.full)
        if plan.augmentation in ("none", augmentation.CROP):
            return dataset

        def augmented(batch, draws):
            images, *positions = batch
            return augmentation.apply(plan.augmentation, images, draws), *positions

        dataset = tf.data.Dataset.zip(dataset, plan.batched(plan.draws))
        return dataset.map(augmented, **PARALLEL)

    def _checked_examples(self, dataset, plan):
        """Return (images, labels), or (images, labels, weights) for evaluation; note damage."""
        damage = Damage(self._source.name, len(plan.rows), self.max_corrupt)
        count, reach = len(plan.rows), min(_SUBSTITUTES, len(plan.rows))

        def note(wanted, found):
            for position, place in zip(wanted, found, strict=True):
                distance = (place - position) % count
                if place < 0:
                    distance = 1 if plan.evaluation else reach
                damage.add(plan.rows[(position + np.arange(distance)) % count])
                if place < 0 and not plan.evaluation:
                    name = self._source.name(plan.rows[position])
                    raise ValueError(
                        f"--data_dir: {name}{TROUBLE} Nor can the {reach - 1} images after it."
                    )
            return np.int64(0)

        def checked(images, wanted, found):
            whole = tf.cond(
                tf.reduce_all(wanted == found),
                lambda: tf.constant(0, tf.int64),
                lambda: tf.numpy_function(note, [wanted, found], tf.int64),
            )
            with tf.control_dependencies([whole]):  # an index of -1 would be an error of its own
                images = tf.identity(images)
                rows = tf.gather(plan.rows, wanted if plan.evaluation else found)
            labels = tf.gather(self._labels, rows)
            if plan.evaluation:
                return images, labels, tf.cast(found >= 0, tf.float32)
            return images, labels

        return dataset.map(checked)
