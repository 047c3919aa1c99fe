"""Where steps run: what cannot go together is refused, and what can changes no learning."""

import dataclasses
import os
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfbio
from tests.cases import DIFFERENTIATED, ONE_OF_A_KIND, assert_same_learning, long_but
from tfbio import _keras, optimizers, training
from tfbio.training import strategies, transfer, use
from tfbio.training.accumulation import Accumulation
from tfbio.training.loop import Loop

NETWORK = """
import keras

def network(num_classes, input_shape):
    return keras.Sequential([
        keras.Input(input_shape),
        keras.layers.Conv2D(4, 3, name="conv"),
        {normalization}
        keras.layers.ReLU(),
        keras.layers.Flatten(),
        keras.layers.Dense(num_classes, name="last"),
    ])
"""


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    """Return options for a small network, without and with batch normalization."""
    folder = tmp_path_factory.mktemp("networks")
    found = []
    for name, layer in (("plain", ""), ("normalized", "keras.layers.BatchNormalization(),")):
        path = folder / f"{name}.py"
        path.write_text(NETWORK.format(normalization=layer))
        found.append({"model": f"{path}:network"})
    return found


def learned(options, steps=3, **more):
    """Return the weights before and after some steps, and the optimizer's count of them."""
    # As in conftest: more than one network on replicas within a test.
    _keras.separate_collectives()
    strategies.forget_devices()
    experiment = training.Classification(
        **{"batch_size": 48, "rule": "brsf", "learning_rate": 0.05, **options, **more}
    )
    prepared = training.prepare(experiment)
    start = [variable.numpy() for variable in prepared.model.trainable_variables]
    assert Loop(prepared).train(iter(prepared.epoch(0, 0)), steps) == (steps, True)
    weights = [variable.numpy() for variable in prepared.model.trainable_variables]
    return start, weights, int(prepared.model.optimizer.iterations.numpy())


def distance(one, other):
    return max(np.abs(a - b).max() for a, b in zip(one, other, strict=True))


REFUSED = [
    ({"jit": True, "strategy": "mirrored"}, "`jit` does not go with `strategy='mirrored'`"),
    ({"jit": True, "strategy": "multi_worker"}, "`jit` does not go with `strategy='multi_worker'`"),
    ({"jit": True, "strategy": "tpu"}, "`jit` does not go with `strategy='tpu'`"),
    ({"precision": "mixed_float16", "strategy": "tpu"}, "computes in bfloat16"),
    ({"tpu": "mine"}, "`tpu` belongs to `strategy='tpu'`"),
    ({"download": True, "strategy": "multi_worker"}, "Download first"),
    ({"clip_norm": 1.0, "batch_manhattan": "all"}, "`clip_norm` has no effect with"),
    ({"init_from": "a", "weights": "imagenet", "model": "keras:ResNet50"}, "give one"),
    ({"init_checkpoint": "best"}, "`init_checkpoint` belongs to `init_from`"),
    ({"init_from": "runs/./classify"}, "`init_from` must be another folder"),
    ({"accumulate": 0}, "`accumulate` must be an integer of 1 to"),
    ({"clip_norm": -1.0}, "`clip_norm` must be a finite number of 0 or more"),
]


@pytest.mark.parametrize(("options", "message"), REFUSED, ids=lambda value: str(value)[:60])
def test_what_cannot_go_together_is_refused(options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        training.Classification(**options)


UNPREPARED = [
    ({"accumulate": 5}, "times `accumulate`, 5. Received: 64"),
    ({"strategy": "mirrored", "batch_size": 9}, "must divide by their number, 2,"),
    ({"sync_batch_norm": True}, "`sync_batch_norm` has no effect on one device"),
    ({"sync_batch_norm": True, "strategy": "mirrored"}, "has no batch normalization"),
    ({"strategy": "tpu"}, "there is no TPU here"),
    ({"strategy": "tpu", "tpu": "grpc://127.0.0.1:1"}, "`tpu=grpc://127.0.0.1:1`: nothing answers"),
    ({"strategy": "tpu", "tpu": "grpc://host"}, "`tpu=grpc://host`: nothing answers"),
    ({"strategy": "multi_worker"}, "needs the environment variable TF_CONFIG"),
]


@pytest.mark.parametrize(("options", "message"), UNPREPARED, ids=lambda value: str(value)[:60])
def test_devices_that_are_not_there_are_told(options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        training.prepare(training.Classification(**options))


def test_a_strategy_of_workers_comes_first(monkeypatch):
    tf.zeros(1)
    task = '{"cluster": {"worker": ["127.0.0.1:1"]}, "task": {"type": "worker", "index": 0}}'
    monkeypatch.setenv("TF_CONFIG", task)
    with pytest.raises(ValueError, match="must come before anything that TensorFlow computes"):
        training.prepare(training.Classification(strategy="multi_worker"))


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "3",
        "[]",
        '{"cluster": {"worker": ["a:1"]}}',
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}',
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": -1}}',
        '{"cluster": {"ps": ["a:1"]}, "task": {"type": "ps", "index": 0}}',
    ],
)
def test_a_wrong_tf_config_is_told(monkeypatch, text):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(ValueError, match="TF_CONFIG must be like"):
        strategies.cluster()


def test_a_chief_of_tf_config_is_the_first_worker(monkeypatch):
    text = '{"cluster": {"chief": ["a:1"], "worker": ["b:1"]}, "task": {"type": "%s", "index": 0}}'
    for place, kind in enumerate(("chief", "worker")):
        monkeypatch.setenv("TF_CONFIG", text % kind)
        assert strategies.cluster() == (["a:1", "b:1"], place)


def test_slurm_says_who_the_workers_are(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    monkeypatch.setenv("SLURM_JOB_ID", "40007")
    with pytest.raises(ValueError, match="Start the command with srun"):
        strategies.cluster()
    step = {
        "SLURM_PROCID": "2",
        "SLURM_STEP_NUM_TASKS": "3",
        "SLURM_STEP_NODELIST": "node[1-2]",
        "SLURM_STEP_TASKS_PER_NODE": "2,1",
    }
    for name, value in step.items():
        monkeypatch.setenv(name, value)
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    assert strategies.cluster() == (["node1:20007", "node1:20008", "node2:20007"], 2)
    assert os.environ.get("CUDA_VISIBLE_DEVICES") == visible


def test_the_memory_of_gpus_grows(monkeypatch):
    grown = {}
    gpu = tf.config.PhysicalDevice("/physical_device:GPU:0", "GPU")
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [gpu])
    memory = tf.config.experimental
    monkeypatch.setattr(memory, "get_memory_growth", lambda gpu: grown.get(gpu.name))
    monkeypatch.setattr(memory, "set_memory_growth", lambda gpu, on: grown.update({gpu.name: on}))
    strategies.forget_devices()
    strategies.get_devices(training.Classification())
    assert grown == {"/physical_device:GPU:0": True}


EQUAL = {
    "accumulated": {"accumulate": 4},
    "accumulated, two replicas": {"accumulate": 4, "strategy": "mirrored"},
    "accumulated and clipped, two replicas": {
        "accumulate": 2,
        "clip_norm": 0.05,
        "strategy": "mirrored",
    },
    "accumulated, by XLA": {"accumulate": 4, "jit": True},
    "accumulated and clipped": {"accumulate": 2, "clip_norm": 0.05},
    "clipped, two replicas": {"strategy": "mirrored", "clip_norm": 0.05},
}


@pytest.fixture(scope="module")
def wholes(networks):
    """Return what is learned in whole batches on one device, by the norm clipped to."""
    return {norm: learned(networks[0], clip_norm=norm) for norm in (0.0, 0.05)}


def test_a_clipped_gradient_is_smaller(wholes):
    ways = {norm: distance(start, weights) for norm, (start, weights, _) in wholes.items()}
    assert 0 < ways[0.05] < ways[0.0] / 2


@pytest.mark.parametrize(
    "name", long_but(["accumulated", "accumulated and clipped, two replicas"], EQUAL)
)
def test_the_update_is_that_of_the_whole_batch(networks, wholes, name):
    options = EQUAL[name]
    start, whole, steps = wholes[options.get("clip_norm", 0.0)]
    _, parts, counted = learned(networks[0], **options)
    assert (steps, counted) == (3, 3)
    assert_same_learning(parts, whole, start)


def test_the_last_batch_of_an_epoch_is_whole_micro_batches():
    strategies.forget_devices()
    prepared = training.prepare(training.Classification(batch_size=60, accumulate=12))
    sizes = [len(labels) for _, labels in prepared.epoch(0, 0)]
    size = prepared.train.size
    assert sum(sizes) == size - size % 60 % 12
    assert len(sizes) == prepared.steps_per_epoch


@pytest.mark.parametrize("options", [{}, {"accumulate": 4}, {"strategy": "mirrored"}], ids=str)
def test_the_remainder_of_an_epoch_is_dropped(options):
    strategies.forget_devices()
    experiment = training.Classification(batch_size=60, drop_remainder=True, **options)
    prepared = training.prepare(experiment)
    assert prepared.train.size == 1293  # 21 batches of 60, and 33 images
    counts, orders = [], []
    for epoch in range(2):
        parts = [
            np.concatenate(
                [part.numpy() for part in prepared.strategy.experimental_local_results(y)]
            )
            for _, y in prepared.epoch(epoch, 0)
        ]
        counts.append([len(part) for part in parts])
        orders.append(np.concatenate(parts))
    assert counts == [[60] * 21] * 2
    # Each epoch leaves out other images, so that the labels that are left differ in number.
    assert (np.bincount(orders[0]) != np.bincount(orders[1])).any()
    assert prepared.steps_per_epoch == 21
    assert [prepared.images_by(step) for step in (20, 21, 22, 42)] == [1200, 1260, 1320, 2520]
    assert prepared.schedule.total_steps == 21 * experiment.epochs
    assert Loop(prepared).train(iter(prepared.epoch(0, 20)), 1) == (1, True)
    with pytest.raises(tf.errors.OutOfRangeError):
        Loop(prepared).train(iter(prepared.epoch(0, 20)), 2)


def test_a_drop_of_the_remainder_that_leaves_nothing_is_told():
    experiment = training.Classification(batch_size=1300, drop_remainder=True)
    message = "`batch_size=1300` is more than the 1293 images to train on, which `drop_remainder`"
    with pytest.raises(ValueError, match=message):
        training.prepare(experiment)


@pytest.mark.parametrize("rule", long_but(ONE_OF_A_KIND, DIFFERENTIATED))
def test_loss_scaling_and_accumulation_change_no_rules_learning(rule):
    x = np.random.default_rng(0).normal(size=(8, 6)).astype("float32")
    y = np.arange(8) % 3

    def floats(model):
        return [v.numpy() for v in model.variables if v.dtype == "float32"]

    def trained(scaled, parts):
        keras.utils.set_random_seed(0)
        model = keras.Sequential(
            [keras.Input((6,)), keras.layers.Dense(5, "tanh"), keras.layers.Dense(3)]
        )
        tfbio.convert(model, rule)
        optimizer = optimizers.get("sgd", 0.5, momentum=0.9, weight_decay=0.01)
        optimizer = optimizers.LossScale(optimizer) if scaled else optimizer
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(optimizer, loss)
        model.optimizer.build(model.trainable_variables)
        start = floats(model)
        sums = Accumulation(model, parts)
        for _ in range(2):
            if parts == 1:
                model.train_step((x, y))
                continue
            with sums.in_place():
                for part in range(parts):
                    model.train_step((x[part::parts], y[part::parts]))
            sums.release()
        return start, floats(model)

    start, plain = trained(scaled=False, parts=1)
    # A power of two loses no digit.
    assert distance(plain, trained(scaled=True, parts=1)[1]) == 0
    assert_same_learning(trained(scaled=True, parts=2)[1], plain, start)


def test_an_overflow_on_one_replica_leaves_the_step_out_on_all():
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    with strategy.scope():
        variable = keras.Variable([1.0])
        optimizer = optimizers.LossScale(optimizers.get("sgd", 0.5), initial_scale=8.0)
        optimizer.build([variable])

    @tf.function
    def step(gradient):
        strategy.run(lambda g: optimizer.apply([g], [variable]), args=(gradient,))

    for values, weight, scale in (([8.0, np.inf], 1.0, 4.0), ([4.0, 4.0], 0.0, 4.0)):
        step(strategy.experimental_distribute_values_from_function(
            lambda context, values=values: tf.constant(
                [values[context.replica_id_in_sync_group]]
            )
        ))  # fmt: skip
        assert variable.numpy() == [weight]
        assert optimizer.dynamic_scale.numpy() == scale


def test_float16_is_scaled(networks):
    prepared = training.prepare(training.Classification(**networks[0], precision="mixed_float16"))
    assert isinstance(prepared.model.optimizer, optimizers.LossScale)


def test_batch_normalization_over_all_devices(networks):
    options = {**networks[1], "rule": "bp"}
    start, one, _ = learned(options)
    _, apart, _ = learned(options, strategy="mirrored")
    _, together, _ = learned(options, strategy="mirrored", sync_batch_norm=True)
    assert_same_learning(together, one, start)
    with pytest.raises(AssertionError):
        assert_same_learning(apart, one, start)


def test_a_train_step_without_an_optimizer_cannot_accumulate():
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    model.optimizer.build(model.trainable_variables)
    with pytest.raises(ValueError, match="does not apply its gradients through"):
        Accumulation(model, 2).release()


def test_a_run_starts_from_anothers_weights(networks, tmp_path, caplog):
    strategies.forget_devices()
    caplog.set_level("INFO", "tfbio")
    options = {**networks[0], "epochs": 1, "batch_size": 64, "telemetry_every": 0}
    first = training.Classification(**options, rule="fa", workdir=str(tmp_path / "one"))
    training.train_and_evaluate(first, lambda text: None, test=False)
    source, _ = use.restored(first, "last")
    options |= {"init_from": str(tmp_path / "one"), "workdir": str(tmp_path / "two")}
    for rule in ("fa", "usf"):
        experiment = training.Classification(**options, rule=rule)
        model = training.prepare(experiment, source).model
        for layer, there in zip(model.layers, source.layers, strict=True):
            for own, given in zip(layer.get_weights()[:2], there.get_weights()[:2], strict=True):
                np.testing.assert_array_equal(own, given)
            if layer.get_weights() and rule == "fa":
                np.testing.assert_array_equal(layer.feedback, there.feedback)
    assert "the run's feedback of 2 kernels, conv (sign_symmetry(" in caplog.text
    other = training.Classification(**options, rule="fa(scale='xiao')")
    with pytest.raises(ValueError, match=r"^`init_from`: the run's feedback of 2 kernels, conv"):
        training.prepare(other, source)
    other = dataclasses.replace(other, accept_new_feedback=True)
    assert training.prepare(other, source).model.layers[0].rule.scale == "xiao"

    class Cut(BaseException):
        """Ends a training."""

    def cut(step, total):
        raise Cut

    options |= {"steps_per_call": 5, "checkpoint_every": 10**6}
    experiment = training.Classification(**options, rule="usf")
    with pytest.raises(Cut):
        training.train_and_evaluate(experiment, lambda text: None, cut)
    (tmp_path / "one").rename(tmp_path / "gone")
    told = []
    summary = training.train_and_evaluate(experiment, told.append)
    assert told[0] == "Going on from step 0 of 21."
    assert summary["resumed_at_steps"] == [0]
    third = dataclasses.replace(experiment, workdir=str(tmp_path / "three"))
    with pytest.raises(ValueError, match=r"`init_from`: .* is no run's folder"):
        training.train_and_evaluate(third, lambda text: None)


def test_other_classes_leave_the_last_layer_new_and_other_networks_are_refused(caplog):
    caplog.set_level("INFO", "tfbio")

    def network(classes, width=4):
        return keras.Sequential(
            [
                keras.Input((3,)),
                keras.layers.Dense(width, name="first"),
                keras.layers.Dense(classes, name="last"),
            ]
        )

    source, target = network(2), network(5)
    before = target.layers[1].get_weights()
    transfer.copy_weights(source, target)
    np.testing.assert_array_equal(source.layers[0].kernel, target.layers[0].kernel)
    np.testing.assert_array_equal(before[0], target.layers[1].kernel)
    assert "the last layer starts anew, for other classes: " in caplog.text
    assert "last/kernel 4×5, there 4×2" in caplog.text
    with pytest.raises(ValueError, match=r"first/kernel 3×6, there 3×4; .*first/bias 6, there 4"):
        transfer.copy_weights(source, network(2, width=6))
