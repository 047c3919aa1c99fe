"""Transfer: what another run's feedback is kept for, and that it is never lost in silence."""

import re

import keras
import numpy as np
import pytest

import tfbio
from tfbio import models, training
from tfbio.layers.sites import find_sites
from tfbio.training import transfer
from tfbio.training.classifier import ClassificationTask

# By the run's rule and the new one.
KEPT = ["fa", "fa(seed=1)", "fa(scale='xiao')", "feedback_alignment_signed_init", "usf",
        "usf(agreement=0.8)", "frsf", "brsf", "kolen_pollack", "weight_mirror", "dfa", "dtp",
        "bp"]  # fmt: skip
LOST = {
    ("fa(scale='xiao')", "fa"): "give `rule=feedback_alignment(scale='xiao')`.",
    ("fa(seed=1)", "fa(seed=2)"): "give `rule=feedback_alignment(scale='match')` and the run's se",
    ("fa", "frsf"): "give `rule=feedback_alignment(scale='match')`.",
    ("kolen_pollack", "fa"): "give `rule=kolen_pollack(",
    ("usf(agreement=0.8)", "usf"): "give `rule=sign_symmetry(scale='match', agreement=0.8)`.",
    # B is s·sign(W), and s would be another.
    ("usf(scale='xiao')", "usf"): "give `rule=sign_symmetry(scale='xiao', agreement=1.0)`.",
    ("dfa", "dfa(init='frenkel')"): "give `rule=direct_feedback_alignment(init='launay', ",
    ("dfa", "fa"): "give `rule=direct_feedback_alignment(init='launay', ",
}
FREE = [("bp", "fa"), ("fa", "bp"), ("fa", "usf"), ("usf", "fa"), ("brsf", "fa"), ("usf", "brsf")]


def network(rule, classes=2, seed=0):
    keras.utils.set_random_seed(seed)
    layers = [
        keras.Input((3,)),
        keras.layers.Dense(4, "tanh", name="first"),
        keras.layers.Dense(classes, name="last"),
    ]
    return tfbio.convert(keras.Sequential(layers), rule)


def states(model):
    return [v.numpy() for site in find_sites(model).values() for v in site.rule.weights]


def feedback(model):
    return [site.rule(site.kernel, training=False).numpy() for site in find_sites(model).values()]


def same(values, others):
    assert len(values) == len(others)
    return all(np.array_equal(a, b) for a, b in zip(values, others, strict=True))


@pytest.mark.parametrize("rule", KEPT)
def test_feedback_under_the_same_rule_is_kept(rule):
    source, target = network(rule), network(rule, seed=1)
    for site, there in zip(find_sites(target).values(), find_sites(source).values(), strict=True):
        site.kernel.assign(there.kernel)
    transfer.copy_feedback(source, target)
    assert same(states(target), states(source))
    assert same(feedback(target), feedback(source))


@pytest.mark.parametrize(("rules", "way"), LOST.items(), ids=map(str, LOST))
def test_feedback_that_would_be_lost_is_an_error_unless_accepted(rules, way, caplog):
    caplog.set_level("INFO", "tfbio")
    source, target = network(rules[0]), network(rules[1], seed=1)
    before = states(target)
    with pytest.raises(ValueError, match=re.escape(way)) as error:
        transfer.copy_feedback(source, target)
    assert "last (" in str(error.value)
    assert str(error.value).endswith("set `accept_new_feedback`.")
    assert not caplog.text
    transfer.copy_feedback(source, target, accept_new=True)
    assert "`init_from`: the run's feedback of " in caplog.text
    assert same(states(target), before)


@pytest.mark.parametrize("rules", FREE, ids=str)
def test_other_rules_lose_nothing_that_could_be_kept_and_the_log_says_so(rules, caplog):
    caplog.set_level("INFO", "tfbio")
    source, target = network(rules[0]), network(rules[1], seed=1)
    before = states(target)
    transfer.copy_feedback(source, target)
    assert re.search(r"the run's feedback of 2 kernels, first \(.*, there .*; last", caplog.text)
    assert same(states(target), before)


def test_a_last_layer_for_other_classes_has_new_feedback_and_the_others_keep_theirs():
    source, target = network("fa"), network("fa", classes=5, seed=1)
    transfer.copy_feedback(source, target)
    assert same(feedback(target)[:1], feedback(source)[:1])
    assert feedback(target)[1].shape == (4, 5)


def test_direct_feedback_for_other_classes_is_lost_for_all_layers():
    source, target = network("dfa"), network("dfa", classes=5, seed=1)
    with pytest.raises(ValueError, match="depends on the number of classes"):
        transfer.copy_feedback(source, target)
    transfer.copy_feedback(source, target, accept_new=True)


def test_new_feedback_is_accepted_only_of_another_run():
    with pytest.raises(ValueError, match="`accept_new_feedback` belongs to `init_from`, which is"):
        training.Classification(accept_new_feedback=True)


@pytest.mark.parametrize(
    ("theirs", "here", "told"),
    [
        (None, None, None),
        (([0.5], [0.25]), ([0.5], [0.25]), None),
        (([0.5], [0.25]), None, "(mean, std) [0.5] and [0.25], here none."),
        (None, ([0.5], [0.25]), "(mean, std) none, here [0.5] and [0.25]."),
        (([0.5], [0.25]), ([0.5], [0.3]), "[0.5] and [0.25], here [0.5] and [0.3]."),
    ],
)
def test_a_classifier_says_that_its_images_are_standardized_otherwise(theirs, here, told, caplog):
    def classifier(statistics):
        layers = [keras.Input((2, 2, 1)), keras.layers.Flatten(), keras.layers.Dense(2)]
        model = keras.Sequential(layers)
        return models.standardize(model, *statistics) if statistics else model

    source = tfbio.convert(classifier(theirs), "fa")
    with caplog.at_level("INFO", "tfbio"):
        ClassificationTask().copy_weights(training.Classification(), source, classifier(here))
    said = [
        record.message for record in caplog.records if "standardized otherwise" in record.message
    ]
    assert len(said) == bool(told)
    assert not told or said[0].endswith(told)
