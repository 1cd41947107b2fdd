"""Run records: one JSON line a run, written when the run is complete."""

import functools
import json
import math
import subprocess
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from tl_helpers import runtime
from tl_helpers.record_files import append, experiments, lines, load  # noqa: F401  (callers take them from here)

SCHEMA = 1
_DECIDING = ("experiment", "arm", "pair", "seed", "recipe", "backbone", "weights", "data", "split")
finished: list[dict] = []  # records of the runs that this process finished


@dataclass
class Run:
    """One run of one arm of an experiment; ``finish`` writes its record.

    Attributes:
        experiment, arm, seed: together name the run; ``pair`` groups arms compared under one condition.
        recipe: how it was trained, without the seed.
        backbone: a backbone's name, or None.
        weights: ``{"name", "sha256"}`` of the weights it started from, or None from scratch.
        data: ``{"name", "copy", "sha256"}`` of the data really used.
        split: number of examples in ``train``, ``val`` and ``test``.
        history: one dict an epoch, filled by ``training.fit``.
        tested: the test set was opened for this run.
        measured: what ``evaluation.test`` measured, kept so that it opens the test set once; None before.
        reused: the run was recorded before and not made again (``reuse``); ``record`` holds it.
        code: commit and dirtiness of the checkout when the run was opened; ``codes_before`` those of an interrupted
            run's earlier parts, where they were others.
    Raises:
        ValueError: the experiment's name is no file name, or what the record is to hold is not plain (a NumPy number).
    """

    experiment: str
    arm: str
    seed: int
    pair: str | None = None
    recipe: dict | None = None
    backbone: str | None = None
    weights: dict | None = None
    data: dict | None = None
    split: dict | None = None
    history: list[dict] = field(default_factory=list)
    images_seen: int | None = None
    seconds_before: float = 0.0
    tested: bool = False
    measured: dict | None = None
    reused: bool = False
    record: dict | None = None

    def __post_init__(self):
        self.started = datetime.now(UTC)
        self._clock = time.monotonic()
        self._afterwards = []
        self.code, self.codes_before = _commit(), []
        _check_name("experiment", self.experiment)
        for name in _DECIDING:  # now: the record is written only after the training
            _check_plain(name, getattr(self, name))

    def elapsed(self) -> float:
        """Wall seconds since the run was opened, those before an interruption included."""
        return self.seconds_before + (0.0 if self._clock is None else time.monotonic() - self._clock)

    def stop_clock(self) -> None:
        """Count no more time: for a run whose record is written later than it ends."""
        self.seconds_before, self._clock = self.elapsed(), None

    def when_finished(self, action: Callable[[], object]) -> None:
        """Call ``action()`` once the record is written (a checkpoint is no longer needed then)."""
        self._afterwards.append(action)

    def reuse(self) -> bool:
        """Take this very run from the records, so that a recording which was interrupted goes on where it stopped.

        Only with ``TL_RECORD=1`` and ``TL_RESUME=1``: who asks for it vouches that nothing that matters has changed in the
        code meanwhile (the record keeps its own commit). Everything that a record knows must agree: experiment, arm,
        pair, scale, seed, recipe, backbone, weights, data, split, kind of device and versions; and its code was committed.
        Only the recipe's number format (``dtype``) may differ, since the machine decides it (``runtime.training_dtype``).

        Returns:
            Whether it was found; ``finish`` and ``evaluation.test`` then return it and write nothing.
        """
        if not runtime.resuming():
            return False
        mine = json.loads(json.dumps({name: getattr(self, name) for name in _DECIDING}))
        mine |= {"scale": runtime.scale(), "versions": runtime.versions()}
        own = mine.pop("recipe")
        for found in load(self.experiment, scale=runtime.scale()):
            same_kind = found["device"]["kind"] == runtime.device()["kind"]
            same_recipe = _without_dtype(found["recipe"]) == _without_dtype(own)
            same = same_kind and same_recipe and all(found[name] == value for name, value in mine.items())
            if same and not found["dirty"]:
                self.record, self.reused = found, True
                finished.append(found)
                print(f"recorded already: {self.experiment} / {self.arm} / seed {self.seed}, {found['started']}")
                return True
        return False

    def finish(self, metrics: dict) -> dict:
        """Complete the run: build its record and append it.

        Args:
            metrics: name to number, text, None, or a list or array of these (a confusion matrix, say), rounded to six
                decimals, small numbers to six digits; accuracies are 0-1.
        Returns:
            The record.
        Raises:
            RuntimeError: the run is finished already.
            ValueError: a metric is not a finite number.
            OSError: while recording, the record cannot be written; its checkpoint is kept, and ``finish`` may be called
                again. Without recording that is a warning: the numbers stand in ``finished`` all the same.
        """
        if self.reused:
            return self.record
        if self.record is not None:
            raise RuntimeError(f"{self.experiment} / {self.arm} / seed {self.seed} is finished already; open a new Run")
        seconds = self.elapsed()
        metrics = {name: _plain(name, value) for name, value in metrics.items()}
        record = {
            "schema": SCHEMA,
            "experiment": self.experiment,
            "arm": self.arm,
            "pair": self.pair,
            "scale": runtime.scale(),
            "seed": self.seed,
            "recipe": self.recipe,
            "backbone": self.backbone,
            "weights": self.weights,
            "data": self.data,
            "split": self.split,
            "metrics": metrics,
            "seconds": round(seconds, 3),
            "images_per_second": round(self.images_seen / seconds, 1) if self.images_seen and seconds else None,
            "peak_memory_mb": _rounded(runtime.peak_memory_mb()),
            "device": runtime.device(),
            "versions": runtime.versions(),
            **self._made_by(),
            "started": self.started.strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        kept = _keep(record)
        self.record = record
        finished.append(record)
        actions, self._afterwards = self._afterwards, []  # they hold the model and its optimizer
        for action in actions if kept else ():
            action()
        return record

    def _made_by(self) -> dict:
        """The code behind a record: its commit, and the earlier ones where an interrupted run went on under another."""
        before = [code["commit"] for code in self.codes_before]
        told = {
            "commit": self.code["commit"],
            "dirty": any([self.code["dirty"], *(c["dirty"] for c in self.codes_before)]),
        }
        return told | ({"commits_before": before} if before else {})


def _keep(record: dict) -> bool:
    """Append a record; whether it is on disk. Only a recording fails when it is not."""
    try:
        append(record)
    except OSError as error:
        if runtime.recording():
            raise
        warnings.warn(str(error), stacklevel=3)
        return False
    return True


def _check_name(what: str, name: str) -> None:
    if not name or not all(c.isalnum() or c in "-_." for c in name):
        raise ValueError(f"{what} must be made of letters, digits, '-', '_' and '.'. Received: {name!r}")


def _check_plain(name: str, value) -> None:
    """Refuse what JSON cannot hold."""

    def refuse(part):
        raise TypeError(type(part).__name__)

    try:
        json.dumps(value, default=refuse, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{name} must be plain finite numbers, texts, lists and dicts. Received: {error}; "
            "write int(...), float(...), str(...) or .tolist()"
        ) from error


def _without_dtype(recipe: dict | None) -> dict | None:
    """A recipe without its number format, which the machine decides."""
    return None if recipe is None else {**recipe, "dtype": None}


def _plain(name: str, value):
    if hasattr(value, "tolist"):  # NumPy's numbers and arrays
        value = value.tolist()
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, (list, tuple)):
        return [_plain(name, v) for v in value]
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"metric {name} must be a finite number. Received: {number}")
    return round(number, 6) if abs(number) >= 0.1 else float(f"{number:.6g}")


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)


@functools.cache
def _commit() -> dict:
    """Commit and dirtiness of the checkout the package runs from; records themselves do not count."""

    def git(*args: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(runtime.PACKAGE), *args], capture_output=True, encoding="utf-8", timeout=20, check=True
        )
        return done.stdout.strip()

    try:
        top = Path(git("rev-parse", "--show-toplevel"))
        if top != runtime.PACKAGE.parent:
            raise OSError("the package lies inside another repository")
        changed = git("status", "--porcelain", "--untracked-files=no", "--", ":/", ":(exclude,top)tl_helpers/records")
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(changed)}
    except (OSError, subprocess.SubprocessError):
        return {"commit": None, "dirty": None}
