"""A network of the user's own, with state of every kind: batch statistics and dropout's seeds."""

import keras


def network(num_classes, input_shape):
    """Return a small convolutional network with batch normalization and dropout."""
    return keras.Sequential(
        [
            keras.Input(input_shape),
            keras.layers.Conv2D(8, 3, name="conv"),
            keras.layers.BatchNormalization(name="norm"),
            keras.layers.ReLU(name="relu"),
            keras.layers.Flatten(name="flatten"),
            keras.layers.Dropout(0.3, name="dropout"),
            keras.layers.Dense(16, activation="relu", name="dense"),
            keras.layers.Dense(num_classes, name="logits"),
        ]
    )
