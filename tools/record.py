"""Record notebooks one after the other, from a clean clone of HEAD, so that every record names the commit it was made by.

The working tree may change meanwhile. Once a minute, and after each notebook, new records (and pictures) are carried into
the working tree, where `git diff` shows them; nothing is committed. What a killed recording left behind is carried by the
next one, and with `TL_RESUME=1` it goes on from all that lies in the working tree. Only one recording runs at a time.
Called by `make record`.
"""

import argparse
import contextlib
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from page_paths import in_book

ROOT = Path(__file__).resolve().parent.parent
CLONE = ROOT / ".cache" / "recording"
RECORDS = Path("tl_helpers/records")
CARRY_EVERY_SECONDS = 60
STOP_SECONDS = 30
FAR_BEHIND = 1 << 20  # the byte that is locked: Windows lets nobody read one, and the text before it shall be read


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Hold the lock of the only recording in this working tree; the system frees it when the process dies.

    Raises:
        SystemExit: another recording holds it; its clone is left alone.
    """
    path = CLONE.with_name(f"{CLONE.name}.lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        if not lock(handle):
            process = os.read(handle, 20).decode().strip() or "unknown"
            sys.exit(f"a recording is running (process {process}): wait for it, or stop it first")
        os.truncate(handle, 0)
        os.write(handle, f"{os.getpid()}\n".encode())
        yield
    finally:
        os.close(handle)


def lock(handle: int) -> bool:
    """Lock an open file without waiting; False when another process holds it."""
    try:
        import fcntl
    except ImportError:
        return lock_on_windows(handle)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks: there nobody can tell
        return True
    return True


def lock_on_windows(handle: int) -> bool:
    import msvcrt

    os.lseek(handle, FAR_BEHIND, os.SEEK_SET)
    try:
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
    except OSError:
        return False
    finally:
        os.lseek(handle, 0, os.SEEK_SET)
    return True


def clone() -> None:
    """A fresh clone of HEAD in an ignored folder, with the records of the working tree.

    A clone that lies there is one that was killed: its records are carried first.
    """
    if (CLONE / RECORDS).is_dir():
        print("left by a recording that was killed: " + ("; ".join(carry_back()) or "no new records"), flush=True)
    remove(CLONE)
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(CLONE)], check=True)
    for kept in (ROOT / RECORDS).glob("*.jsonl"):
        shutil.copyfile(kept, CLONE / RECORDS / kept.name)


def remove(folder: Path) -> None:
    """Remove a folder as far as it can be removed, with the objects that git makes read-only: Windows keeps those."""

    def allow_and_retry(function, path, _error) -> None:
        if function in (os.unlink, os.rmdir) and not os.path.islink(path):
            with contextlib.suppress(OSError):
                os.chmod(path, stat.S_IRWXU)
                function(path)

    handler = "onexc" if sys.version_info >= (3, 12) else "onerror"
    shutil.rmtree(folder, **{handler: allow_and_retry})


def run(notebook: str, scale: str) -> bool:
    """Run one notebook of the clone, recording; whether it passed."""
    told = {"TL_RECORD": "1", "TL_SCALE": scale, "PYTHONPATH": str(CLONE)}
    if scale == "quick":  # made of embedded data alone, as tests do
        told["TL_DATA"] = ""
    command = [sys.executable, "-m", "pytest", "-q", "--nbmake", "--nbmake-timeout=100000", notebook]
    process = subprocess.Popen(command, cwd=CLONE, env={**os.environ, **told})
    try:
        while True:
            try:
                return process.wait(CARRY_EVERY_SECONDS) == 0
            except subprocess.TimeoutExpired:
                carry_back()
    except SystemExit:  # told to stop; Ctrl-C has reached the notebook as well
        process.terminate()
        raise
    finally:  # the lock is held until the notebook has ended its kernel
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()


def committed(path: Path) -> set[str]:
    """The lines that the clone began with: none of them is carried, even where the working tree has dropped it since."""
    shown = subprocess.run(["git", "show", f"HEAD:{path.as_posix()}"], cwd=CLONE, capture_output=True, encoding="utf-8")
    return set(shown.stdout.split("\n")) if shown.returncode == 0 else set()


def carry_back() -> list[str]:
    """Append the clone's new record lines to the working tree's files and copy new pictures; what was carried."""
    carried = []
    for made in sorted((CLONE / RECORDS).glob("*.jsonl")):
        here = ROOT / RECORDS / made.name
        known = committed(RECORDS / made.name)
        known |= set(here.read_text(encoding="utf-8").split("\n")) if here.exists() else set()
        whole = made.read_text(encoding="utf-8").rpartition("\n")[0]  # a last line may still be in the writing
        new = [line for line in whole.split("\n") if line and line not in known]
        if new:
            with here.open("a", encoding="utf-8", newline="\n") as file:
                file.writelines(f"{line}\n" for line in new)
            carried.append(f"{made.name}: {len(new)} lines")
    changed = ["git", "ls-files", "--others", "--modified", "--exclude-standard", "book"]
    told = subprocess.run(changed, cwd=CLONE, capture_output=True, encoding="utf-8", check=True).stdout
    for name in told.split("\n"):
        if name.endswith(".png"):
            (ROOT / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(CLONE / name, ROOT / name)
            carried.append(name)
    return carried


def main() -> int:
    """Record what was asked for; the exit status is 1 if a notebook failed or another recording is running."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("notebooks", nargs="+", help="book/PART/SLUG.ipynb")
    parser.add_argument("--scale", default="full", choices=("quick", "laptop", "full"))
    asked = parser.parse_args()
    try:  # the clone's own is run, as committed, also when one is named in full
        named = [in_book(name, ROOT) for name in asked.notebooks]
    except ValueError as error:
        parser.error(str(error))
    with alone():
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that `run` ends its notebook
        return record_all(named, asked.scale)


def record_all(named: list[str], scale: str) -> int:
    """Record notebooks of a fresh clone; 1 if one failed."""
    clone()
    failed = []
    for notebook in named:
        start = time.monotonic()
        passed = run(notebook, scale)
        failed += [] if passed else [notebook]
        told = "recorded" if passed else "FAILED"
        print(f"{time.strftime('%H:%M:%S')} {told}: {notebook} at {scale}, {time.monotonic() - start:.0f} s")
        print("  " + ("; ".join(carry_back()) or "no new records"), flush=True)
    remove(CLONE)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
