"""How a page words what it shows: numbers with their spread, names of metrics, small tables."""

import html
import math
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

SHARE = re.compile(r"accuracy|top\d*|f1|r2|share|probability")
# How a table heads the metrics whose names in the records do not read as words.
HEADINGS = {
    "train_accuracy": "training accuracy",
    "train_loss": "training loss",
    "val_accuracy": "validation accuracy",
    "val_loss": "validation loss",
    "val_top1": "validation top-1",
    "val_top5": "validation top-5",
    "val_flips_accuracy": "validation accuracy with mirror images",
    "flips_accuracy": "test accuracy with mirror images",
    "again_accuracy": "test accuracy, averages measured again",
    "other_size_val_accuracy": "validation accuracy at the other size",
    "same_class_accuracy": "share of neighbours of the same class",
    "test_cross_entropy": "test cross-entropy",
    "test_f1": "test F1",
    "test_r2": "test R²",
    "test_loss_scaled": "test loss with temperature",
    "calibration_error_scaled": "calibration error with temperature",
    "multiply_adds": "multiply-adds",
    "count_ratio": "multiply-adds, as a multiple",
    "time_ratio": "time, as a multiple",
    "work_ratio": "multiply-adds a second, as a multiple",
    "over_relu_ratio": "time, as a multiple of ReLU's",
    "program_over_kept_ratio": "program's time ÷ time with kept features",
    "kept_over_one_pass_ratio": "time with kept features ÷ time of one pass",
    "images_per_second": "images a second",
    "images_per_second_at_16": "images a second at 16 px",
    "images_per_second_at_32": "images a second at 32 px",
    "whole_seconds": "seconds, all counted",
    "epoch_seconds": "seconds an epoch",
    "width_pixels": "width in pixels",
    "megabytes": "MB",
}


def is_share(metric: str) -> bool:
    """Whether one of a metric's words says that it lies between 0 and 1: ``val_top5`` does, ``stopped_epoch`` does not."""
    return any(SHARE.fullmatch(word) for word in metric.split("_"))


def heading(metric: str) -> str:
    """How a table heads a metric: ``val_accuracy`` as ``validation accuracy``."""
    return HEADINGS.get(metric, metric.replace("_", " "))


def decimal(number: float | str) -> str:
    """A number written out: ``0.00003`` where ``str`` gives ``3e-05``."""
    return np.format_float_positional(float(number), trim="-")


def show(numbers: Sequence[float], metric: str = "accuracy") -> str:
    """Mean ± standard deviation and the number of seeds, as pages print it: ``0.634 ± 0.004 (3 seeds)``.

    Shares such as accuracies have three decimals; of another metric the standard deviation has two digits, and the mean as many
    decimals. A number that is the same for every seed, such as a count of weights, is shown without a spread.
    """
    numbers = [float(n) for n in numbers]
    if not numbers:
        return "not recorded yet"
    mean, n = float(np.mean(numbers)), len(numbers)
    if n == 1:
        return f"{_number(mean, metric)} (1 run)"
    spread = float(np.std(numbers, ddof=1))
    share = is_share(metric)
    if not share and spread <= 1e-9 * abs(mean):
        return f"{_number(mean, metric)} (all {n} seeds)"
    digits = 3 if share else max(0, 1 - math.floor(math.log10(spread)))
    return f"{mean:,.{digits}f} ± {spread:,.{digits}f} ({n} seeds)"


def _number(value: float, metric: str) -> str:
    if is_share(metric):
        return f"{value:.3f}"
    if abs(value) >= 999.5 or float(value).is_integer():  # three digits of 999.7 would be 1e+03
        return f"{value:,.0f}"
    return f"{value:.3g}"


class Link(NamedTuple):
    """A table's cell that leads somewhere."""

    text: str
    address: str

    def __str__(self) -> str:
        return self.text


class Table:
    """A small table: text in a terminal, HTML with header cells in a notebook or on a page; cells may be a ``Link``."""

    def __init__(self, header: Sequence[str], rows: Sequence[Sequence], caption: str = ""):
        self.header = [str(h) for h in header]
        self.rows = [["" if cell is None else cell for cell in row] for row in rows]
        self.caption = caption

    def __repr__(self) -> str:
        lines = [self.header, *([str(cell) for cell in row] for row in self.rows)]
        widths = [max(len(row[i]) for row in lines) for i in range(len(self.header))]
        text = "\n".join("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in lines)
        return f"{self.caption}\n{text}" if self.caption else text

    def _repr_html_(self) -> str:
        head = "".join(f'<th scope="col">{html.escape(h)}</th>' for h in self.header)
        body = "".join(
            f'<tr><th scope="row">{_marked(row[0])}</th>' + "".join(f"<td>{_marked(c)}</td>" for c in row[1:]) + "</tr>"
            for row in self.rows
        )
        caption = f"<caption>{html.escape(self.caption)}</caption>" if self.caption else ""
        return f'<div class="tl-table" tabindex="0"><table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _marked(cell) -> str:
    """A cell as HTML; a number stays on one line with its spread."""
    text = html.escape(str(cell)).replace(" ± ", "&nbsp;±&nbsp;")
    return f'<a href="{html.escape(cell.address)}">{text}</a>' if isinstance(cell, Link) else text
