"""Adjoints: inverses that learn to carry targets as backpropagation's would be, by L-DRL's loss.

No optimizer trains them: each takes many steps of its own between two of the forward weights.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from tfbio.networks.target_propagation.learning import Inverses, full, squared

if TYPE_CHECKING:
    import keras

    from tfbio.networks.target_propagation.stages import Pass, Stage
    from tfbio.rules.rule import Rule

OPTIONS = ("iterations", "rate", "noise")
"""The rule's options that may have a number for each inverse."""


def variables(rule: Rule) -> list[keras.Variable]:
    """Return V, c and their momenta, which an inverse's own steps change; none without an inverse.

    Args:
        rule: A stage's rule.

    Example:
        >>> import tfbio
        >>> variables(tfbio.rules.get("l_drl"))
        []
    """
    if not hasattr(rule, "inverse_kernel"):
        return []
    return [rule.inverse_kernel, rule.inverse_bias, *rule.buffers]


def learned(
    stages: Sequence[Stage],
    seen: Sequence[Pass],
    activations: Sequence[tf.Tensor],
    states: Sequence[Sequence[tf.Tensor]],
    draw: Callable[..., tf.Tensor],
) -> tuple[list[Any], dict[int, tf.Tensor]]:
    """Let every inverse take its steps: SGD with momentum on `loss`, of one batch.

    Args:
        stages: The network's stages.
        seen: The `Pass` of each.
        activations: The output of each.
        states: What its `variables` hold, of each.
        draw: A function from (a stage's place, the number of the draw, a tensor like it) to
            N(0, 1).

    Returns:
        (new states, a dict from the place of each inverse to its last loss).

    Example:
        >>> learned((), (), (), [], None)
        ([], {})
    """
    matrices = [state[:2] or None for state in states]
    inverses = Inverses(stages, seen, matrices, own=True)
    places = [index for index, state in enumerate(states) if state]
    states, losses = list(states), {}
    for order, index in enumerate(places):
        states[index], losses[index] = _taught(
            inverses,
            index,
            activations,
            states[index],
            draw,
            {name: _of(name, order, stages[index].rule) for name in OPTIONS},
        )
    return states, losses


def _taught(inverses, index, activations, state, draw, options):
    """Return an inverse's state after its steps, and the last loss."""
    stage, momentum = inverses.stages[index], inverses.stages[index].rule.momentum
    below, outputs = activations[index - 1], activations[index]

    def step(k, v, c, mv, mc, _):
        noises = [
            options["noise"] * draw(index, 2 * k + which, like)
            for which, like in enumerate((below, outputs))
        ]
        with tf.GradientTape() as tape:
            tape.watch([v, c])

            def run(h):
                with tape.stop_recording():
                    seen = stage.run(h)
                return seen, seen.output

            value = loss(inverses, index, below, noises, run, (v, c))
        gradients = tape.gradient(value, [v, c], unconnected_gradients="zero")
        mv, mc = (momentum * m + g for m, g in zip((mv, mc), gradients, strict=True))
        v, c = v - options["rate"] * mv, c - options["rate"] * mc
        return k + 1, v, c, mv, mc, tf.cast(value, tf.float32)

    _, *state, value = tf.while_loop(
        lambda k, *_: k < options["iterations"], step, (tf.constant(0), *state, tf.constant(0.0))
    )
    return state, value


def check(rule: Rule, count: int) -> None:
    """Refuse an option that has another number of values than there are inverses.

    Args:
        rule: The network's, l_drl.
        count: The number of inverses.

    Raises:
        ValueError: If an option does not fit.

    Example:
        >>> import tfbio
        >>> check(tfbio.rules.get("l_drl(rate=(0.1, 0.2))"), 2)
    """
    for name in OPTIONS:
        option = getattr(rule, name)
        if isinstance(option, tuple) and len(option) != count:
            raise ValueError(
                f"`{name}` of rule {rule.alias!r} must have one number for each of the {count} "
                f"inverses, from the second kernel layer up. Received: {option!r}."
            )


def _of(name, place, rule):
    """Return an option's number for one inverse."""
    option = getattr(rule, name)
    return option[place] if isinstance(option, tuple) else option


def loss(
    inverses: Inverses,
    index: int,
    below: tf.Tensor,
    noises: Sequence[tf.Tensor],
    run: Callable[[tf.Tensor], tuple[Pass, tf.Tensor]],
    matrices: Sequence[tf.Tensor],
) -> tf.Tensor:
    """Return L-DRL's loss of an inverse, whose gradient is V's and c's.

    ::

        −2⟨ξ, G(F(x + ξ)) − G(y)⟩ + ‖G(y + η) − G(y)‖²

    Args:
        inverses: The `Inverses`.
        index: The stage's place.
        below: x, its input.
        noises: (ξ, η).
        run: A function from an input to (the stage's `Pass`, its output).
        matrices: (V, c).

    Returns:
        A scalar.

    References:
        Ernoult et al. 2022, "Towards scaling difference target propagation by learning backprop
        targets".

    Example:
        >>> import keras, tfbio
        >>> layers = [keras.Input((4,)), keras.layers.Dense(3, "tanh"), keras.layers.Dense(2)]
        >>> model = tfbio.convert(keras.Sequential(layers), "l_drl")
        >>> found = tfbio.networks.target_propagation.stages(model, model.layers[0].rule)
        >>> below = found[0].run(tf.ones((1, 4)))
        >>> seen = [below, found[1].run(below.output)]
        >>> own = found[1].rule
        >>> matrices = [None, [own.inverse_kernel.value, own.inverse_bias.value]]
        >>> inverses = Inverses(found, seen, matrices, own=True)
        >>> run = lambda h: (found[1].run(h), found[1].run(h).output)
        >>> noise = tf.constant([[0.1, -0.2, 0.3]])
        >>> float(loss(inverses, 1, below.output, (noise, noise[:, :2]), run, matrices[1])) != 0
        True
    """
    xi, eta = noises
    outputs = tf.stop_gradient(inverses.seen[index].output)
    seen, moved = run(below + xi)
    invert = functools.partial(inverses, index, matrices=matrices)
    back = invert(outputs)
    gained = (full(invert(tf.stop_gradient(moved), seen)) - full(back)) * full(xi)
    inner = tf.reduce_sum(gained, axis=list(range(1, gained.shape.rank)))
    return squared(full(invert(outputs + eta)) - full(back)) - 2.0 * tf.reduce_mean(inner)
