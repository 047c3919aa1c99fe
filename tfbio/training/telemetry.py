"""Telemetry: what a training measures of its feedback as it goes, by TensorBoard's tags."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tfbio import data, metrics
from tfbio.layers.sites import find_sites
from tfbio.training import sums

if TYPE_CHECKING:
    from tfbio.training.preparation import Prepared

EXAMPLES = 32
"""The most examples that gradient angles are measured on."""

OF_WEIGHTS = tuple(metrics.TAGS[name] for name in metrics.WeightMetrics._fields)
OF_GRADIENTS = tuple(metrics.TAGS[name] for name in metrics.GradientAngles._fields)


class Telemetry:
    """The measurements of a run's feedback, each in compiled functions.

    Gradient angles are those of the model's own `train_step`, so of what a step would learn, on one
    batch that stays the same: `EXAMPLES` of validation, or without validation, of training. It is a
    pure function of the seed, and measuring changes nothing, so that a run that was cut measures
    what one that was not does. Every replica measures the whole batch, without an exchange; the
    first one's numbers are recorded.

    Args:
        prepared: A `Prepared`.

    Attributes:
        columns: The names of all that may be measured.
        averaged: The layers of each mean, `tfbio.metrics.AveragedLayers`.

    Example:
        >>> from tfbio.training import Classification, prepare
        >>> telemetry = Telemetry(prepare(Classification(rule="fa")))
        >>> measured = telemetry.of_weights() | telemetry.of_gradients()
        >>> set(measured) == set(telemetry.columns)
        True
        >>> round(measured["gradient_angle/logits"])  # no B above it
        0
        >>> 60 < measured["mean_gradient_angle"]  # without it
        True
    """

    def __init__(self, prepared: Prepared):
        self._prepared = prepared
        self._every = prepared.experiment.telemetry_every
        self._weights = metrics.WeightMeter(prepared.model)
        self._gradients, self._batch = None, ()
        tags = OF_WEIGHTS + (OF_GRADIENTS if self._every else ())
        with_matrix = list(metrics.sites_with_matrix(prepared.model))
        of_tag = dict.fromkeys(tags, with_matrix)
        if self._every:
            of_tag[metrics.TAGS["global_"]] = list(find_sites(prepared.model))
        self.columns = [f"{tag}/{name}" for tag, names in of_tag.items() for name in names]
        self.averaged = metrics.find_averaged_layers(prepared.model)
        of_metric = {tag: self.averaged.of(metric) for metric, tag in metrics.TAGS.items()}
        self.columns += [
            metrics.PREFIX + tag for tag, names in of_tag.items() if {*names} & {*of_metric[tag]}
        ]

    def due(self, step: int) -> bool:
        """Return whether gradients are measured after so many steps."""
        return bool(self._every) and step % self._every == 0

    def of_weights(self) -> dict[str, float]:
        """Return ``weight_angle/<layer>`` in degrees, ``norm_ratio/…`` and ``sign_agreement/…``.

        And ``mean_weight_angle`` and so on, their means over layers.
        """
        with sums.in_order():
            return self._with_means(self._weights())

    def of_gradients(self) -> dict[str, float]:
        """Return ``gradient_angle/<layer>``, the global one, and ``local_gradient_angle/…``.

        And ``mean_gradient_angle`` and ``mean_local_gradient_angle``, their means over layers.

        Raises:
            ValueError: If an image of the batch is damaged.
        """
        if not self._every:
            return {}
        with data.clear_errors(), sums.in_order():
            if self._gradients is None:
                jit = self._prepared.experiment.jit
                self._gradients = metrics.GradientMeter(self._prepared.model, jit_compile=jit)
                self._batch = batch(self._prepared)
            return self._with_means(self._gradients(*self._batch))

    def _with_means(self, measured):
        return metrics.tagged(measured) | metrics.tagged_means(measured, self.averaged)


def batch(prepared: Prepared) -> tuple[Any, ...]:
    """Return the batch that gradient angles are measured on, (images, targets).

    Args:
        prepared: A `Prepared`.

    Example:
        >>> from tfbio.training import Classification, prepare
        >>> [len(part) for part in batch(prepare(Classification()))]
        [32, 32]
    """
    experiment, split = prepared.experiment, prepared.validation or prepared.train
    # In an order by chance: in stored order, the first images may be all of one class.
    batches = split.batches(min(experiment.batch_size, EXAMPLES), order=(experiment.seed, 0))
    images, *rest = next(iter(batches.take(1)))
    return data.to_float(images), *rest
