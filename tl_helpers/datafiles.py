"""From files to arrays: reads each data set's own files, checks them, and says which copy they hold."""

import functools
import hashlib
import io
import json
import pickle
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tl_helpers import downloads, runtime
from tl_helpers.downloads import DataRefused, DataUnavailable


@dataclass(frozen=True)
class RemoteFile:
    """A file that can be downloaded: the arguments of ``downloads.fetch``."""

    name: str
    urls: tuple[str, ...]
    sha256: str
    megabytes: float | None = None
    terms: str | None = None

    def fetch(self, *, download: bool = True, progress: bool = True) -> Path:
        """Its path; with ``download=False`` only ``TL_DATA`` and the cache are searched."""
        if download:
            return downloads.fetch(
                self.name, self.urls, self.sha256, megabytes=self.megabytes, terms=self.terms, progress=progress
            )
        found = downloads.find(self.name, self.sha256, urls=self.urls)
        if found is None:
            raise DataUnavailable(f"{self.name} is neither in TL_DATA nor in the cache.\n{self.instructions()}")
        return found

    def instructions(self) -> str:
        """How to place it by hand."""
        return downloads.how_to_place(self.name, self.urls, self.sha256)


@dataclass(frozen=True)
class Found:
    """Arrays of a whole data set, the copy they are, and their hash (``arrays_sha256``)."""

    arrays: dict[str, np.ndarray]
    copy: str
    sha256: str


def arrays_sha256(arrays: dict[str, np.ndarray]) -> str:
    """One hash of named arrays: names, shapes and values; the order of the names does not matter."""
    whole = hashlib.sha256()
    for name in sorted(arrays):
        array = np.asarray(arrays[name])
        array = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        whole.update(f"{name} {array.dtype.str} {array.shape};".encode())
        whole.update(array.reshape(-1).view(np.uint8))
    return whole.hexdigest()


def read_npz(path: Path, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Arrays of an ``.npz`` placed by hand; nothing in it is executed (no pickles).

    Raises:
        DataRefused: truncated, damaged, no ``.npz``, or an array is missing.
    """
    try:
        with np.load(path, allow_pickle=False) as kept:
            missing = [name for name in names if name not in kept.files]
            if not missing:
                return {name: kept[name] for name in names}
            held = ", ".join(kept.files) or "nothing"
    except (OSError, ValueError, EOFError, KeyError, AttributeError, zipfile.BadZipFile) as error:
        raise DataRefused(
            f"{path} cannot be read as an .npz file: truncated or damaged ({error}). Place it there again, or remove it"
        ) from error
    raise DataRefused(f"{path} must hold the arrays {', '.join(names)}. Received: {held}")


def flat_labels(labels: np.ndarray, what: str) -> np.ndarray:
    """Integer labels (N,) as int32; (N, 1) is flattened.

    Raises:
        DataRefused: one-hot or otherwise shaped labels, or labels that are not whole numbers.
    """
    labels = np.asarray(labels)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1:
        hint = " One-hot labels become integers with labels.argmax(-1)." if labels.ndim == 2 else ""
        raise DataRefused(
            f"{what} must be integer labels of shape (N,) or (N, 1).{hint} Received: shape {labels.shape}"
        )
    if labels.dtype.kind not in "iu":
        raise DataRefused(f"{what} must be integers. Received: {labels.dtype}")
    return labels.astype(np.int32)


def check_images(images: np.ndarray, what: str, size: int | None = None) -> np.ndarray:
    """Refuse images that are not uint8 RGB (N, height, width, 3), or not of the size asked for.

    Raises:
        DataRefused: grey, float or of another size; the message says how to convert them.
    """
    wanted = f"(N, {size}, {size}, 3)" if size else "(N, height, width, 3)"
    if images.ndim == 3 or (images.ndim == 4 and images.shape[-1] == 1):
        hint = "Grey images become RGB with np.repeat(images.reshape(*images.shape[:3], 1), 3, axis=-1)"
    elif images.ndim != 4 or images.shape[-1] != 3:
        hint = "Channels come last, and there are three"
    elif size is not None and images.shape[1:3] != (size, size):
        hint = f"They are {images.shape[1]} x {images.shape[2]} pixels; resize them"
    elif images.dtype != np.uint8:
        hint = "Floats 0-1 become pixels with (images * 255).round().astype('uint8')"
    else:
        return images
    raise DataRefused(
        f"{what} must be uint8 RGB images 0-255 of shape {wanted}. {hint}. Received: {images.dtype} {images.shape}"
    )


# --- CIFAR-10 --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CifarFiles:
    """CIFAR-10 as ``cifar10.npz``, as the official folder of python batches, or as their tar.gz.

    The official copy is known by the archive's SHA-256, by the MD5 of each batch file, or, for arrays from anywhere
    else, by the MD5 of each batch in the layout of the official *binary* version (a label byte, then 3 x 1024 colour
    bytes an image), whose files hold the same images in the same order. The rebuilt copy is known by its arrays' hash.

    Attributes:
        archive: the tar.gz.
        folder: the folder's name, inside the archive too.
        batch_md5: file name to MD5 of the python batches, the test batch last.
        binary_md5: MD5 of the same batches in the binary layout.
        rebuilt_sha256: ``arrays_sha256`` of the rebuilt copy.
        npz: the name of the ``.npz`` file.
    """

    archive: RemoteFile
    folder: str
    batch_md5: dict[str, str]
    binary_md5: tuple[str, ...]
    rebuilt_sha256: str
    npz: str = "cifar10.npz"

    def read(self, *, download: bool = True) -> Found:
        """The arrays ``x_train, y_train, x_test, y_test`` and the copy they are.

        Raises:
            DataRefused: a file placed by hand is damaged or holds other data.
            DataUnavailable: it is nowhere and cannot be downloaded.
        """
        by_hand = runtime.data_folder()
        if by_hand is not None and (by_hand / self.npz).is_file():
            return self._from_npz(by_hand / self.npz)
        if by_hand is not None and (by_hand / self.folder).is_dir():
            return self._official(self._folder_bytes(by_hand / self.folder))
        return self._official(self._archive_bytes(self.archive.fetch(download=download)))

    def _from_npz(self, path: Path) -> Found:
        arrays = read_npz(path, ("x_train", "y_train", "x_test", "y_test"))
        for part in ("train", "test"):
            arrays[f"x_{part}"] = check_images(arrays[f"x_{part}"], f"x_{part} in {path.name}", 32)
            arrays[f"y_{part}"] = flat_labels(arrays[f"y_{part}"], f"y_{part} in {path.name}")
        sha256 = arrays_sha256(arrays)
        if sha256 == self.rebuilt_sha256:
            return Found(arrays, "rebuilt", sha256)
        if self._binary(arrays) == self.binary_md5:
            return Found(arrays, "official", sha256)
        raise DataRefused(
            f"{path} is not CIFAR-10: its images and labels are neither the official nor the rebuilt copy. "
            f"Expected the official batches, or arrays with SHA-256 {self.rebuilt_sha256}. Received: {sha256}. "
            f"Remove it, and place {self.archive.name} there instead ({self.archive.urls[-1]})"
        )

    def _binary(self, arrays: dict) -> tuple[str, ...] | None:
        """MD5 of each batch in the official binary layout; None when the number of images is wrong."""
        images = np.concatenate([arrays["x_train"], arrays["x_test"]])
        labels = np.concatenate([arrays["y_train"], arrays["y_test"]])
        batches = len(self.binary_md5)
        if len(images) != len(labels) or len(images) % batches or len(arrays["x_test"]) * batches != len(images):
            return None
        found = []
        for batch, ids in zip(np.split(images, batches), np.split(labels, batches), strict=True):
            colours = batch.transpose(0, 3, 1, 2).reshape(len(batch), -1)
            found.append(hashlib.md5(np.column_stack([ids.astype(np.uint8), colours]).tobytes()).hexdigest())
        return tuple(found)

    def _folder_bytes(self, folder: Path) -> list[bytes]:
        for name, md5 in self.batch_md5.items():
            downloads.check(folder / name, md5, algorithm="md5", urls=self.archive.urls)
        return [(folder / name).read_bytes() for name in self.batch_md5]

    def _archive_bytes(self, path: Path) -> list[bytes]:
        with tarfile.open(path, "r:gz") as archive:  # its SHA-256 is checked; nothing is unpacked to disk
            held = {member.name: archive.extractfile(member).read() for member in archive if member.isfile()}
        return [held[f"{self.folder}/{name}"] for name in self.batch_md5]

    def _official(self, batches: list[bytes]) -> Found:
        read = [_cifar_batch(batch) for batch in batches]
        arrays = {
            "x_train": np.concatenate([images for images, _ in read[:-1]]),
            "y_train": np.concatenate([labels for _, labels in read[:-1]]),
            "x_test": read[-1][0],
            "y_test": read[-1][1],
        }
        return Found(arrays, "official", arrays_sha256(arrays))


def _cifar_batch(batch: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Images (n, 32, 32, 3) uint8 and labels (n,) int32 of one python batch whose hash was checked before."""
    content = _ArraysOnly(io.BytesIO(batch), encoding="bytes").load()
    rows = np.asarray(content[b"data"], np.uint8)
    images = np.ascontiguousarray(rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
    return images, flat_labels(np.asarray(content[b"labels"]), "labels")


class _ArraysOnly(pickle.Unpickler):
    """Unpickles numbers, text, lists, dicts and NumPy arrays, and refuses everything else: a pickle can run code."""

    ALLOWED = {("_reconstruct", "multiarray"), ("ndarray", "numpy"), ("dtype", "numpy")}

    def find_class(self, module: str, name: str):
        if (name, module.split(".")[-1]) not in self.ALLOWED or module.split(".")[0] != "numpy":
            raise DataRefused(f"a batch asks for {module}.{name}. Expected arrays only; fetch the official file again")
        return np.ndarray(0).__reduce__()[0] if name == "_reconstruct" else getattr(np, name)


# --- Tiny ImageNet ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class TinyImageNetFiles:
    """Tiny ImageNet at 32 x 32 pixels: an ``.npz`` placed by hand, or made from the official zip.

    The zip's 64 x 64 JPEGs are reduced by a 2 x 2 box filter (Pillow's ``reduce(2)``) once and kept in the cache.
    """

    archive: RemoteFile
    rebuilt_sha256: str
    npz: str = "tiny_imagenet_32.npz"

    ARRAYS = ("x_train", "y_train", "x_val", "y_val", "wnids", "names")

    def read(self, *, download: bool = True) -> Found:
        """The arrays ``x_train, y_train, x_val, y_val, wnids, names`` and the copy they are.

        Raises:
            DataRefused: a file placed by hand is damaged or holds other data.
            DataUnavailable: it is nowhere and cannot be downloaded.
        """
        by_hand = runtime.data_folder()
        if by_hand is not None and (by_hand / self.npz).is_file():
            return self._by_hand(by_hand / self.npz)
        kept = downloads.downloads_folder() / f"{Path(self.archive.name).stem}-32px.npz"
        if kept.is_file():
            with_note = _read_kept(kept, self.ARRAYS, self.archive.sha256)
            if with_note is not None:
                return with_note
        found = self._from_zip(self.archive.fetch(download=download))
        _keep(kept, found, self.archive.sha256)
        return found

    def _by_hand(self, path: Path) -> Found:
        arrays = read_npz(path, self.ARRAYS)
        for part in ("train", "val"):
            arrays[f"x_{part}"] = check_images(arrays[f"x_{part}"], f"x_{part} in {path.name}", 32)
            arrays[f"y_{part}"] = flat_labels(arrays[f"y_{part}"], f"y_{part} in {path.name}")
        sha256 = arrays_sha256(arrays)
        if sha256 != self.rebuilt_sha256:
            raise DataRefused(
                f"{path} is not the rebuilt Tiny ImageNet. Expected arrays with SHA-256 {self.rebuilt_sha256}. "
                f"Received: {sha256}. Remove it, and place {self.archive.name} there instead ({self.archive.urls[0]})"
            )
        return Found(arrays, "rebuilt", sha256)

    def _from_zip(self, path: Path) -> Found:
        from tqdm import tqdm

        with zipfile.ZipFile(path) as archive:
            top = archive.namelist()[0].split("/")[0]
            wnids = archive.read(f"{top}/wnids.txt").decode().split()
            words = dict(line.split("\t", 1) for line in archive.read(f"{top}/words.txt").decode().splitlines())
            ids = {wnid: i for i, wnid in enumerate(wnids)}
            train = sorted(
                name for name in archive.namelist() if name.startswith(f"{top}/train/") and name.endswith(".JPEG")
            )
            noted = [
                line.split("\t")[:2] for line in archive.read(f"{top}/val/val_annotations.txt").decode().splitlines()
            ]
            bar = tqdm(
                total=len(train) + len(noted), desc="reducing to 32 px", unit="image", file=sys.stderr, leave=False
            )

            def images(names: list[str]) -> np.ndarray:
                made = np.empty((len(names), 32, 32, 3), np.uint8)
                for i, name in enumerate(names):
                    made[i] = _reduced(archive.read(name))
                    bar.update(1)
                return made

            arrays = {
                "x_train": images(train),
                "y_train": [ids[name.split("/")[2]] for name in train],
                "x_val": images([f"{top}/val/images/{name}" for name, _ in noted]),
                "y_val": [ids[w] for _, w in noted],
            }
            bar.close()
        arrays["y_train"], arrays["y_val"] = (np.array(arrays[name], np.int32) for name in ("y_train", "y_val"))
        arrays |= {"wnids": np.array(wnids), "names": np.array([words[wnid] for wnid in wnids])}
        return Found(arrays, "official", arrays_sha256(arrays))


def _reduced(jpeg: bytes) -> np.ndarray:
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB").reduce(2))


def _keep(path: Path, found: Found, source: str) -> None:
    """Keep made arrays for the next time; without room or permission they are made again then."""
    note = np.frombuffer(json.dumps({"sha256": found.sha256, "source": source}).encode(), np.uint8)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with downloads.alone(path), downloads.whole(path) as file:
            np.savez(file, note=note, **found.arrays)
    except OSError as error:
        print(
            f"{path.name} is not kept in the cache ({error.strerror}); it is made anew the next time", file=sys.stderr
        )


def _read_kept(path: Path, names: tuple[str, ...], source: str) -> Found | None:
    """Arrays kept by ``_keep``; None when they are damaged or come from another source file."""
    try:
        arrays = read_npz(path, ("note", *names))
        note = json.loads(arrays.pop("note").tobytes())
    except (DataRefused, ValueError):
        return None
    sha256 = arrays_sha256(arrays)
    return Found(arrays, "official", sha256) if note == {"sha256": sha256, "source": source} else None


# --- scikit-learn's digits -------------------------------------------------------------------------


@dataclass(frozen=True)
class Digits:
    """Handwritten digits inside scikit-learn (UCI): 8 x 8 grey values 0-16, brought to 32 x 32 RGB 0-255."""

    def read(self, *, download: bool = True) -> Found:
        """The arrays ``x`` (1797, 32, 32, 3) uint8 and ``y`` (1797,) int32."""
        from sklearn.datasets import load_digits

        grey, labels = load_digits(return_X_y=True)
        arrays = {"x": enlarge_digits(grey.reshape(-1, 8, 8)), "y": flat_labels(labels, "digits")}
        return Found(arrays, "embedded", arrays_sha256(arrays))


def enlarge_digits(grey: np.ndarray) -> np.ndarray:
    """Grey images (N, 8, 8) of whole numbers 0-16 as (N, 32, 32, 3) uint8 0-255, bilinear and exact."""
    rows = _bilinear_eighths()
    sums = np.einsum("ia,nab,jb->nij", rows, grey.astype(np.int64), rows)  # 64ths of a grey value
    pixels = (sums * 255 + 512) // (64 * 16)
    return np.repeat(pixels.astype(np.uint8)[..., None], 3, axis=-1)


@functools.cache
def _bilinear_eighths() -> np.ndarray:
    """(32, 8) weights in eighths that enlarge 8 samples four times, pixel centres aligned, edges repeated."""
    weights = np.zeros((32, 8), np.int64)
    for i in range(32):
        eighths = 2 * i + 1 - 4  # position of the pixel's centre, from the first sample's centre
        low, share = eighths // 8, eighths % 8
        weights[i, max(low, 0)] += 8 - share
        weights[i, min(low + 1, 7)] += share
    return weights
