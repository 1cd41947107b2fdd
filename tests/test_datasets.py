"""Data sets: whatever form they come in, the same arrays; whatever is wrong with a file, one clear error."""

import dataclasses
import functools
import hashlib
import io
import pickle
import tarfile
import zipfile

import numpy as np
import pytest
from local_server import Server, sha256

from tl_helpers import datafiles, datasets
from tl_helpers.datafiles import CifarFiles, RemoteFile, TinyImageNetFiles, arrays_sha256
from tl_helpers.downloads import DataRefused, DataUnavailable

DEAD = "http://127.0.0.1:9/cifar.tar.gz"
PER_BATCH = 20


@pytest.fixture(autouse=True)
def empty_folders(tmp_path, monkeypatch):
    """An empty cache and an empty folder for files placed by hand; no data set is remembered from another test."""
    (tmp_path / "hand").mkdir()
    monkeypatch.setenv("TL_DATA", str(tmp_path / "hand"))
    monkeypatch.setenv("TL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TL_SCALE", "laptop")
    datasets._load.cache_clear()
    yield
    datasets._load.cache_clear()


@pytest.fixture
def by_hand(tmp_path):
    return tmp_path / "hand"


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
        datafiles._cifar_batch(pickle.dumps({b"data": Bomb(), b"labels": [1]}))
    with pytest.raises(DataRefused, match="asks for numpy.*load"):
        datafiles._cifar_batch(b"cnumpy\nload\n.")
    assert not (tmp_path / "ran").exists()


def test_a_batch_with_the_old_module_names_of_numpy_is_read():
    """The official batches were written by Python 2 and name ``numpy.core.multiarray``."""
    batch = python_batches(cifar_like())[0].replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    assert b"cnumpy.core.multiarray\n_reconstruct" in batch
    images, labels = datafiles._cifar_batch(batch)
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


# --- the splits ------------------------------------------------------------------------------------


def test_digits_are_split_as_promised_and_never_change():
    data = datasets.load("digits")
    assert data.sizes() == {"train": 1097, "val": 300, "test": 400}
    assert data.identity() == {
        "name": "digits",
        "copy": "embedded",
        "sha256": "a12ceebeda07d9f7676c1b7bffad80ace03f24174c4bd8877eff489c425bab14",
    }
    assert data.train.images.dtype == np.uint8 and data.train.images.min() == 0 and data.train.images.max() == 255
    whole = np.bincount(np.concatenate([s.labels for s in (data.train, data.val, data.test)]))
    for split in (data.train, data.val, data.test):
        assert np.abs(np.bincount(split.labels) - whole * len(split) / 1797).max() < 1


def test_enlarged_digits_are_the_digits():
    from sklearn.datasets import load_digits

    grey = load_digits().images[:50]
    pixels = datafiles.enlarge_digits(grey).astype(float)
    assert (pixels[..., 0] == pixels[..., 2]).all()
    blocks = pixels[..., 0].reshape(50, 8, 4, 8, 4).mean((2, 4)) * 16 / 255
    assert np.corrcoef(blocks.ravel(), grey.ravel())[0, 1] > 0.95
    flat = datafiles.enlarge_digits(np.full((1, 8, 8), 16.0))
    assert (flat == 255).all()


def test_the_cifar_split_is_stratified_disjoint_and_fixed():
    labels = np.repeat(np.arange(10), 5000)
    val, train = datasets.stratified(labels, [5000])
    assert np.bincount(labels[val]).tolist() == [500] * 10
    assert sorted([*val, *train]) == list(range(50000))
    assert sha256(val.astype("<i4").tobytes()) == "a1122012ec82922db806d1175f057957480fe47eff787a5f81338379eb791e9a"


def test_stratified_sets_take_the_sizes_asked_for():
    labels = np.random.default_rng(0).integers(0, 7, 501)
    sets = datasets.stratified(labels, [100, 33])
    assert [len(rows) for rows in sets] == [100, 33, 368]
    assert len(np.unique(np.concatenate(sets))) == 501


def test_loaded_arrays_cannot_be_changed_by_accident():
    data = datasets.load("digits")
    for array in (data.train.images, data.val.labels, data.test.images):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


def test_few_draws_as_many_of_each_class_by_the_seed():
    data = datasets.load("digits")
    ten = data.few(10, seed=0)
    assert np.bincount(ten.train.labels).tolist() == [10] * 10
    assert ten.sizes() == {"train": 100, "val": 300, "test": 400} and ten.identity() == data.identity()

    def seen(d):
        return {image.tobytes() for image in d.train.images}

    assert seen(data.few(10, seed=0)) == seen(ten)
    assert seen(ten) < seen(data.few(50, seed=0)), "for one seed, fewer labels are among the more"
    assert seen(data.few(10, seed=1)) != seen(ten)
    for wrong in (0, -1, 5000):
        with pytest.raises(ValueError, match=f"labels_per_class must be from 1 to .*Received: {wrong}"):
            data.few(wrong, seed=0)


def test_only_keeps_classes_and_numbers_them_anew():
    data = datasets.load("digits")
    two = data.only(["seven", 1])
    assert two.class_names == ("seven", "one") and set(two.val.labels) == {0, 1}
    np.testing.assert_array_equal(two.test.images[two.test.labels == 0], data.test.images[data.test.labels == 7])
    assert sum(two.sizes().values()) == sum((s.labels % 6 == 1).sum() for s in (data.train, data.val, data.test))
    for wrong in ([], [1, "one"], [10], ["eleven"], [-1]):
        with pytest.raises(ValueError, match="Received"):
            data.only(wrong)


def test_a_split_flattens_columns_of_labels_and_wants_one_for_each_image():
    split = datasets.Split(np.zeros((4, 8, 8, 3), np.uint8), np.array([[1], [2], [3], [0]]))
    assert split.labels.shape == (4,) and split.labels.dtype == np.int32 and len(split) == 4
    images, labels = split.take(np.array([2, 0]))
    assert labels.tolist() == [3, 1] and images.shape == (2, 8, 8, 3)
    with pytest.raises(ValueError, match="Received: 4 images, 3 labels"):
        datasets.Split(np.zeros((4, 2)), np.zeros(3, int))


def test_own_arrays_become_a_data_set():
    images, labels = cifar_like()["x_train"], cifar_like()["y_train"]

    def make(x=images, y=labels):
        return datasets.from_arrays("mine", (x, y), (images[:5], labels[:5]), class_names=datasets.CIFAR10_CLASSES)

    data = make(y=labels[:, None])
    assert data.copy == "own" and data.test is None and data.sizes() == {"train": 100, "val": 5, "test": None}
    assert data.only(["cat"]).sizes()["test"] is None
    assert make().sha256 == data.sha256 != make(x=images ^ 1).sha256
    for wrong, says in [
        ({"x": images[..., :1]}, "Grey"),
        ({"x": images / 255}, "Floats"),
        ({"y": np.eye(10)[labels]}, "One-hot"),
        ({"y": labels + 1}, "from 0 to 9. Received: 1 to 10"),
    ]:
        with pytest.raises(DataRefused, match=says):
            make(**wrong)


def test_every_data_set_states_its_terms_and_its_paper():
    for name in datasets.names():
        known = datasets.spec(name)
        assert known.name == name and known.licence and known.paper
        archive = getattr(known.files, "archive", None)
        assert archive is None or (len(archive.sha256) == 64 and archive.megabytes and archive.urls)


# --- Tiny ImageNet ---------------------------------------------------------------------------------


@pytest.fixture
def tiny(monkeypatch):
    """The official zip with 2 classes, 3 training and 2 validation images, and its spec."""
    from PIL import Image

    def jpeg(grey):
        made = io.BytesIO()
        Image.fromarray(np.full((64, 64), grey, np.uint8)).save(made, "JPEG")  # some of the real ones are grey too
        return made.getvalue()

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
    files = TinyImageNetFiles(RemoteFile("tiny-imagenet-200.zip", (DEAD,), sha256(content)), rebuilt_sha256="")
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
