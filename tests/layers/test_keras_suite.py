"""Keras's own layer tests, run against the feedback layers put in place of Keras's classes."""

import functools
import importlib
import inspect
import unittest

import keras
import pytest
import tensorflow as tf
from keras.src import layers

import tfbio
from tfbio.rules import registry

MODULES = (
    "keras.src.layers.core.dense_test",
    "keras.src.layers.core.einsum_dense_test",
    "keras.src.layers.convolutional.conv_test",
    "keras.src.layers.convolutional.conv_transpose_test",
    "keras.src.layers.convolutional.depthwise_conv_test",
    "keras.src.layers.convolutional.separable_conv_test",
)

RULES = ("backprop", "stateless")

# Under any rule but backprop the layers refuse LoRA and quantization, as they must: there the
# kernel is not what learns. By what is refused first, and by class, every test that asks for it.
REFUSED = {
    "LoRA": {
        "DenseTest": """
            test_enable_lora test_enable_lora_on_unbuilt_layer test_enable_lora_when_already_enabled
            test_enable_lora_with_alpha test_enable_lora_with_kernel_constraint
            test_lora_rank_argument test_lora_weight_name test_quantize_lora_integration
        """,
        "EinsumDenseTest": """
            test_enable_lora test_enable_lora_with_alpha test_lora_rank_argument
            test_quantize_lora_integration
        """,
        "ConvBasicTest": """
            test_enable_lora test_enable_lora_with_alpha test_lora_rank_argument
            test_lora_weight_name
        """,
    },
    "quantization": {
        "DenseTest": """
            test_awq_kernel_packing test_awq_serialization test_dense_int4_custom_quantizer
            test_dense_int8_custom_quantizer test_dense_int8_weight_only_quantizer
            test_dense_quantize_config test_gptq_kernel_packing test_gptq_serialization
            test_int4_awq_kernel_returns_unpacked_form test_int4_block_size_serialization
            test_int4_block_size_with_lora test_int4_gptq_kernel_returns_unpacked_form
            test_int4_grouped_vs_perchannel_scale_shapes test_int4_kernel_returns_unpacked_form
            test_int4_perchannel_no_g_idx test_int4_quantization_block_size
            test_int4_subchannel_g_idx_created test_int4_subchannel_g_idx_serialization
            test_legacy_load_own_variables test_quantize_by_setting_dtype_policy
            test_quantize_dtype_argument test_quantize_float8 test_quantize_float8_fitting
            test_quantize_float8_inference test_quantize_int test_quantize_invalid_mode
            test_quantize_on_subclass test_quantize_on_unbuilt_layer
            test_quantize_when_already_quantized
        """,
        "EinsumDenseTest": """
            test_awq_kernel_packing test_awq_serialization test_einsum_dense_int8_custom_quantizer
            test_einsum_dense_quantize test_gptq_kernel_packing test_gptq_serialization
            test_int4_awq_kernel_returns_unpacked_form test_int4_block_size_serialization
            test_int4_block_size_various_equations test_int4_block_size_with_lora
            test_int4_gptq_kernel_returns_unpacked_form test_int4_grouped_multi_reduced_axes
            test_int4_grouped_vs_perchannel_scale_shapes test_int4_kernel_returns_unpacked_form
            test_int4_multi_reduced_axes_scale_shape test_int4_multi_reduced_axes_serialization
            test_int4_multi_reduced_vs_single_reduced test_int4_perchannel_no_g_idx
            test_int4_quantization_block_size test_int4_subchannel_g_idx_created
            test_int4_subchannel_g_idx_serialization test_legacy_load_own_variables
            test_quantize_by_setting_dtype_policy test_quantize_dtype_argument test_quantize_float8
            test_quantize_float8_fitting test_quantize_float8_inference test_quantize_int
            test_quantize_invalid_mode test_quantize_on_subclass test_quantize_on_unbuilt_layer
            test_quantize_when_already_quantized test_quantize_with_specific_equations
        """,
    },
}
REFUSAL = {
    f"{suite}.{method}": f"(?i)cannot (combine LoRA|be quantized).* Received: {what}"
    for what, suites in REFUSED.items()
    for suite, methods in suites.items()
    for method in methods.split()
}

# Others test both parts of each: quantization of int4 and float8 and its files, LoRA under `fit`.
COMBINED = {
    "DenseTest.test_int4_grouped_vs_perchannel_scale_shapes",
    "DenseTest.test_quantize_float8_fitting",
    "DenseTest.test_quantize_int",
    "DenseTest.test_quantize_lora_integration",
}

# It analyzes a string and makes no layer.
WITHOUT_LAYER = {"EinsumDenseTest.test_analyze_einsum_string_axes"}

# What Keras's tests skip by themselves, all of it transposed convolutions, which Keras's classes
# do not support there either. A missing package would be another reason, and fail.
SKIPPED_BY_KERAS = {
    "channels_first unsupported on CPU with TF",
    "`output_padding` greater than `strides` is not supported",
    "`output_padding` must be less than `strides`",
}

# Keras's tests raise these with Keras's classes as well.
pytestmark = [
    pytest.mark.filterwarnings(f"ignore:{message}:UserWarning")
    for message in (
        "`shuffle=True` was passed, but will be ignored",
        "You are saving a model that has not yet been built",
        "Layer InputLayer does not have a `quantize` method",
        "Skipping variable loading for optimizer 'sgd'",
    )
]


class Stateless(tfbio.rules.LayerRule):
    """B = sign(W)/4: sign symmetry without its saved scale, because Keras's tests count weights."""

    def feedback(self, kernel):
        return tf.sign(kernel) / 4


def put_in_place(patch):
    for plain, twin in tfbio.layers.TWINS.items():
        if plain.__module__.startswith("tfbio."):
            continue  # Keras has no locally connected layers, and no tests of them
        patch.setattr(layers, plain.__name__, twin)


@functools.cache
def keras_tests():
    """Return Keras's tests, as pairs of a TestCase class and a method's name."""
    # Some have classes of layers as their parameters, read when the module is imported.
    with pytest.MonkeyPatch.context() as patch:
        put_in_place(patch)
        modules = [importlib.import_module(name) for name in MODULES]
    return [
        (suite, method)
        for module in modules
        for suite in vars(module).values()
        if isinstance(suite, type) and issubclass(suite, unittest.TestCase)
        for method in unittest.defaultTestLoader.getTestCaseNames(suite)
    ]


def definition(suite, method):
    """Return "class.method" as in the source, without what absl appends for the parameters."""
    return f"{suite.__name__}.{inspect.unwrap(getattr(suite, method)).__name__}"


@functools.cache
def firsts():
    """Return the first of each test's parameters, as pairs."""
    return set({definition(*pair): pair for pair in reversed(keras_tests())}.values())


def kept(rule, suite, method):
    """Return whether a test is run: of what rules refuse, once under backprop, where it works.

    It is Keras's own LoRA and quantization there, and its parameters are many.
    """
    refused = definition(suite, method) in REFUSAL
    return rule != "backprop" or not refused or (suite, method) in firsts()


def marks(rule, suite, method):
    """Return Keras's own marks, and `long` for all but a test's first parameters under the rule."""
    own = getattr(getattr(suite, method), "pytestmark", ())
    name = definition(suite, method)
    of_backprop = name in REFUSAL.keys() - COMBINED and suite.__name__ == "DenseTest"
    if (suite, method) in firsts() and rule == ("backprop" if of_backprop else "stateless"):
        return own
    return [*own, pytest.mark.long]


def pytest_generate_tests(metafunc):
    if "suite" in metafunc.fixturenames:
        # Keras marks tests so; pytest must know it before they are imported.
        metafunc.config.addinivalue_line("markers", "requires_trainable_backend: has gradients")
        metafunc.parametrize(
            ("rule", "suite", "method"),
            [
                pytest.param(
                    rule,
                    suite,
                    method,
                    id=f"{rule}-{suite.__name__}.{method}",
                    marks=marks(rule, suite, method),
                )
                for rule in RULES
                for suite, method in keras_tests()
                if kept(rule, suite, method)
            ],
        )


@pytest.fixture(autouse=True)
def _fresh():
    """In place of the fixture for all tests: undo what Keras's set, such as open tracebacks."""
    keras.utils.set_random_seed(0)
    yield
    keras.utils.clear_session(free_memory=False)


@pytest.fixture
def created(rule, monkeypatch):
    """Put the feedback layers in place, with `rule` for default; return those created since."""
    put_in_place(monkeypatch)
    # In a copy of the registry, because other tests go through all that are registered.
    monkeypatch.setattr(registry, "RULES", dict(registry.RULES))
    tfbio.rules.register("stateless")(Stateless)
    initialize = tfbio.layers.FeedbackMixin.__init__
    created = []

    def initialize_under_rule(layer, *args, rule=rule, **kwargs):
        created.append(layer)
        initialize(layer, *args, rule=rule, **kwargs)

    monkeypatch.setattr(tfbio.layers.FeedbackMixin, "__init__", initialize_under_rule)
    return created


def run(case):
    try:
        case.debug()
    except (unittest.SkipTest, pytest.skip.Exception) as skip:
        if str(skip) not in SKIPPED_BY_KERAS:
            pytest.fail(f"Keras skips a test: {skip}")
        raise
    finally:
        case.doCleanups()


def test_keras(suite, method, rule, created):
    name = definition(suite, method)
    if rule != "backprop" and name in REFUSAL:
        # An AssertionError where Keras expects an error of another message.
        with pytest.raises((ValueError, AssertionError), match=REFUSAL[name]):
            run(suite(method))
    else:
        run(suite(method))
    assert bool(created) == (name not in WITHOUT_LAYER)


@pytest.mark.parametrize("rule", RULES)
def test_feedback_layers_are_in_place(rule, created):
    layer = layers.Dense(2)
    assert created == [layer]
    assert type(layer) is tfbio.layers.FeedbackDense
    assert layer.rule.alias == rule


def test_no_module_is_missing():
    assert {suite.__module__ for suite, _ in keras_tests()} == set(MODULES)
    assert len(keras_tests()) >= 400


def test_no_exception_is_stale():
    names = {definition(suite, method) for suite, method in keras_tests()}
    assert REFUSAL.keys() <= names
    assert names >= WITHOUT_LAYER
