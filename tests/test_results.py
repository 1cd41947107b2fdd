"""Tests of tl_helpers.results, report and bands."""

import json
import os
import subprocess
import sys
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tl_helpers import bands, report, results, runtime


@pytest.fixture
def scratch(monkeypatch, tmp_path):
    monkeypatch.setenv("TL_SCRATCH", str(tmp_path))
    monkeypatch.setenv("TL_SCALE", "quick")
    monkeypatch.delenv("TL_RECORD", raising=False)
    return tmp_path


@pytest.fixture
def package_records(monkeypatch, tmp_path):
    folder = tmp_path / "package"
    folder.mkdir()
    monkeypatch.setattr(runtime, "records_folder", lambda: folder)
    return folder


def put(folder, experiment="demo", arm="a", seed=0, scale="full", pair=None, weights=None, **metrics):
    record = {
        "scale": scale,
        "arm": arm,
        "pair": pair,
        "seed": seed,
        "experiment": experiment,
        "metrics": metrics,
        "weights": weights,
        "data": None,
        "device": {"name": "cpu", "cores": 2},
    }
    with open(folder / f"{experiment}.jsonl", "a") as file:
        file.write(json.dumps(record) + "\n")


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


def test_many_writers_never_mix_lines(scratch):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: results.Run("demo", arm="a", seed=i).finish({"x": i}), range(40)))
    assert sorted(r["seed"] for r in results.load("demo", folder=scratch)) == list(range(40))


def test_tables_and_glue_prefer_full_and_say_otherwise(package_records):
    put(package_records, scale="laptop", test_accuracy=0.5)
    assert report.glue("demo") == {"demo/a/test_accuracy": "0.500 (1 run), recorded at laptop scale"}
    for seed, value in enumerate((0.6, 0.62, 0.64)):
        put(package_records, seed=seed, test_accuracy=value)
    assert report.glue("demo") == {"demo/a/test_accuracy": "0.620 ± 0.020 (3 seeds)"}
    shown = report.table("demo")
    assert "recorded (full, 3 seeds)" in repr(shown) and "0.620 ± 0.020\n" in repr(shown) + "\n"
    assert "standard deviation" in repr(shown) and "this run" not in repr(shown), "nothing was run here"
    assert '<th scope="row">a</th>' in shown._repr_html_()


def test_a_table_tells_the_seeds_where_arms_differ_in_them(package_records):
    for seed, value in enumerate((0.6, 0.62)):
        put(package_records, seed=seed, test_accuracy=value)
    put(package_records, arm="b", pair="small", test_accuracy=0.5)
    lines = repr(report.table("demo", pair="network")).splitlines()
    assert lines[1].split("  ")[0] == "arm" and "network" in lines[1] and "seed" not in lines[1]
    assert "0.610 ± 0.014 (2 seeds)" in lines[2] and "0.500 (1 run)" in lines[3]


def test_a_tables_cell_may_be_a_link_and_names_stay_text():
    table = report.Table(["who"], [[report.Link("a & b", 'https://example.org/?a="b"')], ["<i>0.1 ± 0.2</i>"]])
    assert repr(table).splitlines() == ["who", "a & b", "<i>0.1 ± 0.2</i>"]
    shown = table._repr_html_()
    assert '<a href="https://example.org/?a=&quot;b&quot;">a &amp; b</a>' in shown
    assert "&lt;i&gt;0.1&nbsp;±&nbsp;0.2&lt;/i&gt;" in shown


def test_the_origin_of_records_is_data_and_scale():
    assert report.origin([{"data": {"name": "cifar10"}, "scale": "full"}]) == "cifar10, full scale"
    assert report.origin([{"data": None, "scale": "quick"}]) == "quick scale"
    assert report.origin([]) == "not recorded yet"


def test_what_is_shown_is_recorded_or_else_of_this_run(package_records, scratch):
    assert report.shown("demo") == [] and report.origin("demo") == "not recorded yet" and report.by_pair("demo") == {}
    results.Run("demo", arm="a", seed=0).finish({"test_accuracy": 0.5})
    assert report.shown("demo") == results.finished and report.by_pair("demo") == {None: {"a": [0.5]}}
    for seed, value in enumerate((0.6, 0.7)):
        put(package_records, pair="small", seed=seed, test_accuracy=value)
    put(package_records, arm="b", pair="small", seed=1, test_accuracy=0.9)
    assert [r["scale"] for r in report.shown("demo")] == ["full"] * 3
    assert report.by_pair("demo") == {"small": {"a": [0.7], "b": [0.9]}}, "only seeds that all arms have"


def test_an_experiment_without_records_says_so(package_records, scratch):
    assert "not recorded yet" in repr(report.table("nothing"))
    assert report.arms("nothing") == {}


def test_a_spread_has_two_digits_and_the_mean_as_many_decimals():
    assert report.show([0.1, 0.2, 0.3]) == "0.200 ± 0.100 (3 seeds)"
    assert report.show([0.16, 0.1811], "risk") == "0.171 ± 0.015 (2 seeds)"
    assert report.show([146, 150], "width_pixels") == "148.0 ± 2.8 (2 seeds)"
    assert report.show([12_000, 15_000], "seconds") == "13,500 ± 2,121 (2 seeds)"
    assert report.show([37_957, 37_957], "weights_moved") == "37,957 (all 2 seeds)"
    assert report.show([0.0, 0.0], "moved_ratio") == "0 (all 2 seeds)"
    assert report.show([0.5, 0.5]) == "0.500 ± 0.000 (2 seeds)"


def test_pairs_are_kept_apart(package_records):
    put(package_records, pair="10", test_accuracy=0.1)
    put(package_records, pair="100", test_accuracy=0.2)
    assert set(report.glue("demo")) == {"demo/10/a/test_accuracy", "demo/100/a/test_accuracy"}
    assert report.arms("demo", pair="100") == {"a": [0.2]}


def test_arms_come_from_this_run_where_the_records_hold_none(package_records, scratch):
    results.Run("demo", arm="b", pair="new", seed=0).finish({"test_accuracy": 0.5})
    put(package_records, pair="old", test_accuracy=0.1)
    assert report.arms("demo", pair="old") == {"a": [0.1]} and report.arms("demo", pair="new") == {"b": [0.5]}
    assert report.arms("demo", pair="old", fresh=True) == {}


def test_seeds_that_an_interrupted_recording_left_incomplete_are_left_out():
    of = lambda arm, *seeds: [{"pair": None, "arm": arm, "seed": seed} for seed in seeds]  # noqa: E731
    kept = report.whole_seeds([*of("plain", 0, 1, 2), *of("frozen", 0, 1)])
    assert kept == [*of("plain", 0, 1), *of("frozen", 0, 1)]
    assert report.whole_seeds([]) == []


def test_claims_are_looked_up_by_key():
    assert report.claim("vgg16-cifar10-accuracy") == "0.8250"
    with pytest.raises(KeyError, match="no claim 'nope'. There are: vgg16"):
        report.claim("nope")


def test_bands_follow_the_rules(package_records):
    for seed, value in enumerate((0.50, 0.56, 0.62)):
        put(package_records, seed=seed, test_accuracy=value, seconds=5.0)
    put(package_records, scale="quick", test_accuracy=0.4)
    rows = {(b["scale"], b["metric"]): b for b in bands.propose("demo")}
    assert rows["full", "test_accuracy"]["half_width"] == pytest.approx(0.18)
    assert rows["quick", "test_accuracy"]["half_width"] == pytest.approx(0.10)
    assert ("full", "seconds") not in rows


def test_a_number_outside_its_band_is_a_problem(package_records, tmp_path):
    put(package_records, test_accuracy=0.60)
    assert bands.check() and "no band" in bands.check()[0]
    bands.write(["demo"])
    assert bands.check() == []
    other = tmp_path / "run"
    other.mkdir()
    put(other, test_accuracy=0.63)
    (problem,) = bands.check(other)
    assert "0.63 is outside 0.6 ± 0.02" in problem


def test_an_experiment_of_nothing_but_times_has_no_bands(package_records):
    put(package_records, experiment="times", run_seconds=5.0)
    put(package_records, test_accuracy=0.60)
    for _ in range(2):  # what was written must be readable when others are written
        bands.write(["demo", "times"])
    assert {b["experiment"] for b in bands.load()} == {"demo"} and bands.check() == []


def test_small_scales_are_judged_by_their_mean_full_by_each_seed(package_records):
    for scale in ("quick", "full"):
        for seed, value in enumerate((0.45, 0.75)):
            put(package_records, scale=scale, seed=seed, test_accuracy=value)
    row = {"pair": None, "arm": "a", "metric": "test_accuracy", "expected": 0.6, "half_width": 0.1}
    rows = [{"scale": scale, **row} for scale in ("quick", "full")]
    (package_records / "bands.yml").write_text(json.dumps({"demo": rows}))
    assert [p.split(" / ")[1] for p in bands.check()] == ["full", "full"]


def test_records_of_older_weights_are_found(package_records):
    put(package_records, weights={"name": "tiny-imagenet", "sha256": "0" * 64}, test_accuracy=0.6)
    assert "older weights" in bands.check_weights()[0]


def test_the_packages_own_records_lie_in_their_bands():
    assert bands.check() == []


def test_no_shown_record_was_made_with_older_weights():
    assert bands.check_weights() == []


def test_shipped_full_records_say_what_they_need():
    for experiment in results.experiments():
        for record in results.load(experiment):
            assert record["schema"] == 1 and record["metrics"], experiment
            assert record["data"] is None or {"name", "copy", "sha256"} <= set(record["data"]), experiment


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
    assert results._append(scratch / "demo.jsonl", b"{}\n") is None


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


def test_shares_are_known_by_whole_words():
    shares = ("accuracy", "val_top1", "val_top5", "test_f1", "test_r2", "share_of_width", "probability_lost")
    assert all(report.is_share(name) for name in shares)
    assert not any(report.is_share(name) for name in ("stopped_epoch", "calibration_error", "test_loss", "shares"))
    assert report.show([12.0], "stopped_epoch") == "12 (1 run)"
    assert report.show([0.7114, 0.7146], "test_f1") == "0.713 ± 0.002 (2 seeds)"


@pytest.mark.parametrize(
    "value, shown",
    [(999.7, "1,000"), (9999.6, "10,000"), (999.4, "999"), (12.345, "12.3"), (-1234.5, "-1,234"), (0.5, "0.5")],
)
def test_large_numbers_are_written_out(value, shown):
    assert report.show([value], "risk") == f"{shown} (1 run)"
