"""The network of Lee et al. 2015, as their public code has it."""

from typing import Any

import keras


def lee_mnist(num_classes: int, input_shape: tuple[int, int, int]) -> keras.Model:
    """Return seven hidden layers of 240 tanh units, and the logits.

    Kernels start as `OrthogonalFactor`, biases at zero.

    Args:
        num_classes: The number of outputs (logits).
        input_shape: (height, width, channels).

    Returns:
        An uncompiled `keras.Model` from images to logits.

    Example:
        >>> lee_mnist(10, (28, 28, 1)).count_params()
        537850

    References:
        Lee et al. 2015, "Difference target propagation".
    """
    layers = [keras.Input(input_shape), keras.layers.Flatten(name="flatten")]
    for index in range(1, 8):
        layers.append(_dense(240, f"hidden{index}", activation="tanh"))
    layers.append(_dense(num_classes, "logits"))
    return keras.Sequential(layers, name="lee_mnist")


@keras.saving.register_keras_serializable("tfbio")
class OrthogonalFactor(keras.initializers.RandomUniform):
    """Lee et al.'s: the orthogonal factor ``U Pᵀ`` of a uniform matrix ``U Σ Pᵀ``.

    Its columns are orthonormal, or its rows where there are fewer of them. Keras's own Orthogonal
    takes the factor of a normal matrix.

    Args:
        seed: An integer, or None to follow the global seed (`keras.utils.set_random_seed`).

    Example:
        >>> w = OrthogonalFactor(0)((3, 2))
        >>> (abs(w.numpy().T @ w.numpy()) > 0.5).tolist()
        [[True, False], [False, True]]

    References:
        Lee et al. 2015, "Difference target propagation", and their code.
    """

    def __init__(self, seed: int | None = None):
        super().__init__(-1.0, 1.0, seed)

    def __call__(self, shape: tuple[int, ...], dtype: Any = None) -> Any:
        """Return a matrix.

        Args:
            shape: (rows, columns).
            dtype: A floating-point dtype, or None for Keras's.

        Raises:
            ValueError: If the shape is not that of a matrix.
        """
        if len(shape) != 2:
            raise ValueError(f"`shape` must be (rows, columns). Received: {tuple(shape)}.")
        left, _, right = keras.ops.svd(super().__call__(shape, "float32"), full_matrices=False)
        return keras.ops.cast(left @ right, dtype or keras.config.floatx())

    def get_config(self) -> dict[str, Any]:
        """Return the seed."""
        return {"seed": super().get_config()["seed"]}


def _dense(units, name, **options):
    initializer = OrthogonalFactor()
    return keras.layers.Dense(units, kernel_initializer=initializer, name=name, **options)
