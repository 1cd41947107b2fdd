"""The source model in training: VGG16 with batch norm after each convolution, folded into plain VGG16 afterwards."""

from pathlib import Path

import keras
import numpy as np
from keras import layers

from tl_helpers.packing import dequantize
from tl_helpers.preprocessing import Preprocessing

BLOCKS = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))
"""VGG16 (Simonyan & Zisserman, 2015): convolutions and channels of each block."""


def build_vgg16_bn(
    classes: int, *, blocks: tuple[tuple[int, int], ...] = BLOCKS, dtype: str | None = None
) -> keras.Model:
    """VGG16 with batch norm after each convolution and a linear head on global averages.

    Deviations from the paper: batch norm (then no convolution bias), and one dense layer instead of three. Pooling
    rounds up, so that images below 32 pixels pass as well; for sides that 32 divides it makes no difference.
    ``packing.fold_model`` turns it into plain VGG16 with the same outputs.

    Args:
        classes: number of logits.
        blocks: (convolutions, channels) of each block; smaller ones for a quick trial.
        dtype: a Keras dtype policy such as ``"mixed_bfloat16"``; preprocessing and logits stay float32.
    Returns:
        Pixels 0-255 (N, height, width, 3) in, logits (N, classes) out; layers ``block1_conv1``,
        ``block1_bn1`` ... ``head``.
    """
    images = keras.Input((None, None, 3), name="images")
    x = Preprocessing(("caffe",), name="preprocessing")(images)
    for b, (convolutions, channels) in enumerate(blocks, 1):
        for i in range(1, convolutions + 1):
            x = layers.Conv2D(channels, 3, padding="same", use_bias=False, dtype=dtype, name=f"block{b}_conv{i}")(x)
            x = layers.BatchNormalization(dtype=dtype, name=f"block{b}_bn{i}")(x)
            x = layers.Activation("relu", dtype=dtype, name=f"block{b}_relu{i}")(x)
        x = layers.MaxPooling2D(padding="same", dtype=dtype, name=f"block{b}_pool")(x)
    x = layers.GlobalAveragePooling2D(dtype=dtype, name="avg_pool")(x)
    logits = layers.Dense(classes, dtype="float32", name="head")(x)
    return keras.Model(images, logits, name="vgg16_bn")


def load_warm_start(model: keras.Model, path: Path | str) -> None:
    """Fill a ``build_vgg16_bn`` model from a warm-start file (8-bit kernels, batch norm not folded).

    Args:
        model: with as many classes as the file's head has, 200.
        path: ``.npz`` with ``blockB_convI/kernel_q`` and ``/scale``, ``blockB_bnI/gamma`` and so on, ``head/kernel``
            and ``head/bias``.
    Raises:
        ValueError: the file lacks a weight of the model; nothing is loaded then.
    """
    with np.load(path, allow_pickle=False) as kept:
        values = {}
        for layer in model.layers:
            for variable in layer.weights:
                name = f"{layer.name}/{variable.name}"
                try:
                    quantised = f"{name}_q" in kept.files
                    value = dequantize(kept[f"{name}_q"], kept[f"{layer.name}/scale"]) if quantised else kept[name]
                except KeyError as error:
                    raise ValueError(
                        f"the warm start must hold {name}. Received: {path} without it; use the matching file"
                    ) from error
                values[name] = value.astype(np.float32)
    for layer in model.layers:
        for variable in layer.weights:
            variable.assign(values[f"{layer.name}/{variable.name}"])
