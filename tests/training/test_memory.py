"""Memory between runs: a converted model goes once its run is over."""

import gc
import weakref

import keras
import numpy as np
import pytest

import tfbio
from tfbio import _keras
from tfbio.training import memory


def trained(rule):
    """Return a weak reference to the kernel of a model that was trained, and is gone."""
    model = keras.Sequential([keras.Input((4,)), *(keras.layers.Dense(3) for _ in range(3))])
    model = tfbio.convert(model, rule)
    model.compile("sgd", "mse", jit_compile=False)
    model.fit(np.ones((2, 4)), np.ones((2, 3)), verbose=0)
    return weakref.ref(model.weights[0].value)


@pytest.mark.parametrize("rule", ["feedback_alignment", "direct_feedback_alignment", "dtp"])
def test_a_models_variables_are_freed(rule):
    with memory.freed():
        kernel = trained(rule)
    gc.collect()
    assert kernel() is None


def test_tensorflow_keeps_them_otherwise():
    # Were this to fail, TensorFlow would free them by itself, and `memory` could go.
    kernel = trained("feedback_alignment")
    keras.backend.clear_session()
    gc.collect()
    assert kernel() is not None


def test_what_was_registered_before_is_kept():
    trained("feedback_alignment")
    before = _keras.get_registered_gradients()
    with memory.freed():
        trained("feedback_alignment")
    assert _keras.get_registered_gradients() == before
