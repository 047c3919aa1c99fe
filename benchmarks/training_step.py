"""A compiled training step, and the flags of the benchmarks that take it."""

import keras
import tensorflow as tf
from absl import flags

import tfbio

PLAIN = "plain Keras"
"""The variant under no rule, which the others are compared with."""

MODEL = flags.DEFINE_string(
    "model",
    "resnet18",
    "The network: one of tfbio.models, or keras: and a name in keras.applications.",
)
_ANY_NETWORK = [name for name in tfbio.rules.names() if tfbio.rules.get(name).has_gradient]
RULES = flags.DEFINE_string("rules", ",".join(_ANY_NETWORK), "Learning rules, separated by commas.")


def train_step(model, batch, jit):
    """Compile a model, and return a function that takes one training step on the batch.

    Args:
        model: An uncompiled `keras.Model` from images to logits.
        batch: Images and labels.
        jit: Whether to compile with XLA.

    Returns:
        A function without arguments that returns the loss, once the step is done.
    """
    # Slow enough to stay finite under every rule: overflowed numbers take another time.
    optimizer = keras.optimizers.SGD(0.001, momentum=0.9)
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    optimizer.build(model.trainable_variables)
    compiled = tf.function(model.train_step, jit_compile=jit, autograph=False)
    compiled = compiled.get_concrete_function(batch)

    def step():
        loss = compiled(batch)["loss"]
        tf.test.experimental.sync_devices()
        return float(loss)

    return step
