"""Networks of the user's own."""

import keras


def network(num_classes, input_shape):
    """Return one with state of every kind: batch statistics and dropout's seeds."""
    return keras.Sequential(
        [
            keras.Input(input_shape),
            keras.layers.Conv2D(8, 3, name="conv"),
            keras.layers.BatchNormalization(name="norm"),
            keras.layers.ReLU(name="relu"),
            keras.layers.Flatten(name="flatten"),
            keras.layers.Dropout(0.3, name="dropout"),
            keras.layers.Dense(num_classes, name="logits"),
        ]
    )


def chain(num_classes, input_shape):
    """Return one whose hidden layers can be given targets."""
    return keras.Sequential(
        [
            keras.Input(input_shape),
            keras.layers.Flatten(name="flatten"),
            keras.layers.Dense(32, activation="tanh", name="dense1"),
            keras.layers.Dense(16, activation="tanh", name="dense2"),
            keras.layers.Dense(num_classes, name="logits"),
        ]
    )
