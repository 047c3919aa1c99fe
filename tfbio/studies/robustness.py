"""Robustness: the accuracy of a trained classifier on images that are attacked by its gradient."""

import contextlib
import dataclasses
import math
from typing import NamedTuple

import tensorflow as tf

from tfbio import attacks, data
from tfbio.layers.true_gradient import true_gradient
from tfbio.training import preparation, sums, use
from tfbio.training.experiment import CHECKPOINTS, check, default, option

ATTACKS = ("fgsm", "pgd")
GRADIENTS = ("true", "rule")
SPLITS = ("test", "validation")


@dataclasses.dataclass(frozen=True)
class Attack:
    """What to attack with: options, which the command line's flags are made from.

    Raises:
        ValueError: If an option is unknown, of the wrong type or out of its range; the message
            names it.

    Example:
        >>> Attack(epsilons="0, 8/255").eps
        {'0': 0.0, '8/255': 0.03137254901960784}
    """

    epsilons: str = option(
        "0,1/255,2/255,4/255,8/255",
        "The most that a pixel changes by, in units of the images' range, 0 to 1; several, "
        "separated by commas.",
    )
    attacks: str = option("fgsm,pgd", f"Of {', '.join(ATTACKS)}, one or both.")
    gradients: str = option(
        "true,rule",
        "Whose gradient to follow, one or both: true, that of the function which the network "
        "computes; rule, what arrives at the images through the rule's feedback.",
    )
    steps: int = option(20, "PGD's steps.", low=1, high=10**5)
    step_size: float = option(0.0, "PGD's step, in the units of eps; 0: 2.5·eps/steps.", low=0)
    restarts: int = option(1, "PGD's random starts; each image keeps its worst.", low=1, high=10**4)
    examples: int = option(
        1000,
        "How many images, at random by the seed, the same for every run on the same data; all "
        "where there are fewer.",
        low=1,
        high=10**9,
    )
    split: str = option("test", "Of which split.", choices=SPLITS)
    checkpoint: str = option("last", "The weights to attack.", choices=CHECKPOINTS)
    seed: int = option(
        0, "Decides which images are attacked, and PGD's starts.", low=0, high=2**31 - 1
    )
    batch_size: int = option(
        0, "Images at a time; 0: as many as the run was trained with.", low=0, high=10**6
    )

    def __post_init__(self):
        """Check every option."""
        for field in dataclasses.fields(self):
            check(field, getattr(self, field.name))
        for name, known in (("attacks", ATTACKS), ("gradients", GRADIENTS)):
            parts = _parts(getattr(self, name))
            if not parts or len(set(parts)) < len(parts) or not set(parts) <= set(known):
                raise ValueError(
                    f"`{name}` must be of {', '.join(known)}, each at most once. "
                    f"Received: {getattr(self, name)!r}."
                )
        if not self.eps:
            raise ValueError("`epsilons` must be numbers such as 0,2/255,0.03. Received: none.")

    @property
    def eps(self):
        """The values of eps, as a dict from text to number."""
        found = {}
        for text in _parts(self.epsilons):
            value = _number(text)
            if not 0 <= value <= 1 or value in found.values():
                raise ValueError(
                    "`epsilons` must be numbers of 0 to 1, in units of the images' range, each "
                    f"once, such as 0,2/255,0.03. Received: {text!r} in {self.epsilons!r}."
                )
            found[text] = value
        return found

    @property
    def columns(self):
        """The pairs of attack and gradient, in order."""
        return [(a, g) for a in _parts(self.attacks) for g in _parts(self.gradients)]


class Robustness(NamedTuple):
    """What came of a run's attacks.

    Attributes:
        step: The optimizer step of its weights.
        examples: The number of images.
        clean: The share of them, as they are, that is classified correctly.
        masked: By gradient, the share of them whose gradient is zero all over.
        accuracy: By (attack, gradient, eps as text), the share that is classified correctly.
    """

    step: int
    examples: int
    clean: float
    masked: dict
    accuracy: dict

    def document(self):
        """Return the same for JSON."""
        rows = [
            {"attack": attack, "gradient": gradient, "epsilon": _number(text), "accuracy": value}
            for (attack, gradient, text), value in self.accuracy.items()
        ]
        return {
            "step": self.step,
            "examples": self.examples,
            "clean_accuracy": self.clean,
            "zero_gradients": self.masked,
            "attacked": rows,
        }


def measure(experiment, attack, tell=print, measuring=lambda done, total: None):
    """Attack a run's network: on one device, in float32, on images cropped once.

    Args:
        experiment: The run's `Classification`; its workdir holds the run.
        attack: An `Attack`.
        tell: Called with lines of text.
        measuring: Called with the batches that are done, and those in all.

    Returns:
        A `Robustness`.

    Raises:
        ValueError: If the folder holds no such run, checkpoint or split, or options do not fit.
        OSError: If data cannot be read.

    Example:
        >>> from tfbio.training import Classification
        >>> measure(Classification(workdir="no/such/folder"), Attack())
        Traceback (most recent call last):
        ...
        ValueError: `workdir=no/such/folder` has no last checkpoint. Give the folder of a run...
    """
    here = {"strategy": "one_device", "tpu": "", "evaluation_crops": 1, "data_service": ""}
    here["data_service_timeout"] = default(experiment, "data_service_timeout")
    experiment = dataclasses.replace(experiment, **here)
    step, prepared = use.measurable(experiment, attack.checkpoint, tell)
    rule = experiment.parsed_rule
    if "rule" in _parts(attack.gradients) and not rule.has_gradient:
        raise ValueError(
            f"`gradients='rule'`: {experiment.workdir} learned under `rule={experiment.rule!r}`, by "
            "targets, and no gradient of it comes down to the image. Give `gradients='true'`."
        )
    split = {"test": prepared.dataset.test, "validation": prepared.validation}[attack.split]
    if split is None:
        raise ValueError(
            f"`split='validation'`: {experiment.workdir} was trained without, by "
            "`validation_fraction=0`. Give `split='test'`."
        )
    if attack.examples < split.size:
        split = split.share(attack.examples / split.size, attack.seed)
    with data.clear_errors(), sums.in_order():
        return Robustness(step, *_measured(_in_full(prepared), split, attack, prepared, measuring))


def _measured(model, split, attack, prepared, measuring):
    """Return (examples, clean, masked, accuracy), as `Robustness` has them."""
    size = attack.batch_size or prepared.experiment.batch_size
    clean, masked, attacked = _functions(model, attack)
    moved = {text: value for text, value in attack.eps.items() if value}
    batches, count, right = -(-split.size // size), 0.0, 0.0
    zeros = dict.fromkeys((g for _, g in attack.columns), 0.0)
    rights = {(*column, text): 0.0 for column in attack.columns for text in moved}
    for done, batch in enumerate(split.batches(size, pad=True)):
        measuring(done, batches)
        images, labels, weights = batch
        images = data.to_float(images)
        rows = split.rows[done * size : (done + 1) * size]
        rows = tf.constant([*rows, *[0] * (size - len(rows))], tf.int64)
        count += float(tf.reduce_sum(weights))
        right += float(clean(images, labels, weights))
        for gradient in zeros:
            with true_gradient(model) if gradient == "true" else contextlib.nullcontext():
                zeros[gradient] += float(masked(images, labels, weights))
                for key in [key for key in rights if key[1] == gradient]:
                    eps = tf.constant(moved[key[2]], tf.float32)
                    rights[key] += float(attacked[key[0]](images, labels, weights, rows, eps))
    measuring(batches, batches)
    if not count:
        raise ValueError(f"`data_dir`: none of the {split.size} images can be read.")
    accuracy = {
        (*column, text): rights.get((*column, text), right) / count
        for column in attack.columns
        for text in attack.eps
    }
    return int(count), right / count, {k: v / count for k, v in zeros.items()}, accuracy


def _functions(model, attack):
    """Return compiled functions that count a batch's images: right, without gradient, attacked."""

    @tf.function
    def clean(images, labels, weights):
        logits = tf.cast(model(images, training=False), tf.float32)
        return tf.reduce_sum(weights * tf.cast(tf.argmax(logits, axis=-1) == labels, tf.float32))

    @tf.function
    def masked(images, labels, weights):
        gradients = attacks.gradient(model, images, labels)
        zero = tf.reduce_all(gradients == 0, axis=range(1, len(images.shape)))
        return tf.reduce_sum(weights * tf.cast(zero, tf.float32))

    @tf.function
    def fgsm(images, labels, weights, rows, eps):
        return clean(attacks.fgsm(model, images, labels, eps), labels, weights)

    @tf.function
    def pgd(images, labels, weights, rows, eps):
        size = attack.step_size or None
        changed = attacks.pgd(
            model, images, labels, eps, attack.steps, size,
            seed=attack.seed, indices=rows, restarts=attack.restarts,
        )  # fmt: skip
        return clean(changed, labels, weights)

    return clean, masked, {"fgsm": fgsm, "pgd": pgd}


def _in_full(prepared):
    """Return the network in float32, with the same weights: float16 loses small gradients."""
    experiment = dataclasses.replace(prepared.experiment, precision="float32")
    if experiment == prepared.experiment:
        return prepared.model
    rate = experiment.learning_rate
    return preparation.build(experiment, prepared.facts, prepared.strategy, rate, prepared.model)


def _parts(text):
    return [part.strip() for part in text.split(",") if part.strip()]


def _number(text):
    """Return what a decimal or a fraction stands for; NaN if it is neither."""
    above, slash, below = text.partition("/")
    try:
        return float(above) / (float(below) if slash else 1.0)
    except (ValueError, ZeroDivisionError):
        return math.nan
