"""Where a network looks: gradients with respect to a layer's output, and Grad-CAM maps, on every Keras backend."""

import keras
import numpy as np
from keras import ops

from tl_helpers.optimizers import on_one_device


class _Shift(keras.layers.Layer):
    """Adds a weight that is zero: the loss's gradient with respect to it is the gradient with respect to the input."""

    def build(self, shape):
        self.shift = self.add_weight(shape=shape, initializer="zeros", name="shift")

    def call(self, x):
        return x + self.shift


def activations(model: keras.Model, layer: str, images: np.ndarray) -> np.ndarray:
    """A layer's output for images (n, height, width, 3): (n, h, w, channels), float32.

    Raises:
        ValueError: the model has no such layer.
    """
    found = keras.Model(model.input, _layer(model, layer).output).predict_on_batch(images)
    return np.asarray(found, np.float32)


def gradients(model: keras.Model, layer: str, held: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """How each picture's logit of a class changes with each number that a layer puts out.

    Keras 3 has no gradient function for all its backends, but every backend trains. So a weight of zeros is added to
    the layer's output; one step of plain gradient ascent on the logits, with learning rate 1, makes it the gradient.

    Args:
        model: images in, logits (n, classes) out; it is left as it was.
        layer: whose output.
        held: (n, h, w, channels), that layer's ``activations``.
        classes: (n,), the logit asked about in each picture.
    Returns:
        (n, h, w, channels), float32.
    """
    above = keras.models.clone_model(keras.Model(_layer(model, layer).output, model.output))
    above.set_weights(keras.Model(_layer(model, layer).output, model.output).get_weights())
    above.trainable = False
    n = len(held)
    start = keras.Input(batch_shape=held.shape)
    shift = _Shift()
    asked = keras.Model(start, above(shift(start), training=False))
    which = np.eye(int(model.output_shape[-1]), dtype=np.float32)[np.asarray(classes)]
    ascent = on_one_device(keras.optimizers.SGD(1.0))
    asked.compile(ascent, loss=lambda chosen, logits: -n * ops.sum(chosen * logits, axis=-1))
    asked.train_on_batch(held, which)  # Keras averages the loss over the batch, hence the n
    return np.array(ops.convert_to_numpy(shift.shift), np.float32)


def grad_cam(model: keras.Model, layer: str, images: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Grad-CAM (Selvaraju et al., 2017): where a layer holds evidence for a class.

    A channel's weight is its gradient averaged over the places; the map is the weighted sum of the channels, and what
    speaks against the class (below zero) is cut off.

    Args:
        model: images in, logits out.
        layer: a convolutional layer; its height and width are the map's.
        images: (n, height, width, 3), pixels 0-255.
        classes: (n,), the class asked about in each picture.
    Returns:
        (n, h, w), float32, at least 0, not scaled.
    """
    held = activations(model, layer, images)
    weights = gradients(model, layer, held, classes).mean((1, 2))
    return np.maximum(np.einsum("nhwc,nc->nhw", held, weights), 0.0)


def enlarge(maps: np.ndarray, pixels: int) -> np.ndarray:
    """Maps (n, h, w) brought to (n, pixels, pixels), bilinear, each scaled to 0-1 (a map of zeros stays one)."""
    large = ops.convert_to_numpy(
        ops.image.resize(maps[..., None], (pixels, pixels), interpolation="bilinear", data_format="channels_last")
    )[..., 0]
    top = large.max((1, 2), keepdims=True)
    return large / np.where(top > 0, top, 1.0)


def _layer(model: keras.Model, name: str):
    for layer in model.layers:
        if layer.name == name:
            return layer
    raise ValueError(f"layer must be one of {', '.join(la.name for la in model.layers)}. Received: {name!r}")
