"""Batches in an order that only seed and epoch decide, with augmentation drawn the same way."""

import numpy as np
from PIL import Image

from tl_helpers.recipes import Recipe
from tl_helpers.splits import Split


class Batches:
    """An epoch's batches of (images, labels) in an order that only the seed and the epoch decide.

    Random crops and flips are drawn per batch from (seed, epoch, batch), so a resumed run sees the same pixels.
    With ``pixels``, images are shrunk to that side last of all.
    """

    def __init__(self, split: Split, recipe: Recipe, seed: int, pixels: int | None = None, epoch: int = 0):
        self.images, self.labels, self.recipe = split.images, split.labels, recipe
        self.seed, self.epoch, self.pixels = seed, epoch, pixels
        self.order = np.random.default_rng([seed, epoch]).permutation(len(self.labels))

    def __len__(self) -> int:
        return -(-len(self.labels) // self.recipe.batch_size)

    def __getitem__(self, i: int):
        rows = self.order[i * self.recipe.batch_size : (i + 1) * self.recipe.batch_size]
        images = self.images[rows]
        if self.recipe.crop_padding or self.recipe.flip or self.recipe.cutout:
            images = augment(images, self.recipe, np.random.default_rng([self.seed, self.epoch, i]))
        return shrink(images, self.pixels), self.labels[rows]


def augment(images: np.ndarray, recipe: Recipe, rng: np.random.Generator) -> np.ndarray:
    """Random crops (after padding by reflection), left-right flips and painted squares; one draw an image.

    Args:
        images: (n, height, width, channels), any type.
        recipe: ``crop_padding`` in pixels, ``flip`` and ``cutout``.
        rng: where the draws come from.
    Returns:
        A new array of the same shape and type.
    """
    n, height, width, _ = images.shape
    pad = recipe.crop_padding
    if pad:
        padded = np.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)), mode="reflect")
        top, left = rng.integers(0, 2 * pad + 1, (2, n))
        rows = top[:, None, None] + np.arange(height)[None, :, None]
        columns = left[:, None, None] + np.arange(width)[None, None, :]
        images = padded[np.arange(n)[:, None, None], rows, columns]
    if recipe.flip:
        mirrored = rng.random(n) < 0.5
        images = np.where(mirrored[:, None, None, None], images[:, :, ::-1], images)
    if recipe.cutout:
        top, left = rng.integers(0, (height, width), (n, 2)).T - recipe.cutout // 2  # part of it may lie outside
        rows, columns = np.arange(height) - top[:, None], np.arange(width) - left[:, None]
        inside = [(at >= 0) & (at < recipe.cutout) for at in (rows, columns)]
        painted = inside[0][:, :, None, None] & inside[1][:, None, :, None]
        images = np.where(painted, images.mean((0, 1, 2)).astype(images.dtype), images)
    return images


def shrink(images: np.ndarray, pixels: int | None) -> np.ndarray:
    """Images (n, height, width, channels) at ``pixels`` × ``pixels``, each new pixel a mean (box filter).

    None, or the size that the images have, returns them as they are; otherwise the result is float32.
    """
    if pixels is None or images.shape[1:3] == (pixels, pixels):
        return images
    height, width = images.shape[1:3]
    down, across = (_box(side, pixels) for side in (height, width))
    return np.einsum("ph,nhwc,qw->npqc", down, images.astype(np.float32), across, optimize=True)


def _box(side: int, pixels: int) -> np.ndarray:
    """The matrix (pixels, side) that box-filters a line of ``side`` pixels."""
    return np.asarray(Image.fromarray(np.eye(side, dtype=np.float32)).resize((side, pixels), Image.Resampling.BOX))
