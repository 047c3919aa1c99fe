"""The demonstration's network: small enough for 8×8 digits and a CPU, deep enough to matter."""

import keras


def digits_cnn(num_classes: int, input_shape: tuple[int, int, int]) -> keras.Model:
    """Return three 3×3 convolutions (16-32-32), the last two of stride 2, then dense 64 and logits.

    Args:
        num_classes: The number of outputs (logits).
        input_shape: (height, width, channels), 4 or more a side.

    Returns:
        An uncompiled `keras.Model` from images to logits.

    Raises:
        ValueError: If a side is under 4.

    Example:
        >>> digits_cnn(10, (8, 8, 1)).output_shape
        (None, 10)
    """
    if min(input_shape[:2]) < 4:
        raise ValueError(
            "`input_shape` of digits_cnn must have 4 or more pixels a side. "
            f"Received: {input_shape}."
        )
    return keras.Sequential(
        [
            keras.Input(input_shape),
            keras.layers.Conv2D(16, 3, padding="same", activation="relu", name="conv1"),
            keras.layers.Conv2D(32, 3, 2, padding="same", activation="relu", name="conv2"),
            keras.layers.Conv2D(32, 3, 2, padding="same", activation="relu", name="conv3"),
            keras.layers.Flatten(name="flatten"),
            keras.layers.Dense(64, activation="relu", name="dense1"),
            keras.layers.Dense(num_classes, name="logits"),
        ],
        name="digits_cnn",
    )
