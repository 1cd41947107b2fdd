"""All tests, in order: unit tests, every notebook, their bands, the strict site build, the site in a browser.

    python tools/run_tests.py

Each notebook is run once, by nbmake; the site is then built from those very executions.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import build_book
import notebooks

PYTEST = [sys.executable, "-m", "pytest"]


def step(name: str, action: Callable[[], int | str]) -> str:
    """Announce a step, run it, say how it ended and how long it took.

    Args:
        name: for the announcement.
        action: gives an exit status, or the verdict itself.
    Returns:
        ``passed``, ``FAILED`` or ``SKIPPED``, perhaps with a remark behind it.
    """
    print(f"\n== {name}", flush=True)
    started = time.monotonic()
    found = action()
    verdict = found if isinstance(found, str) else "FAILED" if found else "passed"
    print(f"== {name}: {verdict} after {time.monotonic() - started:.0f} s", flush=True)
    return verdict


def command(*parts: str) -> int:
    return subprocess.run(parts, cwd=notebooks.ROOT).returncode


def tests(*parts: str) -> str:
    """Run pytest; where every test was skipped (no browser) nothing has passed."""
    with tempfile.TemporaryDirectory(prefix="tl-tests-") as folder:
        told = Path(folder) / "tests.xml"
        if command(*PYTEST, f"--junit-xml={told}", *parts):
            return "FAILED"
        suite = ElementTree.parse(told).getroot().find("testsuite")
    run, skipped = int(suite.get("tests")), int(suite.get("skipped"))
    if skipped == run:
        return f"SKIPPED (all {run}; the report above says why)"
    return f"passed ({skipped} of {run} skipped)" if skipped else "passed"


def main() -> int:
    os.environ["TL_SCALE"] = "quick"
    os.environ["TL_DATA"] = ""  # embedded data alone: what lies there would add arms that have no band at quick
    with tempfile.TemporaryDirectory(prefix="tl-runs-") as folder:
        steps = {
            "unit tests": lambda: tests("-n", "2", "--ignore=tests/test_site.py", "tests"),
            "every notebook at quick scale": lambda: notebooks.refresh(everything=True, scratch=Path(folder)),
            "results inside their bands": lambda: command(
                sys.executable, "-m", "tl_helpers", "check-bands", "--folder", folder
            ),
            "strict site build": build_book.build,
            "the site in a browser": lambda: tests("tests/test_site.py"),
        }
        ended = {name: step(name, action) for name, action in steps.items()}
    print("\n" + "\n".join(f"{name}: {verdict}" for name, verdict in ended.items()))
    return 1 if "FAILED" in ended.values() else 0


if __name__ == "__main__":
    sys.exit(main())
