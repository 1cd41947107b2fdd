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

from tl_helpers import results, runtime, whole_files

SAVE_EVERY_SECONDS = 60.0


def key(run: results.Run) -> dict:
    """All that decides a run and can be told without training; the commit is not part of it."""
    names = ("experiment", "arm", "pair", "seed", "recipe", "backbone", "weights", "data", "split")
    told = {name: getattr(run, name) for name in names} | {"scale": runtime.scale(), "versions": runtime.versions()}
    return json.loads(json.dumps(told, sort_keys=True))  # as it comes back from a file: tuples are lists


def default_path(run: results.Run) -> Path:
    """A file in the cache folder, named after all that decides the run."""
    name = hashlib.sha256(json.dumps(key(run), sort_keys=True).encode()).hexdigest()[:20]
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
        path: a file of the reader's; None takes ``default_path``.
    """

    def __init__(self, model: keras.Model, run: results.Run, path: Path | None = None):
        self.model, self.run, self.path, self.given = model, run, path or default_path(run), path is not None
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
        arrays = {f"v{i}": np.asarray(ops.convert_to_numpy(v)) for i, v in enumerate(self.variables())}
        arrays |= {f"b{i}": w for i, w in enumerate(self.best or [])}
        note = {
            "history": self.run.history,
            "best_loss": self.best_loss,
            "waited": self.waited,
            "stopped": self.stopped,
            "seconds": self.run.elapsed(),
            "started": self.run.started.isoformat(),
            "key": key(self.run),
            "code": results._commit(),
        }
        arrays["note"] = np.frombuffer(json.dumps(note).encode(), np.uint8)
        with whole_files.whole(self.path) as file:
            np.savez(file, **arrays)

    def restore(self) -> int:
        """Load the checkpoint if there is one.

        Returns:
            The number of epochs already done.
        Raises:
            ValueError: the file that the reader named holds something else; nothing is loaded then.
        """
        if not self.path.exists():
            return 0
        try:
            with np.load(self.path) as kept:
                arrays = {name: kept[name] for name in kept.files}
        except Exception as error:  # a file cut short by a full disk or a killed copy: begin again
            print(f"the checkpoint {self.path.name} cannot be read ({error}); starting this run anew")
            self.path.unlink(missing_ok=True)
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
        if note["code"] != results._commit():
            print(
                f"the checkpoint was written by {_code(note['code'])}; this run goes on with {_code(results._commit())}"
            )
        self.best = best or None
        self.run.history = note["history"]
        self.best_loss, self.waited, self.stopped = note["best_loss"], note["waited"], note["stopped"]
        self.run.seconds_before = note["seconds"]
        self.run.started = datetime.fromisoformat(note["started"])
        return len(self.run.history)

    def _unlike(self, note: dict, values: list[np.ndarray], best: list[np.ndarray]) -> str | None:
        """What a checkpoint holds that this run cannot go on from; None where all of it fits."""
        if "key" not in note:
            return "no state of a run, or one kept by an earlier version of this package"
        kept, mine = note["key"], key(self.run)
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


def _numbered(arrays: dict[str, np.ndarray], letter: str) -> list[np.ndarray]:
    """The arrays ``v0``, ``v1`` ... in their order."""
    count = sum(name[0] == letter and name[1:].isdigit() for name in arrays)
    return [arrays[f"{letter}{i}"] for i in range(count) if f"{letter}{i}" in arrays]


def _code(known: dict) -> str:
    """A commit as a sentence names it."""
    return f"commit {str(known['commit'])[:10]}" + (" with uncommitted changes" if known["dirty"] else "")
