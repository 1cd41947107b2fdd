"""Bands and runs made where more can be had than where the records were made."""

import json
import statistics

import pytest

from tl_helpers import bands, runtime


def run_of(weights: str, accuracy: float) -> str:
    about = {"experiment": "demo", "scale": "full", "arm": "own", "seed": 0, "metrics": {"test_accuracy": accuracy}}
    return json.dumps({**about, "pair": f"VGG16 from {weights}", "weights": {"name": weights, "sha256": "0"}}) + "\n"


def test_runs_from_downloaded_weights_need_no_band_in_a_folder(monkeypatch, tmp_path):
    package, here = tmp_path / "package", tmp_path / "here"
    for folder in (package, here):
        folder.mkdir()
    monkeypatch.setattr(runtime, "records_folder", lambda: package)
    (package / "demo.jsonl").write_text(run_of("tiny-imagenet", 0.6))
    bands.write(["demo"])
    (here / "demo.jsonl").write_text(run_of("tiny-imagenet", 0.6) + run_of("imagenet", 0.8))
    assert bands.check(here) == []
    (here / "demo.jsonl").write_text(run_of("another", 0.8))
    assert "no band" in bands.check(here)[0]
    (package / "demo.jsonl").write_text(run_of("imagenet", 0.8))
    assert "no band" in bands.check()[0], "records of one's own always need one"
    bands.write(["demo"])
    (here / "demo.jsonl").write_text(run_of("imagenet", 0.5))
    assert "outside" in bands.check(here)[0], "recorded once, it is judged"


@pytest.mark.parametrize(
    "metric, banded",
    [
        ("calibration_error", True),
        ("calibration_error_scaled", True),
        ("moved_ratio", True),
        ("weights_ratio", True),
        ("count_ratio", True),
        ("second_cycle_accuracy", True),
        ("time_ratio", False),
        ("time_over_vgg16_ratio", False),
        ("kept_over_one_pass_ratio", False),
        ("program_over_kept_ratio", False),
        ("work_ratio", False),
        ("milliseconds_a_step", False),
        ("images_per_second_at_16", False),
        ("seconds_to_0.5", False),
        ("training_memory_mb", False),
        ("test_accuracy_ci95", False),
    ],
)
def test_only_what_a_busy_machine_changes_has_no_band(metric, banded):
    assert bands._banded(metric) == banded


def test_a_stopped_epoch_is_no_share_and_its_band_grows_with_it():
    assert bands._half_width([40.0], "stopped_epoch", "quick") == 20.0
    assert bands._half_width([0.9], "val_top5", "quick") == 0.10


def test_only_the_embedded_files_own_hash_will_do(monkeypatch, tmp_path):
    from tl_helpers import weight_files

    monkeypatch.setattr(runtime, "records_folder", lambda: tmp_path / "records")
    monkeypatch.setattr(weight_files, "EMBEDDED", tmp_path / "shipped.npz")
    (tmp_path / "records").mkdir()
    (tmp_path / "SHA256SUMS").write_text(f"{'1' * 64}  shipped.npz\n{'0' * 64}  other.npz\n")
    record = json.loads(run_of("tiny-imagenet", 0.6))
    for sha256, problems in (("1" * 64, 0), ("0" * 64, 1)):
        record["weights"]["sha256"] = sha256
        (tmp_path / "records" / "demo.jsonl").write_text(json.dumps(record) + "\n")
        assert len(bands.check_weights()) == problems


def test_a_ratios_band_holds_the_seeds_it_was_made_of():
    numbers = [0.0] * 30 + [1.0]
    mean = sum(numbers) / 31
    assert 1 - mean > 3 * statistics.stdev(numbers)
    assert bands._half_width(numbers, "moved_ratio", "full") >= 1 - mean
    assert bands._half_width(numbers, "test_accuracy", "full") == pytest.approx(3 * statistics.stdev(numbers))


def test_what_two_machines_recorded_at_quick_is_expected_midway(monkeypatch, tmp_path):
    monkeypatch.setattr(runtime, "records_folder", lambda: tmp_path)
    about = {"experiment": "demo", "scale": "quick", "arm": "own", "seed": 0, "pair": None, "weights": None}

    def line(machine, accuracy, epochs=2):
        found = {"device": {"name": machine}, "metrics": {"test_accuracy": accuracy}, "recipe": {"epochs": epochs}}
        return json.dumps({**about, **found}) + "\n"

    (tmp_path / "demo.jsonl").write_text(line("a", 0.1, 9) + line("b", 0.5) + line("b", 0.4) + line("c", 0.56))
    (row,) = bands.propose("demo")
    assert row["expected"] == 0.48 and row["half_width"] == 0.1, "another recipe and an older run of b do not count"
