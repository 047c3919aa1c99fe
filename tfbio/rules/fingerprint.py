"""The fingerprint of a kernel: 64 bits by which a rule sees that an optimizer has changed it."""

import tensorflow as tf

# Odd numbers of 64 bits with no pattern: Steele, Lea and Flood's splitmix (2014), as signed.
_ODD = (0x9E3779B97F4A7C15 - 2**64, 0xBF58476D1CE4E5B9 - 2**64, 0x94D049BB133111EB - 2**64)


def fingerprint(kernel: tf.Tensor) -> tf.Tensor:
    """Return 64 bits that change when `kernel` does.

    A sum over the entries of their bit patterns and places, mixed, in wrapping integer arithmetic:
    exact, so that it is the same eagerly, compiled, under XLA and on every replica. Two kernels
    agree by chance only, about once in 2⁶⁴.

    Args:
        kernel: A floating-point tensor or variable of any shape.

    Returns:
        A scalar int64 tensor.

    Example:
        >>> int(fingerprint(tf.constant([1.0, 2.0]))) != int(fingerprint(tf.constant([2.0, 1.0])))
        True
    """
    kernel = tf.convert_to_tensor(kernel)
    integer = {2: tf.int16, 4: tf.int32, 8: tf.int64}[kernel.dtype.size]
    columns = kernel.shape[-1] if kernel.shape.rank else 1
    bits = tf.cast(tf.bitcast(tf.reshape(kernel, (-1, columns)), integer), tf.int64)
    rows = tf.range(bits.shape[0], dtype=tf.int64)[:, None]
    place = rows * columns + tf.range(columns, dtype=tf.int64)
    # Mixed before they are added: in a plain weighted sum small opposite changes would cancel.
    mixed = (bits + place * _ODD[0]) * _ODD[1]
    mixed = tf.bitwise.bitwise_xor(mixed, tf.bitwise.right_shift(mixed, tf.constant(32, tf.int64)))
    return tf.reduce_sum(mixed * _ODD[2])
