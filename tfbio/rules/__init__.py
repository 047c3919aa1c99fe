"""Learning rules: how the feedback matrix B is made, and how it follows W."""

from tfbio.rules.registry import aliases, deserialize, get, names, register, serialize
from tfbio.rules.rule import Circuit, FeedbackRule
from tfbio.rules.scales import Fans, ScaledRule

# isort: split
# The order is the order of the tables: the control first.
from tfbio.rules.backprop import Backprop
from tfbio.rules.feedback_alignment import FeedbackAlignment, FeedbackAlignmentSignedInit
from tfbio.rules.sign_symmetry import (
    BatchwiseRandomSignFeedback,
    FixedRandomSignFeedback,
    SignSymmetry,
)

# isort: split
from tfbio.rules.kolen_pollack import KolenPollack
from tfbio.rules.local_alignment import (
    ActivationAlignment,
    InformationAlignment,
    LocalAlignment,
    MirrorAlignment,
    SymmetricAlignment,
)
from tfbio.rules.weight_mirror import WeightMirror

# isort: split
from tfbio.rules.direct_feedback import (
    DirectFeedback,
    DirectFeedbackAlignment,
    DirectRandomTargetProjection,
    SignDirectFeedback,
)

# isort: split
from tfbio.rules.target_propagation import (
    AuxiliaryOutputSDTP,
    DifferenceTargetPropagation,
    LocalDifferenceReconstruction,
    SimplifiedDifferenceTargetPropagation,
    TargetPropagation,
    VanillaTargetPropagation,
)

__all__ = [
    "ActivationAlignment",
    "AuxiliaryOutputSDTP",
    "Backprop",
    "BatchwiseRandomSignFeedback",
    "Circuit",
    "DifferenceTargetPropagation",
    "DirectFeedback",
    "DirectFeedbackAlignment",
    "DirectRandomTargetProjection",
    "Fans",
    "FeedbackAlignment",
    "FeedbackAlignmentSignedInit",
    "FeedbackRule",
    "FixedRandomSignFeedback",
    "InformationAlignment",
    "KolenPollack",
    "LocalAlignment",
    "LocalDifferenceReconstruction",
    "MirrorAlignment",
    "ScaledRule",
    "SignDirectFeedback",
    "SignSymmetry",
    "SimplifiedDifferenceTargetPropagation",
    "SymmetricAlignment",
    "TargetPropagation",
    "VanillaTargetPropagation",
    "WeightMirror",
    "aliases",
    "deserialize",
    "get",
    "names",
    "register",
    "serialize",
]


def __dir__():
    return __all__
