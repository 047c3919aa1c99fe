"""Detection: everything of object detection, from COCO's files to its average precision."""

from tfbio.detection.box_loss import SmoothL1
from tfbio.detection.datasets import DetectionSet
from tfbio.detection.examples import DetectionExamples
from tfbio.detection.options import Detection
from tfbio.detection.retinanet import copy_backbone, retinanet

__all__ = [
    "Detection",
    "DetectionExamples",
    "DetectionSet",
    "SmoothL1",
    "copy_backbone",
    "retinanet",
]


def __dir__():
    return __all__
