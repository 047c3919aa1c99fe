"""The command line names flags where the library names arguments."""

import logging

import pytest
from absl import flags

from trainers import cli


@pytest.mark.parametrize(
    ("message", "named"),
    [
        ("`epochs` must be 1 or more.", "--epochs must be 1 or more."),
        ("`jit` does not go with `strategy='tpu'`.", "--jit does not go with --strategy=tpu."),
        ("`max_corrupt=0.1` admits 1 of 10.", "--max_corrupt=0.1 admits 1 of 10."),
        ('`rule="frsf(seed=1)"` is new.', "--rule=frsf(seed=1) is new."),
        ("Run `pip install optuna`.", "Run `pip install optuna`."),
        ("`batches` takes `crops=10`.", "`batches` takes `crops=10`."),
        ("`rule`: `epochs` must be 0.", "--rule: `epochs` must be 0."),
        ("--rule: `epochs` must be 0.", "--rule: `epochs` must be 0."),
        ("`epochs", "`epochs"),
    ],
)
def test_arguments_that_are_flags_are_named_as_flags(message, named):
    known = {"epochs", "jit", "strategy", "max_corrupt", "rule"}
    assert cli.name_flags(message, known) == named


@pytest.fixture
def values():
    values = flags.FlagValues()
    flags.DEFINE_integer("epochs", 3, "Passes; see `schedule`.", flag_values=values)
    flags.DEFINE_string("schedule", "", "More than `epochs=1` and `nothing`.", flag_values=values)
    cli.parse(values, ["program", "--epochs=2"])
    return values


def test_the_helps_of_flags_name_flags(values):
    assert values["epochs"].help == "Passes; see --schedule."
    assert values["schedule"].help == "More than --epochs=1 and `nothing`."


def test_errors_name_the_flags_of_the_program_that_was_parsed(values, capsys):
    with pytest.raises(SystemExit), cli.errors_in_one_line():
        raise ValueError("`epochs=2` and\n`data_dir` do not go together.")
    wanted = "error: --epochs=2 and `data_dir` do not go together.\n"
    assert capsys.readouterr().err == wanted


def test_notes_name_flags(values, capsys):
    cli.tell_on(cli.console())("`epochs` ends [here]; `pip` stays.")
    assert capsys.readouterr().out == "--epochs ends [here]; `pip` stays.\n"


def test_what_the_library_logs_names_flags(values):
    record = logging.LogRecord("tfbio", logging.INFO, "", 0, "`epochs=%d`", (2,), None)
    assert cli.FlagFormatter().format(record) == "--epochs=2"
