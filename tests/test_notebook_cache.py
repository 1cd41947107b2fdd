"""Executed notebooks and built pages are kept, and made anew when what they come from changed (tools/notebooks.py)."""

import build_book
import nbformat
import notebooks
import yaml


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
