"""Data sets: whatever form they come in, the same arrays; whatever is wrong with a file, one clear error."""

import dataclasses
import functools
import hashlib
import io
import pickle
import tarfile

import numpy as np
import pytest
from local_server import Server, sha256

from tl_helpers import cifar_files, datasets, digits_files
from tl_helpers.cifar_files import CifarFiles
from tl_helpers.datafiles import RemoteFile, arrays_sha256, read_npz
from tl_helpers.downloads import DataRefused, DataUnavailable

DEAD = "http://127.0.0.1:9/cifar.tar.gz"
PER_BATCH = 20
pytestmark = pytest.mark.usefixtures("empty_folders")


def cifar_like(seed=0):
    rng = np.random.default_rng(seed)
    labels = np.tile(np.arange(10), 6 * PER_BATCH // 10).astype(np.int32)
    images = rng.integers(0, 256, (len(labels), 32, 32, 3), np.uint8)
    n = 5 * PER_BATCH
    return {"x_train": images[:n], "y_train": labels[:n], "x_test": images[n:], "y_test": labels[n:]}


def python_batches(arrays):
    """The arrays as the bytes of six python batches."""
    images = np.concatenate([arrays["x_train"], arrays["x_test"]]).transpose(0, 3, 1, 2).reshape(-1, 3072)
    labels = np.concatenate([arrays["y_train"], arrays["y_test"]]).tolist()
    parts = [slice(k * PER_BATCH, (k + 1) * PER_BATCH) for k in range(6)]
    return [pickle.dumps({b"data": images[p], b"labels": labels[p]}, protocol=3) for p in parts]


def binary_batches(arrays):
    """The arrays as the bytes of six binary batches: a label byte, then red, green and blue."""
    batches = []
    for part, first in [("train", k * PER_BATCH) for k in range(5)] + [("test", 0)]:
        rows = range(first, first + PER_BATCH)
        batches.append(
            b"".join(
                bytes([arrays[f"y_{part}"][i]]) + b"".join(arrays[f"x_{part}"][i, :, :, c].tobytes() for c in range(3))
                for i in rows
            )
        )
    return batches


def tar(folder, files):
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return made.getvalue()


@pytest.fixture
def cifar(monkeypatch):
    """CIFAR-10 with 100 + 20 images: its official arrays, its rebuilt arrays, and its files."""
    official, rebuilt = cifar_like(), cifar_like()
    rebuilt["x_train"] = rebuilt["x_train"].copy()
    rebuilt["x_train"][7] += 1
    files = dict(zip([*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"], python_batches(official), strict=True))
    archive = tar("cifar-10-batches-py", files)
    source = CifarFiles(
        archive=RemoteFile("cifar.tar.gz", (DEAD,), sha256(archive)),
        folder="cifar-10-batches-py",
        batch_md5={name: hashlib.md5(data).hexdigest() for name, data in files.items()},
        binary_md5=tuple(hashlib.md5(data).hexdigest() for data in binary_batches(official)),
        rebuilt_sha256=arrays_sha256(rebuilt),
    )
    split = functools.partial(datasets._split_cifar, val=10, class_names=datasets.CIFAR10_CLASSES)
    known = dataclasses.replace(datasets.SPECS["cifar10"], files=source, split=split)
    monkeypatch.setitem(datasets.SPECS, "cifar10", known)
    return {"official": official, "rebuilt": rebuilt, "files": files, "archive": archive, "spec": known}


def place(by_hand, cifar, form):
    if form == "npz":
        np.savez(by_hand / "cifar10.npz", **cifar["official"])
    elif form == "folder":
        (by_hand / "cifar-10-batches-py").mkdir()
        for name, data in cifar["files"].items():
            (by_hand / "cifar-10-batches-py" / name).write_bytes(data)
    else:
        (by_hand / "cifar.tar.gz").write_bytes(cifar["archive"])


@pytest.mark.parametrize("form", ["npz", "folder", "archive"])
def test_every_form_of_cifar10_gives_the_same_official_arrays(cifar, by_hand, form):
    place(by_hand, cifar, form)
    data = datasets.load("cifar10")
    assert data.identity() == {"name": "cifar10", "copy": "official", "sha256": arrays_sha256(cifar["official"])}
    assert data.sizes() == {"train": 90, "val": 10, "test": 20}
    np.testing.assert_array_equal(data.test.images, cifar["official"]["x_test"])
    np.testing.assert_array_equal(data.test.labels, cifar["official"]["y_test"])
    assert data.test.images.dtype == np.uint8 and data.test.labels.dtype == np.int32
    assert data.class_names[3] == "cat" and len(data.class_names) == 10


def test_the_rebuilt_copy_is_known_by_its_arrays(cifar, by_hand):
    columns = {name: a.reshape(-1, 1).astype(np.uint8) if name[0] == "y" else a for name, a in cifar["rebuilt"].items()}
    np.savez(by_hand / "cifar10.npz", **columns)  # labels (N, 1) of another type are the same labels
    assert datasets.load("cifar10").copy == "rebuilt"


def test_cifar10_is_downloaded_when_it_is_not_at_hand(cifar, tmp_path, monkeypatch, capsys):
    server = Server()
    server.pages["/c"] = cifar["archive"]
    files = cifar["spec"].files
    remote = dataclasses.replace(files.archive, urls=(DEAD, server.url + "/c"))
    known = dataclasses.replace(cifar["spec"], files=dataclasses.replace(files, archive=remote))
    monkeypatch.setitem(datasets.SPECS, "cifar10", known)
    assert datasets.load("cifar10", offline="digits").identity()["copy"] == "official"
    datasets._load.cache_clear()
    assert datasets.load("cifar10", offline="digits").name == "cifar10"
    server.close()
    assert server.asked == ["/c"] and capsys.readouterr().out == ""
    assert (tmp_path / "cache" / "downloads" / "cifar.tar.gz").read_bytes() == cifar["archive"]


def changed(arrays, **changes):
    return {name: array for name, array in {**arrays, **changes}.items() if array is not None}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda a: {"x_train": a["x_train"] ^ 1}, "neither the official nor the rebuilt"),
        (lambda a: {"y_train": a["y_train"][::-1].copy()}, "neither the official nor the rebuilt"),
        (lambda a: {"x_train": a["x_train"][:-1], "y_train": a["y_train"][:-1]}, "neither the official nor"),
        (lambda a: {"y_test": np.eye(10, dtype=np.uint8)[a["y_test"]]}, "One-hot labels become integers"),
        (lambda a: {"y_test": a["y_test"].astype(float)}, "must be integers. Received: float64"),
        (lambda a: {"x_train": a["x_train"][..., 0]}, "Grey images become RGB"),
        (lambda a: {"x_train": a["x_train"] / 255}, "Floats 0-1 become pixels"),
        (lambda a: {"x_test": a["x_test"][:, :28, :28]}, "28 x 28 pixels; resize"),
        (lambda a: {"x_test": a["x_test"].transpose(0, 3, 1, 2)}, "Channels come last"),
        (lambda a: {"y_test": None}, "must hold the arrays .*Received: x_train, y_train, x_test"),
        (lambda a: {"y_test": np.array([{}], object)}, "truncated or damaged"),
    ],
    ids=[
        "pixels",
        "labels",
        "fewer",
        "one-hot",
        "float labels",
        "grey",
        "floats",
        "size",
        "channels",
        "missing",
        "pickle",
    ],
)
def test_an_npz_with_anything_else_in_it_is_refused(cifar, by_hand, change, says):
    np.savez(by_hand / "cifar10.npz", **changed(cifar["official"], **change(cifar["official"])))
    with pytest.raises(DataRefused, match=says) as caught:
        datasets.load("cifar10", offline="digits")  # what was placed by hand is never silently replaced
    assert "cifar10.npz" in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"no zip file", None], ids=["empty", "text", "cut short"])
def test_a_damaged_npz_is_refused(cifar, by_hand, content):
    place(by_hand, cifar, "npz")
    path = by_hand / "cifar10.npz"
    path.write_bytes(path.read_bytes()[:50_000] if content is None else content)
    with pytest.raises(DataRefused, match="cifar10.npz cannot be read as an .npz file: truncated or damaged"):
        datasets.load("cifar10")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_no_byte_changed_in_an_npz_escapes_as_another_error(tmp_path, save):
    path, arrays = tmp_path / "a.npz", {"x": np.arange(200, dtype=np.uint8), "y": np.arange(5)}
    save(path, **arrays)
    whole, refused = path.read_bytes(), 0
    for place in range(len(whole)):
        for turned in (1, 64, 255):  # 1 in a member's flags: "encrypted"; 64 in its version: one yet to come
            path.write_bytes(whole[:place] + bytes([whole[place] ^ turned]) + whole[place + 1 :])
            try:
                read_npz(path, ("x", "y"))
            except DataRefused as error:
                refused += "a.npz" in str(error)
    assert refused > len(whole)


def test_a_changed_or_missing_batch_is_refused(cifar, by_hand):
    place(by_hand, cifar, "folder")
    batch = by_hand / "cifar-10-batches-py" / "data_batch_3"
    batch.write_bytes(batch.read_bytes()[:-1])
    with pytest.raises(DataRefused, match="data_batch_3 is not the file expected"):
        datasets.load("cifar10")
    batch.unlink()
    with pytest.raises(DataRefused, match="data_batch_3 cannot be read"):
        datasets.load("cifar10")


def test_a_pickle_that_runs_code_is_never_run(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    with pytest.raises(DataRefused, match="asks for .*open"):
        cifar_files._cifar_batch(pickle.dumps({b"data": Bomb(), b"labels": [1]}))
    with pytest.raises(DataRefused, match="asks for numpy.*load"):
        cifar_files._cifar_batch(b"cnumpy\nload\n.")
    assert not (tmp_path / "ran").exists()


def test_a_batch_with_the_old_module_names_of_numpy_is_read():
    """The official batches were written by Python 2 and name ``numpy.core.multiarray``."""
    batch = python_batches(cifar_like())[0].replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    assert b"cnumpy.core.multiarray\n_reconstruct" in batch
    images, labels = cifar_files._cifar_batch(batch)
    np.testing.assert_array_equal(images, cifar_like()["x_train"][:PER_BATCH])
    assert labels.tolist() == [*range(10), *range(10)]


def test_offline_the_digits_stand_in_under_one_banner(cifar, capsys):
    data = datasets.load("cifar10", offline="digits")
    told = capsys.readouterr().out
    assert data.name == "digits" and data.train.images.shape[1:] == (32, 32, 3)
    assert told.count("CIFAR-10 is not at hand") == 1 and "digits stand in for it" in told and "fetch cifar10" in told
    with pytest.raises(DataUnavailable, match="no connection"):
        datasets.load("cifar10")


def test_at_quick_scale_nothing_is_downloaded_when_there_is_a_substitute(cifar, by_hand, monkeypatch, capsys):
    monkeypatch.setenv("TL_SCALE", "quick")
    monkeypatch.setattr(RemoteFile, "fetch", lambda self, **options: pytest.fail() if options["download"] else 1 / 0)
    with pytest.raises(ZeroDivisionError):
        datasets.load("cifar10", offline="digits")
    monkeypatch.undo()


def test_at_quick_scale_the_substitute_is_not_downloaded_either(cifar, by_hand, monkeypatch, capsys):
    monkeypatch.setenv("TL_SCALE", "quick")
    monkeypatch.setattr("tl_helpers.downloads.fetch", lambda *_, **__: pytest.fail("it was downloaded"))
    with pytest.raises(DataUnavailable, match="cifar.tar.gz is neither in TL_DATA nor in the cache"):
        datasets.load("tiny-imagenet-32", offline="cifar10")
    assert capsys.readouterr().out == "", "no banner for a substitute that is not there"
    place(by_hand, cifar, "npz")
    assert datasets.load("tiny-imagenet-32", offline="cifar10").name == "cifar10"
    assert "CIFAR-10 stand in for it" in capsys.readouterr().out


def test_unknown_names_are_refused():
    for call in (lambda: datasets.load("cifar11"), lambda: datasets.load("digits", offline="nothing")):
        with pytest.raises(ValueError, match="must be one of cifar10, digits, tiny-imagenet-32. Received"):
            call()


def test_another_data_folder_gives_another_answer(cifar, by_hand, tmp_path, monkeypatch):
    place(by_hand, cifar, "npz")
    assert datasets.load("cifar10") is datasets.load("cifar10")
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("TL_DATA", str(tmp_path / "empty"))
    with pytest.raises(DataUnavailable):
        datasets.load("cifar10")


def test_enlarged_digits_are_the_digits():
    from sklearn.datasets import load_digits

    grey = load_digits().images[:50]
    pixels = digits_files.enlarge_digits(grey).astype(float)
    assert (pixels[..., 0] == pixels[..., 2]).all()
    blocks = pixels[..., 0].reshape(50, 8, 4, 8, 4).mean((2, 4)) * 16 / 255
    assert np.corrcoef(blocks.ravel(), grey.ravel())[0, 1] > 0.95
    flat = digits_files.enlarge_digits(np.full((1, 8, 8), 16.0))
    assert (flat == 255).all()


def test_every_data_set_states_its_terms_and_its_paper():
    for name in datasets.names():
        known = datasets.spec(name)
        assert known.name == name and known.licence and known.paper
        archive = getattr(known.files, "archive", None)
        assert archive is None or (len(archive.sha256) == 64 and archive.megabytes and archive.urls)
