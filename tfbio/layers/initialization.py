"""Initialization position by position: each matrix of an untied kernel as if it were a layer's."""

from typing import Any

import keras
import numpy as np

# These look at no fans, so that a kernel is to them what its matrices are.
_OF_ANY_SHAPE = (
    keras.initializers.RandomNormal,
    keras.initializers.RandomUniform,
    keras.initializers.TruncatedNormal,
    keras.initializers.Constant,
    keras.initializers.Zeros,
    keras.initializers.Ones,
)


class PerPosition(keras.initializers.Initializer):
    """Initialize a kernel (positions, rows, columns) as so many matrices, all drawn apart.

    Left to itself, Keras would take a kernel of three dimensions for a convolution's and multiply
    both fans by the number of positions: the entries would come out √positions times too small.

    Keras's own random initializers draw all matrices at once. Any other is called for each with the
    shape (rows, columns); a seed that it keeps as an integer becomes one per position.

    Args:
        initializer: A Keras initializer, or a function ``(shape, dtype) -> array``.

    Raises:
        ValueError: When it is called, if `initializer` returns anything but one matrix.

    Example:
        >>> draw = PerPosition(keras.initializers.GlorotUniform(seed=0))
        >>> float(keras.ops.std(draw((100, 8, 24))))
        0.2...
        >>> draw = PerPosition(keras.initializers.Identity())
        >>> print(keras.ops.sum(draw((5, 2, 2)), 0).numpy())
        [[5. 0.]
         [0. 5.]]
    """

    def __init__(self, initializer: Any):
        self.initializer = initializer

    def __call__(self, shape, dtype=None):
        """Return a kernel of the given shape (positions, rows, columns) and dtype."""
        if type(self.initializer) in _OF_ANY_SHAPE:
            return self.initializer(shape, dtype=dtype)
        if _scaled_by_fans(self.initializer):
            axes = {"input_axes": [1], "output_axes": [2]}
            return _changed(self.initializer, **axes)(shape, dtype=dtype)
        positions, *matrix = shape
        expected = tuple(matrix)
        drawn = []
        for draw in self._apart(positions):
            drawn.append(np.asarray(draw(expected, dtype=dtype)))
            if drawn[-1].shape != expected:
                raise ValueError(
                    "`kernel_initializer` is called for each position, and must return a matrix of "
                    f"shape {expected}. Received: an array of shape {drawn[-1].shape} from "
                    f"{self.initializer!r}."
                )
        return keras.ops.convert_to_tensor(np.stack(drawn))

    def _apart(self, count):
        """Return an initializer for each position, alike but for their seeds."""
        seed = getattr(self.initializer, "seed", None)
        if not isinstance(seed, int):
            return [self.initializer] * count
        # With one seed, Keras's initializers draw the same at every call; seeds have 31 bits.
        seeds = np.random.SeedSequence(seed).generate_state(count) >> 1
        return [_changed(self.initializer, seed=int(each)) for each in seeds]


def _scaled_by_fans(initializer):
    # Keras's own only, and with the fans that it finds by itself.
    return (
        isinstance(initializer, keras.initializers.VarianceScaling)
        and type(initializer).__module__.startswith("keras.")
        and initializer.input_axes is None
        and initializer.output_axes is None
    )


def _changed(initializer, **options):
    # A seed that was left out is drawn when the initializer is made: it is no part of the config.
    config = {**initializer.get_config(), "seed": initializer.seed, **options}
    return type(initializer).from_config(config)
