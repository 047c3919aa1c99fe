"""Means over layers: which layers each metric of feedback means something in, and its mean there.

A layer's B teaches the weights below it. That of a layer on the network's input teaches none,
whatever its angle to W: it is left out of the means of what compares B with W, and of the local
angle, of the error that this B makes. A kernel with no feedback between it and the output learns
its true gradient under every rule: its angle of 0 is left out of the mean of the global one.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tfbio.layers.connections import find_connections
from tfbio.layers.mixin import FeedbackMixin
from tfbio.layers.sites import find_sites
from tfbio.metrics.tags import TAGS

if TYPE_CHECKING:
    import keras

PREFIX = "mean_"
"""What the tag of a mean begins with, before that of the metric."""

OF_ERROR = "global_"
"""The one metric that is of the error that arrives at a kernel; the others are of the layer's B."""


class AveragedLayers(NamedTuple):
    """The kernels over which means are taken, each a dict from kernel to its number of entries.

    Attributes:
        feedback: Those whose B teaches trainable weights below them: for weight angles, norm
            ratios, the agreement of signs, and local gradient angles.
        gradients: Those whose error has passed feedback: for global gradient angles.
    """

    feedback: dict[str, int]
    gradients: dict[str, int]

    def of(self, metric: str) -> dict[str, int]:
        """Return the kernels of a metric's mean.

        Args:
            metric: An attribute of `WeightMetrics` or `GradientAngles`.

        Example:
            >>> AveragedLayers({"out": 8}, {"in": 6}).of("global_")
            {'in': 6}
        """
        return self.gradients if metric == OF_ERROR else self.feedback


def find_averaged_layers(model: keras.Model) -> AveragedLayers:
    """Return the kernels of a model over which the means of its metrics are taken.

    They follow from how the layers are connected, in any kind of model:

    - *feedback*: kernels below whose input a trainable weight of the network stands. In a chain,
      all but the first; below a layer that is frozen with all before it, that one is a first layer,
      too.
    - *gradients*: kernels above which another kernel passes the error down through feedback. In a
      chain, all but the last, in a network of several heads, all but the heads. Under direct
      feedback and target propagation, all kernels with another above; under `tp` and `dtp` not the
      highest of these, whose target follows the loss's gradient.

    Layers under backprop have no B of their own and pass the true error on: within a network of
    another rule they are not averaged, and a kernel with none but these above it is not, either. In
    a network wholly under backprop, the layers are those that another rule would have.

    Args:
        model: A built model with feedback layers.

    Returns:
        `AveragedLayers`, in the order of `find_sites`, either of them empty if there are none.

    Raises:
        ValueError: If the model has no feedback layer, or cannot be traced
            (`tfbio.layers.find_connections`).

    Example:
        >>> import keras, tfbio
        >>> layers = [keras.layers.Dense(2, name=name) for name in ("first", "hidden", "out")]
        >>> model = tfbio.convert(keras.Sequential([keras.Input((3,)), *layers]), "fa")
        >>> find_averaged_layers(model)
        AveragedLayers(feedback={'hidden': 4, 'out': 4}, gradients={'first': 6, 'hidden': 4})
    """
    sites = find_sites(model)
    connections = find_connections(model)
    trainable = {id(variable) for variable in model.trainable_variables}
    exact = max(site.rule.exact_layers for site in sites.values())
    own_feedback = any(not site.rule.symmetric for site in sites.values())

    def passes_feedback(layer):
        return not own_feedback or (isinstance(layer, FeedbackMixin) and not layer.symmetric)

    def has_own_matrix(site):
        return site.rule.has_matrix and not (own_feedback and site.rule.symmetric)

    def learns(variables):
        return any(id(v) in trainable and not is_of_rule(v) for v in variables)

    layers, below = connections.layers, connections.below
    # Layer by layer up and down, until nothing changes: shared layers make circles.
    reaching = _closure(connections.last, lambda name: below[name])
    learning = connections.learning_below | {
        name for name in layers for lower in below[name] if learns(layers[lower].variables)
    }
    teaching = _closure(learning, connections.above) & reaching
    first_taught = set[str]()
    for name in reaching:
        if passes_feedback(layers[name]):
            first_taught |= below[name]
    taught = _closure(first_taught, lambda name: below[name])
    if exact > 1:
        taught -= set[str]().union(*(below[name] for name in connections.last))
    feedback, gradients = {}, {}
    names = {id(layer): name for name, layer in layers.items()}
    for name, site in sites.items():
        layer = names[id(site.layer)]
        # A separable convolution has two kernels, one before the other.
        parts = site.layer.sites()
        index = parts.index(site)
        before, after = parts[:index], parts[index + 1 :]
        if layer not in reaching:
            continue
        teaches = layer in teaching or learns(part.kernel for part in before)
        if teaches and has_own_matrix(site):
            feedback[name] = _count_entries(site)
        is_taught = layer in taught or any(map(has_own_matrix, after))
        if is_taught and id(site.kernel) in trainable:
            gradients[name] = _count_entries(site)
    return AveragedLayers(feedback, gradients)


def _closure(names, neighbors):
    """Return the names, their neighbors, the neighbors' neighbors, and so on."""
    found, new = set(), set(names)
    while new:
        found |= new
        new = set().union(*(neighbors(name) for name in new)) - found
    return found


def is_of_rule(variable: Any) -> bool:
    """Return whether a trainable variable is a rule's, such as a B that learns.

    Example:
        >>> import keras
        >>> is_of_rule(keras.Variable(1.0))
        False
    """
    return getattr(variable, "feedback_learns", None) is not None


def _count_entries(site):
    acting = site.layer.acting(site.kernel_name)
    return int(math.prod(site.kernel.shape) if acting is None else np.count_nonzero(acting))


def mean_over(values: Mapping[str, float | None], layers: Iterable[str]) -> float:
    """Return the mean of a metric over layers.

    Args:
        values: A dict from layer to number; None, like NaN, where there is none, as of a kernel
            that is all zero.
        layers: The layers to average; those without a number are left out.

    Returns:
        The mean; NaN if no layer has a number.

    Example:
        >>> mean_over({"first": 90.0, "hidden": 60.0, "out": 30.0, "dead": None}, ["hidden", "out"])
        45.0
    """
    known = [value for value in map(values.get, layers) if value is not None]
    known = [value for value in known if not math.isnan(value)]
    return statistics.fmean(known) if known else math.nan


def tagged_means(measured: Any, layers: AveragedLayers) -> dict[str, float]:
    """Return the means of what was measured, by tag.

    Args:
        measured: `WeightMetrics` or `GradientAngles`.
        layers: The layers of each mean, from `find_averaged_layers`.

    Returns:
        A dict from ``mean_<tag>`` to number, without those metrics that no layer has.

    Example:
        >>> from tfbio.metrics import GradientAngles
        >>> angles = GradientAngles({"in": 10.0, "out": 20.0}, {"in": 30.0, "out": 0.0})
        >>> tagged_means(angles, AveragedLayers({"out": 8}, {"in": 6}))
        {'mean_local_gradient_angle': 20.0, 'mean_gradient_angle': 30.0}
    """
    return {
        PREFIX + TAGS[metric]: mean_over(values, layers.of(metric))
        for metric, values in measured._asdict().items()
        if layers.of(metric).keys() & values.keys()
    }


def random_spread(entries: Iterable[int]) -> float:
    """Return the standard deviation of the mean angle of unrelated matrices, in degrees.

    For u and v independent, v with independent entries of mean 0 and one variance (or of any
    direction in ℝⁿ, all equally likely), ``cos ∠(u, v) = ⟨u, v⟩/(‖u‖‖v‖)`` has mean 0 and
    variance 1/n. Near 90° the angle is ``π/2 − cos``, so that it scatters around 90° by::

        σ(∠) ≈ (180/π) / √n  ≈  57.3° / √n

    The mean of the angles of L such pairs, of n₁ … n_L entries, scatters by
    ``(180/π)·√(Σ 1/nₗ) / L``. About 95 of 100 lie within two such deviations of 90°.

    That is so of W and a B drawn apart from it. Gradients of a kernel, sums of few outer products,
    have fewer degrees of freedom than entries, and scatter more.

    Args:
        entries: The number of entries of each layer's kernel.

    Returns:
        Degrees; NaN without any layer.

    Example:
        >>> round(random_spread([100]), 2), round(random_spread([100] * 4), 2)
        (5.73, 2.86)
    """
    counts = list(entries)
    if not counts:
        return math.nan
    return math.degrees(math.sqrt(sum(1 / count for count in counts))) / len(counts)
