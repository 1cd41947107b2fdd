"""`make bench`: cost ratios, every pair measured side by side in this one process (float32, this machine).

Prints ratios only; seconds depend on the machine and on what else it does. Bounds are goals of the course, not tests.
"""

import argparse
import os
import tempfile
import time
from dataclasses import replace

import keras
import numpy as np

from tl_helpers import backbones, datasets, features, models, recipes, runtime, training
from tl_helpers.datasets import Split


def seconds(action) -> float:
    """Wall seconds of one call."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def images(n: int) -> tuple[np.ndarray, np.ndarray]:
    """n pictures of 32×32 pixels: the digits, repeated and disturbed, so that no two are alike."""
    split = datasets.load("digits").train
    rng = np.random.default_rng(0)
    rows = rng.integers(0, len(split.labels), n)
    noise = rng.integers(-20, 21, (n, 32, 32, 3))
    return np.clip(split.images[rows].astype(int) + noise, 0, 255).astype(np.uint8), split.labels[rows]


def part(pixels, labels, start, stop) -> Split:
    """A slice as a split."""
    return Split(pixels[start:stop], labels[start:stop])


def kept_features(n: int, epochs: int) -> dict[str, float]:
    """Ten epochs of the document's program, kept features with the same head, and one plain forward pass."""
    pixels, labels = images(n + n // 9)
    train, val = part(pixels, labels, 0, n), part(pixels, labels, n, len(labels))
    backbone = backbones.vgg16(weights="tiny-imagenet")
    backbone.trainable = False
    program = models.transfer_model(backbone, 10, hidden=256)
    program.compile("adam", loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    recipe = recipes.Recipe(epochs=epochs, batch_size=64)
    program.fit(train.images[:128], train.labels[:128], batch_size=64, verbose=0)
    best = min(
        (128, 256, 512), key=lambda size: seconds(lambda: backbone.predict(pixels[:2048], batch_size=size, verbose=0))
    )
    data = replace(datasets.load("digits"), train=train, val=val, test=val)
    few = part(pixels, labels, 0, 64)
    features.extract(backbone, replace(data, train=few, val=few, test=few), progress=False)

    def keep():
        kept = features.extract(backbone, replace(data, test=part(pixels, labels, 0, 1)), progress=False)
        training.fit(
            models.head((512,), 10, hidden=256),
            kept,
            recipe,
            experiment="bench",
            arm="kept",
            seed=time.time_ns() % 2**31,
            progress=False,
        )

    forward = seconds(lambda: backbone.predict(pixels, batch_size=best, verbose=0))
    kept = seconds(keep)
    epoch = seconds(
        lambda: program.fit(
            train.images,
            train.labels,
            batch_size=64,
            verbose=0,
            validation_data=(val.images, val.labels),
            validation_batch_size=64,
        )
    )
    return {
        "kept features ÷ one forward pass": kept / forward,
        "document's program ÷ kept features": epochs * epoch / kept,
    }


def fit_throughput(n: int) -> dict[str, float]:
    """`training.fit` against a bare Keras `fit` on the same arrays in memory, all of VGG16 trained."""
    pixels, labels = images(n)
    data = replace(datasets.load("digits"), train=part(pixels, labels, 0, n), val=part(pixels, labels, 0, 64))
    recipe = recipes.Recipe(epochs=2, batch_size=64, learning_rate=1e-5)

    def model():
        built = models.transfer_model(backbones.vgg16(weights="tiny-imagenet"), 10)
        training.compile_model(built, recipe, 100)
        built.train_on_batch(pixels[:64], labels[:64])
        return built

    bare, ours = model(), model()
    plain = seconds(
        lambda: bare.fit(
            pixels, labels, batch_size=64, epochs=2, verbose=0, validation_data=(data.val.images, data.val.labels)
        )
    )
    whole = seconds(
        lambda: training.fit(
            ours, data, recipe, experiment="bench", arm="fit", seed=time.time_ns() % 2**31, progress=False
        )
    )
    return {"training.fit throughput ÷ bare fit throughput": plain / whole}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=20_000, help="training images for the feature ratios")
    parser.add_argument("--fit-images", type=int, default=2_000, help="training images for the fit ratio")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as empty:  # features kept by an earlier call would make this one look free
        os.environ["TL_CACHE"] = os.environ["TL_SCRATCH"] = empty
        measure(asked)


def measure(asked: argparse.Namespace) -> None:
    """Run the measurements and print their ratios."""
    print(f"{runtime.device()['name']}, {runtime.device()['cores']} cores, {runtime.versions()['backend']}")
    goals = {
        "kept features ÷ one forward pass": "at most 1.10",
        "document's program ÷ kept features": "at least 10",
        "training.fit throughput ÷ bare fit throughput": "at least 0.95",
    }
    for name, ratio in {**kept_features(asked.images, epochs=10), **fit_throughput(asked.fit_images)}.items():
        print(f"{name:48s} {ratio:6.2f}   (goal: {goals[name]})", flush=True)


if __name__ == "__main__":
    main()
