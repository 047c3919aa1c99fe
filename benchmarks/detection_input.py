"""Images per second of detection's training input, over keras-cv's layers for the same changes.

The images are cut from the two photographs that scikit-learn ships, to 420×640 pixels, and written
as JPEGs, with some boxes each. "training input" is all that a run does with "jitter_flip": read,
decode what is seen, scale by a random factor, cut, mirror, pad, move the boxes and batch in the
epoch's order. "keras-cv" reads and decodes the same files in a tf.data map, and gives them to
JitteredResize and RandomFlip, one by one since they differ in what is cut, then to batches. "read
and decode" is what both have beneath them. All are timed in one run, in turn.
"""

import os
import tempfile

import numpy as np
import tensorflow as tf
from absl import flags

from benchmarks import common
from benchmarks.input_pipeline import cut
from tfbio.data import decoding
from tfbio.data.photographs import Files
from tfbio.detection import boxes, coco
from tfbio.detection.examples import DetectionExamples
from trainers import cli

BATCH_SIZE, HEIGHT, WIDTH, OBJECTS = 16, 420, 640, 8
SIDE = flags.DEFINE_integer("side", 512, "Pixels a side of what comes out.", lower_bound=32)
JPEGS = flags.DEFINE_integer("jpegs", 256, "JPEGs per round.", lower_bound=BATCH_SIZE)
PASSES = flags.DEFINE_integer("passes", 5, "Timed rounds.", lower_bound=1)
flags.FLAGS.register_key_flag_for_module("benchmarks.detection_input", flags.FLAGS["csv"])


def main():
    """Run the command line."""
    cli.run(_main)


def _main(_):
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as folder:
        paths = cut(folder, JPEGS.value, WIDTH, HEIGHT)
        seconds = common.interleave(variants(paths), PASSES.value, warmup=1)
    print(common.machine())
    rows = []
    for name, taken in seconds.items():
        ratio = np.median(taken / seconds["training input"])
        rows.append([name, f"{len(paths) / np.median(taken):,.0f}", f"{ratio:.2f}"])
    common.report(
        f"Detection's training input on {cores} cores: {len(paths):,} JPEGs of {HEIGHT}×{WIDTH}\n"
        f"pixels to {SIDE.value}×{SIDE.value}, {PASSES.value} rounds",
        ["", "images/s", "training input is faster by"],
        rows,
        common.CSV.value,
    )


def annotated(count):
    """Return `annotations.Annotations` of as many images, with boxes at random."""
    random = np.random.default_rng(0)
    corners = random.uniform(0, 0.6, (count, OBJECTS, 2)) * [WIDTH, HEIGHT]
    sides = random.uniform(0.05, 0.4, (count, OBJECTS, 2)) * [WIDTH, HEIGHT]
    found = np.concatenate([corners, sides], -1).tolist()
    document = {
        "images": [
            {"id": index, "file_name": f"{index}.JPEG", "height": HEIGHT, "width": WIDTH}
            for index in range(count)
        ],
        "categories": [{"id": 1, "name": "object"}],
        "annotations": [
            {"id": index * OBJECTS + place, "image_id": index, "category_id": 1, "bbox": box}
            for index in range(count)
            for place, box in enumerate(found[index])
        ],
    }
    return coco.parse(document, "the benchmark's annotations")


def variants(paths):
    """Return a dict from name to a function that passes over all images once."""
    import keras_cv

    side, annotations = SIDE.value, annotated(len(paths))
    split = DetectionExamples(Files(paths, np.zeros(len(paths))), annotations, side)
    training = split.batches(BATCH_SIZE, (0, 0), augmentation="jitter_flip")
    # keras-cv scales by the image, we by what fits.
    fits = side / max(HEIGHT, WIDTH)
    resize = keras_cv.layers.JitteredResize(
        (side, side), tuple(fits * scale for scale in boxes.SCALES), bounding_box_format="xyxy"
    )
    flip = keras_cv.layers.RandomFlip("horizontal", bounding_box_format="xyxy")
    parallel = {"num_parallel_calls": tf.data.AUTOTUNE}
    shaped = annotations.corners().reshape(-1, OBJECTS, 4).astype(np.float32)

    def decoded(path):
        return decoding.decode(tf.io.read_file(path), 3)

    def example(path, objects):
        objects = {"boxes": objects, "classes": tf.zeros((OBJECTS,))}
        return {"images": decoded(path), "bounding_boxes": objects}

    def finished(example):
        # They drop what is not seen, and leave batches with boxes of different numbers to others.
        objects = {key: boxes.pad(each, 100) for key, each in example["bounding_boxes"].items()}
        return tf.cast(example["images"], tf.uint8), objects

    files = tf.data.Dataset.from_tensor_slices((paths, shaped)).shuffle(len(paths), seed=0)
    theirs = files.map(example, **parallel).map(resize, **parallel).map(flip, **parallel)
    theirs = theirs.map(finished, **parallel).batch(BATCH_SIZE).prefetch(tf.data.AUTOTUNE)
    alone = files.map(lambda path, _: tf.shape(decoded(path)), **parallel).batch(BATCH_SIZE)

    def passed(dataset):
        for _ in dataset:
            pass

    return {
        "training input": lambda: passed(training),
        "keras-cv": lambda: passed(theirs),
        "read and decode": lambda: passed(alone),
    }


if __name__ == "__main__":
    main()
