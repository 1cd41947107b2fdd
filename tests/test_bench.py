"""The benchmark's parts run at tiny sizes, and each ratio that they give has its goal. The ratios themselves are never tested."""

import bench
import numpy as np
import pytest


@pytest.mark.parametrize(
    "part, sizes",
    [
        (bench.kept_features, (32, 1)),
        (bench.fit_throughput, (64,)),
        (bench.memory, (100,)),
        (bench.linearity, (16,)),
        (bench.loading, ()),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_part_measures_what_has_a_goal(part, sizes):
    found = part(*sizes)
    assert found and set(found) <= set(bench.GOALS)
    assert all(np.isfinite(ratio) and ratio > 0 for ratio in found.values())
