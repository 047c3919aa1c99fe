"""The rules' own properties (how B follows W, its scale and its draws) and the registry."""

import contextlib
import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

import tfbio
from tests.cases import CONFIGURATIONS, LAYER_RULES, RULES, Case, derivatives, random
from tfbio.rules import Fans, draws
from tfbio.rules.fingerprint import fingerprint
from tfbio.rules.scales import draw, magnitude, root_mean_square


def dense(rule, shape=(6, 5), dtype="float32"):
    layer = tfbio.layers.FeedbackDense(shape[1], rule=rule, dtype=dtype)
    layer.build((None, shape[0]))
    return layer


def train_step(layer, amount=0.1):
    layer(tf.zeros((1, layer.kernel.shape[0])), training=True)
    layer.kernel.assign_add(amount * random(layer.kernel.shape, layer.kernel.dtype, seed=5))


BEHAVIOR = {
    # rule: (B = W, B changes when W changes, signs of B are W's, |B| changes with a step)
    "backprop": (True, True, True, True),
    "feedback_alignment": (False, False, False, False),
    "feedback_alignment_signed_init": (False, False, False, False),
    "sign_symmetry": (False, True, True, False),
    "frsf": (False, True, True, False),
    "brsf": (False, True, True, True),
    # Nothing but an optimizer changes its B.
    "kolen_pollack": (False, False, False, False),
    "local_alignment": (False, False, False, False),
    "symmetric_alignment": (False, False, False, False),
    "activation_alignment": (False, False, False, False),
    "mirror_alignment": (False, False, False, False),
    "information_alignment": (False, False, False, False),
    # It follows by its own steps, and its signs and sizes with it.
    "weight_mirror": (False, True, False, True),
}

FOLLOWING = ("kolen_pollack",)
ALONE = (
    "symmetric_alignment",
    "activation_alignment",
    "mirror_alignment",
    "information_alignment",
)
LEARNED = (*FOLLOWING, *ALONE)
"""The rules whose B an optimizer trains."""


def test_the_table_of_behavior_covers_every_rule():
    assert set(BEHAVIOR) == set(LAYER_RULES), "declare in BEHAVIOR how the B of each rule behaves"


@pytest.mark.parametrize("rule", LAYER_RULES)
def test_b_behaves_as_declared(rule):
    same, follows, signs, magnitudes = BEHAVIOR[rule]
    layer = dense(rule)
    w, b = layer.kernel.numpy(), layer.feedback.numpy()
    assert np.array_equal(w, b) == same
    for _ in range(3):
        train_step(layer, amount=1.0)
    after, b_after = layer.kernel.numpy(), layer.feedback.numpy()
    assert (np.sign(w) != np.sign(after)).any()
    assert np.array_equal(b, b_after) != follows
    assert np.array_equal(np.sign(after), np.sign(b_after)) == signs
    assert np.array_equal(np.abs(b), np.abs(b_after)) != magnitudes


@pytest.mark.parametrize("rule", CONFIGURATIONS)
def test_only_a_learning_b_is_trainable(rule):
    layer = dense(rule)
    learned = ["feedback"] if rule.startswith((*LEARNED, "local_alignment(")) else []
    assert [v.name for v in layer.trainable_variables] == ["kernel", "bias", *learned]


@pytest.mark.parametrize("rule", FOLLOWING)
def test_a_trainable_b_receives_w_gradient_and_w_only_its_own(rule):
    layer = dense(rule)
    x, e = random((4, 6), "float32"), random((4, 5), "float32", seed=1)
    _, _, (dw, _, db) = derivatives(layer, x, e)
    np.testing.assert_allclose(dw, tf.transpose(x) @ e, rtol=1e-5)
    np.testing.assert_array_equal(dw, db)


@pytest.mark.parametrize("rule", ["sign_symmetry", "frsf", "test_transported"])
def test_a_b_derived_from_w_does_not_double_its_gradient(rule):
    layer = dense(rule)
    x, e = random((4, 6), "float32"), random((4, 5), "float32", seed=1)
    _, _, (dw, _) = derivatives(layer, x, e)
    np.testing.assert_allclose(dw, tf.transpose(x) @ e, rtol=1e-5)


def test_feedback_alignment_ignores_the_layers_own_weights():
    layer = dense("feedback_alignment")
    x, e = random((4, 6), "float32"), random((4, 5), "float32", seed=1)
    before = derivatives(layer, x, e)[1]
    layer.kernel.assign(random((6, 5), "float32", seed=2))
    np.testing.assert_array_equal(derivatives(layer, x, e)[1], before)


def test_sign_symmetry_is_blind_to_size_and_flips_with_each_sign():
    layer = dense("sign_symmetry(scale='match')")
    x, e = random((4, 6), "float32"), random((4, 5), "float32", seed=1)
    before, s = derivatives(layer, x, e)[1], float(layer.rule.s)
    layer.kernel.assign(3 * layer.kernel)
    np.testing.assert_array_equal(derivatives(layer, x, e)[1], before)
    w = layer.kernel.numpy()
    w[2, 3] *= -1
    layer.kernel.assign(w)
    share = np.zeros((4, 6), "float32")
    share[:, 2] = 2 * s * np.sign(w[2, 3]) * e[:, 3]
    np.testing.assert_allclose(derivatives(layer, x, e)[1] - before, share, atol=1e-6)


@pytest.mark.parametrize(
    "rule", ["sign_symmetry", "frsf", "brsf", "feedback_alignment_signed_init"]
)
def test_sign_of_zero_gives_no_feedback(rule):
    layer = tfbio.layers.FeedbackDense(3, rule=rule, kernel_initializer="zeros")
    layer.build((None, 2))
    assert not layer.feedback.numpy().any()


@pytest.mark.parametrize("p", [0.0, 0.25, 0.9, 1.0])
def test_agreement_is_the_share_of_equal_signs(p):
    layer = dense(f"sign_symmetry(agreement={p})", (200, 200))
    w, b = layer.kernel.numpy(), layer.feedback.numpy()
    assert abs(tfbio.metrics.agreement(w, b) - p) < 0.01
    flipped = np.sign(w) != np.sign(b)
    layer.kernel.assign(-w)
    np.testing.assert_array_equal(np.sign(-w) != np.sign(layer.feedback.numpy()), flipped)


def test_signed_init_stays_with_the_first_signs():
    layer = dense("feedback_alignment_signed_init")
    w = layer.kernel.numpy()
    layer.kernel.assign(-w)
    np.testing.assert_allclose(layer.feedback, np.sign(w) * float(layer.rule.s))


def test_brsf_draws_once_a_step_and_the_same_in_every_call():
    layer = dense("brsf(seed=1)")
    x = tf.zeros((1, 6))
    seen = []
    for _ in range(4):
        before = np.abs(layer.feedback)
        for training in (True, True, False):
            layer(x, training=training)
            np.testing.assert_array_equal(np.abs(layer.feedback), before)
        seen.append(before)
        layer.kernel.assign_add(0.01 * tf.ones_like(layer.kernel))
    assert len({m.tobytes() for m in seen}) == 4
    layer(x, training=True)
    assert int(layer.rule.steps) == 4


def test_brsf_draws_alike_though_devices_round_differently():
    layers = []
    for amount in (0.1, 0.1000001):
        keras.utils.set_random_seed(0)
        layers.append(dense("brsf(seed=1, scale=1)"))
        train_step(layers[-1], amount)
    assert not np.array_equal(*(layer.kernel.numpy() for layer in layers))
    np.testing.assert_array_equal(*(np.abs(layer.feedback) for layer in layers))


@pytest.mark.parametrize("rule", CONFIGURATIONS)
def test_what_is_drawn_twice_from_one_seed_is_the_same(rule):
    drawn = []
    for _ in range(2):
        keras.utils.set_random_seed(7)
        layer = dense(rule)
        drawn.append((layer.kernel.numpy(), layer.feedback.numpy()))
    np.testing.assert_array_equal(drawn[0], drawn[1])
    keras.utils.set_random_seed(8)
    assert not np.array_equal(drawn[0][0], dense(rule).kernel.numpy())


@pytest.mark.parametrize("rule", ["feedback_alignment(scale=1)", "frsf(scale=1)", "brsf(scale=1)"])
def test_without_a_seed_every_layer_and_global_seed_draws_its_own(rule):
    drawn = []
    for seed in (1, 2):
        keras.utils.set_random_seed(seed)
        drawn += [np.abs(dense(rule).feedback).tobytes() for _ in range(2)]
    assert len(set(drawn)) == 4


@pytest.mark.parametrize("rule", ["feedback_alignment", "frsf", "brsf"])
def test_b_is_not_w_though_both_have_one_seed(rule):
    for initializer in ("RandomNormal", "RandomUniform", "GlorotUniform"):
        layer = tfbio.layers.FeedbackDense(
            40,
            kernel_initializer=getattr(keras.initializers, initializer)(seed=3),
            rule=f"{rule}(seed=3)",
        )
        layer.build((None, 40))
        correlation = np.corrcoef(
            np.abs(layer.kernel.numpy()).ravel(), np.abs(layer.feedback.numpy()).ravel()
        )
        assert abs(correlation[0, 1]) < 0.1


@pytest.mark.parametrize("rule", [*RULES, "feedback_alignment(seed=3)"])
def test_the_global_seed_gives_the_same_kernels_under_every_rule(rule):
    kernels = []
    for each in ("backprop", rule):
        keras.utils.set_random_seed(1)
        model = keras.Sequential(
            [keras.Input((4,)), *(tfbio.layers.FeedbackDense(4, rule=each) for _ in range(3))]
        )
        kernels.append([layer.kernel.numpy() for layer in model.layers])
    np.testing.assert_array_equal(kernels[0], kernels[1])


SCALES = {
    # scale: (dense (40, 60), 3×3 convolution 8 → 16 in 2 groups)
    "xiao": (1 / math.sqrt(40), math.sqrt(2 / (9 * 16))),
    "xavier": (math.sqrt(2 / 100), math.sqrt(2 / (9 * 4 + 9 * 16))),  # PyTorch's fans
    "unit": (1.0, 1.0),
    0.3: (0.3, 0.3),
}


@pytest.mark.parametrize("scale", SCALES)
def test_scales_are_the_published_ones(scale):
    layers = [
        Case("Dense", {"units": 60}, (1, 40)),
        Case("Conv2D", {"filters": 16, "kernel_size": 3, "groups": 2}, (1, 5, 5, 8)),
    ]
    for case, expected in zip(layers, SCALES[scale], strict=True):
        layer = case.feedback_layer(f"sign_symmetry(scale={scale!r})")
        layer.build(case.shape)
        magnitudes = np.abs(layer.feedback)
        np.testing.assert_allclose(magnitudes, expected, rtol=1e-6)


@pytest.mark.parametrize("scale", ["match", "xiao", "xavier", "unit", 0.3])
@pytest.mark.parametrize("convolution", [True, False])
def test_random_matrices_have_the_stated_distribution(scale, convolution):
    fans = Fans(50, 80, convolution=convolution)
    s = float(magnitude(scale, fans, tf.fill((3, 3), 0.7)))
    b = draw((300, 300), "float32", (1, 2), scale, fans, s).numpy()
    uniform = scale in ("xavier", "unit") or (scale == "xiao" and not convolution)
    width = s * math.sqrt(3) if scale == "xavier" else s
    deviation = width / math.sqrt(3) if uniform else s
    assert abs(b.mean()) < 0.02 * deviation
    assert abs(b.std() / deviation - 1) < 0.01
    assert (np.abs(b).max() <= width) == uniform
    kurtosis = np.mean(b**4) / np.mean(b**2) ** 2
    assert abs(kurtosis - (1.8 if uniform else 3.0)) < 0.1


def test_xavier_counts_the_outputs_of_all_groups_as_pytorch_does():
    # torch.nn.init._calculate_fan_in_and_fan_out(Conv2d(32, 64, 3, groups=8).weight) is (36, 576).
    layer = tfbio.layers.FeedbackConv2D(64, 3, groups=8, rule="sign_symmetry(scale='xavier')")
    layer.build((None, 9, 9, 32))
    np.testing.assert_allclose(np.abs(layer.feedback), math.sqrt(2 / (36 + 576)), rtol=1e-6)
    assert float(layer.rule.s) == pytest.approx(0.0572, abs=5e-5)
    layer = tfbio.layers.FeedbackDepthwiseConv2D(3, rule="sign_symmetry(scale='xavier')")
    layer.build((None, 9, 9, 16))
    keras_std = math.sqrt(2 / sum((9 * 16, 9)))  # Glorot's by keras.initializers
    np.testing.assert_allclose(np.abs(layer.feedback), keras_std, rtol=1e-6)


SIGNS = ("sign_symmetry", "feedback_alignment_signed_init")
MAGNITUDES = ("frsf", "brsf")
DRAWN = ("feedback_alignment", *MAGNITUDES, "weight_mirror", *LEARNED)


@pytest.mark.parametrize("scale", ["match", "xiao", "xavier", "unit", 0.3])
@pytest.mark.parametrize("rule", [*SIGNS, *DRAWN])
def test_b_is_exact_in_float64(rule, scale):
    options = f"scale={scale!r}" + (", seed=3" if rule in DRAWN else "")
    layer = dense(f"{rule}({options})", shape=(40, 60), dtype="float64")
    w = layer.kernel.numpy()
    s = np.sqrt(np.mean(w**2)) if scale == "match" else SCALES[scale][0]
    if rule in SIGNS:
        expected = s * np.sign(w)
    else:
        key = layer.rule.draw_key(ahead_of=layer.kernel) if rule == "brsf" else layer.rule.key()
        flat = scale in ("xavier", "unit", "xiao")
        unit = (draws.uniform if flat else draws.normal)((40, 60), key, double=True).numpy()
        expected = unit * s * (math.sqrt(3) if scale == "xavier" else 1)
        if rule in MAGNITUDES:
            expected = np.abs(expected) * np.sign(w)
    np.testing.assert_allclose(layer.feedback.numpy(), expected, rtol=1e-15, atol=0)


def test_match_is_exact_for_numbers_whose_squares_overflow_float64():
    for size in (1e-200, 1e200):
        assert float(root_mean_square(tf.constant([3 * size, -4 * size], "float64"))) == (
            pytest.approx(math.sqrt(12.5) * size, rel=1e-15)
        )


def test_match_takes_the_rms_of_w_when_attached_and_keeps_it():
    layer = dense("sign_symmetry")
    rms = np.sqrt(np.mean(np.square(layer.kernel.numpy())))
    layer.kernel.assign(100 * layer.kernel)
    np.testing.assert_allclose(np.abs(layer.feedback), rms, rtol=1e-6)


def test_match_falls_back_to_xavier_for_a_zero_kernel_and_says_so():
    layer = tfbio.layers.FeedbackDense(5, kernel_initializer="zeros")
    layer.build((None, 3))
    assert float(layer.rule.s) == pytest.approx(math.sqrt(2 / 8))
    assert layer.rule.describe().scale == "xavier 0.5 (W was 0)"
    # A square orthogonal matrix has Xavier's rms, and none of this.
    layer = tfbio.layers.FeedbackDense(16, kernel_initializer="orthogonal")
    layer.build((None, 16))
    assert layer.rule.describe().scale == "match 0.25"
    assert dense("sign_symmetry").rule.describe().scale.startswith("match 0.")
    assert dense("sign_symmetry(scale=2)").rule.describe().scale == "2"


FANS = [
    (Case("Dense", {"units": 7}, (1, 5)), {"": Fans(5, 7)}),
    (Case("EinsumDense", {"equation": "abc,cde->abde", "output_shape": (None, 2, 3)}, (1, 4, 5)),
     {"": Fans(5, 6)}),
    (Case("EinsumDense", {"equation": "ab,b->a", "output_shape": ()}, (2, 4)), {"": Fans(4, 1)}),
    (Case("Conv2D", {"filters": 6, "kernel_size": (3, 5), "groups": 2}, (1, 9, 9, 4)),
     {"": Fans(30, 45, 2, True)}),
    (Case("Conv1DTranspose", {"filters": 6, "kernel_size": 3}, (1, 9, 4)),
     {"": Fans(12, 18, 1, True)}),
    (Case("DepthwiseConv2D", {"kernel_size": 3, "depth_multiplier": 2}, (1, 9, 9, 4)),
     {"": Fans(9, 18, 4, True)}),
    (Case("SeparableConv1D", {"filters": 6, "kernel_size": 3, "depth_multiplier": 2}, (1, 9, 4)),
     {"depthwise": Fans(3, 6, 4, True), "pointwise": Fans(8, 6, 1, True)}),
]  # fmt: skip


@pytest.mark.parametrize(("case", "expected"), FANS, ids=str)
def test_fans_belong_to_the_layer(case, expected):
    layer = case.feedback_layer("backprop")
    layer.build(case.shape)
    assert {site.part: layer.fans(site.kernel_name) for site in layer.sites()} == expected


@given(
    values=st.lists(st.floats(width=32, allow_nan=False), min_size=2, max_size=12),
    dtype=st.sampled_from(["float16", "bfloat16", "float32", "float64"]),
    data=st.data(),
)
def test_the_fingerprint_changes_with_any_entry(values, dtype, data):
    w = tf.cast(tf.constant(values), dtype)
    index = data.draw(st.integers(0, len(values) - 1))
    changed = w.numpy().copy()
    changed[index] = data.draw(st.sampled_from([-2.5, 0.0, 1.0, 3.25]))
    same = changed.tobytes() == w.numpy().tobytes()
    assert (int(fingerprint(w)) == int(fingerprint(tf.constant(changed)))) == same


def test_the_fingerprint_sees_opposite_changes():
    w = np.full((4, 2), 0.5, "float32")
    for opposite in (np.float32([[1e-3, -1e-3]]), np.float32([[1e-3], [-1e-3], [0], [0]])):
        assert int(fingerprint(w)) != int(fingerprint(w + opposite))
    square = np.arange(9, dtype="float32").reshape(3, 3)
    assert int(fingerprint(square)) != int(fingerprint(square.T))
    rng = np.random.default_rng(0)
    tiny = rng.normal(size=(500, 4, 1)).astype("float32")
    moved = (tiny.view("int32") + rng.integers(-1, 2, tiny.shape, dtype="int32")).view("float32")
    compiled = tf.function(fingerprint)
    for before, after in zip(tf.constant(tiny), tf.constant(moved), strict=True):
        same = np.array_equal(before, after)
        assert (int(compiled(before)) == int(compiled(after))) == same


def test_names_aliases_and_round_trips():
    assert (
        "backprop",
        "feedback_alignment",
        "feedback_alignment_signed_init",
        "sign_symmetry",
        "frsf",
        "brsf",
        "kolen_pollack",
        "local_alignment",
        "symmetric_alignment",
        "activation_alignment",
        "mirror_alignment",
        "information_alignment",
        "weight_mirror",
        "direct_feedback_alignment",
        "sign_dfa",
        "direct_random_target_projection",
        *("tp", "dtp", "sdtp", "ao_sdtp", "l_drl"),
    ) == RULES
    expected = {"bp": "backprop", "sham": "backprop", "fa": "feedback_alignment"}
    expected |= {"ss": "sign_symmetry", "usf": "sign_symmetry"}
    expected |= {"dfa": "direct_feedback_alignment", "drtp": "direct_random_target_projection"}
    expected |= {"target_propagation": "tp", "difference_target_propagation": "dtp"}
    for alias, name in expected.items():
        assert tfbio.rules.get(alias).alias == name


@pytest.mark.parametrize("rule", CONFIGURATIONS)
def test_a_rule_is_made_again_from_its_config_its_repr_and_its_class(rule):
    rule = tfbio.rules.get(rule)
    for again in (
        tfbio.rules.get(tfbio.rules.serialize(rule)),
        tfbio.rules.deserialize(tfbio.rules.serialize(rule)),
        tfbio.rules.get(repr(rule)),
        type(rule).from_config(rule.get_config()),
    ):
        assert type(again) is type(rule)
        assert again.get_config() == rule.get_config()
        assert again is not rule
    assert tfbio.rules.get(rule) is rule
    assert type(tfbio.rules.get(type(rule))) is type(rule)


BAD_RULES = [
    ("sign_symetry", ValueError, "Unknown rule 'sign_symetry'. Did you mean 'sign_symmetry'"),
    ("", ValueError, "written as name"),
    ("frsf(", ValueError, "written as name"),
    ("frsf(1)", ValueError, "written as name"),
    ("frsf(**{})", ValueError, "written as name"),
    ("frsf(scale=x)", ValueError, "written as name"),
    ("a.b(scale=1)", ValueError, "written as name"),
    ("frsf(agreement=1)", ValueError, "no option 'agreement'. Its options: scale, seed"),
    ("backprop(seed=1)", ValueError, "no option 'seed'. Its options: none"),
    ("frsf(scale='big')", ValueError, "`scale` must be one of 'match'"),
    ("frsf(scale=-1)", ValueError, "`scale` must be"),
    ("frsf(scale=True)", ValueError, "`scale` must be"),
    ("frsf(scale=None)", ValueError, "`scale` must be"),
    ("frsf(scale=1e999)", ValueError, "`scale` must be"),
    ("frsf(scale=1e39)", ValueError, "`scale` must be"),
    (f"frsf(scale=1{'0' * 400})", ValueError, "`scale` must be"),
    ("frsf(scale={[]:1})", ValueError, "written as name"),
    ("frsf(seed=1,seed=2)", ValueError, "given once"),
    ({"class_name": "frsf", "config": None}, ValueError, "a name and a dict"),
    ({"class_name": ["frsf"], "config": {}}, ValueError, "Unknown rule"),
    ("frsf(seed=-1)", ValueError, "`seed` must be"),
    ("frsf(seed=1.0)", ValueError, "`seed` must be"),
    ("frsf(seed='a')", ValueError, "`seed` must be"),
    ("sign_symmetry(agreement=1.5)", ValueError, "`agreement` must be a finite number of 0 to 1"),
    ("sign_symmetry(agreement='p')", ValueError, "`agreement` must be"),
    ({"class_name": "frsf"}, ValueError, "keys 'class_name' and 'config'"),
    ({"class_name": "none", "config": {}}, ValueError, "Unknown rule 'none'"),
    (None, TypeError, "`rule` must be"),
    (3, TypeError, "`rule` must be"),
    (keras.layers.Dense, TypeError, "`rule` must be"),
]


@pytest.mark.parametrize(("rule", "error", "message"), BAD_RULES, ids=repr)
def test_a_bad_rule_is_refused_with_what_would_be_right(rule, error, message):
    for use in (tfbio.rules.get, lambda rule: tfbio.layers.FeedbackDense(1, rule=rule)):
        with pytest.raises(error) as caught:
            use(rule)
        assert message in str(caught.value)


@given(st.text(max_size=30) | st.from_regex(r"\A(frsf|fa|usf)\([a-z]*=.{0,9}\)?\Z"))
def test_any_text_is_a_rule_or_a_value_error(text):
    with contextlib.suppress(ValueError):
        assert isinstance(tfbio.rules.get(text), tfbio.rules.Rule)


def test_registering_refuses_what_is_no_rule_and_names_that_are_taken():
    with pytest.raises(TypeError, match="subclass of LayerRule"):
        tfbio.rules.register("test_none")(dict)
    with pytest.raises(ValueError, match="'frsf' is taken"):
        tfbio.rules.register("test_other", aliases=("frsf",))(
            type("Other", (tfbio.rules.LayerRule,), {"feedback": lambda self, kernel: kernel})
        )
    with pytest.raises(TypeError, match=r"`aliases` must be a list or tuple.*'abc' of type str"):
        tfbio.rules.register("test_string", aliases="abc")
    with pytest.raises(TypeError, match=r"`aliases` must be a list or tuple.*\(3,\) of type tuple"):
        tfbio.rules.register("test_number", aliases=(3,))
    for name in ("no name", "Upper"):
        with pytest.raises(ValueError, match=f"an identifier in lower case. Received: '{name}'"):
            tfbio.rules.register(name)(
                type("Other", (tfbio.rules.LayerRule,), {"feedback": lambda self, kernel: kernel})
            )
    assert "test_other" not in tfbio.rules.names()


def test_a_rule_without_feedback_cannot_be_made():
    with pytest.raises(TypeError, match="abstract"):
        type("Empty", (tfbio.rules.LayerRule,), {})()
