"""Tiny ImageNet's files, reduced to 32 x 32 pixels, as arrays."""

import io
import json
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tl_helpers import downloads, runtime, whole_files
from tl_helpers.datafiles import Found, RemoteFile, arrays_sha256, read_by_hand, read_npz
from tl_helpers.downloads import DataRefused


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
        arrays = read_by_hand(path, self.ARRAYS, 32)
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
        with whole_files.alone(path), whole_files.whole(path) as file:
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
