"""The search: its ranges, that it ends alike however it was cut, and that test selects nothing."""

import contextlib
import dataclasses
import json
import pathlib
import re
import shutil

import pytest
from absl import flags
from hypothesis import given, settings
from hypothesis import strategies as st

import tfbio
from tests.cases import RULES
from tfbio.detection import Detection
from tfbio.studies import parameters, ranges, search, search_report, study
from tfbio.training import Classification, Diverged, folder, memory, train
from trainers import cli, command, compare
from trainers import search as trainer

ROOT = pathlib.Path(__file__).parents[2]
CONFIGS = {path: ROOT / named[0] for path in sorted(ROOT.glob("configs/**/*.cfg"))
           if (named := re.findall(r"configs/\S+\.ranges", path.read_text()))}  # fmt: skip
"""The configs that name a file of ranges, and that file."""
BASE = Classification(rule="usf(scale='xiao')", epochs=1)

HEADER = """\
# Digits.
--rule=sign_symmetry(scale='xiao')
--epochs=1
--telemetry_every=0
--checkpoint_every=5
"""
RANGES = """\
# Rates, and a share.
learning_rate = choice(0.02, 0.05, 1e6)
rule.agreement = uniform(0.9, 1)
"""
TRIALS, SEED = 3, 3
"""The second diverges, by the search's seed."""


def parsed(*arguments):
    values = flags.FlagValues()
    trainer.parse(values, ["search", *map(str, arguments)])
    return values


def in_process(*arguments):
    trainer.run(parsed(*arguments))


def silent(name):
    return {"tell": lambda text: None}


# Ranges.


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("learning_rate = log(1e-5, 1e-2)", "learning_rate=log(1e-05, 0.01)"),
        ("learning_rate=log(1e-5,1e-2)  # a comment", "learning_rate=log(1e-05, 0.01)"),
        ("momentum = uniform(0, 0.99)", "momentum=uniform(0.0, 0.99)"),
        ("batch_size = log(16, 256)", "batch_size=log(16, 256)"),
        ("momentum = choice(0, 0.5)", "momentum=choice(0.0, 0.5)"),
        ("jit = choice(True, False)", "jit=choice(True, False)"),
        ("optimizer = choice('sgd', 'adam')", "optimizer=choice('sgd', 'adam')"),
        ("rule = choice('usf', 'frsf(seed=1)')", "rule=choice('usf', 'frsf(seed=1)')"),
        ("rule.agreement = uniform(0.5, 1)", "rule.agreement=uniform(0.5, 1.0)"),
        ("rule.scale = choice('match', 0.1)", "rule.scale=choice('match', 0.1)"),
    ],
)
def test_what_a_line_says(text, wanted):
    assert str(ranges.parse(text, BASE)) == wanted


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("learning_rat = log(1e-5, 1e-2)", "no option `learning_rat`. Did you mean 'learning_rate"),
        ("learning_rate = lg(1e-5, 1e-2)", "must be one of log, uniform, choice. Did you mean 'l"),
        ("learning_rate = log(1e-5", "must be written as option = log(low, high)"),
        ("--learning_rate=log(1e-5, 1e-2)", "must be written as"),
        ("learning_rate = 0.1", "must be written as"),
        ("learning_rate", "must be written as"),
        ("learning_rate = log(1, 2); exit()", "must be written as"),
        ("learning_rate = log(0, 1)", "must be greater than 0, not 0"),
        ("learning_rate = log(-1, 1)", "must be greater than 0, not -1"),
        ("learning_rate = log(1e-2, 1e-5)", "must be less than the second"),
        ("learning_rate = uniform(0.1, 0.1)", "must be less than the second"),
        ("learning_rate = uniform(0.1)", "must have two numbers"),
        ("learning_rate = uniform(0, 1e400)", "must have two numbers"),
        ("learning_rate = uniform('a', 'b')", "must have two numbers"),
        ("learning_rate = uniform(low, high)", "must be written as"),
        ("learning_rate = uniform(low=0, high=1)", "must be written as"),
        ("learning_rate = uniform(0, 1)", "must be a finite number greater than 0"),
        ("momentum = uniform(0.5, 1)", "must be a finite number of 0 or more and less than 1"),
        ("batch_size = uniform(0.5, 2)", "must be integers for this option"),
        ("batch_size = choice(32, 32)", "each once"),
        ("batch_size = choice(32)", "two or more"),
        ("batch_size = choice([1], 2)", "two or more numbers, texts"),
        ("batch_size = choice(32, 0.5)", "must be of type int"),
        ("optimizer = log(1, 2)", "range of numbers; this option needs choice"),
        ("optimizer = choice('sgd', 'sdg')", "must be one of"),
        ("jit = uniform(0, 1)", "range of numbers; this option needs choice"),
        ("workdir = choice('a', 'b')", "`workdir` cannot be searched"),
        ("seed = uniform(0, 9)", "`seed` cannot be searched: a seed is luck"),
        ("dataset = choice('digits', 'mnist')", "`dataset` cannot be searched: scores on other"),
        ("evaluation_crops = choice(1, 10)", "how a score is measured"),
        ("last_layer_rule.scale = log(1, 2)", "needs a rule in `last_layer_rule`, which is empty"),
        ("model.scale = log(1, 2)", "`rule` or `last_layer_rule`, not `model`"),
        ("rule.agremeent = uniform(0, 1)", "no option 'agremeent'. Did you mean 'agreement'?"),
        ("rule.agreement = 0.9", "must be written as"),
        ("rule.agreement = unif(0, 1)", "must be one of log, uniform, choice. Did you"),
        ("rule.agreement = uniform(0.5, 2)", "`agreement` must be"),
        ("rule.seed = uniform(0, 5)", "`rule.seed` cannot be searched"),
        ("rule = usf(agreement=uniform(0.5, 1))", "must be written as"),
        ("rule = usf()", "must be one of log, uniform, choice"),
        ("rule.agreement = uniform(**{})", "must be written as"),
    ],
)
def test_a_wrong_line_is_told_with_file_and_line(text, message, tmp_path):
    path = tmp_path / "wrong.ranges"
    path.write_text(f"# Digits.\n{text}\nepochs = choice(1, 2)\n")
    with pytest.raises(ValueError, match=r"\.ranges, line 2: ") as told:
        ranges.read(path, BASE)
    assert str(told.value).startswith(f"{path}, line 2: ")
    assert message in str(told.value)
    assert f"The line: {text!r}" in str(told.value)


def test_no_range_and_two_of_one_parameter_are_told(tmp_path):
    path = tmp_path / "none.ranges"
    path.write_text("# learning_rate = log(1e-3, 1)\n\n   # Nothing else.\n")
    with pytest.raises(ValueError, match=r"There is nothing to search: .* has no line such as"):
        ranges.read(path, BASE)
    agreement, scale = "rule.agreement = uniform(0, 1)", "rule.scale = choice(0.1, 0.2)"
    choice = "rule = choice('usf', 'frsf')"
    for one, other in ((agreement, agreement), (agreement, choice), (choice, agreement)):
        path.write_text(f"{one}\n{other}\n")
        name = other.partition(" ")[0]
        with pytest.raises(ValueError, match=rf"line 2: `{name}` is searched already, by .*line 1"):
            ranges.read(path, BASE)
    path.write_text(f"{agreement}\n{scale}\n")
    assert [each.name for each in ranges.read(path, BASE)] == ["rule.agreement", "rule.scale"]
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match=r"none\.ranges must be a text file in UTF-8"):
        ranges.read(path, BASE)


WORDS = st.sampled_from(
    ["--", "rule", ".", "learning_rate", "jit", "=", "log", "uniform", "choice", "usf", "agreement",
     "(", ")", ",", "0", "1e-3", "0.5", "-1", "1e999", "'a'", "None", "[", "]", "{}", "\\", "\0",
     "*", " ", "9" * 400, "1j", "lambda: 0", "f()"]
)  # fmt: skip


@settings(max_examples=300)
@given(
    st.lists(WORDS, max_size=14).map("".join)
    | st.lists(WORDS, max_size=10).map(lambda words: f"learning_rate = log({''.join(words)})")
    | st.text(max_size=20).map(lambda text: f"rule.agreement = {text}")
    | st.builds(
        lambda function, numbers: f"momentum = {function}({','.join(map(repr, numbers))})",
        st.sampled_from(ranges.KINDS),
        st.lists(st.floats() | st.integers(), max_size=3),
    )
)  # fmt: skip
def test_any_line_is_taken_or_refused_by_file_and_line(text):
    try:
        searched = ranges.parse(text, BASE, "a.ranges, line 7")
    except ValueError as error:
        assert str(error).startswith("a.ranges, line 7: ")  # noqa: PT017
    else:
        assert search.draw_trials(BASE, [searched], search.Settings(trials=2))


@pytest.mark.parametrize("rule", RULES)
def test_options_of_any_rule_are_varied_and_the_others_kept(rule):
    base = dataclasses.replace(BASE, rule=rule)
    for option, value in tfbio.rules.get(rule).get_config().items():
        one = parameters.with_values(base, {f"rule.{option}": value})
        assert repr(tfbio.rules.get(one.rule)) == repr(tfbio.rules.get(rule))
    varied = parameters.with_values(BASE, {"rule.agreement": 0.75, "learning_rate": 0.5})
    assert varied.rule == "sign_symmetry(scale='xiao', agreement=0.75)"
    assert varied.learning_rate == 0.5


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_every_config_with_ranges_can_be_searched(config):
    detects = "--task=detection" in config.read_text()
    path = CONFIGS[config]
    values = parsed(
        f"--flagfile={config}", f"--ranges={path}", *(["--task=detection"] if detects else [])
    )
    kind = Detection if detects else Classification
    experiment = kind(**cli.options(kind, values))
    assert search.draw_trials(experiment, ranges.read(path, experiment), search.Settings(trials=5))


def test_every_file_of_ranges_is_named_by_a_config():
    assert set(CONFIGS.values()) == set(ROOT.glob("configs/**/*.ranges"))


# Draws.


def test_draws_are_of_their_range_and_depend_on_seed_and_number_alone():
    lines = ("learning_rate = log(1e-4, 1)", "momentum = uniform(0.2, 0.4)",
             "batch_size = log(8, 128)", "optimizer = choice('sgd', 'nesterov')")  # fmt: skip
    space = [ranges.parse(line, BASE) for line in lines]
    trials = search.draw_trials(BASE, space, search.Settings(trials=60))
    assert search.draw_trials(BASE, space, search.Settings(trials=7)) == trials[:7]
    other = search.draw_trials(BASE, space, search.Settings(trials=7, search_seed=1))
    assert all(a.parameters != b.parameters for a, b in zip(trials, other, strict=False))
    assert [trial.experiment.workdir for trial in trials[:2]] == [
        "runs/classify/trial000", "runs/classify/trial001",
    ]  # fmt: skip
    drawn = {one.name: [trial.parameters[one.name] for trial in trials] for one in space}
    assert all(type(value) is int and 8 <= value <= 128 for value in drawn["batch_size"])
    assert all(0.2 <= value <= 0.4 for value in drawn["momentum"])
    # A quarter of the decades each: of 60, 15 are expected, 6 at least in all but 1 of 1000.
    for low in (1e-4, 1e-3, 1e-2, 1e-1):
        assert sum(low <= value < 10 * low for value in drawn["learning_rate"]) >= 6
    assert set(drawn["optimizer"]) == {"sgd", "nesterov"}
    assert len({trial.parameters["learning_rate"] for trial in trials}) == 60


def test_a_trial_whose_options_do_not_go_together_is_told_before_training():
    base = Classification(epochs=50)
    lines = "optimizer = choice('sgd', 'adam')", "momentum = uniform(0, 0.5)"
    space = [ranges.parse(line, base) for line in lines]
    with pytest.raises(ValueError, match=r"trial00. would have optimizer='adam', momentum=.*adam"):
        search.draw_trials(base, space, search.Settings(trials=9))


# Searches with real training.


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """Return the folder of a search, what it printed, and what was measured when."""
    path = tmp_path_factory.mktemp("search")
    write(path)
    measured = []
    original = train.Training.measure

    def measure(self, name, *arguments):
        measured.append((self.path.name, name))
        return original(self, name, *arguments)

    with pytest.MonkeyPatch.context() as patch, cli.console().capture():
        patch.setattr(train.Training, "measure", measure)
        in_process(*options(path, path / "run"))
    return path, measured


def write(path, text=RANGES):
    (path / "mine.cfg").write_text(HEADER)
    (path / "mine.ranges").write_text(text)


def options(path, workdir, trials=TRIALS):
    return (f"--flagfile={path / 'mine.cfg'}", f"--ranges={path / 'mine.ranges'}",
            f"--trials={trials}", f"--search_seed={SEED}", f"--workdir={workdir}")  # fmt: skip


def document(path):
    return json.loads((path / "search.json").read_text())


def test_a_search_writes_its_trials_and_lists_those_that_failed(searched):
    path = searched[0] / "run"
    found = document(path)
    trials = {each["trial"]: each for each in found["trials"]}
    assert list(trials) == [f"trial{number:03d}" for number in range(TRIALS)]
    failed = [each for each in trials.values() if each["failed"]]
    assert [each["parameters"]["learning_rate"] for each in failed] == [1e6] * len(failed)
    assert 1 <= len(failed) < TRIALS - 1
    assert "no finite number at step" in failed[0]["failed"]
    scores = {n: t["validation_accuracy"] for n, t in trials.items() if not t["failed"]}
    assert found["best"] == max(scores, key=scores.get)
    for name, each in trials.items():
        run = folder.read_flags(path / name)
        assert run.learning_rate == each["parameters"]["learning_rate"]
        assert f"agreement={each['parameters']['rule.agreement']!r}" in run.rule
        assert "scale='xiao'" in run.rule
    assert (path / "search.png").stat().st_size > 10_000


def test_the_test_split_is_measured_once_for_the_trial_that_validation_chose(searched):
    path, measured = searched
    best = document(path / "run")["best"]
    assert [each for each in measured if each[1] == "test"] == [(best, "test")]
    assert measured[-1] == (best, "test")
    tested = {p.parent.name for p in (path / "run").glob("*/summary.json")}
    assert tested == {best}
    summary = json.loads((path / "run" / best / "summary.json").read_text())
    assert document(path / "run")["test"]["test_accuracy"] == summary["test_accuracy"]


def test_the_best_is_a_config_that_repeats_it(searched, tmp_path):
    path = searched[0] / "run"
    found = document(path)
    values = flags.FlagValues()
    command.define(values, "classification")
    cli.parse(values, ["classify", f"--flagfile={path / 'best.cfg'}"])
    (experiment,) = compare.experiments(values)
    assert values.workdir == str(path / "best")
    experiment = dataclasses.replace(experiment, workdir=str(tmp_path))
    summary = train.train_and_evaluate(experiment, tell=lambda text: None)
    (best,) = [each for each in found["trials"] if each["trial"] == found["best"]]
    assert summary["validation_accuracy"] == best["validation_accuracy"]
    assert summary["test_accuracy"] == found["test"]["test_accuracy"]


def test_a_search_that_was_cut_ends_as_one_that_was_not(searched, tmp_path, monkeypatch):
    path, workdir = searched[0], tmp_path / "run"
    original = train.Training.save

    def cut_within(self):
        original(self)
        if self.step == 10:  # of its 21
            raise KeyboardInterrupt

    def cut_between(self, trial):
        raise KeyboardInterrupt

    for target, name, function in (
        (train.Training, "save", cut_within),  # in the first trial
        (study.Record, "add", cut_between),  # trained, and not recorded
        (search_report, "save", lambda outcome, path: cut_between(None, None)),  # recorded
    ):
        with monkeypatch.context() as patch:
            patch.setattr(target, name, function)
            with pytest.raises(SystemExit):
                in_process(*options(path, workdir))
    starts = []
    monkeypatch.setattr(search, "train_and_evaluate", recorded(search.train_and_evaluate, starts))
    in_process(*options(path, workdir))
    assert "trial000" not in starts[:-1]  # it was finished: no more than tested, if it is the best
    for name in ("search.json", "best.cfg"):
        wanted = (path / "run" / name).read_text().replace(str(path / "run"), str(workdir))
        assert (workdir / name).read_text() == wanted
    for metrics in workdir.glob("*/metrics.csv"):
        same = path / "run" / metrics.parent.name / "metrics.csv"
        assert metrics.read_bytes() == same.read_bytes()


def recorded(function, names):
    def call(experiment, **arguments):
        names.append(pathlib.Path(experiment.workdir).name)
        return function(experiment, **arguments)

    return call


def test_what_is_finished_is_not_repeated_and_more_trials_are_added(
    searched, tmp_path, monkeypatch
):
    shutil.copytree(searched[0] / "run", tmp_path / "run")
    trained = []
    monkeypatch.setattr(search, "train_and_evaluate", recorded(search.train_and_evaluate, trained))
    before = (tmp_path / "run" / "search.json").read_bytes()
    in_process(*options(searched[0], tmp_path / "run"))
    assert trained == [document(tmp_path / "run")["best"]]  # its summary is read
    assert (tmp_path / "run" / "search.json").read_bytes() == before
    in_process(*options(searched[0], tmp_path / "run", TRIALS + 1))
    assert trained[1] == f"trial{TRIALS:03d}"
    assert len(document(tmp_path / "run")["trials"]) == TRIALS + 1


@pytest.mark.long
def test_a_run_without_a_test_is_gone_on_with_by_one(tmp_path):
    one, two = (
        dataclasses.replace(BASE, workdir=str(tmp_path / name), telemetry_every=0)
        for name in ("one", "two")
    )
    quiet = {"tell": lambda text: None}
    whole = train.train_and_evaluate(one, **quiet)
    for _ in range(2):
        values = train.train_and_evaluate(two, **quiet, test=False)
        assert not (tmp_path / "two" / "summary.json").exists()
    expected = {"validation_loss", "validation_accuracy", "best", "steps", "diverged"}
    assert set(values) == expected
    assert not values["diverged"]
    assert not any("test" in name for name in values["best"])
    later = train.train_and_evaluate(two, **quiet)
    for name in ("test_accuracy", "test_loss", "validation_accuracy", "accuracy", "best", "steps"):
        assert later[name] == whole[name]
    assert values["validation_accuracy"] == whole["validation_accuracy"]


# Searches whose training is a stand-in.


@pytest.fixture
def stand_in(monkeypatch):
    """Put something quick in place of the training; return what it was called with."""
    calls = []
    monkeypatch.setattr(memory, "freed", contextlib.nullcontext)  # it takes a second

    def train_and_evaluate(experiment, test=True, **telling):
        calls.append((pathlib.Path(experiment.workdir).name, test))
        if experiment.learning_rate > 0.9:
            raise Diverged("The loss is no finite number at step 3; give a lower one.")
        score = 1 - abs(experiment.learning_rate - 0.5)
        found = {
            f"validation_{experiment.score}": score / 2,
            "best": {"step": 7, f"validation_{experiment.score}": 1 - score},
            "steps": 9,
        }
        if test:
            found["best"] = {**found["best"], f"test_{experiment.score}": 0.25}
            found |= {f"test_{name}": 0.5 for name in experiment.measures}
        return found

    monkeypatch.setattr(search, "train_and_evaluate", train_and_evaluate)
    return calls


def stood_in(path, trials=8, text="learning_rate = uniform(0.1, 1)", kind=Classification, **more):
    settings_ = {n: more.pop(n) for n in ("search_by", "search_seed") if n in more}
    experiment = kind(workdir=str(path), **more)
    space = [ranges.parse(text, experiment)]
    return search.run(experiment, space, search.Settings(trials, **settings_), silent)


@pytest.mark.parametrize("kind", [Classification, Detection], ids=["classes", "boxes"])
def test_the_score_after_the_last_step_or_the_best_one_decides(kind, stand_in, tmp_path):
    last = stood_in(tmp_path / "last", kind=kind)
    best = stood_in(tmp_path / "best", kind=kind, search_by="best")
    rates = [t.parameters["learning_rate"] for t in last.trials if t.score is not None]
    assert len(rates) < 8  # some diverged
    assert last.best.parameters["learning_rate"] == min(rates, key=lambda rate: abs(rate - 0.5))
    assert best.best.parameters["learning_rate"] == max(rates, key=lambda rate: abs(rate - 0.5))
    assert (last.best.step, best.best.step) == (9, 7)
    assert last.tested[f"test_{kind.score}"] == 0.5
    assert best.tested[f"test_{kind.score}"] == 0.25
    assert [test for _, test in stand_in] == [*[False] * 8, True] * 2
    text = search_report.config(best, tmp_path)
    assert text.startswith(f"# {kind.__name__.lower()}\n# {best.best.name}, the best of 8 by ")


def test_the_first_of_equal_scores_is_the_best():
    trials = [search.Trial(n, BASE, {}, score, 1) for n, score in enumerate((0.5, 0.9, 0.9))]
    assert search.Outcome(BASE, [], search.Settings(), trials).best.number == 1


def test_the_table_after_a_trial_has_the_best_and_the_newest(stand_in, tmp_path):
    found = stood_in(tmp_path, trials=20)
    column = search_report.table(found, most=3).columns[0]
    scored = sorted((t for t in found.trials if t.score is not None), key=lambda t: -t.score)
    assert {cell.split()[0] for cell in column.cells} == {
        *(trial.name for trial in scored[:3]), "trial019",
    }  # fmt: skip
    assert f"{found.best.name} *" in column.cells
    assert len(list(search_report.table(found).columns[0].cells)) == 20


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 3}, "`epochs=30`, now 3"),
        ({"text": "learning_rate = uniform(0.2, 1)"}, "ranges: .*0.1, 1.0.*now .*0.2, 1.0"),
        ({"search_seed": 1}, "search_seed: 0, now 1"),
        ({"search_by": "best"}, "search_by: last, now best"),
        ({"kind": Detection}, "task: classification, now detection"),
        ({"trials": 2}, "has 3 trials already. Give `trials=3` or more"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_folder_of_another_search_is_refused(change, message, stand_in, tmp_path):
    stood_in(tmp_path, trials=3)
    with pytest.raises(ValueError, match=message):
        stood_in(tmp_path, **{"trials": 3, **change})
    stood_in(tmp_path, trials=3, rule="usf")  # by another name the same


def test_what_a_process_left_that_was_killed_as_it_wrote_is_removed(stand_in, tmp_path):
    stood_in(tmp_path, trials=2)
    with (tmp_path / "study.journal").open("a") as file:
        file.write('{"op_code":4,"wor')
    (tmp_path / "study.journal.lock").symlink_to(tmp_path / "study.journal")  # waited for
    assert len(stood_in(tmp_path, trials=3).trials) == 3
    assert len(stood_in(tmp_path, trials=3).trials) == 3  # what was added then can be read


def test_draws_of_another_version_are_refused(stand_in, tmp_path, monkeypatch):
    stood_in(tmp_path, trials=2)
    monkeypatch.setattr(
        study, "draw_parameters", lambda space, seed, number: {"learning_rate": 0.3}
    )
    with pytest.raises(ValueError, match=r"trial000 was drawn as learning_rate=0.*, and would now"):
        stood_in(tmp_path, trials=2)


@pytest.mark.parametrize("content", [b"no journal\n", b"[]\n", b'{"op_code": 77}\n'])
def test_a_damaged_journal_is_told(content, stand_in, tmp_path):
    stood_in(tmp_path, trials=2)
    whole = (tmp_path / "study.journal").read_bytes()
    (tmp_path / "study.journal").write_bytes(content + whole)
    with pytest.raises(ValueError, match=r"study.journal is damaged: .*Put back"):
        stood_in(tmp_path, trials=2)


def test_a_search_needs_validation_a_process_and_a_folder_of_its_own(stand_in, tmp_path):
    with pytest.raises(ValueError, match="`validation_fraction` must be more than 0"):
        stood_in(tmp_path / "a", validation_fraction=0.0)
    with pytest.raises(ValueError, match="`strategy='multi_worker'` goes with one run"):
        stood_in(tmp_path / "a", strategy="multi_worker")
    assert not (tmp_path / "a").exists()
    folder.claim(tmp_path, BASE, {})
    with pytest.raises(ValueError, match=f"`workdir={tmp_path}` holds a run"):
        stood_in(tmp_path)
    with folder.locked(tmp_path / "b"), pytest.raises(ValueError, match="is in use by another"):
        stood_in(tmp_path / "b")
    assert not stand_in


# The command line.


@pytest.mark.parametrize(
    ("arguments", "message", "status"),
    [
        (["--momentun=0.5"], "Did you mean: momentum", 2),
        (["--backbone=resnet10"], "Unknown command line flag 'backbone'", 2),
        (["--task=segmentation"], "--task must be one of classification, detection", 2),
        (["--learning_rate=0.1"], "--learning_rate is given, and searched by ", 2),
        (["--rule", "usf"], "--rule is given, and searched by ", 2),
        (["--trials=0"], "--trials must be an integer of 1 to", 1),
        (["--search_by=test"], "--search_by must be one of last, best", 1),
        (["--ranges=/none.ranges"], "/none.ranges", 1),
        ([f"--ranges={ROOT / 'configs/demo.cfg'}"], "must be written as option = log(low", 1),
        (["--validation_fraction=0"], "--validation_fraction must be more than 0", 1),
    ],
    ids=lambda value: str(value) if isinstance(value, list) and "/" not in value[0] else "",
)
def test_bad_input_is_told_in_one_line(arguments, message, status, tmp_path, capsys, stand_in):
    write(tmp_path)
    with pytest.raises(SystemExit) as ended:
        in_process(*options(tmp_path, tmp_path / "run"), *arguments)
    errors = capsys.readouterr().err
    assert ended.value.code == status
    assert message in errors
    assert errors.startswith("error: ")
    assert errors.count("\n") == 1


@pytest.mark.parametrize(
    ("line", "given"),
    [
        ("jit = choice(True, False)", "--nojit"),
        ("no_sign_change = choice('none', 'hidden')", "--no_sign_change=hidden"),
    ],
)
def test_a_flag_is_refused_however_its_name_begins(line, given, tmp_path, capsys):
    write(tmp_path, line)
    with pytest.raises(SystemExit):
        in_process(*options(tmp_path, tmp_path / "run"), given)
    assert f"--{line.split()[0]} is given, and searched by " in capsys.readouterr().err


def test_without_ranges_it_says_what_is_missing(capsys):
    with pytest.raises(SystemExit):
        in_process()
    assert "--ranges must be a file with lines such as" in capsys.readouterr().err


def test_the_task_decides_what_flags_there_are():
    assert parsed("--epochs", "3", "--task=detection", "--backbone=resnet10").epochs == 3
    assert parsed().workdir == "runs/search"


def test_where_all_trials_fail_it_says_so(tmp_path, capsys, stand_in):
    write(tmp_path, "learning_rate = uniform(1, 2)\n")
    with pytest.raises(SystemExit) as ended:
        in_process(*options(tmp_path, tmp_path / "run", trials=2))
    assert ended.value.code == 1
    assert "All of 2 trials have failed" in capsys.readouterr().err
    assert document(tmp_path / "run")["best"] is None
    assert not (tmp_path / "run" / "best.cfg").exists()


def test_nothing_printed_before_the_end_is_of_the_test_split(tmp_path, capsys, stand_in):
    write(tmp_path, "learning_rate = uniform(0.1, 1)\n")
    in_process(*options(tmp_path, tmp_path / "run", trials=3))
    before, found, after = capsys.readouterr().out.partition("test accuracy 50.00%")
    assert found
    assert "test" not in before.replace(str(tmp_path), "")
    assert "best.cfg --seed=1,2,3" in after
