"""The files of run records: one line a record, appended whole, the newest of each run read again."""

import errno
import json
import os
from pathlib import Path

from tl_helpers import runtime


def append(record: dict) -> Path:
    """Append one record to its experiment's file: the package's with ``TL_RECORD=1``, else the scratch folder's.

    Raises:
        OSError: the folder cannot be written or is full; no part of the record is left in the file.
    """
    folder = runtime.records_folder() if runtime.recording() else runtime.scratch_folder()
    path = folder / f"{record['experiment']}.jsonl"
    line = (json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n").encode()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _append(path, line)
    except OSError as error:
        way = "Make room there" if runtime.recording() else "Make room there, or set TL_SCRATCH to a folder of yours"
        raise OSError(
            error.errno, f"the record of {record['experiment']} cannot be written ({error}). {way}"
        ) from error
    return path


def _append(path: Path, line: bytes) -> None:
    """One write, so that two processes cannot mix their lines; a line that was cut short is taken out again."""
    binary = getattr(os, "O_BINARY", 0)  # Windows would end the line with CRLF
    line = line if _ends_whole(path) else b"\n" + line
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | binary, 0o644)
    try:
        written = os.write(handle, line)
        if written < len(line):
            end = os.lseek(handle, 0, os.SEEK_CUR)
            if os.fstat(handle).st_size == end:  # nothing came after it
                os.ftruncate(handle, end - written)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    finally:
        os.close(handle)


def _ends_whole(path: Path) -> bool:
    """Whether a file is empty or ends with its last line's end, which an editor or a power cut may have taken."""
    if not path.exists() or not path.stat().st_size:
        return True
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


def load(
    experiment: str, *, scale: str | None = None, folder: Path | None = None, each_machine: bool = False
) -> list[dict]:
    """The newest record of each (scale, arm, pair, seed) of an experiment.

    Args:
        experiment: its name.
        scale: only this scale; None for all.
        folder: where to look (default: the package's records).
        each_machine: the newest of each machine, by the device's name.
    Returns:
        Records, in the order in which their settings first appear; empty when nothing is recorded.
    Raises:
        ValueError: a line is not a record; the message names file and line.
    """
    path = (folder or runtime.records_folder()) / f"{experiment}.jsonl"
    newest = {}
    if not path.exists():
        return []
    for number, line in enumerate(lines(path), 1):
        try:
            record = json.loads(line)
            key = (record["scale"], record["arm"], record["pair"], record["seed"])
            key += ((record.get("device") or {}).get("name"),) if each_machine else ()
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path.name} line {number} is not a run record ({error}). Remove or repair that line"
            ) from error
        if scale in (None, record["scale"]):
            newest[key] = record
    return list(newest.values())


def lines(path: Path) -> list[str]:
    """The lines of a file of records; ``str.splitlines`` would also split at signs that a text in a record may hold."""
    text = path.read_text(encoding="utf-8")
    return text.removesuffix("\n").split("\n") if text else []


def experiments(folder: Path | None = None) -> list[str]:
    """Names of all experiments with records."""
    return sorted(path.stem for path in (folder or runtime.records_folder()).glob("*.jsonl"))
