"""Batch norm put back into plain VGG16, flips at test time, and recordings that go on after an interruption."""

import keras
import numpy as np
import pytest

from tl_helpers import evaluation, models, packing, recipes, results, runtime, training
from tl_helpers.preprocessing import Preprocessing
from tl_helpers.source_model import measure_again, with_batch_norm

IMAGES = np.random.default_rng(0).integers(0, 256, (48, 32, 32, 3)).astype(np.uint8)


def plain_vgg(seed=0, classes=3):
    """A small network in VGG16's form, without batch norm."""
    runtime.set_seed(seed)
    images = keras.Input((None, None, 3))
    x = Preprocessing(("caffe",), name="preprocessing")(images)
    for b, (convolutions, channels) in enumerate(((2, 4), (1, 6)), 1):
        for i in range(1, convolutions + 1):
            layer = keras.layers.Conv2D(channels, 3, padding="same", activation="relu", name=f"block{b}_conv{i}")
            x = layer(x)
            layer.bias.assign(np.random.default_rng(i).normal(0, 5, channels))
        x = keras.layers.MaxPooling2D(name=f"block{b}_pool")(x)
    x = keras.layers.GlobalAveragePooling2D(name="avg_pool")(x)
    return models.transfer_model(keras.Model(images, x), classes)


def values(outputs):
    return keras.ops.convert_to_numpy(outputs)


@pytest.mark.parametrize("rescale", [False, True])
def test_batch_norm_put_back_changes_nothing_in_inference(rescale):
    plain = plain_vgg()
    plain.get_layer("block1_conv1").kernel.assign(plain.get_layer("block1_conv1").kernel / 100)
    normed = with_batch_norm(plain, IMAGES[:20], batch_size=8, rescale=rescale)
    spread = values(normed.get_layer("block1_conv1").kernel).std()
    assert np.isclose(spread, np.sqrt(2 / 27)) == rescale
    assert [n.name for n in normed.layers if "_bn" in n.name] == ["block1_bn1", "block1_bn2", "block2_bn1"]
    for images in (IMAGES, IMAGES // 4):  # on whatever images, not only on those it was measured on
        assert np.allclose(values(normed(images)), values(plain(images)), rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("rescale", [False, True])
def test_in_training_it_changes_little_on_the_images_it_was_measured_on(rescale):
    plain = plain_vgg()
    normed = with_batch_norm(plain, IMAGES, rescale=rescale)
    away = np.abs(values(normed(IMAGES, training=True)) - values(plain(IMAGES))).mean()
    assert away < 0.05 * np.abs(values(plain(IMAGES))).mean()


def test_it_is_folded_away_again():
    plain = plain_vgg()
    normed = with_batch_norm(plain, IMAGES)
    training.compile_model(normed, recipes.Recipe(epochs=1, learning_rate=1e-2), steps=10)
    for _ in range(3):
        normed.train_on_batch(IMAGES, np.arange(48) % 3)
    packing.assign(plain, packing.fold_model(normed))
    assert np.allclose(values(plain(IMAGES)), values(normed(IMAGES)), rtol=1e-3, atol=1e-2)


def test_measuring_again_repairs_running_averages_and_moves_no_weight():
    normed = with_batch_norm(plain_vgg(), IMAGES)
    in_training = values(normed(IMAGES, training=True))
    for layer in normed.layers:
        if "_bn" in layer.name:
            layer.moving_mean.assign(layer.moving_mean + 30.0)
    before = models.snapshot(normed)
    measure_again(normed, IMAGES)
    assert np.allclose(values(normed(IMAGES)), in_training, rtol=2e-2, atol=2e-2)
    assert all("moving" in name for name in models.moved(normed, before))
    assert all(layer.momentum == 0.99 for layer in normed.layers if "_bn" in layer.name)


def test_flips_average_an_image_and_its_mirror_image():
    plain = plain_vgg()
    expected = (values(plain(IMAGES)) + values(plain(np.ascontiguousarray(IMAGES[:, :, ::-1])))) / 2
    assert np.allclose(values(models.with_flips(plain)(IMAGES)), expected, rtol=1e-3, atol=1e-2)


class Tiny:
    """The smallest thing with the interface of datasets.Dataset."""

    class Part:
        images, labels = np.random.default_rng(0).normal(size=(32, 4)).astype("float32"), np.arange(32) % 2

    train = val = test = Part()

    def identity(self):
        return {"name": "own", "copy": "own", "sha256": "0" * 64}

    def sizes(self):
        return {"train": 32, "val": 32, "test": 32}


@pytest.fixture
def recording(monkeypatch, tmp_path):
    monkeypatch.setenv("TL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TL_RECORD", "1")
    monkeypatch.setattr(runtime, "records_folder", lambda: tmp_path)
    monkeypatch.setattr(results, "_commit", lambda: {"commit": "abc", "dirty": False})
    return monkeypatch


def run_once(learning_rate=1e-2, seed=0, dtype="float32"):
    recipe = recipes.Recipe(epochs=1, learning_rate=learning_rate)
    model = models.head((4,), 2)
    data = Tiny()
    run = training.fit(
        model, data, recipe, experiment="demo", arm="a", seed=seed, extra={"dtype": dtype}, progress=False
    )
    return run, evaluation.test(run, model, data, extra=lambda: {"more": 1.0})


def lines(tmp_path):
    return (tmp_path / "demo.jsonl").read_text().splitlines()


def test_a_recording_goes_on_where_it_was_interrupted(recording, tmp_path):
    _, first = run_once()
    recording.setenv("TL_RESUME", "1")
    run, again = run_once()
    assert run.reused and again == first and len(lines(tmp_path)) == 1
    assert results.finished[-1] == run.record


@pytest.mark.parametrize("other", [{"learning_rate": 2e-2}, {"seed": 1}])
def test_another_setting_is_run(recording, tmp_path, other):
    run_once()
    recording.setenv("TL_RESUME", "1")
    assert not run_once(**other)[0].reused and len(lines(tmp_path)) == 2


def test_a_recording_goes_on_on_a_machine_with_another_number_format(recording, tmp_path):
    _, first = run_once(dtype="mixed_bfloat16")
    recording.setenv("TL_RESUME", "1")
    run, again = run_once(dtype="float32")
    assert run.reused and again == first and len(lines(tmp_path)) == 1
    assert run.record["recipe"]["dtype"] == "mixed_bfloat16"


def test_nothing_is_skipped_unless_asked_for(recording, tmp_path):
    run_once()
    assert not run_once()[0].reused and len(lines(tmp_path)) == 2
    recording.setenv("TL_RESUME", "1")
    recording.setenv("TL_RECORD", "0")
    assert not runtime.resuming()


def test_a_record_of_code_that_was_not_committed_is_not_reused(recording, tmp_path):
    recording.setattr(results, "_commit", lambda: {"commit": "abc", "dirty": True})
    run_once()
    recording.setenv("TL_RESUME", "1")
    assert not run_once()[0].reused


def test_a_stopped_clock_counts_no_more(recording, monkeypatch):
    now = [10.0]
    monkeypatch.setattr(results.time, "monotonic", lambda: now[0])
    run = results.Run("demo", arm="a", seed=0)
    run.images_seen = 1000
    now[0] = 15.0
    run.stop_clock()
    now[0] = 90.0
    assert run.elapsed() == 5.0
    record = run.finish({"accuracy": 0.5})
    assert (record["seconds"], record["images_per_second"]) == (5.0, 200.0)


@pytest.mark.parametrize("recipes_of", [(None, {"epochs": 1}), ({"epochs": 1}, None), (None, None)])
def test_runs_without_a_recipe_are_compared_too(recording, recipes_of):
    recorded, mine = recipes_of
    results.Run("demo", arm="shipped model", seed=0, recipe=recorded).finish({"accuracy": 0.5})
    recording.setenv("TL_RESUME", "1")
    assert results.Run("demo", arm="shipped model", seed=0, recipe=mine).reuse() == (recorded == mine)
