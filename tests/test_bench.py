"""The benchmark's parts run at tiny sizes, and each ratio that they give has its goal. The ratios themselves are never tested."""

import subprocess

import bench
import numpy as np
import pytest

GROWTH = "extraction: growth of peak memory ÷ of its arrays"
PARTS = [
    (bench.kept_features, (32, 1), {"kept features ÷ one forward pass", "document's program ÷ kept features"}),
    (bench.fit_throughput, (64,), {"training.fit throughput ÷ bare fit throughput"}),
    (bench.linearity, (16,), {"seconds an image, 2 × images ÷ 1 ×", "seconds an image, 4 × images ÷ 1 ×"}),
    (bench.loading, (), {"source weights checked and loaded, in seconds"}),
]


def test_every_goal_has_its_part():
    assert set.union({GROWTH}, *(goals for *_, goals in PARTS)) == set(bench.GOALS)


def test_a_missed_goal_is_called_missed():
    fit = "training.fit throughput ÷ bare fit throughput"
    assert bench.judge(fit, 0.96).endswith("0.96   (goal: at least 0.95: reached)")
    assert "MISSED" in bench.judge(fit, 0.8)
    assert "reached" in bench.judge(GROWTH, 1.0) and "MISSED" in bench.judge(GROWTH, 2.0)


@pytest.mark.parametrize("part, sizes, goals", PARTS, ids=[part.__name__ for part, *_ in PARTS])
def test_a_part_measures_what_has_a_goal(part, sizes, goals):
    found = part(*sizes)
    assert set(found) == goals
    assert all(np.isfinite(ratio) and ratio > 0 for ratio in found.values())


def test_memory_is_measured_in_the_bytes_in_which_its_arrays_are(monkeypatch):
    """Of so few images the growth itself is lost in what else a process takes and gives back: it may come out negative."""
    done, run = [], subprocess.run
    monkeypatch.setattr(subprocess, "run", lambda *args, **how: done.append(run(*args, **how)) or done[-1])
    found = bench.memory(100, rounds=1)
    (peak, arrays), (peak4, arrays4) = ([float(number) for number in one.stdout.split()[-2:]] for one in done)
    assert arrays4 == 4 * arrays == 4 * (100 + 11 + 22) * (32 * 32 * 3 + 4 * 512), "uint8 in, float32 out"
    assert arrays < 2**20 * 100 < min(peak, peak4), "in bytes, a process with TensorFlow takes more than 100 MiB"
    assert found == {GROWTH: (peak4 - peak) / (arrays4 - arrays)}


def test_memory_takes_the_median_of_its_rounds(monkeypatch):
    peaks = iter([100, 500, 130, 440, 110, 900])  # of 1 × and 4 × in turn; the arrays take 10 a picture

    def told(command, **how):
        return subprocess.CompletedProcess(command, 0, stdout=f"{next(peaks)} {10 * int(command[-1])}".encode())

    monkeypatch.setattr(subprocess, "run", told)
    assert bench.memory(10) == {GROWTH: (500 - 110) / (400 - 100)}
