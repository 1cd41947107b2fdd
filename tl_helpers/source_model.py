"""The source model in training: VGG16 with batch norm after each convolution, folded into plain VGG16 afterwards."""

import keras
import numpy as np
from keras import layers

from tl_helpers.preprocessing import Preprocessing

BLOCKS = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))
"""Convolutions and channels of each block of VGG16 (Simonyan & Zisserman, 2015)."""


def build_vgg16_bn(
    classes: int, *, blocks: tuple[tuple[int, int], ...] = BLOCKS, dtype: str | None = None, momentum: float = 0.99
) -> keras.Model:
    """VGG16 with batch norm after each convolution and a linear head on global averages.

    Deviations from the paper: batch norm (then no convolution bias), and one dense layer instead of three. Pooling
    rounds up, so that images below 32 pixels pass as well; for sides that 32 divides it makes no difference.
    ``packing.fold_model`` turns it into plain VGG16 with the same outputs.

    Args:
        classes: number of logits.
        blocks: (convolutions, channels) of each block; smaller ones for a quick trial.
        dtype: a Keras dtype policy such as ``"mixed_bfloat16"``; preprocessing and logits stay float32.
        momentum: of batch norm's running averages: what one step keeps of them. With few steps, take less.
    Returns:
        Pixels 0-255 (N, height, width, 3) in, logits (N, classes) out; layers ``block1_conv1``,
        ``block1_bn1`` ... ``head``.
    """
    images = keras.Input((None, None, 3), name="images")
    x = Preprocessing(("caffe",), name="preprocessing")(images)
    for b, (convolutions, channels) in enumerate(blocks, 1):
        for i in range(1, convolutions + 1):
            x = layers.Conv2D(channels, 3, padding="same", use_bias=False, dtype=dtype, name=f"block{b}_conv{i}")(x)
            x = layers.BatchNormalization(momentum=momentum, dtype=dtype, name=f"block{b}_bn{i}")(x)
            x = layers.Activation("relu", dtype=dtype, name=f"block{b}_relu{i}")(x)
        x = layers.MaxPooling2D(padding="same", dtype=dtype, name=f"block{b}_pool")(x)
    x = layers.GlobalAveragePooling2D(dtype=dtype, name="avg_pool")(x)
    logits = layers.Dense(classes, dtype="float32", name="head")(x)
    return keras.Model(images, logits, name="vgg16_bn")


def with_batch_norm(
    model: keras.Model,
    images: np.ndarray,
    *,
    dtype: str | None = None,
    momentum: float = 0.99,
    batch_size: int = 128,
    rescale: bool = False,
) -> keras.Model:
    """Put batch norm back into plain VGG16 for training: after each convolution, the outputs unchanged at first.

    A convolution's bias moves into its batch norm. With the mean m and variance v of what the convolution gives on
    ``images``, batch norm gets these as moving statistics, gamma = sqrt(v + epsilon) and beta = m + bias: in inference
    that is x -> x + bias again, whatever the image; in training, batches like ``images`` are changed only a little.

    Args:
        model: ``models.transfer_model`` on ``backbones.vgg16``, its head linear.
        images: (n, height, width, 3), pixels 0-255: training images to measure on; a few hundred will do.
        dtype, momentum: as in ``build_vgg16_bn``.
        batch_size: images at a time.
        rescale: give every kernel the size of a fresh one (He et al., 2015), the outputs still unchanged. Behind batch
            norm only a kernel's direction counts, and its size says how fast steps of SGD turn it: a kernel that folding
            left tiny would be scrambled by the first large steps.
    Returns:
        A model as ``build_vgg16_bn`` makes it; ``packing.fold_model`` turns it into plain VGG16 again.
    """
    head = model.get_layer("head")
    blocks = _blocks(model)
    found = build_vgg16_bn(head.units, blocks=blocks, momentum=momentum)
    for layer in found.layers:
        if layer.name == "head":
            layer.set_weights(head.get_weights())
        elif isinstance(layer, layers.Conv2D):
            kernel, bias = model.get_layer(layer.name).get_weights()
            norm = found.get_layer(layer.name.replace("_conv", "_bn"))
            layer.set_weights([kernel])
            norm.set_weights([np.ones_like(bias), bias, np.zeros_like(bias), np.full_like(bias, 1 - norm.epsilon)])
    for name, (mean, variance) in _statistics(found, images, batch_size).items():
        norm, factor = found.get_layer(name), np.float32(1)
        if rescale:
            convolution = found.get_layer(name.replace("_bn", "_conv"))
            kernel = convolution.get_weights()[0]
            factor = np.float32(np.sqrt(2 / np.prod(kernel.shape[:3])) / kernel.std())
            convolution.set_weights([factor * kernel])
        gamma = np.sqrt(factor**2 * variance + norm.epsilon) / factor
        beta = mean + norm.get_weights()[1]
        norm.set_weights([gamma, beta, factor * mean, factor**2 * variance])
    if dtype is None:
        return found
    other = build_vgg16_bn(head.units, blocks=blocks, dtype=dtype, momentum=momentum)
    other.set_weights(found.get_weights())
    return other


def measure_again(model: keras.Model, images: np.ndarray, batch_size: int = 128) -> keras.Model:
    """Set batch norm's running averages anew: plain means over batches in training mode, with the weights as they are.

    Running averages lag behind weights that move, and after few or small batches they are wrong (Wu & Johnson, 2021).

    Args:
        model: with batch norm, after training.
        images: (n, height, width, 3), pixels 0-255: training images.
        batch_size: images at a time; the last batch is left out if it is smaller.
    Returns:
        The same model; only running averages have changed.
    """
    norms = [layer for layer in model.layers if isinstance(layer, layers.BatchNormalization)]
    before = [(norm.momentum, norm.trainable) for norm in norms]
    batch_size = min(batch_size, len(images))
    for norm in norms:
        norm.trainable = True  # a frozen one would not look at the batch
    for done, start in enumerate(range(0, len(images) - batch_size + 1, batch_size)):
        for norm in norms:
            norm.momentum = done / (done + 1)
        model(images[start : start + batch_size], training=True)
    for norm, (momentum, trainable) in zip(norms, before, strict=True):
        norm.momentum, norm.trainable = momentum, trainable
    return model


def _blocks(model: keras.Model) -> tuple[tuple[int, int], ...]:
    found = {}
    for layer in model.layers:
        if isinstance(layer, layers.Conv2D):
            found.setdefault(layer.name.split("_")[0], []).append(layer.filters)
    return tuple((len(filters), filters[0]) for filters in found.values())


def _statistics(model: keras.Model, images: np.ndarray, batch_size: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Mean and variance (channels,) over images and places of what goes into each batch norm, by its name."""
    norms = [layer for layer in model.layers if isinstance(layer, layers.BatchNormalization)]
    pool = layers.GlobalAveragePooling2D()
    moments = [[pool(norm.input), pool(keras.ops.square(norm.input))] for norm in norms]
    probe = keras.Model(model.input, moments)
    batch_size = min(batch_size, len(images))
    sums, whole = 0.0, len(images) // batch_size * batch_size  # another batch shape would be compiled anew
    for start in range(0, whole, batch_size):
        outputs = probe.predict_on_batch(images[start : start + batch_size])
        sums = sums + np.array([[np.sum(m, 0, np.float64) for m in pair] for pair in outputs], object)
    found = {}
    for norm, (mean, square) in zip(norms, sums, strict=True):
        mean, square = (np.asarray(m / whole, np.float64) for m in (mean, square))
        found[norm.name] = mean.astype(np.float32), np.maximum(square - mean**2, 0).astype(np.float32)
    return found
