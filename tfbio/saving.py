"""Saving: a layer that makes its own sub-layers keeps their rules in its config, by position.

Keras makes a model again from its layers' configs. The config of an attention layer, of a user's
block or of a subclassed model says nothing of the sub-layers that its code makes, which would come
back on plain backpropagation without a word. `contain` gives such a layer a config that does.
"""

import functools
import types

import keras

from tfbio import _keras, rules
from tfbio.layers import TWINS, FeedbackMixin
from tfbio.layers.sites import find_layers

_KEY = "tfbio_rules"


def contain(model):
    """Turn every layer below a model that holds feedback layers into a `RuledContainer`.

    Keras's own functional and sequential models are left as they are: they write out each of
    their layers, rule and all.

    Args:
        model: A converted Keras model.

    Example:
        >>> import keras, tfbio
        >>> x = keras.Input((4, 3))
        >>> model = keras.Model(x, keras.layers.MultiHeadAttention(1, 2, name="attention")(x, x))
        >>> clone = keras.models.clone_model(tfbio.convert(model, "sign_symmetry"))
        >>> {site.rule.alias for site in tfbio.layers.sites.find_sites(clone).values()}
        {'sign_symmetry'}
    """
    for layer in (model, *find_layers(model).values()):
        below = find_layers(layer).values()
        if any(isinstance(each, FeedbackMixin) for each in below):
            _make_container(layer)


class RuledContainer:
    """What a layer becomes that makes feedback layers by itself: the same, with their rules kept.

    `contain` derives a class from this one and the layer's, with the layer's name and behavior.
    Its config is the layer's own, and for each feedback layer below, by its position among its
    parent's sub-layers, the rule. What is made again from it has its sub-layers turned into
    feedback layers as soon as they are there: when it is made, or when it is built.

    Raises:
        ValueError: When a sub-layer that had a rule is missing or of another class; and from
            `get_config`, if the layer's own config holds that of a sub-layer without its class.
    """

    _ruled_class = None  # the layer's own
    _awaited_rules = types.MappingProxyType({})  # of sub-layers that are not there yet

    def get_config(self):
        """Return the layer's own config, its class, and the rules of the layers below."""
        config = super().get_config()
        if any(_bare(value) for value in config.values()):
            raise ValueError(
                f"Layer {self.name!r} of class {type(self).__name__} writes the config of a "
                "sub-layer without its class, so that it would come back without its learning "
                "rule. Let it use keras.saving.serialize_keras_object; or save with "
                "model.save_weights('….weights.h5') and, to restore, build the model, put it "
                "under the same rule with tfbio.convert, and load the weights."
            )
        cls = self._ruled_class
        identity = {
            "module": cls.__module__,
            "class_name": cls.__name__,
            "registered_name": keras.saving.get_registered_name(cls),
        }
        return {**config, _KEY: {"class": identity, "layers": _described(self)}}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """Return the layer of `config`, its sub-layers under their rules; see the class."""
        more = {} if custom_objects is None else {"custom_objects": custom_objects}
        config = dict(config)
        saved = config.pop(_KEY, None)
        if cls._ruled_class is not None:
            layer = cls._ruled_class.from_config(config, **more)
        else:
            layer = keras.saving.deserialize_keras_object(
                {**saved["class"], "config": config}, **more
            )
        if saved is not None:
            _make_container(layer)
            layer._put_back(saved["layers"])
        return layer

    def __reduce__(self):
        # Keras's own function to load with is that of a class which no module holds.
        return _keras.unpickle_model, super().__reduce__()[1]

    def _post_build(self):
        # Keras's hook; `build` itself is bound to each layer as it is made.
        super()._post_build()
        self._put_back(self._awaited_rules)

    def build_from_config(self, config):
        """Build the layer as Keras does when it loads one, and put the rules back."""
        super().build_from_config(config)
        # A model without `build` is called instead, on symbolic inputs.
        self._put_back(self._awaited_rules)

    def __call__(self, *args, **kwargs):
        """Call the layer, and refuse one that has left rules behind."""
        outputs = super().__call__(*args, **kwargs)
        if self._awaited_rules:
            raise ValueError(
                f"Layer {self.name!r} of class {type(self).__name__} was made again from its "
                "config, but not all of its sub-layers with a learning rule. Expected, by "
                f"position: {self._awaited_rules!r}. Received: {_children(self)!r}."
            )
        return outputs

    def _put_back(self, described):
        # Past Keras's tracking, which would keep it among the layer's state.
        vars(self)["_awaited_rules"] = _put_back(self, described)


@functools.cache
def _container_class(cls):
    namespace = {"__module__": __name__, "__doc__": cls.__doc__, "_ruled_class": cls}
    # Keras looks at the method to see whether the class relies on automatic configs.
    namespace["get_config"] = functools.wraps(cls.get_config)(
        lambda self: RuledContainer.get_config(self)
    )
    # Called as the layer's class is, because paths in weights files hold class names.
    made = types.new_class(
        cls.__name__, (RuledContainer, cls), exec_body=lambda n: n.update(namespace)
    )
    register = keras.saving.register_keras_serializable("tfbio", "RuledContainer")
    # All are saved under one name, which stands for the base: it finds the layer's class.
    register(made)
    register(RuledContainer)
    return made


def _make_container(layer):
    own = isinstance(layer, RuledContainer | FeedbackMixin)
    if not own and not _writes_out_its_layers(layer):
        layer.__class__ = _container_class(type(layer))


def _writes_out_its_layers(layer):
    # Exactly functional and sequential models; the classes derived from them are not Keras's.
    return isinstance(layer, keras.Model) and type(layer).__module__.startswith("keras.")


def _plain_class(layer):
    own = (RuledContainer, FeedbackMixin)
    return next(cls for cls in type(layer).__mro__ if not issubclass(cls, own))


def _children(layer):
    # A sequential model has an input layer once it is built.
    children = _keras.get_sublayers(layer)
    return [child for child in children if not isinstance(child, keras.layers.InputLayer)]


def _described(layer):
    """Return, by position, class, rule and sub-layers of what has, or holds, a rule."""
    described = dict(getattr(layer, "_awaited_rules", {}))
    for index, child in enumerate(_children(layer)):
        entry = {}
        if isinstance(child, FeedbackMixin):
            entry["rule"] = dict(child._rule_config)
        if below := _described(child):
            entry["layers"] = below
        if entry:
            described[str(index)] = {"class_name": _plain_class(child).__name__, **entry}
    return described


def _put_back(layer, described):
    """Put what is there of a layer's sub-layers under their rules; return what is not there."""
    missing = {}
    children = {str(index): child for index, child in enumerate(_children(layer))}
    for index, entry in described.items():
        if index not in children:
            missing[index] = entry
            continue
        child = children[index]
        if _plain_class(child).__name__ != entry["class_name"]:
            raise ValueError(
                f"Layer {layer.name!r} of class {type(layer).__name__} was made again from its "
                f"config with another sub-layer at position {index}. Expected: one of class "
                f"{entry['class_name']}. Received: {child!r}."
            )
        if "rule" in entry:
            _put_under(child, entry["rule"])
        if "layers" in entry:
            _make_container(child)
            later = _put_back(child, entry["layers"])
            if isinstance(child, RuledContainer):
                vars(child)["_awaited_rules"] = later
            elif later:
                missing[index] = {**entry, "layers": later}
    return missing


def _put_under(layer, rule):
    if isinstance(layer, FeedbackMixin) and layer._rule_config == rule:
        return
    if not isinstance(layer, FeedbackMixin):
        if type(layer) not in TWINS:
            raise ValueError(
                f"Layer {layer.name!r} of class {type(layer).__name__} was saved under rule "
                f"{rule!r}, and has no feedback twin here. Import the module that declares it "
                "with tfbio.layers.feedback_twin."
            )
        layer.__class__ = TWINS[type(layer)]
    layer.put_under(rule)


def _bare(config):
    """Return whether a nested config holds that of a layer with a rule without its class."""
    if isinstance(config, list | tuple):
        return any(map(_bare, config))
    if not isinstance(config, dict):
        return False
    if "class_name" in config and isinstance(config.get("config"), dict):
        return any(_bare(value) for key, value in config["config"].items() if key != _KEY)
    rule = config.get("rule")
    ruled = isinstance(rule, dict) and rule.get("class_name") in rules.names()
    return ruled or _KEY in config or any(map(_bare, config.values()))
