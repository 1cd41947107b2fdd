"""A reader's own pictures: odd files are survived and named, the split is the seed's."""

import os
import re
import shutil
import sys
import tempfile
import unicodedata
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import code_of
from made_pictures import colour, encoded, fill
from PIL import Image

from tl_helpers import picture_files, pictures


def load(folder, **options):
    return pictures.load_folder(folder, pixels=8, progress=False, **options)


# --- one picture


def test_what_is_read_is_the_picture():
    made = np.random.default_rng(0).integers(0, 255, (16, 16, 3)).astype(np.uint8)
    image, notes = pictures.read(encoded(Image.fromarray(made)), pixels=16)
    assert image.dtype == np.uint8 and notes == []
    np.testing.assert_array_equal(image, made)


GREY = np.full((20, 20), 100, np.uint8)
ODD = {
    "grey": (encoded(Image.fromarray(GREY)), (100, 100, 100), "grey to RGB"),
    "palette": (encoded(colour((200, 10, 10)).quantize(8)), (200, 10, 10), "palette to RGB"),
    "see-through": (encoded(Image.new("RGBA", (9, 9), (200, 10, 10, 0))), (255, 255, 255), "transparency over white"),
    "half see-through": (encoded(Image.new("LA", (9, 9), (0, 128))), (127, 127, 127), "transparency over white"),
    "palette with a see-through colour": (
        encoded(Image.new("P", (9, 9), 0), transparency=0), (255, 255, 255), "transparency over white",
    ),
    "CMYK": (encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG"), (254, 0, 0), "CMYK to RGB"),
    "16 bits": (encoded(Image.fromarray(np.full((9, 9), 100 * 256, np.uint16))), (100, 100, 100), "16 bits to 8"),
    "12 bits": (
        encoded(Image.fromarray(np.full((9, 9), 200, np.uint16))), (0, 0, 0),
        "16 bits to 8, nearly black: 200 of 65,535 (12 bits? scale it up first)",
    ),
    "32 bits": (encoded(Image.fromarray(np.full((9, 9), 90, np.int32)), "TIFF"), (90, 90, 90), "16 bits to 8"),
    "one bit": (encoded(Image.new("1", (9, 9), 1)), (255, 255, 255), "black and white to RGB"),
    "animated": (
        encoded(colour((200, 10, 10)), "GIF", save_all=True, append_images=[colour((10, 10, 200))]), (200, 10, 10),
        "several frames: the first",
    ),
    "WebP": (encoded(colour((200, 10, 10)), "WEBP", lossless=True), (200, 10, 10), None),
    "one pixel": (encoded(Image.new("RGB", (1, 1), (5, 6, 7))), (5, 6, 7), None),
    "very flat": (encoded(Image.new("RGB", (900, 1), (5, 6, 7))), (5, 6, 7), "the middle square only"),
}  # fmt: skip


@pytest.mark.parametrize("name", ODD)
def test_odd_pictures_become_rgb(name):
    held, expected, note = ODD[name]
    image, notes = pictures.read(held, pixels=8)
    assert image.shape == (8, 8, 3) and image.dtype == np.uint8
    assert np.abs(image[4, 4].astype(int) - expected).max() <= 3, image[4, 4]
    assert note in notes if note else notes == []


def test_a_photo_is_turned_upright():
    photo = Image.new("RGB", (20, 20), (255, 255, 255))
    photo.paste((0, 0, 0), (0, 0, 20, 10))  # black above
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise: black belongs right
    image, notes = pictures.read(encoded(photo, "PNG", exif=exif), pixels=20)
    assert image[:, 15:].mean() < 30 and image[:, :5].mean() > 225 and notes == ["turned upright (EXIF)"]


def bomb() -> bytes:
    """A PNG of 60,000 x 60,000 pixels in a few bytes."""

    def chunk(kind, data):
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    size = (60_000).to_bytes(4, "big")
    head = chunk(b"IHDR", size + size + bytes([8, 0, 0, 0, 0]))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


WHOLE = encoded(Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)), "JPEG")
BAD = {
    "zero bytes": (b"", "empty"),
    "text": (b"just words, no picture", "not a picture"),
    "truncated JPEG": (WHOLE[: len(WHOLE) // 2], "damaged.*download it again"),
    "truncated PNG": (encoded(colour((1, 2, 3)).resize((200, 200)))[:300], "damaged"),
    "damaged PNG": (encoded(colour((1, 2, 3)))[:30] + bytes(40), "damaged|not a picture"),
    "decompression bomb": (bomb(), "too large"),
    "wide": (encoded(Image.new("1", (61_000, 1000))), "too large: 61000 x 1000"),
    "decimal numbers": (encoded(Image.fromarray(np.ones((9, 9), np.float32)), "TIFF"), "decimal numbers"),
    "large whole numbers": (encoded(Image.fromarray(np.full((9, 9), 70_000, np.int32)), "TIFF"), "up to 70,000"),
    "PostScript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a picture"),
    "iPhone photo": (b"\0\0\0\x18ftypheic" + bytes(60), "HEIC photo.*JPEG"),
    "iPhone burst": (b"\0\0\0\x18ftyphevc" + bytes(60), "HEIC photo.*JPEG"),
    "SVG": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not a picture.*export it as JPEG or PNG"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_picture_is_refused_with_a_reason(name):
    held, why = BAD[name]
    with pytest.raises(pictures.PictureRefused, match=why):
        pictures.read(held)


@pytest.mark.parametrize("seed", range(40))
def test_no_damage_escapes_as_another_error(seed):
    """Bytes turned at random in pictures of all kinds: a picture or a refusal, never a crash."""
    rng = np.random.default_rng(seed)
    held = bytearray(list(ODD.values())[seed % len(ODD)][0])
    for place in rng.integers(0, len(held), 1 + seed % 7):
        held[place] = rng.integers(0, 256)
    try:
        image, _ = pictures.read(bytes(held), pixels=8)
        assert image.shape == (8, 8, 3)
    except pictures.PictureRefused as error:
        assert str(error)


def test_fits_crop_pad_and_squash():
    wide = Image.new("RGB", (30, 10), (0, 0, 0))
    wide.paste((255, 255, 255), (10, 0, 20, 10))
    crop, pad, squash = (pictures.read(encoded(wide), pixels=30, fit=fit)[0] for fit in ("crop", "pad", "squash"))
    assert crop.mean() > 240
    assert 120 < pad[2, 15, 0] < 135 and pad[15, 15, 0] > 240 and pad[15, 2, 0] < 15
    assert squash[2, 15, 0] > 240 and squash[15, 2, 0] < 15
    with pytest.raises(ValueError, match="fit must be one of crop, pad, squash.*Received: 'stretch'"):
        pictures.read(encoded(wide), fit="stretch")


def test_large_jpegs_are_decoded_small(monkeypatch):
    big = encoded(Image.new("RGB", (4000, 3000), (9, 99, 199)), "JPEG")
    seen = []
    monkeypatch.setattr(picture_files, "_rgb", lambda image, notes: seen.append(image.size) or image.convert("RGB"))
    image, _ = pictures.read(big, pixels=32)
    assert seen[0][0] < 1000 and np.abs(image.astype(int) - (9, 99, 199)).max() < 6


def test_a_huge_file_is_refused_before_it_is_read(tmp_path, monkeypatch):
    """A film among the photos must not fill the memory; the file here is sparse and takes no room."""
    film = tmp_path / "film.png"
    film.touch()
    os.truncate(film, 3_000_000_000)
    monkeypatch.setattr("pathlib.Path.read_bytes", lambda path: pytest.fail("it was read"))
    with pytest.raises(pictures.PictureRefused, match="too large: 3,000 MB; files of at most 200 MB"):
        pictures.read(film)


# --- a folder


def test_a_folder_becomes_a_data_set(album):
    data, seen = load(album)
    assert data.class_names == ("blue", "red") and data.copy == "own"
    assert data.sizes() == {"train": 10, "val": 2, "test": 2} or sum(data.sizes().values()) == 12
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


def test_a_readers_own_folder_is_copied_and_never_changed(album, tmp_path):
    """The chapter's cell with ``MINE`` set, and the odd files that the next cell adds."""
    code = code_of("vgg16-cifar10/own-pictures.ipynb")
    before = {file: file.read_bytes() for file in album.rglob("*") if file.is_file()}
    known = {"Path": Path, "tempfile": tempfile, "shutil": shutil, "pictures": pictures, "np": np, "Image": Image}
    exec(code["writing-the-files"].replace("MINE = None", f"MINE = {str(album)!r}"), known)
    exec(code["adding-odd-files"], known)
    assert set(known["spare"]) == {"blue", "red"}
    known["add_odd_files"](known["album"], "blue", "red", known["spare"]["blue"])
    assert (known["album"] / "blue" / "scan.png").exists()
    assert {file: file.read_bytes() for file in album.rglob("*") if file.is_file()} == before
    nothing = SimpleNamespace(image_grid=lambda *_: None, show=lambda: None)
    known |= {"plots": nothing, "plt": nothing}
    exec(code["a-look-at-the-pictures"], known)
    assert sum(known["data"].sizes().values()) == len(before), "the odd files are in the copy, not in the training"
    known["workshop"].cleanup()
