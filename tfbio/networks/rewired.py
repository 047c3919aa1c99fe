"""A rewired model: what a functional or sequential model becomes under a rule of whole networks.

The model stays the same object, of a class that is made for it: derived from a network's class
(`DirectNetwork` or `TargetNetwork`) and from its own. It is saved with the name of its own class,
and rewired again when it is loaded.
"""

import functools
import types

import keras

from tfbio import _keras

_KEY = "tfbio_rewired"


class Rewired:
    """What the classes of such networks share; comes before the model's own in the bases.

    A class for a kind of network derives from this one directly, and defines `wire`.
    """

    _plain = None  # the model's own class
    wiring = ()
    """The names of the attributes in which `wire` keeps what it finds, past Keras's tracking."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.wire()  # a functional model's clone

    def wire(self):
        """Find how the model is wired; its kernel layers are feedback layers under one rule."""
        raise NotImplementedError(f"{type(self).__name__} must define `wire()`.")

    def get_config(self):
        """Return the model's own config, with its class."""
        cls = self._plain
        identity = {
            "module": cls.__module__,
            "class_name": cls.__name__,
            "registered_name": keras.saving.get_registered_name(cls),
        }
        return {**super().get_config(), _KEY: identity}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """Return the model of `config`, rewired by the rule that its layers hold."""
        config = dict(config)
        identity = config.pop(_KEY, None)
        if identity is None:
            return super().from_config(config, custom_objects=custom_objects)
        model = keras.saving.deserialize_keras_object(
            {**identity, "config": config}, custom_objects=custom_objects
        )
        return rewire(model, next(base for base in cls.__mro__ if Rewired in base.__bases__))

    def __reduce__(self):
        # Keras's own function to load with is that of a class which no module holds.
        return _keras.unpickle_model, super().__reduce__()[1]


@functools.cache
def _class(network, cls):
    def config(self):
        return Rewired.get_config(self)

    namespace = {"__module__": network.__module__, "__doc__": cls.__doc__, "_plain": cls}
    # Keras looks at the method to see whether the class relies on automatic configs.
    namespace["get_config"] = functools.wraps(cls.get_config)(config)
    made = types.new_class(cls.__name__, (network, cls), exec_body=lambda n: n.update(namespace))
    register = keras.saving.register_keras_serializable("tfbio", network.__name__)
    # All are saved under one name, which stands for the base: it finds the model's class.
    register(made)
    register(network)
    return made


def rewire(model, network):
    """Make a network of a model, in place.

    Args:
        model: A built functional or sequential model, all of whose kernel layers are feedback
            layers under the same rule of whole networks.
        network: The subclass of `Rewired`.

    Returns:
        The same model.

    Raises:
        ValueError: As the network's `wire` does.

    Example:
        >>> import keras, tfbio
        >>> layers = [keras.Input((4,)), keras.layers.Dense(3, "relu"), keras.layers.Dense(2)]
        >>> model = tfbio.convert(keras.Sequential(layers), "dfa")  # which calls this
        >>> [cls.__name__ for cls in type(model).__mro__[:3]]
        ['Sequential', 'DirectNetwork', 'Rewired']
    """
    model.__class__ = _class(network, type(model))
    model.wire()
    return model


def restore(model):
    """Give a model that was rewired its former class, in place; any other stays as it is.

    Args:
        model: A Keras model or layer.

    Example:
        >>> import keras, tfbio
        >>> layers = [keras.Input((4,)), keras.layers.Dense(3, "relu"), keras.layers.Dense(2)]
        >>> model = tfbio.convert(keras.Sequential(layers), "dfa")
        >>> restore(model)
        >>> type(model) is keras.Sequential
        True
    """
    if isinstance(model, Rewired):
        for name in model.wiring:
            vars(model).pop(name, None)
        model.__class__ = model._plain
