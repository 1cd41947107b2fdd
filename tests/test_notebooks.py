"""Notebooks as files: stripped, stable, in one form, and free of typed results. Running them is nbmake's part."""

import json
import re

import build_book
import nbformat
import notebooks
import pytest
import sync
import yaml
from conftest import ROOT

NOTEBOOKS = sorted((ROOT / "book").rglob("*.ipynb"))
IDS = [path.relative_to(ROOT / "book").as_posix() for path in NOTEBOOKS]
MEASURED = [path for path in NOTEBOOKS if path.parent.name == "vgg16-cifar10"]
PAGES = [path for path in sorted((ROOT / "book").rglob("*.md")) if "assignments" not in path.parts]
SOLUTION = "hide-cell"

# A result of ours typed into prose: a word for a measured quantity near a bare number, or a number with a unit of time.
QUANTITY = r"(accuracy|accurate|error rate|test loss|validation loss|training loss|precision|recall|F1|speed-?up)"
LINK = r"(is|was|of|reaches|reached|gets|got|gives|gave|at|to|about|around|rises|falls|=|≈|:)"
TYPED = [
    re.compile(rf"(?i)\b{QUANTITY}\b[^.\n|]{{0,25}}\b{LINK}\s+\**(0\.\d{{2,4}}|\d{{1,2}}(\.\d+)?\s?%)"),
    re.compile(
        r"(?i)\b(takes|took|lasts|lasted|in|after|faster by|slower by)\s+\**\d+(\.\d+)?\s?(seconds|minutes|s|min|ms)\b(?! (or|per))"
    ),
    re.compile(r"(?i)\b\d+(\.\d+)?\s?(times|×|x) (faster|slower|better|worse)\b"),
    re.compile(rf"(?i)\b{QUANTITY}\b[^.\n|]{{0,40}}\bfrom\s+(0\.\d{{2,4}}|\d{{1,2}}(\.\d+)?\s?%)\s+to\b"),
    re.compile(r"(?i)\b\d{1,2}(\.\d+)?\s?(%|per cent|percent) (right|correct|wrong)\b"),
]
# Where a number is no result of ours: an exercise's or a thought experiment's assumption, or a prediction to be made.
# The word must stand before the number, in the same clause: "if you look, accuracy is 0.83" is a typed result.
ALLOWED = re.compile(
    r"(?i)\b(suppose|imagine|assume|guess|predict|pretend|by chance|chance level|claims?|document 00\d"
    r"|if (a|an|one|the|its|your|some|two|each)|(say|let) (a|an|one|your|some)|would|for example)\b[^,;.]*$"
)


def read(path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def code_cells(notebook: dict) -> list[dict]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def typed_results(text: str) -> list[str]:
    """Sentences in which a measured number seems to be typed; code, formulas, glue and links are left out."""
    for pattern in (
        r"```.*?```",
        r"\$\$.*?\$\$",
        r"\$[^$\n]+\$",
        r"\{[a-z:]+\}`[^`]*`",
        r"`[^`]*`",
        r"\]\([^)]*\)",
        r"<[^>]+>",
    ):
        text = re.sub(pattern, " ", text, flags=re.S)
    sentences = re.split(r"(?<=[.!?])\s+|\n{2,}|\n(?=[-|#>])", text)
    found = [(s.strip(), hit) for s in sentences for p in TYPED for hit in p.finditer(s)]
    before = lambda hit: re.sub(r"\**[\d.]+\s?\S*( \w+)?$", "", hit.string[: hit.end()])  # noqa: E731
    return list(dict.fromkeys(s for s, hit in found if not ALLOWED.search(before(hit))))


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

    def test_types_no_result(self, path):
        found = [
            s
            for cell in read(path)["cells"]
            if cell["cell_type"] == "markdown"
            for s in typed_results("".join(cell["source"]))
        ]
        assert not found, "take these numbers by glue or from a code cell:\n" + "\n".join(found)

    def test_types_no_result_into_a_caption(self, path):
        for cell in code_cells(read(path)):
            shown = cell["metadata"].get("mystnb", {})
            texts = [shown.get("figure", {}).get("caption", ""), shown.get("image", {}).get("alt", "")]
            assert not [s for text in texts for s in typed_results(text)], cell["id"]

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


@pytest.mark.parametrize(
    "text",
    [
        "The accuracy is 0.83.",
        "It reaches a test accuracy of 83 %.",
        "One epoch takes 12 s.",
        "This is 9.7 times faster.",
        "The validation loss falls to 0.41 at the end.",
        "If you look at the table, the accuracy is 0.83.",
        "Let us see: it reaches a test accuracy of 83 %.",
        "We say the accuracy is 0.71.",
        "Accuracy climbed from 0.62 to 0.71.",
        "It got 71.3 % right.",
    ],
)
def test_a_typed_result_is_noticed(text):
    assert typed_results(text)


@pytest.mark.parametrize(
    "text",
    [
        "The accuracy is {glue:text}`x/y/test_accuracy`.",
        "Suppose the accuracy is 0.83.",
        "Train with a learning rate of 0.01.",
        "Document 000 claims an accuracy of 0.8250.",
        "With 100 labels a class.",
        "A dropout of 0.5 is used.",
        "Predict: is the accuracy above 50 %?",
        "If the accuracy is 0.83, how wide is the interval?",
        "Such a model would get 10 % right.",
    ],
)
def test_other_numbers_are_left_alone(text):
    assert not typed_results(text)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_a_page_of_prose_types_no_result(path):
    assert typed_results(path.read_text(encoding="utf-8")) == []


def test_every_page_is_in_the_contents():
    listed = set(notebooks.pages())
    written = {p for p in (ROOT / "book").rglob("*") if p.suffix in (".md", ".ipynb") and "assignments" not in p.parts}
    assert written == listed, f"not in _toc.yml or missing: {sorted(p.name for p in written ^ listed)}"


def test_the_cache_forgets_when_the_package_changes(monkeypatch, tmp_path):
    """A changed helper, record or lock gives another fingerprint, and with it an empty cache."""
    for name in ("tl_helpers/records", "tl_helpers/weights"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("requirements.txt", "tl_helpers/a.py", "tl_helpers/records/x.jsonl", "tl_helpers/weights/w.npz"):
        (tmp_path / name).write_text("one")
    monkeypatch.setattr(notebooks, "ROOT", tmp_path)
    seen = {notebooks.fingerprint()}
    for name in ("requirements.txt", "tl_helpers/a.py", "tl_helpers/records/x.jsonl", "tl_helpers/weights/w.npz"):
        (tmp_path / name).write_text("two")
        seen.add(notebooks.fingerprint())
    monkeypatch.setenv("TL_SCALE", "laptop")
    seen.add(notebooks.fingerprint())
    assert len(seen) == 6


def test_pages_are_built_again_when_anything_they_come_from_changed(monkeypatch, tmp_path):
    """A source, the package or a page changed, new or lost: the last build no longer counts."""
    html = tmp_path / "_build" / "html"
    for name in ("tl_helpers", "book", "_build/html/book"):
        (tmp_path / name).mkdir(parents=True)
    written = [tmp_path / n for n in ("requirements.txt", "_toc.yml", "book/a.ipynb", "tl_helpers/a.py")]
    for path in [*written, html / "index.html", html / "book" / "a.html"]:
        path.write_text("one")
    monkeypatch.setattr(notebooks, "ROOT", tmp_path)
    monkeypatch.setattr(build_book, "HTML", html)
    monkeypatch.setattr(build_book, "STAMP", tmp_path / "_build" / ".built")
    assert not build_book.is_built()
    build_book.STAMP.write_text(build_book.stamp())
    assert build_book.is_built()
    for path in written:
        path.write_text("two")
        assert not build_book.is_built(), path
        path.write_text("one")
    assert build_book.is_built()
    (tmp_path / "book" / "b.md").write_text("new")
    assert not build_book.is_built()
    (tmp_path / "book" / "b.md").unlink()
    (html / "book" / "a.html").unlink()
    assert not build_book.is_built()


def test_a_failing_cell_fails_the_build_and_only_it_runs_again(monkeypatch, tmp_path, capfd):
    from nbformat.v4 import new_code_cell, new_notebook

    pages = {"good": "assert open('pictures/recorded.png').read() == 'seen'", "bad": "1 / 0"}
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "recorded.png").write_text("seen")
    for name, source in pages.items():
        nbformat.write(new_notebook(cells=[new_code_cell(source)]), tmp_path / f"{name}.ipynb")
    toc = {"root": "index", "parts": [{"chapters": [{"file": name} for name in pages]}]}
    (tmp_path / "_toc.yml").write_text(yaml.safe_dump(toc))
    (tmp_path / "requirements.txt").write_text("")
    monkeypatch.setattr(notebooks, "ROOT", tmp_path)
    monkeypatch.setattr(notebooks, "CACHE", tmp_path / "_build" / "cache")
    monkeypatch.setattr(notebooks, "FINGERPRINT", tmp_path / "_build" / "fingerprint")
    monkeypatch.setattr(notebooks, "COPIES", tmp_path / "copies")
    assert notebooks.refresh() != 0
    assert "2 to run" in capfd.readouterr().out
    assert notebooks.refresh() != 0
    assert "1 to run" in capfd.readouterr().out
    assert notebooks.is_cached(notebooks.open_cache(), tmp_path / "good.ipynb")


def test_only_a_complete_execution_is_kept():
    def notebook(*cells):
        from nbformat.v4 import new_code_cell, new_notebook, new_output

        made = [
            new_code_cell(source, execution_count=count, outputs=[new_output("error")] if bad else [])
            for source, count, bad in cells
        ]
        return new_notebook(cells=made)

    assert notebooks.finished(notebook(("1", 1, False), ("2", 2, False)))
    assert not notebooks.finished(notebook(("1", 1, False), ("2", None, False)))
    assert not notebooks.finished(notebook(("1", 1, True)))
