"""The networks of keras.applications, which take images in 0..1 as all others here do."""

import inspect
import socket
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

# The architectures are functions that return a model; the modules beside them hold their parts.
_NAMES = tuple(
    name
    for name in sorted(dir(keras.applications))
    if name[0].isupper() and inspect.isfunction(getattr(keras.applications, name))
)
_TIMEOUT_SECONDS = 20


def application_names() -> tuple[str, ...]:
    """Return the names of the architectures that keras.applications has.

    Example:
        >>> "MobileNetV2" in application_names()
        True
    """
    return _NAMES


@keras.saving.register_keras_serializable("tfbio")
class Preprocess(keras.layers.Layer):
    """From images in 0..1 to what a network of keras.applications was trained on.

    Computes ``preprocess_input(255·x)`` of the architecture's own module, in full precision. A gray
    image becomes one of three equal channels.

    Args:
        application: The architecture's name, such as "ResNet50".
        **kwargs: Those of every Keras layer.

    Raises:
        ValueError: If keras.applications has no such architecture.

    Example:
        >>> Preprocess("MobileNetV2")(tf.ones((1, 1, 1, 1))).numpy()
        array([[[[1., 1., 1.]]]], dtype=float32)
    """

    def __init__(self, application: str, **kwargs: Any):
        kwargs.setdefault("dtype", "float32")
        super().__init__(**kwargs)
        self.application = application
        module = inspect.getmodule(_architecture(application))
        # A preprocessing that is part of the network leaves only a placeholder in the module.
        self._preprocess = vars(module)["preprocess_input"]

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Return the preprocessed images."""
        if inputs.shape[-1] == 1:
            inputs = tf.repeat(inputs, 3, axis=-1)
        return self._preprocess(255.0 * inputs, data_format="channels_last")

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tuple[int | None, ...]:
        """Return the input's shape, of three channels."""
        return (*input_shape[:-1], 3)

    def get_config(self) -> dict[str, Any]:
        """Return the layer's config."""
        return {**super().get_config(), "application": self.application}


def application(
    name: str, num_classes: int, input_shape: tuple[int, int, int], weights: str = ""
) -> keras.Model:
    """Return a network of keras.applications, with its preprocessing, up to the logits.

    Args:
        name: The architecture's name, such as "MobileNetV2".
        num_classes: The number of outputs (logits).
        input_shape: (height, width, channels); one channel stands for three equal ones.
        weights: "" for random ones, or "imagenet", which has 1000 classes and is downloaded by
            Keras unless ~/.keras/models has it.

    Returns:
        An uncompiled `keras.Model` from images in 0..1 to logits.

    Raises:
        ValueError: If the name is unknown, the images too small for the network or neither gray
            nor RGB, or the weights do not fit or cannot be downloaded.

    Example:
        >>> application("MobileNetV2", 10, (32, 32, 1)).output_shape
        (None, 10)
    """
    build = _architecture(name)
    if input_shape[-1] not in (1, 3):
        raise ValueError(
            f"`input_shape` of keras:{name} must have 1 or 3 channels. Received: {input_shape}."
        )
    if weights == "imagenet" and num_classes != 1000:
        raise ValueError(
            "`weights` 'imagenet' has 1000 classes, so that `num_classes` must be 1000. "
            f"Received: {num_classes}. Give weights='' for random ones, or the path of a file."
        )
    images = keras.Input(input_shape)
    preprocessed = Preprocess(name, name="preprocess")(images)
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_TIMEOUT_SECONDS)  # Keras's download has none of its own
    try:
        model = build(
            weights=weights or None,
            input_tensor=preprocessed,
            input_shape=(*input_shape[:2], 3),
            classes=num_classes,
            classifier_activation=None,
        )
    except Exception as error:
        # Keras raises a bare Exception where a download fails, ValueErrors for sizes.
        if weights and not isinstance(error, ValueError):
            raise ValueError(
                f"`weights`: ImageNet's for keras:{name} cannot be downloaded, and ~/.keras/models "
                f"does not have them: {error}. Give weights='' for random ones, or the path of a "
                "file."
            ) from error
        raise ValueError(
            f"keras:{name} cannot be built for images of {input_shape} and {num_classes} classes: "
            f"{error}"
        ) from error
    finally:
        socket.setdefaulttimeout(before)
    # Keras makes the input a list of one, which images would not match.
    return keras.Model(images, model.output, name=model.name)


def _architecture(name):
    if name not in _NAMES:
        raise ValueError(
            f"keras.applications has no network {name!r}. Its networks: {', '.join(_NAMES)}."
        )
    return getattr(keras.applications, name)
