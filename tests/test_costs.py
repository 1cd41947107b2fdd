"""Costs against published counts and counts by hand; speeds in turn."""

import keras
import numpy as np
import pytest

from tl_helpers import backbones, costs, runtime


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


def test_memory_of_feature_maps_by_hand():
    numbers = 8 * 8 * 4 + 2 * 4 * 4 * 4 + 4 + 5  # convolution; depthwise and batch norm; averages; dense
    assert costs.feature_map_mb(small(), 8, batch_size=3) == 3 * numbers * 4 / 2**20


def test_speeds_are_measured_in_turn_and_the_quickest_after_the_first_counts(monkeypatch):
    now, calls = [0.0], []
    took = {"a": iter([1.0, 2.0, 4.0]), "b": iter([9.0, 2.0, 1.0])}

    class Slow:
        def __init__(self, name):
            self.name = name

        def predict_on_batch(self, images):
            calls.append(self.name)
            now[0] += next(took[self.name])

    monkeypatch.setattr(costs.time, "perf_counter", lambda: now[0])
    batch = np.zeros((8, 4, 4, 3))
    found = costs.images_per_second({n: Slow(n) for n in "ab"}, {"a": batch, "b": batch}, rounds=2)
    assert calls == list("ababab") and found == {"a": 4.0, "b": 8.0}


def test_memory_of_a_fresh_process_that_fails_is_an_error():
    with pytest.raises(RuntimeError, match="backbone must be one of"):
        costs.peak_memory_mb("no-such-network", 32, 1)


def test_memory_of_a_fresh_process_holds_its_largest_feature_map():
    """So many images that what else such a process takes and gives back is small beside their maps."""
    found = costs.peak_memory_mb("mobilenet-0.5", 128, 64)
    if found is None or runtime.device()["kind"] == "gpu":
        pytest.skip("the system does not tell, or the maps lie in a GPU's own memory")
    model = backbones.mobilenet(0.5, weights=None)
    largest = max(np.prod(row["shape"]) for row in costs.layer_costs(model, 128)) * 64 * costs.BYTES / 2**20
    assert largest < found < 2 * costs.feature_map_mb(model, 128, 64)
