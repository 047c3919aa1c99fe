"""What the command lines share: flags from dataclass fields, and errors in one line."""

import dataclasses
import sys

from absl import app, flags

_DEFINE = {
    str: flags.DEFINE_string,
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    bool: flags.DEFINE_bool,
}


def define(experiment, values, lists=()):
    """Define a flag for every field of a dataclass.

    Args:
        experiment: The dataclass; each field's metadata has its "help".
        values: The `absl.flags.FlagValues` to define them in.
        lists: Names of fields that take several values on the command line, separated by commas.
    """
    for field in dataclasses.fields(experiment):
        name, default, text = field.name, field.default, field.metadata["help"]
        if name in lists:
            text += " Several, separated by commas, are compared."
            flags.DEFINE_string(name, str(default), text, flag_values=values)
        else:
            _DEFINE[field.type](name, default, text, flag_values=values)
        # A flag of the program that runs, for --help to list.
        values.register_key_flag_for_module(sys.argv[0], values[name])


def parse(values, arguments):
    """Parse a command line; what is wrong with it is told in one line, with exit status 2.

    Args:
        values: The `absl.flags.FlagValues` to set.
        arguments: The command line, the program's name first.

    Returns:
        The program's name, in a list.
    """
    try:
        left = values(arguments)
    except (flags.Error, OSError, UnicodeDecodeError) as error:
        fail(error, status=2)
    if len(left) > 1:
        fail(f"Unexpected argument {left[1]!r}: options are written --name=value.", status=2)
    return left


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


def fail(message, status=1):
    """Print one line to standard error and exit with `status`."""
    print("error:", " ".join(str(message).split()), file=sys.stderr)
    sys.exit(status)


def run(main):
    """Parse the command line into `absl.flags.FLAGS` and call `main` with it.

    Args:
        main: A function of the parsed flags.
    """
    app.run(
        lambda arguments: main(flags.FLAGS),
        flags_parser=lambda arguments: parse(flags.FLAGS, arguments),
    )
