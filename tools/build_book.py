"""Build the website into _build/html: run the notebooks that need it, then Jupyter Book, strictly.

    python tools/build_book.py            # does nothing when nothing changed since the last good build
    python tools/build_book.py --again    # builds the pages anyway

A failing cell, a warning or a broken reference ends with a status other than zero.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import time

import notebooks

BOOK = "from jupyter_book.cli.main import main; main()"  # the command itself, whatever the PATH
STRICT = ["-W", "-n", "--keep-going", "--all", "--quiet"]
HTML = notebooks.ROOT / "_build" / "html"
STAMP = notebooks.ROOT / "_build" / ".built"  # what the site was built from, and what it then consisted of


def stamp() -> str:
    """A digest of all that the pages come from and of the built site's files, by name and size."""
    digest = hashlib.sha256(notebooks.fingerprint().encode())
    sources = [path for name in ("book", "static", "tools") for path in (notebooks.ROOT / name).rglob("*")]
    for path in sorted([*sources, *notebooks.ROOT.glob("_*.yml")]):
        if path.is_file() and not {"__pycache__", ".ipynb_checkpoints"} & set(path.parts):
            digest.update(f"{path.relative_to(notebooks.ROOT).as_posix()} {path.stat().st_size} ".encode())
            digest.update(path.read_bytes())
    for path in sorted(HTML.rglob("*")):
        digest.update(f"{path.relative_to(HTML).as_posix()} {path.stat().st_size if path.is_file() else ''}".encode())
    return digest.hexdigest()


def is_built() -> bool:
    """Whether the site stands as the last good build left it, and nothing it comes from changed."""
    return STAMP.exists() and STAMP.read_text() == stamp()


def build() -> int:
    """The pages, from executions already in the cache; returns Jupyter Book's exit status."""
    STAMP.unlink(missing_ok=True)
    shutil.rmtree(HTML, ignore_errors=True)  # no page of an earlier table of contents stays
    environment = dict(os.environ, PYTHONWARNINGS="ignore")
    command = [sys.executable, "-c", BOOK, "build", *STRICT, str(notebooks.ROOT)]
    status = subprocess.run(command, cwd=notebooks.ROOT, env=environment).returncode
    if not status:
        STAMP.write_text(stamp())
    return status


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--again", action="store_true", help="build the pages even if nothing changed")
    again = parser.parse_args().again
    started = time.monotonic()
    scale = os.environ.get("TL_SCALE", "") or "quick"
    print(f"Building the book at scale '{scale}'.", flush=True)
    if not again and is_built():
        print("Nothing changed since the last build: _build/html stands. To build anyway: tools/build_book.py --again")
        return 0
    status = notebooks.refresh()
    if status:
        print("A notebook failed; its traceback is above. The pages were not built.")
        return status
    print(f"Notebooks ready after {time.monotonic() - started:.0f} s. Building the pages ...", flush=True)
    status = build()
    seconds = time.monotonic() - started
    if status:
        print(f"The build failed after {seconds:.0f} s: every line with WARNING or ERROR above counts.")
    else:
        print(
            f"Built in {seconds:.0f} s into _build/html. To read it: make serve (diagrams need a server, not a file)."
        )
    return status


if __name__ == "__main__":
    sys.exit(main())
