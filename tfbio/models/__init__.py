"""Networks, plain Keras: they know nothing of rules; `tfbio.convert` puts them under one."""

import functools
import pathlib
import zipfile
from collections.abc import Callable, Iterable

import keras

from tfbio._arguments import check_integer, is_integer, suggest
from tfbio.models.akrout import akrout_cifar, akrout_mnist
from tfbio.models.alexnet import alexnet
from tfbio.models.applications import Preprocess, application, application_names
from tfbio.models.bartunov import (
    bartunov_conv_cifar,
    bartunov_conv_imagenet,
    bartunov_conv_mnist,
    bartunov_fc_cifar,
    bartunov_fc_mnist,
    bartunov_lc_cifar,
    bartunov_lc_imagenet,
    bartunov_lc_mnist,
)
from tfbio.models.batch_normalization import BatchNormalization
from tfbio.models.digits_cnn import digits_cnn
from tfbio.models.ernoult import ernoult_lenet, ernoult_vgg
from tfbio.models.frenkel import frenkel_mnist
from tfbio.models.initialization import initialize
from tfbio.models.kunin import kunin_resnet18
from tfbio.models.lee import lee_mnist
from tfbio.models.lenet import lenet, lenet_tanh
from tfbio.models.lenet_cifar import lenet_cifar
from tfbio.models.pooling import PaddedMaxPooling2D
from tfbio.models.resnet import (
    resnet,
    resnet18,
    resnet18_zero_gamma,
    resnet34,
    resnet50,
    resnet101,
    resnet152,
)
from tfbio.models.resnet_cifar import IdentityShortcut, residual, resnet20, resnet32, resnet56
from tfbio.models.standardize import standardize
from tfbio.models.user import from_file

_BUILDERS = {
    builder.__name__: builder
    for builder in (
        *(digits_cnn, lenet, lenet_tanh, lenet_cifar, akrout_mnist, akrout_cifar, alexnet),
        *(resnet18, resnet18_zero_gamma, resnet34, resnet50, resnet101, resnet152),
        *(resnet20, resnet32, resnet56),
        *(bartunov_fc_mnist, bartunov_lc_mnist, bartunov_conv_mnist),
        *(bartunov_fc_cifar, bartunov_lc_cifar, bartunov_conv_cifar),
        *(bartunov_lc_imagenet, bartunov_conv_imagenet),
        *(lee_mnist, ernoult_lenet, ernoult_vgg, frenkel_mnist),
        *(kunin_resnet18,),
    )
}
_FILES = (".weights.h5", ".keras")

__all__ = [
    "BatchNormalization",
    "IdentityShortcut",
    "PaddedMaxPooling2D",
    "Preprocess",
    "akrout_cifar",
    "akrout_mnist",
    "alexnet",
    "application",
    "application_names",
    "bartunov_conv_cifar",
    "bartunov_conv_imagenet",
    "bartunov_conv_mnist",
    "bartunov_fc_cifar",
    "bartunov_fc_mnist",
    "bartunov_lc_cifar",
    "bartunov_lc_imagenet",
    "bartunov_lc_mnist",
    "build",
    "digits_cnn",
    "ernoult_lenet",
    "ernoult_vgg",
    "find",
    "frenkel_mnist",
    "from_file",
    "initialize",
    "kunin_resnet18",
    "lee_mnist",
    "lenet",
    "lenet_cifar",
    "lenet_tanh",
    "names",
    "residual",
    "resnet",
    "resnet18",
    "resnet18_zero_gamma",
    "resnet20",
    "resnet32",
    "resnet34",
    "resnet50",
    "resnet56",
    "resnet101",
    "resnet152",
    "standardize",
]


def __dir__():
    return __all__


def names() -> tuple[str, ...]:
    """Return the names of the networks that the library defines.

    Example:
        >>> names()[:3]
        ('digits_cnn', 'lenet', 'lenet_tanh')
    """
    return tuple(_BUILDERS)


def find(name: str) -> Callable[..., keras.Model]:
    """Return the builder of a network, a function (num_classes, input_shape).

    Args:
        name: One of `names`; "keras:" and the name of an architecture of keras.applications; or
            "path/to/file.py:function", see `from_file`: the file is imported.

    Returns:
        The builder. Use `build`, which also checks what it is called with.

    Raises:
        ValueError: If the name is unknown, or the file missing or faulty.

    Example:
        >>> find("lenet") is lenet
        True
    """
    name = str(name)
    if name in _BUILDERS:
        return _BUILDERS[name]
    if name.startswith("keras:"):
        architecture = name.removeprefix("keras:")
        if architecture in application_names():
            return functools.partial(application, architecture)
    elif ".py" in name:
        return from_file(name)
    known = {each: each for each in _BUILDERS}
    for each in application_names():
        # A bare "MobileNetV2" stands for Keras's.
        known |= dict.fromkeys((each.lower(), f"keras:{each}"), f"keras:{each}")
    raise ValueError(
        f"Unknown model {name!r}.{suggest(name, known)} Models: {', '.join(_BUILDERS)}; "
        "keras:<name> for those of keras.applications, such as keras:MobileNetV2; "
        "path/to/file.py:function for your own."
    )


def build(
    name: str,
    num_classes: int,
    input_shape: tuple[int, int, int],
    weights: pathlib.Path | str = "",
) -> keras.Model:
    """Build a network by name. Every network takes float32 images of 0 to 1.

    Args:
        name: What `find` takes.
        num_classes: The number of outputs, 1 or more.
        input_shape: (height, width, channels), each 1 or more.
        weights: "" for random ones; the path of a file, ".weights.h5" or ".keras", that was saved
            from the same network before it was put under a rule; or "imagenet", for those of
            keras.applications with 1000 classes.

    Returns:
        An uncompiled `keras.Model` from images to logits.

    Raises:
        ValueError: If the name is unknown, a number out of its range, the images too small for
            the network, the network of one's own is not as `from_file` wants it, or the weights
            are missing or another network's.

    Example:
        >>> build("lenet", num_classes=10, input_shape=(32, 32, 1)).name
        'lenet'
    """
    builder = find(name)
    num_classes = check_integer("num_classes", num_classes, low=1)
    shape = _check_shape(input_shape)
    if str(weights) == "imagenet":
        if not str(name).startswith("keras:"):
            raise ValueError(
                "`weights` 'imagenet' is there for the networks of keras.applications only, such "
                f"as keras:ResNet50. Received: {name!r}. Give '' for random ones, or a path."
            )
        return builder(num_classes, shape, weights="imagenet")
    _check_weights(weights)
    model = builder(num_classes, shape)
    if weights:
        _load_weights(model, weights)
    return model


def _check_shape(input_shape):
    shape = tuple(input_shape) if isinstance(input_shape, Iterable) else ()
    if len(shape) != 3 or not all(is_integer(side, low=1) for side in shape):
        raise ValueError(
            "`input_shape` must be (height, width, channels), positive integers. "
            f"Received: {input_shape}."
        )
    return tuple(map(int, shape))


def _check_weights(weights):
    if not weights:
        return
    path = pathlib.Path(weights).expanduser()
    if not path.name.endswith(_FILES):
        raise ValueError(
            f"`weights` must be '', 'imagenet' or a file ending in {' or '.join(_FILES)}. "
            f"Received: {str(weights)!r}."
        )
    if not path.is_file():
        raise ValueError(
            f"`weights`: there is no file {str(weights)!r}, looked for in {pathlib.Path.cwd()}."
        )


def _load_weights(model, weights):
    try:
        model.load_weights(str(pathlib.Path(weights).expanduser()))
    except (ValueError, KeyError, OSError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"`weights`: the file {str(weights)!r} does not hold those of model {model.name!r}. "
            "Weights that were saved under a rule are loaded after tfbio.convert. "
            f"{type(error).__name__}: {error}"
        ) from error
