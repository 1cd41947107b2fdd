"""The command line: what it prints, what it returns, and that it runs notebooks as they are."""

import dataclasses
import json
import re
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest

import tl_helpers
from tl_helpers import __main__ as cli
from tl_helpers import datasets, notebook_runs, results, runtime
from tl_helpers.datafiles import Found
from tl_helpers.downloads import DataUnavailable


class Files:
    """Files of a data set that are there, or are not."""

    def __init__(self, error=None):
        self.error, self.reads = error, 0

    def read(self, *, download=True):
        self.reads += 1
        if self.error:
            raise self.error
        return Found({}, "official", "")


@pytest.fixture
def known(monkeypatch, tmp_path):
    """Two data sets, the second of which cannot be had, and a backbone with one set of weights to download."""
    monkeypatch.delenv("TL_DATA", raising=False)
    monkeypatch.setenv("TL_CACHE", str(tmp_path / "cache"))
    good, bad, built = Files(), Files(DataUnavailable("it is nowhere")), []
    spec = datasets.SPECS["digits"]
    specs = {"good": dataclasses.replace(spec, files=good), "bad": dataclasses.replace(spec, files=bad)}
    monkeypatch.setattr(datasets, "SPECS", specs)
    weights = {
        "shipped": types.SimpleNamespace(url=None),
        "imagenet": types.SimpleNamespace(url="http://127.0.0.1:9"),
    }
    backbones = types.SimpleNamespace(
        names=lambda: ["net"],
        spec=lambda name: types.SimpleNamespace(weights=weights),
        build=lambda name, weights: built.append((name, weights)) or "model",
    )
    monkeypatch.setitem(sys.modules, "tl_helpers.backbones", backbones)
    monkeypatch.setattr(tl_helpers, "backbones", backbones, raising=False)
    return types.SimpleNamespace(good=good, bad=bad, built=built)


def test_help_lists_every_command():
    done = subprocess.run([sys.executable, "-m", "tl_helpers", "--help"], capture_output=True, text=True, check=True)
    listed = re.findall(r"^ {4}([a-z]\S*)", done.stdout, re.M)
    assert listed == ["fetch", "record", "reproduce", "bands", "check-bands", "predict", "serve"]
    assert done.stderr == ""


@pytest.mark.parametrize("wrong", [[], ["serve-nothing"], ["record"], ["reproduce", "x", "--scale", "huge"]])
def test_a_wrong_call_says_how_to_call(wrong, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(wrong)
    assert caught.value.code == 2 and "usage: python -m tl_helpers" in capsys.readouterr().err


def test_fetch_gets_only_what_is_named(known, capsys):
    assert cli.main(["fetch", "good"]) == 0
    assert known.good.reads == 1 and known.bad.reads == 0 and known.built == []
    assert "good: ready (official copy)" in capsys.readouterr().out
    assert cli.main(["fetch", "net"]) == 0
    assert known.built == [("net", "imagenet")] and known.good.reads == 1


def test_fetch_gets_everything_and_a_failure_does_not_stop_the_rest(known, capsys):
    assert cli.main(["fetch"]) == 1
    told = capsys.readouterr()
    assert "good: ready" in told.out and "net imagenet: ready" in told.out
    assert "bad: failed. it is nowhere" in told.err and "not fetched: bad" in told.err


def test_fetch_refuses_an_unknown_name(known, capsys):
    assert cli.main(["fetch", "good", "god"]) == 1
    assert "names must be among good, bad, net. Received: god" in capsys.readouterr().err
    assert known.good.reads == 0


def notebook(path, *cells):
    path.parent.mkdir(parents=True, exist_ok=True)
    made = [
        {"cell_type": "code", "id": f"c{i}", "metadata": {}, "source": cell, "outputs": [], "execution_count": None}
        for i, cell in enumerate(cells)
    ]
    path.write_text(json.dumps({"cells": made, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    return path


RUN = """\
from tl_helpers import results, runtime
import os
for seed in range(2):
    run = results.Run("toy", arm="only", seed=seed)
    run.finish({"test_accuracy": 0.7 + seed / 100})
assert runtime.scale() == "laptop" and not runtime.recording() and os.path.exists("beside.txt")
"""


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """A book with one experiment, its band, and a scratch folder."""
    made = notebook(tmp_path / "book" / "part" / "toy.ipynb", RUN)
    (made.parent / "beside.txt").touch()
    records = tmp_path / "records"
    records.mkdir()
    monkeypatch.setattr(runtime, "records_folder", lambda: records)
    monkeypatch.setattr(notebook_runs, "book_folder", lambda: tmp_path / "book")
    monkeypatch.setenv("TL_SCRATCH", str(tmp_path / "scratch"))
    band = "{scale: laptop, pair: null, arm: only, metric: test_accuracy, expected: 0.7, half_width: %s}"

    def set_band(half_width):
        (records / "bands.yml").write_text(f"toy:\n  - {band % half_width}\n")

    return types.SimpleNamespace(notebook=made, records=records, set_band=set_band, scratch=tmp_path / "scratch")


def test_reproduce_runs_the_notebook_again_and_judges_it(toy, capsys):
    before = toy.notebook.read_bytes()
    toy.set_band(0.02)
    assert cli.main(["reproduce", "toy", "--scale", "laptop"]) == 0
    assert "toy: 2 runs at laptop in" in (told := capsys.readouterr().out) and "inside its band" in told
    assert toy.notebook.read_bytes() == before and not (toy.records / "toy.jsonl").exists()
    assert len(list(toy.scratch.rglob("toy.jsonl"))) == 1


def test_reproduce_fails_outside_the_band_and_without_runs(toy, capsys, monkeypatch):
    monkeypatch.setattr(notebook_runs, "execute", lambda notebook, environment: _two_runs(environment["TL_SCRATCH"]))
    toy.set_band(0.004)
    assert cli.main(["reproduce", "toy", "--scale", "laptop"]) == 1
    assert "0.705 is outside 0.7 ± 0.004" in capsys.readouterr().out
    monkeypatch.setattr(notebook_runs, "execute", lambda notebook, environment: 0.0)
    assert cli.main(["reproduce", "toy", "--scale", "quick"]) == 1
    assert "finished no run of toy" in capsys.readouterr().err


def test_reproduce_records_nothing_where_a_recording_is_asked_for(toy, monkeypatch):
    told = {}
    monkeypatch.setenv("TL_RECORD", "1")
    monkeypatch.setattr(notebook_runs, "execute", lambda notebook, environment: told.update(environment) or 0.0)
    cli.main(["reproduce", "toy", "--scale", "laptop"])
    assert told["TL_RECORD"] == "" and told["TL_SCRATCH"].startswith(str(toy.scratch))


def _two_runs(folder):
    from pathlib import Path

    for seed in range(2):
        record = {"experiment": "toy", "scale": "laptop", "arm": "only", "pair": None, "seed": seed}
        path = Path(folder) / "toy.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:
            file.write(json.dumps({**record, "metrics": {"test_accuracy": 0.7 + seed / 100}}) + "\n")
    return 1.0


def test_record_sets_the_scale_and_counts_the_new_runs(toy, capsys, monkeypatch):
    seen = {}

    def execute(notebook, environment):
        seen.update(environment)
        return _two_runs(toy.records)

    monkeypatch.setattr(notebook_runs, "execute", execute)
    assert cli.main(["record", str(toy.notebook), "--scale", "full"]) == 0
    assert seen == {"TL_RECORD": "1", "TL_SCALE": "full"}
    assert "toy: 2 runs recorded at full" in capsys.readouterr().out
    monkeypatch.setattr(notebook_runs, "execute", lambda notebook, environment: 0.0)
    assert cli.main(["record", str(toy.notebook)]) == 1
    assert "finished no run" in capsys.readouterr().err


def test_a_failing_cell_is_one_clear_error(tmp_path, capsys):
    made = notebook(tmp_path / "wrong.ipynb", "x = 1", "x / 0")
    assert cli.main(["record", str(made)]) == 1
    assert "wrong.ipynb failed" in (told := capsys.readouterr().err) and "ZeroDivisionError" in told


def test_an_interrupted_recording_says_what_to_do(tmp_path):
    made = notebook(tmp_path / "long.ipynb", "import time\nopen('began', 'w').close()\ntime.sleep(60)")
    command = [sys.executable, "-m", "tl_helpers", "record", str(made)]
    process = subprocess.Popen(command, cwd=runtime.PACKAGE.parent, stderr=subprocess.PIPE, text=True)
    for _ in range(600):
        if (tmp_path / "began").exists() or process.poll() is not None:
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    told = process.communicate(timeout=60)[1]
    assert process.returncode == 130 and "AssertionError" not in told
    assert told.rstrip().endswith("interrupted; run the same command again to go on")


def test_what_is_no_notebook_is_one_clear_error(tmp_path, capsys):
    assert cli.main(["record", str(tmp_path)]) == 1
    assert "notebook must be a file" in capsys.readouterr().err
    assert cli.main(["record", str(tmp_path / "missing.ipynb")]) == 1
    assert "missing.ipynb" in capsys.readouterr().err
    (tmp_path / "text.ipynb").write_text("text")
    assert cli.main(["record", str(tmp_path / "text.ipynb")]) == 1
    assert "must be a Jupyter notebook" in capsys.readouterr().err


def test_the_notebook_that_makes_the_runs_is_found(tmp_path):
    maker = notebook(tmp_path / "a" / "maker.ipynb", 'fit(model, experiment="probe", arm="x")')
    notebook(tmp_path / "a" / "shows.ipynb", 'report.table("probe")')
    notebook(tmp_path / "a" / ".ipynb_checkpoints" / "maker.ipynb", 'fit(model, experiment="probe", arm="x")')
    named = notebook(tmp_path / "b" / "named.ipynb", 'EXPERIMENT = "other"', "Run(EXPERIMENT)")
    notebook(tmp_path / "b" / "prose.ipynb", 'report.table("other")')
    slug = notebook(tmp_path / "b" / "third.ipynb", 'measure("third-one")')
    notebook(tmp_path / "b" / "fourth.ipynb", 'report.table("third-one")')
    chapter = notebook(tmp_path / "b" / "tuning.ipynb", 'told = {"experiment": "tuning"}')
    notebook(tmp_path / "b" / "strategies.ipynb", 'tuning = {"tuning": 1}', 'other = "tuning"')
    assert notebook_runs.find_notebook("probe", tmp_path) == maker
    assert notebook_runs.find_notebook("other", tmp_path) == named
    assert notebook_runs.find_notebook("third-one", tmp_path) == slug
    assert notebook_runs.find_notebook("tuning", tmp_path) == chapter
    with pytest.raises(FileNotFoundError, match="no notebook .* names it. Say which with --notebook"):
        notebook_runs.find_notebook("unheard-of", tmp_path)
    notebook(tmp_path / "c" / "again.ipynb", 'fit(model, experiment="probe", arm="x")')
    with pytest.raises(FileNotFoundError, match="several notebooks name it"):
        notebook_runs.find_notebook("probe", tmp_path)


@pytest.mark.parametrize("experiment", results.experiments())
def test_every_recorded_experiment_is_found_in_its_chapter(experiment):
    book = Path(__file__).resolve().parents[1] / "book"
    found = notebook_runs.find_notebook(experiment, book)
    chapters = [path for path in book.rglob("*.ipynb") if f"{experiment}-".startswith(f"{path.stem}-")]
    assert found in (chapters or [book / "vgg16-cifar10" / "source-model.ipynb"])


def test_check_bands_counts_problems(toy, capsys, monkeypatch):
    from tl_helpers import bands

    monkeypatch.setattr(bands, "check_weights", lambda: [])
    toy.set_band(0.004)
    _two_runs(toy.records)
    assert cli.main(["check-bands"]) == 1
    assert "1 problems in the records of 1 experiments" in capsys.readouterr().out
    toy.set_band(0.02)
    assert cli.main(["check-bands"]) == 0
    monkeypatch.setattr(bands, "check_weights", lambda: ["toy: made with older weights"])
    capsys.readouterr()
    assert cli.main(["check-bands"]) == 1 and "older weights" in capsys.readouterr().out
    assert cli.main(["check-bands", "--folder", str(toy.records)]) == 0, "of one's own runs no page shows the weights"


@pytest.mark.parametrize("inside", [None, [], ["toy.jsonl"]], ids=["no folder", "nothing", "an empty file"])
def test_check_bands_wants_runs_in_the_folder_it_is_given(toy, tmp_path, capsys, inside):
    """``make test`` and the workflows ask about the notebooks they ran: where none noted a run, nothing has passed."""
    folder = tmp_path / "runs"
    if inside is not None:
        folder.mkdir()
        [(folder / name).touch() for name in inside]
    assert cli.main(["check-bands", "--folder", str(folder)]) == 1
    told = capsys.readouterr()
    why = "is no folder" if inside is None else "holds no run"
    assert f"Received: {folder}, which {why}: nothing was checked" in told.err and told.out == ""
    toy.set_band(0.02)
    _two_runs(folder)
    assert cli.main(["check-bands", "--folder", str(folder)]) == 0
    assert "0 problems in the records of 1 experiments" in capsys.readouterr().out


def test_an_error_of_the_system_is_one_clear_error(toy, capsys, monkeypatch):
    _two_runs(toy.records)
    (toy.records / "bands.yml").mkdir()
    assert cli.main(["bands"]) == 1
    assert (told := capsys.readouterr().err).startswith("error: ") and "bands.yml" in told

    def refused(*_):
        raise PermissionError(13, "Permission denied", "toy.ipynb")

    monkeypatch.setattr(notebook_runs, "execute", refused)
    assert cli.main(["record", str(toy.notebook)]) == 1
    assert capsys.readouterr().err == "error: [Errno 13] Permission denied: 'toy.ipynb'\n"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows tells of a closed pipe in another way")
@pytest.mark.parametrize("call", [["fetch", "digits"], ["check-bands", "--folder"]], ids=["flushed", "at the end"])
def test_a_reader_who_has_seen_enough_ends_it_quietly(call, tmp_path):
    """As with ``| head -1``."""
    _two_runs(tmp_path)
    more = [str(tmp_path)] if call[-1] == "--folder" else []
    command = [sys.executable, "-m", "tl_helpers", *call, *more]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdout.close()
    assert process.stderr.read() == "" and process.wait(timeout=60) == 1


def test_bands_are_written_for_experiments_with_records(toy, capsys):
    _two_runs(toy.records)
    assert cli.main(["bands", "toys"]) == 1
    assert "experiments must have records (toy). Received: toys" in capsys.readouterr().err
    assert cli.main(["bands"]) == 0
    assert results.experiments() == ["toy"] and "test_accuracy" in (toy.records / "bands.yml").read_text()


@pytest.mark.parametrize("other", ["{}", "[]", "3", '{"nbformat": 4, "metadata": {}, "cells": 3}'])
def test_json_that_is_no_notebook_is_one_clear_error(tmp_path, capsys, other):
    (tmp_path / "other.ipynb").write_text(other)
    assert cli.main(["record", str(tmp_path / "other.ipynb")]) == 1
    assert "must be a Jupyter notebook. Received: other JSON" in capsys.readouterr().err
