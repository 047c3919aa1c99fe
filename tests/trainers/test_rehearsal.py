"""A rehearsal of the runs on ImageNet: each config, on a few images in ImageNet's form.

Every config takes two steps, is interrupted, resumes, takes two more and is evaluated, with nothing
but its flags and the place of the data; the batch is as small as the data are, and a mirror takes
two steps before training.
"""

import dataclasses
import math
import pathlib
import re
import signal

import pytest

from tests import photographs
from tests.cases import rehearsed
from tests.trainers.test_trainers import configured, parsed
from tfbio import training
from tfbio.training import memory, use
from tfbio.training.checkpoints import Checkpoints
from tfbio.training.signals import Interrupted
from trainers import compare

ROOT = pathlib.Path(__file__).parents[2]
BATCH = 4


def on_imagenet():
    """Return the configs of classifiers on ImageNet by name, "paper/config"."""
    papers = ("xiao2018", "kunin2020", "akrout2019")
    paths = [path for paper in papers for path in sorted(ROOT.glob(f"configs/{paper}/*.cfg"))]
    texts = {path: path.read_text() for path in paths}
    return {
        f"{path.parent.name}/{path.stem}": path
        for path, text in texts.items()
        if "--dataset=imagenet2012" in text and "-m trainers.detect " not in text
    }


CONFIGS = on_imagenet()


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory):
    """Return the folder of TFRecord shards with two batches to train on, and one to test on."""
    parts = {
        "train": photographs.examples(2 * BATCH, 0),
        "validation": photographs.examples(BATCH, 1),
    }
    return photographs.write_shards(tmp_path_factory.mktemp("imagenet"), parts)


def rehearse(config, imagenet, workdir, *more):
    """Train, be interrupted, resume and evaluate; return the steps at interruptions, and measures.

    Args:
        config: The path of a config.
        imagenet: The folder of the data.
        workdir: The run's folder.
        *more: Flags beyond those of the config.
    """
    values = parsed(
        f"--flagfile={config}",
        f"--data_dir={imagenet}",
        f"--batch_size={BATCH}",
        f"--workdir={workdir}",
        *more,
    )
    (experiment,) = compare.experiments(values)
    # A thousand mirror steps at 224² before the first of training take an hour here.
    rule = re.sub(r"before=\d+", "before=2", experiment.rule)
    experiment = dataclasses.replace(experiment, rule=rule)
    steps, checkpoints = [], Checkpoints(pathlib.Path(experiment.workdir, "checkpoints"), 2)

    def interrupt(step, total):
        if step % 2 == 0:
            signal.raise_signal(signal.SIGTERM)

    for _ in range(2):
        with memory.freed(), pytest.raises(Interrupted):
            training.train_and_evaluate(experiment, lambda text: None, interrupt)
        steps.append(checkpoints.latest(print)[0])
    with memory.freed():
        return steps, use.evaluate(experiment, tell=lambda text: None)


def test_the_configs_are_found():
    assert {name.partition("/")[0] for name in CONFIGS} == {"xiao2018", "kunin2020", "akrout2019"}
    assert all(len(configured(path)) == 1 for path in CONFIGS.values())


def check(steps, measured):
    assert steps == [2, 4]
    assert measured["step"] == 4
    assert math.isfinite(measured["test_loss"])
    assert 0 <= measured["test_accuracy"] <= 1


@pytest.mark.parametrize(
    "name",
    rehearsed(
        [
            "xiao2018/resnet18_sign_symmetry",
            "kunin2020/imagenet_resnet18_activation_alignment",
            "akrout2019/imagenet_resnet18_kp",
        ],
        CONFIGS,
    ),
)
def test_a_config_takes_steps_resumes_and_is_evaluated(name, imagenet, tmp_path):
    check(*rehearse(CONFIGS[name], imagenet, tmp_path))


def test_a_small_network_is_rehearsed_by_a_configs_other_flags(imagenet, tmp_path):
    """In place of the configs' own networks, which take a minute each to compile."""
    smaller = ("--model=digits_cnn", "--image_size=32", "--telemetry_every=0")
    config = CONFIGS["xiao2018/alexnet_sign_symmetry"]
    check(*rehearse(config, imagenet, tmp_path, *smaller))
