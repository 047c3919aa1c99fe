"""What an author of a rule gets wrong is one clear error, at conversion or in the first call."""

import types

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfbio
from tests.cases import random


def made(base, **members):
    """Return an instance of a rule with these methods, registered under the name test_mistaken."""
    members = {"__module__": __name__, "__qualname__": "Mistaken", **members}
    cls = types.new_class("Mistaken", (base,), exec_body=lambda n: n.update(members))
    return tfbio.rules.register("test_mistaken")(cls)()


def stepping(step):
    def make_state(self, kernel, fans):
        self.matrix = self.new_random("feedback", kernel, changes="by_step")

    return made(
        tfbio.rules.ScaledRule,
        make_state=make_state,
        step=step,
        feedback=lambda self, kernel: tf.convert_to_tensor(self.matrix),
    )


def learning(loss):
    return made(tfbio.rules.LearnedRule, loss=loss)


EXPECTED = "`step` must return a dict with a value for 'feedback', the weights made with"
MISTAKES = {
    "no dict": (lambda: stepping(lambda self, kernel, circuit: kernel), EXPECTED, TypeError),
    "nothing": (
        lambda: stepping(lambda self, kernel, circuit: None),
        "Received: NoneType",
        TypeError,
    ),
    "missing": (lambda: stepping(lambda self, kernel, circuit: {}), EXPECTED, ValueError),
    "unknown": (
        lambda: stepping(lambda self, kernel, circuit: {"feedback": kernel, "b": kernel}),
        "Received: a dict with 'feedback', 'b'",
        ValueError,
    ),
    "shape": (
        lambda: stepping(lambda self, kernel, circuit: {"feedback": kernel[:1]}),
        r"a value of shape \(4, 3\) for 'feedback'. Received: shape \(1, 3\)",
        ValueError,
    ),
    "vector": (
        lambda: learning(lambda self, feedback, kernel, circuit: tf.reduce_sum(feedback, 0)),
        r"`loss` must return a floating-point scalar tensor. Received: shape \(3,\)",
        ValueError,
    ),
    "number": (
        lambda: learning(lambda self, feedback, kernel, circuit: 0.0),
        "`loss` must return a floating-point scalar tensor. Received: a float",
        ValueError,
    ),
}


def model():
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="out")])


@pytest.mark.parametrize("call", ["eagerly", "fit"])
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_step_or_loss_is_refused_in_the_first_call(mistake, call):
    make, message, error = MISTAKES[mistake]
    network = tfbio.convert(model(), make())
    network.compile("sgd", "mse")
    # A step is due once the kernel has changed; compiled, both branches are traced.
    network.layers[0](random((2, 4), "float32"), training=False)
    network.layers[0].kernel.assign_add(tf.ones((4, 3)))
    calls = {
        "eagerly": lambda: network(random((2, 4), "float32"), training=True),
        "fit": lambda: network.fit(np.ones((2, 4)), np.ones((2, 3)), verbose=0),
    }
    with pytest.raises(error, match=message) as caught:
        calls[call]()
    assert len(str(caught.value).splitlines()) < 12
    assert "'test_mistaken'" in str(caught.value)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"feedback": lambda self: 0}, r"`feedback` is called as feedback\(kernel\)"),
        (
            {"feedback": lambda self, kernel: kernel, "step": lambda self, kernel: {}},
            r"`step` is called as step\(kernel, circuit\).*Received: def step\(self, kernel\)",
        ),
        (
            {"feedback": lambda self, kernel: kernel, "make_state": lambda self, kernel: None},
            r"`make_state` is called as make_state\(kernel, fans\)",
        ),
        (
            {"feedback": lambda self, kernel, more: 0},
            r"Received: def feedback\(self, kernel, more\)\.",
        ),
    ],
)
def test_a_method_with_other_arguments_is_refused_at_conversion(members, message):
    network = model()
    with pytest.raises(TypeError, match=message):
        tfbio.convert(network, made(tfbio.rules.LayerRule, **members))
    assert type(network.layers[0]) is keras.layers.Dense


def test_a_state_says_how_it_changes_and_has_a_name_of_its_own():
    rule = tfbio.rules.get("backprop")
    with pytest.raises(ValueError, match="`changes` must be one of"):
        rule.new_state("b", (), lambda: 0.0, "float32", changes="step")
    rule.new_state("b", (), lambda: 0.0, "float32")
    with pytest.raises(ValueError, match="has a weight 'b' already"):
        rule.new_state("b", (), lambda: 0.0, "float32")


def test_a_weight_that_no_step_changes_is_refused():
    def make_state(self, kernel, fans):
        self.matrix = self.new_random("feedback", kernel, changes="by_step")

    rule = made(
        tfbio.rules.ScaledRule,
        make_state=make_state,
        feedback=lambda self, kernel: tf.convert_to_tensor(self.matrix),
    )
    with pytest.raises(ValueError, match=r"'feedback' .*the rule has no `step`"):
        tfbio.convert(model(), rule)


def test_a_rule_that_is_not_registered_is_refused():
    class Mine(tfbio.rules.LayerRule):
        def feedback(self, kernel):
            return kernel

    for rule in (Mine, Mine()):
        with pytest.raises(TypeError, match=r"Mine is not registered: write @tfbio.rules.register"):
            tfbio.layers.FeedbackDense(2, rule=rule)
    with pytest.raises(TypeError, match="`register` takes the rule's name"):
        tfbio.rules.register(Mine)


def test_a_loss_without_a_gradient_on_b_is_refused():
    rule = learning(lambda self, kernel, feedback, circuit: tf.reduce_sum(0.0 * circuit.inputs))
    layer = tfbio.layers.FeedbackDense(2, rule=rule)
    with tf.GradientTape() as tape:
        layer(random((3, 4), "float32"))
        loss = sum(layer.losses)
    with pytest.raises(ValueError, match="`loss` must depend on B, its first argument"):
        tape.gradient(loss, layer.rule.matrix.value)


def test_a_rule_that_draws_at_every_step_must_say_that_it_has_steps():
    rule = made(
        tfbio.rules.ScaledRule,
        make_state=lambda self, kernel, fans: self.make_draws(),
        feedback=lambda self, kernel: kernel,
    )
    with pytest.raises(ValueError, match=r"`make_draws` alone, the property `has_step` as True"):
        tfbio.convert(model(), rule)


def test_a_rule_of_networks_without_its_network_is_refused():
    network = model()
    with pytest.raises(TypeError, match="must have `network`, the subclass of tfbio"):
        tfbio.convert(network, made(tfbio.rules.NetworkRule))
    assert type(network.layers[0]) is keras.layers.Dense
