"""A short training for tests: digits, a small network, a recipe."""

from dataclasses import dataclass

import keras
import numpy as np
from sklearn.datasets import load_digits

from tl_helpers import runtime, training
from tl_helpers.recipes import Recipe


@dataclass(frozen=True)
class Part:
    images: np.ndarray
    labels: np.ndarray


class Digits:
    """The smallest thing with the interface of datasets.Dataset."""

    name = "digits"

    def __init__(self):
        x, y = load_digits(return_X_y=True)
        x = x.reshape(-1, 8, 8, 1).astype("float32")
        self.train, self.val, self.test = (
            Part(x[:300], y[:300]),
            Part(x[300:400], y[300:400]),
            Part(x[400:600], y[400:600]),
        )

    def identity(self):
        return {"name": "digits", "copy": "embedded", "sha256": "0" * 64}

    def sizes(self):
        return {"train": 300, "val": 100, "test": 200}


def build(seed=0, dropout=0.3, side=8):
    runtime.set_seed(seed)
    layers = [
        keras.Input((side, side, 1)),
        keras.layers.Flatten() if side else keras.layers.GlobalAveragePooling2D(),
        keras.layers.Dense(32, activation="relu"),
        keras.layers.BatchNormalization(momentum=0.9),
        keras.layers.Dropout(dropout),
        keras.layers.Dense(10),
    ]
    return keras.Sequential(layers)


RECIPE = Recipe(
    epochs=4,
    batch_size=32,
    optimizer="adamw",
    learning_rate=3e-3,
    schedule="cosine",
    warmup=0.1,
    weight_decay=0.01,
    crop_padding=1,
    flip=True,
)


def fit(model, data, recipe=RECIPE, **more):
    return training.fit(model, data, recipe, experiment="demo", arm="a", seed=0, progress=False, **more)
