"""Encoded: a split whose images are decoded when a batch needs them, from files or from memory."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfbio.data import crops, decoding
from tfbio.data.arrays import resize
from tfbio.data.decoding import decode
from tfbio.data.errors import SIGN, UNREADABLE, clear_errors
from tfbio.data.examples import PARALLEL
from tfbio.data.scaling import WHITE
from tfbio.data.split import Split


class Encoded(Split):
    """Images in PNG, JPEG, BMP or GIF, of which the first frame is used.

    Args:
        sources: Paths, or where `names` is given, the bytes themselves.
        labels: The integer labels (N,).
        image_shape: (height, width, channels) of the images that come out: other sizes are
            resized, other numbers of channels converted.
        names: What the images are called in messages; the paths where None.
        cropped: Whether the images are cropped as `Photographs` are for evaluation, to the byte,
            instead of resized as a whole.

    Example:
        >>> png = tf.io.encode_png(tf.fill((4, 6, 3), tf.constant(51, tf.uint8))).numpy()
        >>> split = Encoded([png, png], [0, 1], (2, 2, 1), names=["one", "other"])
        >>> for images, labels in split.batches(2):
        ...     print(images.shape, labels.numpy())
        (2, 2, 2, 1) [0 1]
    """

    def __init__(
        self,
        sources: Sequence[str | bytes],
        labels: npt.ArrayLike,
        image_shape: tuple[int, ...],
        names: Sequence[str] | None = None,
        cropped: bool = False,
    ):
        super().__init__(labels, image_shape)
        with tf.device("CPU:0"):
            self._sources = tf.constant(sources, tf.string)
            self._names = self._sources if names is None else tf.constant(names, tf.string)
        self._in_files, self._cropped = names is None, cropped

    @property
    def sources(self) -> np.ndarray:
        """The paths of the images, or where `names` was given their bytes, in stored order."""
        return self._sources.numpy()[self._chosen]

    def _image(self, content):
        height, width, channels = self.image_shape
        image = decode(content, channels)
        if self._cropped:
            image = crops.as_bytes(crops.evaluation_crops(image, height))
        image = resize(image, (height, width))
        return tf.ensure_shape(image, self.image_shape)

    def _encoded(self, row):
        source = self._sources[row]
        return tf.io.read_file(source) if self._in_files else source

    def _content(self, row):
        return self._encoded(row).numpy()

    def _map_contents(self, function, rows, *more):
        """Return a dataset of `function` of the bytes at each row, whose errors name the image.

        Arrays as long as `rows` give the function's further arguments.

        A graph cannot catch an error, and TensorFlow's does not name the file; but a dataset that
        drops its one element for an error can be followed by one that names the image.
        """

        def one(row, *more):
            element = tf.data.Dataset.from_tensors(row)
            result = element.map(lambda row: function(self._encoded(row), *more)).ignore_errors()
            spec = result.element_spec

            def fail(row):
                message = tf.strings.join([SIGN, self._names[row], UNREADABLE])
                with tf.control_dependencies([tf.debugging.Assert(False, [message])]):
                    return tf.zeros(spec.shape, spec.dtype)

            return result.concatenate(element.map(fail)).take(1)

        dataset = tf.data.Dataset.from_tensor_slices((rows, *more)).interleave(one, **PARALLEL)
        # From here on the number of elements is known again.
        return dataset.apply(tf.data.experimental.assert_cardinality(len(rows)))

    def _crop(self, content, draw):
        channels = self.image_shape[2]
        crop = decoding.training_crop(content, channels, draw, self.image_shape[:2]) / WHITE
        return tf.ensure_shape(crop, self.image_shape)

    def _images(self, rows, draws, batch_size, drop_remainder):
        if draws is None:
            images = self._map_contents(self._image, rows)
        else:
            images = self._map_contents(self._crop, rows, draws)
        return images.batch(batch_size, drop_remainder)

    def check(self) -> None:
        """Decode every image once, in parallel.

        Nothing less than decoding tells whether an image is whole, and nothing is kept of it.
        """
        whole = self._map_contents(lambda content: tf.size(decode(content, 3)) > 0, self._chosen)
        with clear_errors():
            for _ in whole.batch(1024):
                pass

    def decoded(self) -> np.ndarray:
        """Return all images as bytes, where they all have this split's shape already.

        Returns:
            A uint8 array (N, height, width, channels).

        Raises:
            ValueError: If an image is damaged.
        """

        def image(content):
            return tf.ensure_shape(decode(content, self.image_shape[2]), self.image_shape)

        dataset = tf.data.Dataset.from_tensor_slices(self._sources).map(image, **PARALLEL)
        try:
            return np.concatenate(list(dataset.batch(1024).as_numpy_iterator()))
        except tf.errors.OpError:
            # Three times slower, and with the name.
            with clear_errors():
                for _ in self._map_contents(image, np.arange(len(self._labels))):
                    pass
            raise


def common_size(paths: Sequence[str]) -> tuple[int, int]:
    """Return the (height, width) that all images have.

    Args:
        paths: Files of PNG, JPEG, BMP or GIF.

    Returns:
        Two integers.

    Raises:
        ValueError: If two images differ, or one is damaged.

    Example:
        >>> import tempfile
        >>> path = tempfile.mkdtemp() + "/image.png"
        >>> tf.io.write_file(path, tf.io.encode_png(tf.zeros((4, 6, 3), tf.uint8)))
        >>> common_size([path])
        (4, 6)
    """
    split = Encoded(paths, np.zeros(len(paths)), (0, 0, 3))
    sizes = split._map_contents(
        lambda content: tf.shape(decode(content, 3))[:2], np.arange(len(paths))
    )
    first: tuple[int, int] | None = None
    with clear_errors():
        for path, size in zip(paths, sizes.as_numpy_iterator(), strict=True):
            height, width = size.tolist()
            first = first or (height, width)
            if (height, width) != first:
                raise ValueError(
                    "`image_size` must be given where images differ in size. Received: "
                    f"{paths[0]} of {first[0]} × {first[1]} and {path} of {size[0]} × {size[1]} "
                    "pixels."
                )
    return first or (0, 0)
