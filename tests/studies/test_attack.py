"""Attacks: against oracles, within their ball, by either gradient; and the trainer on real runs."""

import json
import pathlib
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf
from absl import flags
from hypothesis import given, settings
from hypothesis import strategies as st

import tfbio
from tests.trainers.test_trainers import in_process
from tfbio import attacks, detection, models, training
from tfbio.studies import robustness, robustness_report
from tfbio.studies.attack_options import Attack
from tfbio.training import folder, preparation, use
from trainers import attack as trainer
from trainers import cli


def linear(dtype="float64", scale=1.0, seed=0):
    """Return a linear classifier of five pixels and three classes, and its kernel and bias."""
    layer = keras.layers.Dense(3, dtype=dtype)
    model = keras.Sequential([keras.Input((5,), dtype=dtype), layer])
    generator = np.random.default_rng(seed)
    kernel, bias = scale * generator.normal(size=(5, 3)), scale * generator.normal(size=3)
    model.set_weights([kernel, bias])
    return model, kernel, bias


def pixels(shape, seed=1, dtype="float64"):
    return np.random.default_rng(seed).uniform(size=shape).astype(dtype)


def cross_entropys(x, y, kernel, bias):
    """Return ∇L = (p − onehot) Wᵀ and p_y, by hand."""
    logits = x @ kernel + bias
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    return (p - np.eye(3)[y]) @ kernel.T, p[np.arange(len(y)), y]


def test_fgsm_is_that_of_a_linear_classifier_by_hand():
    model, kernel, bias = linear()
    x, y = pixels((8, 5)), np.arange(8) % 3
    expected, true = cross_entropys(x, y, kernel, bias)
    # ∇L = σ(m) ∇m, and σ(m) = 1 − p_y.
    found = attacks.gradient(model, tf.constant(x), tf.constant(y))
    np.testing.assert_allclose((1 - true)[:, None] * found, expected, rtol=1e-12, atol=1e-14)
    for eps in (0.01, 0.3):
        changed = attacks.fgsm(model, x, y, eps)
        assert changed.dtype == tf.float64
        by_hand = np.clip(x + eps * np.sign(expected), 0, 1)
        np.testing.assert_array_equal(changed, by_hand)


def test_a_sure_classifier_is_attacked_in_the_same_direction():
    # p_y is 1 in float32: ∇L would be that of the other classes alone, or zero.
    x, y = pixels((8, 5), dtype="float32"), np.arange(8) % 3
    one, kernel, bias = linear("float32", scale=1)
    sure, *_ = linear("float32", scale=1e4)
    logits = x @ kernel + bias
    y = logits.argmax(axis=1)
    two_best = np.sort(logits, axis=1)[:, -2:]
    assert (1e4 * np.diff(two_best) > 104).all()  # exp(−104) is 0 in float32
    # All but the nearest class count for nothing here.
    nearest = np.argsort(logits, axis=1)[:, -2]
    expected = np.sign(kernel.T[nearest] - kernel.T[y])
    np.testing.assert_array_equal(tf.sign(attacks.gradient(sure, x, y)), expected)
    assert not np.array_equal(one.get_weights()[0], sure.get_weights()[0])


@settings(max_examples=12)
@given(
    eps=st.floats(0, 1, width=32),
    steps=st.integers(1, 5),
    size=st.none() | st.floats(0, 2, width=32),
    restarts=st.integers(1, 2),
    seed=st.integers(0, 2**31 - 1),
)
def test_attacks_stay_in_the_ball_and_in_the_range_of_images(eps, steps, size, restarts, seed):
    model, *_ = linear("float32")
    x, y = pixels((4, 5), seed=2, dtype="float32"), np.array([0, 1, 2, 0])
    x[0, :2] = 0, 1
    for changed in (
        attacks.fgsm(model, x, y, eps),
        attacks.pgd(model, x, y, eps, steps, size, seed=seed, restarts=restarts),
    ):
        changed = changed.numpy()
        assert changed.min() >= 0
        assert changed.max() <= 1
        assert (np.abs(changed.astype("float64") - x) <= eps + 1e-7).all()
        if not eps:
            np.testing.assert_array_equal(changed, x)


def test_a_start_depends_on_seed_index_and_restart_alone():
    model, *_ = linear("float32")
    x, y = np.full((6, 5), 0.5, "float32"), np.zeros(6, int)

    def start(images, **more):
        return attacks.pgd(model, images, y[: len(images)], 0.25, 1, 0.0, **more).numpy()

    whole = start(x, seed=3)
    parts = [start(x[:4], seed=3, indices=np.arange(4)), start(x[4:], seed=3, indices=[4, 5])]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    compiled = tf.function(lambda x: attacks.pgd(model, x, y, 0.25, 1, 0.0, seed=3))
    np.testing.assert_array_equal(compiled(x), whole)
    assert len(np.unique(whole.round(6))) == whole.size
    assert not np.array_equal(start(x, seed=4), whole)
    # Of two starts the worse one is kept: for some images the second, unless both are the same.
    assert not np.array_equal(start(x, seed=3, restarts=2), whole)


def test_a_start_is_uniform_in_the_ball():
    layers = [keras.Input((100, 100, 1)), keras.layers.Flatten(), keras.layers.Dense(2)]
    x = np.full((2, 100, 100, 1), 0.5, "float32")
    start = attacks.pgd(keras.Sequential(layers), x, np.zeros(2, int), 0.25, 1, 0.0)
    noise = (start.numpy() - x) / 0.25
    assert -1 <= noise.min() < -0.99
    assert 0.99 < noise.max() <= 1
    assert abs(noise.mean()) < 0.02
    assert abs(noise.std() - 3**-0.5) < 0.01  # a wider one, cut off at the ball, has more


def test_one_step_without_a_start_is_fgsm():
    model, *_ = linear("float32")
    x, y = pixels((8, 5), dtype="float32"), np.arange(8) % 3
    once = attacks.pgd(model, x, y, 0.1, 1, 0.1, random_start=False)
    np.testing.assert_array_equal(once, attacks.fgsm(model, x, y, 0.1))
    default = attacks.pgd(model, x, y, 0.1, 5, seed=1)
    np.testing.assert_array_equal(default, attacks.pgd(model, x, y, 0.1, 5, 0.05, seed=1))


def test_what_has_no_finite_gradient_stays_as_it_is():
    def of(function):
        inputs = keras.Input((2,))
        return keras.Model(inputs, keras.layers.Lambda(function)(inputs))

    x, y = np.array([[0.25, 0.5]], "float32"), [0]
    for function in (
        lambda x: tf.nn.relu(x - 2.0),  # masked
        lambda x: tf.stop_gradient(x),  # unconnected
        lambda x: tf.sqrt(x - x) + x,  # not a number
    ):
        np.testing.assert_array_equal(attacks.fgsm(of(function), x, y, 0.1), x)
    partly = attacks.fgsm(of(lambda x: x * tf.constant([0.0, 1.0])), x, y, 0.125)
    np.testing.assert_array_equal(partly, [[0.25, 0.625]])


def test_bytes_stand_for_0_to_1():
    model, *_ = linear("float32")
    x = np.random.default_rng(0).integers(0, 256, (4, 5)).astype("uint8")
    y = np.arange(4) % 3
    floats = (x / np.float32(255)).astype("float32")
    for function in (attacks.fgsm, attacks.pgd):
        np.testing.assert_array_equal(
            function(model, x, y, 8 / 255), function(model, floats, y, 8 / 255)
        )


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"eps": -0.1}, "`eps` must be 0 to 1, in units of the images' range.*Received: -0.1"),
        ({"eps": 8}, "`eps` must be 0 to 1.*Received: 8"),
        ({"eps": float("nan")}, "`eps` must be 0 to 1.*Received: nan"),
        ({"steps": 0}, "`steps` must be an integer of 1 or more. Received: 0"),
        ({"steps": 2.0}, "`steps` must be an integer of 1 or more. Received: 2.0"),
        ({"step_size": -1.0}, "`step_size` must be a finite number of 0 or more. Received: -1.0"),
        ({"restarts": 0}, "`restarts` must be an integer of 1 or more"),
        ({"restarts": 2, "random_start": False}, "`restarts` needs `random_start`"),
        ({"seed": -1}, "`seed` must be an integer of 0 or more"),
        ({"images": np.full((2, 5), 255.0)}, "`images` must be of 0 to 1.*255 to 255"),
        ({"images": np.full((2, 5), np.nan)}, "`images` must be of 0 to 1"),
        ({"model": keras.Sequential([keras.Input((5,)), keras.layers.Dense(1)])}, "two or more"),
    ],
)
def test_wrong_arguments_are_told(more, message):
    given = {"model": linear()[0], "images": pixels((2, 5)), "labels": [0, 1], "eps": 0.1, **more}
    with pytest.raises(ValueError, match=message):
        attacks.pgd(**given)
    with pytest.raises(TypeError, match="floating-point of 0 to 1, or uint8"):
        attacks.fgsm(given["model"], np.ones((2, 5), int), [0, 1], 0.1)


def test_an_attack_trains_nothing():
    model = models.build("digits_cnn", 10, (8, 8, 1))
    model = keras.Sequential([*model.layers[:-1], keras.layers.BatchNormalization(),
                              keras.layers.Dropout(0.5), model.layers[-1]])  # fmt: skip
    model.build((None, 8, 8, 1))
    tfbio.convert(model, "brsf")
    kernel = model.get_layer("conv1").kernel
    kernel.assign_add(tf.ones_like(kernel))  # a training call would take a step for it
    before = [np.array(variable) for variable in model.variables]
    x, y = pixels((4, 8, 8, 1), dtype="float32"), np.arange(4)
    once, again = (attacks.pgd(model, x, y, 0.1, 3) for _ in range(2))
    np.testing.assert_array_equal(once, again)
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Return a folder with a run under backprop and one under feedback alignment."""
    path = tmp_path_factory.mktemp("attacked")
    in_process("--rule=backprop,fa", "--epochs=6", "--learning_rate=0.02", "--telemetry_every=0",
               f"--workdir={path}")  # fmt: skip
    return path


@pytest.fixture(scope="module")
def trained(runs):
    """Return (a function from a rule to its network, 100 test images, their labels)."""
    found = {}
    for rule in ("backprop", "feedback_alignment"):
        path = runs / rule / "seed0"
        _, prepared = use.measurable(folder.read_flags(path))
        found[rule] = prepared.model
    images, labels = prepared.dataset.test
    return found.get, images[:100], labels[:100]


def losses(model, images, labels):
    logits = model(images, training=False)
    return keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True).numpy()


def test_pgd_is_at_least_as_strong_as_fgsm_and_restarts_help(trained):
    network, x, y = trained
    model = network("backprop")
    fgsm = tf.function(lambda eps: attacks.fgsm(model, x, y, eps))
    pgd = tf.function(lambda eps: attacks.pgd(model, x, y, eps, 10))
    for eps in tf.constant([8 / 255, 32 / 255]):
        by_fgsm, by_pgd = losses(model, fgsm(eps), y), losses(model, pgd(eps), y)
        assert losses(model, x, y).mean() < by_fgsm.mean() <= by_pgd.mean()
    one, both = (attacks.pgd(model, x, y, eps, 2, restarts=r) for r in (1, 2))
    wrong, of_both = (np.argmax(model(images), axis=1) != y for images in (one, both))
    assert (of_both >= wrong).all()
    worse = losses(model, both, y) >= losses(model, one, y)
    assert (worse | (of_both & ~wrong)).all()
    assert not np.array_equal(one, both)


def test_the_true_gradient_is_that_of_the_plain_network(trained):
    network, x, y = trained
    for rule in ("backprop", "feedback_alignment"):
        model = network(rule)
        plain = models.build("digits_cnn", 10, (8, 8, 1))
        for layer in plain.layers:
            if layer.weights:
                own = model.get_layer(layer.name)
                layer.set_weights([own.kernel.numpy(), own.bias.numpy()])
        expected = attacks.gradient(plain, x, y)
        by_rule = attacks.gradient(model, x, y)
        with tfbio.true_gradient(model):
            true = attacks.gradient(model, x, y)
        np.testing.assert_allclose(true, expected, rtol=1e-4, atol=1e-6)
        if rule == "backprop":
            np.testing.assert_array_equal(by_rule, true)
        else:
            angle = tfbio.metrics.angle(by_rule, true)
            assert 45 < angle < 90


def test_results_do_not_depend_on_the_batch(runs):
    experiment = folder.read_flags(runs / "feedback_alignment" / "seed0")
    # Noise alone, more or less, and much of it: which image has which decides.
    options = {"epsilons": "0.5", "examples": 300, "steps": 1, "step_size": 1e-6, "attacks": "pgd"}
    whole, parts = (
        robustness.measure(experiment, Attack(**options, batch_size=size)) for size in (300, 64)
    )
    assert whole == parts
    assert whole.examples == 300
    assert 0.2 < whole.accuracy["pgd", "true", "0.5"] < whole.clean - 0.1


def test_a_mixed_precision_network_is_attacked_in_float32(tmp_path):
    options = {"rule": "fa", "precision": "mixed_float16", "workdir": str(tmp_path)}
    prepared = preparation.prepare(training.Classification(**options))
    model = robustness.build_float32(prepared)
    assert {layer.compute_dtype for layer in model.layers} == {"float32"}
    for name in ("conv1", "logits"):
        own, theirs = model.get_layer(name), prepared.model.get_layer(name)
        np.testing.assert_array_equal(own.kernel, theirs.kernel)
        np.testing.assert_array_equal(own.feedback, theirs.feedback)


def attacked(*arguments):
    values = flags.FlagValues()
    trainer.define(values)
    cli.parse(values, ["attack", *map(str, arguments)])
    trainer.run(values)


def contents(path):
    return {p: p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}


def test_the_command_compares_rules_in_table_figure_and_results(runs, tmp_path, capsys):
    before = contents(runs)
    arguments = (f"--runs={runs}", "--epsilons=0,16/255,0.25", "--steps=5", f"--output={tmp_path}")
    attacked(*arguments)
    printed = capsys.readouterr().out
    for text in ("Accuracy under attack", "backprop", "feedback_alignment", "pgd, true", "16/255",
                 "360 images of the test split", str(tmp_path / "attack.png")):  # fmt: skip
        assert text in printed
    assert contents(runs) == before
    assert (tmp_path / "attack.png").stat().st_size > 10_000
    written = json.loads((tmp_path / "attack.json").read_text())
    assert written["attack"] == {**vars(Attack()), "epsilons": "0,16/255,0.25",
                                 "steps": 5}  # fmt: skip
    assert written["versions"]["keras"] == keras.__version__
    assert {"git", "command", "machine"} <= set(written)
    accuracy = {}
    for one, rule in zip(written["runs"], ("backprop", "feedback_alignment"), strict=True):
        summary = json.loads((runs / rule / "seed0" / "summary.json").read_text())
        assert one["clean_accuracy"] == summary["test_accuracy"]
        assert (one["step"], one["examples"]) == (summary["steps"], 360)
        assert f"--rule={'fa' if rule == 'feedback_alignment' else rule}" in one["flags"]
        assert one["zero_gradients"] == {"true": 0.0, "rule": 0.0}
        for row in one["attacked"]:
            key = (rule, row["attack"], row["gradient"], round(255 * row["epsilon"]))
            accuracy[key] = row["accuracy"]
        for kind in ("fgsm", "pgd"):
            for gradient in ("true", "rule"):
                assert accuracy[rule, kind, gradient, 0] == summary["test_accuracy"]
            true = [accuracy[rule, kind, "true", eps] for eps in (0, 16, 64)]
            assert true[0] > true[1] > true[2]
            own = [accuracy[rule, kind, "rule", eps] for eps in (0, 16, 64)]
            assert own == true if rule == "backprop" else own[2] > true[2] + 0.3


def test_a_run_is_attacked_in_its_folder_finished_or_not(runs, tmp_path, capsys):
    path = tmp_path / "run"
    shutil.copytree(runs / "backprop" / "seed0", path)
    (path / "summary.json").unlink()
    attacked(f"--run={path}", "--epsilons=0.1", "--attacks=fgsm", "--gradients=true",
             "--split=validation", "--checkpoint=best", "--examples=30")  # fmt: skip
    assert f"{path} is not finished: attacked as of step" in " ".join(
        capsys.readouterr().out.split()
    )
    (one,) = json.loads((path / "attack.json").read_text())["runs"]
    assert one["finished"] is False
    assert one["examples"] == 30
    assert [row["attack"] for row in one["attacked"]] == ["fgsm"]
    assert (path / "attack.png").exists()


def test_the_figure_tells_the_gradients_apart(tmp_path, monkeypatch):
    from matplotlib import pyplot as plt

    attack = Attack(epsilons="8/255,0", attacks="pgd")
    accuracy = {("pgd", g, t): 0.5 for g in ("true", "rule") for t in ("8/255", "0")}
    found = robustness.Robustness(1, 10, 0.5, {"true": 0, "rule": 0}, accuracy)
    kept = []
    monkeypatch.setattr(plt, "close", kept.append)
    names = [*(f"rule {index}" for index in range(8)), "rule, " + "of many options " * 3]
    results = {name: [found, found] for name in names}
    robustness_report.figure(results, attack, tmp_path / "a.png")
    (figure,) = kept
    monkeypatch.undo()
    lines = figure.axes[0].get_lines()
    assert [line.get_linestyle() for line in lines[:2]] == ["-", "--"]
    assert lines[0].get_xdata() == pytest.approx([0, 8])
    looks = {(line.get_color(), line.get_marker(), line.get_linestyle()) for line in lines}
    assert len(looks) == len(lines) == 18
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        *names, "true gradient", "the rule's own gradient"
    ]  # fmt: skip
    monkeypatch.setattr(plt, "close", kept.append)
    short = {name: results[name] for name in names[:8]}  # beside the panels
    robustness_report.figure(short, attack, tmp_path / "b.png")
    monkeypatch.undo()
    for figure in kept:
        box = figure.legends[0].get_window_extent()
        assert figure.bbox.x0 <= box.x0 < box.x1 <= figure.bbox.x1
        assert not box.overlaps(figure.axes[0].get_window_extent())
        plt.close(figure)
    masked = [found._replace(masked={"rule": 0.25, "true": 0.0})] * 2
    (line,) = robustness_report.describe_masked({"fa": masked})
    assert line.startswith("fa: the rule gradient of 4 of 20 images is zero")


BAD = [
    ([], "Give --run, the folder of a run, or --runs"),
    (["--run={run}", "--runs={run}"], "Give --run, the folder of a run, or --runs"),
    (["--run=/none"], "--run must be a run's folder, with its flags.cfg. Received: '/none'"),
    (["--runs=/none"], "--runs: no run in '/none'"),
    (["--runs={run},{run}"], "--output must be a folder where --runs names several"),
    (["--run={detection}"], "--run: {detection} holds a run of detection. Give one of"),
    (["--run={begun}"], "--run: {begun} has no last checkpoint. Give a run that was trained"),
    (["--run={begun}", "--checkpoint=best"], "has no best checkpoint"),
    (["--run={run}", "--checkpoint=first"], "--checkpoint must be one of last, best. Received"),
    (["--run={run}", "--split=train"], "--split must be one of test, validation. Received"),
    (["--run={run}", "--epsilons=-1/255"], "--epsilons must be numbers of 0 to 1"),
    (["--run={run}", "--epsilons=0,8"], "Received: '8' in '0,8'"),
    (["--run={run}", "--epsilons=1/0"], "--epsilons must be numbers of 0 to 1"),
    (["--run={run}", "--epsilons=x"], "--epsilons must be numbers of 0 to 1"),
    (["--run={run}", "--epsilons=nan"], "--epsilons must be numbers of 0 to 1"),
    (["--run={run}", "--epsilons=0.2,1/5"], "each once, such as 0,2/255,0.03. Received: '1/5'"),
    (["--run={run}", "--epsilons="], "--epsilons must be numbers such as"),
    (["--run={run}", "--attacks=cw"], "--attacks must be of fgsm, pgd, each at most once"),
    (["--run={run}", "--attacks="], "--attacks must be of fgsm, pgd"),
    (["--run={run}", "--gradients=true,true"], "--gradients must be of true, rule, each at most"),
    (["--run={run}", "--steps=0"], "--steps must be an integer of 1 to 100000. Received: 0"),
    (
        ["--run={run}", "--step_size=-1"],
        "--step_size must be a finite number of 0 or more. Received: -1.0",
    ),
    (
        ["--run={run}", "--step_size=inf"],
        "--step_size must be a finite number of 0 or more. Received: inf",
    ),
    (["--run={run}", "--restarts=0"], "--restarts must be an integer of 1 to"),
    (["--run={run}", "--examples=0"], "--examples must be an integer of 1 to"),
    (["--run={run}", "--examples=many"], "--examples must be an integer. Received: 'many'"),
    (["--run={run}", "--seed=-1"], "--seed must be an integer of 0 to"),
    (["--run={run}", "--batch_size=-1"], "--batch_size must be an integer of 0 to"),
    (["--run={run}", "--data_dir=/none"], "--data_dir must be empty for digits"),
    (["--run={run}", "--output={run}/flags.cfg"], "flags.cfg cannot be written: File exists. Give"),
    (["--run={run}", "--epsilon=0"], "Unknown command line flag 'epsilon'"),
    (["--run={other}"], "--run={other} holds a run on other data than --dataset=digits"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD, ids=lambda value: str(value))
def test_bad_input_is_told_in_one_line(runs, tmp_path, capsys, arguments, message):
    places = {name: tmp_path / name for name in ("detection", "begun", "other")}
    places["run"] = runs / "backprop" / "seed0"
    kinds = {"detection": detection.Detection(), "begun": training.Classification()}
    for name, experiment in kinds.items():
        places[name].mkdir()
        (places[name] / "flags.cfg").write_text(folder.flagfile(experiment))
    if "{other}" in str(arguments):
        shutil.copytree(places["run"], places["other"])
        facts = json.loads((places["other"] / "data.json").read_text())
        (places["other"] / "data.json").write_text(json.dumps({**facts, "fingerprint": "0"}))
    before = contents(runs), contents(tmp_path)
    with pytest.raises(SystemExit) as ended:
        attacked(*(argument.format(**places) for argument in arguments))
    errors = capsys.readouterr().err
    assert ended.value.code in (1, 2)
    assert message.format(**places) in errors
    assert errors.startswith("error: ")
    assert errors.count("\n") == 1
    assert (contents(runs), contents(tmp_path)) == before


def test_a_run_without_validation_has_no_such_split(runs, tmp_path, capsys):
    path = tmp_path / "run"
    in_process("--rule=bp", "--epochs=1", "--validation_fraction=0", "--telemetry_every=0",
               f"--workdir={path}")  # fmt: skip
    for flag, message in (
        ("--split=validation", f"--split=validation: {path} was trained without"),
        ("--checkpoint=best", f"--run: {path} has no best checkpoint. Give a run that was trained, "
         "with validation."),
    ):  # fmt: skip
        with pytest.raises(SystemExit):
            attacked(f"--run={path}", flag)
        assert message in capsys.readouterr().err
    assert not pathlib.Path(path, "attack.json").exists()


def test_what_learned_by_targets_is_attacked_by_the_true_gradient_alone(monkeypatch):
    layers = [keras.layers.Dense(4, "tanh"), keras.layers.Dense(3)]
    model, x, y = keras.Sequential([keras.Input((5,)), *layers]), pixels((4, 5)), [0, 1, 2, 0]
    x = x.astype("float32")
    expected = attacks.fgsm(model, x, y, 0.1)
    tfbio.convert(model, "sdtp")
    with tfbio.true_gradient(model):
        np.testing.assert_array_equal(attacks.fgsm(model, x, y, 0.1), expected)
    assert not np.array_equal(expected, x)
    monkeypatch.setattr(use, "measurable", lambda *arguments: (1, None))  # a run that was trained
    experiment = training.Classification(model="akrout_mnist", rule="sdtp")
    with pytest.raises(ValueError, match=r"`gradients='rule'`: .* `rule='sdtp'`, by targets"):
        robustness.measure(experiment, Attack(), lambda line: None)


@pytest.mark.long
def test_a_run_that_learned_by_targets_is_attacked(tmp_path):
    options = {"dataset": "digits", "model": "akrout_mnist", "rule": "sdtp", "epochs": 1}
    experiment = training.Classification(**options, telemetry_every=0, workdir=str(tmp_path))
    training.train_and_evaluate(experiment, lambda line: None)
    attack = Attack(gradients="true", attacks="fgsm", epsilons="0.1", examples=20)
    found = robustness.measure(experiment, attack, lambda line: None)
    assert found.accuracy["fgsm", "true", "0.1"] <= found.clean
