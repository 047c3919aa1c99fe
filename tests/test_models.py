"""The networks: their published shapes, and images that are too small for them."""

import keras
import pytest

import tfbio


def test_lenet_is_the_published_one():
    model = tfbio.models.build("lenet", 10, (32, 32, 1))
    kernels = [tuple(layer.kernel.shape) for layer in model.layers if hasattr(layer, "kernel")]
    assert kernels == [(5, 5, 1, 6), (5, 5, 6, 16), (5, 5, 16, 120), (120, 84), (84, 10)]
    assert model.get_layer("conv3").output.shape == (None, 1, 1, 120)
    assert [type(layer).__name__ for layer in model.layers].count("MaxPooling2D") == 2
    for layer in model.layers:
        if hasattr(layer, "kernel"):
            assert isinstance(layer.kernel_initializer, keras.initializers.GlorotUniform)
            assert not layer.bias.numpy().any()


@pytest.mark.parametrize("name", tfbio.models.names())
@pytest.mark.parametrize("shape", [(32, 32, 1), (40, 36, 3)])
def test_every_network_takes_the_sizes_it_admits(name, shape):
    model = tfbio.models.build(name, 7, shape)
    assert model.output_shape == (None, 7)
    assert not model.compiled


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("lenett", 10, (32, 32, 1)), "Unknown model 'lenett'. Did you mean 'lenet'?"),
        (("lenet", 0, (32, 32, 1)), "`num_classes` must be an integer of 1 or more. Received: 0"),
        (("lenet", 10, (32, 32)), "`input_shape` must be (height, width, channels)"),
        (("lenet", 10, (28, 28, 1)), "32 or more pixels a side. Received: (28, 28, 1)"),
        (("digits_cnn", 10, (3, 8, 1)), "4 or more pixels a side. Received: (3, 8, 1)"),
    ],
)
def test_a_bad_request_is_refused(arguments, message):
    with pytest.raises(ValueError, match=r".") as caught:
        tfbio.models.build(*arguments)
    assert message in str(caught.value)
