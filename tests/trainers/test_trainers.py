"""The command line: real runs, configs, and bad input told in one line."""

import contextlib
import dataclasses
import io
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import threading
import time

import keras
import numpy as np
import pytest
from absl import flags
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from tests.cases import ONE_OF_A_KIND, long_but
from tfbio import detection, models, rules, training
from tfbio.layers.sites import find_sites
from tfbio.metrics import AveragedLayers
from tfbio.studies import comparison, comparison_figure
from tfbio.studies.runs import Run, load_all
from tfbio.training import memory, tasks
from tfbio.training.records import read
from trainers import cli, command, compare

ROOT = pathlib.Path(__file__).parents[2]
CONFIGS = sorted(ROOT.glob("configs/**/*.cfg"))


CHAIN = f"--model={ROOT / 'tests' / 'user_networks.py'}:chain"
"""A network that is compiled soon."""


def run(*arguments, module="trainers.classify", cwd=ROOT):
    return subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def start(*arguments, module="trainers.classify", **environment):
    """Start the real command."""
    return subprocess.Popen(
        [sys.executable, "-m", module, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # What a shell starts in the background ignores Ctrl-C, and so would what that starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def parsed(*arguments, task="classification"):
    """Return the flags of a command line."""
    values = flags.FlagValues()
    command.define(values, task)
    cli.parse(values, ["trainer", *map(str, arguments)])
    return values


def configured(config):
    """Return the experiments of a config, by the trainer that its command names."""
    task = "detection" if "-m trainers.detect " in config.read_text() else "classification"
    values = parsed(f"--flagfile={config}", task=task)
    return compare.experiments(values, tasks.get(task).experiment)


def in_process(*arguments):
    """Do what the command does, without a process for each."""
    values = parsed(*arguments)
    command.act(values, "classification")
    return values


COMPARISON = ("--rule=backprop,usf(agreement=0.9)", "--seed=0,1", "--epochs=2", CHAIN,
              "--published=bp=3.5")  # fmt: skip


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """Return the folder of a comparison, and what its command printed."""
    path, printed = tmp_path_factory.mktemp("comparison"), io.StringIO()
    with contextlib.redirect_stdout(printed):
        in_process(*COMPARISON, f"--workdir={path}")
    return path, printed.getvalue()


@pytest.fixture
def finished(compared, tmp_path):
    """Return the folder of a finished run that a test may change."""
    (usf,) = compared[0].glob("sign_symmetry*")
    return shutil.copytree(usf / "seed0", tmp_path / "run")


def test_a_comparison_writes_table_figure_and_results(compared):
    path, printed = compared
    for text in ("Learning rules compared", "backprop", "sign_symmetry-agreement=0.9", "±",
                 "Try next", "seed 1: test accuracy", "published", "3.50"):  # fmt: skip
        assert text in printed
    document = json.loads((path / "results.json").read_text())
    assert len(document["runs"]) == 4
    for one in document["runs"]:
        assert 0.1 < one["summary"]["test_accuracy"] <= 1
        assert one["summary"]["seconds_per_step"] > 0
        (workdir,) = [flag for flag in one["flags"] if flag.startswith("--workdir=")]
        records = read(workdir.removeprefix("--workdir="))
        assert [record["step"] for record in records] == [0, 21, 42]
        assert one["starts"][0]["versions"]["keras"] == keras.__version__
    assert (path / "comparison.png").stat().st_size > 10_000


def test_a_comparison_trains_only_what_is_missing(compared, capsys):
    path, _ = compared
    runs = {name: path / "backprop" / name for name in ("seed0", "seed1")}
    before = {name: (run / "summary.json").read_bytes() for name, run in runs.items()}
    checkpoint = (runs["seed1"] / "checkpoints").iterdir().__next__().name
    (runs["seed1"] / "summary.json").unlink()
    in_process(*COMPARISON, f"--workdir={path}")
    assert (runs["seed0"] / "summary.json").read_bytes() == before["seed0"]
    again = json.loads((runs["seed1"] / "summary.json").read_text())
    assert again["resumed_at_steps"] == [42]
    assert again["test_accuracy"] == json.loads(before["seed1"])["test_accuracy"]
    assert (runs["seed1"] / "checkpoints").iterdir().__next__().name == checkpoint


def compare_runs(*arguments):
    """Do what the command `trainers.compare` does, without a process for it."""
    values = flags.FlagValues()
    compare.define(values)
    cli.parse(values, ["compare", *arguments])
    compare.run(values)


def test_finished_runs_are_compared_without_training(compared, tmp_path, capsys):
    path, _ = compared
    compare_runs(f"--runs={path / 'backprop'},", f"--workdir={tmp_path}")  # the comma adds nothing
    printed = capsys.readouterr().out
    assert "backprop" in printed
    assert "sign_symmetry" not in printed
    assert len(json.loads((tmp_path / "results.json").read_text())["runs"]) == 2
    with pytest.raises(SystemExit) as ended:
        compare_runs(f"--runs={tmp_path / 'none'}")
    assert ended.value.code == 1
    assert "no run in" in capsys.readouterr().err


def test_runs_are_grouped_by_what_they_differ_in_and_unfinished_ones_are_told(
    compared, tmp_path, capsys
):
    path, _ = compared
    runs = tmp_path / "runs"
    shutil.copytree(path / "backprop", runs / "backprop")
    (usf,) = path.glob("sign_symmetry*")
    shutil.copytree(usf / "seed0", runs / "cut")
    (runs / "cut" / "summary.json").unlink()
    shutil.copytree(usf / "seed1", runs / "other")
    text = (runs / "other" / "flags.cfg").read_text()
    text = text.replace("--last_layer_rule=", "--last_layer_rule=bp")
    (runs / "other" / "flags.cfg").write_text(text)
    (runs / "waits").mkdir()
    shutil.copy(runs / "cut" / "flags.cfg", runs / "waits")
    compare_runs(f"--runs={runs}", f"--workdir={tmp_path}")
    assert "waits has not begun, and is left out." in capsys.readouterr().out
    written = json.loads((tmp_path / "results.json").read_text())["runs"]
    assert [run["summary"] is None for run in written] == [False, False, True, False]
    assert (tmp_path / "comparison.png").stat().st_size > 10_000

    results = comparison.group_by_settings(load_all([runs]))
    columns = [list(column.cells) for column in comparison.table(results).columns]
    rows = {name: cells for name, *cells in zip(*columns, strict=True)}
    assert list(rows) == ["backprop", usf.name, f"{usf.name}, last_layer_rule=bp"]
    seconds = [
        json.loads((runs / name / "summary.json").read_text())["seconds_per_step"]
        for name in ("other", "backprop/seed1")
    ]
    assert rows[f"{usf.name}, last_layer_rule=bp"][1] == f"{seconds[0] / seconds[1]:.2f}"
    now = read(runs / "cut")[-1]["validation_accuracy"]
    assert rows[usf.name][:2] == ["–", "–"]
    assert rows[usf.name][-1] == f"2/2: {100 * now:.1f} validation"
    assert not rows["backprop"][-1]


def test_the_names_of_the_papers_rows_cover_no_curve(tmp_path, monkeypatch):
    from matplotlib import pyplot as plt

    runs = []
    for row in ("backprop", "sign_symmetry", "sign_symmetry_batch_manhattan"):
        values = parsed(f"--flagfile={ROOT}/configs/xiao2018/resnet18_{row}.cfg")
        (experiment,) = compare.experiments(values)
        records = [{"epoch": epoch, "accuracy": 0.1 * epoch} for epoch in (1, 2)]
        runs.append(Run(experiment, None, records, []))
    kept = []
    monkeypatch.setattr(plt, "close", kept.append)
    comparison_figure.draw(comparison.group_by_settings(runs), tmp_path / "figure.png")
    (figure,) = kept
    monkeypatch.undo()
    legends = [*figure.legends, *(axes.get_legend() for axes in figure.axes)]
    (box,) = [legend.get_window_extent() for legend in legends if legend]
    assert figure.bbox.x0 <= box.x0 < box.x1 <= figure.bbox.x1
    assert not any(box.overlaps(axes.get_window_extent()) for axes in figure.axes)
    plt.close(figure)


def test_the_figure_says_which_layers_are_averaged_and_shows_what_the_table_does(
    tmp_path, monkeypatch
):
    from matplotlib import pyplot as plt

    layers = AveragedLayers({"b": 100, "c": 100}, {"a": 50, "b": 100})
    runs = []
    for seed, angle in enumerate((60.0, 70.0, 86.0)):
        (experiment,) = compare.experiments(parsed("--rule=fa", f"--seed={seed}"))
        angles = {"a": 90.0, "b": angle, "c": angle}
        record = {f"weight_angle/{name}": value for name, value in angles.items()}
        record |= {"gradient_angle/a": angle, "gradient_angle/b": angle, "gradient_angle/c": 0.0}
        records = [{"epoch": epoch, "accuracy": 0.5, **record} for epoch in (1, 2)]
        runs.append(Run(experiment, {"test_accuracy": 0.5, "seconds_per_step": 1.0}, records, [],
                        layers))  # fmt: skip
    results = comparison.group_by_settings(runs)
    kept = []
    monkeypatch.setattr(plt, "close", kept.append)
    comparison_figure.draw(results, tmp_path / "figure.png")
    (figure,) = kept
    monkeypatch.undo()
    _, weights, gradients, _ = figure.axes
    assert "all layers but a" in weights.get_title()
    assert "all layers but c" in gradients.get_title()
    for axes in (weights, gradients):
        assert axes.get_lines()[0].get_ydata().tolist() == [72.0, 72.0]
        band = axes.collections[0].get_paths()[0].vertices[:, 1]
        assert (band.min(), band.max()) == pytest.approx((72 - 13.11, 72 + 13.11), abs=0.01)
    # Twice 57.3°/√100, over √2 layers.
    assert "90° ± 8.1° (2 sd)" in {text.get_text() for text in weights.texts}.pop()
    assert "n − 1" in figure.get_suptitle()
    table = comparison.table(results)
    assert list(table.columns[3].cells) == ["72.0 ± 13.1"]
    assert "all layers but a" in table.caption
    assert "n − 1" in table.caption
    plt.close(figure)


@pytest.mark.parametrize(
    ("scores", "bottom"), [((0.06, 0.8, 0.85, 0.84, 0.9, 0.88), 79), ((0.7, 0.8, 0.9), None)]
)
def test_a_bad_start_does_not_press_the_learning_curves_into_a_line(
    scores, bottom, tmp_path, monkeypatch
):
    from matplotlib import pyplot as plt

    (experiment,) = compare.experiments(parsed("--rule=fa"))
    records = [{"epoch": e, "accuracy": score} for e, score in enumerate(scores, start=1)]
    runs = [Run(experiment, None, records, [])]
    kept = []
    monkeypatch.setattr(plt, "close", kept.append)
    comparison_figure.draw(comparison.group_by_settings(runs), tmp_path / "figure.png")
    (figure,) = kept
    monkeypatch.undo()
    axes, whole = figure.axes[0], "Learning curves"
    assert axes.get_title() == (whole if bottom is None else f"{whole}, from {bottom} % on")
    assert axes.get_ylim()[0] < 80 if bottom is None else axes.get_ylim()[0] == pytest.approx(79)
    plt.close(figure)


@pytest.mark.long
def test_the_comparer_takes_one_run_too(tmp_path):
    done = run("--rule=fa", "--epochs=1", f"--workdir={tmp_path}", module="trainers.compare")
    assert done.returncode == 0, done.stderr
    assert "feedback_alignment" in done.stdout
    assert (tmp_path / "feedback_alignment" / "seed0" / "summary.json").exists()


def test_a_run_that_diverges_is_named_and_the_others_go_on(tmp_path, capsys):
    arguments = ("--rule=backprop,fa(scale=1e30)", "--epochs=1", "--telemetry_every=0",
                 f"--workdir={tmp_path}")  # fmt: skip
    with pytest.raises(SystemExit) as ended:
        in_process(*arguments)
    printed = capsys.readouterr().out
    assert ended.value.code == 1
    assert "The loss is no finite number at step" in printed
    good, bad = json.loads((tmp_path / "results.json").read_text())["runs"]
    assert good["diverged"] is None
    assert re.fullmatch(r"The loss is no finite number at step \d+\.", bad["diverged"])
    assert bad["summary"] is None
    assert "0/1" not in printed  # it is not unfinished
    assert re.search(r"feedback_alignment-scale=1e\+?30 │\s+diverged", printed)


def test_a_run_whose_loss_blows_up_does_not_end_like_a_good_one(tmp_path, capsys):
    # The default learning rate is too high for this rule.
    path = tmp_path / "fa"
    arguments = ("--rule=fa", "--epochs=5", "--telemetry_every=0", f"--workdir={path}")
    for _ in range(2):  # the second time, it is finished
        with pytest.raises(SystemExit) as ended:
            in_process(*arguments)
        assert ended.value.code == 1
        said = capsys.readouterr()
        assert "test accuracy" in said.out
        for text in ("The training has diverged.", "times that of guessing (2.3)",
                     "A lower --learning_rate may help"):  # fmt: skip
            assert text in said.err
    compare_runs(f"--runs={path}", f"--workdir={tmp_path}")
    assert re.search(r"feedback_alignment │\s+diverged", capsys.readouterr().out)
    (run,) = load_all([path])
    assert run.diverged == run.summary["diverged"]
    others = [run._replace(summary={**run.summary, "diverged": None, "test_accuracy": 0.5})] * 2
    scores = comparison.table({"fa": [run, *others]}).columns[1]
    assert list(scores.cells) == ["50.0 ± 0.0\n1 of 3 diverged"]


def test_modes_work_on_a_finished_run(finished, tmp_path, capsys):
    workdir = f"--workdir={finished}"
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    in_process("--mode=evaluate", workdir)
    assert f"test_accuracy {summary['test_accuracy']}" in capsys.readouterr().out
    (tmp_path / "images").mkdir()
    keras.utils.save_img(tmp_path / "images/image.png", np.zeros((8, 8, 1)))
    in_process("--mode=predict", f"--images={tmp_path / 'images'}", workdir)
    table = (tmp_path / "run" / "predictions.csv").read_text().splitlines()
    assert table[0] == "image,class,probability"
    assert len(table) == 2
    in_process("--mode=export", "--checkpoint=best", workdir)
    assert (tmp_path / "run" / "export" / "model.keras").exists()


def test_a_runs_flags_are_a_config(finished, tmp_path):
    values = parsed(f"--flagfile={finished / 'flags.cfg'}", f"--workdir={tmp_path / 'two'}")
    (experiment,) = compare.experiments(values)
    assert experiment.rule == "usf(agreement=0.9)"
    command.act(values, "classification")
    for name in ("metrics.csv", "data.json"):
        assert (finished / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_a_place_that_is_no_local_folder_is_left_as_it_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for place, kept in (("gs://bucket/imagenet", "gs://bucket/imagenet"), ("a", f"{tmp_path}/a")):
        (experiment,) = compare.experiments(parsed("--dataset=imagenet2012", f"--data_dir={place}"))
        assert experiment.data_dir == kept


RULE = """
import tfbio
from tfbio import detection

@tfbio.rules.register("third_sign")
class ThirdSign(tfbio.rules.LayerRule):
    def feedback(self, kernel):
        import tensorflow as tf
        return tf.sign(kernel) / 3
"""


def test_a_rule_of_ones_own_is_interrupted_measured_and_resumed(tmp_path, capsys):
    (tmp_path / "mine.py").write_text(RULE)
    path = tmp_path / "run"
    arguments = ("--rule=third_sign", f"--rule_module={tmp_path / 'mine.py'}", "--epochs=2", CHAIN,
                 "--telemetry_every=0", f"--workdir={path}")  # fmt: skip
    process = start(*arguments, "--checkpoint_every=1")  # the first is there early on
    while process.poll() is None and not list(path.glob("checkpoints/step-*")):
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    output, errors = process.communicate(timeout=240)
    assert process.returncode == 128 + signal.SIGTERM
    (saved,) = re.findall(r"Saved at step (\d+);", output)
    assert errors.endswith("error: Ended by SIGTERM.\n")
    assert "Traceback" not in errors

    # This process knows of the rule from the run's folder only.
    assert "third_sign" not in rules.names()
    in_process("--mode=evaluate", f"--workdir={path}")
    assert f"step {saved}\n" in capsys.readouterr().out
    in_process(*arguments)
    assert f"Going on from step {saved} of 42." in capsys.readouterr().out
    summary = json.loads((path / "summary.json").read_text())
    assert summary["sign_agreement"]["dense1"] == 1.0
    in_process("--mode=evaluate", f"--workdir={path}")
    assert f"test_loss {summary['test_loss']}" in capsys.readouterr().out


def header(config):
    """Return a config's comments at its beginning."""
    return re.match(r"(#.*\n)+", config.read_text()).group()


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_every_config_opens_with_a_header_and_parses(config):
    text = header(config)
    command = rf"# Command: python -m trainers.\w+ --flagfile={config.relative_to(ROOT)}"
    assert re.search(command, text)
    assert re.search("^# Published", text, re.MULTILINE) or config.parent == ROOT / "configs"
    for experiment in configured(config):
        published = experiment.published_errors()
        for error in published.values():
            assert f"{error:.2f} %" in text


def one_of_each():
    """Return a config for every pair of a network and a rule that the configs have."""
    found = {}
    for config in CONFIGS:
        for experiment in configured(config):
            # The rules' own options do not make another program. Detectors: test_detect.py.
            if isinstance(experiment, detection.Detection):
                continue
            # Nor do more of the same blocks; that they train is in test_models.py.
            model = re.sub(r"^resnet(32|56)$", "resnet20", experiment.model)
            model = re.sub(r"^(bartunov_\w+)_(cifar|imagenet)$", r"\1_mnist", model)
            # In a first turn not all learns: test_target_propagation.py.
            if "alternating" in experiment.rule:
                continue
            found.setdefault((model, experiment.rule.split("(")[0]), config)
    return found


SMALL = ("akrout_mnist", "bartunov_fc_mnist", "digits_cnn", "lenet")
"""Networks that take a step soonest."""
PAIRS = sorted(one_of_each().items(), key=lambda each: each[0][0] not in SMALL)


def with_a_step():
    """Return a few pairs of `one_of_each` in which every network and every rule is found.

    Compiling a step of every pair would take minutes.
    """
    networks, rules, found = set(), set(), set()
    for (network, rule), _ in PAIRS:
        if network not in networks or rule not in rules:
            found.add((network, rule))
        networks.add(network)
        rules.add(rule)
    return found


OF_EACH_KIND = [
    next(each for each in PAIRS if rules.get(each[0][1]).alias == rule)
    for rule in (*ONE_OF_A_KIND, "sdtp")
]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Return a folder of a few colored images of ten classes."""
    root = tmp_path_factory.mktemp("images")
    draw = np.random.default_rng(0)
    for part, count in (("train", 3), ("test", 1)):
        for label in range(10):
            place = root / part / str(label)
            place.mkdir(parents=True)
            for index in range(count):
                image = draw.integers(0, 256, (32, 32, 3))
                keras.utils.save_img(place / f"{index}.png", image, scale=False)
    return root


def as_configured(pair, config, images, tmp_path):
    """Return the pair's experiment, on a few small images."""
    values = parsed(
        f"--flagfile={config}",
        "--dataset=folder",
        f"--data_dir={images}",
        f"--image_size={64 if pair[0] == 'alexnet' else 32}",
        "--epochs=1",
        "--nodrop_remainder",  # there are fewer images than a batch takes
        "--schedule=constant",
        "--milestones=",
        "--cosine_epochs=0",
        "--final_learning_rate=0",
        "--schedule_by=step",
        "--warmup_epochs=0",
        f"--workdir={tmp_path}",
    )
    (experiment, *_) = [e for e in compare.experiments(values) if e.rule.split("(")[0] == pair[1]]
    return experiment


@pytest.mark.parametrize(
    ("pair", "config"),
    long_but(OF_EACH_KIND, PAIRS),
    ids=lambda value: str(getattr(value, "stem", "")),
)
def test_each_network_is_prepared_under_each_rule_as_configured(pair, config, images, tmp_path):
    experiment = as_configured(pair, config, images, tmp_path)
    with memory.freed():
        model = training.prepare(experiment).model
        found = {site.rule.alias for site in find_sites(model).values()}
        named = [experiment.rule, experiment.last_layer_rule or experiment.rule]
        assert found == {rules.get(name).alias for name in named}
        assert model.optimizer.built


CHOSEN = with_a_step()
STEPPED = [each for each in PAIRS if each[0] in CHOSEN]
OF_TWO_NETWORKS = [
    next(each for each in STEPPED if each[0][0] == network) for network in ("digits_cnn", "lenet")
]


@pytest.mark.parametrize(
    ("pair", "config"),
    long_but(OF_TWO_NETWORKS, STEPPED),
    ids=lambda value: str(getattr(value, "stem", "")),
)
def test_a_step_as_configured_changes_the_weights(pair, config, images, tmp_path):
    with memory.freed():
        prepared = training.prepare(as_configured(pair, config, images, tmp_path))
        variables = prepared.model.trainable_variables
        before = [w.numpy() for w in variables]
        taken, finite = training.loop.Loop(prepared).train(iter(prepared.epoch(0, 0)), 1)
        assert (taken, finite) == (1, True)
        changed = {
            w.path: (w.numpy() != old).any() for w, old in zip(variables, before, strict=True)
        }
        if pair[0] == "kunin_resnet18":  # its blocks begin as the identity: γ = 0 stops the error
            inner = [path for path in changed if "_1_norm/" in path]
            assert len(inner) == 16
            assert not any(changed.pop(path) for path in inner)
        assert np.mean(list(changed.values())) > 0.9


BAD = [
    (["--rul=fa"], "rul", 2),
    (["--epochs=many"], "--epochs must be an integer. Received: 'many'", 2),
    (["--learning_rate=a: b"], "--learning_rate must be a number. Received: 'a: b'", 2),
    (["--jit=maybe"], "--jit must be true or false. Received: 'maybe'", 2),
    (["--flagfile=/none.cfg"], "--flagfile must be a file of flags, a line each. Received: /no", 2),
    ([f"--workdir={ROOT / 'setup.cfg'}"], "setup.cfg is, or is in, a file and no folder", 1),
    (["--flagfile="], "--flagfile must be a file's path. Received: none", 2),
    ([f"--flagfile={ROOT / 'docs/demo.png'}"], "--flagfile must be a file of text in UTF-8", 2),
    (["fa"], "Unexpected argument 'fa'", 2),
    (["--rule=sign_symetry"], "--rule: Unknown rule 'sign_symetry'. Did you mean", 1),
    (["--rule=frsf(scale=-1)"], "--rule: `scale` must be", 1),
    (["--rule=fa,fa"], "must not name one twice", 1),
    (["--rule="], "--rule", 1),
    (["--last_layer_rule=none"], "--last_layer_rule: Unknown rule 'none'", 1),
    (["--dataset=fashon_mnist"], "Did you mean 'fashion_mnist'", 1),
    (["--model=lennet"], "--model: Unknown model 'lennet'. Did you mean 'lenet'", 1),
    (["--model=keras:ResNet51"], "--model: Unknown model", 1),
    (["--model=none.py:network"], "--model: ", 1),
    (["--rule_module=none.py"], "--rule_module: ", 1),
    (["--weights=none.weights.h5"], "--weights: there is no file", 1),
    (["--overrides=conv1"], "--overrides must be names with values", 1),
    (["--overrides=conv1=nothing"], "--overrides: Unknown rule 'nothing'", 1),
    (["--overrides=none*=bp"], "--overrides has a pattern that matches no kernel layer: 'none", 1),
    ([f"--weights={ROOT / 'setup.cfg'}"], "--weights must be '', 'imagenet' or a file ending", 1),
    (["--weights=imagenet"], "--weights 'imagenet' is there for the networks of keras.app", 1),
    (["--optimizer=sgdd"], "--optimizer must be one of sgd, nesterov, rmsprop, adam, adamw", 1),
    (["--optimizer=adam", "--momentum=0.5"], "--momentum belongs to sgd, nesterov, rmsprop", 1),
    (["--optimizer=nesterov", "--momentum=0"], "--optimizer=nesterov needs a --momentum", 1),
    (["--weight_decay=-1"], "--weight_decay must be a finite number of 0 or more", 1),
    (["--weight_decay=inf"], "--weight_decay must be a finite number of 0 or more", 1),
    (["--schedule=step"], "--schedule=step and --milestones go together", 1),
    (["--milestones=5"], "--schedule=step and --milestones go together", 1),
    (["--warmup_epochs=30"], "--warmup_epochs must end before", 1),
    (["--augmentation=mixup"], "--augmentation must be one of none, flip, crop_flip", 1),
    (["--batch_manhattan=yes"], "--batch_manhattan must be one of none, hidden, last, all", 1),
    (["--precision=float8"], "--precision must be one of float32", 1),
    (["--strategy=mirrored", "--jit"], "--jit does not go with --strategy=mirrored", 1),
    (["--strategy=mirrored", "--batch_size=33"], "must divide by their number, 2", 1),
    (["--published=bp"], "--published must be names with values", 1),
    (["--published=bp=101"], "--published must be errors of 0 to 100 %", 1),
    (["--mode=test"], "--mode must be one of train, evaluate, predict, export", 1),
    (["--mode=evaluate"], "--workdir must be a run's folder, with its flags.cfg", 1),
    (["--mode=predict"], "--images and --mode=predict go together", 1),
    (["--output=x"], "--output does not go with --mode=train", 1),
    (["--checkpoint=best"], "--checkpoint does not go with --mode=train", 1),
    (["--log_every=-1"], "--log_every must be an integer of 0 to", 1),
    (["--checkpoint_every=0"], "--checkpoint_every must be an integer of 1 to", 1),
    (["--keep_checkpoints=0"], "--keep_checkpoints must be an integer of 1 to", 1),
    (["--model=lenet"], "32 or more pixels a side. Received: (8, 8, 1)", 1),
    (
        ["--dataset=fashion_mnist", "--data_dir=/none"],
        "--data_dir must be an existing folder. Received: '/none'",
        1,
    ),
    (["--data_dir=/none"], "--data_dir must be empty for digits", 1),
    (["--epochs=0"], "--epochs must be an integer of 1 to 1000000. Received: 0", 1),
    (["--batch_size=-1"], "--batch_size must be an integer of 1 to 1000000. Received: -1", 1),
    (["--learning_rate=0"], "--learning_rate must be a finite number greater than 0", 1),
    (["--learning_rate=nan"], "--learning_rate must be a finite number greater than 0", 1),
    (["--learning_rate=1e39"], "and at most 1000000. Received: 1e+39", 1),
    (
        ["--momentum=1"],
        "--momentum must be a finite number of 0 or more and less than 1. Received: 1.0",
        1,
    ),
    (
        ["--validation_fraction=1.5"],
        "--validation_fraction must be a finite number of 0 or more",
        1,
    ),
    (["--seed=-1"], "--seed must be", 1),
    (["--seed=1,x"], "--seed must be", 1),
    (["--schedule=step", "--milestones=5,x"], "--milestones must be integers", 1),
    (["--schedule=step", "--milestones=8,5"], "--milestones must be epochs in ascending order", 1),
    (["--schedule=step", "--milestones=40"], "less than --epochs=30", 1),
    (["--validation_fraction=0.9999"], "leaves 0 and 1437 of 1437 images", 1),
    (["--train_fraction=0"], "--train_fraction must be more than 0", 1),
    (["--validation_fraction=0.0001"], "leaves 1437 and 0 of 1437 images", 1),
    (["--image_size=2147483647"], "--image_size must be an integer of 0 to 4096", 1),
    (["--batch_size=99999999999999999999"], "--batch_size must be an integer of 1 to", 1),
    (["--workdir="], "--workdir must not be empty", 1),
    (["--published=bp=9,\nfa=13"], "--published must be one line of text", 1),
    (["--published=bp=9\n"], "--published must be one line of text", 1),
    (["--overrides=conv1=bp;\u2028conv2=fa"], "--overrides must be one line of text", 1),
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


@settings(max_examples=100)
@given(
    flag=st.sampled_from(
        [
            (task, field.name)
            for task in tasks.names()
            for field in dataclasses.fields(tasks.get(task).experiment)
        ]
    ),
    text=st.text(max_size=12) | st.integers().map(str) | st.floats().map(str),
)
def test_any_value_of_any_flag_is_taken_or_refused_without_a_traceback(flag, text):
    task, name = flag
    try:
        values = parsed(f"--{name}={text}", task=task)
        experiments = compare.experiments(values, tasks.get(task).experiment)
    except (SystemExit, ValueError) as error:
        assert name in str(error) or isinstance(error, SystemExit)  # noqa: PT017
    else:
        assert experiments


@settings(max_examples=60)
@given(
    st.binary(max_size=60)
    | st.lists(st.sampled_from(["--epochs=3", "--rule=fa", "# note", "--", "-", "--x", "--jit=a",
                                "--flagfile=none.cfg", "--milestones", "\0", "=", "--epochs"]))
    .map(lambda lines: "\n".join(lines).encode())
)  # fmt: skip
def test_any_flagfile_is_taken_or_refused_without_a_traceback(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("flags") / "any.cfg"
    path.write_bytes(content)
    try:
        experiments = compare.experiments(parsed(f"--flagfile={path}"))
    except (SystemExit, ValueError):
        return
    assert experiments


def test_the_bar_is_drawn_without_a_thread():
    # Rich's imports as it draws, and fails while TensorFlow Datasets is imported.
    shown, threads = io.StringIO(), threading.active_count()
    with cli.progress(Console(force_terminal=True, file=shown)) as (_, bar):
        bar("frsf")(1, 2)
        assert threading.active_count() == threads
        assert "1/2 steps" in shown.getvalue()


@given(st.lists(st.sampled_from(["fa", "frsf(scale='unit',seed=1)", "usf(agreement=0.5)"])))
def test_lists_are_split_outside_of_parentheses(parts):
    assert cli.split(" , ".join(parts)) == (parts or [""])


def test_folders_that_cannot_be_written_are_told_before_training(tmp_path, capsys):
    (tmp_path / "brsf").write_text("a file where a folder must be")
    with pytest.raises(SystemExit):
        in_process("--rule=bp,brsf", f"--workdir={tmp_path}")
    assert str(tmp_path / "brsf") in capsys.readouterr().err
    assert not list(tmp_path.glob("backprop/seed0/train"))


def test_a_tilde_is_the_home_folder():
    home = os.path.expanduser("~")
    values = parsed("--mode=predict", "--workdir=~/run", "--images=~/photos", "--output=out")
    assert (values.workdir, values.images) == (f"{home}/run", f"{home}/photos")
    assert values.output == "out"


def test_weights_of_another_network_are_told_by_their_flag(tmp_path, capsys):
    path = tmp_path / "other.weights.h5"
    models.build("lenet", 10, (32, 32, 1)).save_weights(path)
    with pytest.raises(SystemExit):
        in_process(f"--weights={path}", f"--workdir={tmp_path / 'run'}")
    wanted = f"error: --weights: the file '{path}' does not hold those of model 'digits_cnn'."
    assert capsys.readouterr().err.startswith(wanted)


@pytest.mark.parametrize("damage", ["missing", "empty", "damaged"])
def test_wrong_images_to_predict_are_named(compared, tmp_path, capsys, damage):
    images = tmp_path / "images"
    if damage != "missing":
        images.mkdir()
    if damage == "damaged":
        (images / "a.png").write_bytes(b"no image")
    with pytest.raises(SystemExit):
        in_process("--mode=predict", f"--images={images}", f"--output={tmp_path / 'new' / 'a.csv'}",
                   f"--workdir={compared[0] / 'backprop' / 'seed0'}")  # fmt: skip
    wanted = {
        "missing": f"error: --images must be an existing folder. Received: '{images}'.\n",
        "empty": f"error: --images: {images} holds no images: ",
        "damaged": f"error: {images / 'a.png'} cannot be read as an image.\n",
    }
    assert capsys.readouterr().err.startswith(wanted[damage])


@pytest.mark.parametrize(
    "module",
    [
        "trainers.attack",
        "trainers.classify",
        "trainers.compare",
        "trainers.detect",
        "trainers.search",
    ],
)
def test_an_interrupt_while_tensorflow_is_imported_is_told_in_one_line(tmp_path, module):
    # Many short waits: a signal that comes just before one is heeded after it.
    (tmp_path / "tensorflow.py").write_text(
        "import time\nprint('importing', flush=True)\nfor _ in range(600):\n    time.sleep(0.1)\n"
    )
    process = start(module=module, PYTHONPATH=str(tmp_path))
    assert process.stdout.readline() == "importing\n"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (130, "error: Ended by SIGINT.\n")


def test_help_lists_every_flag():
    text = parsed().main_module_help()
    for field in dataclasses.fields(training.Classification):
        assert f"--{field.name}" in text or f"--[no]{field.name}" in text


@pytest.mark.long
def test_help_is_what_the_real_command_prints():
    assert "--rule:" in run("--help").stdout


@pytest.mark.long
@pytest.mark.parametrize(("flag", "status"), [("--rul=fa", 2), ("--rule=nothing", 1)])
def test_a_wrong_flag_ends_the_real_command_without_traceback(tmp_path, flag, status):
    done = run(flag, f"--workdir={tmp_path}")
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.returncode == status
    assert len(errors) == 1
    assert "Traceback" not in done.stderr
