"""Classification: the options of an experiment on image classification."""

import dataclasses
import math
from typing import ClassVar

from tfbio import data, losses, models, rules
from tfbio.models import initialization
from tfbio.training.experiment import Experiment
from tfbio.training.options import default, named, named_values, option


@dataclasses.dataclass(frozen=True)
class Classification(Experiment):
    """The options of one training run of an image classifier.

    Attributes:
        measures: What is measured on a split.
        score: The one by which validation chooses the best step, the greater the better.
        label: What the score is called.
        elsewise: The options that a trained run may be measured with otherwise.

    Raises:
        ValueError: If an option is unknown, of the wrong type, out of its range, or does not go
            with another; the message names it.

    Example:
        >>> Classification(rule="fa", epochs=3).batch_size
        64
    """

    task: ClassVar[str] = "classification"
    measures: ClassVar[tuple] = ("loss", "accuracy")
    score: ClassVar[str] = "accuracy"
    label: ClassVar[str] = "accuracy"
    elsewise: ClassVar[tuple] = ("evaluation_crops",)

    # Data.
    dataset: str = option(
        "digits", f"The dataset: {', '.join(data.names())}, or any classification set of TFDS."
    )
    image_size: int = option(
        0,
        "Resize images to this many pixels a side; 0: as they are, or 224 for imagenet2012 and "
        "imagenette.",
        low=0,
        high=4096,
    )
    augmentation: str = option(
        "none", "What is done to training images.", choices=data.augmentations()
    )
    shuffle: bool = option(
        True, "Take the training images in a new random order every epoch, not as they are stored."
    )
    standardize: bool = option(
        False, "Take every channel to mean 0 and standard deviation 1 over the training images."
    )
    channel_mean: str = option(
        "",
        "With `standardize`: the mean to take off instead of the training images', for pixels of 0 "
        "to 1; one number, or one for every channel, separated by commas.",
    )
    channel_std: str = option(
        "", "With `channel_mean`: the standard deviation to divide by, written as the mean."
    )
    evaluation_crops: int = option(
        1,
        "Crops of each photograph in evaluation: 1, the center, or 10, whose probabilities are "
        "averaged.",
        low=1,
        high=10,
    )
    data_service: str = option(
        "",
        "The dispatcher of a tf.data service that makes the training batches, such as "
        "grpc://host:5000; empty: this process.",
        changes_results=False,
    )
    data_service_timeout: int = option(
        300, "Seconds to wait for one of its batches.", low=1, high=10**5, changes_results=False
    )
    # Network.
    model: str = option(
        "digits_cnn",
        f"The network: {', '.join(models.names())}, keras:<name> for one of keras.applications, "
        "or your own, path/to/file.py:function.",
    )
    weights: str = option(
        "", "Weights to start from: a file, or imagenet for keras:<name>; empty: random ones."
    )
    initialization: str = option(
        "",
        "The distribution that all kernels of the network are drawn from, with biases at 0 unless "
        f"it is pytorch: {', '.join(initialization.names())}; empty: the network's own.",
    )
    # What it learns.
    loss: str = option(
        "cross_entropy",
        "What is minimized, computed from the logits: the softmax's cross-entropy; or of sigmoid "
        "outputs the binary cross-entropy, its mean over the classes or their sum, or the mean "
        "squared error.",
        choices=losses.NAMES,
    )
    # Records.
    workdir: str = option("runs/classify", "The run's folder.", changes_results=False)
    published: str = option(
        "",
        "The top-1 test errors that the paper reports, %, by rule, such as 'bp=9.20, fa=13.06'.",
        changes_results=False,
    )

    def __post_init__(self):
        """Check every option."""
        super().__post_init__()
        for name in ("dataset", "model"):
            if not getattr(self, name):
                raise ValueError(f"`{name}` must not be empty.")
        if self.standardize and self.model.startswith("keras:"):
            raise ValueError(
                "`standardize` does not go with the networks of keras.applications, which prepare "
                f"their images in their own way. Received: `model={self.model}`."
            )
        self.channel_statistics()
        self._check_loss()
        if self.data_service:
            with named("data_service", address="data_service"):
                data.Service(self.data_service, self.data_service_timeout)
        elif self.data_service_timeout != default(self, "data_service_timeout"):
            raise ValueError(
                "`data_service_timeout` belongs to `data_service`, which is not given. "
                f"Received: {self.data_service_timeout}."
            )
        with named("model"):
            models.find(self.model)
        if self.initialization:
            with named("initialization"):
                initialization.check(self.initialization)
            for name in ("weights", "init_from"):
                if getattr(self, name):
                    raise ValueError(
                        f"`initialization` has no effect with `{name}`, which also says where to "
                        "start: give one."
                    )
        if self.init_from and self.weights:
            raise ValueError("`init_from` and `weights` both say where to start: give one.")
        self.published_errors()

    def channel_statistics(self) -> tuple[list[float], list[float]] | None:
        """Return the given mean and standard deviation, each a number or one for every channel.

        Returns:
            (mean, std), or None if they are to be measured, or images are left as they are.

        Example:
            >>> options = {"channel_mean": "0.5", "channel_std": "0.25"}
            >>> Classification(standardize=True, **options).channel_statistics()
            ([0.5], [0.25])
        """
        mean, std = self.channel_mean, self.channel_std
        if not mean and not std:
            return None
        given = f"Received: `channel_mean={mean}` `channel_std={std}`"
        if not mean or not std:
            raise ValueError(f"`channel_mean` and `channel_std` go together. {given}.")
        if not self.standardize:
            raise ValueError(
                "`channel_mean` and `channel_std` belong to `standardize`, which is not given. "
                f"{given}."
            )
        try:
            numbers = [[float(part) for part in text.split(",")] for text in (mean, std)]
        except ValueError:
            numbers = [[math.nan], [math.nan]]
        good = all(0 <= each <= 1 for each in numbers[0]) and all(
            1e-6 <= each <= 10 for each in numbers[1]
        )
        if not good or len(numbers[0]) != len(numbers[1]):
            raise ValueError(
                "`channel_mean` and `channel_std` must be equally many numbers separated by "
                "commas, such as 0.49,0.48,0.45, for pixels of 0 to 1: means of 0 to 1, deviations "
                f"of 0.000001 to 10. Those of pixels of 0 to 255 are divided by 255. {given}."
            )
        return numbers[0], numbers[1]

    def _check_loss(self):
        """Refuse what takes the outputs for those of a softmax under a loss of sigmoid ones."""
        if self.loss == "cross_entropy":
            return
        if self.evaluation_crops > 1:
            raise ValueError(
                f"`evaluation_crops` averages a softmax's probabilities, and `loss='{self.loss}'` "
                f"has none. Give `evaluation_crops=1`. Received: {self.evaluation_crops}."
            )
        rule = self.parsed_rule
        if isinstance(rule, rules.TargetPropagation) and rule.reads_targets:
            raise ValueError(
                f"`rule={self.rule!r}` compares the outputs' softmax with the label, which does "
                f"not go with `loss='{self.loss}'`. Give `loss='cross_entropy'`, or a rule such as "
                "dtp, which takes any loss."
            )

    def published_errors(self) -> dict[str, float]:
        """Return the published errors as a dict from the rule's own name to percent.

        Example:
            >>> Classification(published="bp=9.20, usf=9.69").published_errors()
            {'backprop': 9.2, 'sign_symmetry': 9.69}
        """
        found = {}
        for rule, text in named_values(
            "published", self.published, ",", "bp=9.20, fa=13.06"
        ).items():
            with named("published"):
                name = rules.get(rule).alias
            try:
                found[name] = float(text)
            except ValueError:
                found[name] = math.nan
            if not 0 <= found[name] <= 100:
                raise ValueError(f"`published` must be errors of 0 to 100 %. Received: {text!r}.")
        return found
