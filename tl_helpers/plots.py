"""Figures in one style: arrays and an ``ax`` in, the ``ax`` out; nothing here trains or reads files."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter
from matplotlib.transforms import Bbox

# Okabe & Ito's palette (colour-blind safe), each colour with its own marker and line so that grey print works too.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
LINES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), "-")


def style() -> None:
    """Set the course's figure style for this notebook; pages draw two points a pixel, for telephones and dense screens."""
    if "matplotlib_inline" in plt.get_backend():
        from matplotlib_inline.backend_inline import set_matplotlib_formats

        set_matplotlib_formats("retina")
    plt.rcParams.update(
        {
            "figure.figsize": (6.4, 3.8),
            "figure.dpi": 110,
            "figure.facecolor": "white",
            "figure.constrained_layout.use": True,
            "axes.grid": True,
            "grid.alpha": 0.3,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.titlesize": "medium",
            "font.size": 10,
            "legend.frameon": False,
            "image.cmap": "viridis",
            "axes.prop_cycle": cycler(color=COLOURS) + cycler(linestyle=LINES),
        }
    )


def _axes(ax):
    return ax if ax is not None else plt.subplots()[1]


def curves(
    ax: Axes | None, histories: Mapping[str, Sequence[Mapping]], metric: str = "val_accuracy", label: str | None = None
) -> Axes:
    """One learning curve an arm.

    Args:
        ax: where to draw; None makes a new figure.
        histories: arm to ``Run.history`` (one dict an epoch).
        metric: which number of the history.
        label: the y-axis label (default: the metric's name).
    Returns:
        The axes.
    """
    ax = _axes(ax)
    for i, (arm, history) in enumerate(histories.items()):
        epochs = [row["epoch"] for row in history]
        ax.plot(epochs, [row[metric] for row in history], marker=MARKERS[i % 7], markersize=4, label=arm)
    ax.set(xlabel="epoch", ylabel=label or metric.replace("_", " "))
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.legend()
    return ax


def seeds(ax: Axes | None, values: Mapping[str, Sequence[float]], label: str = "test accuracy") -> Axes:
    """Every seed as a dot, the mean as a bar line; one row an arm.

    Args:
        ax: where to draw; None makes a new figure.
        values: arm to one number a seed.
        label: what the numbers are, with their unit.
    Returns:
        The axes.
    """
    ax = _axes(ax)
    for i, numbers in enumerate(values.values()):
        numbers = np.asarray(numbers, float)
        offsets = np.linspace(-0.12, 0.12, len(numbers)) if len(numbers) > 1 else [0.0]
        ax.plot(numbers, i + np.asarray(offsets), MARKERS[i % 7], color=COLOURS[i % 7], alpha=0.75, markersize=6)
        ax.plot([numbers.mean()] * 2, [i - 0.28, i + 0.28], "-", color="black", linewidth=2)
    ax.set_yticks(range(len(values)), list(values))
    ax.set(xlabel=label, ylim=(len(values) - 0.5, -0.5))
    ax.locator_params(axis="x", nbins=6)  # dots close together have long numbers, which would run into each other
    ax.grid(axis="y", visible=False)
    return ax


def lines_with_spread(
    ax: Axes | None, x: Sequence[float], values: Mapping[str, np.ndarray], xlabel: str, ylabel: str, log_x: bool = False
) -> Axes:
    """Mean over seeds against x, with a band from the lowest to the highest seed.

    More than four bands would cover each other: then the spread is a stroke, and each arm stands a little aside.

    Args:
        ax: where to draw; None makes a new figure.
        x: (n_x,) positions.
        values: arm to (n_seeds, n_x); NaN where a seed has no value.
        xlabel, ylabel: axis labels with units.
        log_x: logarithmic x-axis.
    Returns:
        The axes.
    """
    ax, many = _axes(ax), len(values) > 4
    for i, (arm, table) in enumerate(values.items()):
        table = np.atleast_2d(np.asarray(table, float))
        seen = ~np.all(np.isnan(table), axis=0)
        at, table = np.asarray(x, float)[seen], table[:, seen]
        aside = 0.012 * (i - (len(values) - 1) / 2) * many
        at = at * (max(x) / min(x)) ** aside if log_x else at + (max(x) - min(x)) * aside
        colour, ends = COLOURS[i % 7], (np.nanmin(table, 0), np.nanmax(table, 0))
        if many:
            ax.vlines(at, *ends, color=colour, linewidth=1.2)
        else:
            ax.fill_between(at, *ends, color=colour, alpha=0.18, linewidth=0)
        look = {"color": colour, "linestyle": LINES[i % 7], "marker": MARKERS[i % 7], "markersize": 5}
        ax.plot(at, np.nanmean(table, 0), label=arm, **look)
    if log_x:
        ax.set_xscale("log")
    ax.set_xticks(list(x), [f"{v:g}" for v in x])
    ax.minorticks_off()
    ax.set(xlabel=xlabel, ylabel=ylabel)
    ax.legend()
    return ax


def against_cost(
    ax: Axes | None, series: Mapping[str, Mapping[str, tuple]], xlabel: str, ylabel: str = "test accuracy"
) -> Axes:
    """What a choice brings against what it costs: one line a network, one labelled point a choice.

    Args:
        ax: where to draw; None makes a new figure.
        series: network to {choice: (cost, one number a seed)}, in the order of the line.
        xlabel: what the cost is, with its unit; the axis is logarithmic.
        ylabel: what the numbers are.
    Returns:
        The axes.
    """
    ax, named, dark = _axes(ax), [], []
    for i, (name, points) in enumerate(series.items()):
        colour, cost = COLOURS[i % 7], [x for x, _ in points.values()]
        means = [float(np.mean(numbers)) for _, numbers in points.values()]
        ax.plot(cost, means, color=colour, linestyle=LINES[i % 7], marker=MARKERS[i % 7], markersize=5, label=name)
        ends = [[min(numbers) for _, numbers in points.values()], [max(numbers) for _, numbers in points.values()]]
        ax.vlines(cost, *ends, color=colour, linewidth=1)
        named += zip(points, zip(cost, means, strict=True), strict=True)
        dark += [0.65 * np.array(to_rgb(colour))] * len(points)  # small letters need more contrast than lines
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    large = EngFormatter(sep="\N{THIN SPACE}")  # 200 M; but a fifth of a millisecond is 0.2, not 200 m
    ax.xaxis.set_major_formatter(lambda cost, _: f"{cost:g}" if cost < 1000 else large(cost))
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.margins(x=0.12)
    ax.set(xlabel=xlabel, ylabel=ylabel)
    ax.legend(fontsize=8)
    _name(ax, named, dark)
    return ax


def named_points(ax: Axes | None, points: Mapping[str, tuple[float, float]]) -> Axes:
    """Points with their names, each in the first place beside its point where it covers nothing.

    Args:
        ax: where to draw, its labels set already; None makes a new figure.
        points: name to (x, y).
    Returns:
        The axes.
    """
    ax = _axes(ax)
    ax.plot(*np.array(list(points.values()), float).T, "o", color=COLOURS[0])
    ax.margins(0.1)
    _name(ax, list(points.items()))
    return ax


def _name(ax: Axes, named: list[tuple[str, tuple[float, float]]], colours: Sequence | None = None) -> None:
    """Write names beside their points, each in the first place where it covers nothing, or at least no point or name."""
    ax.figure.canvas.draw()  # from now on it is known where a point lies on the page
    taken = [Bbox.from_bounds(x - 5, y - 5, 10, 10) for x, y in ax.transData.transform([at for _, at in named])]
    lines = [line for line in ax.lines if line.get_linestyle() != "None"]
    drawn = [Bbox.from_bounds(x - 1, y - 1, 2, 2) for line in lines for x, y in _along(ax, line)]
    places = [(x, y) for x in (6, -6) for y in (0, 6, -6)] + [(0, 8), (0, -8), (6, 14), (-6, 14), (6, -14), (-6, -14)]
    for (name, at), colour in zip(named, colours or ["black"] * len(named), strict=True):
        tried = {}
        for x, y in places:
            sides = {"ha": ("center", "left", "right")[np.sign(x)], "va": ("center", "bottom", "top")[np.sign(y)]}
            label = ax.annotate(name, at, xytext=(x, y), textcoords="offset points", fontsize=8, color=colour, **sides)
            box = label.get_window_extent()
            outside = not (ax.bbox.x0 < box.x0 and box.x1 < ax.bbox.x1 and ax.bbox.y0 < box.y0)
            covered = any(box.overlaps(other) for other in taken)
            tried[label] = (10 * covered + 10 * outside + any(box.overlaps(other) for other in drawn), box)
        best = min(tried, key=lambda label: tried[label][0])
        taken.append(tried[best][1])
        for label in tried.keys() - {best}:
            label.remove()


def _along(ax: Axes, line: Line2D) -> np.ndarray:
    """Places on the page (n, 2) along a line from point to point."""
    corners = ax.transData.transform(np.asarray(line.get_xydata(), float))
    share = np.linspace(0, 1, 20)[:, None]
    return np.concatenate([one + share * (other - one) for one, other in zip(corners, corners[1:])] or [corners])


def bars(ax: Axes | None, values: Mapping[str, float], label: str, errors: Mapping[str, float] | None = None) -> Axes:
    """One horizontal bar an arm, starting at zero, with an optional error a bar.

    Args:
        ax: where to draw; None makes a new figure.
        values: arm to number.
        label: what the numbers are, with their unit.
        errors: arm to half-width of its error bar.
    Returns:
        The axes.
    """
    ax = _axes(ax)
    spread = [errors[arm] for arm in values] if errors else None
    ax.barh(list(values), list(values.values()), xerr=spread, color=COLOURS[0], height=0.6, capsize=3)
    ax.invert_yaxis()
    ax.set_xlabel(label)
    ax.grid(axis="y", visible=False)
    return ax


def confusion(ax: Axes | None, matrix: np.ndarray, names: Sequence[str]) -> Axes:
    """A confusion matrix (k, k), counts written in the cells: rows are true classes, columns predictions."""
    ax = _axes(ax)
    matrix = np.asarray(matrix)
    share = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    ax.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for i, j in np.ndindex(*matrix.shape):
        if matrix[i, j]:
            ax.text(
                j,
                i,
                f"{matrix[i, j]:d}",
                ha="center",
                va="center",
                fontsize=7,
                color="white" if share[i, j] > 0.5 else "black",
            )
    ax.set_xticks(range(len(names)), names, rotation=60, ha="right")
    ax.set_yticks(range(len(names)), names)
    ax.set(xlabel="predicted class", ylabel="true class")
    ax.grid(visible=False)
    return ax


def image_grid(
    images: Sequence[np.ndarray],
    titles: Sequence[str] | None = None,
    columns: int = 8,
    size: float = 0.95,
    frame: bool = False,
) -> Figure:
    """A grid of pictures.

    Args:
        images: n arrays (height, width, 3) or (height, width); uint8 0-255, or floats, each scaled to its own range.
        titles: n short titles.
        columns: pictures a row.
        size: inches a picture.
        frame: draw a thin grey line around each picture, for those whose own ground is white.
    Returns:
        The figure.
    """
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    height = size * (1.25 if titles is not None else 1.0)
    figure, axes = plt.subplots(rows, columns, figsize=(columns * size, rows * height), squeeze=False)
    for ax in axes.flat:
        ax.axis("off")
    for i, (ax, image) in enumerate(zip(axes.flat, images, strict=False)):
        image = np.asarray(image)
        if image.dtype != np.uint8:
            image = (image - image.min()) / max(float(np.ptp(image)), 1e-12)
        ax.imshow(image.squeeze(), cmap="gray", interpolation="nearest")
        if frame:
            around = dict(transform=ax.transAxes, fill=False, color="grey", linewidth=0.8, clip_on=False)
            ax.add_patch(Rectangle((0, 0), 1, 1, **around))
        if titles is not None:
            ax.set_title(str(titles[i]), fontsize=7, pad=2)
    return figure
