"""Files that other processes read: written whole or not at all, by one process at a time."""

import contextlib
import hashlib
import os
import sys
import time
import uuid
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

STALE_SECONDS = 3600.0
# What NumPy raises for an .npz that is damaged or something else; OSError, which may pass, is not among them.
DAMAGE = (ValueError, TypeError, EOFError, KeyError, AttributeError, RuntimeError, zipfile.BadZipFile, zlib.error)


class DataRefused(ValueError):
    """A file is there, but it is not the file it should be (truncated, damaged, another version)."""


def digest(path: Path, algorithm: str = "sha256") -> str:
    """Hash of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


@contextlib.contextmanager
def whole(final: Path, expected: str | None = None, *, algorithm: str = "sha256") -> Iterator[BinaryIO]:
    """A file to write to that becomes ``final`` at the end of the block: there is the whole file or none.

    Raises:
        DataRefused: what was written has another hash.
    """
    part = final.with_name(f"{final.name}.{uuid.uuid4().hex}.part")
    try:
        with part.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if expected and (received := digest(part, algorithm)) != expected:
            raise DataRefused(f"wrong content ({algorithm} {received}, {part.stat().st_size:,} bytes)")
        part.replace(final)
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def tidy(folder: Path, pattern: str = "*.part") -> None:
    """Remove what killed processes left half-written in a folder, but nothing that one may be writing now."""
    for part in folder.glob(pattern):
        with contextlib.suppress(FileNotFoundError):  # another process may tidy up at the same time
            if time.time() - part.stat().st_mtime > STALE_SECONDS:
                part.unlink()


@contextlib.contextmanager
def alone(path: Path) -> Iterator[bool]:
    """Hold a file's lock, waiting for other processes; the system frees it when a process dies.

    Whoever holds it is alone, so the half-written files of killed processes (``whole``) are removed then.

    Yields:
        Whether the lock is held: False on file systems without locks, where two processes may both do the work.
    """
    lock = path.with_name(path.name + ".lock")
    while True:
        handle = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
        held = _lock(handle, path.name)
        # The holder before us removed the lock file we waited on: take the one that is there now.
        if not held or _same(handle, lock):
            break
        os.close(handle)
    try:
        for left in path.parent.glob(f"{path.name}.*.part") if held else ():
            left.unlink(missing_ok=True)
        yield held
    finally:
        with contextlib.suppress(OSError):  # Windows removes no open file; the empty lock file then stays
            lock.unlink()
        os.close(handle)


def _same(handle: int, lock: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), lock.stat())
    except OSError:
        return False


def _lock(handle: int, name: str) -> bool:
    try:
        import fcntl
    except ImportError:
        return _lock_on_windows(handle)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print(f"waiting for another process that fetches {name}", file=sys.stderr)
        fcntl.flock(handle, fcntl.LOCK_EX)
    except OSError:
        return False
    return True


def _lock_on_windows(handle: int) -> bool:
    import msvcrt

    for _ in range(3600):
        with contextlib.suppress(OSError):
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
            return True
        time.sleep(1.0)
    return False
