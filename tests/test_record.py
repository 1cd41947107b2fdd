"""``make record``: what a recording has written reaches the working tree, also after it was killed."""

import os
import signal
import subprocess
import sys
import time

import pytest
from conftest import commit

from tools import record


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A small repository with one committed record, and the recording's clone of it."""
    root = tmp_path / "repository"
    (root / record.RECORDS).mkdir(parents=True)
    (root / record.RECORDS / "demo.jsonl").write_text("old\n", encoding="utf-8")
    (root / "book").mkdir()
    (root / "book" / "demo.ipynb").write_text("committed", encoding="utf-8")
    commit(root)
    monkeypatch.setattr(record, "ROOT", root)
    monkeypatch.setattr(record, "CLONE", root / ".cache" / "recording")
    record.clone()
    return root


def lines(root):
    return (root / record.RECORDS / "demo.jsonl").read_text(encoding="utf-8").splitlines()


def write(text):
    with (record.CLONE / record.RECORDS / "demo.jsonl").open("a", encoding="utf-8", newline="\n") as file:
        file.write(text)


def test_whole_new_lines_are_carried_once(repository):
    write("new\nhalf")
    assert record.carry_back() == ["demo.jsonl: 1 lines"] and record.carry_back() == []
    write(" done\n")
    assert record.carry_back() == ["demo.jsonl: 1 lines"]
    assert lines(repository) == ["old", "new", "half done"]


def test_what_the_working_tree_dropped_does_not_come_back(repository):
    (repository / record.RECORDS / "demo.jsonl").write_text("", encoding="utf-8")
    write("new\n")
    record.carry_back()
    assert lines(repository) == ["new"]


def test_a_killed_recording_is_carried_by_the_next_one_which_sees_it(repository, capsys):
    write("new\n")
    record.clone()
    assert lines(repository) == ["old", "new"] and "demo.jsonl: 1 lines" in capsys.readouterr().out
    assert lines(record.CLONE) == ["old", "new"]


def test_a_line_with_signs_that_python_takes_for_line_ends_is_carried_whole(repository):
    write("one\u2028two\u0085three\n")
    assert record.carry_back() == ["demo.jsonl: 1 lines"] and record.carry_back() == []
    text = (repository / record.RECORDS / "demo.jsonl").read_text(encoding="utf-8")
    assert text == "old\none\u2028two\u0085three\n"


def test_an_empty_file_brings_no_line(repository):
    (record.CLONE / record.RECORDS / "more.jsonl").touch()
    assert record.carry_back() == []


def test_what_git_says_is_read_as_utf_8(repository, monkeypatch):
    run, seen = subprocess.run, []
    monkeypatch.setattr(subprocess, "run", lambda *args, **how: seen.append(how.get("encoding")) or run(*args, **how))
    record.carry_back()
    assert seen and set(seen) == {"utf-8"}


def test_a_clone_with_read_only_files_is_removed_where_the_system_refuses_that(repository, monkeypatch):
    """Windows does not delete a read-only file, and git makes its objects so."""
    unlink = os.unlink

    def on_windows(path, *, dir_fd=None):
        if not os.stat(path, dir_fd=dir_fd).st_mode & 0o200:
            raise PermissionError(path)
        unlink(path, dir_fd=dir_fd)

    monkeypatch.setattr(os, "unlink", on_windows)
    record.remove(record.CLONE)
    assert not record.CLONE.exists()
    record.remove(record.CLONE)


@pytest.fixture
def asked(repository, monkeypatch):
    """A recording is asked for; how it is called, what ran and what the clone's notebook then held."""
    ran = []

    def run(notebook, scale):
        ran.append((notebook, scale, (record.CLONE / notebook).read_text(encoding="utf-8")))
        return True

    def ask(*words):
        monkeypatch.setattr(sys, "argv", ["record.py", *map(str, words)])
        return record.main()

    monkeypatch.setattr(record, "run", run)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    ask.ran = ran
    return ask


def test_a_second_recording_is_refused_and_leaves_the_running_one_s_clone_alone(repository, asked):
    write("half")
    with record.alone(), pytest.raises(SystemExit, match=rf"a recording is running \(process {os.getpid()}\): wait"):
        asked("book/demo.ipynb")
    assert lines(record.CLONE) == ["old", "half"] and asked.ran == []
    assert asked("book/demo.ipynb") == 0, "free again"


def test_the_lock_is_held_while_a_notebook_runs(asked, monkeypatch):
    def run(notebook, scale):
        with pytest.raises(SystemExit, match="a recording is running"), record.alone():
            pass
        return False

    monkeypatch.setattr(record, "run", run)
    assert asked("book/demo.ipynb") == 1


def test_a_notebook_named_in_full_or_around_a_corner_runs_as_committed(repository, asked):
    here = repository / "book" / "demo.ipynb"
    here.write_text("not committed", encoding="utf-8")
    asked(here, f"../{repository.name}/book/demo.ipynb", "--scale", "quick")
    assert asked.ran == [("book/demo.ipynb", "quick", "committed")] * 2


@pytest.mark.parametrize("name", ["../other.ipynb", "tl_helpers/records/demo.jsonl", "other.ipynb", "book/none.ipynb"])
def test_what_is_no_notebook_of_the_book_is_refused(repository, asked, capsys, name):
    for path in (repository.parent / "other.ipynb", repository / "other.ipynb"):
        path.touch()
    for form in (name, repository / name):
        with pytest.raises(SystemExit) as refused:
            asked(form)
        assert refused.value.code == 2 and "notebooks must exist under" in capsys.readouterr().err
    assert asked.ran == []


@pytest.mark.skipif(os.name == "nt", reason="Windows ends a process without asking it")
def test_who_stops_a_recording_leaves_no_notebook_running(monkeypatch, tmp_path):
    started = []

    def popen(command, **how):
        started.append(real([sys.executable, "-c", "import time; time.sleep(60)"]))
        return started[0]

    def stopped_meanwhile():
        sys.exit(143)

    real = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", popen)
    monkeypatch.setattr(record, "CARRY_EVERY_SECONDS", 0.01)
    monkeypatch.setattr(record, "carry_back", stopped_meanwhile)
    began = time.monotonic()
    with pytest.raises(SystemExit):
        record.run("book/demo.ipynb", "quick")
    assert started[0].returncode == -signal.SIGTERM and time.monotonic() - began < 20
