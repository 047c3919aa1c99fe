"""Divergence: what blew up and did not come back, and nothing else."""

import pytest

from tfbio.training import tasks
from tfbio.training.divergence import find_divergence

CHANCE = 2.302585


@pytest.mark.parametrize(
    ("losses", "diverged"),
    [
        ([2.3, 24, 9e3, 3e8], True),
        ([2.9e24], True),
        ([2.3, 9.4, 8e6, 2.31, 2.3034], True),  # dead since
        ([2.3, 5e3, 1e9, 40, 0.7], False),  # came back
        ([2.3, 24, 90], False),  # bad, and no blow-up
        ([2.3, 225, 225], False),
        ([2.3, 240, 240], True),  # more than 100 times the loss of guessing
        ([2.3, 1e4, 2.1], True),  # not below 0.9 times
        ([2.3, 1e4, 2.0], False),
        ([2.3034, 2.3030], False),  # has not learned
        ([2.3, 1e-6, 2e-2], False),  # many times the lowest
        ([], False),
    ],
)
def test_a_loss_that_blew_up_and_did_not_come_back_is_a_divergence(losses, diverged):
    records = [{"step": 0}, *({"step": n, "loss": x} for n, x in enumerate(losses, 1))]
    assert bool(find_divergence(records, CHANCE)) == diverged


def test_the_loss_of_guessing_is_that_of_a_network_as_it_is_drawn():
    classification = tasks.get("classification")
    facts = classification.facts((8, 8, 1), tuple("0123456789"))
    ln2 = 0.693147
    expected = {
        "cross_entropy": CHANCE,
        "binary_cross_entropy": ln2,
        "binary_cross_entropy_sum": 10 * ln2,
        "squared_error": 0.25,
    }
    for loss, value in expected.items():
        experiment = classification.experiment(loss=loss)
        assert classification.chance_loss(experiment, facts) == pytest.approx(value)
