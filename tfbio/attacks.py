"""Attacks: images changed by at most eps a pixel, along the model's gradient, to be misread.

Both attacks stay in the ball ``‖x' − x‖_∞ ≤ eps`` and in the range of images, 0 to 1, and climb the
loss of the true class y, one of `tfbio.losses`. The gradient of the softmax's cross-entropy by the
image is that of the margin m, but for a positive factor, which the sign forgets::

    m(x) = log Σ_{j≠y} exp z_j(x) − z_y(x),    L = log(1 + exp m),    ∇L = σ(m) ∇m

They follow ∇m: where the softmax is sure of itself, float32 rounds 1 − p_y to 0, and with it the
share of z_y in ∇L. Likewise a loss of sigmoid outputs is followed along ``Σ_j w_j ∇z_j``, w its
gradient by the logits divided by its largest entry, which is computed from logarithms.

Which gradient that is, is the caller's choice: within `tfbio.true_gradient(model)` it is that of
the function which the model computes, outside of it, under a learning rule, the one that has passed
through every B. An attack by the second says how misleading that gradient is, and nothing of how
robust the model is.
"""

import numbers
from typing import Any

import keras
import tensorflow as tf

from tfbio import losses
from tfbio._arguments import check_integer, check_number

_LEAST = tf.float32.min  # exp of it is 0
_STREAM = 0x61747461  # sets the starts apart from what else is drawn from a seed


def fgsm(
    model: keras.Model,
    images: Any,
    labels: Any,
    eps: float | tf.Tensor,
    *,
    loss: str = "cross_entropy",
) -> tf.Tensor:
    """Return images changed by one step of the fast gradient sign method.

    ``x' = clip(x + eps · sign(∇_x L(x, y)), 0, 1)``. A pixel without a gradient, or whose gradient
    is no finite number, stays as it is. It works eagerly and in compiled functions.

    Args:
        model: A `keras.Model` from images to logits (B, classes), not probabilities. What prepares
            the images, if anything, is part of it. It is called with ``training=False``.
        images: (B, …), floating-point of 0 to 1, or uint8 of 0 to 255, which stand for that.
        labels: The true classes (B,), integers.
        eps: The most that a pixel changes by, 0 to 1, in units of the images' range: 8/255 are
            eight levels of a byte. A number or a scalar tensor.
        loss: The loss L, one of `tfbio.losses.NAMES`.

    Returns:
        A tensor of the images' shape, floating-point of 0 to 1.

    Raises:
        ValueError: If `loss` is unknown, `eps` or, eagerly, a pixel is out of its range, or the
            model's outputs are no logits of two or more classes.
        TypeError: If images are integers other than uint8.

    Example:
        >>> import keras, tensorflow as tf
        >>> logits = keras.layers.Dense(2, kernel_initializer="identity")  # z = x
        >>> model = keras.Sequential([keras.Input((2,)), logits])
        >>> attack = tf.function(lambda x, y: fgsm(model, x, y, eps=0.25))
        >>> print(attack(tf.constant([[0.5, 0.125]]), tf.constant([0])).numpy())
        [[0.25  0.375]]

    References:
        Goodfellow, Shlens and Szegedy 2015, "Explaining and harnessing adversarial examples".
    """
    images = _to_unit_range(images)
    low, high = _ball(images, eps)
    step = _as(images, eps) * tf.sign(gradient(model, images, labels, loss))
    return tf.clip_by_value(images + step, low, high)


def pgd(
    model: keras.Model,
    images: Any,
    labels: Any,
    eps: float | tf.Tensor,
    steps: int = 20,
    step_size: float | tf.Tensor | None = None,
    *,
    seed: int = 0,
    indices: Any = None,
    restarts: int = 1,
    random_start: bool = True,
    loss: str = "cross_entropy",
) -> tf.Tensor:
    """Return images changed by projected gradient ascent: many small steps, back into the ball.

    ::

        x_0     = clip(x + eps · u, 0, 1),    u ~ U(−1, 1) for every pixel
        x_{t+1} = clip(x_t + α · sign(∇_x L(x_t, y)), max(x − eps, 0), min(x + eps, 1))

    u is a pure function of the seed, the example's index and the restart, whatever the batch. Of
    several restarts each example keeps the one that is misread, else the one of the greatest loss.

    Args:
        model: As for `fgsm`.
        images: As for `fgsm`.
        labels: As for `fgsm`.
        eps: As for `fgsm`.
        steps: How many, 1 or more.
        step_size: α, in the units of eps; None for ``2.5 · eps / steps``, with which Madry et al.
            take 100 steps for many an eps, so that the ball's border is reached from anywhere
            within, and can be moved along.
        seed: An integer of 0 or more.
        indices: The examples' numbers (B,), integers, that `u` is drawn by; None for 0 to B − 1.
        restarts: How many starts, 1 or more.
        random_start: Whether there is u; without it, ``x_0 = x``.
        loss: As for `fgsm`.

    Returns:
        A tensor of the images' shape, floating-point of 0 to 1.

    Raises:
        ValueError: As `fgsm` does, or if another number is out of its range.
        TypeError: If images are integers other than uint8.

    Example:
        >>> import keras, tensorflow as tf
        >>> logits = keras.layers.Dense(2, kernel_initializer="identity")
        >>> model = keras.Sequential([keras.Input((2,)), logits])
        >>> attack = tf.function(lambda x, y: pgd(model, x, y, eps=0.25, steps=4))
        >>> print(attack(tf.constant([[0.5, 0.125]]), tf.constant([0])).numpy())
        [[0.25  0.375]]

    References:
        Madry, Makelov, Schmidt, Tsipras and Vladu 2018, "Towards deep learning models resistant to
        adversarial attacks"; the step size is that of its section 5 on several eps.
    """
    for name, value, least in (("steps", steps, 1), ("restarts", restarts, 1), ("seed", seed, 0)):
        check_integer(name, value, low=least)
    if restarts > 1 and not random_start:
        raise ValueError(
            f"`restarts` needs `random_start`: without it, all begin alike. Received: {restarts}."
        )
    images = _to_unit_range(images)
    low, high = _ball(images, eps)
    size = 2.5 * eps / steps if step_size is None else step_size
    if isinstance(size, numbers.Real):
        check_number("step_size", size, low=0)
    size = _as(images, size)
    if indices is None:
        indices = tf.range(tf.shape(images)[0])

    def climb(changed):
        step = size * tf.sign(gradient(model, changed, labels, loss))
        return tf.clip_by_value(changed + step, low, high)

    best = None
    for restart in range(restarts):
        changed = images
        if random_start:
            start = _as(images, eps) * _noise(images, indices, seed, restart)
            changed = tf.clip_by_value(images + start, low, high)
        (changed,) = tf.while_loop(
            lambda _: True, lambda now: (climb(now),), (changed,), maximum_iterations=steps
        )
        best = changed if best is None else _worse(model, labels, best, changed, loss)
    return best


def gradient(
    model: keras.Model, images: Any, labels: Any, loss: str = "cross_entropy"
) -> tf.Tensor:
    """Return a gradient by the images, in whose direction the loss grows fastest.

    That of the margin m, or under a loss of sigmoid outputs ``Σ_j w_j ∇z_j``; see the module.

    Under mixed_float16, what is smaller than 6e-8 on its way down through the layers becomes 0:
    attack a float32 model of the same weights. In full precision, zeros all over an image are a
    gradient that the network itself masks, and nothing that attacks by it will find.

    Args:
        model: As for `fgsm`.
        images: As for `fgsm`, floating-point.
        labels: As for `fgsm`.
        loss: As for `fgsm`.

    Returns:
        A tensor of the images' shape; 0 where there is no gradient, or none that is finite.

    Raises:
        ValueError: If `loss` is unknown, or the model's outputs are no logits of two or more
            classes.

    Example:
        >>> import keras, tensorflow as tf
        >>> logits = keras.layers.Dense(2, kernel_initializer="identity")
        >>> model = keras.Sequential([keras.Input((2,)), logits])
        >>> print(gradient(model, tf.constant([[0.5, 0.125]]), tf.constant([0])).numpy())
        [[-1.  1.]]
    """
    images = tf.convert_to_tensor(images)
    with tf.GradientTape() as tape:
        tape.watch(images)
        logits = _logits(model, images, loss)
        climbed = _climbed(logits, labels, loss)
    # Of their sum: no example's share depends on how many there are.
    slope = tape.gradient(climbed, images, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    return tf.where(tf.math.is_finite(slope), slope, tf.zeros_like(slope))


def _logits(model, images, loss):
    if loss not in losses.NAMES:
        raise ValueError(f"`loss` must be one of {', '.join(losses.NAMES)}. Received: {loss!r}.")
    logits = model(images, training=False)
    if len(logits.shape) != 2 or logits.shape[1] < 2:
        raise ValueError(
            "`model` must return logits (B, classes) of two or more classes. "
            f"Received: outputs of shape {tuple(logits.shape)}."
        )
    return logits if logits.dtype == tf.float64 else tf.cast(logits, tf.float32)


def _climbed(logits, labels, loss):
    """Return (B,) whose gradient by the logits is the loss's, times a positive factor for each."""
    if loss == "cross_entropy":
        return _margins(logits, labels)
    sign, log = losses.log_slopes(loss, labels, logits)
    weights = sign * tf.exp(log - tf.reduce_max(log, axis=1, keepdims=True))
    return tf.reduce_sum(tf.stop_gradient(weights) * logits, axis=1)


def _margins(logits, labels):
    labels = tf.cast(labels, tf.int64)
    true = tf.one_hot(labels, logits.shape[1], on_value=True, off_value=False, dtype=tf.bool)
    others = tf.reduce_logsumexp(tf.where(true, tf.cast(_LEAST, logits.dtype), logits), axis=1)
    return others - tf.gather(logits, labels, batch_dims=1)


def _worse(model, labels, one, other, loss):
    """Return of two versions of each image the one that the model does worse on."""

    def judged(x):
        logits = _logits(model, x, loss)
        wrong = tf.argmax(logits, axis=1) != tf.cast(labels, tf.int64)
        if loss == "cross_entropy":  # which grows with the margin
            return _margins(logits, labels), wrong
        return losses.example_losses(loss, labels, logits), wrong

    (value, wrong), (its_value, its_wrong) = judged(one), judged(other)
    chosen = (its_wrong & ~wrong) | ((its_wrong == wrong) & (its_value > value))
    return tf.where(tf.reshape(chosen, (-1, *[1] * (len(one.shape) - 1))), other, one)


def _noise(images, indices, seed, restart):
    """Return numbers of −1 to 1 for every pixel, by seed, index and restart alone."""

    def drawn(index):
        key = tf.random.experimental.stateless_fold_in(
            tf.stack([tf.constant(seed, tf.int64), index]), _STREAM + restart, alg="philox"
        )
        return tf.random.stateless_uniform(
            tf.shape(images)[1:], key, minval=-1.0, maxval=1.0, alg="philox"
        )

    each = tf.map_fn(drawn, tf.cast(indices, tf.int64), fn_output_signature=tf.float32)
    return tf.cast(tf.reshape(each, tf.shape(images)), images.dtype)


def _to_unit_range(images):
    """Return images as numbers of 0 to 1, checked."""
    images = tf.convert_to_tensor(images)
    if images.dtype == tf.uint8:
        return tf.cast(images, tf.float32) / 255.0
    if not images.dtype.is_floating:
        raise TypeError(
            "`images` must be floating-point of 0 to 1, or uint8 of 0 to 255. "
            f"Received: {images.dtype.name}."
        )
    if images.dtype.size < 4:
        images = tf.cast(images, tf.float32)
    # In a compiled function there is nothing to look at yet.
    if tf.executing_eagerly() and tf.size(images):
        least, most = float(tf.reduce_min(images)), float(tf.reduce_max(images))
        if not (least >= 0 and most <= 1):
            raise ValueError(
                "`images` must be of 0 to 1, as eps is in units of that range. "
                f"Received: {least:g} to {most:g}."
            )
    return images


def _ball(images, eps):
    """Return the least and the greatest that every pixel may become."""
    if isinstance(eps, numbers.Real) and not 0 <= eps <= 1:
        raise ValueError(
            "`eps` must be 0 to 1, in units of the images' range, such as 8/255. "
            f"Received: {eps!r}."
        )
    eps = _as(images, eps)
    return tf.maximum(images - eps, 0.0), tf.minimum(images + eps, 1.0)


def _as(images, number):
    """Return a number or scalar tensor in the images' dtype."""
    if isinstance(number, numbers.Real):  # tf.cast would take it through float32
        return tf.constant(number, images.dtype)
    return tf.cast(number, images.dtype)
