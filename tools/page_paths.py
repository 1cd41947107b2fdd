"""Notebooks as they are named on a command line."""

from pathlib import Path


def in_book(name: str, root: Path) -> str:
    """A notebook's path from the repository's root, with forward slashes, however it was named.

    Args:
        name: absolute, or relative to the root.
        root: the repository.
    Raises:
        ValueError: no such notebook, or it lies outside the repository's ``book``.
    """
    root = root.resolve()
    path = (root / name).resolve()
    if not (path.is_file() and path.suffix == ".ipynb" and path.is_relative_to(root / "book")):
        raise ValueError(f"notebooks must exist under {root / 'book'} (book/PART/SLUG.ipynb). Received: {name}")
    return path.relative_to(root).as_posix()
