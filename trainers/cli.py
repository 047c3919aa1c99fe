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


def define(experiment, lists=()):
    """Define a flag for every field of a dataclass.

    Args:
        experiment: The dataclass; each field's metadata has its "help".
        lists: Names of fields that take several values on the command line, separated by commas.
    """
    for field in dataclasses.fields(experiment):
        text = field.metadata["help"]
        if field.name in lists:
            flags.DEFINE_string(
                field.name,
                str(field.default),
                f"{text} Several, separated by commas, are compared.",
            )
        else:
            _DEFINE[field.type](field.name, field.default, text)


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
    """Run a trainer's `main`; a wrong flag is told in one line, with exit status 2.

    Args:
        main: A function of the arguments that are left after the flags.
    """

    def parse(arguments):
        try:
            left = flags.FLAGS(arguments)
        except (flags.Error, OSError, UnicodeDecodeError) as error:
            fail(error, status=2)
        if len(left) > 1:
            fail(f"Unexpected argument {left[1]!r}: options are written --name=value.", status=2)
        return left

    app.run(main, flags_parser=parse)
