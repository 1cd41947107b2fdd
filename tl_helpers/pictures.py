"""A reader's own pictures: ``load_folder`` turns a folder of class folders into a data set, and says what it left out."""

import hashlib
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from tl_helpers import class_folders, datasets, report
from tl_helpers.picture_files import PictureRefused, held_bytes, read

__all__ = ["FolderReport", "load_folder", "read"]


@dataclass(repr=False)
class FolderReport:
    """What ``load_folder`` met.

    Attributes:
        folder: where it looked.
        used: class name to the number of pictures used.
        skipped: (file or folder, why it was left out).
        changed: (file, what had to be done to it) for pictures that were used.
        doubts: (class folder, what may be wrong with it); it was used all the same.
    """

    folder: str
    used: dict[str, int] = field(default_factory=dict)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    changed: list[tuple[str, str]] = field(default_factory=list)
    doubts: list[tuple[str, str]] = field(default_factory=list)

    def table(self, rows: int = 30) -> report.Table:
        """Reasons that were met more than once, with their counts; then each doubt, class, file skipped and file changed.

        Args:
            rows: at most so many of each; the attributes hold all.
        """
        parts = [("is it right?", self.doubts)]
        parts += [("used", [(name, f"{count} pictures") for name, count in self.used.items()])]
        parts += [("skipped", self.skipped), ("changed", self.changed)]
        lines = [("skipped", *line) for line in _counted([[why] for _, why in self.skipped])]
        lines += [("changed", *line) for line in _counted([notes.split(", ") for _, notes in self.changed])]
        for what, found in parts:
            lines += [(what, name, why) for name, why in found[:rows]]
            if len(found) > rows:
                lines.append((what, f"… and {len(found) - rows} more", ""))
        return report.Table(["", "file or class", "what"], lines, self.summary())

    def summary(self) -> str:
        """One sentence."""
        return (
            f"{sum(self.used.values())} pictures of {len(self.used)} classes used, {len(self.skipped)} files or "
            f"folders skipped, {len(self.changed)} pictures changed to fit."
            + (f" In doubt: {len(self.doubts)}." if self.doubts else "")
        )

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()

    def __repr__(self) -> str:
        return repr(self.table())


def load_folder(
    path: Path | str,
    *,
    pixels: int = 32,
    fit: str = "crop",
    val: float = 0.15,
    test: float = 0.15,
    seed: int = 0,
    name: str = "own pictures",
    progress: bool = True,
) -> tuple[datasets.Dataset, FolderReport]:
    """A folder of class folders as a data set; odd files are skipped or repaired, and the report names each of them.

    Pictures may lie in folders inside a class folder. Hidden files, files that are no pictures, and all but one of
    identical files are left out (a copy in two parts of the split would give the test away), and so is a class with
    fewer than three pictures. Links to files are followed, links to folders only for a class folder itself.

    Args:
        path: the folder; each folder in it is a class. ``~`` is your home folder.
        pixels, fit: as in ``read``.
        val, test: shares of each class kept for validation and for the test, at least one picture each.
        seed: draws the split.
        name: for the records.
        progress: show a progress bar.
    Returns:
        The data set, classes in alphabetical order; and the report.
    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: it holds no class folders, or two of one name, is split already, has fewer than two usable classes; or shares out of range.
    """
    root = Path(path).expanduser()
    folders = class_folders.find(root)
    if not (0 < val < 1 and 0 < test < 1 and val + test < 1):
        raise ValueError(f"val and test must be shares above 0, together below 1. Received: {val}, {test}")
    seen, hashes = FolderReport(str(root)), {}
    images: list[np.ndarray] = []
    class_folders.stray_files(root, seen.skipped)
    for class_name, folder in tqdm(folders.items(), unit="class", desc="pictures", disable=not progress, leave=False):
        shown, files = f"{class_folders.shown(folder, root)}/", class_folders.files(folder, root, seen.skipped)
        taken = ((file, _take(file, root, seen, hashes, pixels, fit)) for file in files)
        found = {file: picture for file, picture in taken if picture is not None}
        if len(found) < 3:
            _leave_out(shown, len(found), seen, hashes)
            continue
        seen.used[class_name] = len(found)
        images += found.values()
        seen.doubts += [(shown, doubt) for doubt in class_folders.doubts(folder, found)]
    _check_classes(root, folders, seen)
    ids = np.repeat(np.arange(len(seen.used), dtype=np.int32), list(seen.used.values()))
    arrays = np.stack(images)
    parts = [(arrays[rows], ids[rows]) for rows in _split(ids, val, test, seed)]
    return datasets.from_arrays(name, *parts, class_names=tuple(seen.used), licence="the reader's own"), seen


def _leave_out(class_folder: str, pictures: int, seen: FolderReport, hashes: dict[str, str]) -> None:
    """Skip a class with too few pictures, and forget what was noted of them."""
    why = f"only {pictures} usable pictures" if pictures else "empty class"
    seen.skipped.append((class_folder, f"{why}; a class needs at least 3 (train, val, test)"))
    for digest in [d for d, first in hashes.items() if first.startswith(class_folder)]:
        del hashes[digest]  # an equal file of a later class is the only one that is left
    seen.changed = [(file, note) for file, note in seen.changed if not file.startswith(class_folder)]


def _check_classes(root: Path, folders: dict[str, Path], seen: FolderReport) -> None:
    if len(seen.used) >= 2:
        return
    inner = next((f for f in folders.values() if class_folders.inside(f)[0]), None)
    deeper = f" {inner} holds folders itself: are those the classes? Then give that one." if inner else ""
    raise ValueError(
        f"{root} must hold at least two classes with three pictures each. Received: "
        f"{', '.join(seen.used) or 'no usable class'}.{deeper} What was skipped, and why:\n{seen}"
    )


def _counted(reasons: list[list[str]]) -> list[tuple[str, str]]:
    """Rows with the reasons of files (each may have several), most frequent first; none where no two files share one."""
    kinds = Counter(kind for own in reasons for kind in {_kind(reason) for reason in own})
    often = max(kinds.values(), default=0) > 1
    return [(f"{count} of {len(reasons)}", kind) for kind, count in kinds.most_common()] if often else []


def _kind(reason: str) -> str:
    """A reason without what is one file's own: ``damaged: …`` is one kind."""
    if reason.startswith("the same file as"):
        return "the same file as " + ("one in another class" if ", in another class" in reason else "another")
    return re.split(r"[:;(]|, ", reason)[0].strip()


def _take(file: Path, root: Path, seen: FolderReport, hashes: dict, pixels: int, fit: str) -> np.ndarray | None:
    """One file's picture, or None with the reason noted."""
    shown = class_folders.shown(file, root)
    try:
        held = held_bytes(file)
        picture, notes = read(held, pixels=pixels, fit=fit)
    except PictureRefused as error:
        seen.skipped.append((shown, str(error)))
        return None
    first = hashes.setdefault(hashlib.sha256(held).digest(), shown)
    if first != shown:
        other = "" if first.split("/")[0] == shown.split("/")[0] else ", in another class: which is right?"
        seen.skipped.append((shown, f"the same file as {first}{other}"))
        return None
    if notes:
        seen.changed.append((shown, ", ".join(notes)))
    return picture


def _split(labels: np.ndarray, val: float, test: float, seed: int) -> list[np.ndarray]:
    """Rows of train, val and test; every class is in each."""
    parts = [[], [], []]
    order = np.random.RandomState(seed).permutation(len(labels))
    for c, n in sorted(Counter(labels.tolist()).items()):
        rows = order[labels[order] == c]
        n_val, n_test = (max(1, round(n * share)) for share in (val, test))
        while n_val + n_test >= n:  # a small class keeps one for training
            n_val, n_test = (n_val - 1, n_test) if n_val >= n_test else (n_val, n_test - 1)
        for part, found in zip(parts, np.split(rows, [n - n_val - n_test, n - n_test])):
            part.append(found)
    return [np.sort(np.concatenate(part)) for part in parts]
