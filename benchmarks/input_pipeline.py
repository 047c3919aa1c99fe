"""Images per second of ImageNet's training input, over its decoding alone and over a PIL loader.

The images are cut from the two photographs that scikit-learn ships, to 400×500 pixels, and written
as JPEGs. "training input" is all that a run does: read, choose a crop at random, decode within it,
resize, mirror, and batch in the epoch's order. "crop, decode, resize" does no more than that, with
bytes in memory and crops chosen beforehand. "PIL loader" opens, crops, resizes and mirrors the same
files in as many processes as there are cores, each of which sends the batches that it makes to the
first one, where a training would be; "PIL, nothing sent" leaves that out. All are timed in one run,
in turn.

At the end one pass over many images shows how the process's memory goes.
"""

import io
import multiprocessing
import os
import pathlib
import tempfile

import numpy as np
import psutil
import tensorflow as tf
from absl import flags

from benchmarks import common
from tfbio import data
from tfbio.data import chance, crops
from tfbio.data.photographs import Files, Photographs
from trainers import cli

BATCH_SIZE, SIZE = 64, 224
DISTINCT = 512  # files; a round passes over them several times, for an epoch's start counts little
IMAGES = flags.DEFINE_integer("images", 4096, "Images per round.", lower_bound=BATCH_SIZE)
ROUNDS = flags.DEFINE_integer("rounds", 5, "Timed rounds.", lower_bound=1)
MEMORY = flags.DEFINE_integer(
    "memory_images", 50_000, "Images of the pass that memory is sampled in; 0: none.", lower_bound=0
)
flags.FLAGS.register_key_flag_for_module("benchmarks.input_pipeline", flags.FLAGS["csv"])


def main():
    """Run the command line."""
    cli.run(_main)


def _main(_):
    cores = len(os.sched_getaffinity(0))
    with (
        tempfile.TemporaryDirectory() as folder,
        multiprocessing.get_context("spawn").Pool(cores) as pool,
    ):
        files = cut(folder, DISTINCT, 500, 400)
        size = sum(map(os.path.getsize, files)) / len(files)
        paths = [files[index % len(files)] for index in range(IMAGES.value)]
        seconds = common.interleave(variants(paths, pool, cores), ROUNDS.value, warmup=1)
        memory = sampled(paths, MEMORY.value) if MEMORY.value else None
    print(common.machine())
    rows = []
    for name, taken in seconds.items():
        ratio = np.median(taken / seconds["training input"])
        rows.append([name, f"{len(paths) / np.median(taken):,.0f}", f"{ratio:.2f}"])
    common.report(
        f"ImageNet's training input on {cores} cores: {len(paths):,} images of 400×500 pixels,\n"
        f"{size / 1000:.0f} kB, to {SIZE}×{SIZE}, {ROUNDS.value} rounds",
        ["", "images/s", "training input is faster by"],
        rows,
        common.CSV.value,
    )
    if memory is not None:
        print(
            f"Memory along a pass over {MEMORY.value:,} images, MB at every tenth: "
            f"{', '.join(f'{each / 1e6:,.0f}' for each in memory)}."
        )


def cut(folder, count, width, height):
    """Write JPEGs cut from the photographs that scikit-learn ships, and return their paths."""
    from PIL import Image
    from sklearn.datasets import load_sample_images

    originals = [Image.fromarray(image) for image in load_sample_images().images]
    random = np.random.default_rng(0)
    paths = []
    for index in range(count):
        original = originals[index % len(originals)]
        left = random.integers(original.width - width + 1)
        top = random.integers(original.height - height + 1)
        path = pathlib.Path(folder, f"{index}.JPEG")
        # About the size of ImageNet's own.
        box = (left, top, left + width, top + height)
        original.crop(box).save(path, quality=92)
        paths.append(str(path))
    return paths


def variants(paths, pool, cores):
    """Return a dict from name to a function that passes over all images once."""
    split = Photographs(Files(paths, np.zeros(len(paths))), SIZE)
    contents = tf.constant([pathlib.Path(path).read_bytes() for path in paths])
    draws = chance.bits(len(paths), 0, 0, chance.AUGMENTATION) >> np.uint64(1)
    boxes = crops.random_boxes([[400, 500]] * len(paths), draws.astype(np.int64)).numpy()

    def alone(content, box):
        image = tf.io.decode_and_crop_jpeg(content, box, 3)
        return tf.cast(tf.image.resize(image, (SIZE, SIZE)), tf.uint8)

    decoded = tf.data.Dataset.from_tensor_slices((contents, boxes))
    decoded = decoded.map(alone, num_parallel_calls=cores)
    # Made once: an epoch has many more images than a round, and a pipeline is made once for it.
    training = split.batches(BATCH_SIZE, (0, 0), augmentation="resized_crop_flip")
    tasks = list(zip(paths, boxes.tolist(), (draws % 2).tolist(), strict=True))

    def passed(batches):
        for _ in batches:
            pass

    parts = [tasks[start : start + BATCH_SIZE] for start in range(0, len(tasks), BATCH_SIZE)]

    return {
        "training input": lambda: passed(training),
        "crop, decode, resize": lambda: passed(decoded),
        "PIL loader": lambda: passed(pool.imap(batch_with_pil, parts)),
        "PIL, nothing sent": lambda: passed(pool.imap(shapes_with_pil, parts)),
    }


def batch_with_pil(tasks):
    """Return a batch of images read with PIL."""
    return np.stack([with_pil(task) for task in tasks])


def shapes_with_pil(tasks):
    """Return the shapes of images read with PIL: the pixels stay where they are."""
    return [with_pil(task).shape for task in tasks]


def with_pil(task):
    """Return an image read with PIL."""
    from PIL import Image

    path, (top, left, height, width), mirrored = task
    image = Image.open(io.BytesIO(pathlib.Path(path).read_bytes())).convert("RGB")
    box = (left, top, left + width, top + height)
    image = image.crop(box).resize((SIZE, SIZE), Image.Resampling.BILINEAR)
    if mirrored:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.asarray(image)


def sampled(paths, count):
    """Return the process's memory after each tenth of a pass over `count` images, in bytes."""
    many = [paths[index % len(paths)] for index in range(count)]
    split = Photographs(Files(many, np.zeros(count)), SIZE)
    process, found = psutil.Process(), []
    steps = split.steps(BATCH_SIZE)
    batches = split.batches(BATCH_SIZE, (0, 0), augmentation="resized_crop_flip")
    with data.clear_errors():
        for index, _ in enumerate(batches, 1):
            if index * 10 // steps > len(found):
                found.append(process.memory_info().rss)
    return found


if __name__ == "__main__":
    main()
