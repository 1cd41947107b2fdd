"""What may differ between the training set and the world: noise, blur and light in the images, rarity of classes."""

from dataclasses import replace

import numpy as np
from scipy import ndimage

from tl_helpers.datasets import Dataset


def noise(images: np.ndarray, deviation: float, seed: int = 0) -> np.ndarray:
    """Gaussian noise on every pixel and colour.

    Args:
        images: (n, height, width, channels), pixels 0-255.
        deviation: of the noise, in pixel values 0-255.
        seed: decides the noise, the same for every model that is compared.
    Returns:
        uint8 images of the same shape.
    """
    drawn = np.random.default_rng(seed).normal(0, deviation, images.shape)
    return _pixels(images + drawn)


def blur(images: np.ndarray, width: float) -> np.ndarray:
    """Gaussian blur.

    Args:
        images: (n, height, width, channels), pixels 0-255.
        width: standard deviation of the blur, in pixels.
    Returns:
        uint8 images of the same shape.
    """
    return _pixels(ndimage.gaussian_filter(images.astype(np.float32), (0, width, width, 0), mode="nearest"))


def brightness(images: np.ndarray, shift: float) -> np.ndarray:
    """Every pixel raised by ``shift`` (pixel values 0-255), or lowered by a negative one; what leaves 0-255 is cut off."""
    return _pixels(images.astype(np.float32) + shift)


CORRUPTIONS = {"noise": noise, "blur": blur, "brightness": brightness}
"""Name to function of images and strength, after three of the kinds in Hendrycks & Dietterich (2019); own strengths."""


def long_tail(data: Dataset, most: int, ratio: float, seed: int) -> Dataset:
    """Training classes that get rarer and rarer: ``most`` examples of the first, ``most / ratio`` of the last.

    Args:
        data: validation and test stay as they are.
        most: examples of the commonest class.
        ratio: how many times as many as of the rarest, at least 1; the counts between fall geometrically.
        seed: decides which examples are drawn; the examples of ``data.few(most, seed)`` that are left.
    Returns:
        The data set with fewer training examples; class 0 is the commonest.
    Raises:
        ValueError: a ratio below 1, or so large that a class would have no example.
    """
    if not 1 <= ratio <= most:
        raise ValueError(f"ratio must be from 1 to most={most}. Received: {ratio}")
    classes = len(data.class_names)
    counts = np.rint(most * ratio ** -np.linspace(0, 1, classes)).astype(int)
    order = np.random.RandomState(seed).permutation(len(data.train))
    drawn = [order[data.train.labels[order] == c][:count] for c, count in enumerate(counts)]
    if any(len(rows) < count for rows, count in zip(drawn, counts, strict=True)):
        raise ValueError(f"most must not exceed the examples of a class. Received: {most}")
    return replace(data, train=data.train.take(np.sort(np.concatenate(drawn))))


def _pixels(images: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(images), 0, 255).astype(np.uint8)
