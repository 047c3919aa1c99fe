"""Detection: the options of an experiment on object detection with RetinaNet."""

import dataclasses
from typing import Any, ClassVar

from tfbio.detection import boxes, coco_metrics, datasets
from tfbio.detection.examples import canvas_sides
from tfbio.detection.parts import BEST_ANCHORS
from tfbio.detection.retinanet import ANCHORS, BACKBONES
from tfbio.training.experiment import Experiment
from tfbio.training.options import option

BOX_LOSSES = ("retinanet", "smoothl1")


@dataclasses.dataclass(frozen=True)
class Detection(Experiment):
    """The options of one training run of a detector, RetinaNet.

    Attributes:
        measures: What is measured on a split, COCO's average precision and recall.
        score: The one by which validation chooses the best step, the greater the better.
        label: What the score is called.
        elsewise: The options that a trained run may be measured with otherwise.

    Raises:
        ValueError: If an option is unknown, of the wrong type, out of its range, or does not go
            with another; the message names it.

    Example:
        >>> Detection(rule="fa", backbone="resnet50").score
        'ap'
    """

    task: ClassVar[str] = "detection"
    measures: ClassVar[tuple] = tuple(name.lower() for name in coco_metrics.NAMES)
    score: ClassVar[str] = "ap"
    label: ClassVar[str] = "AP"
    elsewise: ClassVar[tuple] = ("score_threshold",)

    # Data.
    dataset: str = option(
        "digits_detection",
        "The dataset: digits_detection, made here of scikit-learn's digits and photographs; or "
        "coco, COCO 2017 or any set of its form.",
        choices=datasets.names(),
    )
    image_size: str = option(
        "",
        "HEIGHT,WIDTH in pixels of the canvas that images are fitted into, multiples of 32; one "
        "number: a square; empty: 128 for digits_detection, 512 for coco.",
    )
    shorter_side: int = option(
        0,
        "Resize every image until its shorter side has so many pixels, whatever its orientation, "
        "and put it on a square canvas of `longest_side`; 0: fit it into `image_size`.",
        low=0,
        high=4096,
    )
    longest_side: int = option(
        0,
        "With `shorter_side`: the most pixels of the longer side, which bounds the scale of long "
        "images.",
        low=0,
        high=4096,
    )
    augmentation: str = option(
        "none", "What is done to training images.", choices=boxes.augmentations()
    )
    max_boxes: int = option(
        100, "The most objects of an image that are learned from, the largest.", low=1, high=10**4
    )
    validation_fraction: float = option(
        0.1,
        "The share of the training split that is held out for validation, where the data have no "
        "validation split of their own; with 0, no step is best.",
        low=0,
        below=1,
    )
    # Network.
    backbone: str = option("resnet18", "The backbone of RetinaNet.", choices=tuple(BACKBONES))
    frozen_norm: bool = option(
        False, "Leave the backbone's batch normalization as it is, with its moving statistics."
    )
    channels: int = option(256, "The width of the pyramid and of the heads.", low=1, high=10**4)
    head_layers: int = option(
        4, "The convolutions of each head before its last one.", low=0, high=100
    )
    anchor_scale: float = option(
        1.0,
        "The size of anchors as a multiple of the paper's, 32 to 512 pixels.",
        low=0.01,
        high=100,
    )
    best_anchor: str = option(
        "never",
        "When the anchor that overlaps an object most is positive although its IoU is below 0.5: "
        "never; from 0.4 on, as in Detectron; or always, as in detectron2.",
        choices=BEST_ANCHORS,
    )
    mean: str = option(
        "",
        "A number per channel, such as '0.485, 0.456, 0.406', for (x − mean)/std before the "
        "backbone; empty: none.",
    )
    std: str = option("", "A number per channel, which goes with `mean`.")
    init_from: str = option(
        "",
        "The folder of another run, whose weights to start from: a detector's, or a classifier's, "
        "which are the backbone's.",
    )
    # Optimization.
    box_loss: str = option(
        "retinanet",
        "The loss of boxes: the paper's, summed over the coordinates, or keras-cv's own mean.",
        choices=BOX_LOSSES,
    )
    # Evaluation.
    score_threshold: float = option(
        0.05, "Detections with less confidence are left out.", low=0, below=1
    )
    # Records.
    workdir: str = option("runs/detect", "The run's folder.", changes_results=False)

    def __post_init__(self):
        """Check every option."""
        super().__post_init__()
        size = self.image_sides()
        if size or self.shorter_side or self.longest_side:
            canvas_sides(size, self.shorter_side, self.longest_side)
        if bool(self.mean) != bool(self.std):
            raise ValueError(
                f"`mean` and `std` go together. Received: `mean={self.mean}` `std={self.std}`."
            )
        self.standardization()
        if self.frozen_norm and self.sync_batch_norm:
            raise ValueError(
                "`sync_batch_norm` has no effect with `frozen_norm`: all batch normalization is "
                "in the backbone."
            )
        if self.frozen_norm and not self.init_from:
            raise ValueError(
                "`frozen_norm` needs `init_from`: without another run's moving statistics, batch "
                "normalization would stay as it is initialized and normalize nothing."
            )

    def image_sides(self) -> Any:
        """Return the canvas's (height, width) in pixels as `image_size` gives it, or 0.

        Example:
            >>> [Detection(image_size=size).image_sides() for size in ("320,512", "96", "")]
            [(320, 512), (96, 96), 0]
        """
        if not self.image_size:
            return 0
        sides = self.image_size.split(",")
        try:
            pair = tuple(int(side) for side in (sides * 2 if len(sides) == 1 else sides))
        except ValueError:
            pair = ()
        if len(pair) != 2 or not all(32 <= side <= 4096 and side % 32 == 0 for side in pair):
            raise ValueError(
                "`image_size` must be HEIGHT,WIDTH in pixels or one number for a square, multiples "
                f"of 32 from 32 to 4096, such as '800,1344'. Received: {self.image_size!r}."
            )
        return pair

    def anchor_sizes(self) -> list[float]:
        """Return the anchors' smallest sides by level, in pixels.

        Example:
            >>> Detection(anchor_scale=0.5).anchor_sizes()
            [16.0, 32.0, 64.0, 128.0, 256.0]
        """
        return [self.anchor_scale * size for size in ANCHORS]

    def padding(self) -> tuple[int, ...]:
        """Return the color beside an image, which is 0 once the image is standardized.

        It is the mean rounded to a byte, within 0.5/(255·std) of 0; black without `mean`.

        Example:
            >>> Detection(mean="0.485, 0.456, 0.406", std="0.229, 0.224, 0.225").padding()
            (124, 116, 104)
        """
        mean, _ = self.standardization()
        return tuple(min(max(round(255 * value), 0), 255) for value in mean or (0.0,) * 3)

    def standardization(self) -> tuple[Any, Any]:
        """Return the means and standard deviations of the channels, or (None, None).

        Example:
            >>> Detection(mean="0.5, 0.5, 0.5", std="0.2, 0.2, 0.25").standardization()
            ([0.5, 0.5, 0.5], [0.2, 0.2, 0.25])
        """
        return _numbers("mean", self.mean, 0, 1), _numbers("std", self.std, 1e-6, 10)


def _numbers(name, text, low, high):
    if not text:
        return None
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        found = []
    if len(found) != 3 or not all(low <= number <= high for number in found):
        raise ValueError(
            f"`{name}` must be three numbers of {low:g} to {high:g}, for pixels of 0 to 1, "
            f"separated by commas, such as '0.485, 0.456, 0.406'. Received: {text!r}."
        )
    return found
