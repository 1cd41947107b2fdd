"""CIFAR-10's files, official or rebuilt, as arrays."""

import hashlib
import io
import pickle
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tl_helpers import downloads, runtime
from tl_helpers.datafiles import Found, RemoteFile, arrays_sha256, flat_labels, read_by_hand
from tl_helpers.downloads import DataRefused


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
        arrays = read_by_hand(path, ("x_train", "y_train", "x_test", "y_test"), 32)
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
