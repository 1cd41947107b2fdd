"""``make record``: what a recording has written reaches the working tree, also after it was killed."""

import os
import subprocess

import pytest

from tools import record


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A small repository with one committed record, and the recording's clone of it."""
    root = tmp_path / "repository"
    (root / record.RECORDS).mkdir(parents=True)
    (root / record.RECORDS / "demo.jsonl").write_text("old\n", encoding="utf-8")
    for command in (
        ["init", "-q"],
        ["add", "."],
        ["-c", "user.name=a", "-c", "user.email=a", "commit", "-qm", "first"],
    ):
        subprocess.run(["git", *command], cwd=root, check=True)
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
