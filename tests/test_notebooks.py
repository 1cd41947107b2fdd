"""Notebooks as files: stripped, stable, in one form. Running them is nbmake's part."""

import re

import notebooks
import pytest
import sync
from conftest import ROOT
from written_pages import IDS, NOTEBOOKS, code_cells, read

MEASURED = [path for path in NOTEBOOKS if path.parent.name == "vgg16-cifar10"]
SOLUTION = "hide-cell"


@pytest.mark.parametrize("path", MEASURED, ids=[path.stem for path in MEASURED])
def test_ends_as_every_measured_chapter_does(path):
    """Exercises of three kinds, each with a hint and a solution that checks itself; quiz; take-away; papers."""
    cells = read(path)["cells"]
    prose = "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    solutions = ["".join(cell["source"]) for cell in cells if SOLUTION in cell["metadata"].get("tags", [])]
    assert all(f"**{stars} " in prose for stars in ("★", "★★", "★★★"))
    assert len(solutions) == prose.count("<details><summary>Hint</summary>") == len(re.findall(r"\*\*★+ ", prose)) >= 3
    assert all("assert" in solution for solution in solutions)
    assert "## Quiz" in prose and "## Papers" in prose and "**Predict" in prose
    lines = re.findall(r"^\d\. .*", prose.split("## Take-away")[1].split("## Papers")[0], re.M)
    assert len(lines) == 3 and max(map(len, lines)) <= 150, "three lines to take away"


ROWS = {  # what "All results at a glance" says of a network in typed words, and the code of its page that makes it so
    "how-good": (
        '("how-good", None, "fine-tuned", "blocks 4–5")',
        'unfreeze_from(model, "block4")',
    ),
    "fine-tuning": (
        '("fine-tuning", None, "from scratch", "with batch norm, a recipe of its own")',
        "build_vgg16_bn(",
    ),
}


@pytest.mark.parametrize("page", ROWS)
def test_all_results_describe_the_networks_of_their_pages(page):
    told, made = ROWS[page]
    at_a_glance, chapter = (
        "\n".join("".join(cell["source"]) for cell in code_cells(read(next(p for p in NOTEBOOKS if p.stem == stem))))
        for stem in ("results", page)
    )
    assert told in at_a_glance and made in chapter


def test_no_place_gives_a_quiz_away():
    """Among all questions with two answers, and with three, the right one stands in each place about equally often."""
    places = {2: [], 3: []}
    for path in NOTEBOOKS:
        prose = "\n\n".join("".join(cell["source"]) for cell in read(path)["cells"] if cell["cell_type"] == "markdown")
        for question in re.split(r"\n(?=\*\*\d\. )", prose.partition("## Quiz")[2].partition("## Take-away")[0])[1:]:
            answers = re.findall(r"</summary>\s*(\w+)", question)
            assert answers.count("Right") == 1, f"{path.stem}: {question[:80]}"
            places[len(answers)].append(answers.index("Right"))
    for answers, found in places.items():
        assert len(found) > 10 and max(map(found.count, range(answers))) <= 1.2 * len(found) / answers + 1, found


@pytest.mark.parametrize("path", NOTEBOOKS, ids=IDS)
class TestNotebook:
    def test_is_stripped(self, path):
        for cell in code_cells(read(path)):
            assert cell["outputs"] == [] and cell["execution_count"] is None, f"run `make sync`: {cell['id']}"
            assert "execution" not in cell["metadata"], f"run `make sync`: {cell['id']}"

    def test_has_stable_unique_ids(self, path):
        notebook = read(path)
        ids = [cell.get("id") for cell in notebook["cells"]]
        assert (notebook["nbformat"], notebook["nbformat_minor"]) >= (4, 5) and all(ids)
        assert len(ids) == len(set(ids)), [i for i in ids if ids.count(i) > 1]

    def test_names_the_plain_kernel(self, path):
        assert read(path)["metadata"]["kernelspec"]["name"] == "python3"

    def test_begins_with_the_course_s_first_cell(self, path):
        first = code_cells(read(path))[0]
        assert "".join(first["source"]) == sync.first_cell(sync.slug()), "run `make sync`"
        assert first["metadata"].get("tags") == [sync.FIRST_CELL_TAG]

    def test_opens_with_one_title(self, path):
        cells = read(path)["cells"]
        assert cells[0]["cell_type"] == "markdown" and "".join(cells[0]["source"]).startswith("# ")
        prose = re.sub(
            r"```.*?```", "", "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown"), flags=re.S
        )
        assert len(re.findall(r"^# ", prose, re.M)) == 1

    def test_skips_nothing_in_tests(self, path):
        """No mock changes what nbmake runs, so its outputs are the page's; no cell is expected to fail."""
        for cell in code_cells(read(path)):
            assert "nbmake" not in cell["metadata"], cell["id"]
            assert "raises-exception" not in cell["metadata"].get("tags", []), cell["id"]

    def test_has_short_cells(self, path):
        for cell in code_cells(read(path)):
            if "runtime.settings(" in "".join(cell["source"]):
                continue  # three scales side by side, one setting a line
            lines = [line for line in "".join(cell["source"]).splitlines() if line.strip()]
            assert len(lines) <= 20, f"{cell['id']}: {len(lines)} lines"

    def test_has_short_paragraphs(self, path):
        """Before the exercises, one idea a paragraph or item; what does not change the reading is folded fine print."""
        prose = [c for c in read(path)["cells"] if c["cell_type"] == "markdown"]
        thread = "\n\n".join("".join(cell["source"]) for cell in prose).partition("## Exercises")[0]
        pieces = re.split(r"\n{2,}|\n(?=\s*[-|] |\s*\d\. )", re.sub(r"```.*?```", "", thread, flags=re.S))
        assert not [piece for piece in pieces if len(piece.split()) > 90]
        assert thread.count("<details>") == len(re.findall(r"<details><summary>[^<\n]+</summary>\n\n", thread))
        assert thread.count("</details>") == thread.count("<details>") == len(re.findall(r"\n\n</details>", thread))

    def test_has_lines_that_fit_the_page(self, path):
        """The website's column holds 120 letters of code (static/course.css), and the formatter leaves strings alone."""
        for cell in code_cells(read(path)):
            if "remove-cell" not in cell["metadata"].get("tags", []):
                assert not [line for line in "".join(cell["source"]).splitlines() if len(line) > 120], cell["id"]

    def test_can_be_handed_out_without_its_solutions(self, path):
        """Every folded cell is a solution among the exercises, and no cell after them needs one."""
        heading, seen = "", None
        for cell in read(path)["cells"]:
            source = "".join(cell["source"])
            heading = (
                (re.findall(r"^## (.*)", source, re.M) or [heading])[-1] if cell["cell_type"] == "markdown" else heading
            )
            if SOLUTION in cell["metadata"].get("tags", []):
                assert "xercise" in heading, (
                    f"{cell['id']}: folded outside the exercises; the tag for that is hide-input"
                )
                seen = cell["id"]
            else:
                assert cell["cell_type"] == "markdown" or not seen, f"{cell['id']} comes after the solution {seen}"


def test_every_page_is_in_the_contents():
    listed = set(notebooks.pages())
    written = {p for p in (ROOT / "book").rglob("*") if p.suffix in (".md", ".ipynb") and "assignments" not in p.parts}
    assert written == listed, f"not in _toc.yml or missing: {sorted(p.name for p in written ^ listed)}"
