"""Pictures that tests make: one, its bytes, a folder of them."""

import io

import numpy as np
from PIL import Image


def colour(rgb, size=(40, 30)):
    """A plain picture with a few other pixels, so that no two are the same file."""
    image = Image.new("RGB", size, rgb)
    image.putpixel((0, 0), tuple(np.random.default_rng(sum(rgb)).integers(0, 255, 3).tolist()))
    return image


def encoded(image, kind="PNG", **options) -> bytes:
    held = io.BytesIO()
    image.save(held, kind, **options)
    return held.getvalue()


def fill(folder, rgb, count=6):
    folder.mkdir(parents=True)
    for i in range(count):
        colour((rgb[0], rgb[1], rgb[2] + i)).save(folder / f"{i}.png")
    return folder
