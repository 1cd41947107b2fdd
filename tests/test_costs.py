"""Costs against published counts and counts by hand; speeds in turn."""

import keras
import numpy as np
import pytest

from tl_helpers import backbones, costs


def small() -> keras.Model:
    images = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(4, 3, padding="same", name="conv")(images)
    x = keras.layers.DepthwiseConv2D(3, strides=2, padding="same", name="depthwise")(x)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(images, keras.layers.Dense(5, name="dense")(x))


def test_a_small_network_by_hand():
    rows = {row["layer"]: row for row in costs.layer_costs(small(), 8)}
    assert rows["conv"]["multiply_adds"] == 9 * 3 * 4 * 8 * 8 and rows["conv"]["shape"] == (8, 8, 4)
    assert rows["depthwise"]["multiply_adds"] == 9 * 4 * 4 * 4
    assert rows["dense"]["multiply_adds"] == 4 * 5 and rows["dense"]["parameters"] == 25
    assert costs.multiply_adds(small(), 8) == 9 * 12 * 64 + 9 * 64 + 20


def test_vgg16_as_the_mathematics_chapter_counts_it():
    model = backbones.vgg16(weights=None)
    assert sum(row["parameters"] for row in costs.layer_costs(model, 32)) == 14_714_688 == model.count_params()
    assert costs.multiply_adds(model, 224) == 49 * costs.multiply_adds(model, 32) == 15_346_630_656


def test_mobilenet_as_its_paper_counts_it():
    """569 million with the last dense layer of 1,024 × 1,000 (Howard et al., 2017, Table 8)."""
    model = backbones.mobilenet(1.0, weights=None)
    assert (costs.multiply_adds(model, 224) + 1_024_000) / 1e6 == pytest.approx(569, abs=0.5)


def test_resizing_inside_the_model_counts():
    inside = backbones.mobilenet(0.5, weights=None, resolution=64)
    outside = backbones.mobilenet(0.5, weights=None)
    assert costs.multiply_adds(inside, 32) == costs.multiply_adds(outside, 64) > costs.multiply_adds(outside, 32)


def test_what_cannot_be_counted_is_refused():
    images = keras.Input((None, None, 3))
    with pytest.raises(ValueError, match="Received: up"):
        costs.multiply_adds(keras.Model(images, keras.layers.Conv2DTranspose(2, 3, name="up")(images)), 8)
    with pytest.raises(ValueError, match="flat model"):
        costs.multiply_adds(keras.Model(images, small()(images)), 8)


def test_memory_grows_with_the_batch():
    model = small()
    assert costs.feature_map_mb(model, 8, 4) == pytest.approx(4 * costs.feature_map_mb(model, 8))


def test_speeds_are_measured_in_turn():
    calls = []

    class Counting:
        def __init__(self, name):
            self.name = name

        def predict_on_batch(self, images):
            calls.append(self.name)

    batch = np.zeros((8, 4, 4, 3))
    found = costs.images_per_second({n: Counting(n) for n in "ab"}, {"a": batch, "b": batch}, rounds=2)
    assert calls == list("ababab") and all(speed > 0 for speed in found.values())


def test_memory_of_a_fresh_process_that_fails_is_an_error():
    with pytest.raises(RuntimeError, match="backbone must be one of"):
        costs.peak_memory_mb("no-such-network", 32, 1)


def test_memory_of_a_fresh_process_is_more_than_nothing():
    found = costs.peak_memory_mb("mobilenet-0.5", 32, 1)
    assert found is None or found > costs.BYTES * backbones.mobilenet(0.5, weights=None).count_params() / 2**20
