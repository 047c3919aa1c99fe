"""The command line: real runs, configs, and bad input told in one line."""

import csv
import dataclasses
import json
import pathlib
import re
import subprocess
import sys

import pytest
from absl import flags
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.test_data import write_fashion
from tfbio import training
from trainers import classify, cli

ROOT = pathlib.Path(__file__).parent.parent
CONFIGS = sorted(ROOT.glob("configs/**/*.cfg"))


def run(*arguments, cwd=ROOT):
    return subprocess.run(
        [sys.executable, "-m", "trainers.classify", *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def in_process(*arguments):
    """Do what the command does, without a process for each."""
    values = flags.FlagValues()
    cli.define(training.Experiment, values, lists=classify.LISTS)
    cli.parse(values, ["classify", *map(str, arguments)])
    classify.compare(values)
    return values


def test_a_comparison_writes_table_figure_results_and_curves(tmp_path):
    done = run("--rule=backprop,usf(agreement=0.9)", "--seed=0,1", "--epochs=2",
               f"--workdir={tmp_path}")  # fmt: skip
    assert done.returncode == 0, done.stderr
    for text in ("Learning rules compared", "backprop", "sign_symmetry-agreement=0.9", "±",
                 "Try next", "seed 1: test accuracy"):  # fmt: skip
        assert text in done.stdout
    document = json.loads((tmp_path / "results.json").read_text())
    assert len(document["runs"]) == 4
    assert set(document["versions"]) == {"tfbio", "tensorflow", "keras"}
    for one in document["runs"]:
        assert 0.1 < one["test_accuracy"] <= 1
        assert one["seconds_per_step"] > 0
        workdir = pathlib.Path(one["options"]["workdir"])
        rows = list(csv.DictReader((workdir / "metrics.csv").read_text().splitlines()))
        assert [float(row["val_accuracy"]) for row in rows] == pytest.approx(one["curve"])
        assert list(workdir.glob("angles/events.*"))
        assert list(workdir.glob("train/events.*"))
    assert (tmp_path / "comparison.png").stat().st_size > 10_000


def test_the_same_command_gives_the_same_accuracy(tmp_path):
    results = []
    for attempt in ("a", "b"):
        in_process("--rule=brsf", "--epochs=1", f"--workdir={tmp_path / attempt}")
        document = json.loads((tmp_path / attempt / "results.json").read_text())
        results.append((document["runs"][0]["test_accuracy"], document["runs"][0]["curve"]))
    assert results[0] == results[1]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_every_config_opens_with_a_header_and_trains_on_tiny_data(config, tmp_path):
    text = config.read_text()
    assert text.startswith("#")
    command = re.search(r"^# Command: (.*)$", text, re.MULTILINE).group(1)
    assert command == f"python -m trainers.classify --flagfile={config.relative_to(ROOT)}"
    arguments = [f"--flagfile={config}", "--epochs=1", "--milestones=", "--seed=0",
                 f"--workdir={tmp_path / 'run'}"]  # fmt: skip
    if "--dataset=fashion_mnist" in text:
        arguments.append(f"--data_dir={write_fashion(tmp_path, train=20)}")
    values = in_process(*arguments)
    assert (pathlib.Path(values.workdir) / "results.json").exists()


BAD = [
    (["--rul=fa"], "rul", 2),
    (["--epochs=many"], "epochs", 2),
    (["--flagfile=/none.cfg"], "/none.cfg", 2),
    (["fa"], "Unexpected argument 'fa'", 2),
    (["--rule=sign_symetry"], "--rule: Unknown rule 'sign_symetry'. Did you mean", 1),
    (["--rule=frsf(scale=-1)"], "--rule: `scale` must be", 1),
    (["--rule=fa,fa"], "must not name one twice", 1),
    (["--rule="], "--rule", 1),
    (["--last_layer_rule=none"], "--last_layer_rule: Unknown rule 'none'", 1),
    (["--dataset=imagenet"], "--dataset must be one of digits, fashion_mnist", 1),
    (["--model=vgg"], "--model must be one of", 1),
    (["--model=lenet"], "32 or more pixels a side. Received: (8, 8, 1)", 1),
    (["--dataset=fashion_mnist", "--data_dir=/none"], "no such folder as '/none'", 1),
    (["--data_dir=/none"], "reads no data_dir", 1),
    (["--epochs=0"], "--epochs must be 1 or more, and at most 1000000. Received: 0", 1),
    (["--batch_size=-1"], "--batch_size must be 1 or more, and at most 1000000. Received: -1", 1),
    (["--learning_rate=0"], "--learning_rate must be a number greater than 0", 1),
    (["--learning_rate=nan"], "--learning_rate must be a number greater than 0", 1),
    (["--momentum=1"], "--momentum must be 0 or more and less than 1", 1),
    (["--validation_fraction=1.5"], "--validation_fraction must be 0 or more", 1),
    (["--seed=-1"], "--seed must be", 1),
    (["--seed=1,x"], "--seed must be", 1),
    (["--milestones=5,x"], "--milestones must be integers", 1),
    (["--milestones=8,5"], "--milestones must be epochs in ascending order", 1),
    (["--milestones=40"], "less than --epochs=30", 1),
    (["--validation_fraction=0.9999"], "leaves 0 of 1437 images", 1),
    (["--validation_fraction=0.0001"], "0 to validate on", 1),
    (["--image_size=2147483647"], "--image_size must be 0 or more, and at most 4096", 1),
    (["--batch_size=99999999999999999999"], "--batch_size must be 1 or more, and at most", 1),
    (["--workdir="], "--workdir must name a folder", 1),
    (["--workdir=/proc/none"], "/proc/none", 1),
]


@pytest.mark.parametrize(("arguments", "message", "status"), BAD, ids=lambda value: str(value))
def test_bad_input_is_told_in_one_line(arguments, message, status, capsys, tmp_path):
    if not any("workdir" in argument for argument in arguments):
        arguments = [*arguments, f"--workdir={tmp_path}"]
    with pytest.raises(SystemExit) as ended:
        in_process(*arguments)
    errors = capsys.readouterr().err
    assert ended.value.code == status
    assert message in errors
    assert errors.startswith("error: ")
    assert errors.count("\n") == 1


@settings(max_examples=60)
@given(
    name=st.sampled_from([field.name for field in dataclasses.fields(training.Experiment)]),
    text=st.text(max_size=12) | st.integers().map(str) | st.floats().map(str),
)
def test_any_value_of_any_flag_is_taken_or_refused_without_a_traceback(name, text):
    values = flags.FlagValues()
    cli.define(training.Experiment, values, lists=classify.LISTS)
    try:
        cli.parse(values, ["classify", f"--{name}={text}"])
        experiments = classify._experiments(values)
    except (SystemExit, ValueError) as error:
        assert name in str(error) or isinstance(error, SystemExit)  # noqa: PT017
    else:
        assert experiments


@given(st.lists(st.sampled_from(["fa", "frsf(scale='unit',seed=1)", "usf(agreement=0.5)"])))
def test_lists_are_split_outside_of_parentheses(parts):
    assert cli.split(" , ".join(parts)) == (parts or [""])


def test_folders_that_cannot_be_written_are_told_before_training(tmp_path, capsys):
    (tmp_path / "brsf").write_text("a file where a folder must be")
    with pytest.raises(SystemExit):
        in_process("--rule=bp,brsf", f"--workdir={tmp_path}")
    assert str(tmp_path / "brsf") in capsys.readouterr().err
    assert not list(tmp_path.glob("backprop/seed0/train"))


def test_help_lists_every_flag():
    done = run("--help")
    for field in dataclasses.fields(training.Experiment):
        assert f"--{field.name}" in done.stdout or f"--[no]{field.name}" in done.stdout


def test_a_wrong_flag_ends_the_real_command_without_traceback(tmp_path):
    for arguments, status in ((["--rul=fa"], 2), (["--rule=nothing"], 1)):
        done = run(*arguments, f"--workdir={tmp_path}")
        errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        assert done.returncode == status
        assert len(errors) == 1
        assert "Traceback" not in done.stderr
