"""The network: a chain of layers, each of which learns to meet its target; see the package."""

import dataclasses
import math
from typing import Any

import keras
import tensorflow as tf

from tfbio import _keras
from tfbio.layers.convolution import AnyConvolution
from tfbio.layers.sites import find_sites
from tfbio.networks.network import Network
from tfbio.networks.target_propagation import adjoint
from tfbio.networks.target_propagation.stages import stages
from tfbio.networks.target_propagation.step import Step
from tfbio.rules import Description, TargetPropagation


@keras.saving.register_keras_serializable("tfbio")
class TargetNetwork(Network):
    """What a model becomes under target propagation: the same layers, and a training step.

    It is evaluated, and predicts, as before. A training step takes no gradient from one layer to
    another: each kernel's is that of its own local loss, the last one's that of the loss; V and c
    of an inverse have that of their inverse loss. In the step's logs are, for every layer,
    ``inverse_loss/<layer>``, ``local_loss/<layer>`` and ``target_distance/<layer>``, the mean of
    ``‖ĥ − h‖/‖h‖``, so in Keras's history and in the trainers' records.

    Raises:
        ValueError: When it trains, if the loss is a sum over the batch, of which an example's part
            cannot be told; if a rule with labels gets none; or if the schedule is "alternating" and
            the optimizer does not take turns.
    """

    wiring = ("_target_wiring",)

    @classmethod
    def check(cls, model: keras.Model, rule: TargetPropagation) -> None:
        """Refuse a model without stages, or whose number does not fit the rule's options.

        See `tfbio.networks.target_propagation.stages` and `.adjoint.check`.
        """
        found = stages(model, rule)
        if rule.learns is None:
            adjoint.check(rule, len(_inverted(found, rule)))

    def wire(self) -> None:
        """Find the stages, and make the weights of the inverses if they are not there."""
        rule = next(iter(find_sites(self).values())).rule
        found = stages(self, rule)
        inverted = _inverted(found, rule)
        for stage in inverted:
            auxiliary = rule.auxiliary if stage is found[-1] else 0
            own = stage.rule
            with _keras.open_name_scope(stage.layer), keras.name_scope(own.name):
                below = math.prod(stage.shape)
                # Of a frozen layer's rule Keras would not freeze what is made after it was.
                own.trainable = True
                own.make_inverse(stage.layer.kernel, _bias_shape(stage), below, auxiliary)
                own.trainable = stage.layer.trainable
            inverse = f"inverse to {'×'.join(map(str, stage.shape))}"
            inverse += f", with {auxiliary} auxiliary units" if auxiliary else ""
            own.place = Description(own.alias, inverse)
        trackers = {
            f"{measure}/{stage.name}": _Tracker(name=f"{measure}/{stage.name}")
            for measure in rule.measures
            for stage in (inverted if measure == "inverse_loss" else found[:-1])
        }
        # Past Keras's tracking: the layers are the model's already, and metrics are no weights.
        vars(self)["_target_wiring"] = _Wiring(found, trackers)

    @property
    def metrics(self) -> list[keras.Metric]:
        """Keras's metrics, and those of the layers."""
        wiring = vars(self).get("_target_wiring")
        return [*super().metrics, *(wiring.trackers.values() if wiring else ())]

    def train_step(self, data: Any) -> dict[str, Any]:
        """Take one step on a batch; see the class.

        Args:
            data: (inputs, targets) or (inputs, targets, weights of the examples).

        Returns:
            The logs, a dict.
        """
        x, y, weights = keras.utils.unpack_x_y_sample_weight(data)
        wiring = vars(self)["_target_wiring"]
        step = Step(self, wiring.stages, (x, y, weights))
        with step.weights_read_once():
            outputs, loss, gradients, measured, aligned = step.learned()
        for variable, value in zip(step.own_learning, aligned, strict=True):
            variable.assign(value)
        count = tf.shape(outputs)[0]
        _keras.get_loss_tracker(self).update_state(loss * step.replicas, sample_weight=count)
        for name, tracker in wiring.trackers.items():
            value, was_measured = measured[name]
            tracker.update_state(value, sample_weight=tf.cast(count, value.dtype) * was_measured)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_weights, strict=True))
        return self.compute_metrics(x, y, outputs, sample_weight=weights)

    def test_step(self, data: Any) -> dict[str, Any]:
        """Evaluate on a batch as Keras does; layers are measured as they learn, not here."""
        trackers = vars(self)["_target_wiring"].trackers
        return {k: v for k, v in super().test_step(data).items() if k not in trackers}


TargetPropagation.network = TargetNetwork


@dataclasses.dataclass(frozen=True)
class _Wiring:
    """The stages of a network, and its metrics by name."""

    stages: tuple
    trackers: dict


class _Tracker(keras.metrics.Mean):
    """A mean that is NaN where nothing was measured."""

    def result(self):
        total, count = tf.convert_to_tensor(self.total), tf.convert_to_tensor(self.count)
        return total / count


def _inverted(found, rule):
    """Return the stages with an inverse: all but the first, and under some rules but the last."""
    return found[1:] if rule.inverts_output else found[1:-1]


def _bias_shape(stage):
    """Return the shape of c: a number per channel under a convolution, else one per entry."""
    if isinstance(stage.layer, AnyConvolution):
        if stage.layer.data_format == "channels_first":
            return (stage.shape[0], *[1] * (len(stage.shape) - 1))
        return stage.shape[-1:]
    return stage.shape
