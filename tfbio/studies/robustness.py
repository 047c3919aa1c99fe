"""Robustness: the accuracy of a trained classifier on images that are attacked by its gradient."""

import contextlib
import dataclasses
import pathlib
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, cast

import keras
import tensorflow as tf

from tfbio import attacks, data
from tfbio.layers.true_gradient import true_gradient
from tfbio.studies import runs
from tfbio.studies.attack_options import Attack, parse_number, split_commas
from tfbio.training import folder, memory, preparation, sums, use
from tfbio.training.classification import Classification
from tfbio.training.options import default


class Robustness(NamedTuple):
    """The accuracy of a run's network under attack.

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
    masked: dict[str, float]
    accuracy: dict[tuple[str, str, str], float]

    def document(self) -> dict[str, Any]:
        """Return the same for JSON."""
        rows = [
            {
                "attack": attack,
                "gradient": gradient,
                "epsilon": parse_number(text),
                "accuracy": value,
            }
            for (attack, gradient, text), value in self.accuracy.items()
        ]
        return {
            "step": self.step,
            "examples": self.examples,
            "clean_accuracy": self.clean,
            "zero_gradients": self.masked,
            "attacked": rows,
        }


def load_runs(
    workdirs: Iterable[str | pathlib.Path], checkpoint: str, tell: Callable[[str], Any] = print
) -> list[runs.Run]:
    """Return the runs in folders, each checked to be a classifier's with weights to attack.

    Args:
        workdirs: The runs' folders.
        checkpoint: One of `tfbio.training.experiment.CHECKPOINTS`.
        tell: Called with lines of text.

    Returns:
        A list of `tfbio.studies.runs.Run`, whose experiments' workdirs are these folders, wherever
        the runs were trained.

    Raises:
        ValueError: If a folder holds no run, one of another kind, or none of its weights.

    Example:
        >>> load_runs(["no/such/folder"], "last")
        Traceback (most recent call last):
        ...
        ValueError: `workdir` must be a run's folder, with its flags.cfg. Received: 'no/...
    """
    loaded = []
    for path in map(pathlib.Path, workdirs):
        experiment = folder.read_flags(path)
        if experiment is None:
            raise ValueError(
                f"`workdir` must be a run's folder, with its flags.cfg. Received: {str(path)!r}."
            )
        if experiment.task != "classification":
            raise ValueError(
                f"`workdir`: {path} holds a run of {experiment.task}. Give one of "
                "classification, by trainers.classify."
            )
        if use.latest(path, checkpoint, tell) is None:
            raise ValueError(
                f"`workdir`: {path} has no {checkpoint} checkpoint. Give a run that was trained"
                + (", with validation." if checkpoint == "best" else ".")
            )
        experiment = dataclasses.replace(experiment, workdir=str(path))
        loaded.append(runs.load(path)._replace(experiment=experiment))
    return loaded


def measure_runs(
    attacked: Iterable[runs.Run],
    attack: Attack,
    tell: Callable[[str], Any],
    progress: Callable[[str], Callable[[int, int], Any]],
) -> list[Robustness]:
    """Attack the networks of runs, one after the other.

    Args:
        attacked: The runs, as `load_runs` returns them.
        attack: An `Attack`.
        tell: Called with lines of text.
        progress: A function from a run's name to what `measure` takes as `measuring`.

    Returns:
        A `Robustness` for each run.

    Raises:
        ValueError: As `measure` does.
        OSError: If data cannot be read.

    Example:
        >>> measure_runs([], Attack(), print, lambda name: lambda done, total: None)
        []
    """
    measured = []
    for run in attacked:
        with memory.freed():
            name = runs.format_name(run.experiment)
            experiment = cast("Classification", run.experiment)  # `load_runs` has looked
            measured.append(measure(experiment, attack, tell, progress(name)))
        if run.summary is None:
            step = measured[-1].step
            tell(f"{run.experiment.workdir} is not finished: attacked as of step {step}.")
    return measured


def measure(
    experiment: Classification,
    attack: Attack,
    tell: Callable[[str], Any] = print,
    measuring: Callable[[int, int], Any] = lambda done, total: None,
) -> Robustness:
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
    local = {"strategy": "one_device", "tpu": "", "evaluation_crops": 1, "data_service": ""}
    local["data_service_timeout"] = default(experiment, "data_service_timeout")
    experiment = dataclasses.replace(experiment, **local)
    step, prepared = use.measurable(experiment, attack.checkpoint, tell)
    rule = experiment.parsed_rule
    if "rule" in split_commas(attack.gradients) and not rule.has_gradient:
        raise ValueError(
            f"`gradients='rule'`: {experiment.workdir} learned under `rule={experiment.rule!r}`, "
            "by targets, and no gradient of it comes down to the image. Give `gradients='true'`."
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
        model = build_float32(prepared)
        size = attack.batch_size or prepared.experiment.batch_size
        loss = experiment.loss
        return Robustness(step, *_measure_split(model, loss, split, attack, size, measuring))


def _measure_split(model, loss, split, attack, size, measuring):
    """Return (examples, clean, masked, accuracy), as `Robustness` has them."""
    clean, masked, attacked = _compile_counts(model, loss, attack)
    nonzero = {text: value for text, value in attack.eps.items() if value}
    batches, count, correct = -(-split.size // size), 0.0, 0.0
    zeros = dict.fromkeys((gradient for _, gradient in attack.columns), 0.0)
    survivors = {(*column, text): 0.0 for column in attack.columns for text in nonzero}
    for done, batch in enumerate(split.batches(size, pad=True)):
        measuring(done, batches)
        images, labels, weights = batch
        images = data.to_float(images)
        rows = split.rows[done * size : (done + 1) * size]
        rows = tf.constant([*rows, *[0] * (size - len(rows))], tf.int64)
        count += float(tf.reduce_sum(weights))
        correct += float(clean(images, labels, weights))
        for gradient in zeros:
            with true_gradient(model) if gradient == "true" else contextlib.nullcontext():
                zeros[gradient] += float(masked(images, labels, weights))
                for kind, whose, text in survivors:
                    if whose == gradient:
                        eps = tf.constant(nonzero[text], tf.float32)
                        survived = attacked[kind](images, labels, weights, rows, eps)
                        survivors[kind, whose, text] += float(survived)
    measuring(batches, batches)
    if not count:
        raise ValueError(f"`data_dir`: none of the {split.size} images can be read.")
    accuracy = {
        (*column, text): survivors.get((*column, text), correct) / count
        for column in attack.columns
        for text in attack.eps
    }
    shares = {gradient: zero / count for gradient, zero in zeros.items()}
    return int(count), correct / count, shares, accuracy


def _compile_counts(model, loss, attack):
    """Return compiled counts of images: those correct, without gradient, correct if attacked."""

    @tf.function
    def clean(images, labels, weights):
        logits = tf.cast(model(images, training=False), tf.float32)
        return tf.reduce_sum(weights * tf.cast(tf.argmax(logits, axis=-1) == labels, tf.float32))

    @tf.function
    def masked(images, labels, weights):
        gradients = attacks.gradient(model, images, labels, loss)
        zero = tf.reduce_all(gradients == 0, axis=range(1, len(images.shape)))
        return tf.reduce_sum(weights * tf.cast(zero, tf.float32))

    @tf.function
    def fgsm(images, labels, weights, rows, eps):
        return clean(attacks.fgsm(model, images, labels, eps, loss=loss), labels, weights)

    @tf.function
    def pgd(images, labels, weights, rows, eps):
        step_size = attack.step_size or None
        changed = attacks.pgd(
            model, images, labels, eps, attack.steps, step_size,
            seed=attack.seed, indices=rows, restarts=attack.restarts, loss=loss,
        )  # fmt: skip
        return clean(changed, labels, weights)

    return clean, masked, {"fgsm": fgsm, "pgd": pgd}


def build_float32(prepared: preparation.Prepared) -> keras.Model:
    """Return a run's network in float32, with the same weights: float16 loses small gradients.

    Args:
        prepared: A `Prepared`.

    Returns:
        A `keras.Model`; the run's own one where its precision is float32 already.

    Example:
        >>> from tfbio.training import Classification, prepare
        >>> prepared = prepare(Classification(rule="bp", precision="mixed_bfloat16"))
        >>> {layer.compute_dtype for layer in build_float32(prepared).layers}
        {'float32'}
    """
    experiment = dataclasses.replace(prepared.experiment, precision="float32")
    if experiment == prepared.experiment:
        return prepared.model
    rate = experiment.learning_rate
    return preparation.build(experiment, prepared.facts, prepared.strategy, rate, prepared.model)
