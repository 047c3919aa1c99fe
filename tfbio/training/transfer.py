"""Transfer: a new network starts from another run's weights."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from tfbio import rules
from tfbio.layers.last_layers import find_last_layers
from tfbio.layers.sites import find_rules, find_sites

if TYPE_CHECKING:
    import keras


def copy_weights(source: keras.Model, target: keras.Model) -> None:
    """Give a network the weights of another of its kind, which is under a rule.

    Weights are matched by their order. Those of a last layer for another number of classes stay
    as they are; feedback is left out: it belongs to a rule.

    Args:
        source: The model under a rule.
        target: The model that is under none yet.

    Raises:
        ValueError: If they are networks of different kinds; the message names what differs.

    Example:
        >>> import keras, tfbio
        >>> one, other = (keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
        ...               for _ in range(2))
        >>> copy_weights(tfbio.convert(one, "fa"), other)
        >>> bool((one.get_weights()[0] == other.get_weights()[0]).all())
        True
    """
    given, own = _weights(source), _weights(target)
    last = {id(v) for layer in find_last_layers(target).values() for v in layer.weights}
    odd = [
        f"{name} {_shape(variable)}, there {_shape(there)}"
        for (name, variable), (_, there) in zip(own, given, strict=False)
        if variable.shape != there.shape and id(variable) not in last
    ]
    if odd or len(given) != len(own):
        raise ValueError(
            f"the run's network is another than `model`: it has {len(given)} weights, this one "
            f"{len(own)}; " + "; ".join(odd[:10])
        )
    left = []
    for (name, variable), (_, there) in zip(own, given, strict=True):
        if variable.shape == there.shape:
            variable.assign(there)
        else:
            left.append(f"{name} {_shape(variable)}, there {_shape(there)}")
    if left:
        logging.getLogger("tfbio").info(
            f"`init_from`: the last layer starts anew, for other classes: {'; '.join(left)}."
        )


def copy_feedback(source: keras.Model, target: keras.Model) -> None:
    """Give kernels the feedback that another model has for them, where the rules are the same.

    Where a rule or a shape is another, the feedback stays new, and the log says so.

    Args:
        source: A model under a rule.
        target: Another of its kind, under a rule too.

    Example:
        >>> import keras, tfbio
        >>> one, other = (keras.Sequential([keras.Input((2,)), keras.layers.Dense(3, name="out")])
        ...               for _ in range(2))
        >>> copy_feedback(tfbio.convert(one, "fa"), tfbio.convert(other, "fa"))
        >>> bool((one.layers[0].feedback == other.layers[0].feedback).numpy().all())
        True
    """
    _copy_feedback(zip(find_sites(target).items(), find_sites(source).values(), strict=True))


def copy_backbone_feedback(source: keras.Model, target: keras.Model) -> None:
    """Give a detector's backbone the feedback of a classification network of the same layers.

    Kernels are matched by their layers' names, as `tfbio.detection.copy_backbone` does; else as
    `copy_feedback`.

    Args:
        source: The classifier, under a rule.
        target: A model of `tfbio.detection.retinanet`, under a rule.

    Example:
        >>> import tfbio
        >>> from tfbio import detection, models
        >>> detector = detection.retinanet(3, "resnet10", (64, 64, 3), head_layers=1, channels=8)
        >>> detector = tfbio.convert(detector, "fa")
        >>> classifier = tfbio.convert(models.resnet(10, 100, (32, 32, 3)), "fa")
        >>> copy_backbone_feedback(classifier, detector)
        >>> layers = [m.get_layer("stem_conv") for m in (classifier, detector.backbone)]
        >>> bool((layers[0].feedback == layers[1].feedback).numpy().all())
        True
    """
    there = {name.rpartition("/")[2]: site for name, site in find_sites(source).items()}
    own = find_sites(target.backbone)
    _copy_feedback(((name, site), there[name.rpartition("/")[2]]) for name, site in own.items())


def _copy_feedback(pairs):
    anew = []
    for (name, site), there in pairs:
        same = rules.serialize(site.rule) == rules.serialize(there.rule)
        if not same or site.kernel.shape != there.kernel.shape:
            anew.append(f"{name} ({site.rule!r}, there {there.rule!r})")
            continue
        for variable, given in zip(site.rule.weights, there.rule.weights, strict=True):
            variable.assign(given)
    if anew:
        logging.getLogger("tfbio").info(
            f"`init_from`: the feedback of {len(anew)} kernels is made anew: {'; '.join(anew)}."
        )


def _weights(model):
    """Return (layer's name and weight's, variable) of all that belongs to no rule, in order."""
    of_rules = {id(variable) for rule in find_rules(model) for variable in rule.variables}
    return [(v.path, v) for v in model.weights if id(v) not in of_rules]


def _shape(variable):
    return "×".join(map(str, variable.shape)) or "scalar"
