"""Standardization: a network that first takes its images to mean 0 and standard deviation 1."""

import keras


def standardize(model: keras.Model, mean: list[float], std: list[float]) -> keras.Model:
    """Return the network with ``(x − mean)/std``, channel by channel, before it.

    Args:
        model: A `keras.Model` from images; its layers are used, not copied.
        mean: A number for every channel.
        std: A number for every channel.

    Returns:
        A `keras.Model` of the same name. A sequential model stays one, with the same layers after
        the new one; any other becomes one layer of the model that is returned.

    Raises:
        ValueError: If the model has a `train_step` of its own, which would be lost.

    Example:
        >>> import numpy as np
        >>> inner = keras.Sequential([keras.Input((2, 2, 1)), keras.layers.Flatten()])
        >>> float(standardize(inner, [1.0], [0.5])(np.full((1, 2, 2, 1), 2.0))[0, 0])
        2.0
    """
    if type(model).train_step is not keras.Model.train_step:
        raise ValueError(
            f"A model with a train_step of its own, such as {type(model).__name__}, cannot be "
            "standardized from outside: put a keras.layers.Normalization in it."
        )
    variance = [value**2 for value in std]
    layer = keras.layers.Normalization(mean=list(mean), variance=variance, name="standardize")
    shape = model.input_shape[1:]
    if isinstance(model, keras.Sequential):
        return keras.Sequential([keras.Input(shape), layer, *model.layers], name=model.name)
    images = keras.Input(shape, name="images")
    return keras.Model(images, model(layer(images)), name=f"standardized_{model.name}")
