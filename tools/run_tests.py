"""All tests, in order: unit tests, every notebook, their bands, the strict site build, the site in a browser.

    python tools/run_tests.py

Each notebook is run once, by nbmake; the site is then built from those very executions.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import build_book
import notebooks

PYTEST = [sys.executable, "-m", "pytest"]


def step(name: str, action) -> bool:
    """Announce a step, run it, say how long it took."""
    print(f"\n== {name}", flush=True)
    started = time.monotonic()
    passed = action() == 0
    print(f"== {name}: {'passed' if passed else 'FAILED'} after {time.monotonic() - started:.0f} s", flush=True)
    return passed


def command(*parts: str) -> int:
    return subprocess.run(parts, cwd=notebooks.ROOT).returncode


def main() -> int:
    os.environ["TL_SCALE"] = "quick"
    os.environ["TL_DATA"] = ""  # embedded data alone: what lies there would add arms that have no band at quick
    with tempfile.TemporaryDirectory(prefix="tl-runs-") as folder:
        steps = {
            "unit tests": lambda: command(*PYTEST, "-n", "2", "--ignore=tests/test_site.py", "tests"),
            "every notebook at quick scale": lambda: notebooks.refresh(everything=True, scratch=Path(folder)),
            "results inside their bands": lambda: command(
                sys.executable, "-m", "tl_helpers", "check-bands", "--folder", folder
            ),
            "strict site build": build_book.build,
            "the site in a browser": lambda: command(*PYTEST, "tests/test_site.py"),
        }
        passed = {name: step(name, action) for name, action in steps.items()}
    print("\n" + "\n".join(f"{'passed' if ok else 'FAILED'}  {name}" for name, ok in passed.items()))
    return 0 if all(passed.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
