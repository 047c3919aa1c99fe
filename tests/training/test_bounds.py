"""Options that bound what layers return and what kernels become, from an experiment on."""

import numpy as np
import pytest
import tensorflow as tf

from tfbio import layers, optimizers, training
from tfbio.training import preparation
from tfbio.training.classifier import Facts

FACTS = Facts((8, 8, 1), tuple("0123456789"))


def build(**options):
    experiment = training.Classification(model="akrout_mnist", **options)
    return preparation.build(experiment, FACTS, tf.distribute.get_strategy(), 0.1)


def test_an_experiment_bounds_gradients_and_norms():
    model = build(
        rule="feedback_alignment", last_layer_rule="bp", clip_layers=0.5, constrain_norm=True
    )
    sites = layers.find_sites(model)
    assert [site.layer.clip for site in sites.values()] == [0.5, None]
    for site in sites.values():
        assert isinstance(site.kernel.constraint, optimizers.KeepNorm)
        norm = float(np.linalg.norm(site.kernel.numpy().astype("float64")))
        assert site.kernel.constraint.norm == pytest.approx(norm, rel=1e-6)
    plain = layers.find_sites(build(rule="feedback_alignment")).values()
    assert [(site.layer.clip, site.kernel.constraint) for site in plain] == 2 * [(None, None)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rule": "bp", "clip_layers": 1.0}, "^`clip_layers` has no effect where every layer"),
        ({"rule": "drtp", "clip_layers": 1.0}, "^`clip_layers` has no effect under rule 'direct_"),
        ({"rule": "kp", "constrain_norm": True}, "^`constrain_norm` does not go with rule 'kolen"),
        (
            {"clip_layers": 1.0, "precision": "mixed_float16"},
            "^`clip_layers` does not go with `precision='mixed_float16'`",
        ),
    ],
)
def test_a_bound_that_cannot_hold_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)
