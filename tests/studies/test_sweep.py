"""The sweep: runs that differ in one number of their rule's, and runs that are none."""

import numpy as np
import pytest
from PIL import Image

from tfbio.studies import sweep
from tfbio.studies.runs import Run
from tfbio.training import Classification


def run(rule, score=0.5, **options):
    summary = None if score is None else {"test_accuracy": score}
    return Run(Classification(rule=rule, **options), summary, [], [])


def test_a_sweep_has_its_runs_in_order_of_the_number(tmp_path):
    runs = [run("usf(agreement=0.9)", 0.8, seed=seed) for seed in (0, 1)]
    runs += [run("sign_symmetry", 0.9), run("sign_symmetry(agreement=0.5)", 0.1)]
    found = sweep.find([*runs, run("sign_symmetry(agreement=0.7)", None)])
    assert (found.rule, found.option) == ("sign_symmetry", "agreement")
    assert list(found.runs) == [0.5, 0.9, 1.0]
    assert found.runs[0.9] == runs[:2]
    sweep.draw(found, tmp_path / "sweep.png")
    assert len(np.unique(np.asarray(Image.open(tmp_path / "sweep.png")))) > 10


@pytest.mark.parametrize(
    "runs",
    [
        [],
        [run("sign_symmetry", None), run("sign_symmetry(agreement=0.5)", None)],
        [run("sign_symmetry", seed=seed) for seed in (0, 1)],
        [run("sign_symmetry"), run("frsf")],
        [run("sign_symmetry"), run("sign_symmetry(agreement=0.5)", epochs=3)],
        [run("sign_symmetry"), run("sign_symmetry(agreement=0.5, scale=1.0)")],
        [run("sign_symmetry"), run("sign_symmetry(scale=1.0)")],
        [run("weight_mirror"), run("weight_mirror(center=False)")],
    ],
    ids=lambda runs: " and ".join(run.experiment.rule for run in runs),
)
def test_what_differs_otherwise_is_no_sweep(runs):
    assert sweep.find(runs) is None
