"""Saving: how files, clones and copies of a model keep its rules.

Keras makes a model again from the configs of its layers. A feedback layer's config holds its rule;
two kinds of layer need more, and become, in place, of a class that is derived from their own
(`Derived`): a layer that makes feedback layers by itself, whose config would say nothing of them
(`RuledContainer`), and a model under a rule of whole networks (`tfbio.networks.Network`).
"""

import functools
import types
from typing import TYPE_CHECKING, Any, ClassVar

import keras

from tfbio import _keras, rules
from tfbio.layers import TWINS, FeedbackMixin
from tfbio.layers.sites import find_layers

if TYPE_CHECKING:  # the own class comes after the kind in the bases
    _Layer = keras.layers.Layer
else:
    _Layer = object


class Derived(_Layer):
    """The first base of classes made at run time, which keep more of a layer than its own class.

    `derive` makes such a class from a kind, a subclass of this one, and the layer's own class,
    whose name and behavior it has. All classes of a kind are saved under the kind's name: the
    config holds the layer's own class, and what `kept` returns. A kind is registered with
    `keras.saving.register_keras_serializable("tfbio")`, since a file may be loaded before the
    first class of that kind is made.

    Attributes:
        key: Under what name the config holds it.
        kind: The kind of a class made at run time; None for a kind.
        own_class: Of a class made at run time, the layer's own class; None for a kind.
    """

    key: ClassVar[str]
    kind: "ClassVar[type[Derived] | None]" = None
    own_class: ClassVar[type | None] = None

    def kept(self, identity: dict[str, Any]) -> dict[str, Any]:
        """Return what the config holds beside the layer's own: its class's `identity`, and more."""
        return identity

    @classmethod
    def restored(cls, layer: keras.layers.Layer, kept: dict[str, Any]) -> Any:
        """Return a layer of its own class as one of this kind again."""
        raise NotImplementedError(f"{cls.__name__} must define `restored(layer, kept)`.")

    def get_config(self) -> dict[str, Any]:
        """Return the layer's own config, and what this kind keeps."""
        own: Any = self.own_class
        identity = {
            "module": own.__module__,
            "class_name": own.__name__,
            "registered_name": keras.saving.get_registered_name(own),
        }
        return {**super().get_config(), self.key: self.kept(identity)}

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None
    ) -> Any:
        """Return the layer of `config`, of its own class first, and then of this kind."""
        config, more = dict(config), {}
        if custom_objects is not None:
            more["custom_objects"] = custom_objects
        kept = config.pop(cls.key, None)
        if kept is None:  # made again from a config that the layer's own class has written
            return super().from_config(config, **more)
        if cls.own_class is not None:
            layer = cls.own_class.from_config(config, **more)
        else:
            identity = kept.get("class", kept)
            layer = keras.saving.deserialize_keras_object({**identity, "config": config}, **more)
        return (cls.kind or cls).restored(layer, kept)

    def __reduce__(self):
        # Keras's own function to load with is that of a class which no module holds.
        return _keras.unpickle_model, super().__reduce__()[1]


def derive(layer: keras.layers.Layer, kind: type[Derived]) -> None:
    """Make a layer one of a kind, in place.

    Args:
        layer: A Keras layer or model.
        kind: A subclass of `Derived`.

    Example:
        >>> @keras.saving.register_keras_serializable("example")
        ... class Noted(Derived):
        ...     key = "noted"
        >>> layer = keras.layers.Dense(1)
        >>> derive(layer, Noted)
        >>> type(layer).__name__, layer.get_config()["noted"]["class_name"]
        ('Dense', 'Dense')
    """
    layer.__class__ = _class(kind, type(layer))  # pyright: ignore[reportArgumentType]


def underive(layer: keras.layers.Layer) -> None:
    """Give a layer its own class again, in place; any other layer stays as it is.

    Args:
        layer: A Keras layer or model.

    Example:
        >>> layer = keras.layers.Dense(1)
        >>> underive(layer)
        >>> type(layer) is keras.layers.Dense
        True
    """
    if isinstance(layer, Derived):
        layer.__class__ = layer.own_class  # pyright: ignore[reportAttributeAccessIssue]


@functools.cache
def _class(kind, own):
    # Keras looks at the method to see whether the class relies on automatic configs.
    get_config = functools.wraps(own.get_config)(lambda self: kind.get_config(self))
    namespace = {
        "__module__": kind.__module__,
        "__doc__": own.__doc__,
        "kind": kind,
        "own_class": own,
        "get_config": get_config,
    }
    # Called as the layer's class is, because paths in weights files hold class names.
    made = types.new_class(own.__name__, (kind, own), exec_body=lambda n: n.update(namespace))
    # One name stands for all classes of a kind, and for the kind, which finds a file's own class.
    package, name = keras.saving.get_registered_name(kind).split(">")
    register = keras.saving.register_keras_serializable(package, name)
    register(made)
    register(kind)
    return made


_KEY = "tfbio_rules"


def contain(model: keras.layers.Layer) -> None:
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


@keras.saving.register_keras_serializable("tfbio")
class RuledContainer(Derived):
    """A layer that makes feedback layers by itself: the same, with their rules kept.

    Its config holds, for each feedback layer below, by its position among its parent's sub-layers,
    the rule. What is made again from it has its sub-layers turned into feedback layers as soon as
    they are there: when it is made, or when it is built.

    Raises:
        ValueError: When a sub-layer that had a rule is missing or of another class; and from
            `get_config`, if the layer's own config holds that of a sub-layer without its class.
    """

    key = _KEY
    _awaited_rules = types.MappingProxyType({})  # of sub-layers that are not there yet

    def get_config(self) -> dict[str, Any]:
        """Return the layer's own config, its class, and the rules of the layers below."""
        config = super().get_config()
        if any(_bare(value) for name, value in config.items() if name != _KEY):
            raise ValueError(
                f"Layer {self.name!r} of class {type(self).__name__} writes the config of a "
                "sub-layer without its class, so that it would come back without its learning "
                "rule. Let it use keras.saving.serialize_keras_object; or save with "
                "model.save_weights('….weights.h5') and, to restore, build the model, put it "
                "under the same rule with tfbio.convert, and load the weights."
            )
        return config

    def kept(self, identity: dict[str, Any]) -> dict[str, Any]:
        """Return the layer's own class, and the rules of the layers below."""
        return {"class": identity, "layers": _described(self)}

    @classmethod
    def restored(cls, layer: keras.layers.Layer, kept: dict[str, Any]) -> Any:
        """Return the layer with its sub-layers under their rules."""
        _make_container(layer)
        layer._put_back(kept["layers"])
        return layer

    def _post_build(self):
        # Keras's hook; `build` itself is bound to each layer as it is made.
        super()._post_build()
        self._put_back(self._awaited_rules)

    def build_from_config(self, config: dict[str, Any]) -> None:
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


def _make_container(layer):
    own = isinstance(layer, RuledContainer | FeedbackMixin)
    if not own and not _writes_out_its_layers(layer):
        derive(layer, RuledContainer)


def _writes_out_its_layers(layer):
    # Exactly functional and sequential models; the classes derived from them are not Keras's.
    return isinstance(layer, keras.Model) and type(layer).__module__.startswith("keras.")


def _plain_class(layer):
    own = (Derived, FeedbackMixin)
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
            entry["rule"] = child.rule_config
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
    if isinstance(layer, FeedbackMixin) and layer.rule_config == rule:
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
