"""RetinaNet: keras_cv's detector of one stage, on the residual networks defined here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import keras

from tfbio import _keras
from tfbio._arguments import check_integer, check_number, suggest
from tfbio.detection import parts
from tfbio.models.resnet import stages

if TYPE_CHECKING:
    from tfbio.detection.keras_cv_model import RetinaNet

BACKBONES = {f"resnet{depth}": depth for depth in (10, 18, 34, 50, 101, 152)}
"""The depth of each backbone."""
ANCHORS = (32, 64, 128, 256, 512)
"""The paper's anchors, smallest first: the shortest side at each level of the pyramid."""
_LEVELS = parts.LEVELS


def retinanet(
    num_classes: int,
    backbone: str | keras.Model = "resnet18",
    input_shape: Sequence[int | None] = (None, None, 3),
    head_layers: int = 4,
    *,
    channels: int = 256,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    frozen_norm: bool = False,
    bounding_box_format: str = "xyxy",
    anchor_sizes: Sequence[float] = ANCHORS,
    box_variance: Sequence[float] = (1.0, 1.0, 1.0, 1.0),
    best_anchor: str = "never",
    candidates: int = 1000,
    score_threshold: float = 0.05,
    iou_threshold: float = 0.5,
    max_detections: int = 100,
) -> RetinaNet:
    """Return RetinaNet, a detector of one stage, for plain `compile`, `fit` and `predict`.

    The outputs of the backbone's last three stages become a pyramid of maps, 8 to 128 times
    smaller than the image; two heads, each shared by all five levels, give each of nine anchors
    per position its four coordinates and a logit per class. The layers' names begin with
    "backbone", "pyramid", "box_head" or "class_head"; `tfbio.convert` reaches every convolution,
    and such patterns as "pyramid*" are what its overrides want.

    Images are (batch, height, width, channels), sides multiples of 32, in 0..1. True boxes are
    {"boxes": (batch, N, 4), "classes": (batch, N)} padded with −1 to an N of 1 or more. Losses are
    divided by the number of positive anchors, by 1 if there is none: a batch without any object
    learns that all is background. `tfbio.detection.keras_cv_model.RetinaNet` says what else
    differs from keras_cv.

    As in the paper: heads of N(0, 0.01), whose last logits start at a probability of 0.01; box
    differences as they are, and their smooth L1 loss, summed over the coordinates; anchors that
    stick out of the image. keras_cv's own is ``head_layers=3,
    box_variance=(0.1, 0.1, 0.2, 0.2)`` and ``compile(box_loss="smoothl1")``.

    Args:
        num_classes: The number of classes, 1 or more.
        backbone: "resnet10", "resnet18", "resnet34", "resnet50", "resnet101" or "resnet152", with
            random weights, see `copy_backbone` for others; or a `keras.Model` from images to a
            dict of maps "P3", "P4" and "P5", 8, 16 and 32 times smaller.
        input_shape: (height, width, channels), sides None where any will come; for a backbone by
            name.
        head_layers: The convolutions of each head before its last one.
        channels: The width of pyramid and heads.
        mean: A number per channel, for ``(x − mean)/std`` before the backbone; or None.
        std: A number per channel, or None.
        frozen_norm: Whether the backbone's batch norm is left as it is: it normalizes with its
            moving statistics, and nothing of it learns.
        bounding_box_format: Of true boxes and detections, by keras_cv's name, such as "xyxy".
        anchor_sizes: The smallest anchor's side at each of the five levels, in pixels.
        box_variance: What the coordinates' differences are divided by.
        best_anchor: When the anchor that overlaps an object most is positive although its IoU is
            below 0.5: "never"; "from_0.4" on, as in Detectron; or "always", as in detectron2. See
            `tfbio.detection.matching.BoxMatcher`.
        candidates: The most pairs of a box and a class of each level of the pyramid, the most
            confident, that become detections.
        score_threshold: Detections with less confidence are left out. keras_cv's 0.5 would leave
            out most of what counts in average precision.
        iou_threshold: Of two boxes of a class that overlap more, the less confident is left out.
        max_detections: The most detections per image.

    Returns:
        An uncompiled `tfbio.detection.keras_cv_model.RetinaNet`.

    Raises:
        ValueError: If an argument is out of its range, or the backbone is unknown or has other
            outputs.
        TypeError: If the backbone is neither a name nor a `keras.Model`.

    Example:
        >>> import tfbio
        >>> model = retinanet(3, "resnet10", (64, 64, 3), head_layers=1, channels=8)
        >>> [model.output[name].shape for name in ("box", "classification")]
        [(None, 774, 4), (None, 774, 3)]
        >>> model = tfbio.convert(model, "sign_symmetry", overrides={"*_head*": "backprop"})
        >>> len(tfbio.layers.sites.find_sites(model))
        24

    References:
        Lin et al. 2017, "Focal loss for dense object detection", and its code, Detectron.
    """
    from tfbio.detection.keras_cv_model import RetinaNet

    for name, value, least in (
        ("num_classes", num_classes, 1),
        ("head_layers", head_layers, 0),
        ("channels", channels, 1),
        ("candidates", candidates, 1),
        ("max_detections", max_detections, 1),
    ):
        check_integer(name, value, least)
    for name, value in (("score_threshold", score_threshold), ("iou_threshold", iou_threshold)):
        check_number(name, value, low=0, high=1)
    network = _backbone(backbone, input_shape)
    _check_standardization(mean, std, network.input_shape[-1])
    if frozen_norm:
        for layer in _keras.flatten_layers(network):
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.trainable = False
    return RetinaNet(
        network,
        parts.make_pyramid([network.output[level].shape[-1] for level in _LEVELS], channels),
        parts.make_head("box_head", head_layers, channels, "boxes", 9 * 4),
        parts.make_head("class_head", head_layers, channels, "logits", 9 * num_classes, 0.01),
        num_classes,
        _decoder(bounding_box_format, score_threshold, iou_threshold, max_detections),
        bounding_box_format=bounding_box_format,
        anchor_sizes=anchor_sizes,
        box_variance=box_variance,
        best_anchor=best_anchor,
        candidates=candidates,
        mean=mean,
        std=std,
    )


def copy_backbone(source: keras.Model, target: keras.Model) -> None:
    """Give a detector's backbone the weights of a classification network of the same layers.

    Weights are matched by their layers' names. What belongs to a rule is left out; so is what the
    backbone has not, the classifier's last layer.

    Args:
        source: The network, such as `tfbio.models.resnet` makes, under a rule or not, alone or
            within another model.
        target: A model of `retinanet`, under a rule or not. Copy before `tfbio.convert`: "match"
            scales and initial signs are taken from the kernels as they are then.

    Raises:
        ValueError: If the network lacks a layer of the backbone's, or one has other weights.
            Nothing has been changed then.

    Example:
        >>> from tfbio.models import resnet
        >>> detector = retinanet(3, "resnet10", (64, 64, 3), head_layers=1, channels=8)
        >>> classifier = resnet(10, 100, (32, 32, 3))
        >>> copy_backbone(classifier, detector)
        >>> layers = [model.get_layer("stem_conv") for model in (classifier, detector.backbone)]
        >>> bool((layers[0].kernel == layers[1].kernel).numpy().all())
        True
    """
    given = {layer.name: layer for layer in _keras.flatten_layers(source)}
    pairs, odd = [], []
    for layer in target.backbone.layers:
        if isinstance(layer, keras.Model):
            odd.append(f"{layer.name} is a model of its own, whose layers are not looked at")
        # Not `weights`: those of a rule belong to the rule.
        own, there = (
            _keras.get_shallow_variables(each) if each else []
            for each in (layer, given.get(layer.name))
        )
        shapes, others = ([tuple(variable.shape) for variable in each] for each in (own, there))
        if shapes != others:
            odd.append(f"{layer.name} {shapes}, there {others or 'none'}")
        pairs += zip(own, there, strict=False)
    if odd:
        raise ValueError(
            f"Model {source.name!r} has other layers than the detector's backbone: "
            + "; ".join(odd[:10])
        )
    for variable, value in pairs:
        variable.assign(value)


@keras.saving.register_keras_serializable("tfbio", "RetinaNet")
class SavedRetinaNet(keras.Model):
    """What a saved detector's name stands for until a file asks for it; keras_cv is imported then.

    Example:
        >>> keras.saving.get_registered_name(SavedRetinaNet)
        'tfbio>RetinaNet'
    """

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Any:
        """Return the detector, of keras_cv's class, that a config describes."""
        from tfbio.detection.keras_cv_model import RetinaNet

        return RetinaNet.from_config(config, custom_objects)


def _backbone(backbone, input_shape) -> Any:
    """Return a model from images to a dict of the three maps, from its name or itself."""
    if isinstance(backbone, keras.Model):
        if not isinstance(backbone.output, dict) or set(backbone.output) != set(_LEVELS):
            raise ValueError(
                "`backbone` must return a dict of the maps P3, P4 and P5. Received: model "
                f"{backbone.name!r}, which returns {backbone.output}."
            )
        return backbone
    if not isinstance(backbone, str):
        raise TypeError(
            "`backbone` must be a name or a keras.Model. Received: "
            f"{backbone!r} of type {type(backbone).__name__}."
        )
    if backbone not in BACKBONES:
        hint = suggest(backbone, list(BACKBONES))
        raise ValueError(f"Unknown backbone {backbone!r}.{hint} Backbones: {', '.join(BACKBONES)}.")
    shape = tuple(input_shape)
    if len(shape) != 3 or not shape[2] or any(side is not None and side % 32 for side in shape[:2]):
        raise ValueError(
            "`input_shape` must be (height, width, channels), the sides multiples of 32 or None. "
            f"Received: {input_shape}."
        )
    images = keras.Input(shape, name="images")
    maps = dict(zip(_LEVELS, stages(images, BACKBONES[backbone])[1:], strict=True))
    return keras.Model(images, maps, name="backbone")


def _decoder(bounding_box_format, score_threshold, iou_threshold, max_detections):
    import keras_cv

    return keras_cv.layers.MultiClassNonMaxSuppression(
        bounding_box_format,
        from_logits=True,
        iou_threshold=iou_threshold,
        confidence_threshold=score_threshold,
        max_detections=max_detections,
        max_detections_per_class=max_detections,
        dtype="float32",
    )


def _check_standardization(mean, std, channels):
    if (mean is None) != (std is None):
        raise ValueError(f"`mean` and `std` go together. Received: mean={mean}, std={std}.")
    if mean is not None and not len(mean) == len(std) == channels:
        raise ValueError(
            f"`mean` and `std` must be {channels} numbers each, one per channel. "
            f"Received: mean={mean}, std={std}."
        )
