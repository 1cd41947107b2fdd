"""Metrics on top of scikit-learn; ``test`` opens the test set, once a run."""

from collections.abc import Callable, Sequence

import keras
import numpy as np
from scipy.special import log_softmax
from scipy.stats import binomtest
from scipy.stats import t as student
from sklearn import metrics as sk

from tl_helpers import results
from tl_helpers.preprocessing import check_input
from tl_helpers.splits import Dataset


def logits(model: keras.Model, images: np.ndarray, batch_size: int = 256) -> np.ndarray:
    """The model's outputs (n, classes) as float32, without a progress bar.

    Raises:
        ValueError: the model does its preprocessing inside, and the images are not RGB pixels 0-255.
    """
    check_input(model, images)
    parts = [model.predict_on_batch(images[i : i + batch_size]) for i in range(0, len(images), batch_size)]
    return np.concatenate(parts).astype(np.float32)


def accuracy(outputs: np.ndarray, labels: np.ndarray) -> float:
    """Share of rows whose largest output is the label.

    Args:
        outputs: (n, classes), logits or probabilities.
        labels: (n,), integer class ids.
    Returns:
        Between 0 and 1.
    Raises:
        ValueError: the shapes do not fit.
    """
    _check(outputs, labels)
    return float(sk.accuracy_score(labels, outputs.argmax(-1)))


def top_k_accuracy(outputs: np.ndarray, labels: np.ndarray, k: int = 5) -> float:
    """Share of rows whose label is among the k largest outputs."""
    _check(outputs, labels)
    classes = outputs.shape[1]
    if classes <= 2 and k >= 1:  # scikit-learn wants the scores of one class then, not of both
        return accuracy(outputs, labels) if k < classes else 1.0
    return float(sk.top_k_accuracy_score(labels, outputs, k=k, labels=np.arange(classes)))


def cross_entropy(outputs: np.ndarray, labels: np.ndarray) -> float:
    """Mean of -log softmax(logits)[label], in nats.

    Raises:
        ValueError: the shapes do not fit, or the outputs are probabilities.
    """
    _check_logits(outputs, labels)
    return float(-log_softmax(outputs.astype(np.float64), axis=-1)[np.arange(len(labels)), labels].mean())


def interval(correct: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a share (Wilson, 1927): the test set's own sampling error, not the seeds' spread."""
    found = binomtest(int(correct), int(n)).proportion_ci(confidence_level=level, method="wilson")
    return float(found.low), float(found.high)


def reliability(outputs: np.ndarray, labels: np.ndarray, bins: int = 15) -> np.ndarray:
    """What is promised and what is kept, in equal-width bins of the stated confidence (Naeini et al., 2015).

    Returns:
        (bins in use, 3): the share of answers in a bin, their mean confidence, and the share of them that is right.
    Raises:
        ValueError: the shapes do not fit, or the outputs are probabilities.
    """
    _check_logits(outputs, labels)
    probabilities = np.exp(log_softmax(outputs.astype(np.float64), axis=-1))
    confidence, right = probabilities.max(-1), probabilities.argmax(-1) == labels
    which = np.minimum((confidence * bins).astype(int), bins - 1)
    held = [which == b for b in np.unique(which)]
    return np.array([[np.mean(rows), confidence[rows].mean(), right[rows].mean()] for rows in held])


def calibration_error(outputs: np.ndarray, labels: np.ndarray, bins: int = 15) -> float:
    """Expected calibration error with equal-width bins (Naeini et al., 2015): mean ``|confidence - accuracy|``, 0-1."""
    share, confidence, right = reliability(outputs, labels, bins).T
    return float(np.sum(share * np.abs(confidence - right)))


def margin(gaps: Sequence[float], looks: int = 1) -> float:
    """Half of the 95 % confidence interval of a mean of paired differences (n,), by Student's t; infinite for n = 1.

    With ``looks``, so many comparisons at once share the risk of 5 % that any of them errs (Bonferroni), so it is wider.
    """
    gaps = np.asarray(gaps, float)
    if len(gaps) < 2:
        return float("inf")
    return float(student.ppf(1 - 0.025 / looks, len(gaps) - 1) * gaps.std(ddof=1) / np.sqrt(len(gaps)))


def verdict(gaps: Sequence[float], better: str = "better", worse: str = "worse", looks: int = 1) -> list[str]:
    """Two cells of a table about paired differences, one a seed: their mean ± margin, and what that allows to say.

    Args:
        gaps: (n,), one arm minus another, seed by seed.
        better, worse: the words where the mean is further from zero than its margin.
        looks: how many such comparisons a reader looks at together. A word that the margin widened for all of them
            (``margin(gaps, looks)``) does not bear out ends in ``" (a hint)"``: luck had that many chances.
    Returns:
        For example ``["+0.012 ± 0.004", "better"]``; else ``"not told apart"``, or that one seed cannot tell.
    """
    gaps = np.asarray(gaps, float)
    if len(gaps) < 2:
        return [f"{gaps[0]:+.3f}" if len(gaps) else "–", "one seed cannot tell" if len(gaps) else "not recorded yet"]
    mean, luck = float(gaps.mean()), margin(gaps)
    word = better if mean > luck else worse if -mean > luck else "not told apart"
    hint = " (a hint)" if luck < abs(mean) <= margin(gaps, looks) else ""
    return [f"{mean:+.3f} ± {luck:.3f}", word + hint]


def validation_metrics(model: keras.Model, data: Dataset) -> dict:
    """Validation accuracy and loss, to choose by."""
    outputs = logits(model, data.val.images)
    return {"val_accuracy": accuracy(outputs, data.val.labels), "val_loss": cross_entropy(outputs, data.val.labels)}


def test(run: results.Run, model: keras.Model, data: Dataset, extra: dict | Callable[[], dict] | None = None) -> dict:
    """Open the test set for a run, complete the run and write its record.

    Where ``extra`` or the writing fails (a full disk), the call may be made again: what was measured is kept.

    Args:
        run: from ``training.fit``, or a ``results.Run`` made by hand.
        model: images (or features) in, logits out.
        data: a ``datasets.Dataset`` with a test split.
        extra: further metrics for the record, or a function that measures them (not called for a reused run).
    Returns:
        The metrics: ``val_accuracy``, ``val_loss``, ``test_accuracy``, ``test_accuracy_ci95``, ``test_loss`` and ``extra``.
    Raises:
        RuntimeError: this run is recorded already, or its test set was opened elsewhere.
        ValueError: the data has no test split, or the run is a regression.
    """
    if run.reused:
        return run.record["metrics"]
    if (run.recipe or {}).get("loss") == "regression":
        raise ValueError(
            "evaluation.test measures a classifier. Received: a regression; hand what you measured to run.finish(...)"
        )
    if run.record is not None or (run.tested and run.measured is None):
        raise RuntimeError(
            f"{run.experiment} / {run.arm} / seed {run.seed} was tested already: the test set is opened once a run"
        )
    if data.test is None:
        raise ValueError(
            f"{data.name} has no test split. Use a data set with one, or results.Run.finish with validation metrics"
        )
    if run.measured is None:
        run.measured = {**validation_metrics(model, data), **_test_metrics(model, data)}
        run.tested = True
    return run.finish({**run.measured, **((extra() if callable(extra) else extra) or {})})["metrics"]


def _test_metrics(model: keras.Model, data: Dataset) -> dict:
    outputs = logits(model, data.test.images)
    right = int((outputs.argmax(-1) == data.test.labels).sum())
    return {
        "test_accuracy": right / len(data.test.labels),
        "test_accuracy_ci95": list(interval(right, len(data.test.labels))),
        "test_loss": cross_entropy(outputs, data.test.labels),
    }


test.__test__ = False  # pytest: not a test function


def _check(outputs: np.ndarray, labels: np.ndarray) -> None:
    if outputs.ndim != 2 or np.shape(labels) != (len(outputs),):
        raise ValueError(
            f"expected outputs (n, classes) and integer labels (n,). Received: {outputs.shape} and {np.shape(labels)}; "
            "flatten labels of shape (n, 1) with .ravel(), turn one-hot ones into integers with .argmax(-1)"
        )


def _check_logits(outputs: np.ndarray, labels: np.ndarray) -> None:
    """Refuse probabilities where a softmax is still to come: applied twice, it makes every answer unsure."""
    _check(outputs, labels)
    if outputs.size and outputs.min() >= 0 and np.allclose(outputs.sum(-1), 1, atol=1e-3):
        raise ValueError(
            "expected logits. Received: rows that are probabilities (none below 0, each sums to 1); take the outputs "
            "before the softmax, or their logarithm"
        )
