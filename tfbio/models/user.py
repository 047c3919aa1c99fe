"""A network of the user's own: a function in a Python file, named as path/to/file.py:function."""

from collections.abc import Callable
from typing import Any

import keras

from tfbio.models import modules


def from_file(name: str) -> Callable[[int, tuple], keras.Model]:
    """Return the builder that a name like "path/to/file.py:function" stands for.

    Args:
        name: The path of a Python file, a colon, and the name of a function in it that takes
            (num_classes, input_shape) and returns an uncompiled `keras.Model` from images to
            logits.

    Returns:
        A function (num_classes, input_shape) that returns the model, checked.

    Raises:
        ValueError: If the name is not of this form, the file missing or faulty (see
            `tfbio.models.modules.load`), or has no such function. What is returned raises it if the
            function fails, or returns anything else than such a model.

    Example:
        >>> import pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp(), "mine.py")
        >>> _ = path.write_text('''
        ... import keras
        ... def linear(num_classes, input_shape):
        ...     layers = [keras.layers.Flatten(), keras.layers.Dense(num_classes)]
        ...     return keras.Sequential([keras.Input(input_shape), *layers])
        ... ''')
        >>> from_file(f"{path}:linear")(10, (8, 8, 1)).output_shape
        (None, 10)
    """
    path, _, function = str(name).rpartition(":")
    if not path.endswith(".py") or not function.isidentifier():
        raise ValueError(
            f"A model of your own must be named path/to/file.py:function. Received: {name!r}."
        )
    module = modules.load(path)
    builder: Any = getattr(module, function, None)
    if not callable(builder):
        own = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
        raise ValueError(
            f"The file {path!r} has no function {function!r}. Received: {name!r}. "
            f"Functions in it: {', '.join(own) or 'none'}."
        )

    def build(num_classes, input_shape):
        try:
            model: Any = builder(num_classes, input_shape)
            returned = isinstance(model, keras.Model)
            # Also builds a model that is not built yet, and shows whether it takes the images.
            output = model(keras.Input(input_shape)) if returned else None
        except Exception as error:  # it may be any error, the code is the user's
            raise ValueError(
                f"{name!r} failed for num_classes={num_classes}, input_shape={input_shape}: "
                f"{type(error).__name__}: {error}"
            ) from error
        if not returned:
            raise ValueError(
                f"{name!r} must return a keras.Model. Received: {model!r} of type "
                f"{type(model).__name__}."
            )
        if getattr(output, "shape", None) != (None, num_classes):
            raise ValueError(
                f"{name!r} must return a model with one output, the logits, of shape "
                f"{(None, num_classes)}. Received: {_shapes(output)}."
            )
        if model.compiled:
            raise ValueError(f"{name!r} must return an uncompiled model. Received a compiled one.")
        return model

    return build


def _shapes(output):
    return keras.tree.map_structure(lambda x: getattr(x, "shape", x), output)
