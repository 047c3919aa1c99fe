"""Metrics of weights: how far each kernel's B is from its W, in angle, norm and sign."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import tensorflow as tf

from tfbio.layers.sites import find_sites
from tfbio.metrics.definitions import agreement, angle, angle_of_tensors, norm_of, norm_ratio

if TYPE_CHECKING:
    import keras

    from tfbio.layers.mixin import Site


def weight_angles(model: keras.Model) -> dict[str, float]:
    """Return the angle between W and the effective B of every kernel, in degrees.

    Args:
        model: A built model with feedback layers.

    Returns:
        A dict from layer name, as `tfbio.summary` prints it, to degrees: 0 under backprop, about
        90 for a random B before training. Layers under direct feedback, which has no B of W's
        shape, are left out; so are entries that never act, of a locally connected kernel at the
        zeros of "same".

    Raises:
        ValueError: If the model has no feedback layer.

    Example:
        >>> import keras, tfbio
        >>> layer = tfbio.layers.FeedbackDense(2, rule="backprop", name="out")
        >>> weight_angles(keras.Sequential([keras.Input((2,)), layer]))
        {'out': 0.0}

    References:
        Lillicrap et al. 2016; Akrout et al. 2019, "Deep learning without weight transport".
    """
    return _per_site(model, angle)


def norm_ratios(model: keras.Model) -> dict[str, float]:
    """Return ``‖B‖ / ‖W‖`` of every kernel; see `weight_angles` for arguments and errors.

    Example:
        >>> import keras, tfbio
        >>> layer = tfbio.layers.FeedbackDense(2, rule="backprop", name="out")
        >>> norm_ratios(keras.Sequential([keras.Input((2,)), layer]))
        {'out': 1.0}
    """
    return _per_site(model, norm_ratio)


def sign_agreement(model: keras.Model) -> dict[str, float]:
    """Return the share of equal signs of every kernel; see `weight_angles`.

    Example:
        >>> import keras, tfbio
        >>> layer = tfbio.layers.FeedbackDense(2, rule="sign_symmetry", name="out")
        >>> sign_agreement(keras.Sequential([keras.Input((2,)), layer]))
        {'out': 1.0}
    """
    return _per_site(model, agreement)


def _per_site(model, measure):
    return {
        name: measure(*(matrix.numpy() for matrix in site.compared()))
        for name, site in sites_with_matrix(model).items()
    }


def sites_with_matrix(model: keras.layers.Layer) -> dict[str, Site]:
    """Return the kernels of a model whose rule has a B of W's shape; see `find_sites`.

    Args:
        model: A Keras model or layer.

    Returns:
        A dict from name to `tfbio.layers.Site`: empty under direct feedback.

    Example:
        >>> import keras, tfbio
        >>> layer = tfbio.layers.FeedbackDense(2, rule="backprop", name="out")
        >>> list(sites_with_matrix(keras.Sequential([keras.Input((2,)), layer])))
        ['out']
    """
    return {n: site for n, site in find_sites(model).items() if site.rule.has_matrix}


class WeightMetrics(NamedTuple):
    """What there is to say of W and B of every kernel; each a dict from kernel to number.

    Attributes:
        weight_angles: ∠(W, B) in degrees.
        norm_ratios: ‖B‖ / ‖W‖.
        sign_agreement: The share of entries with ``sign(B) = sign(W)``.
    """

    weight_angles: dict
    norm_ratios: dict
    sign_agreement: dict


class WeightMeter:
    """All metrics of a model's weights in one compiled function, to be measured again and again.

    The values are those of `weight_angles`, `norm_ratios` and `sign_agreement`, the last digits
    aside; kernels are not copied to the host. What is measured are the kernels and rules that the
    model has when this is made.

    Args:
        model: A built model with feedback layers. One that lives under a `tf.distribute` strategy
            is measured there, and the first replica's values are returned.

    Raises:
        ValueError: If the model has no feedback layer.

    Example:
        >>> import keras, tfbio
        >>> layer = tfbio.layers.FeedbackDense(2, rule="backprop", name="out")
        >>> WeightMeter(keras.Sequential([keras.Input((2,)), layer]))().norm_ratios
        {'out': 1.0}
    """

    def __init__(self, model: keras.Model):
        self._sites = sites_with_matrix(model)
        strategy = strategy_of(model)

        @tf.function
        def measured():
            return of_first_replica(strategy, strategy.run(self._measure))

        self._measured = measured

    def __call__(self):
        """Measure, and return `WeightMetrics`."""
        if not self._sites:
            return WeightMetrics({}, {}, {})
        rows = self._measured().numpy().tolist()
        return WeightMetrics(*(dict(zip(self._sites, row, strict=True)) for row in rows))

    def _measure(self):
        columns = []
        for site in self._sites.values():
            w, b = site.compared()
            same = tf.cast(tf.equal(tf.sign(w), tf.sign(b)), tf.float64)
            norm = norm_of([w])
            ratio = norm_of([b]) / tf.where(norm > 0.0, norm, float("nan"))
            columns.append([angle_of_tensors([w], [b]), ratio, tf.reduce_mean(same)])
        return tf.transpose(tf.stack([tf.stack(column) for column in columns]))


def strategy_of(model: keras.layers.Layer) -> tf.distribute.Strategy:
    """Return the `tf.distribute` strategy that a model, or a layer, lives under.

    Example:
        >>> import keras
        >>> strategy_of(keras.Sequential()).num_replicas_in_sync
        1
    """
    return getattr(model, "distribute_strategy", tf.distribute.get_strategy())


def of_first_replica(strategy: tf.distribute.Strategy, values: Any) -> Any:
    """Return what this process's first replica returned from `strategy.run`.

    Args:
        strategy: The strategy.
        values: What `strategy.run` returned, of any structure.

    Example:
        >>> strategy = tf.distribute.get_strategy()
        >>> of_first_replica(strategy, strategy.run(lambda: {"a": 1.0}))
        {'a': 1.0}
    """
    return tf.nest.map_structure(lambda v: strategy.experimental_local_results(v)[0], values)
