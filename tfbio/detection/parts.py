"""The parts of RetinaNet beside its backbone: the feature pyramid and the heads."""

import math
from collections.abc import Sequence

import keras

BEST_ANCHORS = ("never", "from_0.4", "always")
"""When the anchor that overlaps an object most is positive below an IoU of 0.5."""
LEVELS = ("P3", "P4", "P5")
"""The backbone's maps that the pyramid is built on, 8, 16 and 32 times smaller than the image."""


def make_pyramid(widths: Sequence[int], channels: int) -> keras.Model:
    """Return keras_cv's feature pyramid as a model, with names and as the paper's code starts.

    Kernels start at U(−√(3/n), √(3/n)) with the fan-in n, biases at 0.

    Args:
        widths: The channels of the backbone's maps P3, P4 and P5.
        channels: Those of all maps that come out.

    Returns:
        A model from a dict of the maps `LEVELS` to a dict of "P3" to "P7".

    Example:
        >>> pyramid = make_pyramid((16, 32, 64), channels=8)
        >>> maps = {f"P{level}": keras.KerasTensor((1, 256 >> level, 256 >> level, 2 << level))
        ...         for level in (3, 4, 5)}
        >>> pyramid(maps)["P7"].shape
        (1, 2, 2, 8)

    References:
        Lin et al. 2017, "Feature pyramid networks for object detection"; Detectron's
        `detectron/modeling/FPN.py`.
    """

    def convolution(size, name, strides=1):
        initializer = keras.initializers.VarianceScaling(1.0, "fan_in", "uniform")
        return keras.layers.Conv2D(
            channels, size, strides, "same", kernel_initializer=initializer, name=name
        )

    inputs = {
        level: keras.Input((None, None, width), name=level)
        for level, width in zip(LEVELS, widths, strict=True)
    }
    merged, outputs = None, {}
    for level in reversed(LEVELS):
        lateral = convolution(1, f"lateral_{level.lower()}")(inputs[level])
        if merged is not None:
            above = keras.layers.UpSampling2D(2, name=f"above_{level.lower()}")(merged)
            lateral = keras.layers.Add(name=f"sum_{level.lower()}")([lateral, above])
        merged = lateral
        outputs[level] = convolution(3, f"output_{level.lower()}")(merged)
    outputs["P6"] = convolution(3, "output_p6", 2)(inputs["P5"])
    x = keras.layers.ReLU(name="relu_p6")(outputs["P6"])
    outputs["P7"] = convolution(3, "output_p7", 2)(x)
    return keras.Model(inputs, dict(sorted(outputs.items())), name="pyramid")


def make_head(
    name: str, layers: int, channels: int, last: str, outputs: int, prior: float | None = None
) -> keras.Sequential:
    """Return a head: some 3×3 convolutions with ReLU, and a last one without.

    Kernels start at N(0, 0.01²), biases at 0.

    Args:
        name: The head's name.
        layers: The convolutions before the last one.
        channels: Their width, and that of the maps that come in.
        last: The last convolution's name.
        outputs: Its channels.
        prior: The probability p at which each output starts as a logit, with the bias
            −log((1 − p)/p); None for a bias of 0.

    Returns:
        A model from a map to a map of as many positions.

    Example:
        >>> head = make_head("head", 2, 8, "logits", 27, prior=0.01)
        >>> [layer.name for layer in head.layers], round(float(head.layers[-1].bias[0]), 3)
        (['conv1', 'conv2', 'logits'], -4.595)

    References:
        Lin et al. 2017, "Focal loss for dense object detection"; Detectron's
        `detectron/modeling/retinanet_heads.py`.
    """
    initializer = keras.initializers.RandomNormal(stddev=0.01)

    def convolution(filters, name, **options):
        options["kernel_initializer"] = initializer.clone()  # another draw
        return keras.layers.Conv2D(filters, 3, padding="same", name=name, **options)

    hidden = [
        convolution(channels, f"conv{index}", activation="relu") for index in range(1, layers + 1)
    ]
    bias = 0.0 if prior is None else -math.log((1 - prior) / prior)
    final = convolution(outputs, last, bias_initializer=keras.initializers.Constant(bias))
    return keras.Sequential([keras.Input((None, None, channels)), *hidden, final], name=name)
