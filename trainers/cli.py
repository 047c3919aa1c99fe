"""What the command lines share: flags from dataclass fields, errors in one line, progress."""

import contextlib
import dataclasses
import logging
import math
import os
import pathlib
import re
import signal
import sys
import time

import tensorflow as tf
from absl import app, flags
from absl import logging as absl_logging
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from tfbio import training
from tfbio._extras import MissingExtraError
from tfbio.training import folder

from . import end

_DEFINE = {
    str: flags.DEFINE_string,
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    bool: flags.DEFINE_bool,
}


_PLACES = ("workdir", "images", "output", "ranges")
"""The flags that are paths and no options of an experiment, whose own `absolute` sees to."""
_KINDS = {"float": "a number", "int": "an integer", "bool": "true or false"}
"""What a flag of absl's types must be."""
_REDRAWN = 0.1
"""Seconds between two drawings of a progress bar."""
_FLAGS = set()
"""The names of the flags of the program that runs, once its command line is parsed."""
_ARGUMENT = re.compile(r"`(\w+)(?:=([^`]*))?`")
_QUOTED = re.compile(r"(`\w+`|--\w+): ")


def option(default, text):
    """Return a dataclass field with a help text, for `define`.

    Args:
        default: The default.
        text: The help.
    """
    return dataclasses.field(default=default, metadata={"help": text})


def define(experiment, values, lists=()):
    """Define a flag for every field of a dataclass.

    Args:
        experiment: The dataclass; each field's metadata has its "help".
        values: The `absl.flags.FlagValues` to define them in.
        lists: Names of fields that take several values on the command line, separated by commas.
    """
    known = {field.name for field in dataclasses.fields(experiment)}
    for field in dataclasses.fields(experiment):
        name, default = field.name, field.default
        text = name_flags(field.metadata["help"], known)
        if name in lists:
            text += " Several, separated by commas, are compared."
            flags.DEFINE_string(name, str(default), text, flag_values=values)
        else:
            _DEFINE[field.type](name, default, text, flag_values=values)
        # A flag of the program that runs, for --help to list.
        values.register_key_flag_for_module(sys.argv[0], values[name])


def name_flags(text, known):
    """Return a message of the library's with flags in place of the arguments that it names.

    The library knows no flags: it writes `` `epochs` `` and `` `strategy='mirrored'` `` where the
    command line has --epochs and --strategy=mirrored. What follows an argument and a colon at the
    beginning is another function's message about arguments of its own, and stays as it is.

    Args:
        text: The message.
        known: The names of the program's flags.

    Example:
        >>> name_flags("`jit` does not go with `strategy='tpu'`; see `tf.function`.", {"jit"})
        "--jit does not go with `strategy='tpu'`; see `tf.function`."
        >>> name_flags("`rule`: `seed` must be an integer.", {"rule", "seed"})
        '--rule: `seed` must be an integer.'
    """

    def flag(found):
        name, value = found.groups()
        if name not in known:
            return found[0]
        if value is None:
            return f"--{name}"
        quoted = value[:1] in ("'", '"') and value[-1:] == value[:1] and len(value) > 1
        return f"--{name}={value[1:-1] if quoted else value}"

    prefix = _QUOTED.match(text)
    end = prefix.end() if prefix else len(text)
    return _ARGUMENT.sub(flag, text[:end]) + text[end:]


class FlagFormatter(logging.Formatter):
    """Formats what the library logs for the one who uses the command line."""

    def format(self, record):
        """Return the text of a record.

        Args:
            record: The `logging.LogRecord`.
        """
        return name_flags(super().format(record), _FLAGS)


def tell_on(console):
    """Return a function that prints a note of the library's on a console, as a line.

    Args:
        console: A `rich.console.Console`.
    """

    def tell(text):
        text = name_flags(text, _FLAGS)
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    return tell


def parse(values, arguments):
    """Parse a command line; what is wrong with it is reported in one line, with exit status 2.

    Args:
        values: The `absl.flags.FlagValues` to set.
        arguments: The command line, the program's name first.

    Returns:
        The program's name, in a list.
    """
    _FLAGS.clear()
    _FLAGS.update(values)
    for name in values:
        values[name].help = name_flags(values[name].help or "", _FLAGS)
    # absl takes a name that is empty, as an unset variable leaves it, for no flagfile at all.
    if any(argument in ("--flagfile=", "-flagfile=") for argument in arguments):
        fail("--flagfile must be a file's path. Received: none.", status=2)
    try:
        left = values(arguments)
    except UnicodeDecodeError as error:
        fail(f"--flagfile must be a file of text in UTF-8, a flag a line: {error}.", status=2)
    except flags.IllegalFlagValueError as error:
        fail(_wrong_value(error, values), status=2)
    except (flags.Error, OSError) as error:
        # Of a flagfile that cannot be opened, absl's own error is a wrapping of the system's.
        cause = error.__context__ if isinstance(error.__context__, OSError) else error
        if isinstance(cause, OSError):
            cause = (
                f"--flagfile must be a file of flags, a line each. Received: {cause.filename}: "
                f"{cause.strerror}."
            )
        fail(cause, status=2)
    if len(left) > 1:
        fail(f"Unexpected argument {left[1]!r}: options are written --name=value.", status=2)
    for name in _PLACES:
        if name in values and isinstance(values[name].value, str):
            values[name].value = os.path.expanduser(values[name].value)
    return left


def _wrong_value(error, values):
    """Return what absl's error about a flag's value says, in terms of what would be right."""
    found = re.match(r"flag --(\w+)=(.*): .*(convert|literal|Non-boolean)", str(error), re.S)
    if not found:
        return error
    name, value, _ = found.groups()
    return f"--{name} must be {_KINDS[values[name].flag_type()]}. Received: {value!r}."


def split(text):
    """Split at the commas that stand outside of parentheses and brackets.

    Args:
        text: Such as ``"backprop,frsf(scale='unit',seed=1)"``.

    Returns:
        A list of the stripped parts.

    Example:
        >>> split("backprop, frsf(scale='unit',seed=1)")
        ['backprop', "frsf(scale='unit',seed=1)"]
    """
    parts, depth = [""], 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts]


def split_folders(text):
    """Split paths at their commas, and expand each one's ~.

    Args:
        text: Such as ``"runs/a,~/runs/b"``.

    Returns:
        A list of paths, without empty ones.

    Example:
        >>> split_folders("runs/a, runs/b,")
        ['runs/a', 'runs/b']
    """
    return [os.path.expanduser(part) for part in split(text) if part]


def fail(message, status=1):
    """Print one line to standard error, which names flags, and exit with `status`."""
    print("error:", " ".join(name_flags(str(message), _FLAGS).split()), file=sys.stderr)
    sys.exit(status)


def options(kind, values):
    """Return a dataclass's options as the command line has them.

    Args:
        kind: The dataclass that `define` was given.
        values: The parsed `absl.flags.FlagValues`.

    Returns:
        A dict from field to value.
    """
    return {field.name: values[field.name].value for field in dataclasses.fields(kind)}


def experiment_of_run(values, kind):
    """Return the experiment in the folder that ``--workdir`` names, with what the flags change.

    Args:
        values: The parsed `absl.flags.FlagValues`.
        kind: The kind of experiment, a class.

    Returns:
        An `Experiment` of that kind: the run's own options, or those given on the command line.

    Raises:
        ValueError: If the folder holds no run, or an option is wrong.
    """
    run = folder.read_flags(values.workdir)
    if run is None:
        raise ValueError(
            f"--workdir must be a run's folder, with its flags.cfg. Received: {values.workdir!r}."
        )
    if run.task != kind.task:
        raise ValueError(
            f"--workdir={values.workdir} holds a run of {run.task}, not of {kind.task}."
        )
    fields = {field.name: field.type for field in dataclasses.fields(kind)}
    given = {name: values[name].value for name in fields if values[name].present}
    if "seed" in given:
        if not str(given["seed"]).isdecimal():
            raise ValueError(f"--seed must be one integer here. Received: {given['seed']!r}.")
        given["seed"] = int(given["seed"])
    return dataclasses.replace(run, **{**absolute(given), "workdir": values.workdir})


def absolute(options):
    """Return options with the user's own files by absolute path, for a run's flags.cfg.

    A run can then be gone on with, and used, from any folder. What is in no folder of this machine,
    such as gs://bucket/imagenet, stays as it is.

    Args:
        options: A dict from option to value.
    """
    found = dict(options)
    for name in ("rule_module", "weights", "data_dir", "init_from"):
        if found.get(name) and found[name] != "imagenet" and "://" not in found[name]:
            found[name] = os.path.abspath(os.path.expanduser(found[name]))
    file, colon, function = found.get("model", "").rpartition(":")
    if colon and file.endswith(".py"):
        found["model"] = f"{os.path.abspath(os.path.expanduser(file))}:{function}"
    return found


@contextlib.contextmanager
def errors_in_one_line():
    """End the program with one line for every error that a user can mend, or a signal brings."""
    if signal.getsignal(signal.SIGINT) is end:  # from here on, it may be heeded
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    except training.Interrupted as error:
        fail(error, status=128 + error.signal)
    except KeyboardInterrupt:  # before there was anything to save
        fail("Ended by SIGINT.", status=128 + signal.SIGINT)
    except (ValueError, OSError, ArithmeticError, MissingExtraError, tf.errors.OpError) as error:
        fail(error)


def console():
    """Return the console to print on; in a file or a pipe, lines are as long as they are."""
    return Console(width=None if sys.stdout.isatty() else 120)


@contextlib.contextmanager
def progress(console):
    """Show a bar for each run.

    Args:
        console: A `rich.console.Console`.

    Yields:
        (tell, bar): a function that prints a line above the bar, and one from a run's name to its
        progress function of steps done and steps in all.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f}/{task.total:,.0f} steps, left"),
        TimeRemainingColumn(),
    )
    # Rich imports as it draws, which fails in a thread of its own while TensorFlow Datasets is
    # imported: it is drawn here.
    with Progress(*columns, console=console, transient=True, auto_refresh=False) as shown:

        def bar(name):
            task = shown.add_task(name, total=1)
            drawn = -math.inf

            def update(step, total):
                nonlocal drawn
                now = time.monotonic()
                due = now >= drawn + _REDRAWN or step == total
                drawn = now if due else drawn
                shown.update(task, completed=step, total=total, visible=step < total, refresh=due)

            return update

        yield tell_on(shown.console), bar


def reporting(tell, bar):
    """Return a function from a run's name to what reports on its training.

    Args:
        tell: A function that prints a line, and `bar` one from a name to a progress function, as
            `progress` yields them.
        bar: See `tell`.

    Returns:
        A function from a name to arguments of `tfbio.training.train_and_evaluate`.
    """

    def arguments(name):
        return {
            "tell": lambda text: tell(f"{name}: {text}"),
            "progress": bar(name),
            "tell_epochs": False,
            "measuring": bar(f"{name}, measuring"),
        }

    return arguments


def python():
    """Return how to call the interpreter that runs this; the shell's may lack the packages."""
    binaries = pathlib.Path(os.path.relpath(sys.executable)).parent
    return "python" if str(binaries).startswith("..") else str(binaries / "python")


def run(main, parse=parse):
    """Parse the command line into `absl.flags.FLAGS` and call `main` with it.

    Args:
        main: A function of the parsed flags.
        parse: What parses it, a function as `parse` is.
    """
    # What the library has to say goes where the results go, as it is; TensorFlow's notes do not.
    said = logging.getLogger("tfbio")
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(FlagFormatter())
    said.addHandler(handler)
    said.setLevel(logging.INFO)
    said.propagate = False
    tf.get_logger().setLevel(logging.ERROR)
    absl_logging.set_verbosity(absl_logging.WARNING)
    app.run(
        lambda arguments: main(flags.FLAGS),
        flags_parser=lambda arguments: parse(flags.FLAGS, arguments),
    )
