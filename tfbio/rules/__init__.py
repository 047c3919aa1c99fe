"""Learning rules: how the feedback matrix B is made, and how it follows W."""

from tfbio.rules.registry import aliases, deserialize, get, names, register, serialize
from tfbio.rules.rule import FeedbackRule
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

# isort: split
from tfbio.rules.direct_feedback import (
    DirectFeedback,
    DirectFeedbackAlignment,
    DirectRandomTargetProjection,
    SignDirectFeedback,
)

__all__ = [
    "Backprop",
    "BatchwiseRandomSignFeedback",
    "DirectFeedback",
    "DirectFeedbackAlignment",
    "DirectRandomTargetProjection",
    "Fans",
    "FeedbackAlignment",
    "FeedbackAlignmentSignedInit",
    "FeedbackRule",
    "FixedRandomSignFeedback",
    "KolenPollack",
    "ScaledRule",
    "SignDirectFeedback",
    "SignSymmetry",
    "aliases",
    "deserialize",
    "get",
    "names",
    "register",
    "serialize",
]
