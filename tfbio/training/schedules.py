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

    Args:
        learning_rate: η.
        kind: "constant", "step" or "cosine".
        total_steps: T.
        warmup_steps: w.
        milestones: Steps, ascending.
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
        factor: float = 0.1,
        warmup_from: float = 0.0,
    ):
        self.learning_rate = learning_rate
        self.kind = kind
        self.total_steps = total_steps
        self.warmup_steps = warmup_steps
        self.milestones = tuple(milestones)
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
            length = max(1, self.total_steps - self.warmup_steps)
            share = tf.cast(step - self.warmup_steps, tf.float32) / length
            # (1 + cos x)/2 = cos²(x/2), which loses no digits near the end.
            rate *= tf.cos(math.pi / 2 * tf.clip_by_value(share, 0.0, 1.0)) ** 2
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
            "factor": self.factor,
            "warmup_from": self.warmup_from,
        }
