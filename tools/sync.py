"""Carry what is set in one place into every file that repeats it, and strip notebooks of outputs.

    python tools/sync.py            write
    python tools/sync.py --check    say what is out of step, and end with status 1 if anything is

The repository's address is set in pyproject.toml ([project.urls] Repository); badges, launch buttons, links and each
notebook's first cell follow. The bibliography's files in _config.yml follow from book/references.d, the tables of
book/teaching.md from what the chapters say of themselves.
"""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import teaching_page

ROOT = Path(__file__).resolve().parent.parent
TEXT = {".md", ".yml", ".cff", ".toml", ".ipynb", ".html"}
FIRST_CELL_TAG = "remove-cell"
FIRST_CELL = """\
import importlib.util

# On Colab: adds the helpers, leaves TensorFlow and Keras as they are.
if importlib.util.find_spec("tl_helpers") is None:
    %pip install --quiet --no-deps "tl-helpers @ git+https://github.com/{slug}" pooch platformdirs
importlib.import_module("tl_helpers.runtime")  # before Keras: its TensorFlow gets faster on older processors"""


def slug() -> str:
    """OWNER/NAME of the repository, as set in pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return project["urls"]["Repository"].removeprefix("https://github.com/").strip("/")


def written_slug() -> str:
    """OWNER/NAME as the site's configuration has it."""
    found = re.search(r"^  url: https://github\.com/(\S+)", (ROOT / "_config.yml").read_text(encoding="utf-8"), re.M)
    return found.group(1) if found else ""


def pages_url(address: str) -> str:
    owner, name = address.split("/")
    return f"https://{owner.lower()}.github.io/{name}"


def first_cell(address: str) -> str:
    return FIRST_CELL.format(slug=address)


def files() -> list[Path]:
    """Text files of the checkout that git knows or would add."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    found = (ROOT / name for name in sorted(set(listed.stdout.splitlines())))
    return [p for p in found if p.suffix in TEXT and "lib" not in p.relative_to(ROOT).parts and p.is_file()]


def with_address(text: str, old: str, new: str) -> str:
    if old == new:
        return text
    return text.replace(pages_url(old), pages_url(new)).replace(old, new)


def with_bibliography(text: str) -> str:
    entries = sorted(p.relative_to(ROOT).as_posix() for p in (ROOT / "book" / "references.d").glob("*.bib"))
    if (ROOT / "book" / "references.bib").exists():
        entries.insert(0, "book/references.bib")
    listed = "".join(f"  - {entry}\n" for entry in entries)
    return re.sub(r"(^bibtex_bibfiles:.*\n)(?:  - .*\n)*", lambda m: m.group(1) + listed, text, flags=re.M)


def with_first_cell(notebook: dict, address: str) -> dict:
    """The notebook with the course's first code cell; outputs, execution counts and times removed."""
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    for cell in code:
        cell["outputs"], cell["execution_count"] = [], None
        cell["metadata"].pop("execution", None)
    if code and FIRST_CELL_TAG in code[0]["metadata"].get("tags", []):
        code[0]["source"] = first_cell(address).splitlines(keepends=True)
    return notebook


def wanted(path: Path, text: str, old: str, new: str) -> str:
    """What the file should hold."""
    text = with_address(text, old, new)
    if path.suffix == ".ipynb":
        return json.dumps(with_first_cell(json.loads(text), new), indent=1, ensure_ascii=False) + "\n"
    if path.name == "teaching.md":
        return teaching_page.with_tables(text)
    return with_bibliography(text) if path.name == "_config.yml" else text


def main(check: bool) -> int:
    old, new = written_slug(), slug()
    changed = []
    for path in files():
        text = path.read_text(encoding="utf-8")
        after = wanted(path, text, old, new)
        if after != text:
            changed.append(path.relative_to(ROOT).as_posix())
            if not check:
                path.write_text(after, encoding="utf-8", newline="\n")
    verb = "out of step (run `make sync`)" if check else "written"
    print("\n".join(f"{verb}: {name}" for name in changed) or "All files are in step.")
    return 1 if check and changed else 0


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv[1:]))
