"""The walk: every layer of a model, by a name that says where it stands."""

from tfbio.layers import FeedbackMixin


def layers(model):
    """Return the layers below a model, at any depth and of any kind of model, each one once.

    Args:
        model: A Keras model or layer: functional, sequential, subclassed or nested.

    Returns:
        A dict from a unique name, the names on the way down joined by "/", to the layer, in the
        order in which the model tracks them.

    Example:
        >>> import keras
        >>> inner = keras.Sequential([keras.layers.Dense(2, name="a")], name="inner")
        >>> list(layers(keras.Sequential([inner, keras.layers.Dense(1, name="b")])))
        ['inner', 'inner/a', 'b']
    """
    found, seen = {}, set()

    def visit(parent, prefix):
        for layer in parent._layers:
            if id(layer) in seen:
                continue
            seen.add(id(layer))
            name = unique = prefix + layer.name
            count = 1
            while unique in found:
                count += 1
                unique = f"{name}#{count}"
            found[unique] = layer
            visit(layer, unique + "/")

    visit(model, "")
    return found


def sites(model):
    """Return the kernels of all feedback layers of a model.

    Args:
        model: A Keras model or layer.

    Returns:
        A dict from the layer's name (for a separable convolution, followed by "/depthwise" or
        "/pointwise") to its `tfbio.layers.Site`.

    Raises:
        ValueError: If the model has no feedback layer.

    Example:
        >>> import keras, tfbio
        >>> layer = tfbio.layers.FeedbackDense(1, name="out")
        >>> list(sites(keras.Sequential([keras.Input((2,)), layer])))
        ['out']
    """
    found = {}
    candidates = {"": model} if isinstance(model, FeedbackMixin) else layers(model)
    for name, layer in candidates.items():
        if isinstance(layer, FeedbackMixin):
            for site in layer.sites():
                found["/".join(filter(None, (name or layer.name, site.part)))] = site
    if not found:
        raise ValueError(
            f"{type(model).__name__} {model.name!r} has no feedback layer. Put it under a rule "
            "first, with tfbio.convert(model, rule)."
        )
    return found
