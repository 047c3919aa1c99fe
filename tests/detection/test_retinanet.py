"""RetinaNet: keras_cv's arithmetic, the paper's settings, and every convolution under a rule."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfbio
from tests.cases import Transported, long_but
from tfbio import _keras, detection, models, optimizers
from tfbio.detection.retinanet import SavedRetinaNet
from tfbio.layers.sites import find_layers, find_sites
from tfbio.models.resnet import stages

IMAGES = np.random.default_rng(0).random((2, 64, 64, 3)).astype("float32")
LABELS = {
    "boxes": np.array(
        [[[10, 10, 45, 45], [-1] * 4], [[0, 20, 30, 60], [20, 5, 60, 40]]], "float32"
    ),
    "classes": np.array([[1, -1], [0, 2]], "float32"),
}
EMPTY = {"boxes": np.full((2, 2, 4), -1, "float32"), "classes": np.full((2, 2), -1, "float32")}


@pytest.fixture(scope="module", autouse=True)
def keras_cv():
    import keras_cv

    return keras_cv


def tiny(norm=False, **options):
    """Return a detector of a few narrow layers; its rectified maps are named as they must be."""
    x = images = keras.Input((None, None, 3), name="images")
    maps = {}
    for level, size in (("P3", 8), ("P4", 2), ("P5", 2)):
        x = keras.layers.Conv2D(8, size, size, activation="relu", name=f"conv_{level}")(x)
        if norm:
            x = models.BatchNormalization(name=f"norm_{level}")(x)
        maps[level] = x
    backbone = keras.Model(images, maps, name="backbone")
    options = {"head_layers": 1, "channels": 8, **options}
    return detection.retinanet(3, backbone, **options)


def gradients(model, y=LABELS, x=IMAGES, training=True):
    """Return the loss, and by path the gradient of every trainable variable."""
    with tf.GradientTape() as tape:
        loss = model.compute_loss(x, y, model(x, training=training), None, training=training)
    variables = {
        f"{name}/{variable.name}": variable
        for name, layer in find_layers(model).items()
        for variable in (_keras.get_shallow_trainable_variables(layer) if layer.trainable else ())
    }
    assert len(variables) == len(model.trainable_variables)
    return loss, tape.gradient(loss, {name: v.value for name, v in variables.items()})


def compiled(model, optimizer=None, **options):
    model.compile(optimizer=optimizer or keras.optimizers.SGD(0.01), **options)
    return model


@pytest.mark.parametrize(
    ("backbone", "convolutions"),
    long_but([("resnet50", 53)], [("resnet18", 20), ("resnet50", 53)]),
)
def test_without_feedback_only_the_last_convolution_of_each_head_learns(backbone, convolutions):
    model = detection.retinanet(3, backbone, (64, 64, 3))
    plain = [n for n, layer in find_layers(model).items() if isinstance(layer, keras.layers.Conv2D)]
    assert len(plain) == convolutions + 8 + 2 * 5
    tfbio.convert(model, "sign_symmetry(scale=0)")
    assert list(find_sites(model)) == plain
    compiled(model, run_eagerly=True)
    before = [v.numpy() for v in model.trainable_variables]
    model.train_on_batch(IMAGES[1:], {name: value[1:] for name, value in LABELS.items()})
    moved = {
        variable.path
        for variable, value in zip(model.trainable_variables, before, strict=True)
        if np.any(variable.numpy() != value)
    }
    names = {"boxes", "logits"}
    assert {path.split("/")[-2] for path in moved} == names
    assert len(moved) == 4


def oracle(keras_cv, model):
    """Return keras_cv's RetinaNet, of its own layers, with the weights of a model of ours."""
    images = keras.Input((64, 64, 3), name="images")
    outputs = stages(images, 10)
    backbone = keras.Model(images, outputs[-1])
    backbone.pyramid_level_inputs = {
        f"P{level}": f"stage{level - 1}_block1_relu" for level in (3, 4, 5)
    }
    anchors = keras_cv.layers.AnchorGenerator(
        "xyxy",
        sizes=[32.0, 64.0, 128.0, 256.0, 512.0],
        scales=[2**x for x in (0, 1 / 3, 2 / 3)],
        aspect_ratios=[0.5, 1.0, 2.0],
        strides=[2**i for i in range(3, 8)],
    )
    theirs = keras_cv.models.RetinaNet(backbone, 3, "xyxy", anchor_generator=anchors)
    pyramid, pairs = theirs.feature_pyramid, {}
    for level in (3, 4, 5):
        pairs[f"pyramid/lateral_p{level}"] = getattr(pyramid, f"conv_c{level}_1x1")
    for level in (3, 4, 5, 6, 7):
        pairs[f"pyramid/output_p{level}"] = getattr(pyramid, f"conv_c{level}_3x3")
    heads = {"box_head": theirs.box_head, "class_head": theirs.classification_head}
    for (name, head), last in zip(heads.items(), ("boxes", "logits"), strict=True):
        pairs |= {f"{name}/conv{i + 1}": layer for i, layer in enumerate(head.conv_layers)}
        pairs[f"{name}/{last}"] = head.prediction_layer
    for layer in backbone.layers:
        if layer.weights:
            pairs[f"backbone/{layer.name}"] = layer
    ours = find_layers(model)
    for name, layer in pairs.items():
        layer.set_weights(ours[name].get_weights())
    return theirs, pairs


@pytest.mark.filterwarnings("ignore:The structure of `inputs`")
def test_with_transported_feedback_loss_and_gradients_are_keras_cvs(keras_cv):
    options = {"head_layers": 3, "box_variance": (0.1, 0.1, 0.2, 0.2)}
    model = detection.retinanet(3, "resnet10", (64, 64, 3), **options)
    for head in (model.box_head, model.classification_head):
        # So that the last layers' errors do not vanish against those of the others.
        for layer in head.layers:
            layer.kernel.assign(3 * layer.kernel)
    theirs, pairs = oracle(keras_cv, model)
    outputs = model(IMAGES)
    for name, expected in theirs(IMAGES).items():
        np.testing.assert_allclose(outputs[name], expected, rtol=1e-4, atol=1e-5)
    tfbio.convert(model, Transported())
    for name, output in model(IMAGES).items():
        np.testing.assert_array_equal(output, outputs[name])
    for each in (model, theirs):
        each.compile(box_loss="smoothl1", classification_loss="focal", optimizer="sgd")
    loss, found = gradients(model)
    with tf.GradientTape() as tape:
        expected = theirs.compute_loss(IMAGES, LABELS, theirs(IMAGES, training=True), None)
    assert loss > 1
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    variables = [
        (f"{n}/{v.name}", v) for n, layer in pairs.items() for v in layer.trainable_weights
    ]
    assert len(variables) == len(found)
    expected = tape.gradient(expected, [v for _, v in variables])
    for (name, _), gradient in zip(variables, expected, strict=True):
        scale = float(tf.reduce_max(tf.abs(gradient)))
        np.testing.assert_allclose(found[name], gradient, rtol=1e-3, atol=1e-3 * scale)


def test_saved_and_loaded_it_is_the_same_to_the_bit(tmp_path, monkeypatch):
    standardized = {"mean": [0.5] * 3, "std": [0.2, 0.3, 0.4]}
    matching = {"best_anchor": "from_0.4", "candidates": 50}
    model = tiny(norm=True, frozen_norm=True, **standardized, **matching)
    overrides = {"pyramid*": "feedback_alignment", "box_head/*": "backprop", "backbone*": "frsf"}
    before = model(IMAGES)
    tfbio.convert(model, "sign_symmetry", overrides=overrides)
    for name, output in model(IMAGES).items():
        np.testing.assert_array_equal(output, before[name])
    assert find_sites(model)["class_head/logits"].rule.alias == "sign_symmetry"
    optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
    compiled(model, optimizer, box_loss="huber", run_eagerly=True).train_on_batch(IMAGES, LABELS)
    before = model(IMAGES)
    model.save(tmp_path / "model.keras")
    # As in a process that has not imported keras_cv.
    monkeypatch.setitem(keras.saving.get_custom_objects(), "tfbio>RetinaNet", SavedRetinaNet)
    loaded = keras.models.load_model(tmp_path / "model.keras")
    rules = {name: site.rule.alias for name, site in find_sites(model).items()}
    assert {name: site.rule.alias for name, site in find_sites(loaded).items()} == rules
    assert set(rules.values()) == {"sign_symmetry", "feedback_alignment", "backprop", "frsf"}
    assert loaded.get_config().items() >= {**standardized, **matching}.items()
    assert isinstance(loaded.box_loss, keras.losses.Huber)
    assert loaded.optimizer.momentum == 0.9
    for variable, value in zip(loaded.optimizer.variables, optimizer.variables, strict=True):
        np.testing.assert_array_equal(variable, value)
    for name, output in loaded(IMAGES).items():
        np.testing.assert_array_equal(output, before[name])
    (loss, found), (expected_loss, expected) = gradients(loaded), gradients(model)
    assert loss == expected_loss
    assert list(found) == list(expected)
    assert not any("norm" in name for name in found)
    for name, gradient in found.items():
        np.testing.assert_array_equal(gradient, expected[name])
    loaded.predict_on_batch(IMAGES)


@pytest.mark.parametrize("jit_compile", long_but([False], [False, True]))
def test_a_few_steps_of_fit_lower_the_loss_that_they_show(jit_compile):
    optimizer = keras.optimizers.Adam(0.003)
    model = tfbio.convert(tiny(head_layers=0), "sign_symmetry")
    compiled(model, optimizer, jit_compile=jit_compile)
    optimizer.build(model.trainable_variables)  # or the step is traced twice
    first, _ = gradients(model)
    data = tf.data.Dataset.from_tensors({"images": IMAGES, "bounding_boxes": LABELS}).repeat(40)
    history = model.fit(data, shuffle=False, verbose=0).history
    assert set(history) == {"loss", "box_loss", "classification_loss"}
    model.run_eagerly = True  # compilation takes longer than the step
    last = model.evaluate(IMAGES, LABELS, verbose=0, return_dict=True)
    assert last["loss"] < 0.7 * first
    # What is shown is what was computed, and no tracker that nothing updates.
    np.testing.assert_allclose(last["loss"], gradients(model)[0], rtol=1e-4)
    parts = last["box_loss"], last["classification_loss"]
    assert min(parts) > 0
    np.testing.assert_allclose(last["loss"], sum(parts), rtol=1e-5)
    assert last["loss"] < history["loss"][0] < first
    with pytest.raises(ValueError, match="no sample weights"):
        model.train_on_batch(IMAGES, LABELS, np.ones(2))


def test_a_batch_without_objects_learns_that_all_is_background():
    model = compiled(tiny())
    loss, found = gradients(model, EMPTY)
    # 774 anchors, 3 classes, 2 images at a probability of 0.01: 0.75·0.01²·−log(0.99) each.
    np.testing.assert_allclose(loss, 774 * 3 * 2 * 0.75 * 1e-4 * -np.log(0.99), rtol=0.05)
    assert not np.any(found["box_head/boxes/kernel"])
    assert np.all(found["class_head/logits/bias"].numpy() > 0)
    with_objects, _ = gradients(model)
    assert np.isfinite(with_objects)


def test_heads_start_as_in_the_paper_and_the_box_loss_is_a_sum(keras_cv):
    model = detection.retinanet(3, "resnet10", (64, 64, 3), channels=64)
    for head in (model.box_head, model.classification_head):
        for layer in head.layers:
            assert abs(float(tf.math.reduce_std(layer.kernel)) - 0.01) < 5e-4
    scores = tf.sigmoid(model.classification_head.layers[-1].bias)
    np.testing.assert_allclose(scores, 0.01, rtol=1e-5)
    y_true, y_pred = np.zeros((2, 4)), np.array([[0.05, 0.2, 0, 0], [-1, 0, 0, 0.11]])
    expected = [0.05**2 / 0.22 + 0.2 - 0.055, 1 - 0.055 + 0.055]
    loss = detection.SmoothL1(reduction="none")(y_true, y_pred)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    theirs = keras_cv.losses.SmoothL1Loss(reduction="none")(y_true, 9 * y_pred)
    np.testing.assert_allclose(
        detection.SmoothL1(1.0, reduction="none")(y_true, 9 * y_pred), 4 * theirs, rtol=1e-5
    )


def test_overrides_leave_a_part_on_backprop():
    model = tiny()
    for pattern, kernels in (("backbone*", 3), ("pyramid*", 8), ("box_head*", 2), ("*_head*", 4)):
        tfbio.convert(model, "feedback_alignment", overrides={pattern: "backprop"})
        aliases = [site.rule.alias for site in find_sites(model).values()]
        assert aliases.count("backprop") == kernels
    tfbio.convert(model, "feedback_alignment", last_layer="backprop")
    last = [n for n, site in find_sites(model).items() if site.rule.alias == "backprop"]
    assert last == ["box_head/boxes", "class_head/logits"]


def test_a_shared_heads_random_feedback_is_one_draw_per_step():
    # Only one layer's, because each costs compilation.
    overrides = {"class_head/logits": "brsf"}
    model = tfbio.convert(tiny(head_layers=0), "backprop", overrides=overrides)
    compiled(model, keras.optimizers.SGD(0.1))
    model.optimizer.build(model.trainable_variables)  # or the step is traced twice
    gradients(model)  # makes the metrics, too
    rule = find_sites(model)["class_head/logits"].rule
    drawn, feedback = [], rule.feedback

    def recorded(kernel):
        drawn.append(feedback(kernel))
        return drawn[-1]

    rule.feedback = recorded

    @tf.function(autograph=False)
    def step():
        drawn.clear()
        model.train_step((IMAGES, LABELS))
        return tf.stack(drawn)

    steps = [np.abs(step().numpy()) for _ in range(3)]
    for draws in steps:
        assert len(draws) == 5
        assert np.all(draws == draws[0])
    assert not np.allclose(steps[0][0], steps[1][0])
    assert not np.allclose(steps[1][0], steps[2][0])


@pytest.mark.parametrize("name", ["stages", "keras_cv"])
def test_decay_may_spare_all_biases_and_all_normalization(name, keras_cv):
    """With ours and keras_cv's own backbones: what is left are the kernels."""
    if name == "keras_cv":
        whole = keras_cv.models.ResNetBackbone(
            stackwise_filters=[64, 64, 64, 64],
            stackwise_blocks=[1, 1, 1, 1],
            stackwise_strides=[1, 2, 2, 2],
            include_rescaling=False,
            block_type="basic_block",
            input_shape=(None, None, 3),
        )
        images = whole.input
        maps = [whole.get_layer(f"v2_stack_{i}_block1_out").output for i in (1, 2, 3)]
    else:
        images = keras.Input((None, None, 3))
        maps = stages(images, 10)[1:]
    maps = dict(zip(("P3", "P4", "P5"), maps, strict=True))
    backbone = keras.Model(images, maps, name="backbone")
    model = detection.retinanet(3, backbone, head_layers=1, channels=8)
    spared = optimizers.Exceptions.of(model, "bias,normalization").without_decay
    kept = [v for i, v in enumerate(model.trainable_variables) if i not in spared]
    assert all(len(v.shape) == 4 for v in kept)
    assert len(kept) == sum(len(v.shape) == 4 for v in model.trainable_variables) > 10
    biases = optimizers.Exceptions.of(model, "", 2.0).biases
    named = {model.trainable_variables[i].name for i in biases}
    assert named == {"bias", "beta"}


def test_predictions_are_the_boxes_that_were_encoded():
    model = tiny(bounding_box_format="xywh", score_threshold=0.3, box_variance=(0.1, 0.1, 0.2, 0.4))
    xywh = tf.concat([LABELS["boxes"][..., :2], LABELS["boxes"][..., 2:]], axis=-1).numpy()
    xywh[..., 2:] -= xywh[..., :2]
    labels = {"boxes": np.where(LABELS["classes"][..., None] < 0, -1, xywh)}
    labels["classes"] = LABELS["classes"]
    deltas, classes = model.label_encoder(IMAGES, labels)
    logits = 10 * tf.one_hot(tf.cast(classes, tf.int32), 3) - 5
    predictions = {"box": deltas, "classification": logits}
    spec = tf.TensorSpec((None, None, None, 3))

    @tf.function(autograph=False, input_signature=[spec])
    def in_graph(images):
        return model.decode_predictions(predictions, images)

    for found in (model.decode_predictions(predictions, IMAGES), in_graph(IMAGES)):
        assert found["num_detections"].numpy().tolist() == [1, 2]
        assert found["boxes"].shape == (2, 100, 4)
        for image, count in enumerate((1, 2)):
            order = np.argsort(found["classes"][image, :count])
            classes = found["classes"].numpy()[image, :count][order]
            assert classes.tolist() == LABELS["classes"][image, :count].tolist()
            boxes = found["boxes"].numpy()[image, :count][order]
            np.testing.assert_allclose(boxes, xywh[image, :count], atol=1e-3)
        assert np.all(found["boxes"].numpy()[0, 1:] == -1)


def test_predict_takes_images_of_any_size_and_shows_what_has_a_low_score():
    model = tiny(max_detections=7)
    bias = model.classification_head.layers[-1].bias
    bias.assign(tf.fill(bias.shape, -2.5))  # a probability of 0.08
    compiled(model, jit_compile=True)
    for shape in ((1, 64, 96, 3), (1, 32, 64, 3)):
        found = model.predict(np.zeros(shape, "float32"), verbose=0)
        assert found["boxes"].shape == (1, 7, 4)
        assert found["num_detections"] == 7
        np.testing.assert_allclose(found["confidence"], 0.076, atol=0.01)
        assert np.all(found["boxes"] >= 0)
        assert np.all(found["boxes"].max((0, 1)) <= [shape[2], shape[1]] * 2)
    with pytest.raises(ValueError, match=r"multiples of 32.*Received: height 64, width 40"):
        model(np.zeros((1, 64, 40, 3), "float32"))


def test_each_level_has_no_more_candidates_than_asked():
    found = {}
    for candidates in (1, 1000):
        model = tiny(candidates=candidates, score_threshold=1e-4)
        found[candidates] = model.decode_predictions(model(IMAGES), IMAGES)["num_detections"]
    levels = len(model.anchor_generator(image_shape=IMAGES.shape[1:]))
    assert np.all((found[1] > 0) & (found[1] <= levels))
    assert np.all(found[1000] > levels)


def test_boxes_are_in_full_precision_under_a_mixed_policy():
    full = tiny()
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = tfbio.convert(tiny(), "sign_symmetry")
    assert find_sites(model)["backbone/conv_P3"].layer.compute_dtype == "bfloat16"
    random = np.random.default_rng(1)
    corners = random.uniform(0, 380, (4, 50, 2))
    sides = random.uniform(20, 120, (4, 50, 2))
    labels = {
        "boxes": np.concatenate([corners, corners + sides], -1).astype("float32"),
        "classes": random.integers(0, 3, (4, 50)).astype("float32"),
    }
    images = np.zeros((4, 512, 512, 3), "float32")
    matched = [each.label_encoder(images, labels) for each in (full, model)]
    for expected, found in zip(*matched, strict=True):
        np.testing.assert_array_equal(found, expected)
    compiled(model, run_eagerly=True)
    assert {output.dtype for output in model(IMAGES).values()} == {tf.float32}
    assert np.all(np.isfinite(model.train_on_batch(IMAGES, LABELS)))
    assert model.predict_on_batch(IMAGES)["boxes"].dtype == np.float32


def test_frozen_batch_norm_neither_learns_nor_follows():
    model = compiled(tfbio.convert(tiny(norm=True, frozen_norm=True), "sign_symmetry"))
    norm = find_layers(model)["backbone/norm_P3"]
    before = norm.get_weights()
    compiled(model, run_eagerly=True).train_on_batch(IMAGES, LABELS)
    for value, expected in zip(norm.get_weights(), before, strict=True):
        np.testing.assert_array_equal(value, expected)
    assert not norm.trainable_variables


def test_a_backbone_takes_a_classifiers_weights():
    source = tfbio.convert(models.resnet(10, 7, (64, 64, 3)), "feedback_alignment")
    for variable in source.non_trainable_variables:
        if variable.name == "moving_mean":
            variable.assign(tf.random.normal(variable.shape))
    target = detection.retinanet(3, "resnet10", head_layers=1, channels=8)
    detection.copy_backbone(source, target)
    names = ("stage2_block1_relu", "stage4_block1_relu")
    expected = keras.Model(source.input, [source.get_layer(name).output for name in names])
    found = target.backbone(IMAGES)
    for level, output in zip(("P3", "P5"), expected(IMAGES), strict=True):
        np.testing.assert_array_equal(found[level], output)
    other = models.resnet(18, 7, (32, 32, 3))
    wide = detection.retinanet(3, "resnet18", head_layers=1, channels=8)
    kept = wide.backbone.get_weights()
    with pytest.raises(ValueError, match=r"stage1_block2_1_conv .*, there none"):
        detection.copy_backbone(source, wide)
    for value, expected in zip(wide.backbone.get_weights(), kept, strict=True):
        np.testing.assert_array_equal(value, expected)
    detection.copy_backbone(keras.Sequential([keras.Input((32, 32, 3)), other]), wide)
    np.testing.assert_array_equal(
        wide.backbone.get_layer("stage4_block2_2_conv").kernel,
        other.get_layer("stage4_block2_2_conv").kernel,
    )


def test_two_replicas_take_the_step_of_one_device():
    batch = {name: value[:2].copy() for name, value in LABELS.items()}
    batch["boxes"][0], batch["classes"][0] = -1, -1  # the first replica has no object
    weights, losses = [], []
    for strategy in (
        tf.distribute.get_strategy(),
        tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]),
    ):
        keras.utils.set_random_seed(0)
        with strategy.scope():
            # One device's takes longer to compile than to take.
            eagerly = tf.distribute.has_strategy() is False
            model = tiny(head_layers=0)
            compiled(model, keras.optimizers.SGD(0.1), run_eagerly=eagerly)
        history = model.fit(IMAGES, batch, batch_size=2, epochs=2, verbose=0).history
        losses.append([history[name] for name in ("loss", "box_loss", "classification_loss")])
        weights.append(model.get_weights())
    np.testing.assert_allclose(*losses, rtol=1e-4)
    for one, two in zip(*weights, strict=True):
        np.testing.assert_allclose(two, one, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_classes": 0}, "`num_classes` must be an integer of 1 or more. Received: 0."),
        ({"backbone": "resnet81"}, "Unknown backbone 'resnet81'. Did you mean 'resnet18'?"),
        ({"input_shape": (100, 64, 3)}, "sides multiples of 32 or None. Received: .100, 64, 3."),
        ({"head_layers": -1}, "`head_layers` must be an integer of 0 or more. Received: -1."),
        ({"score_threshold": 5}, "`score_threshold` must be a finite number of 0 to 1"),
        ({"candidates": 0}, "`candidates` must be an integer of 1 or more. Received: 0."),
        ({"best_anchor": "yes"}, "`best_anchor` must be one of never, from_0.4, always"),
        ({"anchor_sizes": (32, 64)}, "`anchor_sizes` must be 5 numbers above 0"),
        ({"box_variance": (0, 1, 1, 1)}, "`box_variance` must be four numbers above 0"),
        ({"mean": [0.5] * 3}, "`mean` and `std` go together"),
        ({"mean": [0.5], "std": [1.0]}, "must be 3 numbers each"),
    ],
)
def test_what_cannot_be_built_is_refused(options, message):
    options = {"num_classes": 3, "backbone": "resnet10", "channels": 8, **options}
    with pytest.raises(ValueError, match=message):
        detection.retinanet(**options)


def test_a_backbone_must_have_three_maps():
    images = keras.Input((64, 64, 3))
    with pytest.raises(ValueError, match="a dict of the maps P3, P4 and P5"):
        detection.retinanet(3, keras.Model(images, keras.layers.Flatten()(images)))
    with pytest.raises(TypeError, match=r"a name or a keras.Model. Received: 18"):
        detection.retinanet(3, 18)
    with pytest.raises(ValueError, match=r"`beta` must be above 0. Received: 0"):
        detection.SmoothL1(0)
