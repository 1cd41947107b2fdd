"""Tiny ImageNet: from the official zip or the rebuilt arrays to the same data set."""

import dataclasses
import io
import zipfile

import numpy as np
import pytest
from local_server import sha256
from made_pictures import encoded
from PIL import Image

from tl_helpers import datasets, tiny_imagenet_files
from tl_helpers.datafiles import Found, RemoteFile, arrays_sha256
from tl_helpers.downloads import DataRefused, DataUnavailable
from tl_helpers.tiny_imagenet_files import TinyImageNetFiles

pytestmark = pytest.mark.usefixtures("empty_folders")


@pytest.fixture
def tiny(monkeypatch):
    """The official zip with 2 classes, 3 training and 2 validation images, and its spec."""

    def jpeg(grey):
        return encoded(Image.fromarray(np.full((64, 64), grey, np.uint8)), "JPEG")  # some of the real ones are grey too

    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("tiny-imagenet-200/", "")
        archive.writestr("tiny-imagenet-200/wnids.txt", "n2\nn1\n")
        archive.writestr("tiny-imagenet-200/words.txt", "n0\tdog\nn1\tlemon\nn2\treel, spool\n")
        for name, grey in (("n1/images/n1_0", 10), ("n2/images/n2_0", 20), ("n2/images/n2_1", 30)):
            archive.writestr(f"tiny-imagenet-200/train/{name}.JPEG", jpeg(grey))
        for name, grey in (("val_0", 40), ("val_1", 50)):
            archive.writestr(f"tiny-imagenet-200/val/images/{name}.JPEG", jpeg(grey))
        archive.writestr("tiny-imagenet-200/val/val_annotations.txt", "val_1.JPEG\tn1\t0\t0\nval_0.JPEG\tn2\t0\t0\n")
    content = made.getvalue()
    files = TinyImageNetFiles(
        RemoteFile("tiny-imagenet-200.zip", ("http://127.0.0.1:9/tiny.zip",), sha256(content)), rebuilt_sha256=""
    )
    known = dataclasses.replace(datasets.SPECS["tiny-imagenet-32"], files=files)
    monkeypatch.setitem(datasets.SPECS, "tiny-imagenet-32", known)
    return content, known


def test_tiny_imagenet_is_made_from_the_official_zip_once(tiny, by_hand, tmp_path, capsys):
    (by_hand / "tiny-imagenet-200.zip").write_bytes(tiny[0])
    data = datasets.load("tiny-imagenet-32")
    assert data.copy == "official" and data.test is None and data.class_names == ("reel, spool", "lemon")
    assert data.train.images.shape == (3, 32, 32, 3) and data.train.images.mean((1, 2, 3)).tolist() == [10, 20, 30]
    assert data.train.labels.tolist() == [1, 0, 0]
    assert data.val.images[:, 0, 0, 0].tolist() == [50, 40] and data.val.labels.tolist() == [1, 0]

    (by_hand / "tiny-imagenet-200.zip").unlink()
    datasets._load.cache_clear()
    assert datasets.load("tiny-imagenet-32").identity() == data.identity(), "the second time it comes from the cache"

    kept = next((tmp_path / "cache").rglob("*.npz"))
    kept.write_bytes(kept.read_bytes()[:-2000])
    datasets._load.cache_clear()
    with pytest.raises(DataUnavailable):  # a damaged one counts as missing, and here there is no zip to make it from
        datasets.load("tiny-imagenet-32")


def test_a_pixel_is_the_mean_of_four():
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    expected = image.reshape(32, 2, 32, 2, 3).mean((1, 3))
    assert np.abs(tiny_imagenet_files._reduced(encoded(Image.fromarray(image))) - expected).max() <= 0.5


def test_kept_arrays_count_for_their_own_zip_and_while_they_are_whole(tmp_path):
    arrays, path = {"x": np.arange(3)}, tmp_path / "kept.npz"
    tiny_imagenet_files._keep(path, Found(arrays, "official", arrays_sha256(arrays)), "zip 1")
    found = tiny_imagenet_files._read_kept(path, ("x",), "zip 1")
    assert found.copy == "official" and found.arrays["x"].tolist() == [0, 1, 2]
    assert tiny_imagenet_files._read_kept(path, ("x",), "zip 2") is None
    tiny_imagenet_files._keep(path, Found(arrays, "official", "0" * 64), "zip 1")
    assert tiny_imagenet_files._read_kept(path, ("x",), "zip 1") is None


def test_tiny_imagenet_placed_as_npz_must_be_the_rebuilt_copy(tiny, by_hand, monkeypatch):
    arrays = {
        "x_train": np.zeros((3, 32, 32, 3), np.uint8),
        "y_train": np.array([0, 1, 1], np.int32),
        "x_val": np.zeros((1, 32, 32, 3), np.uint8),
        "y_val": np.array([0], np.int32),
        "wnids": np.array(["n1", "n2"]),
        "names": np.array(["lemon", "reel"]),
    }
    np.savez(by_hand / "tiny_imagenet_32.npz", **arrays)
    with pytest.raises(DataRefused, match="is not the rebuilt Tiny ImageNet"):
        datasets.load("tiny-imagenet-32")
    files = dataclasses.replace(tiny[1].files, rebuilt_sha256=arrays_sha256(arrays))
    monkeypatch.setitem(datasets.SPECS, "tiny-imagenet-32", dataclasses.replace(tiny[1], files=files))
    data = datasets.load("tiny-imagenet-32")
    assert data.copy == "rebuilt" and data.sizes() == {"train": 3, "val": 1, "test": None}
