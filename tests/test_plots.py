"""Tests of tl_helpers.plots: what is drawn is what was given."""

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.collections import PolyCollection

from tl_helpers import plots


@pytest.fixture(autouse=True)
def close():
    plots.style()
    yield
    plt.close("all")


def test_curves_draw_each_arm_over_its_epochs():
    histories = {
        "a": [{"epoch": 1, "val_accuracy": 0.1}, {"epoch": 2, "val_accuracy": 0.4}],
        "b": [{"epoch": 1, "val_accuracy": 0.2}],
    }
    ax = plots.curves(None, histories)
    np.testing.assert_allclose(ax.lines[0].get_ydata(), [0.1, 0.4])
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["a", "b"]


def test_seeds_show_every_seed_and_the_mean():
    ax = plots.seeds(None, {"a": [0.1, 0.3], "b": [0.5]})
    np.testing.assert_allclose(ax.lines[0].get_xdata(), [0.1, 0.3])
    np.testing.assert_allclose(ax.lines[1].get_xdata(), [0.2, 0.2])
    assert [t.get_text() for t in ax.get_yticklabels()] == ["a", "b"]


def test_cost_lines_carry_each_choice_at_its_cost_and_mean():
    ax = plots.against_cost(
        None, {"a": {"32": (10.0, [0.1, 0.3]), "64": (40.0, [0.5])}, "b": {"32": (5.0, [0.2])}}, "c"
    )
    np.testing.assert_allclose(ax.lines[0].get_xdata(), [10, 40])
    np.testing.assert_allclose(ax.lines[0].get_ydata(), [0.2, 0.5])
    assert ax.get_xscale() == "log" and [t.get_text() for t in ax.texts] == ["32", "64", "32"]


def test_lines_skip_points_without_values():
    ax = plots.lines_with_spread(None, [1, 2, 3], {"a": np.array([[1.0, np.nan, 3.0], [2.0, np.nan, 5.0]])}, "x", "y")
    np.testing.assert_allclose(ax.lines[0].get_xdata(), [1, 3])
    np.testing.assert_allclose(ax.lines[0].get_ydata(), [1.5, 4.0])


@pytest.mark.parametrize(("arms", "bands", "aside"), [(4, 4, False), (5, 0, True)])
def test_many_spreads_become_strokes_side_by_side(arms, bands, aside):
    values = {f"arm {i}": np.array([[1.0, 2.0], [1.5, 2.5]]) for i in range(arms)}
    ax = plots.lines_with_spread(None, [1, 10], values, "x", "y", log_x=True)
    assert sum(isinstance(c, PolyCollection) for c in ax.collections) == bands
    assert (len({line.get_xdata()[0] for line in ax.lines}) > 1) == aside
    assert all(0.9 < line.get_xdata()[0] < 1.1 for line in ax.lines)


def test_names_of_points_cover_no_point_and_no_other_name():
    ax = plt.subplots()[1]
    ax.set(xlim=(0, 1), ylim=(0, 1))
    points = {"first": (0.5, 0.5), "second": (0.53, 0.5), "third": (0.5, 0.53), "far right": (0.99, 0.5)}
    plots.named_points(ax, points)
    boxes = [label.get_window_extent() for label in ax.texts]
    assert [label.get_text() for label in ax.texts] == list(points)
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    places = ax.transData.transform(list(points.values()))
    assert not any(box.contains(*place) for box in boxes for place in places)
    assert all(ax.bbox.x0 < box.x0 and box.x1 < ax.bbox.x1 for box in boxes)


def test_bars_confusion_and_grid():
    assert plots.bars(None, {"a": 1.0, "b": 2.0}, "images/s").patches[1].get_width() == 2.0
    ax = plots.confusion(None, np.array([[3, 1], [0, 2]]), ["cat", "dog"])
    counts = {t.get_position(): t.get_text() for t in ax.texts}
    assert counts == {(0, 0): "3", (1, 0): "1", (1, 1): "2"}, "down the true classes, across the predicted ones"
    assert ax.images[0].get_array()[0, 1] == 0.25, "shaded by the share of the true class"
    figure = plots.image_grid([np.zeros((4, 4, 3), np.uint8)] * 3, ["a", "b", "c"], columns=2)
    assert len(figure.axes) == 4 and not figure.axes[0].patches
    framed = plots.image_grid([np.full((4, 4), 255, np.uint8)], frame=True)  # white on white would have no edge
    assert len(framed.axes[0].patches) == 1
