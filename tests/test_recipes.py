"""Tests of recipes and of what they mean: schedules, losses, augmentation."""

from dataclasses import replace

import keras
import numpy as np
import pytest

from tl_helpers import recipes, training
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


def test_shrinking_takes_means():
    images = np.arange(2 * 8 * 8 * 3, dtype=np.uint8).reshape(2, 8, 8, 3)
    expected = images.reshape(2, 4, 2, 4, 2, 3).mean((2, 4))
    np.testing.assert_allclose(training.shrink(images, 4), expected, atol=1e-3)
    assert training.shrink(images, None) is images and training.shrink(images, 8) is images


def test_unknown_choices_in_a_recipe_are_named():
    with pytest.raises(ValueError, match="optimizer must be one of adam, adamw, sgd. Received: 'adamx'"):
        Recipe(optimizer="adamx")
