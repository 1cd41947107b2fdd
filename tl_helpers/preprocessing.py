"""Pixels 0-255: refused when they are not, and turned into what a network's weights expect, inside the model."""

import keras
import numpy as np
from keras import ops

STEPS = ("caffe", "tf", "torch", "unit")


@keras.saving.register_keras_serializable("tl_helpers")
class Preprocessing(keras.layers.Layer):
    """Pixels 0-255 to what the weights expect; optionally resized first (bilinear).

    Args:
        steps: applied in turn: ``caffe`` (RGB to BGR, minus ImageNet's channel means), ``tf`` (to -1 ... 1), ``torch``
            (to 0 ... 1, minus mean, over standard deviation), ``unit`` (over 255).
        resolution: resize to this height and width in pixels; None keeps the size.
        smallest: refuse images smaller than this (pixels): they would vanish in the poolings.
    """

    def __init__(self, steps=("caffe",), resolution: int | None = None, smallest: int = 1, dtype="float32", **kwargs):
        super().__init__(dtype=dtype, **kwargs)
        self.steps, self.resolution, self.smallest = tuple(steps), resolution, smallest
        if unknown := set(self.steps) - set(STEPS):
            raise ValueError(
                f"preprocessing steps must be among {', '.join(STEPS)}. Received: {', '.join(sorted(unknown))}"
            )

    def call(self, images):
        x = ops.cast(images, "float32")
        if self.resolution:
            x = ops.image.resize(
                x, (self.resolution, self.resolution), interpolation="bilinear", data_format="channels_last"
            )
        sides = [side for side in x.shape[1:3] if isinstance(side, int)]  # unknown: None, or a symbol on JAX
        if sides and min(sides) < self.smallest:
            raise ValueError(
                f"this network needs images of at least {self.smallest} pixels a side. Received: {min(sides)}; "
                "enlarge them inside the model with resolution=..., e.g. resolution=32"
            )
        for step in self.steps:
            x = _apply(step, x)
        return x

    def get_config(self):
        own = {"steps": list(self.steps), "resolution": self.resolution, "smallest": self.smallest}
        return {**super().get_config(), **own}


def _apply(step: str, x):
    if step == "caffe":
        return ops.subtract(ops.flip(x, axis=-1), np.array([103.939, 116.779, 123.68], np.float32))
    if step == "tf":
        return x / 127.5 - 1.0
    x = x / 255.0
    if step == "torch":
        x = ops.subtract(x, np.array([0.485, 0.456, 0.406], np.float32))
        return ops.divide(x, np.array([0.229, 0.224, 0.225], np.float32))
    return x


def check_pixels(images: np.ndarray) -> np.ndarray:
    """Refuse what is no batch of RGB images with pixels 0-255.

    Args:
        images: (N, height, width, 3), integers or floats.
    Returns:
        The same images.
    Raises:
        ValueError: another shape, grey images, pixels outside 0-255, NaN, or floats that look like 0-1.
    """
    images = np.asarray(images)
    if images.ndim == 3 or (images.ndim == 4 and images.shape[-1] == 1):
        raise ValueError(
            f"images must be RGB, (N, height, width, 3). Received: {images.shape}, "
            "which looks grey (or a single image); "
            "repeat a grey channel with np.repeat(images.reshape(*images.shape[:3], 1), 3, axis=-1), "
            "make one image a batch with images[None]"
        )
    if images.ndim != 4 or images.shape[-1] != 3:
        raise ValueError(f"images must have shape (N, height, width, 3), colours last. Received: {images.shape}")
    if images.dtype == np.uint8 or images.size == 0:
        return images
    if images.dtype.kind not in "iuf":
        raise ValueError(f"pixels must be numbers 0-255. Received: {images.dtype}; decode the images first")
    low, high = images.min(), images.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ValueError("pixels must be numbers 0-255. Received: NaN or infinity; look at how the images were read")
    if low < 0 or high > 255:
        raise ValueError(
            f"pixels must be 0-255. Received: {low:g} to {high:g}; "
            "leave preprocessing to the model, which does it inside"
        )
    if images.dtype.kind == "f" and 0 < high <= 1:
        raise ValueError(
            f"pixels must be 0-255. Received: {low:g} to {high:g}, which looks like 0-1; multiply by 255. "
            'To show what a wrong range does, use preprocessing="unit"'
        )
    return images


def check_input(model: keras.Model, images: np.ndarray) -> np.ndarray:
    """``check_pixels`` for a model that does its preprocessing inside; any other takes what it takes.

    Args:
        model: a Keras model, which may hold others.
        images: (N, ...), what it is to be given.
    Returns:
        The same images.
    Raises:
        ValueError: the model wants pixels 0-255, and these are none.
    """
    return check_pixels(images) if _takes_pixels(model) else images


def _takes_pixels(model) -> bool:
    inner = getattr(model, "layers", ())
    return any(isinstance(layer, Preprocessing) or _takes_pixels(layer) for layer in inner)
