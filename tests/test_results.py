"""Run records: written whole, refused early, read again."""

import json
import os
import re
import subprocess
import sys
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from conftest import commit
from made_records import put

from tl_helpers import record_files, report, results, runtime


def test_a_finished_run_is_one_complete_line(scratch):
    run = results.Run("demo", arm="a", seed=3, recipe={"epochs": 1})
    run.finish({"test_accuracy": 0.5, "test_accuracy_ci95": [0.4, 0.6]})
    (line,) = (scratch / "demo.jsonl").read_text().splitlines()
    record = json.loads(line)
    assert record["metrics"] == {"test_accuracy": 0.5, "test_accuracy_ci95": [0.4, 0.6]}
    assert (record["seed"], record["scale"], record["schema"]) == (3, "quick", 1)
    assert {"device", "versions", "commit", "dirty", "started", "seconds", "split", "backbone"} <= set(record)


def test_a_full_disk_leaves_no_half_record_and_keeps_the_checkpoint(scratch, package_records, monkeypatch):
    results.append({"experiment": "demo", "arm": "before"})
    monkeypatch.setenv("TL_RECORD", "1")
    results.append({"experiment": "demo", "arm": "before"})
    before, write, forgotten = (package_records / "demo.jsonl").read_text(), os.write, []
    run = results.Run("demo", arm="a", seed=0)
    run.when_finished(lambda: forgotten.append(True))
    monkeypatch.setattr(os, "write", lambda handle, line: write(handle, line[: len(line) // 2]))
    with pytest.raises(OSError, match="record of demo cannot be written"):
        run.finish({"loss": 1.0})
    assert (package_records / "demo.jsonl").read_text() == before
    assert not forgotten and not results.finished
    monkeypatch.setattr(os, "write", write)
    run.finish({"loss": 1.0})
    assert forgotten and len((package_records / "demo.jsonl").read_text().splitlines()) == 2


def test_without_recording_a_folder_that_cannot_be_written_is_a_warning(scratch, monkeypatch):
    (scratch / "in the way").write_text("a file")
    monkeypatch.setenv("TL_SCRATCH", str(scratch / "in the way" / "runs"))
    run, forgotten = results.Run("demo", arm="a", seed=0), []
    run.when_finished(lambda: forgotten.append(True))
    with pytest.warns(UserWarning, match="set TL_SCRATCH to a folder of yours"):
        run.finish({"loss": 1.0})
    assert results.finished == [run.record] and not forgotten


def test_a_run_finishes_once_and_only_with_finite_numbers(scratch):
    run = results.Run("demo", arm="a", seed=0)
    with pytest.raises(ValueError, match="finite"):
        run.finish({"loss": float("nan")})
    assert not (scratch / "demo.jsonl").exists()
    run.finish({"loss": 1.0})
    with pytest.raises(RuntimeError, match="finished already"):
        run.finish({"loss": 1.0})


def test_names_that_are_no_file_names_are_refused():
    with pytest.raises(ValueError, match="experiment must be made of"):
        results.Run("../escape", arm="a", seed=0)


def test_recording_goes_to_the_package_only_when_asked(scratch, package_records, monkeypatch):
    results.Run("demo", arm="a", seed=0).finish({"x": 1})
    assert not (package_records / "demo.jsonl").exists()
    monkeypatch.setenv("TL_RECORD", "1")
    results.Run("demo", arm="a", seed=0).finish({"x": 1})
    assert (package_records / "demo.jsonl").exists()


def test_the_newest_of_each_arm_and_seed_counts(tmp_path):
    put(tmp_path, seed=0, test_accuracy=0.1)
    put(tmp_path, seed=1, test_accuracy=0.2)
    put(tmp_path, seed=0, test_accuracy=0.3)
    put(tmp_path, seed=0, scale="quick", test_accuracy=0.9)
    assert [r["metrics"]["test_accuracy"] for r in results.load("demo", scale="full", folder=tmp_path)] == [0.3, 0.2]
    assert len(results.load("demo", folder=tmp_path)) == 3


def test_a_damaged_line_is_named(tmp_path):
    put(tmp_path, x=1)
    with open(tmp_path / "demo.jsonl", "a") as file:
        file.write('{"scale": "full"\n')
    with pytest.raises(ValueError, match="demo.jsonl line 2"):
        results.load("demo", folder=tmp_path)


def test_a_line_whose_end_was_lost_does_not_take_the_next_record_with_it(scratch):
    results.Run("demo", arm="a", seed=0).finish({"x": 1})
    path = scratch / "demo.jsonl"
    path.write_bytes(path.read_bytes().rstrip(b"\n"))
    results.Run("demo", arm="a", seed=1).finish({"x": 2})
    assert [r["metrics"]["x"] for r in results.load("demo", folder=scratch)] == [1, 2]


def test_metrics_may_be_arrays_and_small(scratch):
    record = results.Run("demo", arm="a", seed=0).finish(
        {"matrix": np.eye(2, dtype=int), "p": np.float32(4e-8), "of": ["a"], "loss": 1.23456789}
    )
    assert record["metrics"] == {"matrix": [[1, 0], [0, 1]], "p": 4e-8, "of": ["a"], "loss": 1.234568}


def test_a_record_names_the_code_that_was_there_when_the_run_began(scratch, monkeypatch):
    monkeypatch.setattr(results, "_commit", lambda: {"commit": "a" * 40, "dirty": False})
    run = results.Run("demo", arm="a", seed=0)
    monkeypatch.setattr(results, "_commit", lambda: {"commit": "b" * 40, "dirty": False})
    assert run.finish({"x": 1})["commit"] == "a" * 40


def test_a_commit_is_the_packages_own_and_dirty_where_more_than_records_changed(tmp_path, monkeypatch):
    package = tmp_path / "tl_helpers"
    (package / "records").mkdir(parents=True)
    for name in ("a.py", "records/demo.jsonl"):
        (package / name).write_text("one")
    monkeypatch.setattr(runtime, "PACKAGE", package)
    asked = results._commit.__wrapped__  # without the memory of what this process runs from
    assert asked() == {"commit": None, "dirty": None}, "no repository"
    commit(tmp_path)
    (package / "records" / "demo.jsonl").write_text("two")
    (package / "new.py").touch()
    found = asked()
    assert re.fullmatch("[0-9a-f]{40}", found["commit"]) and found["dirty"] is False
    (package / "a.py").write_text("two")
    assert asked() == {**found, "dirty": True}
    inside = package / "inside" / "tl_helpers"
    inside.mkdir(parents=True)
    monkeypatch.setattr(runtime, "PACKAGE", inside)
    assert asked() == {"commit": None, "dirty": None}, "another project's commit is not ours"


def test_many_writers_never_mix_lines(scratch):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: results.Run("demo", arm="a", seed=i).finish({"x": i}), range(40)))
    assert sorted(r["seed"] for r in results.load("demo", folder=scratch)) == list(range(40))


def test_shipped_full_records_say_what_they_need():
    for experiment in results.experiments():
        for record in results.load(experiment):
            assert record["schema"] == 1 and record["metrics"], experiment
            assert record["data"] is None or {"name", "copy", "sha256"} <= set(record["data"]), experiment


def test_records_that_pages_show_at_full_say_where_they_come_from():
    """Only what was measured without training (a cost, a field of view) has no split."""
    newest = [record for name in results.experiments() for record in report.recorded(name)[1]]
    for record in (record for record in newest if record["scale"] == "full"):
        where = f"{record['experiment']} / {record['pair']} / {record['arm']} / seed {record['seed']}"
        assert re.fullmatch("[0-9a-f]{40}", record["commit"]) and record["dirty"] is False, where
        for named in filter(None, (record["weights"], record["data"])):
            assert named["name"] and re.fullmatch("[0-9a-f]{64}", named["sha256"]), where
        if record["split"] is not None or record["recipe"] is not None:
            assert record["split"]["train"] > 0, where
            assert {type(count) for count in record["split"].values()} <= {int, type(None)}, where
        assert record["device"]["kind"] in ("cpu", "gpu") and record["device"]["name"], where


@pytest.mark.parametrize(
    "name, value, received",
    [
        ("seed", np.int64(3), "int64"),
        ("pair", np.int32(10), "int32"),
        ("recipe", {"rates": [np.float32(0.1)]}, "float32"),
        ("recipe", {"blocks": np.arange(3)}, "ndarray"),
        ("recipe", {np.int64(1): 2}, "keys must be"),
        ("recipe", {"rate": float("nan")}, "Out of range"),
    ],
)
def test_numbers_a_record_cannot_hold_are_refused_before_the_training(name, value, received):
    with pytest.raises(ValueError, match=rf"{name} must be plain .*Received: .*{received}.*write int\("):
        results.Run(**{"experiment": "demo", "arm": "a", "seed": 0, name: value})


def test_signs_that_python_takes_for_line_ends_stay_in_a_record(scratch):
    arm = "one\u2028two\u0085three"
    results.Run("demo", arm=arm, seed=0).finish({"x": 1})
    results.Run("demo", arm=arm, seed=1).finish({"x": 2})
    assert [r["arm"] for r in results.load("demo", folder=scratch)] == [arm, arm]
    assert len(results.lines(scratch / "demo.jsonl")) == 2


def test_an_empty_file_of_records_has_no_line(tmp_path):
    (tmp_path / "demo.jsonl").touch()
    assert results.load("demo", folder=tmp_path) == []


def test_records_are_written_as_bytes_on_windows_too(scratch, monkeypatch):
    opened = os.open

    def on_windows(path, flags, mode):
        assert flags & 2**30, "a text file there ends its lines with CRLF"
        return opened(path, flags & ~(2**30), mode)

    monkeypatch.setattr(os, "O_BINARY", 2**30, raising=False)
    monkeypatch.setattr(os, "open", on_windows)
    assert record_files._append(scratch / "demo.jsonl", b"{}\n") is None


def test_what_git_says_is_read_as_utf_8_whatever_the_system_speaks():
    code = "from tl_helpers import results, runtime; results._commit(); runtime._ask_nvidia('name')"
    strict = [f"-Werror::EncodingWarning:tl_helpers.{module}" for module in ("results", "runtime")]
    subprocess.run([sys.executable, "-X", "warn_default_encoding", *strict, "-c", code], check=True)


def test_a_finished_run_lets_its_model_go(scratch):
    class Model:
        def forget(self):
            pass

    model, run = Model(), results.Run("demo", arm="a", seed=0)
    run.when_finished(model.forget)
    kept = weakref.ref(model)
    del model
    run.finish({"x": 1})
    assert kept() is None
