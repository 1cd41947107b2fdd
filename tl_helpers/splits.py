"""A data set in three parts, and how to draw them: ``Dataset``, ``Split``, ``stratified``."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tl_helpers.datafiles import arrays_sha256, check_images, flat_labels
from tl_helpers.downloads import DataRefused

SPLIT_SEED = 10
"""Draws the fixed splits; changing it changes every record."""


@dataclass(frozen=True, eq=False)
class Split:
    """One part of a data set.

    Attributes:
        images: (N, height, width, 3) uint8 pixels 0-255, or (N, d) float32 features.
        labels: (N,) int32 class ids; integer labels of shape (N, 1) are flattened.
    """

    images: np.ndarray
    labels: np.ndarray

    def __post_init__(self):
        images, labels = np.asarray(self.images), np.asarray(self.labels)
        if labels.dtype.kind in "iu":
            labels = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
            labels = labels.astype(np.int32, copy=False)
        if len(images) != len(labels):
            raise ValueError(
                f"a split needs one label for each image. Received: {len(images)} images, {len(labels)} labels"
            )
        object.__setattr__(self, "images", images)
        object.__setattr__(self, "labels", labels)

    def __len__(self) -> int:
        return len(self.labels)

    def __iter__(self) -> Iterator[np.ndarray]:
        return iter((self.images, self.labels))

    def take(self, rows: np.ndarray) -> "Split":
        """The examples at these places (or where a mask is True), in that order."""
        return Split(self.images[rows], self.labels[rows])


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set, split once and for all.

    Attributes:
        name: the data really held, such as ``cifar10``.
        copy: which copy of it: ``official``, ``rebuilt``, ``embedded``, or ``own`` (a reader's arrays).
        sha256: hash of all its arrays before splitting; subsets made by ``few`` and ``only`` keep it.
        train, val, test: the parts; ``test`` is None where the test labels are not public.
        class_names: one for each class id.
        licence: terms of use.
    """

    name: str
    copy: str
    sha256: str
    train: Split
    val: Split
    test: Split | None
    class_names: tuple[str, ...]
    licence: str

    def identity(self) -> dict[str, str]:
        """``{"name", "copy", "sha256"}``, as records keep it."""
        return {"name": self.name, "copy": self.copy, "sha256": self.sha256}

    def sizes(self) -> dict[str, int | None]:
        """Number of examples in ``train``, ``val`` and ``test``."""
        return {name: None if split is None else len(split) for name, split in self._parts().items()}

    def few(self, labels_per_class: int, seed: int) -> "Dataset":
        """Only that many training examples of each class, drawn by the seed; val and test stay whole.

        For one seed the subsets are nested: the 10 a class are among the 100 a class.

        Raises:
            ValueError: a class has fewer training examples, or none.
        """
        counts = np.bincount(self.train.labels, minlength=len(self.class_names))
        if absent := [name for name, count in zip(self.class_names, counts) if not count]:
            raise ValueError(
                f"few needs examples of every class in train. Received: none of {', '.join(absent[:5])}"
                f"{' …' if len(absent) > 5 else ''}; leave such classes out with only(...)"
            )
        if not 1 <= labels_per_class <= counts.min():
            raise ValueError(
                f"labels_per_class must be from 1 to {counts.min()}, the size of the smallest class in train. "
                f"Received: {labels_per_class}"
            )
        order = np.random.RandomState(seed).permutation(len(self.train))  # RandomState: its draws never change
        drawn = [order[self.train.labels[order] == c][:labels_per_class] for c in range(len(counts))]
        return replace(self, train=self.train.take(np.sort(np.concatenate(drawn))))

    def only(self, classes: Sequence[int | str]) -> "Dataset":
        """Only these classes (ids or names), in every part; labels are numbered anew from 0 in the order given.

        Raises:
            ValueError: an unknown or repeated class.
        """
        ids = [self._class_id(c) for c in classes]
        if not ids or len(set(ids)) != len(ids):
            raise ValueError(f"classes must be at least one, and each only once. Received: {list(classes)}")
        new = np.full(len(self.class_names), -1, np.int32)
        new[ids] = np.arange(len(ids))
        parts = {}
        for name, split in self._parts().items():
            keep = None if split is None else new[split.labels] >= 0
            parts[name] = None if split is None else Split(split.images[keep], new[split.labels[keep]])
        return replace(self, **parts, class_names=tuple(self.class_names[i] for i in ids))

    def shorten(self, *, val: int | None = None, test: int | None = None) -> "Dataset":
        """Only the first ``val`` and ``test`` examples of those parts (all where there are fewer, or None is given)."""
        return replace(
            self,
            val=self.val.take(np.arange(len(self.val))[:val]),
            test=None if self.test is None else self.test.take(np.arange(len(self.test))[:test]),
        )

    def _parts(self) -> dict[str, Split | None]:
        return {"train": self.train, "val": self.val, "test": self.test}

    def _class_id(self, wanted: int | str) -> int:
        if isinstance(wanted, str) and wanted in self.class_names:
            return self.class_names.index(wanted)
        if isinstance(wanted, (int, np.integer)) and 0 <= wanted < len(self.class_names):
            return int(wanted)
        known = ", ".join(self.class_names[:20]) + (" …" if len(self.class_names) > 20 else "")
        raise ValueError(
            f"a class must be an id from 0 to {len(self.class_names) - 1} or one of {known}. Received: {wanted!r}"
        )


def from_arrays(
    name: str,
    train: tuple[np.ndarray, np.ndarray],
    val: tuple[np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray] | None = None,
    *,
    class_names: Sequence[str],
    licence: str = "unknown",
) -> Dataset:
    """A data set from a reader's own images, uint8 RGB (N, height, width, 3), and labels (N,) or (N, 1).

    Raises:
        DataRefused: images grey, float, without three channels, or of one size in train and of another in val or test;
            labels one-hot or outside the class names.
    """
    parts, arrays = {"test": None}, {}
    for part, pair in (("train", train), ("val", val), ("test", test)):
        if pair is None:
            continue
        images = check_images(np.asarray(pair[0]), f"{part} images")
        _check_size(images, arrays.get("x_train", images), part)
        labels = flat_labels(pair[1], f"{part} labels")
        if len(labels) and not 0 <= labels.min() <= labels.max() < len(class_names):
            raise DataRefused(
                f"{part} labels must be from 0 to {len(class_names) - 1}. Received: {labels.min()} to {labels.max()}"
            )
        parts[part] = Split(images, labels)
        arrays |= {f"x_{part}": images, f"y_{part}": labels}
    return Dataset(name, "own", arrays_sha256(arrays), **parts, class_names=tuple(class_names), licence=licence)


def _check_size(images: np.ndarray, train: np.ndarray, part: str) -> None:
    if images.shape[1:] != train.shape[1:]:
        (height, width), received = train.shape[1:3], images.shape[1:3]
        raise DataRefused(
            f"{part} images must have the size of those in train, {height} x {width} pixels. "
            f"Received: {received[0]} x {received[1]}; resize them"
        )


def stratified(labels: np.ndarray, sizes: Sequence[int], seed: int = SPLIT_SEED) -> list[np.ndarray]:
    """Disjoint sets of rows of these sizes, each with the classes in the same shares (largest remainders).

    Args:
        labels: (N,) class ids.
        sizes: how many rows each set gets; together at most N.
        seed: decides the draw, the same with every NumPy version.
    Returns:
        Sorted row numbers for each size, then the rows left over.
    Raises:
        ValueError: a negative size, or more rows asked for than there are.
    """
    if min(sizes, default=0) < 0 or sum(sizes) > len(labels):
        raise ValueError(
            f"sizes must not be negative, and together at most {len(labels)}, the number of labels. "
            f"Received: {list(sizes)}; ask for fewer rows"
        )
    order = np.random.RandomState(seed).permutation(len(labels))
    classes = [order[labels[order] == c] for c in np.unique(labels)]
    held = np.array([len(rows) for rows in classes], int)
    sets, used = [], np.zeros(len(classes), int)
    for size in sizes:
        counts = _share_out(size, size * held / len(labels), held - used)
        sets.append(
            np.sort(np.concatenate([rows[u : u + n] for rows, u, n in zip(classes, used, counts, strict=True)]))
        )
        used += counts
    return [*sets, np.sort(np.concatenate([rows[u:] for rows, u in zip(classes, used, strict=True)]))]


def _share_out(size: int, exact: np.ndarray, room: np.ndarray) -> np.ndarray:
    """Whole numbers near ``exact`` that add up to ``size``, none above ``room``: earlier sets may have emptied a class."""
    counts = np.minimum(np.floor(exact).astype(int), room)
    while (short := size - counts.sum()) > 0:
        ranked = np.argsort(counts - exact, kind="stable")
        counts[ranked[counts[ranked] < room[ranked]][:short]] += 1
    return counts
