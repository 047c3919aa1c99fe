"""Kernels that keep the norm they start with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras
import tensorflow as tf

from tfbio._arguments import check_number
from tfbio.layers.sites import find_sites

if TYPE_CHECKING:
    from collections.abc import Mapping


@keras.saving.register_keras_serializable("tfbio")
class KeepNorm(keras.constraints.Constraint):
    """A constraint: after every step a weight is scaled to a given norm, ``W ← W·norm/‖W‖``.

    Args:
        norm: The norm ``√(ΣW²)``, more than 0.

    Raises:
        ValueError: If it is not.

    Example:
        >>> KeepNorm(10.0)(tf.constant([3.0, -4.0])).numpy()
        array([ 6., -8.], dtype=float32)

    References:
        Moskovitz, Litwin-Kumar and Abbott 2018, "Feedback alignment in deep convolutional
        networks", as `constrain_weights` of BioTorch cites it.
    """

    def __init__(self, norm: float):
        self.norm = check_number("norm", norm, above=0)

    def __call__(self, value: tf.Tensor) -> tf.Tensor:
        """Return `value`, scaled; one that is all zero stays as it is."""
        value = tf.convert_to_tensor(value)
        return value * tf.math.divide_no_nan(tf.constant(self.norm, value.dtype), tf.norm(value))

    def get_config(self) -> Mapping[str, Any]:
        """Return the norm."""
        return {"norm": self.norm}


def keep_norms(model: keras.Model) -> keras.Model:
    """Have every kernel of a model under a rule keep the norm it has now, by `KeepNorm`.

    Forward weights that grow would outgrow a feedback that stays as it is. Biases and batch
    normalization are left free. A kernel's norm is that of all its entries together.

    Args:
        model: A model under a rule, before it is trained: `tfbio.convert` first.

    Returns:
        The same model. Its kernels' constraints are saved with it.

    Raises:
        ValueError: If a kernel has a constraint already, is all zero, or belongs to a rule whose B
            follows it by the optimizer's steps (`kolen_pollack`), which a constraint is none of; if
            the model has no feedback layer.

    Example:
        >>> import tfbio
        >>> layers = [keras.Input((4,)), keras.layers.Dense(3)]
        >>> model = keep_norms(tfbio.convert(keras.Sequential(layers), "feedback_alignment"))
        >>> norm = float(tf.norm(model.layers[0].kernel))
        >>> model.compile(tfbio.optimizers.get("sgd", 1.0), "mse")
        >>> _ = model.train_on_batch(tf.ones((2, 4)), tf.ones((2, 3)))
        >>> abs(float(tf.norm(model.layers[0].kernel)) / norm - 1) < 1e-6
        True

    References:
        See `KeepNorm`. BioTorch scales W in the forward pass to a new parameter, which its
        optimizer does not know: there W never learns.
    """
    sites = find_sites(model)
    norms = {name: float(tf.norm(tf.cast(each.kernel, "float64"))) for name, each in sites.items()}
    for name, site in sites.items():
        if site.rule.learns == "with_kernel":
            raise ValueError(
                f"`keep_norms` does not go with rule {site.rule.alias!r} of layer {name!r}, whose "
                "B follows W by taking the same steps: a constraint would reach W alone."
            )
        if site.kernel.constraint is not None:
            raise ValueError(
                f"`keep_norms`: the kernel of layer {name!r} has a constraint already. "
                f"Received: {site.kernel.constraint!r}."
            )
        if not norms[name]:
            raise ValueError(
                f"`keep_norms`: the kernel of layer {name!r} is all zero, and could never learn."
            )
    for name, site in sites.items():
        constraint = KeepNorm(norms[name])
        site.kernel.constraint = constraint
        attribute = f"{site.kernel_name}_constraint"
        if hasattr(site.layer, attribute):
            setattr(site.layer, attribute, constraint)
    return model
