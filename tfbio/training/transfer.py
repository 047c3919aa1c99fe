"""Transfer: a new network starts from another run's weights."""

from __future__ import annotations

import logging

import keras
import numpy as np

from tfbio import _keras, rules
from tfbio.layers.last_layers import find_last_layers
from tfbio.layers.sites import find_rules, find_sites
from tfbio.rules.direct_feedback import DirectFeedback


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


def find_standardization(model: keras.Model) -> tuple[list[float], list[float]] | None:
    """Return the mean and the standard deviation that a network takes its images to 0 and 1 by.

    Args:
        model: A classifier.

    Returns:
        (mean, std), a number for each channel, or None if it takes images as they are.

    Example:
        >>> import keras
        >>> from tfbio import models
        >>> model = keras.Sequential([keras.Input((2, 2, 1)), keras.layers.Flatten()])
        >>> find_standardization(models.standardize(model, [0.25], [0.5]))
        ([0.25], [0.5])
    """
    for layer in _keras.flatten_layers(model):
        if isinstance(layer, keras.layers.Normalization):
            mean, variance = (np.ravel(each) for each in (layer.mean, layer.variance))
            return mean.tolist(), np.sqrt(variance).tolist()
    return None


def copy_feedback(source: keras.Model, target: keras.Model, accept_new: bool = False) -> None:
    """Give kernels the feedback that another model has for them, where the rules are the same.

    Weights that learned under one B are not aligned with another. Where the source has feedback
    for a kernel and the target would replace it, by a B drawn anew or by that of the same rule
    under other options, this is an error.

    Nothing is lost, and the log says so, in a last layer for another number of classes, whose
    feedback starts anew as its kernel does; if the source's rule holds no B, as backprop; and if
    the target's B is a function of W, as under sign symmetry after feedback alignment.

    Args:
        source: A model under a rule.
        target: Another of its kind, under a rule too.
        accept_new: Whether feedback may be replaced; the log says so then.

    Raises:
        ValueError: If feedback would be replaced and `accept_new` is False. Nothing has been
            changed then.

    Example:
        >>> import keras, tfbio
        >>> one, other = (keras.Sequential([keras.Input((2,)), keras.layers.Dense(3, name="out")])
        ...               for _ in range(2))
        >>> copy_feedback(tfbio.convert(one, "fa"), tfbio.convert(other, "fa"))
        >>> bool((one.layers[0].feedback == other.layers[0].feedback).numpy().all())
        True
        >>> copy_feedback(one, tfbio.convert(other, "fa(scale='xiao')"))
        Traceback (most recent call last):
        ...
        ValueError: the run's feedback of 1 kernel, out (feedback_alignment(scale='xiao'), ...
    """
    pairs = zip(find_sites(target).items(), find_sites(source).values(), strict=True)
    _copy_feedback(pairs, accept_new)


def copy_backbone_feedback(
    source: keras.Model, target: keras.Model, accept_new: bool = False
) -> None:
    """Give a detector's backbone the feedback of a classification network of the same layers.

    Kernels are matched by their layers' names, as `tfbio.detection.copy_backbone` does; else as
    `copy_feedback`.

    Args:
        source: The classifier, under a rule.
        target: A model of `tfbio.detection.retinanet`, under a rule.
        accept_new: Whether feedback may be replaced; the log says so then.

    Raises:
        ValueError: If feedback would be replaced and `accept_new` is False. Nothing has been
            changed then.

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
    sites = find_sites(target.backbone).items()
    pairs = (((f"backbone/{name}", s), there[name.rpartition("/")[2]]) for name, s in sites)
    _copy_feedback(pairs, accept_new)


def _copy_feedback(pairs, accept_new):
    kept, lost, others = [], [], []
    for (name, site), there in pairs:
        rule, run_rule = site.rule, there.rule
        same_rule = rules.serialize(rule) == rules.serialize(run_rule)
        weights = list(zip(rule.weights, run_rule.weights, strict=True)) if same_rule else []
        same_kernel = site.kernel.shape == there.kernel.shape
        if same_rule and same_kernel and all(a.shape == b.shape for a, b in weights):
            kept += weights
        elif _is_lost(rule, run_rule, same_kernel):
            lost.append((name, rule, run_rule))
        else:
            others.append((name, rule, run_rule))
    if lost and not accept_new:
        raise ValueError(_refusal(lost))
    for variable, value in kept:
        variable.assign(value)
    if lost or others:
        logging.getLogger("tfbio").info(
            f"`init_from`: the run's feedback of {_list(lost + others)} is not taken over."
        )


def _is_lost(rule, run_rule, same_kernel):
    """Return whether a kernel's B is replaced although the run has one."""
    if isinstance(run_rule, DirectFeedback):
        # Its matrices, which the last layer owns, belong to all layers.
        return bool(run_rule.weights and rule.weights)
    if not same_kernel:
        return False  # the kernel itself starts anew
    return type(rule) is type(run_rule) or (_holds_matrix(rule) and _holds_matrix(run_rule))


def _holds_matrix(rule):
    """Return whether a rule's weights are more than numbers, such as its scale."""
    return any(len(variable.shape) > 1 for variable in rule.weights)


def _refusal(lost):
    wanted = {_show(run_rule) for _, _, run_rule in lost}
    if all(rules.serialize(rule) == rules.serialize(run_rule) for _, rule, run_rule in lost):
        keep = "It depends on the number of classes: to keep it, give data of as many."
    elif len(wanted) == 1:
        seed = " and the run's seed" if any(map(_other_seed, lost)) else ""
        keep = f"To keep it, give `rule={wanted.pop()}`{seed}."
    else:
        keep = "To keep it, give each of them the run's rule."
    return (
        f"the run's feedback of {_list(lost)} would be lost. {keep} "
        "To start with new feedback instead, set `accept_new_feedback`."
    )


def _list(entries):
    shown = [
        f"{entry[0]} ({_show(entry[1])}, there {_show(entry[2])}"
        + (", of another seed)" if _other_seed(entry) else ")")
        for entry in entries[:10]
    ]
    kernels = "1 kernel" if len(entries) == 1 else f"{len(entries)} kernels"
    return f"{kernels}, {'; '.join(shown)}{'; …' if len(entries) > 10 else ''},"


def _show(rule):
    # A layer's seed is derived from that of the option `rule`: it would say nothing.
    options = [f"{name}={v!r}" for name, v in rule.get_config().items() if name != "seed"]
    return f"{rule.alias}({', '.join(options)})"


def _other_seed(entry):
    seeds = [rule.get_config().get("seed") for rule in entry[1:]]
    return seeds[0] != seeds[1]


def _weights(model):
    """Return (layer's name and weight's, variable) of all that belongs to no rule, in order."""
    of_rules = {id(variable) for rule in find_rules(model) for variable in rule.variables}
    return [(v.path, v) for v in model.weights if id(v) not in of_rules]


def _shape(variable):
    return "×".join(map(str, variable.shape)) or "scalar"
