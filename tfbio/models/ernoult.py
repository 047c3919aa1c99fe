"""The networks of Ernoult et al. 2022, as their public code has them."""

import keras


def ernoult_lenet(num_classes: int, input_shape: tuple[int, int, int]) -> keras.Model:
    """Return two convolutions with ELU and max pooling, a dense layer of 512 ELU units, and logits.

    5×5 windows, 32 and 64 filters, each followed by a maximum over 3×3 with stride 2.

    Args:
        num_classes: The number of outputs (logits).
        input_shape: (height, width, channels), 7 or more a side.

    Returns:
        An uncompiled `keras.Model` from images to logits.

    Raises:
        ValueError: If a side is under 7.

    Example:
        >>> ernoult_lenet(10, (32, 32, 3)).count_params()
        1664970

    References:
        Ernoult et al. 2022, "Towards scaling difference target propagation by learning backprop
        targets".
    """
    _check("ernoult_lenet", input_shape, 7)
    layers = [*_block(1, 32, 5, 3), *_block(2, 64, 5, 3), keras.layers.Flatten(name="flatten")]
    layers.append(keras.layers.Dense(512, activation="elu", name="hidden"))
    return _network("ernoult_lenet", num_classes, input_shape, layers)


def ernoult_vgg(num_classes: int, input_shape: tuple[int, int, int]) -> keras.Model:
    """Return five convolutions with ELU and max pooling, and the logits: their SimpleVGG.

    3×3 windows, 128, 128, 256, 256 and 512 filters, each followed by a maximum over 2×2. A side
    must have 32 pixels or more. See `ernoult_lenet`.

    Example:
        >>> ernoult_vgg(10, (32, 32, 3)).count_params()
        2221706
    """
    _check("ernoult_vgg", input_shape, 32)
    filters = (128, 128, 256, 256, 512)
    blocks = [_block(index, width, 3, 2) for index, width in enumerate(filters, start=1)]
    layers = [layer for block in blocks for layer in block]
    return _network(
        "ernoult_vgg", num_classes, input_shape, [*layers, keras.layers.Flatten(name="flatten")]
    )


def _check(name, input_shape, least):
    if min(input_shape[:2]) < least:
        raise ValueError(
            f"`input_shape` of {name} must have {least} or more pixels a side. "
            f"Received: {input_shape}."
        )


def _block(index, filters, size, pool):
    return [
        keras.layers.Conv2D(
            filters, size, padding="same", activation="elu", name=f"conv{index}"
        ),
        keras.layers.MaxPooling2D(pool, 2, name=f"pool{index}"),
    ]  # fmt: skip


def _network(name, num_classes, input_shape, layers):
    output = keras.layers.Dense(num_classes, name="logits")
    return keras.Sequential([keras.Input(input_shape), *layers, output], name=name)
