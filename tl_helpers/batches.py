"""Batches in an order that only seed and epoch decide, with augmentation drawn the same way."""

import keras
import numpy as np

from tl_helpers.recipes import Recipe


class Batches(keras.utils.PyDataset):
    """Batches of (images, labels) in an order that only the seed and the epoch decide.

    Random crops and flips are drawn per batch from (seed, epoch, batch), so a resumed run sees the same pixels.
    """

    def __init__(self, split, recipe: Recipe, seed: int):
        super().__init__()
        self.images, self.labels, self.recipe, self.seed = split.images, split.labels, recipe, seed
        self.start_epoch(0)

    def start_epoch(self, epoch: int) -> None:
        """Draw this epoch's order."""
        self.epoch = epoch
        self.order = np.random.default_rng([self.seed, epoch]).permutation(len(self.labels))

    def __len__(self) -> int:
        return -(-len(self.labels) // self.recipe.batch_size)

    def __getitem__(self, i: int):
        rows = self.order[i * self.recipe.batch_size : (i + 1) * self.recipe.batch_size]
        images = self.images[rows]
        if self.recipe.crop_padding or self.recipe.flip:
            images = augment(images, self.recipe, np.random.default_rng([self.seed, self.epoch, i]))
        return images, self.labels[rows]


def augment(images: np.ndarray, recipe: Recipe, rng: np.random.Generator) -> np.ndarray:
    """Random crops (after padding by reflection) and left-right flips; one draw an image.

    Args:
        images: (n, height, width, channels), any type.
        recipe: ``crop_padding`` in pixels and ``flip``.
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
    return images
