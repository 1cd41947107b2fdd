"""The state of a training run in one file, so that an interrupted run ends as an uninterrupted one would."""

import contextlib
import hashlib
import json
import time
import warnings
from datetime import datetime
from pathlib import Path

import keras
import numpy as np
from keras import ops

from tl_helpers import digests, results, runtime, whole_files
from tl_helpers.splits import Dataset

SAVE_EVERY_SECONDS = 60.0


def key(run: results.Run, model: "keras.Model | None" = None, data: Dataset | None = None) -> dict:
    """All that decides a run and can be told without training; the commit is not part of it.

    Two runs of one name may see other pictures of one data set, or train another network: ``model`` and ``data`` tell.
    """
    names = ("experiment", "arm", "pair", "seed", "recipe", "backbone", "weights", "data", "split")
    told = {name: getattr(run, name) for name in names} | {"scale": runtime.scale(), "versions": runtime.versions()}
    if model is not None:
        told["network"] = hashlib.sha256(digests.structure(model).encode()).hexdigest()
    if data is not None:
        arrays = (part for split in (data.train, data.val) for part in (split.images, split.labels))
        told["examples"] = digests.of_arrays(*arrays)
    return json.loads(json.dumps(told, sort_keys=True))  # as it comes back from a file: tuples are lists


def default_path(known: dict) -> Path:
    """A file in the cache folder, named after all that decides the run (its ``key``)."""
    name = hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:20]
    return runtime.cache_folder() / "checkpoints" / f"{name}.npz"


def forget(path: Path) -> None:
    """Remove a checkpoint."""
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)


class State:
    """What a resumed run needs: weights, optimizer, random layers, history; kept in one file.

    Args:
        model: compiled.
        run: the run that trains it.
        data: what it is trained and validated on.
        path: a file of the reader's; None takes ``default_path``.
    """

    def __init__(self, model: keras.Model, run: results.Run, data: Dataset, path: Path | None = None):
        self.model, self.run, self.key, self.given = model, run, key(run, model, data), path is not None
        self.path = path or default_path(self.key)
        self.best, self.best_loss, self.waited = None, np.inf, 0
        self.stopped, self.before = False, 0.0
        self.saved_at = time.monotonic()

    def variables(self) -> list:
        """All that training changes: weights, statistics, states of random layers, the optimizer's variables."""
        if not self.model.optimizer.built:
            self.model.optimizer.build(self.model.trainable_variables)
        own = [*self.model.weights, *(v for v in self.model.variables if "seed_generator" in v.path)]
        return [*own, *self.model.optimizer.variables]

    def save(self) -> None:
        """Write the checkpoint, whole or not at all; without room for it, warn and let training go on."""
        try:
            self._write()
        except OSError as error:
            warnings.warn(
                f"the checkpoint cannot be kept in {self.path.parent} ({error}): training goes on, but begins anew if it "
                "is interrupted. Make room there, or set TL_CACHE to a folder of yours",
                stacklevel=2,
            )
        self.saved_at = time.monotonic()

    def _write(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # A folder of the reader's may hold half-written files of other programs.
        whole_files.tidy(self.path.parent, f"{self.path.name}.*.part" if self.given else "*.part")
        arrays = {f"v{i}": _plain(ops.convert_to_numpy(v)) for i, v in enumerate(self.variables())}
        arrays |= {f"b{i}": _plain(w) for i, w in enumerate(self.best or [])}
        note = {
            "history": self.run.history,
            "best_loss": self.best_loss,
            "waited": self.waited,
            "stopped": self.stopped,
            "seconds": self.run.elapsed(),
            "started": self.run.started.isoformat(),
            "key": self.key,
            "code": self.run.code,
            "codes_before": self.run.codes_before,
        }
        arrays["note"] = np.frombuffer(json.dumps(note).encode(), np.uint8)
        with whole_files.whole(self.path) as file:
            np.savez(file, **arrays)

    def restore(self) -> int:
        """Load the checkpoint if there is one.

        Returns:
            The number of epochs already done.
        Raises:
            ValueError: the file that the reader named holds something else, or cannot be read; it is left as it is.
            OSError: the checkpoint in the cache folder is there but cannot be reached now (a network disk, say).
        """
        arrays = self._read() if self.path.exists() else None
        if arrays is None:
            return 0
        note = json.loads(arrays["note"].tobytes()) if "note" in arrays else {}
        values, best = _numbered(arrays, "v"), _numbered(arrays, "b")
        if wrong := self._unlike(note, values, best):
            if self.given:
                raise ValueError(
                    f"the checkpoint must be of this run. Received: {self.path}; this file holds {wrong}; "
                    "remove it or name another"
                )
            print(f"the checkpoint {self.path.name} holds {wrong}; starting this run anew")
            return 0
        for variable, value in zip(self.variables(), values, strict=True):
            variable.assign(value)
        self.run.codes_before = note.get("codes_before", [])
        if note["code"] != self.run.code:
            self.run.codes_before.append(note["code"])
            print(f"the checkpoint was written by {_code(note['code'])}; this run goes on with {_code(self.run.code)}")
        self.best = best or None
        self.run.history = note["history"]
        self.best_loss, self.waited, self.stopped = note["best_loss"], note["waited"], note["stopped"]
        self.run.seconds_before = note["seconds"]
        self.run.started = datetime.fromisoformat(note["started"])
        return len(self.run.history)

    def _read(self) -> dict[str, np.ndarray] | None:
        """All arrays of the file; None where a checkpoint of our own is damaged. No file is removed."""
        try:
            with np.load(self.path) as kept:
                return {name: kept[name] for name in kept.files}
        except (*whole_files.DAMAGE, OSError) as error:
            if self.given:
                raise ValueError(
                    f"the checkpoint must be a file that training wrote. Received: {self.path}, which cannot be read as "
                    f"one ({error}); name another"
                ) from error
            if isinstance(error, OSError):
                raise
            print(f"the checkpoint {self.path.name} cannot be read ({error}); starting this run anew")
            return None

    def _unlike(self, note: dict, values: list[np.ndarray], best: list[np.ndarray]) -> str | None:
        """What a checkpoint holds that this run cannot go on from; None where all of it fits."""
        if "key" not in note:
            return "no state of a run, or one kept by an earlier version of this package"
        kept, mine = note["key"], self.key
        if kept != mine:
            other = ", ".join(name for name in mine if kept.get(name) != mine[name])
            return f"the state of {kept['experiment']} / {kept['arm']} / seed {kept['seed']} (another {other})"
        expected = [tuple(variable.shape) for variable in self.variables()]
        if [value.shape for value in values] != expected:
            return f"the state of another model ({len(values)} arrays, or other shapes; this one has {len(expected)})"
        if best and [value.shape for value in best] != [tuple(weight.shape) for weight in self.model.weights]:
            return f"the best weights of another model ({len(best)} arrays, or other shapes)"
        return None

    def finish(self) -> None:
        """Training is over: the best weights, where they were asked for, and a last checkpoint of a long run."""
        if self.best is not None:
            self.model.set_weights(self.best)
        if self.path.exists():  # a run long enough to be kept stays whole until its record is written
            self.best = None
            self.save()


def _plain(value) -> np.ndarray:
    """An array that a file can hold: NumPy writes 16-bit brain floats but cannot read them."""
    value = np.asarray(value)
    return value.astype(np.float32) if value.dtype.name == "bfloat16" else value


def _numbered(arrays: dict[str, np.ndarray], letter: str) -> list[np.ndarray]:
    """The arrays ``v0``, ``v1`` ... in their order."""
    count = sum(name[0] == letter and name[1:].isdigit() for name in arrays)
    return [arrays[f"{letter}{i}"] for i in range(count) if f"{letter}{i}" in arrays]


def _code(known: dict) -> str:
    """A commit as a sentence names it."""
    return f"commit {str(known['commit'])[:10]}" + (" with uncommitted changes" if known["dirty"] else "")
