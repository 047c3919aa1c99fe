"""The photographs that scikit-learn and scikit-image ship, cut into JPEGs, in ImageNet's forms."""

import io
import os
import pathlib

import numpy as np
import skimage
import sklearn.datasets
import tensorflow as tf
from PIL import Image

from tfbio.data import records
from tfbio.data import tfds as catalog

WNIDS = catalog.class_names("imagenet2012")
CLASSES = (WNIDS[0], WNIDS[7], WNIDS[999])


def originals():
    """Return PIL images of which each is of another size."""
    shipped = pathlib.Path(skimage.__file__).parent / "data"
    paths = [shipped / f"{name}.png" for name in ("astronaut", "chelsea", "coffee")]
    paths += [pathlib.Path(sklearn.datasets.__file__).parent / "images" / "china.jpg"]
    return [Image.open(path).convert("RGB") for path in paths]


def jpeg(image, **options):
    """Return a PIL image as the bytes of a JPEG."""
    file = io.BytesIO()
    image.save(file, "JPEG", **{"quality": 90, **options})
    return file.getvalue()


def examples(count, seed):
    """Return (wnid, file name, JPEG) of cuts of the photographs, sorted as the folders are."""
    random = np.random.default_rng(seed)
    images = originals()
    found = []
    for index in range(count):
        image, wnid = images[index % len(images)], CLASSES[index % len(CLASSES)]
        width, height = (int(side) for side in random.integers(60, 160, 2))
        left = int(random.integers(0, image.width - width))
        top = int(random.integers(0, image.height - height))
        cut = image.crop((left, top, left + width, top + height))
        found.append((wnid, f"{wnid}_{index:03}.JPEG", jpeg(cut)))
    return sorted(found)


def write_folders(root, parts, classes=()):
    """Write root/<part>/<wnid>/<name>; `classes` have a folder, with or without images."""
    parts = {{"validation": "val"}.get(part, part): found for part, found in parts.items()}
    for part, found in parts.items():
        for wnid in classes:
            tf.io.gfile.makedirs(f"{root}/{part}/{wnid}")
        for wnid, name, content in found:
            tf.io.gfile.makedirs(f"{root}/{part}/{wnid}")
            tf.io.write_file(f"{root}/{part}/{wnid}/{name}", content)
    return str(root)


def write_shards(root, parts, shards=3):
    """Write the usual shards of TFRecords: labels from 1."""
    tf.io.gfile.makedirs(str(root))
    for part, found in parts.items():
        for shard, chunk in enumerate(np.array_split(np.arange(len(found)), shards)):
            path = os.path.join(root, f"{part}-{shard:05}-of-{shards:05}")
            with tf.io.TFRecordWriter(path) as file:
                for wnid, name, content in (found[index] for index in chunk):
                    features = {
                        "image/encoded": content,
                        "image/class/label": WNIDS.index(wnid) + 1,
                        "image/class/synset": wnid.encode(),
                        "image/filename": name.encode(),
                    }
                    file.write(records.example(features))
    return str(root)


def write_tfds(root, parts, name="imagenet2012"):
    """Prepare a dataset as TFDS does, of the same bytes in the same order."""
    import tensorflow_datasets as tfds

    features = tfds.builder(name, data_dir=str(root)).info.features
    named = "file_name" in features

    def examples(found):
        for key, (wnid, file_name, content) in enumerate(found):
            example = {"image": io.BytesIO(content), "label": wnid}
            yield key, example | ({"file_name": file_name} if named else {})

    tfds.dataset_builders.store_as_tfds_dataset(
        name=name,
        version=str(tfds.builder_cls(name).VERSION),
        features=features,
        split_datasets={part: examples(found) for part, found in parts.items()},
        data_dir=str(root),
        disable_shuffling=True,
    )
    return str(root)
