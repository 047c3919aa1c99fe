"""Modules by path: a user's Python file, a network or a rule, is imported once and kept."""

import hashlib
import importlib.machinery
import importlib.util
import pathlib
import re
import sys
import types


def load(path: pathlib.Path | str) -> types.ModuleType:
    """Import a Python file by its path.

    The module is kept in `sys.modules` under a name made from the path, the same in every process,
    so that what it registers with Keras or pickles is found again. The same file, by whatever path,
    is imported once; later changes to it go unseen.

    Args:
        path: The file's path, ending in ".py"; relative to the working folder, "~" is the home.

    Returns:
        The module.

    Raises:
        ValueError: If the file is missing, no ".py" file, or raises an error when it is imported,
            which is the error's cause then.

    Example:
        >>> import pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp(), "mine.py")
        >>> _ = path.write_text("answer = 42")
        >>> load(path).answer
        42
        >>> load(path) is load(str(path))
        True
    """
    file = pathlib.Path(path).expanduser()
    if file.suffix != ".py":
        raise ValueError(f"A module must be the path of a file ending in '.py'. Received: {path}.")
    if not file.is_file():
        raise ValueError(f"There is no file {str(path)!r}, looked for in {pathlib.Path.cwd()}.")
    file = file.resolve()
    digest = hashlib.sha256(str(file).encode()).hexdigest()[:8]
    name = f"tfbio_user_{re.sub(r'[^0-9A-Za-z_]', '_', file.stem)}_{digest}"
    if name in sys.modules:
        return sys.modules[name]
    loader = importlib.machinery.SourceFileLoader(name, str(file))
    spec = importlib.machinery.ModuleSpec(name, loader, origin=str(file))
    spec.has_location = True
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # before it runs, as Python itself does: it may import itself
    imported = False
    try:
        loader.exec_module(module)
        imported = True
    except (Exception, SystemExit) as error:
        # It may be any error, the file is the user's; one meant as a script may also exit.
        raise ValueError(
            f"The file {str(path)!r} cannot be imported: {type(error).__name__}: {error}"
        ) from error
    finally:
        if not imported:  # half a module must not be found by the next call
            del sys.modules[name]
    return module
