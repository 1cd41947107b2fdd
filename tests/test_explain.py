"""Gradients without a gradient function, and the maps made of them."""

import gc

import keras
import numpy as np
import pytest

from tl_helpers import explain, models, runtime


@pytest.fixture(scope="module")
def model():
    """Two convolutions, averages over the places, a linear head."""
    runtime.set_seed(0)
    images = keras.Input((12, 12, 3))
    x = keras.layers.Conv2D(6, 3, activation="relu", padding="same", name="first")(images / 255)
    x = keras.layers.AveragePooling2D(2)(x)  # a maximum has kinks, where differences mislead
    x = keras.layers.Conv2D(5, 3, activation="tanh", name="second")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(images, keras.layers.Dense(4, name="head")(x))


IMAGES = np.random.default_rng(0).integers(0, 256, (3, 12, 12, 3)).astype(np.float32)
CLASSES = np.array([2, 0, 3])


@pytest.mark.parametrize("layer", ["first", "second"])
def test_gradients_are_those_of_finite_differences(model, layer):
    held = explain.activations(model, layer, IMAGES)
    found = explain.gradients(model, layer, held, CLASSES)
    above = keras.Model(model.get_layer(layer).output, model.output)
    asked = lambda x: np.asarray(above.predict_on_batch(x))[np.arange(3), CLASSES]  # noqa: E731
    steps = np.random.default_rng(1).standard_normal((4, *held.shape)).astype(np.float32)
    for step in 1e-2 * steps:
        slope = (asked(held + step) - asked(held - step)) / 2
        np.testing.assert_allclose((found * step).sum((1, 2, 3)), slope, rtol=0.05, atol=2e-5)


def test_the_model_is_left_as_it_was(model):
    before, trainable = models.snapshot(model), [layer.trainable for layer in model.layers]
    explain.grad_cam(model, "first", IMAGES, CLASSES)
    assert not models.moved(model, before) and trainable == [layer.trainable for layer in model.layers]


def test_below_averages_and_a_linear_head_the_map_is_a_class_activation_map(model):
    """Zhou et al. (2016): the head's own weights, up to the number of places."""
    held = explain.activations(model, "second", IMAGES)
    weights = model.get_layer("head").get_weights()[0][:, CLASSES]
    expected = np.maximum(np.einsum("nhwc,cn->nhw", held, weights), 0) / (4 * 4)
    np.testing.assert_allclose(explain.grad_cam(model, "second", IMAGES, CLASSES), expected, atol=1e-6)


def test_nothing_is_left_behind(model):
    def graphs():
        gc.collect()
        return sum(type(thing).__name__ == "FuncGraph" for thing in gc.get_objects())

    explain.grad_cam(model, "second", IMAGES, CLASSES)
    before = graphs()
    for _ in range(3):
        explain.grad_cam(model, "second", IMAGES, CLASSES)
    assert graphs() <= before


def test_pictures_do_not_mix(model):
    together = explain.grad_cam(model, "second", IMAGES, CLASSES)
    for i in range(3):
        alone = explain.grad_cam(model, "second", IMAGES[i : i + 1], CLASSES[i : i + 1])
        np.testing.assert_allclose(alone[0], together[i], atol=1e-6)


def test_maps_are_enlarged_to_the_picture():
    maps = np.zeros((2, 2, 2), np.float32)
    maps[0, 0, 1] = 3.0
    large = explain.enlarge(maps, 8)
    assert large.shape == (2, 8, 8) and large[0].max() == pytest.approx(1) and not large[1].any()
    assert np.unravel_index(large[0].argmax(), (8, 8))[1] >= 6


def test_an_unknown_layer_is_named(model):
    with pytest.raises(ValueError, match="layer must be one of .*second.*Received: 'third'"):
        explain.grad_cam(model, "third", IMAGES, CLASSES)
