"""The state of a training: names that follow from the model, and mismatches told by them."""

import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.cases import long_but
from tfbio import training
from tfbio.training.state import restore, snapshot, state_variables
from tfbio.training.strategies import Devices

K = keras.layers
DEVICES = Devices(tf.distribute.get_strategy())


def compiled(model, optimizer=None):
    model.compile(optimizer or keras.optimizers.Adam(), "mse", metrics=["mae"])
    model.optimizer.build(model.trainable_variables)
    return model


def sequential():
    return keras.Sequential([keras.Input((4,)), K.Dense(3), K.Dropout(0.5), K.Dense(2)])


def nested():
    inner = keras.Sequential([keras.Input((4,)), K.Dense(4), K.Dropout(0.5), K.Dense(4)])
    x = keras.Input((4,))
    return keras.Model(x, K.Dense(2)(K.Dense(3, name="named_7")(inner(x))))


def scaled():
    return compiled(
        sequential(), keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1, 0.9))
    )


def own_optimizer():
    options = {"rule": "information_alignment", "feedback_optimizer": "adam"}
    return training.prepare(training.Classification(**options)).model


def retinanet():
    from tfbio import detection

    model = detection.retinanet(3, "resnet10", (64, 64, 3), head_layers=1, channels=8)
    model.compile("retinanet", "focal", optimizer="sgd")
    model.optimizer.build(model.trainable_variables)
    return model


MAKERS = {
    "sequential": lambda: compiled(sequential()),
    "nested": lambda: compiled(nested()),
    "scaled": scaled,
    "own_optimizer": own_optimizer,
    "retinanet": retinanet,
}


def print_names(*makers):
    for name in makers:
        for variable in state_variables(MAKERS[name]()):
            print(f"name {name} {variable}")


def names_of_a_second_model(maker):
    """Return a model's names, all of its variables being among them."""
    MAKERS[maker]()  # Keras's own numbers go on from here
    model = MAKERS[maker]()
    names = state_variables(model)
    every = [*model.variables, *model.optimizer.variables, *model.metrics_variables]
    assert {id(v) for v in every} <= {id(v) for v in names.values()}
    return list(names)


@pytest.mark.parametrize("maker", long_but(["nested", "scaled", "own_optimizer"], MAKERS))
def test_names_are_the_same_however_often_a_model_is_made(maker):
    keras.backend.clear_session()  # as in a process that has made none
    first = list(state_variables(MAKERS[maker]()))
    assert names_of_a_second_model(maker) == first


@pytest.mark.long
def test_names_are_the_same_in_every_process():
    # In make test: a process that is killed, whose training goes on in another (test_training.py).
    command = f"from tests.training.test_state import print_names; print_names(*{[*MAKERS]})"
    done = subprocess.run(
        [sys.executable, "-c", command], capture_output=True, text=True, check=True
    )
    there = [line for line in done.stdout.splitlines() if line.startswith("name ")]
    here = [f"name {maker} {name}" for maker in MAKERS for name in names_of_a_second_model(maker)]
    assert here == there


def test_names_say_what_a_variable_is():
    names = list(state_variables(compiled(nested())))
    assert "sequential/dense_1/kernel" in names
    assert "named_7/bias" in names
    assert any(name.startswith("optimizer/sequential/dense/kernel/") for name in names)
    assert "sequential/dropout/seed_generator_state" in names
    assert "random/global" in names
    assert any(name.startswith("metrics/") for name in names)
    assert "optimizer/iteration" in names


def test_a_mismatch_is_reported_by_name():
    variables = state_variables(compiled(sequential()))
    arrays = snapshot(variables, DEVICES)
    arrays["strange/kernel.0"] = arrays.pop("dense/bias.0")
    arrays["dense_1/kernel.0"] = np.zeros((3, 5), "float32")
    before = [np.array(v) for v in variables.values()]
    with pytest.raises(ValueError, match="another version") as error:
        restore(variables, DEVICES, arrays)
    message = str(error.value)
    assert "missing from it: dense/bias; unexpected in it: strange/kernel; different: " in message
    assert "dense_1/kernel is float32 (3, 2), in the checkpoint float32 (3, 5)" in message
    for variable, value in zip(variables.values(), before, strict=True):
        np.testing.assert_array_equal(variable, value)
