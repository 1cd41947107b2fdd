"""The state of a training run in one file, so that an interrupted run ends as an uninterrupted one would."""

import contextlib
import hashlib
import json
import os
import tempfile
import time
import warnings
from datetime import datetime
from pathlib import Path

import keras
import numpy as np
from keras import ops

from tl_helpers import results, runtime

SAVE_EVERY_SECONDS = 60.0


def default_path(run: results.Run) -> Path:
    """A file in the cache folder, named after all that decides the run."""
    told = json.dumps(
        [run.experiment, run.arm, run.pair, run.seed, run.recipe, run.weights, run.data, run.split, runtime.scale()],
        sort_keys=True,
    )
    name = hashlib.sha256(told.encode()).hexdigest()[:20]
    return runtime.cache_folder() / "checkpoints" / f"{name}.npz"


class State:
    """What a resumed run needs: weights, optimizer, random layers, history; kept in one file."""

    def __init__(self, model: keras.Model, run: results.Run, path: Path):
        self.model, self.run, self.path = model, run, path
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
        arrays = {f"v{i}": np.asarray(ops.convert_to_numpy(v)) for i, v in enumerate(self.variables())}
        arrays |= {f"b{i}": w for i, w in enumerate(self.best or [])}
        note = {
            "history": self.run.history,
            "best_loss": self.best_loss,
            "waited": self.waited,
            "stopped": self.stopped,
            "seconds": self.run.elapsed(),
            "started": self.run.started.isoformat(),
        }
        arrays["note"] = np.frombuffer(json.dumps(note).encode(), np.uint8)
        with tempfile.NamedTemporaryFile(dir=self.path.parent, suffix=".part", delete=False) as file:
            try:
                np.savez(file, **arrays)
            except BaseException:
                file.close()
                os.unlink(file.name)
                raise
        os.replace(file.name, self.path)

    def restore(self) -> int:
        """Load the checkpoint if there is one; the number of epochs already done."""
        if not self.path.exists():
            return 0
        try:
            with np.load(self.path) as kept:
                note = json.loads(kept["note"].tobytes())
                values = [kept[f"v{i}"] for i in range(len(self.variables()))]
                self.best = [kept[f"b{i}"] for i in range(sum(k.startswith("b") for k in kept.files))] or None
        except Exception as error:  # a file cut short by a full disk or a killed copy: begin again
            print(f"the checkpoint {self.path.name} cannot be read ({error}); starting this run anew")
            self.path.unlink(missing_ok=True)
            return 0
        for variable, value in zip(self.variables(), values, strict=True):
            variable.assign(value)
        self.run.history = note["history"]
        self.best_loss, self.waited, self.stopped = note["best_loss"], note["waited"], note["stopped"]
        self.run.seconds_before = note["seconds"]
        self.run.started = datetime.fromisoformat(note["started"])
        return len(self.run.history)

    def finish(self) -> None:
        """Training is over: the best weights, where they were asked for, and a last checkpoint of a long run."""
        if self.best is not None:
            self.model.set_weights(self.best)
        if self.path.exists():  # a run long enough to be kept stays whole until its record is written
            self.best = None
            self.save()

    def forget(self) -> None:
        """Remove the checkpoint."""
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)
