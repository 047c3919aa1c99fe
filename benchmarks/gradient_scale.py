"""The size of the error that reaches the first convolution: a rule's over backpropagation's.

A feedback matrix that is too large or too small multiplies the error at every layer, and a deep
network then overflows or learns nothing in its first layers. The table gives, at initialization,

    ‖∂L/∂W₁ under the rule‖ / ‖∂L/∂W₁ under backpropagation‖

of the first convolution's kernel W₁: Frobenius norms, one training-mode batch, softmax
cross-entropy with random labels, every layer but the last under the rule. "infinite" is a gradient
with entries beyond float32. The exit status is 1 if the scale "match" gives a ratio outside of
0.5–2.
"""

import math

import keras
import numpy as np
import tensorflow as tf
from absl import flags

import tfbio
from benchmarks import common
from tfbio import models
from tfbio.models import initialization
from trainers import cli

SCALES = ("xiao", "xavier", "match")
ADMISSIBLE = (0.5, 2.0)

MODELS = flags.DEFINE_list(
    "models",
    ["resnet18", "resnet18_fan_in", "keras:ResNet50", "keras:MobileNetV2", "keras:DenseNet121"],
    "Networks: resnet18, or keras: and a name in keras.applications.",
)
RULE = flags.DEFINE_string("rule", "sign_symmetry", "A learning rule that has a scale.")
LAST_LAYER = flags.DEFINE_string(
    "last_layer", "backprop", "The last layer's rule; empty for the same as the rest."
)
INITIALIZATION = flags.DEFINE_string(
    "initialization",
    "",
    f"The scheme that kernels start from: {', '.join(initialization.names())}; empty: the "
    "network's own.",
)
SEEDS = flags.DEFINE_list("seeds", ["0"], "Seeds of weights and data; a row for each.")
flags.adopt_module_key_flags(common)
flags.register_validator("models", bool, "must name one network or more.")


@flags.validator("seeds", "must be integers of 0 to 2**31 - 1, separated by commas.")
def _check_seeds(seeds):
    return bool(seeds) and all(seed.isdecimal() and int(seed) < 2**31 for seed in seeds)


def main():
    """Run the command line."""
    cli.run(_main)


def _main(_):
    size, batch_size = common.IMAGE_SIZE.value, common.BATCH_SIZE.value
    rows, misses = [], []
    try:
        for name in MODELS.value:
            for seed in map(int, SEEDS.value):
                last = LAST_LAYER.value or None
                scheme = INITIALIZATION.value
                found = ratios(name, RULE.value, last, batch_size, size, seed, scheme)
                keras.backend.clear_session()
                rows.append([name, str(seed), *map(_printed, found.values())])
                if not ADMISSIBLE[0] <= found["match"] <= ADMISSIBLE[1]:
                    misses.append(f"{name} (seed {seed}): {_printed(found['match'])}")
        common.report(
            f"First-convolution gradient norm under {RULE.value} over backpropagation's\n"
            f"at initialization ({INITIALIZATION.value or 'each network its own'}), batch "
            f"{batch_size}, {size}×{size}, last layer under {LAST_LAYER.value or 'the same rule'}",
            ["model", "seed", *SCALES],
            rows,
            common.CSV.value,
        )
    except (ValueError, OSError) as error:
        cli.fail(error)
    if misses:
        low, high = ADMISSIBLE
        cli.fail(f'under "match" the ratio leaves {low:g}–{high:g}: {", ".join(misses)}.')


def ratios(name, rule, last_layer, batch_size, image_size, seed, scheme=""):
    """Return the ratio of gradient norms of one network under each scale.

    Args:
        name: The network, see `benchmarks.common.build`.
        rule: A rule with an option `scale`, as `tfbio.rules.get` takes it.
        last_layer: The last layer's rule, or None for the same as the rest.
        batch_size: Images in the batch.
        image_size: Their height and width in pixels.
        seed: The seed of weights, images, labels and the rule's draws.
        scheme: One of `tfbio.models.initialization`, or empty for the network's own.

    Returns:
        A dict from scale to the ratio, `math.inf` where the gradient overflowed.

    Raises:
        ValueError: If the network or a rule is unknown, or they do not fit together.
    """
    scaled = {scale: _scaled(rule, scale) for scale in SCALES}
    keras.utils.set_random_seed(seed)
    model = common.build(name, image_size)
    if scheme:
        models.initialize(model, scheme)
    batch = common.random_batch(batch_size, image_size, seed)
    # Backpropagation by Keras itself, so that the denominator owes nothing to what is measured.
    backprop = _first_kernel_gradient_norm(model, batch)
    found = {}
    for scale in SCALES:
        tfbio.convert(model, scaled[scale], last_layer=last_layer)
        ratio = _first_kernel_gradient_norm(model, batch) / backprop
        found[scale] = ratio if math.isfinite(ratio) else math.inf
    return found


def _scaled(rule, scale):
    rule = tfbio.rules.get(rule)
    if "scale" not in rule.options():
        raise ValueError(f"--rule must be a rule that has a scale. Received: {rule!r}.")
    return tfbio.rules.get(
        {"class_name": rule.alias, "config": {**rule.get_config(), "scale": scale}}
    )


def _first_kernel_gradient_norm(model, batch):
    images, labels = batch
    first = next(layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D))
    kernel = first.kernel.value
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    @tf.function(autograph=False)
    def gradient():
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(kernel)
            value = loss(labels, model(images, training=True))
        return tape.gradient(value, kernel)

    # Compiled anew for each conversion: what was compiled before would not know of it.
    compiled = gradient.get_concrete_function()
    # In float64, where squares of what float32 holds do not overflow.
    return float(np.linalg.norm(compiled().numpy().astype(np.float64)))


def _printed(ratio):
    return f"{ratio:.3g}" if math.isfinite(ratio) else "infinite"


if __name__ == "__main__":
    main()
