"""Tests of tl_helpers.evaluation: accuracies, intervals, calibration, verdicts."""

import types

import numpy as np
import pytest

from tl_helpers import evaluation, results


def test_paired_differences_are_judged_by_students_margin():
    assert evaluation.margin([0.01, 0.02, 0.03]) == pytest.approx(4.303 * 0.01 / 3**0.5, rel=1e-3)
    assert evaluation.verdict([0.05, 0.06, 0.055]) == ["+0.055 ± 0.012", "better"]
    assert evaluation.verdict([-0.05, -0.06, -0.055], "helps", "hurts")[1] == "hurts"
    for gaps in ([0.01, 0.02, 0.03], [-0.01, -0.02, -0.03]):  # one sign, and yet within its margin
        assert evaluation.verdict(gaps)[1] == "not told apart"
    assert evaluation.verdict([0.2]) == ["+0.200", "one seed cannot tell"]
    assert evaluation.verdict([]) == ["–", "not recorded yet"]


def test_metrics_agree_with_hand_counts():
    outputs = np.array([[2.0, 1.0, 0.0], [0.0, 1.0, 2.0], [0.0, 3.0, 0.0], [1.0, 0.5, 0.0]])
    labels = np.array([0, 1, 1, 2])
    assert evaluation.accuracy(outputs, labels) == 0.5
    assert evaluation.top_k_accuracy(outputs, labels, k=2) == 0.75
    by_hand = -np.log(np.exp(outputs)[range(4), labels] / np.exp(outputs).sum(1)).mean()
    assert evaluation.cross_entropy(outputs, labels) == pytest.approx(by_hand)
    with pytest.raises(ValueError, match="flatten labels"):
        evaluation.accuracy(outputs, labels[:, None])


def test_wilson_interval_known_value():
    low, high = evaluation.interval(8, 10)
    assert (low, high) == (pytest.approx(0.490, abs=1e-3), pytest.approx(0.943, abs=1e-3))


def test_calibration_error_is_zero_for_perfect_and_large_for_boastful():
    labels = np.zeros(100, int)
    sure = np.tile([20.0, 0.0], (100, 1))
    assert evaluation.calibration_error(sure, labels) < 1e-6
    assert evaluation.calibration_error(sure, np.ones(100, int)) > 0.99


def test_reliability_counts_every_answer_once():
    """Eight of ten answers at one half and two at certainty; of each kind half are right."""
    outputs = np.concatenate([np.zeros((8, 2)), np.tile([50.0, 0.0], (2, 1))])
    rows = evaluation.reliability(outputs, np.array([0, 1] * 5))
    assert np.allclose(rows, [[0.8, 0.5, 0.5], [0.2, 1.0, 0.5]])
    assert evaluation.calibration_error(outputs, np.array([0, 1] * 5)) == pytest.approx(0.1)


def stating(*confidences):
    """Logits of two classes, of which the first is stated with these confidences."""
    return np.stack([np.log(confidences), np.log1p(-np.array(confidences))], -1)


def test_a_class_too_shy_does_not_make_up_for_one_too_boastful():
    labels = np.array([0] * 10 + [0] * 6 + [1] * 4)
    found = evaluation.calibration_error(stating(*[0.75] * 10, *[0.9] * 10), labels)
    assert found == pytest.approx((0.25 + 0.3) / 2)


def test_confidences_fall_into_fifteen_bins_of_equal_width():
    """With edges at 10/15, 11/15 and 12/15; with any other number of bins these five would be shared out otherwise."""
    rows = evaluation.reliability(stating(0.68, 0.72, 0.74, 0.79, 0.81), np.array([0, 1, 0, 0, 0]))
    assert np.allclose(rows, [[0.4, 0.70, 0.5], [0.4, 0.765, 1.0], [0.2, 0.81, 1.0]])


def test_two_classes_have_a_top_1_and_a_certain_top_2():
    outputs, labels = np.array([[2.0, 1.0], [0.0, 1.0], [3.0, 0.0]]), np.array([0, 1, 1])
    assert (
        evaluation.top_k_accuracy(outputs, labels, k=1) == evaluation.accuracy(outputs, labels) == pytest.approx(2 / 3)
    )
    assert evaluation.top_k_accuracy(outputs, labels, k=2) == 1.0
    with pytest.raises(ValueError, match="k"):
        evaluation.top_k_accuracy(outputs, labels, k=0)


class Counted:
    """A model that counts how often it is asked; it says class 0."""

    built, layers, asked = True, (), 0

    def predict_on_batch(self, images):
        self.asked += 1
        return np.tile([2.0, 0.0], (len(images), 1))


@pytest.fixture
def open_run(monkeypatch, tmp_path):
    """A run, a model and data; validation and test ask the model once each."""
    monkeypatch.setenv("TL_SCRATCH", str(tmp_path))
    part = types.SimpleNamespace(images=np.zeros((4, 3), np.float32), labels=np.array([0, 0, 0, 1]))
    data = types.SimpleNamespace(name="own", val=part, test=part)
    return results.Run("demo", arm="a", seed=0), Counted(), data


def test_each_metric_is_of_its_own_part(open_run):
    run, model, data = open_run
    data.val = types.SimpleNamespace(images=data.val.images[:2], labels=np.array([0, 1]))
    found = evaluation.test(run, model, data)
    assert (found["val_accuracy"], found["test_accuracy"]) == (0.5, 0.75)
    assert found["test_accuracy_ci95"] == pytest.approx(evaluation.interval(3, 4), abs=1e-6)
    for part, labels in (("val", data.val.labels), ("test", data.test.labels)):
        expected = evaluation.cross_entropy(np.tile([2.0, 0.0], (len(labels), 1)), labels)
        assert found[f"{part}_loss"] == pytest.approx(expected, abs=1e-6)


def test_without_a_test_split_no_test_is_made_up(open_run):
    run, model, data = open_run
    data.test = None
    with pytest.raises(ValueError, match="own has no test split. Use a data set with one"):
        evaluation.test(run, model, data)
    assert model.asked == 0 and not run.tested


def test_a_run_whose_extra_metrics_fail_can_be_recorded_without_opening_the_test_set_again(open_run):
    run, model, data = open_run
    with pytest.raises(ZeroDivisionError):
        evaluation.test(run, model, data, extra=lambda: {"more": 1 / 0})
    found = evaluation.test(run, model, data, extra=lambda: {"more": 1.0})
    assert found["test_accuracy"] == 0.75 and found["more"] == 1.0 and model.asked == 2
    with pytest.raises(RuntimeError, match="tested already"):
        evaluation.test(run, model, data)


def test_a_run_that_a_full_disk_kept_from_being_recorded_can_be_recorded(open_run, monkeypatch):
    run, model, data = open_run
    with monkeypatch.context() as full:
        full.setattr(results, "_keep", lambda record: (_ for _ in ()).throw(OSError("full")))
        with pytest.raises(OSError, match="full"):
            evaluation.test(run, model, data)
    assert evaluation.test(run, model, data)["test_accuracy"] == 0.75 and model.asked == 2


def test_a_test_set_opened_by_hand_is_not_opened_again(open_run):
    run, model, data = open_run
    run.tested = True
    with pytest.raises(RuntimeError, match="tested already"):
        evaluation.test(run, model, data)
    assert model.asked == 0


def test_a_failure_before_any_number_is_seen_leaves_the_test_set_closed(open_run):
    run, model, data = open_run
    with pytest.raises(AttributeError):
        evaluation.test(run, object(), data)
    assert not run.tested and evaluation.test(run, model, data)["test_accuracy"] == 0.75


def test_a_regression_is_not_tested_as_a_classifier(open_run):
    run, model, data = open_run
    run.recipe = {"loss": "regression"}
    with pytest.raises(ValueError, match=r"Received: a regression; hand what you measured to run\.finish"):
        evaluation.test(run, model, data)
    assert model.asked == 0 and not run.tested


@pytest.mark.parametrize("measure", [evaluation.cross_entropy, evaluation.calibration_error])
def test_probabilities_are_not_taken_for_logits(measure):
    logits = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    labels = np.arange(50) % 4
    probabilities = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    with pytest.raises(ValueError, match="expected logits. Received: rows that are probabilities"):
        measure(probabilities, labels)
    assert measure(np.log(probabilities), labels) == pytest.approx(measure(logits, labels), rel=1e-5)
