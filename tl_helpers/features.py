"""Features of a frozen backbone: computed once, kept on disk, found again by what they were made of."""

import hashlib
import sys
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
from tqdm import tqdm

from tl_helpers import backbones, digests, runtime, whole_files
from tl_helpers.splits import Dataset

SPLITS = ("train", "val", "test")


def extract(
    backbone: keras.Model,
    data: Dataset,
    *,
    layers: Sequence[str] | None = None,
    batch_size: int | None = None,
    progress: bool = True,
) -> Dataset | dict[str, Dataset]:
    """Every split of a data set through a backbone, once; the next call finds the features kept.

    They are kept under a name made of the images' bytes, the weights now in the model, its layers with their settings
    (preprocessing and resolution among them) and the layer taken: when one of these changes, so does the name.
    Labels, the test set's included, are passed on and never looked at.

    Args:
        backbone: pixels 0-255 in, features out (``backbones.build``).
        data: a ``datasets.Dataset`` of images.
        layers: names of layers to take instead of the output, each averaged over height and width; one pass for all.
        batch_size: images at a time (default: 512 of 32 pixels, fewer where the network's maps are larger).
        progress: show a progress bar on stderr while computing.
    Returns:
        The data set with float32 features in place of the images; with ``layers``, one such data set for each of them.
    Raises:
        ValueError: images that are not RGB pixels 0-255, too small for the network, or an unknown layer.
    """
    splits = {name: split for name in SPLITS if (split := getattr(data, name)) is not None}
    for split in splits.values():
        backbones.check_pixels(split.images)
    wanted = [None] if layers is None else list(dict.fromkeys(layers))
    places = {layer: None if layer is None else _place(backbone, layer) for layer in wanted}
    model_key = _model_key(backbone)
    seen = {name: digests.of_arrays(split.images) for name, split in splits.items()}
    paths = {(name, layer): _path(seen[name], model_key, places[layer]) for name in splits for layer in wanted}
    kept = {of: _read(path, len(splits[of[0]].labels)) for of, path in paths.items()}
    todo = [name for name in splits if any(kept[name, layer] is None for layer in wanted)]
    if todo:
        missing = [layer for layer in wanted if any(kept[name, layer] is None for name in todo)]
        size = batch_size or _batch_size(backbone, data.train.images.shape)
        made = _compute(_taking(backbone, missing), [splits[name].images for name in todo], size, progress)
        for layer, arrays in zip(missing, made, strict=True):
            for name, array in zip(todo, arrays, strict=True):
                kept[name, layer] = array
                _write(paths[name, layer], array)
    done = {
        layer: replace(data, **{name: replace(split, images=kept[name, layer]) for name, split in splits.items()})
        for layer in wanted
    }
    return done[None] if layers is None else done


def standardise(kept: Dataset) -> Dataset:
    """Features with mean 0 and deviation 1, both taken from the training set alone.

    A feature that hardly moves in training is divided by a tenth of the mean deviation instead of its own, so that
    it cannot explode on other images.

    Args:
        kept: a ``datasets.Dataset`` of features (n, d), as ``extract`` returns it.
    Returns:
        The data set with float32 features scaled.
    """
    mean, deviation = kept.train.images.mean(0), kept.train.images.std(0)
    deviation = np.maximum(deviation, 0.1 * deviation.mean() + np.finfo(np.float32).tiny)
    splits = {name: split for name in SPLITS if (split := getattr(kept, name)) is not None}
    return replace(kept, **{name: replace(s, images=(s.images - mean) / deviation) for name, s in splits.items()})


def _taking(backbone: keras.Model, layers: list[str | None]) -> keras.Model:
    """The backbone with these layers as outputs; None is its own output."""
    outputs = []
    for name in layers:
        if name is None:
            outputs.append(backbone.output)
        else:
            x = backbone.get_layer(name).output
            outputs.append(keras.layers.GlobalAveragePooling2D()(x) if len(x.shape) == 4 else x)
    return keras.Model(backbone.input, outputs)


def _place(backbone: keras.Model, name: str) -> int:
    """Where a layer stands among the backbone's layers."""
    known = [layer.name for layer in backbone.layers]
    if name not in known:
        raise ValueError(
            f"layers must be names of layers of {backbone.name}. Received: {name!r}; it has {', '.join(known)}"
        )
    return known.index(name)


def _batch_size(model: keras.Model, images: tuple[int, ...]) -> int:
    """As many images as have maps of the size that 512 images of 32 pixels have."""
    shapes = [images, *(out.shape for layer in model.layers for out in keras.tree.flatten(layer.output))]
    places = [shape[1] * shape[2] for shape in shapes if len(shape) == 4 and shape[1] and shape[2]]
    return int(np.clip(512 * 32 * 32 // max(places), 16, 512))


def _compute(model: keras.Model, images: list[np.ndarray], batch_size: int, progress: bool) -> list[list[np.ndarray]]:
    """One pass over all splits as if they were one array, so that only the very last batch is a partial one.

    Returns:
        For each output of the model, one array a split. The results are written where they stay; nothing is collected.
    """
    starts = np.cumsum([0, *map(len, images)])
    total, results = int(starts[-1]), None
    batch_size = min(batch_size, total)
    with tqdm(
        total=total, unit="image", desc="features", file=sys.stderr, disable=not progress, leave=False, mininterval=0.5
    ) as bar:
        for start in range(0, total, batch_size):
            batch = _rows(images, starts, start, start + batch_size)
            count = len(batch)
            if count < batch_size:  # filled up: another batch shape would be compiled anew
                batch = np.concatenate([batch, np.repeat(batch[-1:], batch_size - count, axis=0)])
            outputs = keras.tree.flatten(model.predict_on_batch(batch))
            if results is None:
                results = [np.empty((total, *output.shape[1:]), np.float32) for output in outputs]
            for result, output in zip(results, outputs, strict=True):
                result[start : start + count] = output[:count]
            bar.update(count)
    return [[result[a:b] for a, b in zip(starts[:-1], starts[1:], strict=True)] for result in results]


def _rows(images: list[np.ndarray], starts: np.ndarray, start: int, stop: int) -> np.ndarray:
    parts = [
        array[max(start - first, 0) : stop - first]
        for array, first in zip(images, starts[:-1], strict=True)
        if stop > first
    ]
    parts = [part for part in parts if len(part)]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _model_key(model: keras.Model) -> str:
    """What the model computes: its structure and all its weights."""
    told = digests.structure(model).replace('"trainable": true', '"trainable": false')  # the same, frozen or not
    return hashlib.sha256((told + backbones.weights_hash(model)).encode()).hexdigest()


def _path(images_digest: str, model_key: str, place: int | None) -> Path:
    """The file of one layer's features; by its place, since the model's key does not know layers by name."""
    layer = None if place is None else f"#{place}"
    name = hashlib.sha256(f"{images_digest} {model_key} {layer}".encode()).hexdigest()[:40]
    return runtime.cache_folder() / "features" / f"{name}.npz"


def _read(path: Path, count: int) -> np.ndarray | None:
    """The kept features, or None; reading checks the file's own checksum."""
    try:
        with np.load(path, allow_pickle=False) as file:
            features = file["features"]
        if len(features) != count:
            raise ValueError(f"{len(features)} rows instead of {count}")
        return features
    except FileNotFoundError:  # not kept yet, or taken away by another process just now
        return None
    except (*whole_files.DAMAGE, OSError) as error:
        print(f"kept features {path.name} are damaged ({error}); computing them again", file=sys.stderr)
        return None


def _write(path: Path, features: np.ndarray) -> None:
    """Keep features under their final name only when they are whole; without room for them, go on without."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        whole_files.tidy(path.parent)
        with whole_files.whole(path) as file:
            np.savez(file, features=features)
    except OSError as error:
        warnings.warn(
            f"the features cannot be kept in {path.parent} ({error}); they will be computed again next time. "
            "Make room there, or set TL_CACHE to a folder of yours",
            stacklevel=3,
        )
