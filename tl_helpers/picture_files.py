"""One picture file as a network takes it, or the reason why not: ``read``."""

import io
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

FORMATS = ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "PPM")  # no EPS: it would start another program
HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1", b"heif")  # a telephone's photos
MOST_PIXELS = 60_000_000  # a telephone's "50 megapixels" are 8192 x 6144
MOST_BYTES = 200_000_000  # a larger file is no photo; it is refused before it is read
MOST_CUT = 1.5  # of a picture of a longer shape, cropping leaves out so much that it is said
FITS = ("crop", "pad", "squash")
ORIENTATION = 0x0112  # the EXIF tag in which a telephone says how it was held
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # fmt: skip
"""What makes a picture upright, by its orientation; 1, and what EXIF does not know, leave it as it lies."""


class PictureRefused(ValueError):
    """A file that gives no picture; the message says why, and what to do."""


def read(source: Path | str | bytes, *, pixels: int = 32, fit: str = "crop") -> tuple[np.ndarray, list[str]]:
    """One picture as a network takes it, whatever form its file has. Training and prediction both read by this.

    Args:
        source: a file, or its bytes.
        pixels: side of the square result.
        fit: ``crop`` cuts the middle square out, ``pad`` adds grey borders, ``squash`` ignores the shape.
    Returns:
        uint8 (pixels, pixels, 3), RGB, 0-255; and notes on what had to be changed, in words.
    Raises:
        PictureRefused: the file is no picture, is damaged, or is too large.
        ValueError: ``pixels`` or ``fit`` is no possible choice.
    """
    pixels = check_reading(pixels, fit)
    held = bytes(source) if isinstance(source, (bytes, bytearray, memoryview)) else held_bytes(Path(source))
    if not held:
        raise PictureRefused("the file is empty (zero bytes)")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of large or odd files; both are judged here
        try:
            return _decode(held, pixels, fit)
        except (PictureRefused, MemoryError):  # a full memory is no fault of the file
            raise
        except Exception as error:  # a decoder meets damaged bytes with almost any exception
            raise PictureRefused(_reason(held, error)) from error


def check_reading(pixels: int, fit: str) -> int:
    """``pixels`` as a plain integer, where ``read`` can bring a picture to that size in that way.

    Raises:
        ValueError: ``pixels`` or ``fit`` is no possible choice.
    """
    if fit not in FITS or not isinstance(pixels, (int, np.integer)) or pixels < 1:
        raise ValueError(
            f"fit must be one of {', '.join(FITS)}, pixels a whole number of at least 1. Received: {fit!r}, {pixels!r}"
        )
    return int(pixels)


def held_bytes(path: Path) -> bytes:
    """A file's content.

    Raises:
        PictureRefused: it cannot be read, or is larger than ``MOST_BYTES``; the message says why.
    """
    if path.is_dir():
        raise PictureRefused(f"a folder; name the pictures in it: {path / '*.jpg'}")
    try:
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise PictureRefused(
                f"too large: {size / 1e6:,.0f} MB; files of at most {MOST_BYTES / 1e6:.0f} MB are read"
            )
        return path.read_bytes()
    except OSError as error:
        raise PictureRefused(f"cannot be read: {error.strerror or error}") from error


def _decode(held: bytes, pixels: int, fit: str) -> tuple[np.ndarray, list[str]]:
    notes = []
    with Image.open(io.BytesIO(held), formats=FORMATS) as image:
        width, height = image.size
        if width * height > MOST_PIXELS:
            raise PictureRefused(f"too large: {width} x {height} pixels; at most {MOST_PIXELS:,} pixels are decoded")
        if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":
            notes.append("several frames: the first")
        image.draft(None, (4 * pixels, 4 * pixels))  # a large JPEG is decoded at a smaller size
        image.load()
        image = _upright(image, notes)
        if fit == "crop" and max(image.size) > MOST_CUT * min(image.size):
            notes.append("the middle square only")
        image = _rgb(image, notes)
    return np.asarray(_square(image, pixels, fit)), notes


def _upright(image: Image.Image, notes: list[str]) -> Image.Image:
    """Turned as its EXIF says. (``ImageOps.exif_transpose`` writes all EXIF anew, and fails on any odd tag in it.)"""
    try:
        turn = TURNS.get(image.getexif().get(ORIENTATION))
    except Exception:  # as with a decoder; the pixels are whole
        notes.append("EXIF cannot be read: not turned")
        return image
    if turn is None:
        return image
    notes.append("turned upright (EXIF)")
    return image.transpose(turn)


def _rgb(image: Image.Image, notes: list[str]) -> Image.Image:
    """Any mode to RGB: transparency over white, 16 bits to 8."""
    mode = image.mode
    if mode == "F":
        raise PictureRefused("pixels are decimal numbers of an unknown range; save it with 8 bits a channel")
    if mode.startswith("I"):
        image = _eight_bits(image, notes)
    if mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        notes.append("transparency over white")
        clear = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", clear.size, "white"), clear)
    elif mode != "RGB" and not mode.startswith("I"):
        notes.append({"P": "palette", "L": "grey", "1": "black and white"}.get(mode, mode) + " to RGB")
    return image.convert("RGB")


def _eight_bits(image: Image.Image, notes: list[str]) -> Image.Image:
    """A grey picture of 16 bits, or of 32 of which 8 or 16 are used, as one of 8."""
    values = np.asarray(image)
    most = int(values.max())
    if most >= 2**16:
        raise PictureRefused(f"whole numbers up to {most:,}, of an unknown range; save it with 8 or 16 bits a channel")
    deep = image.mode != "I" or most > 255
    dim = deep and most < 2**14
    notes.append("16 bits to 8" + (f", nearly black: {most:,} of 65,535 (12 bits? scale it up first)" if dim else ""))
    return Image.fromarray(np.clip(values >> 8 if deep else values, 0, 255).astype(np.uint8, copy=False))


def _square(image: Image.Image, pixels: int, fit: str) -> Image.Image:
    size, smooth = (pixels, pixels), Image.Resampling.LANCZOS
    if fit == "crop":
        return ImageOps.fit(image, size, smooth)
    if fit == "pad":
        return ImageOps.pad(image, size, smooth, color=(128, 128, 128))
    return image.resize(size, smooth)


def _reason(held: bytes, error: Exception) -> str:
    if held[4:8] == b"ftyp" and held[8:12] in HEIC:
        return "a HEIC photo, which is not read here; export it as JPEG"
    if isinstance(error, Image.UnidentifiedImageError):
        return f"not a picture in a known format ({', '.join(FORMATS)}); export it as JPEG or PNG"
    if isinstance(error, Image.DecompressionBombError):
        return f"too large: at most {MOST_PIXELS:,} pixels are decoded"
    return f"damaged: {error or type(error).__name__}; copy or download it again"
