"""Schedules: the learning rate as a function of the step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable("tfbio")
class Schedule(keras.optimizers.schedules.LearningRateSchedule):
    """A linear warm-up, then constant, falling in steps, or a half cosine.

    With warm-up over w steps, ``η_t = η·(s + (1−s)·t/w)`` for t < w. After it, ``η_t = η``
    (constant), ``η·f^m`` with m the number of milestones at or before t (step), or
    ``η·(1 + cos(π(t−w)/(T−w)))/2`` (cosine), with steps t counted from 0 and T in all.

    The cosine may end elsewhere than at 0, and reach its end before the last step; it then rises
    again, as that of PyTorch's CosineAnnealingLR does. With E steps between two changes, t in it is
    ``E·⌊t/E⌋``::

        η_t = η_min + (η − η_min)·(1 + cos(π(t−w)/(T_max−w)))/2

    Args:
        learning_rate: η.
        kind: "constant", "step" or "cosine".
        total_steps: T.
        warmup_steps: w.
        milestones: Steps, ascending.
        cosine_steps: T_max, the step at which the cosine is least; 0 for T.
        final_learning_rate: η_min, the rate there.
        hold_steps: E, the steps between two changes of the cosine; warm-up rises at every step all
            the same.
        factor: f.
        warmup_from: s, the share of η at which warm-up begins; with 0 the first step has the rate
            0.

    Example:
        >>> schedule = Schedule(0.1, "step", 30, milestones=(10, 20), warmup_steps=2)
        >>> [round(float(schedule(step)), 6) for step in (0, 1, 2, 10, 20)]
        [0.0, 0.05, 0.1, 0.01, 0.001]

    References:
        Goyal et al. 2017, "Accurate, large minibatch SGD" (warm-up); Loshchilov and Hutter 2017,
        "SGDR" (cosine).
    """

    def __init__(
        self,
        learning_rate: Any,
        kind: str,
        total_steps: int,
        warmup_steps: int = 0,
        milestones: Sequence[int] = (),
        cosine_steps: int = 0,
        final_learning_rate: float = 0.0,
        hold_steps: int = 1,
        factor: float = 0.1,
        warmup_from: float = 0.0,
    ):
        self.learning_rate = learning_rate
        self.kind = kind
        self.total_steps = total_steps
        self.warmup_steps = warmup_steps
        self.milestones = tuple(milestones)
        self.cosine_steps = cosine_steps
        self.final_learning_rate = final_learning_rate
        self.hold_steps = hold_steps
        self.factor = factor
        self.warmup_from = warmup_from

    def __call__(self, step):
        """Return the learning rate of a step, a scalar float32 tensor."""
        step = tf.cast(step, tf.int64)
        rate = tf.constant(self.learning_rate, tf.float32)
        if self.kind == "step":
            # Each rate is computed once in Python, so that it is the decimal number it says.
            count = len(self.milestones) + 1
            rates = [self.learning_rate * self.factor**m for m in range(count)]
            passed = step >= tf.constant(self.milestones, tf.int64)
            index = tf.reduce_sum(tf.cast(passed, tf.int32))
            rate = tf.gather(tf.constant(rates, tf.float32), index)
        elif self.kind == "cosine":
            length = max(1, (self.cosine_steps or self.total_steps) - self.warmup_steps)
            held = tf.minimum(step, self.total_steps) // self.hold_steps * self.hold_steps
            share = tf.cast(tf.maximum(held - self.warmup_steps, 0), tf.float32) / length
            # (1 + cos x)/2 = cos²(x/2), which loses no digits near the end.
            fallen = tf.cos(math.pi / 2 * share) ** 2
            rate = self.final_learning_rate + (rate - self.final_learning_rate) * fallen
        if self.warmup_steps:
            share = tf.cast(step, tf.float32) / self.warmup_steps
            share = self.warmup_from + (1.0 - self.warmup_from) * share
            rate = tf.where(step < self.warmup_steps, self.learning_rate * share, rate)
        return rate

    def get_config(self) -> dict[str, Any]:
        """Return the arguments."""
        return {
            "learning_rate": self.learning_rate,
            "kind": self.kind,
            "total_steps": self.total_steps,
            "warmup_steps": self.warmup_steps,
            "milestones": list(self.milestones),
            "cosine_steps": self.cosine_steps,
            "final_learning_rate": self.final_learning_rate,
            "hold_steps": self.hold_steps,
            "factor": self.factor,
            "warmup_from": self.warmup_from,
        }
