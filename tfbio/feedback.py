"""Gradient substitution: a linear operation whose input gradient passes through another matrix.

Every learning rule of this library that keeps backpropagation's structure and replaces its feedback
matrices rests on the one function of this module.
"""

from collections.abc import Callable
from typing import Any

import tensorflow as tf


def asymmetric(
    op: Callable[..., tf.Tensor],
    inputs: Any,
    kernel: tf.Tensor,
    feedback: tf.Tensor | None,
    transport: tf.Tensor | None = None,
) -> tf.Tensor:
    """Apply `op(inputs, kernel)`, sending the error back through `feedback` instead of `kernel`.

    With ``y = op(x, W)``, the error ``e = ∂L/∂y`` and the feedback matrix ``B``::

        ∂x = op(·, B)ᵀ e        the vector–Jacobian product of op, taken at B
        ∂W = op(x, ·)ᵀ e        the ordinary, local kernel gradient
        ∂B = ∂W                 so that a trainable B follows W (Kolen–Pollack); else stop it

    For a dense layer these are ``∂x = e Bᵀ`` and ``∂W = xᵀ e``; for a convolution,
    ``∂x = conv_transpose(e, B)`` and the ordinary filter gradient. ``B = W`` is backpropagation.

    Both products come from automatic differentiation of `op` itself, so that one function serves
    matrix products, einsums and convolutions of every stride, padding, dilation and grouping. In a
    compiled function the forward operations that this repeats are pruned: what is left is one
    forward, one input-gradient and one kernel-gradient operation.

    Reverse mode only: forward-mode differentiation (`tf.autodiff.ForwardAccumulator`) goes through
    W, as the function itself does.

    Args:
        op: A function ``(inputs, kernel) -> outputs``, linear in each argument. It must read
            weights from its arguments only: one that closes over a variable would hide it from
            the substitution.
        inputs: A tensor, or a composite tensor (`tf.SparseTensor`), whose values are the
            floating-point components.
        kernel: The forward matrix W, a tensor (not a variable) of the inputs' dtype.
        feedback: The feedback matrix B, a tensor of W's shape, layout and dtype; None for none
            (direct feedback): ∂x = 0.
        transport: None, or a boolean tensor: where it is true, the error goes back through W
            itself, to all orders of differentiation.

    Returns:
        ``op(inputs, kernel)``, unchanged to the last bit.

    Raises:
        ValueError: If `kernel` and `feedback` differ in shape.

    Example:
        >>> import tensorflow as tf
        >>> x, w, b = tf.ones((1, 2)), tf.ones((2, 3)), tf.fill((2, 3), 5.0)
        >>> with tf.GradientTape() as tape:
        ...     tape.watch(x)
        ...     y = asymmetric(tf.matmul, x, w, b)
        >>> print(tape.gradient(y, x).numpy())  # 3 · 5, where W would have given 3
        [[15. 15.]]

    References:
        Lillicrap et al. 2016, "Random synaptic feedback weights support error backpropagation for
        deep learning"; Liao, Leibo and Poggio 2016, "How important is weight symmetry in
        backpropagation?"
    """
    kernel = tf.convert_to_tensor(kernel)
    cut = feedback is None
    matrix = tf.stop_gradient(kernel) if cut else tf.convert_to_tensor(feedback)
    if not kernel.shape.is_compatible_with(matrix.shape):
        raise ValueError(
            "`feedback` must have the shape of `kernel`. "
            f"Received: kernel.shape={kernel.shape}, feedback.shape={matrix.shape}."
        )
    # A sparse input reaches tf.custom_gradient as its components; only its values carry a gradient.
    components = tf.nest.flatten(inputs, expand_composites=True)

    @tf.custom_gradient
    def substituted(kernel, feedback, transport, *components):
        x = tf.nest.pack_sequence_as(inputs, components, expand_composites=True)

        def gradients(upstream):
            if cut:
                # Not computed and then multiplied by 0: that it is left out is what it is for.
                toward_input = tf.cond(
                    transport,
                    lambda: input_gradients(op, x, kernel, upstream),
                    lambda: [tf.zeros_like(c) for c in components if c.dtype.is_floating],
                )
            else:
                backward = tf.cond(transport, lambda: kernel, lambda: feedback)
                toward_input = input_gradients(op, x, backward, upstream)
            toward_input = iter(toward_input)
            with tf.GradientTape() as tape:
                tape.watch(kernel)
                at_kernel = op(x, kernel)
            kernel_gradient = tape.gradient(at_kernel, kernel, upstream)
            return (
                kernel_gradient,
                kernel_gradient,
                None,
                *(next(toward_input) if c.dtype.is_floating else None for c in components),
            )

        return op(x, kernel), gradients

    transport = tf.constant(False) if transport is None else tf.convert_to_tensor(transport)
    return substituted(kernel, matrix, transport, *components)


def input_gradients(
    op: Callable[..., tf.Tensor], inputs: Any, matrix: tf.Tensor, upstream: tf.Tensor
) -> list[tf.Tensor]:
    """Return the error at the input of a linear operation: ``∂x = op(·, matrix)ᵀ e``.

    Args:
        op: The operation, see `asymmetric`.
        inputs: Its input x, a tensor or composite tensor.
        matrix: What stands where the kernel stood, W or B.
        upstream: The error e at its output.

    Returns:
        A list with the gradient of each floating-point component of `inputs`, one for a tensor.

    Example:
        >>> x, b, e = tf.ones((1, 2)), tf.fill((2, 3), 5.0), tf.ones((1, 3))
        >>> print(input_gradients(tf.matmul, x, b, e)[0].numpy())
        [[15. 15.]]
    """
    components = tf.nest.flatten(inputs, expand_composites=True)
    differentiable = [c for c in components if c.dtype.is_floating]
    with tf.GradientTape() as tape:
        tape.watch(differentiable)
        outputs = op(inputs, matrix)
    return tape.gradient(outputs, differentiable, upstream)


def shared_gradient(
    kernel: tf.Tensor, feedback: tf.Tensor, transport: tf.Tensor | None = None
) -> tuple[tf.Tensor, tf.Tensor]:
    """Return W and B as they are, such that both receive one gradient, to all orders.

    `asymmetric` gives B the kernel's gradient. Where a loss depends on the error itself, as a
    penalty on the gradient at the input does, it depends on B directly, too, because the error has
    passed through B::

        L(W, B):    ∂B = ∂L/∂W + ∂L/∂B,    ∂W = ∂L/∂W alone

    B would get all of the gradient and W a part. A Kolen–Pollack pair must get the same, and for
    ``B = W`` what backpropagation gives, which is the sum: of these two gradients, the feedback's.

    Args:
        kernel: W, a tensor.
        feedback: B, a tensor of its shape and dtype.
        transport: As for `asymmetric`; where it is true, the error has passed through W, and the
            sum is the kernel's gradient.

    Returns:
        (W, B), to be given to `asymmetric`.

    Example:
        >>> x, w, b = tf.constant([[1.0]]), tf.constant([[2.0]]), tf.constant([[3.0]])
        >>> with tf.GradientTape() as outer:
        ...     outer.watch([w, b])
        ...     with tf.GradientTape() as inner:
        ...         inner.watch(x)
        ...         y = asymmetric(tf.matmul, x, *shared_gradient(w, b))
        ...     penalty = inner.gradient(y, x) ** 2  # B²
        >>> [g.numpy().item() for g in outer.gradient(penalty, [w, b])]  # 2B for both
        [6.0, 6.0]
    """

    @tf.custom_gradient
    def shared(kernel, feedback, transport):
        def gradients(of_kernel, of_feedback):
            whole = tf.where(transport, of_kernel, of_feedback)
            return whole, whole, None

        return (tf.identity(kernel), tf.identity(feedback)), gradients

    transport = tf.constant(False) if transport is None else tf.convert_to_tensor(transport)
    return shared(kernel, feedback, transport)
