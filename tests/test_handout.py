"""``make handout``: a page for students has no solution and no mark that only the site reads, and it runs."""

import re
import sys

import handout
import nbformat
import notebooks
import pytest
import sync
from conftest import ROOT
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from tl_helpers import notebook_runs

KERNEL = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
PROSE = """\
# A page

The {term}`head` of {term}`Two things <two thing>` won by {glue:text}`demo/a b`, see
[next](other.ipynb#part), [card](../reference/card.md) and ![a picture](pictures/a.png).
{cite:t}`pan2010survey` said so {cite}`vanlaarhoven2017l2,muller2019smoothing`; {cite:p}`caruana1997multitask` did not.

```{mermaid}
flowchart LR
  a --> b
```

```{note} Mind
:class: wide

The {term}`seed`.

It counts.
```

:::{unknown}
stays
:::

    ordinary code: {a}
"""
WORDS = """\
# A page

The head of Two things won by 0.634 ± 0.004 (3 seeds), it's said, see
[next](SITE/book/part/other.html#part), [card](SITE/book/reference/card.html) and ![a picture](pictures/a.png).
Pan and Yang (2010) said so (van Laarhoven, 2017; Müller et al., 2019); (Caruana, 1997) did not.

```mermaid
flowchart LR
  a --> b
```

> **Mind**
>
> The seed.
>
> It counts.

:::{unknown}
stays
:::

    ordinary code: {a}
"""
NUMBER = "0.634 ± 0.004 (3 seeds), it's said"
GLUES = f'from tl_helpers import report\n\nshown = report.glue_text("demo/a b", "{NUMBER}")'


def solution(source):
    return new_code_cell(source, metadata={"tags": ["hide-cell"], "jupyter": {"source_hidden": True}})


@pytest.fixture
def page(tmp_path, monkeypatch):
    """A small page in a repository of its own, with pictures beside it and the course's bibliography."""
    handout.works()  # of the course
    monkeypatch.setattr(handout, "ROOT", tmp_path)
    monkeypatch.setattr(handout, "FOLDER", tmp_path / "handouts")
    monkeypatch.setattr(notebooks, "CACHE", tmp_path / "_build" / "cache")
    monkeypatch.setattr(notebooks, "FINGERPRINT", tmp_path / "_build" / "fingerprint")
    path = tmp_path / "book" / "part" / "page.ipynb"
    (path.parent / "pictures").mkdir(parents=True)
    (path.parent / "pictures" / "a.png").write_bytes(b"picture")
    cells = [
        new_markdown_cell(PROSE),
        new_code_cell(GLUES, metadata={"tags": ["remove-cell"]}),
        new_markdown_cell("## Exercises\n\n**★ 1.** What?"),
        solution("# Solution\nanswer = 42"),
        solution("assert answer == 42"),
        new_markdown_cell("Why? The answer is large."),
        new_markdown_cell("**★★ 2.** And?"),
        solution("assert answer - 2 == 40"),
        new_markdown_cell("So much for the answer.\n\n## Quiz"),
        new_code_cell('assert open("pictures/a.png").read() == "picture"'),
    ]
    nbformat.write(new_notebook(cells=cells, metadata=KERNEL), path)
    return path


@pytest.fixture
def ask(page, monkeypatch):
    def asked(*words):
        monkeypatch.setattr(sys, "argv", ["handout.py", *map(str, words)])
        return handout.main()

    return asked


@pytest.fixture
def executed(page, tmp_path):
    """A folder with the page as it ran, with MyST-NB's own glue."""
    ran = nbformat.read(page, as_version=4)
    NotebookClient(ran, resources={"metadata": {"path": str(page.parent)}}).execute()
    (tmp_path / "executed").mkdir()
    nbformat.write(ran, tmp_path / "executed" / "page.ipynb")
    return tmp_path / "executed"


def test_a_handout_has_words_numbers_and_no_solution_and_runs(page, ask, executed, capsys):
    before = page.read_bytes()
    assert ask("book/part/page.ipynb", "--executed", executed) == 0
    assert capsys.readouterr().out == "handouts/part/page.ipynb: 2 solutions taken out\n"
    made = handout.FOLDER / "part" / "page.ipynb"
    cells = nbformat.read(made, as_version=4).cells
    nbformat.validate(nbformat.read(made, as_version=4))
    assert cells[0].source == WORDS.replace("SITE", sync.pages_url(sync.slug()))
    assert [c.source for c in cells[2:7]] == [
        "## Exercises\n\n**★ 1.** What?",
        "# your solution",
        "**★★ 2.** And?",
        "# your solution",
        "## Quiz",
    ]
    assert "answer" not in made.read_text(encoding="utf-8") and not any(c.get("outputs") for c in cells)
    assert all(not c.metadata for c in cells if c.source == handout.EMPTY), "neither folded nor tagged"
    assert page.read_bytes() == before
    notebook_runs.execute(made, {})


def test_without_an_executed_copy_the_sentence_says_which_number_it_is(ask, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    for words in (["book/part/page.ipynb"], [tmp_path / "book/part/page.ipynb", "--executed", tmp_path / "empty"]):
        ask(*words)
        assert "1 numbers left out" in capsys.readouterr().out
        text = (handout.FOLDER / "part" / "page.ipynb").read_text(encoding="utf-8")
        assert "won by (run the page: demo/a b), see" in text


def test_numbers_come_from_the_last_build_while_nothing_changed_since(page):
    cache = notebooks.open_cache()
    ran = nbformat.read(page, as_version=4)
    for count, cell in enumerate(c for c in ran.cells if c.cell_type == "code"):
        cell.execution_count = count + 1
    told = {"scrapbook": {"name": "demo/a b", "mime_prefix": handout.RECORD}}
    shown = nbformat.v4.new_output("display_data", {f"{handout.RECORD}text/plain": repr(NUMBER)}, metadata=told)
    ran.cells[1].outputs = [shown]
    cache.cache_notebook_bundle(notebooks.CacheBundleIn(ran, str(page)), check_validity=False)
    assert f"won by {NUMBER}, see" in handout.hand_out(page)[1].cells[0].source
    notebooks.FINGERPRINT.write_text("of other records")
    assert "(run the page: demo/a b)" in handout.hand_out(page)[1].cells[0].source
    assert notebooks.CACHE.is_dir(), "a handout empties no cache"


@pytest.mark.parametrize("change", ["other code", "not finished", "failed"])
def test_a_copy_of_another_version_is_refused(page, ask, tmp_path, capsys, change):
    ran = nbformat.read(page, as_version=4)
    for cell in (c for c in ran.cells if c.cell_type == "code"):
        cell.execution_count = None if change == "not finished" else 1
    if change == "failed":
        ran.cells[1].outputs = [nbformat.v4.new_output("error", ename="a", evalue="a", traceback=[])]
    if change == "other code":
        ran.cells[3].source = "answer = 41"
    nbformat.write(ran, tmp_path / "page.ipynb")
    with pytest.raises(SystemExit):
        ask(page, "--executed", tmp_path)
    assert "must be this version of page.ipynb, executed to its end" in capsys.readouterr().err
    assert not handout.FOLDER.exists()


@pytest.mark.parametrize(
    "words, told",
    [
        ([], "NOTEBOOK"),
        (["book/part/page.ipynb", "book/part/none.ipynb"], "notebooks must exist under"),
        (["book/part/page.ipynb", "--executed", "nowhere"], "--executed must be a folder. Received: nowhere"),
    ],
)
def test_a_wrong_call_is_explained_and_writes_nothing(ask, capsys, words, told):
    with pytest.raises(SystemExit) as refused:
        ask(*words)
    assert refused.value.code == 2 and told in capsys.readouterr().err and not handout.FOLDER.exists()


def test_an_unknown_work_is_named():
    with pytest.raises(ValueError, match="Received: nobody1900"):
        handout.plain("As {cite:t}`nobody1900` says", ROOT / "book" / "math" / "a.ipynb", {})


def test_every_page_of_the_book_can_be_handed_out(monkeypatch):
    monkeypatch.setattr(handout, "built", lambda page: None)
    for source in notebooks.notebooks():
        page = nbformat.read(source, as_version=4)
        path, made = handout.hand_out(source)
        prose = "\n".join(cell.source for cell in made.cells if cell.cell_type == "markdown")
        assert path.relative_to(handout.FOLDER) == source.relative_to(ROOT / "book")
        assert not re.findall(r"\{[\w:-]+\}`|(?:```|:::)\{|\]\([^)]*\.ipynb", prose), source.name
        assert not any(handout.SOLUTION in cell.metadata.get("tags", []) for cell in made.cells)
        solutions = [c for c in page.cells if handout.SOLUTION in c.metadata.get("tags", [])]
        assert not {c.source for c in solutions} & {c.source for c in made.cells}, source.name
