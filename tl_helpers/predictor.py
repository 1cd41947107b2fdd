"""A trained model as one file: ``save`` it with its class names, ``load`` it, ``predict``, ``export`` it."""

import itertools
import json
import tempfile
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from tl_helpers import finetuning, losses, optimizers, picture_files, preprocessing

# Classes of this package that a saved model may name; Keras finds them only where their modules are imported.
SAVED = (preprocessing.Preprocessing, finetuning.FeatureLead, losses.SmoothedCrossEntropy, optimizers.Schedule)
LAYER = "classes"
NAMES, READING = "class_names.txt", "reading.json"
EXPORTED = {"saved_model.pb", "fingerprint.pb", "keras_metadata.pb", "variables", "assets", NAMES, READING}
"""What an export's folder may hold."""


@keras.saving.register_keras_serializable("tl_helpers")
class Classes(keras.layers.Layer):
    """Passes logits on unchanged, and carries what belongs to them: the class names, and how pictures are read.

    Args:
        class_names: one for each logit.
        pixels, fit: how a picture is brought to the model's input, as in ``pictures.read``.
    """

    def __init__(self, class_names, pixels: int = 32, fit: str = "crop", dtype="float32", **kwargs):
        super().__init__(dtype=dtype, **kwargs)
        # A NumPy number would not go into an export's JSON.
        self.class_names, self.pixels, self.fit = tuple(class_names), int(pixels), fit

    def call(self, logits):
        return logits

    def get_config(self):
        own = {"class_names": list(self.class_names), "pixels": self.pixels, "fit": self.fit}
        return {**super().get_config(), **own}


class Diverged(ValueError):
    """A model whose weights are no numbers any more; the message says what to do."""


@dataclass(frozen=True, eq=False)
class Predictor:
    """A model that takes pictures as files.

    Attributes:
        model: pixels 0-255 (n, pixels, pixels, 3) in, logits (n, classes) out.
        class_names: one for each logit.
        pixels, fit: how a picture is read.
    """

    model: keras.Model
    class_names: tuple[str, ...]
    pixels: int
    fit: str

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Images (n, pixels, pixels, 3), 0-255, to probabilities (n, classes).

        Raises:
            Diverged: the model's outputs are NaN or infinite.
        """
        logits = np.asarray(self.model.predict_on_batch(np.asarray(images, "float32")), np.float64)
        highest = logits.max(-1, keepdims=True)
        if not np.isfinite(highest).all():
            raise Diverged(
                "the model gives no numbers (NaN): its training diverged; train it again with a smaller learning rate, "
                "and save that one"
            )
        powers = np.exp(logits - highest)
        return powers / powers.sum(-1, keepdims=True)

    def predict(self, source: Path | str | bytes, top: int = 3) -> dict:
        """Which of its classes the model sees in one picture file (or its bytes).

        Returns:
            ``{"top": [{"class", "probability"}, ...], "notes": [...]}``, the likeliest class first. The probability is the
            model's stated confidence, right as often as its calibration is good; it knows no "none of these".
        Raises:
            PictureRefused: it is no picture that can be read.
            Diverged: the model gives no numbers.
        """
        image, notes = picture_files.read(source, pixels=self.pixels, fit=self.fit)
        found = self.probabilities(image[None])[0]
        order = np.argsort(-found, kind="stable")[: max(1, top)]
        return {
            "top": [{"class": self.class_names[i], "probability": float(found[i])} for i in order],
            "notes": notes,
        }


def save(
    model: keras.Model, path: Path | str, class_names: Sequence[str], *, pixels: int = 32, fit: str = "crop"
) -> Predictor:
    """Write a model into one ``.keras`` file, with its class names and the way its pictures are read.

    The file is written whole or not at all: an earlier one of that name stays until the new one is there.

    Args:
        model: pixels 0-255 in, logits (n, classes) out. It may be a ``Predictor``'s, to be saved anew.
        path: a file that ends in ``.keras``.
        class_names: one for each logit.
        pixels, fit: how the training pictures were read: what ``pictures.load_folder`` was given. A model cannot tell.
    Returns:
        The ``Predictor`` that a later ``load`` gives.
    Raises:
        ValueError: another ending, a wrong number of names, no possible choice of ``pixels`` or ``fit``, or pictures of
            another size than the model's input, where the model has only one (the course's backbones take any).
    """
    pixels = picture_files.check_reading(pixels, fit)
    path = Path(path)
    if path.suffix != ".keras":
        raise ValueError(f"a model is saved into a file that ends in .keras. Received: {path.name}")
    images, logits, name = _unnamed(model)
    if logits.shape[-1] != len(class_names):
        raise ValueError(
            f"class_names must name every output. Received: {len(class_names)} names for {logits.shape[-1]} outputs"
        )
    sides = set(images.shape[1:3]) - {None}
    if sides - {pixels}:
        raise ValueError(f"pixels must be the side of the model's input, {max(sides)}. Received: {pixels}")
    whole = keras.Model(images, Classes(class_names, pixels, fit, name=name)(logits), name=model.name)
    target = path.resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    # Keras writes only to a name that ends in .keras: a folder beside the target holds the draft.
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.", ignore_cleanup_errors=True) as draft:
        whole.save(Path(draft) / "new.keras")
        (Path(draft) / "new.keras").replace(target)
    return _predictor(whole)


def _unnamed(model: keras.Model) -> tuple:
    """A model's images and logits, without the ``Classes`` of an earlier ``save``, and a free name for the new layer."""
    layers, logits = list(model.layers), model.outputs[0]
    if isinstance(layers[-1], Classes):
        logits = layers.pop().input
    taken = {layer.name for layer in layers}
    names = itertools.chain([LAYER], (f"{LAYER}_{i}" for i in itertools.count(1)))
    return model.inputs[0], logits, next(name for name in names if name not in taken)


def load(path: Path | str) -> Predictor:
    """The predictor in a ``.keras`` file written by ``save``; on any Keras backend.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no such file, or is damaged.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no such model file: {path}. Expected a .keras file written by predictor.save")
    try:
        return _predictor(keras.saving.load_model(path, compile=False))
    except (ValueError, TypeError, KeyError, OSError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(
            f"{path} must be a .keras file written by predictor.save. Received: {_reason(error)}"
        ) from error


def _reason(error: Exception) -> str:
    """What Keras stumbled over, in its own words. It wraps that in errors around it, and adds whole configurations."""
    inner = str(error).split("Exception encountered: ")[-1].split(" Full object config:")[0].strip()
    return inner.splitlines()[0] if inner else type(error).__name__


def _predictor(model: keras.Model) -> Predictor:
    classes = next((layer for layer in model.layers if isinstance(layer, Classes)), None)
    if classes is None:
        raise ValueError("a model without class names; write it with predictor.save")
    return Predictor(model, classes.class_names, classes.pixels, classes.fit)


def export(predictor: Predictor, folder: Path | str) -> Path:
    """Write the model as a TensorFlow SavedModel, which runs without Keras and without this package.

    Its endpoint ``serve`` takes pixels 0-255, RGB, as float32 (n, pixels, pixels, 3), and gives logits (n, classes); their
    softmax are the probabilities. Beside it lie ``class_names.txt``, one a line, and ``reading.json``: ``pixels`` and
    ``fit``, by which a file becomes such a picture (as in ``pictures.read``). An earlier export in the same folder is
    replaced once the new one is whole.

    Returns:
        The folder.
    Raises:
        RuntimeError: Keras runs on another backend than TensorFlow.
        ValueError: the folder holds something that is no part of an export.
    """
    folder = Path(folder)
    target = folder.resolve()
    if keras.backend.backend() != "tensorflow":
        raise RuntimeError(
            f"export needs the TensorFlow backend. Received: {keras.backend.backend()}. Save the model, start Python "
            "again with KERAS_BACKEND=tensorflow, load it, and export it there: a .keras file suits every backend"
        )
    held = {path.name for path in target.iterdir()} if target.exists() else set()
    if held and (held - EXPORTED or "saved_model.pb" not in held):
        raise ValueError(
            f"{folder} must be empty, new, or an earlier export. Received: a folder with other files "
            f"({', '.join(sorted(held - EXPORTED or held)[:5])}); name another folder"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.", ignore_cleanup_errors=True) as draft:
        new, old = Path(draft) / "new", Path(draft) / "old"
        predictor.model.export(new, format="tf_saved_model", verbose=False)
        (new / NAMES).write_text("\n".join(predictor.class_names) + "\n", encoding="utf-8")
        reading = {"pixels": predictor.pixels, "fit": predictor.fit}
        (new / READING).write_text(json.dumps(reading) + "\n", encoding="utf-8")
        if target.exists():
            target.rename(old)
        try:
            new.rename(target)
        except OSError:
            if old.exists():
                old.rename(target)
            raise
    return folder


def run_exported(folder: Path | str, images: np.ndarray) -> np.ndarray:
    """Logits (n, classes) of an exported model for images (n, pixels, pixels, 3), to compare with the original's.

    Needs TensorFlow, as every use of a SavedModel does.
    """
    served = keras.layers.TFSMLayer(str(folder), call_endpoint="serve")
    return np.asarray(served(np.asarray(images, "float32")))
