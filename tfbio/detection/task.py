"""The detector: how a detection is prepared, trained, measured and used."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tfbio.detection import boxes, coco_metrics, coco_results, datasets, pictures
from tfbio.detection.detect import detection
from tfbio.detection.options import Detection
from tfbio.detection.retinanet import copy_backbone, retinanet
from tfbio.layers.last_layers import find_last_layers
from tfbio.layers.sites import find_sites
from tfbio.training import preparation, transfer
from tfbio.training.board import FEEDBACK
from tfbio.training.options import default, named
from tfbio.training.tasks import Task, format_loss

if TYPE_CHECKING:
    import pathlib

    from tfbio.detection.datasets import DetectionSet
    from tfbio.detection.examples import DetectionExamples

_SHOWN = 8  # images of a picture


class Facts(NamedTuple):
    """What a detector must know of its data.

    Attributes:
        image_shape: (height, width, channels) that images are fitted into.
        class_names: The classes' names in the order of their numbers.
        category_ids: The categories' ids in the annotations, in that order.
        fingerprint: A digest of all splits' annotations and some of their images: other data
            have another.
    """

    image_shape: tuple
    class_names: tuple
    category_ids: tuple
    fingerprint: str = ""


class DetectionTask(Task):
    """Detection of objects by RetinaNet; its dataset is a `tfbio.detection.DetectionSet`."""

    experiment: ClassVar[type] = Detection
    facts: ClassVar[type] = Facts
    predictions: ClassVar[str] = "predictions"
    trainer: ClassVar[str] = "detect"
    example: ClassVar[str] = "digits_detection"
    charts: ClassVar[dict] = {
        "Learning": {
            "Average precision on validation images": ("^validation_ap(50|75)?$",),
            "Loss: all, of boxes, of classes": ("^loss$", "^box_loss$", "^classification_loss$"),
            "Learning rate": ("^learning_rate$",),
            "Images per second": ("^images_per_second$",),
        },
        "Feedback": {
            f"{what}, {part}": (f"^{tag}/{names}",)
            for what, tag in FEEDBACK.items()
            for part, names in (("backbone", "backbone/"), ("pyramid", "pyramid/"),
                                ("heads", "(box|class)_head/"))
        },
    }  # fmt: skip

    def load(self, experiment: Detection) -> DetectionSet:
        """Return the dataset; see the base class."""
        return datasets.load(
            experiment.dataset,
            experiment.data_dir,
            experiment.download,
            experiment.image_sides(),
            experiment.max_boxes,
            experiment.max_corrupt,
            shorter_side=experiment.shorter_side,
            longest_side=experiment.longest_side,
            padding=experiment.padding(),
        )

    def split(self, experiment: Detection, dataset: DetectionSet) -> tuple[Any, Any]:
        """Return the data's own validation split, or a part held out; see the base class."""
        if dataset.validation is None:
            return preparation.hold_out(experiment, dataset.train)
        if experiment.validation_fraction != default(experiment, "validation_fraction"):
            raise ValueError(
                "`validation_fraction` is for data without a validation split, and "
                f"`dataset={experiment.dataset}` has one of {dataset.validation.size:,} images. "
                f"Received: {experiment.validation_fraction}."
            )
        with named("train_fraction", fraction="train_fraction"):
            train = dataset.train.share(experiment.train_fraction, experiment.seed)
        return train, dataset.validation

    def describe_data(
        self, experiment: Detection, dataset: DetectionSet, train: DetectionExamples
    ) -> Facts:
        """Return `Facts`; see the base class."""
        digest = hashlib.blake2b(digest_size=16)
        for split in filter(None, (dataset.train, dataset.validation, dataset.test)):
            digest.update(split.fingerprint.encode())
        shape, names = dataset.image_shape, dataset.class_names
        return Facts(shape, names, dataset.category_ids, digest.hexdigest())

    def training_batches(self, experiment: Detection) -> dict:
        """Return how images are augmented; see the base class."""
        return {"augmentation": experiment.augmentation}

    def build_network(self, experiment: Detection, facts: Facts) -> keras.Model:
        """Return the RetinaNet; see the base class."""
        mean, std = experiment.standardization()
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
            best_anchor=experiment.best_anchor,
            score_threshold=experiment.score_threshold,
        )

    def compile(
        self, experiment: Detection, model: keras.Model, optimizer: keras.optimizers.Optimizer
    ) -> None:
        """Compile with the losses of boxes and of classes."""
        model.compile(experiment.box_loss, "focal", optimizer=optimizer)

    def example_batch(self, facts: Facts, size: int) -> tuple[Any, Any]:
        """Return images, all zero, without boxes."""
        targets = {"boxes": -tf.ones((size, 1, 4)), "classes": -tf.ones((size, 1))}
        return tf.zeros((size, *facts.image_shape)), targets

    def copy_weights(self, experiment: Detection, source: Any, model: keras.Model) -> None:
        """Copy a detector's weights, or a classifier's to the backbone."""
        if _is_detector(source):
            transfer.copy_weights(source, model)
        else:
            _check_standardization(source, *experiment.standardization())
            _copy_backbone(source, model)

    def copy_feedback(self, experiment: Detection, source: Any, model: keras.Model) -> None:
        """Copy a detector's feedback, or a classifier's to the backbone."""
        copy = transfer.copy_feedback if _is_detector(source) else transfer.copy_backbone_feedback
        copy(source, model, experiment.accept_new_feedback)

    def make_evaluator(self, prepared: Any) -> Callable[..., Any]:
        """Return a function that gives COCO's metrics, and AP by class; see the base class.

        It shows "boxes": the first images with what is predicted and what is true.
        """
        detect = detection(prepared.model, prepared.strategy)

        def measure(split, batches, show=None):
            found = []
            for images, targets, about in batches:
                detections = _local(prepared, detect(images))
                strongest = detections.pop("strongest")
                found.append({**detections, **_local(prepared, about)})
                if show:
                    shown = _local(prepared, images), detections, _local(prepared, targets)
                    show("boxes", picture(*shown, split.class_names, strongest))
                    show = None
            every = {
                name: _gather(prepared, np.concatenate([each[name] for each in found]))
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

    def chance_loss(self, experiment: Detection, facts: Any) -> float:
        """Return the loss, about, of the heads as they are drawn, an object in the mean.

        The focal loss of a probability of 0.01 with its factor α = 1/4, and a smooth L1 loss of
        four coordinates, each off by one of its units.
        """
        return 0.25 * 0.99**2 * math.log(100) + 4 * 0.5

    def report(self, values: Mapping[str, float]) -> str:
        """Return the losses, and the average precision of validation if there is one."""
        validated = values.get("validation_ap")
        return (
            f"loss {format_loss(values['loss'])} (boxes {format_loss(values['box_loss'])}, classes "
            f"{format_loss(values['classification_loss'])})"
            + ("" if validated is None else f", validation AP {validated:.2%}")
        )

    def predict(
        self,
        experiment: Detection,
        images: Any,
        output: pathlib.Path,
        checkpoint: str,
        tell: Callable[..., None],
    ) -> Any:
        """Write a folder of drawings and COCO's results; see the base class."""
        from tfbio.detection import predictions

        return predictions.predict(experiment, images, output, checkpoint, tell)

    def export(self, model: keras.Model, facts: Facts, path: str | os.PathLike[str]) -> None:
        """Write the model from images of 0 to 1 to what `decode_predictions` returns."""
        from keras.export import ExportArchive

        archive = ExportArchive()
        archive.track(model)
        archive.add_endpoint(
            "serve",
            lambda images: model.decode_predictions(model(images, training=False), images),
            [tf.TensorSpec((None, *facts.image_shape), tf.float32, name="images")],
        )
        archive.write_out(path, verbose=False)


TASK = DetectionTask()
"""The task, for `tfbio.training.tasks`."""


def picture(
    images: np.ndarray,
    detections: Mapping[str, Any],
    targets: Mapping[str, Any],
    class_names: Sequence[str],
    strongest: Mapping[str, Any] | None = None,
) -> np.ndarray:
    """Return the first images of a batch side by side, with predicted and true boxes.

    Args:
        images: An array (B, height, width, 3), of 0 to 255.
        detections: What `RetinaNet.decode_predictions` returns for them.
        targets: The true boxes, as `tfbio.detection.DetectionExamples` gives them.
        class_names: The classes' names.
        strongest: What `tfbio.detection.detect.detection` adds to the detections: the boxes that
            are drawn where few others are, or None.

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
        weak = None
        if strongest is not None:
            here = {key: value[index] for key, value in strongest.items()}
            weak = pictures.choose_weak(predicted, here)
        boxes = predicted, true, pictures.LEAST
        drawn.append(pictures.draw(images[index], class_names, *boxes, shortest=240, weak=weak))
    return pictures.grid(drawn, columns=min(len(drawn), 4))


def _local(prepared, value) -> Any:
    """Return this worker's part of what a batch holds, in NumPy."""
    if isinstance(value, dict):
        return {name: _local(prepared, each) for name, each in value.items()}
    parts = prepared.strategy.experimental_local_results(value)
    return np.concatenate([np.asarray(part) for part in parts])


def _gather(prepared, array):
    """Return the rows of all workers."""
    # Integers are exchanged: they have the bits of any type, and every backend sends them.
    parts = prepared.devices.gather(np.ascontiguousarray(array).view(np.int32))
    return np.ascontiguousarray(parts).view(array.dtype).reshape(-1, *array.shape[1:])


def _is_detector(model):
    from tfbio.detection.keras_cv_model import RetinaNet  # imports keras_cv, which takes seconds

    return isinstance(model, RetinaNet)


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
            f"the classifier has layers that `backbone` lacks: {', '.join(more[:10])}."
        )
    copy_backbone(source, target)


def _check_standardization(source, mean, std):
    """Refuse to give a backbone images of another scale than its weights have learned from."""
    own = [[0.0] * 3, [1.0] * 3] if mean is None else [mean, std]
    theirs = transfer.find_standardization(source) or ([0.0] * 3, [1.0] * 3)
    if not (np.shape(own) == np.shape(theirs) and np.allclose(own, theirs, rtol=1e-3, atol=1e-6)):
        mean, std = (", ".join(f"{number:.6g}" for number in numbers) for numbers in theirs)
        raise ValueError(
            "its weights have learned from images that are standardized otherwise. "
            f"Give `mean='{mean}'` and `std='{std}'`."
        )
