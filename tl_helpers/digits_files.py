"""scikit-learn's handwritten digits as arrays of the course's size."""

import functools
from dataclasses import dataclass

import numpy as np

from tl_helpers.datafiles import Found, arrays_sha256, flat_labels


@dataclass(frozen=True)
class Digits:
    """Handwritten digits inside scikit-learn (UCI): 8 x 8 grey values 0-16, brought to 32 x 32 RGB 0-255."""

    def read(self, *, download: bool = True) -> Found:
        """The arrays ``x`` (1797, 32, 32, 3) uint8 and ``y`` (1797,) int32."""
        from sklearn.datasets import load_digits

        grey, labels = load_digits(return_X_y=True)
        arrays = {"x": enlarge_digits(grey.reshape(-1, 8, 8)), "y": flat_labels(labels, "digits")}
        return Found(arrays, "embedded", arrays_sha256(arrays))


def enlarge_digits(grey: np.ndarray) -> np.ndarray:
    """Grey images (N, 8, 8) of whole numbers 0-16 as (N, 32, 32, 3) uint8 0-255, bilinear and exact."""
    rows = _bilinear_eighths()
    sums = np.einsum("ia,nab,jb->nij", rows, grey.astype(np.int64), rows)  # 64ths of a grey value
    pixels = (sums * 255 + 512) // (64 * 16)
    return np.repeat(pixels.astype(np.uint8)[..., None], 3, axis=-1)


@functools.cache
def _bilinear_eighths() -> np.ndarray:
    """(32, 8) weights in eighths that enlarge 8 samples four times, pixel centres aligned, edges repeated."""
    weights = np.zeros((32, 8), np.int64)
    for i in range(32):
        eighths = 2 * i + 1 - 4  # position of the pixel's centre, from the first sample's centre
        low, share = eighths // 8, eighths % 8
        weights[i, max(low, 0)] += 8 - share
        weights[i, min(low + 1, 7)] += share
    return weights
