"""Shared by all tests: where things lie, a safe environment for every test, and a browser for those that need one."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tl_helpers import results, runtime

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge")
PLACES = (
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "C:/Program Files/Google/Chrome/Application/chrome.exe",
    "C:/Program Files (x86)/Microsoft/Edge/Application/msedge.exe",
)
CUT_OFF = [
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--disable-gpu",
    "--disable-quic",
]

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


@pytest.fixture(autouse=True)
def _own_folders(monkeypatch, tmp_path_factory):
    """No test reads the developer's data or cache, another test's runs, or writes into the package's records."""
    monkeypatch.setattr(results, "finished", [])
    monkeypatch.setenv("TL_CACHE", str(tmp_path_factory.mktemp("cache")))
    for name in ("TL_DATA", "TL_RECORD", "TL_RESUME", "TL_SCALE", "TL_SCRATCH"):
        monkeypatch.delenv(name, raising=False)


def code_of(page: str) -> dict[str, str]:
    """Cell id to source, of a notebook in the book."""
    notebook = json.loads((ROOT / "book" / page).read_text(encoding="utf-8"))
    return {cell["id"]: "".join(cell["source"]) for cell in notebook["cells"]}


def commit(folder: Path) -> None:
    """Make a folder a repository of its own in which all files are committed."""
    for command in (
        ["init", "-q"],
        ["add", "."],
        ["-c", "user.name=a", "-c", "user.email=a", "commit", "-qm", "first"],
    ):
        subprocess.run(["git", *command], cwd=folder, check=True)


def absent(reason: str):
    """Skip here, fail in continuous integration: a missing browser must not pass for a tested site."""
    if os.environ.get("CI", "").lower() in ("1", "true"):
        pytest.fail(f"CI=true, but {reason}")
    pytest.skip(reason)


def chromium() -> str | None:
    found = [shutil.which(name) for name in BROWSERS] + [path for path in PLACES if Path(path).exists()]
    return next((path for path in found if path), None)


@pytest.fixture(scope="session")
def browser():
    executable = chromium()
    if executable is None:
        absent("no Chromium, Chrome or Edge is installed")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=executable, args=[*CUT_OFF, "--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def server():
    """A web server on this machine, which misbehaves as told."""
    from local_server import Server

    running = Server()
    yield running
    running.close()


@pytest.fixture
def empty_folders(tmp_path, monkeypatch):
    """An empty cache and an empty folder for files placed by hand; no data set is remembered from another test."""
    (tmp_path / "hand").mkdir()
    monkeypatch.setenv("TL_DATA", str(tmp_path / "hand"))
    monkeypatch.setenv("TL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TL_SCALE", "laptop")
    from tl_helpers import datasets

    datasets._load.cache_clear()
    yield
    datasets._load.cache_clear()


@pytest.fixture
def by_hand(tmp_path):
    return tmp_path / "hand"


@pytest.fixture
def album(tmp_path):
    """A folder of two plain classes, red and blue."""
    from made_pictures import fill

    fill(tmp_path / "red", (200, 10, 10))
    fill(tmp_path / "blue", (10, 10, 200))
    return tmp_path


@pytest.fixture
def scratch(monkeypatch, tmp_path):
    """A folder for the runs of a test at quick, which records nothing."""
    monkeypatch.setenv("TL_SCRATCH", str(tmp_path))
    monkeypatch.setenv("TL_SCALE", "quick")
    monkeypatch.delenv("TL_RECORD", raising=False)
    return tmp_path


@pytest.fixture
def training_folders(monkeypatch, tmp_path):
    """Folders for the checkpoints and the runs of tests that train."""
    monkeypatch.setenv("TL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TL_SCRATCH", str(tmp_path / "runs"))


@pytest.fixture
def package_records(monkeypatch, tmp_path):
    """An empty folder in place of the package's records."""
    folder = tmp_path / "package"
    folder.mkdir()
    monkeypatch.setattr(runtime, "records_folder", lambda: folder)
    return folder
