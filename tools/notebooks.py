"""Run the course's notebooks, two at a time, into the cache from which the website is made.

A notebook is run once: by nbmake, as a test, in a copy outside the sources. Its outputs then go into the jupyter-cache
that Jupyter Book reads. The cache knows only a notebook's own code, so it is thrown away here whenever something else
changed that decides a result: the helper package, the records, the weights, the lock, the scale or the data folder.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import yaml
from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / "_build" / ".jupyter_cache"
FINGERPRINT = ROOT / "_build" / ".fingerprint"
COPIES = ROOT / ".cache" / "executed"  # not under _build: nbmake leaves that folder out
CELL_TIMEOUT = 3600


def pages() -> list[Path]:
    """Every page of the table of contents, in reading order."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    names = [toc["root"]] + [entry["file"] for part in toc["parts"] for entry in part["chapters"]]
    return [path for name in names for path in (ROOT / f"{name}.ipynb", ROOT / f"{name}.md") if path.exists()]


def notebooks() -> list[Path]:
    return [path for path in pages() if path.suffix == ".ipynb"]


def fingerprint() -> str:
    """Everything besides a notebook's code that its outputs depend on."""
    settings = [os.environ.get(name, "") for name in ("TL_SCALE", "TL_DATA", "KERAS_BACKEND")]
    digest = hashlib.sha256(repr((sys.version_info[:2], settings)).encode())
    package = [p for p in (ROOT / "tl_helpers").rglob("*") if p.is_file() and "__pycache__" not in p.parts]
    for path in [*sorted(package), ROOT / "requirements.txt"]:
        digest.update(path.relative_to(ROOT).as_posix().encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def open_cache():
    """The cache, emptied first when it was filled under other conditions."""
    now = fingerprint()
    if not FINGERPRINT.exists() or FINGERPRINT.read_text() != now:
        shutil.rmtree(CACHE, ignore_errors=True)
        FINGERPRINT.parent.mkdir(exist_ok=True)
        FINGERPRINT.write_text(now)
    CACHE.mkdir(parents=True, exist_ok=True)
    return get_cache(CACHE)


def is_cached(cache, path: Path) -> bool:
    try:
        cache.match_cache_notebook(nbformat.read(path, as_version=4))
    except KeyError:
        return False
    return True


def run(paths: list[Path], scratch: Path | None = None) -> int:
    """Run copies of notebooks with nbmake, two at a time.

    Args:
        paths: notebooks inside the project.
        scratch: where their runs are noted; None leaves it to the package.
    Returns:
        pytest's exit status.
    """
    shutil.rmtree(COPIES, ignore_errors=True)
    copies = [COPIES / path.relative_to(ROOT) for path in paths]
    for path, copy in zip(paths, copies, strict=True):
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
        if (pictures := path.parent / "pictures").is_dir():  # recorded ones, which a page shows
            shutil.copytree(pictures, copy.parent / "pictures", dirs_exist_ok=True)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "--nbmake",
        "--overwrite",
        f"--nbmake-timeout={CELL_TIMEOUT}",
        "-v",
        "-p",
        "no:cacheprovider",
    ]
    workers = ["-n", str(min(2, len(copies))), "--dist", "worksteal"]
    environment = dict(os.environ, TL_SCRATCH=str(scratch)) if scratch else None
    return subprocess.run(
        [*command, *workers, "--durations=5", *map(str, copies)], cwd=ROOT, env=environment
    ).returncode


def keep(cache, paths: list[Path]) -> None:
    """Put the outputs of copies that ran to their end into the cache, under the source's own code."""
    for path in paths:
        copy = COPIES / path.relative_to(ROOT)
        source, ran = nbformat.read(path, as_version=4), nbformat.read(copy, as_version=4)
        if [cell.source for cell in source.cells] != [cell.source for cell in ran.cells] or not finished(ran):
            continue
        for cell, result in zip(source.cells, ran.cells, strict=True):
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = result.outputs, result.execution_count
        cache.cache_notebook_bundle(CacheBundleIn(source, str(path)), check_validity=False, overwrite=True)


def finished(notebook) -> bool:
    """Whether every code cell ran and none failed."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]
    failed = any(output.output_type == "error" for cell in cells for output in cell.outputs)
    return not failed and all(cell.execution_count for cell in cells)


def refresh(*, everything: bool = False, scratch: Path | None = None) -> int:
    """Bring the cache up to date.

    Args:
        everything: run every notebook (a test), not only those without valid outputs.
        scratch: where the runs are noted.
    Returns:
        0, or nbmake's exit status when a notebook failed.
    """
    cache = open_cache()
    due = [path for path in notebooks() if everything or not is_cached(cache, path)]
    print(f"{len(notebooks())} notebooks, {len(due)} to run, two at a time.", flush=True)
    if not due:
        return 0
    status = run(due, scratch)
    keep(cache, due)
    return status
