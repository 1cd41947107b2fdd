"""A folder of a reader's own pictures: odd files are survived and named, the split is the seed's."""

import contextlib
import os
import re
import shutil
import sys
import tempfile
import unicodedata
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import code_of
from made_pictures import colour, encoded, fill
from odd_pictures import BAD, GREY, ODD
from PIL import Image

from tl_helpers import pictures


def load(folder, **options):
    return pictures.load_folder(folder, pixels=8, progress=False, **options)


def test_a_folder_becomes_a_data_set(album):
    data, seen = load(album)
    assert data.class_names == ("blue", "red") and data.copy == "own"
    assert data.sizes() == {"train": 8, "val": 2, "test": 2}
    for split in (data.train, data.val, data.test):
        assert set(split.labels) == {0, 1} and split.images.shape[1:] == (8, 8, 3)
        reds = split.images[split.labels == 1].astype(int)
        assert (reds[..., 0] > reds[..., 2] + 100).mean() > 0.9
    assert seen.used == {"blue": 6, "red": 6} and not seen.skipped and not seen.changed
    whole = np.concatenate([s.images.reshape(len(s), -1) for s in (data.train, data.val, data.test)])
    assert len(np.unique(whole, axis=0)) == 12, "every picture is in one part, once"


def test_the_seed_draws_the_split(album):
    one, same, other = (load(album, seed=seed)[0] for seed in (0, 0, 1))
    np.testing.assert_array_equal(one.test.images, same.test.images)
    assert one.sha256 == same.sha256
    assert any(not np.array_equal(getattr(one, p).images, getattr(other, p).images) for p in ("train", "val", "test"))


def test_the_parts_have_the_shares_asked_for(tmp_path):
    for name, rgb in {"red": (200, 10, 10), "blue": (10, 10, 200)}.items():
        fill(tmp_path / name, rgb, count=20)
    assert load(tmp_path)[0].sizes() == {"train": 28, "val": 6, "test": 6}
    assert load(tmp_path, val=0.25, test=0.1)[0].sizes() == {"train": 26, "val": 10, "test": 4}


def test_a_class_of_three_is_in_every_part(album):
    fill(album / "green", (10, 200, 10), count=3)
    data, _ = load(album, val=0.4, test=0.4)
    assert all(1 in split.labels for split in (data.train, data.val, data.test))


def test_everything_odd_at_once(album):
    """All odd files in one folder: what can be used is, everything else is named with its reason."""
    for name, (held, _, _) in ODD.items():
        (album / "red" / f"{name}.img").write_bytes(held)
    for name, (held, _) in BAD.items():
        (album / "blue" / f"{name}.png").write_bytes(held)
    (album / "red" / ".DS_Store").write_bytes(b"x")
    (album / "red" / "._a.png").write_bytes(b"x")
    (album / "Thumbs.db").write_bytes(b"x")
    (album / ".git").mkdir()
    (album / "stray.png").write_bytes(encoded(colour((7, 7, 7))))
    (album / "nothing").mkdir()
    fill(album / "two", (1, 200, 1), count=2)
    fill(album / "grün – 緑 😀", (10, 200, 10))
    inner = fill(album / "blue" / "holiday" / "beach", (10, 60, 200))
    (inner / "again.png").write_bytes((album / "red" / "0.png").read_bytes())
    data, seen = load(album)
    assert data.class_names == ("blue", "grün – 緑 😀", "red")
    assert seen.used == {"blue": 13, "grün – 緑 😀": 6, "red": 5 + len(ODD)}
    why = dict(seen.skipped)
    for name, (_, reason) in BAD.items():
        assert re.search(reason, why[f"blue/{name}.png"]), (name, why[f"blue/{name}.png"])
    assert "at least 3" in why["nothing/"] and "empty class" in why["nothing/"] and "only 2 usable" in why["two/"]
    assert "hidden" in why["red/.DS_Store"] and "hidden" in why[".git"] and "no class folder" in why["stray.png"]
    assert why["red/0.png"] == "the same file as blue/holiday/beach/again.png, in another class: which is right?"
    assert {name for name, _ in seen.changed} >= {"red/grey.img", "red/CMYK.img", "red/16 bits.img"}
    text = str(seen)
    assert "skipped" in text and "zero bytes" in text and "<table>" in seen._repr_html_()
    assert not (set(why) & {name for name, _ in seen.changed})


def test_the_table_opens_with_counts_where_files_share_a_reason(album):
    for i in range(40):
        (album / "blue" / f"half {i}.png").write_bytes(encoded(colour((1, 2, i)))[:60])
        (album / "red" / f"grey {i}.png").write_bytes(encoded(Image.fromarray(GREY + np.uint8(i))))
    shutil.copy(album / "blue" / "0.png", album / "blue" / "again.png")
    shutil.copy(album / "blue" / "0.png", album / "red" / "a copy.png")
    (album / "red" / "flat.png").write_bytes(encoded(Image.new("L", (90, 10), 7)))
    _, seen = load(album)
    rows = [tuple(row) for row in seen.table().rows]
    assert rows[:5] == [
        ("skipped", "40 of 42", "damaged"),
        ("skipped", "1 of 42", "the same file as another"),
        ("skipped", "1 of 42", "the same file as one in another class"),
        ("changed", "41 of 41", "grey to RGB"),
        ("changed", "1 of 41", "the middle square only"),
    ]
    assert rows[5] == ("used", "blue", "6 pictures") and ("skipped", "… and 12 more", "") in rows
    assert len(seen.skipped) == 42, "the attribute holds all"


def test_no_counts_where_every_file_has_its_own_reason(album):
    Image.fromarray(GREY).save(album / "red" / "grey.png")
    (album / "red" / ".DS_Store").touch()
    (album / "red" / "empty.png").touch()
    assert [row[0] for row in load(album)[1].table().rows] == ["used", "used", "skipped", "skipped", "changed"]


def test_what_systems_leave_behind_is_no_class(album):
    for name in ("@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found"):
        fill(album / name, (90, 90, 10))
        fill(album / "red" / name, (90, 90, 30))
    data, seen = load(album)
    assert data.class_names == ("blue", "red") and seen.used == {"blue": 6, "red": 6}
    assert {why for _, why in seen.skipped} == {"hidden or a system's own"} and len(seen.skipped) == 8


def test_classes_one_level_deeper_are_asked_about(album, tmp_path):
    for name, rgb in {"animals/cat": (1, 200, 1), "animals/dog": (90, 200, 1), "vehicles/car": (90, 1, 200)}.items():
        fill(tmp_path / "high" / name, rgb)
    fill(tmp_path / "high" / "plants", (200, 200, 1))
    fill(tmp_path / "high" / "plants" / "trees", (200, 100, 1))
    _, seen = load(tmp_path / "high")
    assert [folder for folder, _ in seen.doubts] == ["animals/"]
    assert "folders inside it (cat, dog): are those the classes? Then load this folder" in seen.doubts[0][1]
    assert seen.table().rows[0][:2] == ["is it right?", "animals/"] and "In doubt: 1." in str(seen)
    assert load(tmp_path / "high" / "animals")[1].doubts == []


def test_a_part_of_a_split_among_classes_is_noticed(album):
    fill(album / "Train", (10, 200, 10))
    _, seen = load(album)
    assert [folder for folder, _ in seen.doubts] == ["Train/"] and "or a part of a split?" in seen.doubts[0][1]
    shutil.rmtree(album / "Train")
    fill(album / "Train" / "red", (10, 200, 10))
    with pytest.raises(ValueError, match="looks split already: it holds Train.*A class of such a name"):
        load(album)


def test_the_home_folder_may_be_named(album, monkeypatch):
    monkeypatch.setenv("HOME", str(album.parent))
    monkeypatch.setenv("USERPROFILE", str(album.parent))
    assert load(f"~/{album.name}")[1].used == {"blue": 6, "red": 6}


def test_the_only_copy_left_of_a_picture_stays(album):
    """A class that is too small to use does not keep its copy of another class's picture."""
    (album / "an only one").mkdir()
    first = sorted((album / "blue").iterdir())[0]
    shutil.copy(first, album / "an only one" / "copy.png")
    Image.fromarray(GREY).save(album / "an only one" / "grey.png")
    data, seen = load(album)
    assert seen.used["blue"] == len(list((album / "blue").iterdir())) and "an only one" not in data.class_names
    assert not seen.changed, "only what is used is named as changed"


def test_two_folders_of_one_name_are_not_mixed_up(album):
    for form in ("NFC", "NFD"):
        fill(album / unicodedata.normalize(form, "Müller"), (10, 10, 200), 3)
    if len(list(album.glob("M*"))) == 1:
        pytest.skip("this file system holds both forms for one name")
    with pytest.raises(ValueError, match="the same name, Müller"):
        load(album)


def test_links_are_followed_to_files_and_never_in_circles(album):
    target = album.parent / f"{album.name}-elsewhere"
    fill(target, (90, 90, 10), count=4)
    try:
        (album / "linked").symlink_to(target, target_is_directory=True)
        (album / "red" / "broken.png").symlink_to(album / "gone.png")
        (album / "red" / "circle").symlink_to(album, target_is_directory=True)
        (album / "red" / "one.png").symlink_to(target / "3.png")
    except OSError:
        pytest.skip("this system makes no links")
    data, seen = load(album)
    why = dict(seen.skipped)
    assert data.class_names == ("blue", "linked", "red") and seen.used["linked"] == 4
    assert "broken link" in why["red/broken.png"] and "not followed" in why["red/circle/"]
    assert "the same file as linked/3.png" in why["red/one.png"]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has file names that are no text")
def test_names_that_are_no_text_can_be_shown(album):
    (album / "red" / os.fsdecode(b"caf\xe9.png")).write_bytes(b"")
    _, seen = load(album)
    str(seen).encode("utf-8")
    assert any("caf" in name for name, _ in seen.skipped)


def test_a_file_that_may_not_be_read_is_skipped(album, monkeypatch):
    from pathlib import Path

    whole = Path.read_bytes
    (album / "red" / "mine.png").write_bytes(b"x")

    def read_bytes(path):
        if path.name == "mine.png":
            raise PermissionError(13, "Permission denied")
        return whole(path)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    assert ("red/mine.png", "cannot be read: Permission denied") in load(album)[1].skipped


def test_a_folder_that_may_not_be_opened_is_named(album, monkeypatch):
    whole = os.scandir
    fill(album / "red" / "summer", (190, 10, 10))

    def scandir(path):
        if Path(path).name == "summer":
            raise PermissionError(13, "Permission denied", str(path))
        return whole(path)

    monkeypatch.setattr(os, "scandir", scandir)
    _, seen = load(album)
    assert ("red/summer/", "cannot be opened: Permission denied") in seen.skipped and seen.used["red"] == 6


def test_wrong_folders_are_named(tmp_path, album):
    with pytest.raises(FileNotFoundError, match="no such folder: .*missing.*one folder for each class"):
        load(tmp_path / "missing")
    with pytest.raises(FileNotFoundError, match="no such folder"):
        load(album / "red" / "0.png")
    (tmp_path / "bare").mkdir()
    with pytest.raises(ValueError, match="holds no folders. Make one folder for each class"):
        load(tmp_path / "bare")
    with pytest.raises(ValueError, match="holds no folders"):
        load(album / "red")
    fill(tmp_path / "split" / "train" / "red", (200, 0, 0))
    (tmp_path / "split" / "Test").mkdir()
    for beside in ("", "annotations"):
        (tmp_path / "split" / beside).mkdir(exist_ok=True)
        with pytest.raises(ValueError, match="looks split already: it holds Test, train. Give"):
            load(tmp_path / "split")
    with pytest.raises(ValueError, match="(?s)Received: .*train holds folders itself.*give that one"):
        shutil.rmtree(tmp_path / "split" / "Test")
        shutil.rmtree(tmp_path / "split" / "annotations")
        (tmp_path / "split" / "train").rename(tmp_path / "split" / "old train")
        load(tmp_path / "split")
    fill(tmp_path / "single" / "only", (200, 0, 0))
    (tmp_path / "single" / "nothing").mkdir()
    with pytest.raises(ValueError, match="(?s)at least two classes.*Received: only.*nothing/.*empty class"):
        load(tmp_path / "single")
    with pytest.raises(ValueError, match="val and test must be shares"):
        load(album, val=0.5, test=0.5)


@pytest.mark.parametrize("count", [6, 3])
def test_a_readers_own_folder_is_read_once_and_never_changed(tmp_path, count, monkeypatch):
    """The chapter's cells with ``MINE`` set: odd files go into a sample, and the model gets the folder's own pictures."""
    code = code_of("vgg16-cifar10/own-pictures.ipynb")
    rng = np.random.default_rng(0)
    for name in ("red", "blue"):
        (tmp_path / "mine" / name).mkdir(parents=True)
        for i in range(count):
            blotches = Image.fromarray(rng.integers(0, 256, (6, 6, 3)).astype(np.uint8)).resize((60, 60))
            blotches.save(tmp_path / "mine" / name / f"{i}.png")
    (tmp_path / "mine" / "red" / "Thumbs.db").write_bytes(b"left by a system")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    shown = []
    nothing = SimpleNamespace(image_grid=lambda images, names: shown.append(images), show=lambda: None)
    known = {"Path": Path, "tempfile": tempfile, "shutil": shutil, "pictures": pictures, "np": np, "Image": Image}
    known |= {"plots": nothing, "plt": nothing, "contextlib": contextlib}
    monkeypatch.setattr(pictures, "tqdm", lambda rows, **_: rows)
    exec(code["your-own-folder"].replace("MINE = None", 'MINE = "~/mine"'), known)
    for name in ("filling-the-album", "writing-the-files", "adding-odd-files", "loading-the-folder"):
        exec(code[name], known)
    assert known["seen"].used == {"blue": count + 4, "red": count} and len(known["seen"].skipped) == 6
    (known["album"] / "blue" / "Thumbs.db").write_bytes(b"left by a system")
    exec(code["solution-near-duplicates"], known)
    for name in ("your-own-report", "a-look-at-the-pictures"):
        exec(code[name], known)
    assert known["seen"].used == {"blue": count, "red": count} and known["seen"].skipped[0][0] == "red/Thumbs.db"
    assert sum(known["data"].sizes().values()) == 2 * count and len(shown) == 1
    assert {file: file.read_bytes() for file in before} == before, "the odd files are in the sample alone"
    known["workshop"].cleanup()
