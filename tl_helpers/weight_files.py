"""Weight files of the backbones: embedded, official, or placed by hand; loaded into a built model."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field

import keras
import numpy as np

from tl_helpers import downloads, packing, runtime

EMBEDDED = runtime.PACKAGE / "weights" / "vgg16_tiny_imagenet_32.npz"
IMAGENET_TERMS = "ImageNet: non-commercial research and education"
_KERAS = "https://storage.googleapis.com/tensorflow/keras-applications"


@dataclass(frozen=True)
class Weights:
    """One set of weights: where it is and under which terms.

    Attributes:
        file: its file name.
        url: where it can be had; None where it comes with the package or is placed by hand.
        hash: ``sha256:...`` or ``md5:...`` of the file, or None where its publisher gives none.
        licence: the terms of use.
        resolution: height and width in pixels it was trained at.
        megabytes: the file's size in 10^6 bytes, for the message and the free room; None if not known.
        load: puts the weights into a built model; returns the SHA-256 for the record.
    """

    file: str
    url: str | None
    hash: str | None
    licence: str
    resolution: int
    load: Callable[[keras.Model, "Weights"], str] = field(repr=False)
    megabytes: float | None = None


def embedded() -> Weights:
    """The source model that comes with the package."""
    sha256 = packing.sums(EMBEDDED.parent).get(EMBEDDED.name)
    return Weights(EMBEDDED.name, None, sha256 and f"sha256:{sha256}", IMAGENET_TERMS, 32, _load_embedded)


def official(folder: str, file: str, md5: str | None, megabytes: float | None = None) -> Weights:
    """ImageNet weights as ``keras.applications`` publishes them, with the hash that Keras itself checks."""
    licence = f"terms of keras.applications; {IMAGENET_TERMS}"
    return Weights(file, f"{_KERAS}/{folder}/{file}", md5 and f"md5:{md5}", licence, 224, _load_official, megabytes)


def placed(file: str, licence: str, resolution: int) -> Weights:
    """A weight file that is only read from the folder in ``TL_DATA``."""
    return Weights(file, None, None, licence, resolution, _load_placed)


def weights_hash(model: keras.Model) -> str:
    """SHA-256 over the weights that are in a model now, moving statistics included."""
    total = hashlib.sha256()
    for value in model.get_weights():
        total.update(f"{value.shape} {value.dtype}".encode())
        total.update(np.ascontiguousarray(value).data)
    return total.hexdigest()


def _load_embedded(model: keras.Model, weights: Weights) -> str:
    packing.assign(model, packing.load(EMBEDDED))
    return packing.sums(EMBEDDED.parent)[EMBEDDED.name]


def _load_official(model: keras.Model, weights: Weights) -> str:
    """From ``TL_DATA``, else the cache, else the publisher's server."""
    algorithm, _, expected = (weights.hash or "sha256:").partition(":")
    path = downloads.fetch(
        weights.file,
        [weights.url],
        expected or None,
        algorithm=algorithm,
        megabytes=weights.megabytes,
        terms=f"Terms: {weights.licence}",
    )
    _load_file(model, path)
    return downloads.digest(path)


def _load_placed(model: keras.Model, weights: Weights) -> str:
    """Its bytes depend on the versions that wrote it, so the record takes the hash of the weights themselves."""
    folder = runtime.data_folder()
    if folder is None or not (folder / weights.file).is_file():
        where = f"not in {folder}" if folder else "TL_DATA is not set"
        raise downloads.DataUnavailable(
            f"the weights {weights.file} are only read from the folder in TL_DATA. Received: {where}. "
            'Place the file there, or use weights="imagenet" (downloaded) or weights=None (random)'
        )
    _load_file(model, folder / weights.file)
    return weights_hash(model)


def _load_file(model: keras.Model, path) -> None:
    try:
        model.load_weights(path)
    except (OSError, ValueError, KeyError, RuntimeError) as error:  # h5py meets damage with any of them
        raise downloads.DataRefused(
            f"{path} holds no weights for {model.name}: truncated, damaged or another version ({error}). "
            "Remove it and fetch it again"
        ) from error
