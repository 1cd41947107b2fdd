"""What the chapter "What does transfer buy?" computes from its records; most of it has its numbers only at full."""

from types import SimpleNamespace

import numpy as np
import pytest
from conftest import code_of

ARMS = ("from scratch", "frozen features", "fine-tuned", "fine-tuned with batch norm")


@pytest.fixture(scope="module")
def page():
    """The chapter's functions, beside settings of our own."""
    code = code_of("vgg16-cifar10/what-transfer-buys.ipynb")
    classes = [f"class {c}" for c in range(10)]
    known = {"S": SimpleNamespace(epochs={10: 160, 100: 50, 1000: 16}, shift_at=(100,), rates=()), "ARMS": ARMS}
    known |= {
        "data": SimpleNamespace(class_names=classes),
        "NORMED": (ARMS[0], ARMS[3]),
        "FLIP": True,
        "sizes": [10, 100],
    }
    known |= {"counts": np.arange(10, 0, -1), "shown": {"test_accuracy": {}}, "records": []}
    names = ("settings-a", "settings-b", "recipe-of", "curve", "worth", "scratch-not-done", "factors", "answers")
    for name in (*names, "time-table", "time-marks", "robust-verdict", "tail-run-a", "tail-gain"):
        known |= made() if name == "factors" else {}
        exec(compile(code[name], name, "exec"), known)
    return known


def made():
    """What earlier cells hold: four arms, 10 and 100 labels a class, two seeds; scratch is slow and bad, the others are not."""
    reached = {ARMS[0]: (0.2, 0.6), ARMS[1]: (0.4, 0.5), ARMS[2]: (0.4, 0.7), ARMS[3]: (0.4, 0.6)}
    courses = {
        arm: {"seconds_by_epoch": [10.0, 20.0], "val_accuracy_by_epoch": [a, b]} for arm, (a, b) in reached.items()
    }
    kept = [
        run_of(arm, f"{n} a class", seed, test_accuracy=reached[arm][i], **courses[arm])
        for i, n in enumerate((10, 100))
        for arm in ARMS
        for seed in (0, 1)
    ]
    for run in kept:
        run["metrics"] |= {"late_accuracy_gain": 0.0, "train_accuracy": 1.0 if run["pair"] == "10 a class" else 0.9}
    accuracy = {arm: np.tile(numbers, (2, 1)) for arm, numbers in reached.items()}
    needs = {arm: [10**1.5, np.inf] for arm in ARMS[1:]}
    return dict(kept=kept, accuracy=accuracy, seeds=[0, 1], needs=needs, better=[ARMS[2], ARMS[2]])


def run_of(arm, pair="10 a class", seed=0, **metrics):
    return {"arm": arm, "pair": pair, "seed": seed, "metrics": metrics, "device": {"name": "a quiet one"}}


def test_a_seed_is_shown_where_all_arms_have_it(page):
    runs = [run_of(arm, seed=seed, test_accuracy=0.5) for seed in (0, 1) for arm in ARMS]
    assert page["complete"](runs, "test_accuracy") == runs
    assert page["complete"](runs[:-1], "test_accuracy") == runs[:4]
    assert page["complete"](runs, "clean_accuracy") == []


def test_labels_are_read_off_the_curve_sideways(page):
    needed = page["labels_needed"]
    assert needed(0.4, [0.4, 0.8]) == pytest.approx(10) and needed(0.8, [0.4, 0.8]) == pytest.approx(100)
    assert needed(0.6, [0.4, 0.8]) == pytest.approx(10**1.5), "halfway on the logarithmic axis"
    assert needed(0.9, [0.4, 0.8]) == np.inf and page["times"](10, np.inf) == "more than 100 (more than 10.0 times)"
    assert page["times"](10, needed(0.2, [0.4, 0.8])) == "at most 10 (1.0 times)"
    assert needed(0.45, [0.5, 0.4]) == pytest.approx(10), "a dip does not ask for more labels"


def test_each_arm_has_its_plan(page):
    page["RATES"] = {ARMS[0]: 0.003, ARMS[3]: 0.0003}
    scratch, frozen, fine, normed = (page["recipe_of"](arm, 100) for arm in ARMS)
    assert (scratch.epochs, fine.epochs, normed.epochs) == (50, 25, 25)
    assert (scratch.learning_rate, normed.learning_rate) == (0.003, 0.0003)
    assert scratch == page["replace"](normed, epochs=50, learning_rate=0.003), "beside these two nothing differs"
    steps = frozen.epochs * 1000 / frozen.batch_size
    assert 1000 <= steps <= 1500 and not frozen.flip, "kept features are not mirrored"
    assert page["recipe_of"](ARMS[0], 100, 0.1).learning_rate == 0.1


def test_a_class_is_compared_with_itself_common_and_rare(page):
    """Scratch has 0.2 everywhere; transfer adds 0.1 to common classes and 0.3 to rare ones."""
    classes, records = np.array(page["data"].class_names), []
    for seed in (0, 1, 2):
        names = list(np.roll(classes, -3 * seed))
        added = np.where(np.arange(10) < 3, 0.1, np.where(np.arange(10) >= 7, 0.3, 0.0))
        for arm, by_class in {ARMS[0]: np.full(10, 0.2), ARMS[2]: 0.2 + added}.items():
            records.append(run_of(arm, None, seed, trained_by_class=list(by_class), classes=names))
    page["records"] = records
    found = page["gains"](ARMS[2])
    np.testing.assert_allclose(found, [[0.1, 0.3]] * len(found))
    assert len(found) == 8, "two of ten classes are not common for one seed and rare for another"


@pytest.mark.parametrize(
    "gained, fitted, ended",
    [(0.02, 0.95, "done"), (0.021, 0.95, "unclear"), (0.02, 0.94, "unclear"), (0.03, 0.94, "not done")],
)
def test_scratch_is_done_where_it_neither_rises_nor_misses_its_own_pictures(page, gained, fitted, ended):
    page["kept"].append(run_of(ARMS[0], "7 a class", late_accuracy_gain=gained, train_accuracy=fitted))
    page["kept"].append(run_of(ARMS[2], "7 a class", late_accuracy_gain=1.0, train_accuracy=0.0))
    assert page["how_done"](7) == ended
    del page["kept"][-2:]


def test_a_factor_is_told_with_its_range_and_how_scratch_ended_there(page):
    assert page["by_seed"](0) == ["3.2", "unclear"], "both seeds agree; at 100, scratch had not fitted its pictures"
    page["accuracy"][ARMS[2]][1, 0] = 0.5
    assert page["factor_told"](0) == "with 10: 3.2 times (by seed 3.2 to 5.6; scratch there: unclear)"
    page["accuracy"][ARMS[2]][1, 0] = 0.7
    assert page["by_seed"](0)[0] == "3.2 to beyond"
    assert page["by_seed"](1) == ["beyond", "beyond its last point"]
    page["accuracy"][ARMS[2]][1, 0] = 0.4


def test_a_mark_is_reached_at_the_end_of_its_first_epoch_or_never(page):
    run = {"seconds_by_epoch": [10.0, 20.0, 30.0], "val_accuracy_by_epoch": [0.4, 0.6, 0.5]}
    assert [page["seconds_to"](mark, run) for mark in (0.4, 0.5, 0.6, 0.61)] == [10, 20, 20, None]
    assert page["largest"] == "100 a class" and page["time_cell"](0.6, ARMS[0]) == "20 s (2 of 2)"
    assert page["time_cell"](0.65, ARMS[0]) == "never (0 of 2)"


def test_seconds_of_another_machine_are_not_compared(page):
    code = code_of("vgg16-cifar10/what-transfer-buys.ipynb")["time-table"]
    known = page | made()
    for run in known["kept"]:
        run["device"] = {"name": "a busy one" if run["pair"] == "100 a class" else "a quiet one"}
    exec(compile(code, "time-table", "exec"), known)
    assert known["largest"] == "10 a class"


@pytest.mark.parametrize(
    "points, share, told",
    [
        ("loses more", "loses more", "loses more"),
        ("loses more (a hint)", "loses more (a hint)", "loses more (a hint)"),
        ("loses more (a hint)", "loses more", "loses more (a hint)"),
        ("loses more", "not told apart", "only one measure tells them apart"),
        ("loses more", "loses less (a hint)", "the measures contradict each other"),
    ],
)
def test_robustness_needs_both_measures(page, points, share, told):
    assert page["both"](points, share) == told
