"""Optimization: an experiment's options as a learning-rate schedule and an optimizer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tfbio import optimizers
from tfbio.training.options import default, named
from tfbio.training.schedules import Schedule

if TYPE_CHECKING:
    import keras

    from tfbio.training.experiment import Experiment


def make_schedule(experiment: Experiment, steps_per_epoch: int) -> Schedule:
    """Return the learning rate by step, a `Schedule`.

    Args:
        experiment: An `Experiment`.
        steps_per_epoch: The optimizer steps in an epoch.

    Raises:
        ValueError: If warm-up is shorter than a step, or does not end before the first milestone,
            or the cosine's end, and the last step.

    Example:
        >>> from tfbio.training import Classification
        >>> rate = make_schedule(Classification(learning_rate=0.1, schedule="cosine", epochs=2), 10)
        >>> round(float(rate(0)), 3), round(float(rate(10)), 3)
        (0.1, 0.05)
    """
    return Schedule(
        experiment.learning_rate,
        experiment.schedule,
        total_steps=experiment.epochs * steps_per_epoch,
        warmup_steps=_count_warmup_steps(experiment, steps_per_epoch),
        milestones=[epoch * steps_per_epoch for epoch in experiment.milestone_epochs()],
        cosine_steps=experiment.cosine_epochs * steps_per_epoch,
        final_learning_rate=experiment.final_learning_rate,
        hold_steps=steps_per_epoch if experiment.schedule_by == "epoch" else 1,
        factor=experiment.decay_factor,
        warmup_from=experiment.warmup_from,
    )


def _count_warmup_steps(e, steps_per_epoch):
    """Return the steps of warm-up, 0 for none."""
    option = "warmup_steps" if e.warmup_steps else "warmup_epochs"
    count = e.warmup_steps or round(e.warmup_epochs * steps_per_epoch)
    given = f"Received: `{option}={getattr(e, option)}`, with {steps_per_epoch} steps an epoch."
    if e.warmup_epochs and not count:
        raise ValueError(f"`warmup_epochs` must be 0, or a step or more. {given}")
    if count >= steps_per_epoch * min((*e.milestone_epochs(), e.cosine_epochs or e.epochs)):
        raise ValueError(
            f"`{option}` must end before the first milestone, or the cosine's end, and the last "
            f"step. {given}"
        )
    return count


def make_optimizer(
    experiment: Experiment, learning_rate: Any, model: keras.Model
) -> keras.optimizers.Optimizer:
    """Return the optimizer of an experiment, for one model.

    Args:
        experiment: An `Experiment`.
        learning_rate: A number or a `Schedule`.
        model: The converted model.

    Raises:
        ValueError: If the options do not go with each other or with the model's rule.

    Example:
        >>> import keras
        >>> from tfbio.training import Classification
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
        >>> make_optimizer(Classification(clip_norm=2.0), 0.1, model).global_clipnorm
        2.0
    """
    e = experiment
    hidden, last = ("hidden", "all"), ("last", "all")
    settings = {
        "batch_manhattan": e.batch_manhattan in hidden,
        "no_sign_change": e.no_sign_change in hidden,
    }
    of_last = {
        "batch_manhattan": e.batch_manhattan in last,
        "no_sign_change": e.no_sign_change in last,
    }
    scale = (e.last_layer_learning_rate or e.learning_rate) / e.learning_rate
    last_layer = None
    if of_last != settings or scale != 1.0:
        last_layer = optimizers.LastLayer.of(model, learning_rate_scale=scale, **of_last)
    exceptions = None
    if e.weight_decay_exclude or e.bias_learning_rate_scale != 1:
        exceptions = optimizers.Exceptions.of(
            model, e.weight_decay_exclude, e.bias_learning_rate_scale
        )
    feedback = _make_feedback(e, model, learning_rate)
    with named("optimizer"):
        optimizer = optimizers.get(
            e.optimizer,
            learning_rate,
            momentum=e.momentum if e.optimizer in optimizers.WITH_MOMENTUM else 0.0,
            weight_decay=e.weight_decay,
            last_layer=last_layer,
            clip_norm=e.clip_norm,
            feedback=feedback,
            exceptions=exceptions,
            **settings,
        )
    return optimizers.LossScale(optimizer) if e.precision == "mixed_float16" else optimizer


_FEEDBACK_OPTIONS = tuple(
    f"feedback_{name}" for name in ("learning_rate", "optimizer", "delay", "alternate")
)


def _make_feedback(e, model, learning_rate):
    """Return the settings of the weights that learn by a loss of their own, or None for none."""
    given = [name for name in _FEEDBACK_OPTIONS if getattr(e, name) != default(e, name)]
    rule = e.parsed_rule
    if not given and not rule.takes_turns:
        return None
    if given:
        _check_belongs(e, given[0], model)
    own = None
    if e.feedback_optimizer != "same":
        momentum = e.momentum if e.feedback_optimizer in optimizers.WITH_MOMENTUM else 0.0
        own = optimizers.get(e.feedback_optimizer, e.learning_rate, momentum=momentum)
    scale = (e.feedback_learning_rate or e.learning_rate) / e.learning_rate
    turn = _get_turn(e, learning_rate)
    return optimizers.Feedback(scale, e.feedback_delay, turn, own)


def _check_belongs(e, name, model):
    """Refuse an option on weights that learn by a loss of their own where there are none."""
    alone = [v for v in model.trainable_variables if getattr(v, "feedback_learns", "") == "alone"]
    if not alone and not e.parsed_rule.takes_turns:
        raise ValueError(
            f"`{name}` belongs to rules whose B learns by a loss of its own, such as "
            "symmetric_alignment, and to those of target propagation whose inverses do; l_drl's "
            "take steps of their own, at the rule's rate. "
            f"Received: `{name}={getattr(e, name)}` under `rule={e.rule}`."
        )


def _get_turn(e, learning_rate):
    """Return the steps of a turn: an epoch's where the rule takes turns, else (1, n) or 0."""
    if not e.parsed_rule.takes_turns:
        if e.feedback_alternate and not e.parsed_rule.has_gradient:
            raise ValueError(
                f"`feedback_alternate` does not go with `rule={e.rule}`, under which inverses and "
                f"kernels learn at every step. Leave it out. Received: {e.feedback_alternate}."
            )
        return (1, e.feedback_alternate) if e.feedback_alternate else 0
    if e.feedback_alternate:
        raise ValueError(
            "`feedback_alternate`, turns of a few steps, does not go with "
            f"`rule={e.rule}`, whose turns are epochs. Give the schedule alone."
        )
    if e.epochs < 2:
        raise ValueError(
            f"`rule={e.rule}` takes turns of an epoch, the inverses first, so that forward weights "
            f"learn in every second one. `epochs` must be 2 or more. Received: {e.epochs}."
        )
    # A model that is only evaluated has a schedule without epochs, and takes no turns.
    return max(1, getattr(learning_rate, "total_steps", 0) // e.epochs)
