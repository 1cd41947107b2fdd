"""Bands and runs made where more can be had than where the records were made."""

import json
import statistics

import pytest
from made_records import put

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


def test_what_is_no_share_may_stray_by_a_part_of_its_size():
    assert bands._half_width([10.0], "risk", "laptop") == 1.0 and bands._half_width([10.0] * 2, "risk", "full") == 0.2


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


@pytest.mark.parametrize("scale, half_width", [("quick", 0.1), ("laptop", 0.03)])
def test_what_two_machines_recorded_at_a_small_scale_is_expected_midway(package_records, scale, half_width):
    about = {"experiment": "demo", "scale": scale, "arm": "own", "seed": 0, "pair": None, "weights": None}

    def line(machine, accuracy, epochs=2, **more):
        found = {"device": {"name": machine}, "metrics": {"test_accuracy": accuracy}, "recipe": {"epochs": epochs}}
        return json.dumps({**about, **found, **more}) + "\n"

    others = line("a", 0.1, 9) + line("d", 0.9, data={"name": "other"})
    (package_records / "demo.jsonl").write_text(others + line("b", 0.5) + line("b", 0.4) + line("c", 0.56))
    (row,) = bands.propose("demo")
    assert row["expected"] == 0.48, "another recipe, other data and an older run of b do not count"
    assert row["half_width"] == half_width


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


@pytest.mark.parametrize("value, problems", [(0.6199, 0), (0.6201, 1), (0.5801, 0), (0.5799, 1)])
def test_a_band_ends_where_it_says_above_and_below(package_records, scratch, value, problems):
    put(package_records, test_accuracy=0.60)
    bands.write(["demo"])
    put(scratch, test_accuracy=value)
    assert len(bands.check(scratch)) == problems


def test_writing_the_bands_of_one_experiment_leaves_the_others(package_records):
    put(package_records, test_accuracy=0.6)
    put(package_records, experiment="other", test_accuracy=0.7)
    bands.write(["demo", "other"])
    put(package_records, test_accuracy=0.5)
    bands.write(["demo"])
    assert {band["experiment"]: band["expected"] for band in bands.load()} == {"demo": 0.5, "other": 0.7}


def test_an_arm_that_was_not_run_is_a_problem(package_records, tmp_path):
    for arm in ("a", "b"):
        put(package_records, arm=arm, test_accuracy=0.60)
    put(package_records, arm="c", weights={"name": "imagenet"}, test_accuracy=0.60)  # its weights may be out of reach
    bands.write(["demo"])
    other = tmp_path / "run"
    other.mkdir()
    put(other, test_accuracy=0.60)
    assert bands.check(other) == ["demo / full / b: a band, but no run"]


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
