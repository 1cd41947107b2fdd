"""Shared by all tests: where things lie, and a safe environment for every test."""

import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


@pytest.fixture(autouse=True)
def _own_folders(monkeypatch, tmp_path_factory):
    """No test reads the developer's data or cache, or writes into the package's records."""
    monkeypatch.setenv("TL_CACHE", str(tmp_path_factory.mktemp("cache")))
    for name in ("TL_DATA", "TL_RECORD", "TL_SCALE", "TL_SCRATCH"):
        monkeypatch.delenv(name, raising=False)
