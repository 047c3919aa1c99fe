"""The option `initialization`: which networks it reaches, and with what it does not go."""

import pathlib
import re

import numpy as np
import pytest

from tests import kills
from tfbio import training
from tfbio.layers.sites import find_sites
from tfbio.training import folder, strategies

CHAIN = f"{pathlib.Path(__file__).parents[1] / 'user_networks.py'}:chain"
REACHED = {
    "a network of the library": {"model": "digits_cnn"},
    "a user's, standardized": {"model": CHAIN, "standardize": True},
    "a functional one, standardized": {"model": "resnet20", "standardize": True},
    "replicas": {"model": CHAIN, "strategy": "mirrored"},
}


def kernels(**options):
    strategies.forget_devices()
    model = training.prepare(training.Classification(rule="fa(scale='unit')", **options)).model
    return {name: site.kernel.numpy() for name, site in find_sites(model).items()}


@pytest.mark.parametrize("options", REACHED.values(), ids=REACHED)
def test_every_kernel_is_drawn_from_the_scheme(options):
    drawn = kernels(**options, initialization="he_fan_out", seed=5)
    for name, kernel in drawn.items():
        fan_out = np.prod(kernel.shape[:-2], dtype=int) * kernel.shape[-1]
        error = np.sqrt(2 / kernel.size)
        assert abs(np.mean(kernel**2) * fan_out / 2 - 1) < 5 * error, name


def test_the_scheme_is_reproducible_and_not_the_networks_own():
    options = {"model": CHAIN, "seed": 5}
    own = kernels(**options)
    drawn, again = (kernels(**options, initialization="xavier_uniform") for _ in range(2))
    for name, kernel in own.items():
        np.testing.assert_array_equal(drawn[name], again[name])
        assert (drawn[name] != kernel).all()


def test_scales_and_signs_come_from_the_kernels_that_were_drawn():
    options = {"model": CHAIN, "rule": "sign_symmetry(scale='match')"}
    prepared = training.prepare(training.Classification(**options, initialization="he_fan_in"))
    for site in find_sites(prepared.model).values():
        kernel, feedback = site.kernel.numpy(), site.feedback.numpy()
        variance = np.mean(kernel**2) * kernel.shape[0] / 2
        assert abs(variance - 1) < 5 * np.sqrt(2 / kernel.size)
        np.testing.assert_allclose(feedback, np.sqrt(np.mean(kernel**2)) * np.sign(kernel), 1e-5)


REFUSED = [
    ({"initialization": "xavier"}, "`initialization`: Unknown scheme 'xavier'. Did you mean 'xavi"),
    ({"weights": "w.keras"}, "`initialization` has no effect with `weights`"),
    ({"init_from": "runs/other"}, "`initialization` has no effect with `init_from`"),
]


@pytest.mark.parametrize(("options", "message"), REFUSED, ids=[m for _, m in REFUSED])
def test_what_does_not_go_with_it_is_refused(options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        training.Classification(**{"initialization": "xavier_uniform", **options})


def test_a_network_whose_fans_are_not_known_is_refused(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "import keras\n"
        "def recurrent(classes, shape):\n"
        "    layers = [keras.layers.Reshape((8, 8)), keras.layers.SimpleRNN(4, name='rnn')]\n"
        "    last = keras.layers.Dense(classes)\n"
        "    return keras.Sequential([keras.Input(shape), *layers, last])\n"
    )
    options = {"model": f"{path}:recurrent", "rule": "bp", "initialization": "pytorch"}
    with pytest.raises(ValueError, match=r"`initialization`: Layer 'rnn/.*SimpleRNNCell, has a k"):
        training.prepare(training.Classification(**options))


@pytest.mark.long
def test_a_run_with_it_resumes_to_the_bit_and_keeps_it_in_its_flags(tmp_path):
    options = {**kills.OPTIONS, "model": CHAIN, "epochs": 1, "initialization": "xavier_normal"}
    options |= {"keep_checkpoints": 9, "telemetry_every": 0}
    for name in ("whole", "cut"):
        if name == "cut":
            kills.copy_until(tmp_path / "whole", tmp_path / "cut", 7)
        experiment = training.Classification(**options, workdir=str(tmp_path / name))
        training.train_and_evaluate(experiment)
        assert folder.read_flags(tmp_path / name).initialization == "xavier_normal"
    assert not kills.differences(*(kills.outcome(tmp_path / name) for name in ("whole", "cut")))
    other = training.Classification(
        **{**options, "initialization": "he_fan_in"}, workdir=str(tmp_path / "whole")
    )
    with pytest.raises(ValueError, match="initialization"):
        training.train_and_evaluate(other)
