"""Build the website into _build/html: run the notebooks that need it, then Jupyter Book, strictly.

    python tools/build_book.py

A failing cell, a warning or a broken reference ends with a status other than zero.
"""

import os
import shutil
import subprocess
import sys
import time

import notebooks

BOOK = "from jupyter_book.cli.main import main; main()"  # the command itself, whatever the PATH
STRICT = ["-W", "-n", "--keep-going", "--all", "--quiet"]


def build() -> int:
    """The pages, from executions already in the cache; returns Jupyter Book's exit status."""
    shutil.rmtree(
        notebooks.ROOT / "_build" / "html", ignore_errors=True
    )  # no page of an earlier table of contents stays
    environment = dict(os.environ, PYTHONWARNINGS="ignore")
    command = [sys.executable, "-c", BOOK, "build", *STRICT, str(notebooks.ROOT)]
    return subprocess.run(command, cwd=notebooks.ROOT, env=environment).returncode


def main() -> int:
    started = time.monotonic()
    scale = os.environ.get("TL_SCALE", "") or "quick"
    print(f"Building the book at scale '{scale}'.", flush=True)
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
