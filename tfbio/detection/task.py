"""The detector: how a detection is prepared, and how it is measured."""

import dataclasses
import hashlib
import math

import keras
import numpy as np
import tensorflow as tf

from tfbio import _keras
from tfbio.data.scaling import to_float
from tfbio.detection import boxes, coco_metrics, coco_results, datasets, pictures
from tfbio.detection.options import Detection, Facts
from tfbio.detection.retinanet import copy_backbone, retinanet
from tfbio.layers.last_layers import find_last_layers
from tfbio.layers.sites import find_sites
from tfbio.training import preparation, strategies, transfer
from tfbio.training.experiment import default, named
from tfbio.training.preparation import Prepared, build, prepare

_SHOWN = 8  # images of a picture
LEAST = 0.3
"""The score from which on a predicted box is drawn."""


@dataclasses.dataclass(frozen=True)
class PreparedDetection(Prepared):
    """A detector and its data; `dataset` is a `DetectionSet`, `facts` are `Facts`."""

    def evaluator(self):
        """Return a function that gives COCO's metrics, and AP by class; see the base class.

        It shows "boxes": the first images with what is predicted and what is true.
        """
        detect = detection(self.model, self.strategy)

        def measure(split, batches, show=None):
            found = []
            for images, targets, about in batches:
                detections = self._here(detect(images))
                found.append({**detections, **self._here(about)})
                if show:
                    shown = self._here(images), detections, self._here(targets)
                    show("boxes", picture(*shown, split.class_names))
                    show = None
            every = {
                name: self._of_all(np.concatenate([each[name] for each in found]))
                for name in found[0]
            }
            results = coco_results.convert_batch(split.annotations, every, every)
            measured = coco_metrics.evaluate(split.annotations, results)
            return {
                **{name.lower(): value for name, value in measured.summary.items()},
                # A class without objects has none.
                **{f"ap/{k}": v for k, v in measured.by_class.items() if not math.isnan(v)},
            }

        return measure

    def _here(self, value):
        """Return this worker's part of what a batch holds, in NumPy."""
        if isinstance(value, dict):
            return {name: self._here(each) for name, each in value.items()}
        parts = self.strategy.experimental_local_results(value)
        return np.concatenate([np.asarray(part) for part in parts])

    def _of_all(self, array):
        """Return the rows of all workers."""
        # Integers are exchanged: they have the bits of any type, and every backend sends them.
        parts = self.devices.gather(np.ascontiguousarray(array).view(np.int32))
        return np.ascontiguousarray(parts).view(array.dtype).reshape(-1, *array.shape[1:])


def detection(model, strategy):
    """Return a compiled function from a batch of images to the detections in them.

    Args:
        model: A `tfbio.detection.keras_cv_model.RetinaNet`.
        strategy: The strategy that it lives under.

    Returns:
        A function from images, as `tfbio.data.scaling.to_float` takes them, to what
        `RetinaNet.decode_predictions` returns.

    Example:
        >>> model = retinanet(3, "resnet10", (64, 64, 3), head_layers=0, channels=8)
        >>> detect = detection(model, tf.distribute.get_strategy())
        >>> detect(tf.zeros((2, 64, 64, 3), tf.uint8))["boxes"].shape
        TensorShape([2, 100, 4])
    """

    def step(images):
        images = to_float(images)
        return model.decode_predictions(model(images, training=False), images)

    # Never by XLA, which cannot choose among boxes.
    return tf.function(lambda images: strategy.run(step, args=(images,)), reduce_retracing=True)


def picture(images, detections, targets, class_names):
    """Return the first images of a batch side by side, with predicted and true boxes.

    Args:
        images: An array (B, height, width, 3), of 0 to 255.
        detections: What `RetinaNet.decode_predictions` returns for them.
        targets: The true boxes, as `tfbio.detection.DetectionExamples` gives them.
        class_names: The classes' names.

    Returns:
        A uint8 array (height, width, 3).

    Example:
        >>> none = {"boxes": np.full((2, 1, 4), -1.0), "classes": np.full((2, 1), -1.0)}
        >>> detections = {**none, "confidence": np.full((2, 1), -1.0)}
        >>> picture(np.zeros((2, 32, 32, 3), "uint8"), detections, none, ["cat"]).shape
        (256, 520, 3)
    """
    drawn = []
    for index in range(min(len(images), _SHOWN)):
        predicted = {key: detections[key][index] for key in ("boxes", "classes", "confidence")}
        true = {key: targets[key][index] for key in ("boxes", "classes")}
        drawn.append(
            pictures.draw(images[index], class_names, predicted, true, LEAST, shortest=240)
        )
    return pictures.grid(drawn, columns=min(len(drawn), 4))


@prepare.register
def _(experiment: Detection, source=None):
    devices = strategies.of(experiment)
    dataset = datasets.load(
        experiment.dataset,
        experiment.data_dir,
        experiment.download,
        experiment.image_size,
        experiment.max_boxes,
        experiment.max_corrupt,
    )
    train, validation = _splits(experiment, dataset)
    schedule = preparation.schedule(experiment, preparation.steps(experiment, devices, train))
    digest = hashlib.blake2b(digest_size=16)
    for split in filter(None, (dataset.train, dataset.validation, dataset.test)):
        digest.update(split.fingerprint.encode())
    facts = Facts(
        dataset.image_shape, dataset.class_names, dataset.category_ids, digest.hexdigest()
    )
    model = build(experiment, facts, devices.strategy, schedule, source)
    return PreparedDetection(
        experiment, devices, model, dataset, train, validation, schedule, facts
    )


def _splits(experiment, dataset):
    """Return the splits to train on and to validate on, or None."""
    if dataset.validation is None:
        return preparation.hold_out(experiment, dataset.train)
    if experiment.validation_fraction != default(experiment, "validation_fraction"):
        raise ValueError(
            f"--validation_fraction is for data without a validation split, and "
            f"--dataset={experiment.dataset} has one of {dataset.validation.size:,} images. "
            f"Received: {experiment.validation_fraction}."
        )
    with named("train_fraction", fraction="train_fraction"):
        train = dataset.train.share(experiment.train_fraction, experiment.seed)
    return train, dataset.validation


@build.register
def _(experiment: Detection, facts, strategy, learning_rate, source=None):
    from tfbio.detection.keras_cv_model import RetinaNet

    mean, std = experiment.standardization()

    def network():
        return retinanet(
            len(facts.class_names),
            experiment.backbone,
            tuple(facts.image_shape),
            experiment.head_layers,
            channels=experiment.channels,
            mean=mean,
            std=std,
            frozen_norm=experiment.frozen_norm,
            bounding_box_format=boxes.FORMAT,
            anchor_sizes=experiment.anchor_sizes(),
            score_threshold=experiment.score_threshold,
        )

    def compiled(model, optimizer):
        model.compile(experiment.box_loss, "focal", optimizer=optimizer)
        model.optimizer.build(model.trainable_variables)
        size = strategy.num_replicas_in_sync
        targets = {"boxes": -tf.ones((size, 1, 4)), "classes": -tf.ones((size, 1))}
        _keras.build_symbolically(model, (tf.zeros((size, *facts.image_shape)), targets))

    copy = preparation.WHOLE
    if source and not isinstance(source, RetinaNet):
        _check_standardization(source, mean, std)
        copy = (_copy_backbone, transfer.copy_backbone_feedback)
    return preparation.under_rule(
        experiment, strategy, network, compiled, learning_rate, source, copy
    )


def _copy_backbone(source, target):
    """Copy a classifier's weights to a detector's backbone, all but the last layer's."""
    own, last = {layer.name for layer in target.backbone.layers}, find_last_layers(source)
    more = [
        name
        for name in find_sites(source)
        if name not in last and name.rpartition("/")[2] not in own
    ]
    if more:
        raise ValueError(
            f"the classifier has layers that --backbone lacks: {', '.join(more[:10])}."
        )
    copy_backbone(source, target)


def _check_standardization(source, mean, std):
    """Refuse to give a backbone images of another scale than its weights have learned from."""
    own = [[0.0] * 3, [1.0] * 3] if mean is None else [mean, std]
    theirs = [[0.0] * 3, [1.0] * 3]
    for layer in _keras.flatten_layers(source):
        if isinstance(layer, keras.layers.Normalization):
            mean, variance = (np.ravel(each) for each in (layer.mean, layer.variance))
            theirs = [mean.tolist(), np.sqrt(variance).tolist()]
    if not (np.shape(own) == np.shape(theirs) and np.allclose(own, theirs, rtol=1e-3, atol=1e-6)):
        mean, std = (", ".join(f"{number:.6g}" for number in numbers) for numbers in theirs)
        raise ValueError(
            "--init_from: its weights have learned from images that are standardized otherwise. "
            f"Give --mean='{mean}' --std='{std}'."
        )
