"""The board: what TensorBoard shows beside the curves, and which curves share a chart."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from tfbio.metrics import PREFIX
from tfbio.training import tasks
from tfbio.training.preparation import slug

if TYPE_CHECKING:
    from tfbio.training.experiment import Experiment

FEEDBACK = {
    "Angle between W and B, degrees": "weight_angle",
    "Angle between the gradient and backprop's, degrees": "gradient_angle",
    "Angle of the error at a layer's input, through B and through W, degrees":
        "local_gradient_angle",
    "Norm of B over that of W": "norm_ratio",
    "Share of equal signs of W and B": "sign_agreement",
}  # fmt: skip
"""What is measured of every layer, by the title of its chart."""

MEANS = {
    "Angle between W and B, mean over the layers above the first, degrees": "weight_angle",
    "Angle between the gradient and backprop's, mean over the layers below the last, degrees":
        "gradient_angle",
    "Angle of the error at a layer's input, mean over the layers above the first, degrees":
        "local_gradient_angle",
    "Norm of B over that of W, mean over the layers above the first": "norm_ratio",
    "Share of equal signs of W and B, mean over the layers above the first": "sign_agreement",
}  # fmt: skip
"""Its means over the layers of `tfbio.metrics.find_averaged_layers`, by the title of the chart."""

TARGETS = {
    "Loss of the layer's inverse": "inverse_loss",
    "Local loss of the layer": "local_loss",
    "Distance from activation to target, over the activation's norm": "target_distance",
}
"""The same under target propagation."""


def descriptions(experiment: Experiment) -> list[Any]:
    """Return the summaries that describe a run: charts, options as text, hyper-parameters.

    Args:
        experiment: An `Experiment`.

    Returns:
        A list of serialized `Summary` protocol buffers, for
        `tf.summary.experimental.write_raw_pb`.

    Example:
        >>> from tfbio.training import Classification
        >>> len(descriptions(Classification()))
        3
    """
    from tensorboard.plugins.hparams import api as hparams
    from tensorboard.plugins.text import summary as text

    options = dataclasses.asdict(experiment)
    rows = "\n".join(f"| {name} | `{value}` |" for name, value in options.items() if value != "")
    table = f"| option | value |\n|---|---|\n{rows}"
    fields = dataclasses.fields(experiment)
    varied = {f.name: options[f.name] for f in fields if f.metadata["changes_results"]}
    varied["rule"] = slug(experiment.parsed_rule)
    return [
        _layout(get_charts(experiment)).SerializeToString(),
        text.pb("options", table).SerializeToString(),
        hparams.hparams_pb(varied, trial_id=experiment.workdir).SerializeToString(),
    ]


def get_charts(experiment: Experiment) -> dict[str, dict[str, tuple[str, ...]]]:
    """Return the charts that a run fills, by category.

    Args:
        experiment: An `Experiment`.

    Returns:
        A dict from category to a dict from a chart's title to regular expressions; the chart shows
        the curves whose tags match one of them.

    Example:
        >>> from tfbio.training import Classification
        >>> "Targets" in get_charts(Classification(rule="dtp"))
        True
    """
    charts, rule = dict(tasks.get(experiment.task).charts), experiment.parsed_rule
    charts["Feedback, means"] = {title: (f"^{PREFIX}{tag}$",) for title, tag in MEANS.items()}
    if not rule.has_matrix:
        for category in ("Feedback", "Feedback, means"):
            charts[category] = {
                title: tags
                for title, tags in charts[category].items()
                if tags[0].startswith(("^gradient_angle/", f"^{PREFIX}gradient_angle"))
            }
    if rule.measures:
        charts["Targets"] = {f"{what}, every layer": (f"^{t}/",) for what, t in TARGETS.items()}
    return charts


def _layout(charts):
    """Return the layout of the Custom Scalars page."""
    from tensorboard.plugins.custom_scalar import layout_pb2, summary

    def chart(title, tags):
        lines = layout_pb2.MultilineChartContent(tag=tags)
        return layout_pb2.Chart(title=title, multiline=lines)

    categories = [
        layout_pb2.Category(title=name, chart=[chart(*each) for each in of_name.items()])
        for name, of_name in charts.items()
    ]
    return summary.pb(layout_pb2.Layout(category=categories))
