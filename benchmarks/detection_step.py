"""The time of RetinaNet's training step under each learning rule, over keras_cv's own.

"keras_cv" is keras_cv's RetinaNet as it comes, on its own ResNet, with its own pyramid, label
encoder and loss; "keras_cv again" a second one, which shows how far from 1 mere chance leads. The
others are `tfbio.detection.retinanet` of the same depth, heads and width. All
take the same batch, and SGD with momentum, in one process, a step of each per round; each step is
compared with keras_cv's of the same round.
"""

import math
import warnings

import keras
import numpy as np
import tensorflow as tf
from absl import flags

import tfbio
from benchmarks import common
from trainers import cli

KERAS_CV, AGAIN = "keras_cv", "keras_cv again"
CLASSES = 80

DETECTOR = flags.DEFINE_enum("detector", "resnet18", ["resnet18", "resnet50"], "The backbone.")
DETECTOR_RULES = flags.DEFINE_string(
    "detector_rules",
    "backprop,sign_symmetry,feedback_alignment",
    "Learning rules, separated by commas.",
)
OBJECTS = flags.DEFINE_integer("objects", 8, "True boxes per image.", lower_bound=1)
DETECTOR_ROUNDS = flags.DEFINE_integer("detector_rounds", 30, "Timed rounds.", lower_bound=1)
DETECTOR_WARMUP = flags.DEFINE_integer(
    "detector_warmup", 2, "Rounds before them, not timed.", lower_bound=1
)
DETECTOR_SIZE = flags.DEFINE_integer(
    "detector_size", 128, "Height and width in pixels, a multiple of 32.", lower_bound=32
)
DETECTOR_BATCH = flags.DEFINE_integer("detector_batch", 8, "Images per batch.", lower_bound=1)
flags.FLAGS.register_key_flag_for_module("benchmarks.detection_step", flags.FLAGS["csv"])


def main():
    """Run the command line."""
    cli.run(_main)


def _main(_):
    size, batch_size = DETECTOR_SIZE.value, DETECTOR_BATCH.value
    if size % 32:
        cli.fail(f"--detector_size must be a multiple of 32. Received: {size}.")
    batch = random_batch(batch_size, size, OBJECTS.value)
    try:
        models = variants(DETECTOR.value, cli.split(DETECTOR_RULES.value), size)
    except ValueError as error:
        cli.fail(error)
    steps = {variant: train_step(model, batch) for variant, model in models.items()}
    seconds = common.interleave(steps, DETECTOR_ROUNDS.value, DETECTOR_WARMUP.value)
    overflowed = [variant for variant, step in steps.items() if not math.isfinite(step())]
    if overflowed:
        cli.fail(f"the loss overflowed, and times mean nothing then: {', '.join(overflowed)}.")
    rows = []
    for variant, taken in seconds.items():
        low, median, high = np.percentile(taken / seconds[KERAS_CV], (25, 50, 75))
        quartiles = f"{low:.3f}–{high:.3f}"
        rows.append([variant, f"{1000 * np.median(taken):.1f}", f"{median:.3f}", quartiles])
    print(common.machine())
    try:
        common.report(
            f"A training step of RetinaNet on {DETECTOR.value}, batch {batch_size}, "
            f"{size}×{size},\nfloat32, tf.function, {DETECTOR_ROUNDS.value} rounds",
            ["variant", "median ms", f"over {KERAS_CV}", "quartiles"],
            rows,
            common.CSV.value,
        )
    except OSError as error:
        cli.fail(error)


def variants(backbone, rules, image_size):
    """Return the detectors to compare.

    Args:
        backbone: "resnet18" or "resnet50".
        rules: The rules' names.
        image_size: Height and width in pixels.

    Returns:
        A dict from `KERAS_CV`, `AGAIN` and each rule's name to a compiled model.

    Raises:
        ValueError: If a rule is unknown.
    """
    keras.utils.set_random_seed(0)
    shape = (image_size, image_size, 3)
    models = {name: _keras_cv(backbone, shape) for name in (KERAS_CV, AGAIN)}
    for name in rules:
        models[name] = tfbio.convert(tfbio.detection.retinanet(CLASSES, backbone, shape), name)
    for model in models.values():
        # Slow enough to stay finite under every rule: overflowed numbers take another time.
        optimizer = keras.optimizers.SGD(0.0001, momentum=0.9)
        model.compile(
            optimizer=optimizer,
            box_loss="smoothl1",
            classification_loss="focal",
            jit_compile=False,
        )
        optimizer.build(model.trainable_variables)
    return models


def random_batch(batch_size, image_size, objects):
    """Return a batch of random images, and boxes of a quarter to a half of their sides."""
    random = np.random.default_rng(0)
    images = random.random((batch_size, image_size, image_size, 3), np.float32)
    corners = random.uniform(0, image_size / 2, (batch_size, objects, 2))
    sides = random.uniform(image_size / 4, image_size / 2, (batch_size, objects, 2))
    boxes = np.concatenate([corners, corners + sides], axis=-1).astype(np.float32)
    classes = random.integers(0, CLASSES, (batch_size, objects)).astype(np.float32)
    return tf.constant(images), {"boxes": tf.constant(boxes), "classes": tf.constant(classes)}


def train_step(model, batch):
    """Return a function that takes a compiled training step and returns the loss, once done."""
    compiled = tf.function(model.train_step, autograph=False).get_concrete_function(batch)

    def step():
        loss = compiled(batch)["loss"]
        tf.test.experimental.sync_devices()
        return float(loss)

    return step


def _keras_cv(backbone, shape):
    import keras_cv
    from keras_cv.models.retinanet import PredictionHead

    # Its model's input is a dict, and it is called with the images themselves.
    warnings.filterwarnings("ignore", "The structure of `inputs`")

    network = keras_cv.models.ResNetBackbone(
        stackwise_filters=[64, 128, 256, 512],
        stackwise_blocks=[2, 2, 2, 2] if backbone == "resnet18" else [3, 4, 6, 3],
        stackwise_strides=[1, 2, 2, 2],
        block_type="basic_block" if backbone == "resnet18" else "block",
        include_rescaling=False,
        input_shape=shape,
    )
    prior = keras.initializers.Constant(-math.log((1 - 0.01) / 0.01))
    return keras_cv.models.RetinaNet(
        network,
        CLASSES,
        "xyxy",
        # The paper's four hidden convolutions, as ours; keras_cv's default is three.
        classification_head=PredictionHead(9 * CLASSES, prior, num_conv_layers=4),
        box_head=PredictionHead(9 * 4, keras.initializers.Zeros(), num_conv_layers=4),
    )


if __name__ == "__main__":
    main()
