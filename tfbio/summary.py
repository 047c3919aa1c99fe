"""The summary: which rule serves which kernel."""

from rich.console import Console
from rich.table import Table

from tfbio import walk


def summary(model, console=None):
    """Print a table of a model's kernels: layer, class, rule, scale and kernel shape.

    A "match" scale is printed as found when the rule was attached; a kernel that was all zero then
    took "xavier", and the table says so. Layers without feedback twin, admitted by
    ``unsupported="backprop"`` or an override, are listed as on backprop.

    Args:
        model: A built model with feedback layers.
        console: A `rich.console.Console` to print to; standard output by default.

    Raises:
        ValueError: If the model has no feedback layer.

    Example:
        >>> import keras, tfbio
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="out")])
        >>> tfbio.summary(tfbio.convert(model, "sign_symmetry(scale='unit')"))
                            Model "sequential" under its rules
        ...
    """
    table = Table(title=f'Model "{model.name}" under its rules')
    for column in ("layer", "class", "rule", "scale"):
        table.add_column(column, overflow="fold")
    table.add_column("kernel", justify="right")
    for name, site in walk.sites(model).items():
        rule = site.rule
        table.add_row(
            name,
            type(site.layer).__name__,
            rule.alias,
            rule.scale_label(),
            " × ".join(map(str, site.kernel.shape)),
        )
    (console or Console()).print(table)
