"""Tests of tl_helpers.shifts and of painted squares."""

import numpy as np
import pytest

from tl_helpers import datasets, recipes, shifts
from tl_helpers.batches import augment

IMAGES = np.random.default_rng(0).integers(60, 190, (6, 32, 32, 3)).astype(np.uint8)


@pytest.mark.parametrize("name", shifts.CORRUPTIONS)
def test_corruptions_keep_shape_and_type_and_grow_with_their_strength(name):
    weak, strong = (shifts.CORRUPTIONS[name](IMAGES, s) for s in ((5, 40) if name != "blur" else (0.3, 2.0)))
    assert weak.shape == IMAGES.shape and weak.dtype == np.uint8
    away = [np.abs(found.astype(float) - IMAGES).mean() for found in (weak, strong)]
    assert 0 < away[0] < away[1]


def test_noise_is_the_same_for_everybody():
    assert np.array_equal(shifts.noise(IMAGES, 20), shifts.noise(IMAGES, 20))
    assert not np.array_equal(shifts.noise(IMAGES, 20, seed=1), shifts.noise(IMAGES, 20))


def test_strengths_are_in_pixel_values():
    grey = np.full((20, 32, 32, 3), 128, np.uint8)
    away = shifts.noise(grey, 20).astype(float) - 128
    assert away.std() == pytest.approx(20, rel=0.02) and abs(away.mean()) < 0.5
    assert (shifts.brightness(grey, 30) == 158).all() and (shifts.brightness(grey, -30) == 98).all()


def test_blur_mixes_neither_images_nor_colours():
    images = np.zeros((2, 8, 8, 3), np.uint8)
    images[0, :, :, 0] = 200
    assert np.array_equal(shifts.blur(images, 2.0), images)


def test_brightness_is_cut_off():
    assert shifts.brightness(IMAGES, 300).min() == 255 and shifts.brightness(IMAGES, -300).max() == 0


def test_long_tail_falls_geometrically_and_leaves_the_tests_alone():
    data = datasets.load("digits")
    tail, other = (shifts.long_tail(data, most=80, ratio=16, seed=seed) for seed in (0, 1))
    np.testing.assert_array_equal(np.bincount(tail.train.labels), np.rint(80 * 16 ** (-np.arange(10) / 9)))
    whole = data.few(80, seed=0)
    drawn, redrawn, among = ({image.tobytes() for image in held.train.images} for held in (tail, other, whole))
    assert drawn < among and drawn != redrawn
    assert tail.val is data.val and tail.test is data.test
    with pytest.raises(ValueError, match="ratio"):
        shifts.long_tail(data, most=10, ratio=20, seed=0)


def test_cutout_paints_one_square_an_image():
    recipe = recipes.Recipe(cutout=8)
    painted = augment(IMAGES, recipe, np.random.default_rng(0))
    changed = (painted != IMAGES).any(-1)
    assert painted.dtype == np.uint8 and painted.shape == IMAGES.shape
    for image in changed:
        rows, columns = np.flatnonzero(image.any(1)), np.flatnonzero(image.any(0))
        assert 1 <= len(rows) <= 8 and np.ptp(rows) < 8 and np.ptp(columns) < 8
