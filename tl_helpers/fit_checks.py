"""What training refuses before it begins: data, labels or a model that do not fit each other or the recipe."""

import keras
import numpy as np

from tl_helpers.preprocessing import check_input
from tl_helpers.recipes import Recipe


def check(model, data, recipe: Recipe) -> None:
    """Refuse, before a run is opened, what training would stumble over."""
    _check_labels(model, data, recipe)
    _check_images(data, recipe)
    for name, split in {"train": data.train, "val": data.val}.items():
        if not len(split.labels):
            raise ValueError(
                f"data.{name} must hold at least one example. Received: none; the sizes are {data.sizes()}"
            )
        check_input(model, split.images)


def _check_labels(model, data, recipe: Recipe) -> None:
    fits = _check_classes if recipe.loss == "classification" else _check_targets
    if recipe.loss == "classification":
        _check_logits(model)
    for name in ("train", "val"):
        fits(name, getattr(data, name).labels, _outputs(model))


def _check_logits(model) -> None:
    """Refuse a softmax at the end: the loss applies its own, and a second one hides what the network says."""
    last = model.layers[-1] if model.layers else None
    if isinstance(last, keras.layers.Softmax) or getattr(last, "activation", None) is keras.activations.softmax:
        raise ValueError(
            "the model must end in logits, for the loss applies the softmax itself. Received: a last layer "
            f"{last.name!r} with a softmax; build it with activation=None"
        )


def _check_classes(name: str, labels: np.ndarray, outputs: int | None) -> None:
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise ValueError(
            f"classification needs integer labels of shape (N,). Received: {name} labels of shape {labels.shape}, "
            f"{labels.dtype}. One-hot labels become integers with labels.argmax(-1)"
        )
    if len(labels) and (labels.min() < 0 or (outputs and labels.max() >= outputs)):
        most = f"to {outputs - 1}, one for each of the model's outputs" if outputs else "on"
        raise ValueError(
            f"labels must be from 0 {most}. Received: {name} labels from {labels.min()} to {labels.max()}. Number the "
            "classes from 0, or build the model with as many outputs as there are classes"
        )


def _check_targets(name: str, labels: np.ndarray, outputs: int | None) -> None:
    numbers = int(np.prod(labels.shape[1:]))
    if outputs and numbers != outputs:
        raise ValueError(
            f"regression needs as many numbers an example as the model has outputs ({outputs}). Received: {name} labels "
            f"of shape {labels.shape}"
        )
    if not np.isfinite(labels).all():
        wrong = int((~np.isfinite(labels)).sum())
        raise ValueError(
            f"regression needs finite labels. Received: {name} labels of which {wrong} are NaN or infinite"
        )


def _outputs(model) -> int | None:
    """How many outputs a model has; None where it does not tell before its first batch."""
    found = getattr(model, "outputs", None)
    return found[0].shape[-1] if found and len(found) == 1 else None


def _check_images(data, recipe: Recipe) -> None:
    asked = [name for name in ("crop_padding", "flip", "cutout", "stages") if getattr(recipe, name)]
    for name in ("train", "val") if asked else ():
        shape = np.shape(getattr(data, name).images)
        if len(shape) != 4:
            raise ValueError(
                f"{', '.join(asked)} need images (N, height, width, channels). Received: {name} images of shape {shape}. "
                "Features that are kept cannot be augmented: take a recipe without these, such as recipes.HEAD"
            )
