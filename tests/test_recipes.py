"""Tests of recipes and of what they mean: schedules, losses, augmentation."""

from dataclasses import replace

import keras
import numpy as np
import pytest

from tl_helpers import models, recipes, training
from tl_helpers.recipes import Recipe

RECIPE = replace(recipes.FINE_TUNING, crop_padding=1)


def test_schedule_equals_its_rule():
    for recipe in (RECIPE, replace(RECIPE, schedule="constant"), replace(RECIPE, warmup=0.0)):
        schedule = training.Schedule(recipe, 50)
        for step in (0, 1, 4, 5, 20, 49):
            assert float(schedule(step)) == pytest.approx(recipes.learning_rate_at(recipe, step, 50), rel=1e-3)


def test_label_smoothing_equals_keras():
    logits = np.random.default_rng(0).normal(size=(6, 10)).astype("float32")
    labels = np.arange(6)
    expected = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1)(np.eye(10)[labels], logits)
    found = keras.ops.mean(training.cross_entropy(0.1)(labels, logits))
    assert float(found) == pytest.approx(float(expected), rel=1e-5)


def test_augment_keeps_shape_type_and_pixels():
    images = np.arange(4 * 8 * 8 * 3, dtype=np.uint8).reshape(4, 8, 8, 3)
    once = training.augment(images, RECIPE, np.random.default_rng(1))
    again = training.augment(images, RECIPE, np.random.default_rng(1))
    assert once.shape == images.shape and once.dtype == np.uint8
    np.testing.assert_array_equal(once, again)
    flipped = training.augment(images, replace(RECIPE, crop_padding=0), np.random.default_rng(0))
    assert all(np.array_equal(f, i) or np.array_equal(f, i[:, ::-1]) for f, i in zip(flipped, images, strict=True))
    assert not np.array_equal(flipped, images)


def test_crops_reach_every_place_and_half_are_mirrored():
    image = np.arange(192, dtype=np.uint8).reshape(8, 8, 3)
    padded = np.pad(image, ((2, 2), (2, 2), (0, 0)), mode="reflect")
    windows = {padded[top : top + 8, left : left + 8].tobytes() for top in range(5) for left in range(5)}
    crops = training.augment(np.repeat(image[None], 500, 0), Recipe(crop_padding=2), np.random.default_rng(0))
    assert {crop.tobytes() for crop in crops} == windows and len(windows) == 25
    mirrored = training.augment(np.repeat(image[None], 1000, 0), Recipe(flip=True), np.random.default_rng(0))
    assert 0.45 < np.mean([np.array_equal(one, image[:, ::-1]) for one in mirrored]) < 0.55


def test_shrinking_takes_means():
    images = np.arange(2 * 8 * 8 * 3, dtype=np.uint8).reshape(2, 8, 8, 3)
    expected = images.reshape(2, 4, 2, 4, 2, 3).mean((2, 4))
    np.testing.assert_allclose(training.shrink(images, 4), expected, atol=1e-3)
    assert training.shrink(images, None) is images and training.shrink(images, 8) is images


def test_unknown_choices_in_a_recipe_are_named():
    with pytest.raises(ValueError, match="optimizer must be one of adam, adamw, sgd. Received: 'adamx'"):
        Recipe(optimizer="adamx")


@pytest.mark.parametrize(
    "wrong",
    [
        {"warmup": 1.5}, {"warmup": -0.1}, {"patience": 0}, {"learning_rate": 0.0}, {"learning_rate": float("nan")},
        {"label_smoothing": 1.0}, {"label_smoothing": -0.1}, {"crop_padding": -1}, {"cutout": -1}, {"weight_decay": -0.1},
        {"near_source": -1.0}, {"layer_decay": 0.0}, {"epochs": 2.5}, {"batch_size": 0}, {"learning_rate": float("inf")},
        {"learning_rate": None},
    ],
    ids=str,
)  # fmt: skip
def test_numbers_out_of_range_are_named(wrong):
    (name, value), *_ = wrong.items()
    with pytest.raises(ValueError, match=f"{name} must be .*Received: {value}"):
        Recipe(**wrong)


@pytest.mark.parametrize("stages", [((3, 0), (-1, 8)), ((1, 8),), ((2, 8.5),)], ids=str)
def test_stages_that_make_no_plan_are_refused(stages):
    with pytest.raises(ValueError, match="stages must be pairs of whole numbers"):
        Recipe(epochs=2, stages=stages)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize(
    "more", [{}, {"layer_decay": 0.8, "label_smoothing": 0.1}, {"near_source": 0.1, "stages": ((4, 8), (6, 16))}]
)
def test_a_trained_model_is_saved_and_trains_on(optimizer, more, tmp_path):
    recipe = replace(recipes.FINE_TUNING, optimizer=optimizer, **more)
    images = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(2, 3, name="block1_conv1")(images)
    model = models.transfer_model(keras.Model(images, keras.layers.GlobalAveragePooling2D()(x)), 3)
    training.compile_model(model, recipe, steps=20)
    rng = np.random.default_rng(0)
    batch = rng.normal(size=(8, 8, 8, 3)).astype("float32"), rng.integers(0, 3, 8)
    model.train_on_batch(*batch)
    model.save(tmp_path / "m.keras")
    again = keras.saving.load_model(tmp_path / "m.keras")
    assert again.optimizer._learning_rate.recipe == recipe, "the public property gives this step's number"
    for _ in range(3):
        losses = [float(m.train_on_batch(*batch, return_dict=True)["loss"]) for m in (model, again)]
        assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    for a, b in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)
