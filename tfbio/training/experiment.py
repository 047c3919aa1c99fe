"""The experiment: one training run's options, each with its type, default and help in one place.

Here are those of every experiment; what there is to learn has options of its own
(`tfbio.training.Classification`).
"""

import dataclasses
import functools
import itertools
import pathlib
from typing import Any, ClassVar

from tfbio import optimizers, rules
from tfbio.models import modules
from tfbio.training.options import check, default, named, named_values, option
from tfbio.training.strategies import STRATEGIES

PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
SCHEDULES = ("constant", "step", "cosine")
CHECKPOINTS = ("last", "best")
WHERE = ("none", "hidden", "last", "all")
"""The layers that a variant of the optimizer's applies to."""


@dataclasses.dataclass(frozen=True)
class Experiment:
    """The options of one training run; the command line's flags are made from these fields.

    Attributes:
        task: The name of what is learned, one of `tfbio.training.tasks.names()`.
        measures: What is measured on a split; the first is the loss, if the task has one there.
        score: The measure by which validation chooses the best step, the greater the better.
        label: What the score is called.
        elsewise: The options, beside the strategy, that a trained run may be measured with
            otherwise.

    Raises:
        ValueError: If an option is unknown, of the wrong type, out of its range, or does not go
            with another; the message names it.

    Example:
        >>> Experiment(rule="fa", epochs=3).batch_size
        64
    """

    task: ClassVar[str] = ""
    measures: ClassVar[tuple] = ()
    score: ClassVar[str] = ""
    label: ClassVar[str] = ""
    elsewise: ClassVar[tuple] = ()

    # Data.
    data_dir: str = option(
        "", "The folder with the dataset's files; empty: the usual places.", changes_results=False
    )
    download: bool = option(
        False, "Download the dataset with TFDS if it is not here.", changes_results=False
    )
    validation_fraction: float = option(
        0.1,
        "The share of the training split that is held out for validation; with 0, no step is best.",
        low=0,
        below=1,
    )
    train_fraction: float = option(
        1.0, "The share of the rest, at random, that is learned from.", low=0, high=1
    )
    max_corrupt: float = option(
        0.001,
        "The share of the photographs of a pass that may be damaged, and are left out; one always "
        "may, unless this is 0.",
        low=0,
        below=1,
        changes_results=False,
    )
    # Network and rule.
    init_from: str = option(
        "",
        "The folder of another run, whose weights to start from; a last layer for another number "
        "of classes gets new weights.",
    )
    init_checkpoint: str = option(
        "last", "With `init_from`: which of its checkpoints.", choices=CHECKPOINTS
    )
    accept_new_feedback: bool = option(
        False,
        "With `init_from`: whether feedback that the run holds for a layer may be replaced, as "
        "under another rule or other options; otherwise that is an error.",
    )
    rule: str = option(
        "sign_symmetry", f"The learning rule, with options if any: {', '.join(rules.names())}."
    )
    last_layer_rule: str = option("", "The rule of the last layer; empty: the same as the others'.")
    overrides: str = option(
        "", "Rules for layers by name pattern, such as 'conv1=backprop; block2_*=fa'."
    )
    rule_module: str = option("", "A Python file that registers rules of your own.")
    # Optimization.
    epochs: int = option(30, "Passes over the training split.", low=1, high=10**6)
    batch_size: int = option(
        64, "Examples per optimizer step, over all devices.", low=1, high=10**6
    )
    drop_remainder: bool = option(
        False,
        "Leave out the last batch of an epoch where it would be smaller than the others; on a TPU "
        "it always is left out.",
    )
    accumulate: int = option(
        1,
        "Micro-batches per optimizer step: every device takes its part of the batch in so many "
        "equal parts, one after the other, which saves memory.",
        low=1,
        high=10**4,
    )
    optimizer: str = option("sgd", "The optimizer.", choices=optimizers.names())
    # A greater rate is a slip, and beyond 3.4e38 infinite in float32.
    learning_rate: float = option(
        0.05, "The learning rate, after any warm-up.", above=0, high=10**6
    )
    last_layer_learning_rate: float = option(
        0.0, "The learning rate of the last layer; 0: the same as the others'.", low=0
    )
    momentum: float = option(0.9, "The momentum of sgd, nesterov and rmsprop.", low=0, below=1)
    weight_decay: float = option(
        0.0,
        "λ: λ·p is added to the gradient of every weight p before momentum; adamw decays apart.",
        low=0,
    )
    weight_decay_exclude: str = option(
        "",
        "What the decay spares, separated by commas: bias (biases and normalization's beta), "
        "normalization (gamma and beta), or name patterns of layers, such as 'bias,logits*'.",
    )
    bias_learning_rate_scale: float = option(
        1.0,
        "The learning rate of biases and normalization's beta over that of the kernels.",
        low=0,
    )
    clip_norm: float = option(
        0.0,
        "The greatest norm of the gradient of all weights together, before weight decay; 0: any.",
        low=0,
    )
    clip_layers: float = option(
        0.0,
        "The bound, on both sides, of every entry of the gradients that a layer under a rule "
        "returns, to its input, kernel and bias; layers on backprop have none. 0: none.",
        low=0,
    )
    constrain_norm: bool = option(
        False, "Scale every kernel to the norm that it started with, after each step."
    )
    batch_manhattan: str = option(
        "none", "The layers that learn by the sign of their gradient.", choices=WHERE
    )
    no_sign_change: str = option(
        "none", "The layers whose weights may not change sign.", choices=WHERE
    )
    feedback_learning_rate: float = option(
        0.0,
        "The learning rate of what learns by a loss of its own, the alignment rules' B and the "
        "inverses of target propagation; 0: the same as the others'.",
        low=0,
    )
    feedback_optimizer: str = option(
        "same", "Its optimizer, without decay.", choices=("same", *optimizers.names())
    )
    feedback_delay: int = option(0, "The steps before it begins to learn.", low=0, high=10**9)
    feedback_alternate: int = option(
        0,
        "n: it learns for one step, then all else for n, and so on; 0: all learn at every step.",
        low=0,
        high=10**9,
    )
    freeze: str = option(
        "",
        "Name patterns of layers that do not learn, separated by commas, such as 'stem*,stage1*'; "
        "their batch normalization works as in evaluation.",
    )
    schedule: str = option("constant", "How the learning rate falls.", choices=SCHEDULES)
    milestones: str = option(
        "", "With `schedule='step'`: epochs, separated by commas, after which the rate falls."
    )
    cosine_epochs: int = option(
        0,
        "With `schedule='cosine'`: the epochs until the rate is least; in those after them it "
        "rises again. 0: all epochs.",
        low=0,
        high=10**6,
    )
    final_learning_rate: float = option(
        0.0, "With `schedule='cosine'`: the least rate.", low=0, high=10**6
    )
    schedule_by: str = option(
        "step",
        "With `schedule='cosine'`: whether the rate falls at every step, or after every epoch.",
        choices=("step", "epoch"),
    )
    decay_factor: float = option(
        0.1, "With `schedule='step'`: what the rate is multiplied by.", low=0, high=1
    )
    warmup_epochs: float = option(
        0.0,
        "Epochs, or a part of one, over which the learning rate rises linearly.",
        low=0,
        high=10**6,
    )
    warmup_steps: int = option(
        0, "Instead of `warmup_epochs`: the steps over which it rises.", low=0, high=10**9
    )
    warmup_from: float = option(
        0.0, "The share of the learning rate at which warm-up begins.", low=0, below=1
    )
    seed: int = option(
        0, "The seed of weights, feedback, validation split and order.", low=0, high=2**31 - 1
    )
    # Execution.
    precision: str = option("float32", "Keras's dtype policy.", choices=PRECISIONS)
    strategy: str = option("one_device", "Where the steps run.", choices=STRATEGIES)
    tpu: str = option(
        "",
        "With `strategy='tpu'`: the TPU's name or grpc:// address; empty: this machine's.",
        changes_results=False,
    )
    sync_batch_norm: bool = option(
        False, "Batch normalization over the batch of all devices, instead of each its own."
    )
    jit: bool = option(False, "Compile the steps with XLA.")
    steps_per_call: int = option(
        20, "Steps per compiled call; timing and signals are handled between calls.",
        low=1, high=10**4, changes_results=False,
    )  # fmt: skip
    # Records.
    workdir: str = option("runs/mine", "The run's folder.", changes_results=False)
    log_every: int = option(
        100, "Steps between two lines of metrics within an epoch; 0: none.", low=0, high=10**9
    )
    telemetry_every: int = option(
        400,
        "Steps between two measurements of the angles between the gradient and backprop's, global "
        "and local, on a fixed batch; also before the first step and after the last. 0: never. The "
        "angles between W and B are measured at the same steps and at the end of every epoch.",
        low=0,
        high=10**9,
    )
    checkpoint_every: int = option(
        1000, "Steps between two checkpoints.", low=1, high=10**9, changes_results=False
    )
    checkpoint_minutes: float = option(
        10.0,
        "A checkpoint is also written when the last one is so many minutes old; 0: never by time.",
        low=0,
        changes_results=False,
    )
    keep_checkpoints: int = option(
        2, "How many checkpoints to keep.", low=1, high=1000, changes_results=False
    )

    def __post_init__(self):
        """Check every option."""
        for field in dataclasses.fields(self):
            check(field, getattr(self, field.name))
        self._check_cosine()
        self._check_schedule()
        if not self.workdir:
            raise ValueError("`workdir` must not be empty.")
        momentum = optimizers.WITH_MOMENTUM
        if self.optimizer not in momentum and self.momentum != default(self, "momentum"):
            raise ValueError(
                f"`momentum` belongs to {', '.join(momentum)}, not to "
                f"`optimizer='{self.optimizer}'`. Received: {self.momentum}."
            )
        if self.optimizer == "nesterov" and not self.momentum:
            raise ValueError("`optimizer='nesterov'` needs a `momentum` greater than 0.")
        self._check_execution()
        if self.rule_module:
            with named("rule_module"):
                modules.load(self.rule_module)
        with named("rule"):
            _ = self.parsed_rule
        with named("last_layer_rule"):
            _ = self.parsed_last_layer_rule
        self.override_rules()

    def _check_execution(self):
        """Refuse what cannot work together; docs/hardware.md has the table."""
        if self.jit and self.strategy in ("mirrored", "multi_worker"):
            raise ValueError(
                f"`jit` does not go with `strategy='{self.strategy}'`: XLA cannot compile the "
                "exchange of gradients between replicas."
            )
        if self.jit and self.strategy == "tpu":
            raise ValueError(
                "`jit` does not go with `strategy='tpu'`, where XLA compiles all there is."
            )
        if self.precision == "mixed_float16" and self.strategy == "tpu":
            raise ValueError(
                "`precision='mixed_float16'` does not go with `strategy='tpu'`: a TPU computes in "
                "bfloat16. Give `precision='mixed_bfloat16'`."
            )
        if self.tpu and self.strategy != "tpu":
            raise ValueError(
                f"`tpu` belongs to `strategy='tpu'`. Received: `strategy='{self.strategy}'`."
            )
        if self.download and self.strategy == "multi_worker":
            raise ValueError(
                "`download` does not go with `strategy='multi_worker'`: every worker would "
                "download. Download first, with one process."
            )
        if self.clip_norm and self.batch_manhattan == "all":
            raise ValueError(
                "`clip_norm` has no effect with `batch_manhattan='all'`, which takes the "
                "gradient's sign alone."
            )
        for name in ("freeze", "weight_decay_exclude"):
            text = getattr(self, name)
            if text and not all(part.strip() for part in text.split(",")):
                raise ValueError(
                    f"`{name}` must be names or patterns separated by commas, none of them empty. "
                    f"Received: {text!r}."
                )
        if self.weight_decay_exclude and not self.weight_decay:
            raise ValueError(
                "`weight_decay_exclude` has no effect without `weight_decay`. "
                f"Received: {self.weight_decay_exclude!r}."
            )
        if self.clip_layers and self.precision == "mixed_float16":
            raise ValueError(
                "`clip_layers` does not go with `precision='mixed_float16'`, whose gradients are "
                "scaled by a factor that changes: the bound would change with it."
            )
        for name in ("init_checkpoint", "accept_new_feedback"):
            if getattr(self, name) != default(self, name) and not self.init_from:
                raise ValueError(f"`{name}` belongs to `init_from`, which is not given.")
        if (
            self.init_from
            and pathlib.Path(self.init_from).resolve() == pathlib.Path(self.workdir).resolve()
        ):
            raise ValueError("`init_from` must be another folder than `workdir`.")

    def _check_cosine(self):
        for name in ("cosine_epochs", "final_learning_rate", "schedule_by"):
            value = getattr(self, name)
            if self.schedule != "cosine" and value != default(self, name):
                raise ValueError(
                    f"`{name}` belongs to `schedule='cosine'`, not to "
                    f"`schedule='{self.schedule}'`. Received: {value!r}."
                )
        if self.final_learning_rate >= self.learning_rate:
            raise ValueError(
                "`final_learning_rate` must be less than "
                f"`learning_rate={self.learning_rate}`. Received: {self.final_learning_rate}."
            )
        if self.cosine_epochs > self.epochs:
            raise ValueError(
                f"`cosine_epochs` must be `epochs={self.epochs}` at most, or 0 for all of them. "
                f"Received: {self.cosine_epochs}."
            )
        if self.cosine_epochs and self.warmup_epochs >= self.cosine_epochs:
            raise ValueError(
                f"`cosine_epochs` must be more than `warmup_epochs={self.warmup_epochs}`. "
                f"Received: {self.cosine_epochs}."
            )

    def _check_schedule(self):
        epochs = self.milestone_epochs()
        if (self.schedule == "step") != bool(epochs):
            raise ValueError(
                "`schedule='step'` and `milestones` go together. "
                f"Received: `schedule='{self.schedule}'` `milestones={self.milestones}`."
            )
        if any(b <= a for a, b in itertools.pairwise((0, *epochs, self.epochs))):
            raise ValueError(
                "`milestones` must be epochs in ascending order, from 1 to less than "
                f"`epochs={self.epochs}`. Received: {self.milestones!r}."
            )
        if self.schedule != "step" and self.decay_factor != default(self, "decay_factor"):
            raise ValueError(
                "`decay_factor` belongs to `schedule='step'`, not to "
                f"`schedule='{self.schedule}'`. Received: {self.decay_factor}."
            )
        if self.warmup_epochs and self.warmup_epochs >= min((*epochs, self.epochs)):
            raise ValueError(
                "`warmup_epochs` must end before the first milestone and the last epoch. "
                f"Received: {self.warmup_epochs}."
            )
        if self.warmup_epochs and self.warmup_steps:
            raise ValueError(
                "`warmup_epochs` and `warmup_steps` say the same thing: give one of them. "
                f"Received: `warmup_epochs={self.warmup_epochs}` "
                f"`warmup_steps={self.warmup_steps}`."
            )
        if self.warmup_from and not (self.warmup_epochs or self.warmup_steps):
            raise ValueError(
                "`warmup_from` belongs to `warmup_epochs` or `warmup_steps`, and neither is given. "
                f"Received: {self.warmup_from}."
            )

    @functools.cached_property
    def parsed_rule(self) -> rules.Rule:
        """The rule that `rule` describes; layers have copies of it.

        Example:
            >>> Experiment(rule="fa(seed=1)").parsed_rule
            feedback_alignment(scale='match', seed=1)
        """
        return rules.get(self.rule)

    @functools.cached_property
    def parsed_last_layer_rule(self) -> rules.Rule | None:
        """The rule that `last_layer_rule` describes, or None."""
        return rules.get(self.last_layer_rule) if self.last_layer_rule else None

    def published_errors(self) -> dict[str, float]:
        """Return the errors that a paper reports, in percent, as a dict from rule.

        Example:
            >>> Experiment().published_errors()
            {}
        """
        return {}

    def milestone_epochs(self) -> tuple[int, ...]:
        """Return the milestones as a tuple of integers.

        Example:
            >>> Experiment(epochs=90, schedule="step", milestones="30, 60").milestone_epochs()
            (30, 60)
        """
        parts = [part.strip() for part in self.milestones.split(",")] if self.milestones else []
        if not all(part.isascii() and part.isdecimal() for part in parts):
            raise ValueError(
                "`milestones` must be integers separated by commas, such as 50,75. "
                f"Received: {self.milestones!r}."
            )
        return tuple(int(part) for part in parts)

    def override_rules(self) -> dict[str, str]:
        """Return the overrides as a dict from name pattern to rule.

        Example:
            >>> Experiment(overrides="conv1=bp; dense*=frsf(seed=1)").override_rules()
            {'conv1': 'bp', 'dense*': 'frsf(seed=1)'}
        """
        pairs = named_values("overrides", self.overrides, ";", "conv1=backprop; block2_*=fa")
        for rule in pairs.values():
            with named("overrides"):
                rules.get(rule)
        return pairs


def differences(experiment: Experiment, other: Experiment) -> dict[str, tuple[Any, Any]]:
    """Return the options that make two runs' results differ.

    Args:
        experiment: An `Experiment`.
        other: Another of its kind.

    Returns:
        A dict from option to (value, other value). Rules are compared by what they mean; where
        files are, how many are kept and how often is no difference.

    Example:
        >>> differences(Experiment(rule="fa", workdir="a"), Experiment(rule="bp", workdir="b"))
        {'rule': ('fa', 'bp')}
    """
    found = {}
    for field in dataclasses.fields(experiment):
        values = getattr(experiment, field.name), getattr(other, field.name)
        same = values[0] == values[1]
        if not same and field.name in ("rule", "last_layer_rule") and all(values):
            parsed = f"parsed_{field.name}"
            same = repr(getattr(experiment, parsed)) == repr(getattr(other, parsed))
        if field.metadata["changes_results"] and not same:
            found[field.name] = values
    return found
