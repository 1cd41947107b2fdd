"""Folders of class folders: which are the classes, which files lie in them, and what is left out."""

import os
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path

ALREADY_SPLIT = {"train", "training", "val", "valid", "validation", "dev", "eval", "test", "testing"}
SYSTEM_FILES = {
    "thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx", "icon\r", "@eadir", "#recycle", "$recycle.bin", "lost+found",
    "system volume information",
}  # fmt: skip


def find(root: Path) -> dict[str, Path]:
    """Class name to its folder, in alphabetical order of the folders' names.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: it holds no folders, two of one name, or looks split into train, val and test already.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"no such folder: {root}. Give the folder that holds one folder for each class")
    found = sorted((f for f in root.iterdir() if f.is_dir() and not hidden(f)), key=lambda f: f.name)
    named: dict[str, Path] = {}
    for folder in found:
        name = unicodedata.normalize("NFC", printable(folder.name))
        if name in named:  # two systems write an accent in two ways
            raise ValueError(f"two folders in {root} have the same name, {name}, written in two ways. Join them")
        named[name] = folder
    if not named:
        raise ValueError(
            f"{root} holds no folders. Make one folder for each class in it, named after the class, and put the pictures there"
        )
    split = [n for n in named if n.lower() in ALREADY_SPLIT]
    nested = any(folders and not files for folders, files in (inside(named[n]) for n in split))
    if len(split) >= 2 or len(split) == len(named) or nested:  # others, such as annotations, may lie beside them
        raise ValueError(
            f"{root} looks split already: it holds {', '.join(split)}. Give one of these folders (the one with the most "
            "pictures); the split into train, val and test is drawn here, by the seed. (A class of such a name, a train "
            "among cars, must hold its pictures itself, not in folders)"
        )
    return named


def inside(folder: Path) -> tuple[list[Path], list[Path]]:
    """Folders and files in a folder, without those of a system; none where it may not be opened."""
    try:
        found = [inner for inner in folder.iterdir() if not hidden(inner)]
    except OSError:
        return [], []
    folders = [inner for inner in found if inner.is_dir()]
    return folders, [inner for inner in found if inner not in folders]


def doubts(folder: Path, files: Iterable[Path]) -> Iterator[str]:
    """What may be wrong with a class folder, by its name and by where in it the pictures that are used lie."""
    inner = sorted({printable(file.relative_to(folder).parts[0]) for file in files if file.parent != folder})
    if len(inner) > 1 and all(file.parent != folder for file in files):
        more = ", …" if len(inner) > 3 else ""
        yield f"all pictures lie in folders inside it ({', '.join(inner[:3])}{more}): are those the classes? Then load this folder"
    if folder.name.lower() in ALREADY_SPLIT:
        yield "a class of this name, or a part of a split? The split is drawn here: give one folder of class folders"


def stray_files(root: Path, skipped: list[tuple[str, str]]) -> None:
    """Note in ``skipped`` what lies beside the class folders: (file, why it was left out)."""
    for file in sorted(root.iterdir()):
        if hidden(file):
            skipped.append((shown(file, root), "hidden or a system's own"))
        elif not file.is_dir():
            skipped.append((shown(file, root), "lies in no class folder"))


def files(folder: Path, root: Path, skipped: list[tuple[str, str]]) -> Iterator[Path]:
    """Every file below a class folder, in a fixed order; what is hidden or linked in a circle is left out.

    Args:
        folder: the class folder.
        root: the folder it lies in; names are shown from there on.
        skipped: takes each (file or folder, why it was left out).
    """

    def locked(error: OSError) -> None:
        skipped.append((f"{shown(Path(error.filename), root)}/", f"cannot be opened: {error.strerror}"))

    for where, folders, names in os.walk(folder, onerror=locked):
        for name in sorted(folders):
            inner = Path(where, name)
            if hidden(inner) or inner.is_symlink():
                why = "hidden or a system's own" if hidden(inner) else "a link to a folder, not followed"
                skipped.append((f"{shown(inner, root)}/", why))
                folders.remove(name)
        folders.sort()
        for name in sorted(names):
            file = Path(where, name)
            if hidden(file):
                skipped.append((shown(file, root), "hidden or a system's own"))
            elif not file.is_file():
                skipped.append((shown(file, root), "a broken link" if file.is_symlink() else "no ordinary file"))
            else:
                yield file


def hidden(path: Path) -> bool:
    """Whether it is hidden, or one of the files that systems leave behind."""
    return path.name.startswith(".") or path.name.lower() in SYSTEM_FILES


def shown(path: Path, root: Path) -> str:
    """A file's name as a report shows it: from ``root`` on, with ``/``."""
    return printable(path.relative_to(root).as_posix())


def printable(name: str) -> str:
    """A name as text, even where the file system holds bytes that are none."""
    return name.encode("utf-8", "replace").decode("utf-8")
