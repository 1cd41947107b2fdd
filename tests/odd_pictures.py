"""Files that a folder of pictures may hold: ``ODD`` ones that can be used, ``BAD`` ones that cannot."""

import zlib

import numpy as np
from made_pictures import colour, encoded
from PIL import Image

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
