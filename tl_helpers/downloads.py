"""Files from the internet: found in ``TL_DATA`` or the cache, else downloaded, always checked by SHA-256."""

import contextlib
import errno
import hashlib
import os
import shutil
import sys
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from tl_helpers import runtime

CONNECT_SECONDS = 5.0
SILENCE_SECONDS = 30.0
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG} if hasattr(errno, "EDQUOT") else {errno.ENOSPC, errno.EFBIG}


class DataUnavailable(RuntimeError):
    """A file is neither in ``TL_DATA`` nor in the cache and could not be downloaded."""


class DataRefused(ValueError):
    """A file is there, but it is not the file it should be (truncated, damaged, another version)."""


def fetch(
    name: str,
    urls: Sequence[str],
    sha256: str,
    *,
    megabytes: float | None = None,
    terms: str | None = None,
    progress: bool = True,
) -> Path:
    """The path of a file with the right SHA-256: from ``TL_DATA``, else the cache, else downloaded into the cache.

    The mirrors are tried in turn. A download is written beside its final name, checked, and only then renamed, so
    no other process ever sees half a file; of two processes that want one file at once, one downloads and the
    other waits. What a killed process left behind is removed by the next download of that file.

    Args:
        name: the file's name, without a folder.
        urls: where it can be had, best first.
        sha256: its SHA-256 in hexadecimal.
        megabytes: its size in 10^6 bytes: free room is checked beforehand, and the size is told.
        terms: the terms of use, printed before a download begins.
        progress: show a progress bar on stderr.
    Returns:
        The file's path.
    Raises:
        DataUnavailable: no mirror delivered it, or the cache folder cannot be written or is full.
        DataRefused: the file of that name in ``TL_DATA`` has another SHA-256.
    """
    return find(name, sha256, urls=urls) or _download(name, tuple(urls), sha256, megabytes, terms, progress)


def find(name: str, sha256: str, *, urls: Sequence[str] = ()) -> Path | None:
    """The file in ``TL_DATA`` or the cache, checked by SHA-256; None when it is in neither.

    A damaged file in the cache counts as missing (``fetch`` replaces it).

    Raises:
        DataRefused: the file in ``TL_DATA`` has another SHA-256.
    """
    folder = runtime.data_folder()
    if folder is not None and (folder / name).is_file():
        check(folder / name, sha256, urls=urls)
        return folder / name
    cached = downloads_folder() / name
    return cached if cached.is_file() and digest(cached) == sha256 else None


def check(path: Path, expected: str, *, algorithm: str = "sha256", urls: Sequence[str] = ()) -> None:
    """Refuse a file placed by hand whose hash is not the expected one.

    Raises:
        DataRefused: it is another file, truncated, damaged or unreadable.
    """
    try:
        received, size = digest(path, algorithm), path.stat().st_size
    except OSError as error:
        raise DataRefused(f"{path} cannot be read ({error}). Place it there again, or remove it") from error
    if received != expected:
        again = f"Fetch it again from {urls[0]}, or remove it" if urls else "Place it there again, or remove it"
        raise DataRefused(
            f"{path} is not the file expected: truncated, damaged or another version. Expected {algorithm} {expected}. "
            f"Received: {received} ({size:,} bytes). {again}"
        )


def digest(path: Path, algorithm: str = "sha256") -> str:
    """Hash of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def downloads_folder() -> Path:
    """Where downloaded files are kept: ``downloads`` in the cache folder."""
    return runtime.cache_folder() / "downloads"


def how_to_place(name: str, urls: Sequence[str], sha256: str | None) -> str:
    """What to fetch by hand, where to put it, and its hash."""
    given = runtime.data_folder()
    folder = f"the folder in TL_DATA ({given})" if given else "a folder of your own, and set TL_DATA to that folder"
    lines = [
        "To place it by hand:",
        *(f"  fetch    {url}" for url in urls[:1]),
        *(f"  or       {url}" for url in urls[1:]),
    ]
    lines += [f"  put it   into {folder}", f"           or into {downloads_folder()}", f"  name     {name}"]
    return "\n".join(lines + ([f"  sha256   {sha256}"] if sha256 else []))


def _download(name: str, urls: tuple, sha256: str, megabytes: float | None, terms: str | None, progress: bool) -> Path:
    final = downloads_folder() / name
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        with alone(final):
            if final.is_file() and digest(final) == sha256:  # another process fetched it while this one waited
                return final
            _check_room(final.parent, megabytes)
            if terms or (progress and megabytes):
                size = f"{megabytes:,.0f} MB" if megabytes else "size unknown"
                print(f"downloading {name} ({size}). {terms or ''}".rstrip(), file=sys.stderr)
            reasons = []
            for url in urls:
                reason = _try(url, final, sha256, progress)
                if reason is None:
                    return final
                reasons.append(f"  {url}: {reason}")
    except OSError as error:
        raise DataUnavailable(
            _cannot_write(final, megabytes, error) + "\n" + how_to_place(name, urls, sha256)
        ) from error
    why = "and could not be downloaded:" if urls else "and there is no address to download it from"
    told = "\n".join(
        [f"{name} is neither in TL_DATA nor in the cache, {why}", *reasons, how_to_place(name, urls, sha256)]
    )
    raise DataUnavailable(told)


def _try(url: str, final: Path, sha256: str, progress: bool) -> str | None:
    """Download from one mirror; None, or the reason why it failed. Leaves the whole file or none."""
    import pooch
    import requests
    from tqdm import tqdm

    # pooch sets the total once it is known; until then a bar without one would have no truth value.
    bar = tqdm(desc=final.name, total=1, unit="B", unit_scale=True, file=sys.stderr, leave=False, disable=not progress)
    # Identity: a server that labels a .tar.gz as "Content-Encoding: gzip" would have it unpacked on the way.
    get = pooch.HTTPDownloader(
        progressbar=bar,
        chunk_size=2**16,
        timeout=(CONNECT_SECONDS, SILENCE_SECONDS),
        headers={"Accept-Encoding": "identity"},
    )
    try:
        with whole(final, sha256) as file:
            get(url, file, None)
    except requests.RequestException as error:
        return _short(error)
    except DataRefused as error:
        return str(error)
    finally:
        bar.close()
    return None


@contextlib.contextmanager
def whole(final: Path, sha256: str | None = None) -> Iterator[BinaryIO]:
    """A file to write to that becomes ``final`` at the end of the block: there is the whole file or none.

    Raises:
        DataRefused: what was written has another SHA-256.
    """
    part = final.with_name(f"{final.name}.{uuid.uuid4().hex}.part")
    try:
        with part.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if sha256 and (received := digest(part)) != sha256:
            raise DataRefused(f"wrong content (SHA-256 {received}, {part.stat().st_size:,} bytes)")
        part.replace(final)
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def _short(error: Exception) -> str:
    """A network error in a few words, without the library's inner names."""
    import requests

    response = getattr(error, "response", None)
    if response is not None:
        return f"HTTP {response.status_code} {response.reason}"
    kinds = {
        requests.exceptions.ConnectTimeout: "no answer",
        requests.exceptions.Timeout: "the connection went silent",
        requests.exceptions.ChunkedEncodingError: "the connection broke off",
        requests.exceptions.ProxyError: "the proxy refused",
        requests.exceptions.SSLError: "no trusted connection (SSL)",
    }
    for kind, words in kinds.items():
        if isinstance(error, kind):
            return words
    if "Read timed out" in str(error):
        return "the connection went silent"
    return "no connection" if isinstance(error, requests.ConnectionError) else type(error).__name__


def _check_room(folder: Path, megabytes: float | None) -> None:
    if megabytes and shutil.disk_usage(folder).free < megabytes * 1e6:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _cannot_write(final: Path, megabytes: float | None, error: OSError) -> str:
    if error.errno in _NO_ROOM:
        needed = f"{megabytes:,.0f} MB" if megabytes else "more room"
        return (
            f"{final.name} needs {needed}, and the cache folder {final.parent} is full. "
            "Make room, or set TL_CACHE to another folder"
        )
    return (
        f"{final.name} cannot be kept: the cache folder {final.parent} cannot be written "
        f"({error.strerror or error}). Set TL_CACHE to a folder of yours"
    )


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
    import time

    for _ in range(3600):
        with contextlib.suppress(OSError):
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
            return True
        time.sleep(1.0)
    return False
