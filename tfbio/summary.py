"""The summary: which rule serves which kernel."""

import keras
from rich.console import Console
from rich.table import Table

from tfbio import _keras
from tfbio.layers.sites import find_sites, find_without_twin


def summary(model: keras.Model, console: Console | None = None) -> None:
    """Print a table of a model's kernels: layer, rule, scale and the kernel's shape.

    A "match" scale is printed as found when the rule was attached; a kernel that was all zero then
    took "xavier", and the table says so. Layers without feedback twin, which conversion admits
    only when told to, are listed as what they are: on backprop. Under direct feedback, the place of
    a scale says where a layer's error comes from, and a line below how much memory B takes.

    Args:
        model: A built model with feedback layers.
        console: A `rich.console.Console` to print to; standard output by default.

    Raises:
        ValueError: If the model has no feedback layer.

    Example:
        >>> import keras, tfbio
        >>> layers = [keras.Input((4,)), keras.layers.Dense(2, name="out")]
        >>> model = keras.Sequential(layers, name="small")
        >>> tfbio.summary(tfbio.convert(model, "sign_symmetry(scale='unit')"))
             Model "small" under its rules
        ...
        │ out   │ sign_symmetry │ unit 1 │    4×2 │
        ...
    """
    sites = find_sites(model)
    table = Table(title=f'Model "{model.name}" under its rules')
    for column in ("layer", "rule", "scale"):
        table.add_column(column, overflow="fold")
    table.add_column("kernel", justify="right", no_wrap=True)
    notes = {}  # each once
    for name, site in sites.items():
        described = site.rule.describe()
        table.add_row(name, described.rule, described.scale, _shape(site.kernel))
        notes |= {described.note: None} if described.note else {}
    if notes:
        table.caption = "; ".join(notes)
    for name, layer in find_without_twin(model).items():
        for variable in _keras.get_shallow_trainable_variables(layer):
            if len(variable.shape) > 1:
                table.add_row(name, "backprop (no feedback twin)", "", _shape(variable))
    (console or Console()).print(table)


def _shape(kernel):
    return "×".join(map(str, kernel.shape))
