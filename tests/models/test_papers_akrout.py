"""The networks of Akrout et al. 2019 and Frenkel et al. 2021, and their steps, against their code.

Akrout et al.: makrout/Deep-Learning-without-Weight-Transport at 688f47a. Frenkel et al.:
ChFrenkel/DirectRandomTargetProjection at b84e3fe. What their code computes is written out here in
NumPy, in their order of operations.
"""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfbio
from tests.cases import long_but, random
from tfbio import losses, models, optimizers
from tfbio.layers.sites import find_sites
from tfbio.networks import direct


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


@pytest.mark.parametrize(
    ("name", "shape", "count", "flat"),
    [
        # experiments/{mnist,cifar10}/bp-V0/log.txt:9, weights and biases (fcnn/FCNN_BP.py:29-32).
        ("akrout_mnist", (28, 28, 1), 784 * 500 + 500 + 500 * 10 + 10, (500,)),
        ("akrout_cifar", (32, 32, 3), 3072 * 1000 + 1000 + 1000 * 10 + 10, (1000,)),
        # main.py:64, models.py:69,90: 28 + 2·2 − 5 + 1 = 28 a side, 14 after pooling.
        ("frenkel_mnist", (28, 28, 1), 832 + 14 * 14 * 32 * 1000 + 1000 + 10_010, (1000,)),
    ],
)
def test_parameters_and_the_shape_before_the_classifier_are_theirs(name, shape, count, flat):
    model = models.build(name, 10, shape)
    assert model.count_params() == count
    assert model.get_layer("logits").input.shape[1:] == flat
    if name == "frenkel_mnist":
        assert model.get_layer("conv").output.shape[1:] == (28, 28, 32)
        assert model.get_layer("flatten").output.shape[1:] == (14 * 14 * 32,)


def test_akrout_starts_weights_biases_and_b_from_one_normal_distribution():
    keras.utils.set_random_seed(0)
    model = tfbio.convert(models.build("akrout_mnist", 10, (28, 28, 1)), "fa(scale='akrout')")
    for site, (inputs, outputs) in zip(
        find_sites(model).values(), [(784, 500), (500, 10)], strict=True
    ):
        std = 1 / math.sqrt(inputs + outputs)  # fcnn/FCNN_BP.py:29-32, fcnn/FCNN_FA.py:30
        for matrix in (site.kernel.numpy(), site.feedback.numpy()):
            assert matrix.std() == pytest.approx(std, rel=0.05)
            kurtosis = np.mean(matrix**4) / np.mean(matrix**2) ** 2
            assert 2.7 < kurtosis < 3.3  # not cut off, nor uniform
    hidden = model.get_layer("hidden").bias.numpy()
    assert hidden.std() == pytest.approx(1 / math.sqrt(1284), rel=0.15)
    assert np.any(model.get_layer("logits").bias.numpy())


def test_frenkel_starts_as_pytorch_does():
    keras.utils.set_random_seed(0)
    model = models.build("frenkel_mnist", 10, (28, 28, 1))
    for name, fan_in in (("conv", 25), ("hidden", 6272), ("logits", 1000)):
        for values in model.get_layer(name).get_weights():
            limit = fan_in**-0.5  # torch's Linear and Conv2d, models.py:132,155
            assert 0.7 * limit < np.abs(values).max() <= limit
            if values.size > 500:
                assert values.std() == pytest.approx(limit / math.sqrt(3), rel=0.1)
    tfbio.convert(model, "fa(scale='kaiming')")
    for site, fan_in in zip(find_sites(model).values(), (25, 6272, 1000), strict=True):
        limit = math.sqrt(6 / fan_in)  # module.py:64
        b = site.feedback.numpy()
        assert 0.95 * limit < np.abs(b).max() <= limit
        assert b.std() == pytest.approx(limit / math.sqrt(3), rel=0.05)


def small(name, shape=(4, 4, 1)):
    """Return a paper's network in float64 for small images."""
    keras.utils.set_random_seed(0)
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float64")
    try:
        return models.build(name, 10, shape)
    finally:
        keras.config.set_dtype_policy(before)


@pytest.mark.parametrize("rule", ["bp", "fa", "wm", "kp"])
def test_three_steps_of_akrouts_are_those_of_their_code(rule):
    n, rate = 8, 0.25  # which the optimizer's float32 holds exactly
    # Keras casts images to the input's float32.
    x = np.float32(0.5 + 0.1 * random((3, n, 4, 4, 1))).astype("float64")
    y = np.arange(3 * n).reshape(3, n) % 10
    names = {
        "bp": "backprop",
        "fa": "fa(scale='akrout')",
        "kp": "kp(scale='akrout')",
        "wm": "wm(before=2, decay=0, center=False, scale='akrout', samples=8)",
    }
    model = tfbio.convert(small("akrout_mnist"), names[rule])
    sites = list(find_sites(model).values())
    if rule != "bp":
        first = [site.feedback.numpy() for site in sites]
    # weights are (out, in) in their code, biases (out, 1); B is (in, out).
    weights = [site.kernel.numpy().T for site in sites]
    biases = [layer.bias.numpy()[:, None] for layer in map(model.get_layer, ("hidden", "logits"))]
    backward = [w.T.copy() for w in weights] if rule == "bp" else [b.copy() for b in first]
    kernels = optimizers.get("sgd", rate, momentum=0.0)
    model.compile(kernels, losses.ClassificationLoss("binary_cross_entropy_sum", dtype="float64"))
    for step in range(3):
        with tf.GradientTape() as tape:
            value = model.compute_loss(x, y[step], model(tf.constant(x[step]), training=True))
        if rule == "wm":
            # Their noise is another; here B is what the mirror has made of it.
            backward = [site.feedback.numpy() for site in sites]
            assert all(np.any(b != a) for a, b in zip(first, backward, strict=True))
        gradients = tape.gradient(value, model.trainable_variables)
        # fcnn/FCNN_BP.py:171-198, 139-143.
        images, targets = x[step].reshape(n, -1).T, np.eye(10)[y[step]].T
        hidden = sigmoid(weights[0] @ images + biases[0])
        outputs = sigmoid(weights[1] @ hidden + biases[1])
        delta = outputs - targets
        del_b, del_w = [None, delta.mean(1, keepdims=True)], [None, delta @ hidden.T]
        through = weights[1].T if rule == "bp" else backward[1]
        delta = through @ delta * hidden * (1 - hidden)
        del_b[0], del_w[0] = delta.mean(1, keepdims=True), delta @ images.T
        weights = [w - rate / n * d for w, d in zip(weights, del_w, strict=True)]
        biases = [b - rate / n * d for b, d in zip(biases, del_b, strict=True)]
        if rule == "kp":  # fcnn/FCNN_KP.py:72
            backward = [b - rate / n * d.T for b, d in zip(backward, del_w, strict=True)]
        # --bias_learning_rate_scale=1/n divides the biases' rate once more.
        scaled = [
            g / n if v.path.endswith("bias") else g
            for g, v in zip(gradients, model.trainable_variables, strict=True)
        ]
        model.optimizer.apply(scaled, model.trainable_variables)
        for index, (site, layer) in enumerate(zip(sites, ("hidden", "logits"), strict=True)):
            np.testing.assert_allclose(site.kernel.numpy(), weights[index].T, rtol=1e-9)
            bias = model.get_layer(layer).bias
            np.testing.assert_allclose(bias, biases[index][:, 0], rtol=1e-9)
            if rule in ("fa", "kp"):
                np.testing.assert_allclose(site.feedback.numpy(), backward[index], rtol=1e-9)
    each = targets * np.log(outputs) + (1 - targets) * np.log(1 - outputs)  # fcnn/FCNN_BP.py:73
    assert float(value) == pytest.approx(-np.mean(np.sum(each, axis=0)), rel=1e-6)


FRENKEL = [(r, k) for r in ("dfa", "sign_dfa", "drtp") for k in ("bce", "mse")]


@pytest.mark.parametrize(
    ("rule", "loss"), long_but([("dfa", "mse"), ("sign_dfa", "bce"), ("drtp", "mse")], FRENKEL)
)
def test_three_steps_of_frenkels_are_those_of_their_code(rule, loss):
    """Their signal is summed over the batch: hidden layers at N times the output layer's rate."""
    n, rate, momentum = 8, 2.0**-7, 0.9
    x = tf.cast(tf.cast(random((3, n, 4, 4, 1)), "float32"), "float64")
    y = np.arange(3 * n).reshape(3, n) % 10
    options = "init='frenkel', spatial='dense'" + (", error='outputs'" if rule == "dfa" else "")
    model = tfbio.convert(small("frenkel_mnist"), f"{rule}({options})")
    kind = {"bce": "binary_cross_entropy", "mse": "squared_error"}[loss]
    logits = model.get_layer("logits")
    optimizer = optimizers.get("nesterov", n * rate, momentum=momentum)
    b = [direct.owner(model).rule.matrix(index).numpy() for index in range(2)]
    plain = small("frenkel_mnist")
    plain.set_weights([w.numpy() for w in model.weights if "direct_feedback" not in w.path])
    layer = {each.name: each for each in plain.layers}
    ours = [v for name in ("conv", "hidden") for v in model.get_layer(name).trainable_variables]
    last = optimizers.get("nesterov", rate, momentum=momentum)
    buffers = [np.zeros(v.shape) for v in plain.trainable_variables]
    function = losses.ClassificationLoss(kind, dtype="float64")
    for step in range(3):
        with tf.GradientTape() as tape:
            value = function(y[step], model(x[step], training=True))
        gradients = tape.gradient(value, [*ours, *logits.trainable_variables])
        optimizer.apply(gradients[: len(ours)], ours)
        last.apply(gradients[len(ours) :], logits.trainable_variables)
        # Theirs: hooks after the activation (models.py:163-166), function.py:57-62.
        with tf.GradientTape() as tape:
            conv = layer["conv"](x[step])
            hidden = layer["hidden"](layer["flatten"](layer["pool"](tf.stop_gradient(conv))))
            p = tf.sigmoid(layer["logits"](tf.stop_gradient(hidden)))
            t = tf.one_hot(y[step], 10, dtype=tf.float64)
            if loss == "mse":
                objective = tf.reduce_mean((p - t) ** 2)
            else:
                objective = -tf.reduce_mean(t * tf.math.log(p) + (1 - t) * tf.math.log(1 - p))
            signal = {"dfa": p - t, "sign_dfa": tf.sign(p - t), "drtp": t}[rule]
            signal = tf.stop_gradient(signal)
            for h, matrix in zip((conv, hidden), b, strict=True):
                objective += tf.reduce_sum(h * tf.reshape(signal @ matrix, h.shape))
        theirs = tape.gradient(objective, plain.trainable_variables)
        for index, (v, g) in enumerate(zip(plain.trainable_variables, theirs, strict=True)):
            # torch.optim.SGD with Nesterov's momentum (train.py:61).
            buffers[index] = momentum * buffers[index] + g.numpy()
            v.assign_sub(rate * (g + momentum * buffers[index]))
    for one, other in zip(model.trainable_variables, plain.trainable_variables, strict=True):
        np.testing.assert_allclose(one.numpy(), other.numpy(), rtol=1e-8, atol=1e-12)


def first_gradient(model, x, y, loss):
    with tf.GradientTape() as tape:
        value = loss(y, model(x, training=True))
    return float(tf.norm(tape.gradient(value, model.trainable_variables[0])))


@pytest.mark.parametrize(
    ("name", "kind", "rules"),
    [
        ("akrout_mnist", "binary_cross_entropy_sum", {"fa(scale='akrout')": (0.7, 1.4)}),
        (
            "frenkel_mnist",
            "binary_cross_entropy",
            # Kaiming's B over PyTorch's W: √6 in each of the two layers above.
            {"fa(scale='kaiming')": (4.0, 9.0)},
        ),
    ],
)
def test_the_first_layers_gradient_over_backprops_at_the_start(name, kind, rules):
    keras.utils.set_random_seed(0)
    x, y = 0.5 + 0.2 * random((16, 28, 28, 1), "float32"), np.arange(16) % 10
    loss = losses.ClassificationLoss(kind)
    model = models.build(name, 10, (28, 28, 1))
    backprop = first_gradient(tfbio.convert(model, "backprop"), x, y, loss)
    for rule, (low, high) in rules.items():
        ratio = first_gradient(tfbio.convert(model, rule), x, y, loss) / backprop
        assert low < ratio < high
