"""The pages of the book as files, for tests that read them."""

import json

from conftest import ROOT

NOTEBOOKS = sorted((ROOT / "book").rglob("*.ipynb"))
IDS = [path.relative_to(ROOT / "book").as_posix() for path in NOTEBOOKS]
PAGES = [path for path in sorted((ROOT / "book").rglob("*.md")) if "assignments" not in path.parts]


def read(path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def code_cells(notebook: dict) -> list[dict]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
