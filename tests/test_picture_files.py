"""One picture file: odd ones are read, others refused with a reason."""

import io
import os

import numpy as np
import pytest
from made_pictures import encoded
from odd_pictures import BAD, ODD
from PIL import Image, ImageOps

from tl_helpers import picture_files, pictures


def test_what_is_read_is_the_picture():
    made = np.random.default_rng(0).integers(0, 255, (16, 16, 3)).astype(np.uint8)
    image, notes = pictures.read(encoded(Image.fromarray(made)), pixels=16)
    assert image.dtype == np.uint8 and notes == []
    np.testing.assert_array_equal(image, made)


@pytest.mark.parametrize("name", ODD)
def test_odd_pictures_become_rgb(name):
    held, expected, note = ODD[name]
    image, notes = pictures.read(held, pixels=8)
    assert image.shape == (8, 8, 3) and image.dtype == np.uint8
    assert np.abs(image[4, 4].astype(int) - expected).max() <= 3, image[4, 4]
    assert note in notes if note else notes == []


def held_as(orientation, photo, kind="JPEG", **more) -> bytes:
    """A photo with this orientation in its EXIF."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(photo, kind, exif=exif, **more)


QUARTERS = Image.fromarray(np.kron(np.array([[10, 80], [160, 250]], np.uint8), np.ones((16, 16), np.uint8))).convert(
    "RGB"
)


@pytest.mark.parametrize("kind, options", [("JPEG", {"quality": 95}), ("PNG", {}), ("WEBP", {"lossless": True})])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photo_is_turned_as_viewers_turn_it(orientation, kind, options):
    held = held_as(orientation, QUARTERS, kind, **options)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(held))).convert("RGB"))
    image, notes = pictures.read(held, pixels=32)
    assert np.abs(image.astype(int) - expected).max() <= 1
    assert notes == ([] if orientation == 1 else ["turned upright (EXIF)"])


@pytest.mark.parametrize(
    "value", [b"\0\x03\0\0\0\1\0\0\0\0", b"\0\x03\0\0\0\1\0\x09\0\0", b"\0\2\0\0\0\0026\0\0\0"], ids=["0", "9", "'6'"]
)
def test_an_orientation_that_exif_does_not_know_turns_nothing_and_says_nothing(value):
    exif = Image.Exif()
    exif[0x0112] = 6
    odd = exif.tobytes().replace(b"\x01\x12\0\x03\0\0\0\1\0\6\0\0", b"\x01\x12" + value)
    assert odd != exif.tobytes()
    image, notes = pictures.read(encoded(QUARTERS, "PNG", exif=odd), pixels=32)
    np.testing.assert_array_equal(image, np.asarray(QUARTERS))
    assert notes == []


def test_an_odd_tag_beside_the_orientation_damages_no_photo():
    """A text where EXIF wants a number: Pillow reads it, but could not write it again."""
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "Maker"
    odd = exif.tobytes().replace(b"\x01\x0f\x00\x02", b"\x01\x07\x00\x02")
    image, notes = pictures.read(encoded(QUARTERS, "PNG", exif=odd), pixels=32)
    np.testing.assert_array_equal(image, np.rot90(np.asarray(QUARTERS), -1))
    assert notes == ["turned upright (EXIF)"]


def test_exif_that_cannot_be_read_leaves_the_photo_as_it_lies():
    image, notes = pictures.read(encoded(QUARTERS, "PNG", exif=b"Exif\0\0no such thing"), pixels=32)
    np.testing.assert_array_equal(image, np.asarray(QUARTERS))
    assert notes == ["EXIF cannot be read: not turned"]


def test_a_full_memory_is_no_fault_of_the_file(monkeypatch):
    def full(*_):
        raise MemoryError

    monkeypatch.setattr(picture_files, "_rgb", full)
    with pytest.raises(MemoryError):
        pictures.read(encoded(QUARTERS))


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


@pytest.mark.parametrize("wrong", [32.0, "32", 0, None])
def test_the_number_of_pixels_must_be_a_whole_one(wrong):
    with pytest.raises(ValueError, match="pixels a whole number of at least 1. Received: 'crop', ") as caught:
        pictures.read(encoded(QUARTERS), pixels=wrong)
    assert not isinstance(caught.value, pictures.PictureRefused)
    assert pictures.read(encoded(QUARTERS), pixels=np.int8(100))[0].shape == (100, 100, 3)


@pytest.mark.parametrize("fit", picture_files.FITS)
def test_a_fine_pattern_becomes_grey_instead_of_another_pattern(fit):
    checked = (np.indices((64, 64)).sum(0) % 2 * 200 + 20).astype(np.uint8)
    image, _ = pictures.read(encoded(Image.fromarray(checked)), pixels=16, fit=fit)
    assert np.abs(image.astype(int) - 120).max() < 10


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
