"""Files from the internet: found in ``TL_DATA`` or the cache, else downloaded, checked by the hash their publisher gives."""

import errno
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tl_helpers import runtime
from tl_helpers.whole_files import DataRefused, alone, digest, whole

CONNECT_SECONDS = 5.0
SILENCE_SECONDS = 30.0
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG} if hasattr(errno, "EDQUOT") else {errno.ENOSPC, errno.EFBIG}


class DataUnavailable(RuntimeError):
    """A file is neither in ``TL_DATA`` nor in the cache and could not be downloaded."""


def fetch(
    name: str,
    urls: Sequence[str],
    expected: str | None,
    *,
    algorithm: str = "sha256",
    megabytes: float | None = None,
    terms: str | None = None,
    progress: bool = True,
) -> Path:
    """The path of a file with the right hash: from ``TL_DATA``, else the cache, else downloaded into the cache.

    The mirrors are tried in turn. A download is written beside its final name, checked, and only then renamed, so
    no other process ever sees half a file; of two processes that want one file at once, one downloads and the
    other waits. What a killed process left behind is removed by the next download of that file.

    Args:
        name: the file's name, without a folder.
        urls: where it can be had, best first.
        expected: its hash in hexadecimal; None where its publisher gives none: then only its length is checked.
        algorithm: of the hash, as ``hashlib`` names it.
        megabytes: its size in 10^6 bytes: free room is checked beforehand, and the size is told.
        terms: the terms of use, printed before a download begins.
        progress: show a progress bar on stderr.
    Returns:
        The file's path.
    Raises:
        DataUnavailable: no mirror delivered it, or the cache folder cannot be written or is full.
        DataRefused: the file of that name in ``TL_DATA`` has another hash.
    """
    found = find(name, expected, algorithm=algorithm, urls=urls)
    return found or _download(_Wanted(name, tuple(urls), expected, algorithm), megabytes, terms, progress)


def find(name: str, expected: str | None, *, algorithm: str = "sha256", urls: Sequence[str] = ()) -> Path | None:
    """The file in ``TL_DATA`` or the cache, checked by its hash; None when it is in neither.

    A damaged file in the cache counts as missing (``fetch`` replaces it).

    Raises:
        DataRefused: the file in ``TL_DATA`` has another hash.
    """
    folder = runtime.data_folder()
    if folder is not None and (folder / name).is_file():
        if expected:
            check(folder / name, expected, algorithm=algorithm, urls=urls)
        return folder / name
    cached = downloads_folder() / name
    return cached if _Wanted(name, tuple(urls), expected, algorithm).is_whole(cached) else None


@dataclass(frozen=True)
class _Wanted:
    """A file to be had from one of several addresses."""

    name: str
    urls: tuple[str, ...]
    expected: str | None
    algorithm: str

    def is_whole(self, path: Path) -> bool:
        """Whether the file is there; without a hash it counts as whole, since only whole ones get their final name."""
        return path.is_file() and (not self.expected or digest(path, self.algorithm) == self.expected)

    def how_to_place(self) -> str:
        return how_to_place(self.name, self.urls, self.expected, algorithm=self.algorithm)


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


def downloads_folder() -> Path:
    """Where downloaded files are kept: ``downloads`` in the cache folder."""
    return runtime.cache_folder() / "downloads"


def how_to_place(name: str, urls: Sequence[str], expected: str | None, *, algorithm: str = "sha256") -> str:
    """What to fetch by hand, where to put it, and its hash."""
    given = runtime.data_folder()
    folder = f"the folder in TL_DATA ({given})" if given else "a folder of your own, and set TL_DATA to that folder"
    lines = [
        "To place it by hand:",
        *(f"  fetch    {url}" for url in urls[:1]),
        *(f"  or       {url}" for url in urls[1:]),
    ]
    lines += [f"  put it   into {folder}", f"           or into {downloads_folder()}", f"  name     {name}"]
    return "\n".join(lines + ([f"  {algorithm:<8} {expected}"] if expected else []))


def _download(wanted: _Wanted, megabytes: float | None, terms: str | None, progress: bool) -> Path:
    name, final = wanted.name, downloads_folder() / wanted.name
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        with alone(final):
            if wanted.is_whole(final):  # another process fetched it while this one waited
                return final
            _check_room(final.parent, megabytes)
            if terms or (progress and megabytes):
                size = f"{megabytes:,.0f} MB" if megabytes else "size unknown"
                print(f"downloading {name} ({size}). {terms or ''}".rstrip(), file=sys.stderr)
            reasons = []
            for url in wanted.urls:
                reason = _try(url, final, wanted, progress)
                if reason is None:
                    return final
                reasons.append(f"  {url}: {reason}")
    except OSError as error:
        raise DataUnavailable(_cannot_write(final, megabytes, error) + "\n" + wanted.how_to_place()) from error
    why = "and could not be downloaded:" if wanted.urls else "and there is no address to download it from"
    told = "\n".join([f"{name} is neither in TL_DATA nor in the cache, {why}", *reasons, wanted.how_to_place()])
    raise DataUnavailable(told)


def _try(url: str, final: Path, wanted: _Wanted, progress: bool) -> str | None:
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
        with whole(final, wanted.expected, algorithm=wanted.algorithm) as file:
            get(url, file, None)
    except requests.RequestException as error:
        return _short(error)
    except DataRefused as error:
        return str(error)
    finally:
        bar.close()
    return None


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
