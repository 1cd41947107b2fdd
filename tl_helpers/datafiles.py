"""What readers of data files share: addresses, hashes, and checks of images and labels."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tl_helpers import downloads
from tl_helpers.downloads import DataRefused, DataUnavailable
from tl_helpers.whole_files import DAMAGE


@dataclass(frozen=True)
class RemoteFile:
    """A file that can be downloaded: the arguments of ``downloads.fetch``."""

    name: str
    urls: tuple[str, ...]
    sha256: str
    megabytes: float | None = None
    terms: str | None = None

    def fetch(self, *, download: bool = True, progress: bool = True) -> Path:
        """Its path; with ``download=False`` only ``TL_DATA`` and the cache are searched."""
        if download:
            return downloads.fetch(
                self.name, self.urls, self.sha256, megabytes=self.megabytes, terms=self.terms, progress=progress
            )
        found = downloads.find(self.name, self.sha256, urls=self.urls)
        if found is None:
            raise DataUnavailable(f"{self.name} is neither in TL_DATA nor in the cache.\n{self.instructions()}")
        return found

    def instructions(self) -> str:
        """How to place it by hand."""
        return downloads.how_to_place(self.name, self.urls, self.sha256)


@dataclass(frozen=True)
class Found:
    """Arrays of a whole data set, the copy they are, and their hash (``arrays_sha256``)."""

    arrays: dict[str, np.ndarray]
    copy: str
    sha256: str


def arrays_sha256(arrays: dict[str, np.ndarray]) -> str:
    """One hash of named arrays: names, shapes and values; the order of the names does not matter."""
    whole = hashlib.sha256()
    for name in sorted(arrays):
        array = np.asarray(arrays[name])
        array = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        whole.update(f"{name} {array.dtype.str} {array.shape};".encode())
        whole.update(array.reshape(-1).view(np.uint8))
    return whole.hexdigest()


def read_npz(path: Path, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Arrays of an ``.npz`` placed by hand; nothing in it is executed (no pickles).

    Raises:
        DataRefused: truncated, damaged, no ``.npz``, or an array is missing.
    """
    try:
        with np.load(path, allow_pickle=False) as kept:
            missing = [name for name in names if name not in kept.files]
            if not missing:
                return {name: kept[name] for name in names}
            held = ", ".join(kept.files) or "nothing"
    except (*DAMAGE, OSError) as error:
        raise DataRefused(
            f"{path} cannot be read as an .npz file: truncated or damaged ({error}). Place it there again, or remove it"
        ) from error
    raise DataRefused(f"{path} must hold the arrays {', '.join(names)}. Received: {held}")


def flat_labels(labels: np.ndarray, what: str) -> np.ndarray:
    """Integer labels (N,) as int32; (N, 1) is flattened.

    Raises:
        DataRefused: one-hot or otherwise shaped labels, or labels that are not whole numbers.
    """
    labels = np.asarray(labels)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1:
        hint = " One-hot labels become integers with labels.argmax(-1)." if labels.ndim == 2 else ""
        raise DataRefused(
            f"{what} must be integer labels of shape (N,) or (N, 1).{hint} Received: shape {labels.shape}"
        )
    if labels.dtype.kind not in "iu":
        raise DataRefused(f"{what} must be integers. Received: {labels.dtype}")
    return labels.astype(np.int32)


def check_images(images: np.ndarray, what: str, size: int | None = None) -> np.ndarray:
    """Refuse images that are not uint8 RGB (N, height, width, 3), or not of the size asked for.

    Raises:
        DataRefused: grey, float or of another size; the message says how to convert them.
    """
    wanted = f"(N, {size}, {size}, 3)" if size else "(N, height, width, 3)"
    if images.ndim == 3 or (images.ndim == 4 and images.shape[-1] == 1):
        hint = "Grey images become RGB with np.repeat(images.reshape(*images.shape[:3], 1), 3, axis=-1)"
    elif images.ndim != 4 or images.shape[-1] != 3:
        hint = "Channels come last, and there are three"
    elif size is not None and images.shape[1:3] != (size, size):
        hint = f"They are {images.shape[1]} x {images.shape[2]} pixels; resize them"
    elif images.dtype != np.uint8:
        hint = "Floats 0-1 become pixels with (images * 255).round().astype('uint8')"
    else:
        return images
    raise DataRefused(
        f"{what} must be uint8 RGB images 0-255 of shape {wanted}. {hint}. Received: {images.dtype} {images.shape}"
    )


def read_by_hand(path: Path, names: tuple[str, ...], size: int) -> dict[str, np.ndarray]:
    """Arrays of an ``.npz`` placed by hand: ``x_...`` checked as images of that side, ``y_...`` as labels.

    Raises:
        DataRefused: see ``read_npz``, ``check_images`` and ``flat_labels``.
    """
    arrays = read_npz(path, names)
    for name in names:
        if name.startswith("x_"):
            arrays[name] = check_images(arrays[name], f"{name} in {path.name}", size)
        elif name.startswith("y_"):
            arrays[name] = flat_labels(arrays[name], f"{name} in {path.name}")
    return arrays
