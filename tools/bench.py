"""`make bench`: cost ratios, every pair measured side by side in this one process (float32, this machine).

Prints ratios, and one time with a goal of its own; other seconds depend on the machine and on what else it does. Each
time is the best of several, taken in turn with its rival's: TensorFlow's input pipeline may idle for seconds at the end
of a `fit` or `predict`, which would flatter us. The goals are the course's, not tests.

The parts of a data set have CIFAR-10's proportions: 45 to train, 5 to validate, 10 to test; `--images 45000` is its size.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace

import keras
import numpy as np

from tl_helpers import backbones, datasets, evaluation, features, models, packing, recipes, runtime, training
from tl_helpers.datasets import Split

GOALS = {  # in words, and as the least and the most
    "kept features ÷ one forward pass": ("at most 1.10", 0, 1.10),
    "document's program ÷ kept features": ("at least 10", 10, np.inf),
    "training.fit throughput ÷ bare fit throughput": ("at least 0.95", 0.95, np.inf),
    "extraction: growth of peak memory ÷ of its arrays": ("about 1: at most 1.2", 0, 1.2),
    "seconds an image, 2 × images ÷ 1 ×": ("about 1: at most 1.2", 0, 1.2),
    "seconds an image, 4 × images ÷ 1 ×": ("about 1: at most 1.2", 0, 1.2),
    "source weights checked and loaded, in seconds": ("under 3", 0, 3),
}


def judge(name: str, ratio: float) -> str:
    """A line of the report: the ratio, its goal, and whether it was reached."""
    goal, least, most = GOALS[name]
    return f"{name:58s} {ratio:6.2f}   (goal: {goal}: {'reached' if least <= ratio <= most else 'MISSED'})"


def seconds(action) -> float:
    """Wall seconds of one call."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def best_in_turn(actions: dict, rounds: int) -> dict[str, float]:
    """The best time of each action, the actions taking turns."""
    times = {name: [] for name in actions}
    for _ in range(rounds):
        for name, action in actions.items():
            times[name].append(seconds(action))
    return {name: min(found) for name, found in times.items()}


def images(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """n pictures of 32×32 pixels: the digits, repeated and disturbed, so that no two are alike."""
    split = datasets.load("digits").train
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, len(split.labels), n)
    made = split.images[rows]
    for start in range(0, n, 1000):  # in parts: the peak of memory is to be that of what is measured
        part = made[start : start + 1000]
        part[:] = np.clip(part + rng.integers(-20, 21, part.shape, dtype=np.int16), 0, 255)
    return made, split.labels[rows]


def dataset(n: int, seed: int = 0) -> datasets.Dataset:
    """n pictures to train on, a ninth as many to validate, two ninths to test: CIFAR-10's proportions."""
    ends = np.cumsum([n, n // 9, 2 * n // 9])
    pixels, labels = images(ends[-1], seed)
    train, val, test = (Split(pixels[a:b], labels[a:b]) for a, b in zip([0, *ends], ends))
    return replace(datasets.load("digits"), train=train, val=val, test=test)


def fit(model, data, recipe) -> None:
    """`training.fit` under a name of its own, so that no checkpoint is found."""
    seed = time.time_ns() % 2**31
    training.fit(model, data, recipe, experiment="bench", arm="bench", seed=seed, progress=False)


def keep_and_train(backbone, data, epochs: int) -> None:
    """Features once, then a head on them, then its test; what an earlier call kept is thrown away first."""
    for kept in (runtime.cache_folder() / "features").glob("*.npz"):
        kept.unlink()
    kept = features.extract(backbone, data, progress=False)
    head = models.head((512,), 10, hidden=256)
    fit(head, kept, recipes.Recipe(epochs=epochs, batch_size=64))
    evaluation.logits(head, kept.test.images)


def kept_features(n: int, epochs: int) -> dict[str, float]:
    """The document's program, kept features with the same head, each from training to test, and one plain forward pass."""
    data = dataset(n)
    pixels = np.concatenate([data.train.images, data.val.images, data.test.images])
    backbone = backbones.vgg16(weights="tiny-imagenet")
    backbone.trainable = False
    program = models.transfer_model(backbone, 10, hidden=256)
    program.compile("adam", loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    few = pixels[:2048]
    sizes = {size: lambda size=size: evaluation.logits(backbone, few, size) for size in (128, 256, 512)}
    size = min(found := best_in_turn(sizes, 2), key=found.get)
    keep_and_train(backbone, dataset(512), 1)  # whatever is slow the first time
    times = best_in_turn(
        {
            "forward": lambda: evaluation.logits(backbone, pixels, size),
            "test": lambda: evaluation.logits(program, data.test.images, size),
            "kept": lambda: keep_and_train(backbone, data, epochs),
            "epoch": lambda: program.fit(
                data.train.images,
                data.train.labels,
                batch_size=64,
                verbose=0,
                validation_data=(data.val.images, data.val.labels),
                validation_batch_size=64,
            ),
        },
        rounds=2,
    )
    return {
        "kept features ÷ one forward pass": times["kept"] / times["forward"],
        "document's program ÷ kept features": (epochs * times["epoch"] + times["test"]) / times["kept"],
    }


def fit_throughput(n: int) -> dict[str, float]:
    """`training.fit` against a bare Keras `fit` on the same arrays in memory, all of VGG16 trained; both compile first."""
    data, recipe = dataset(n), recipes.Recipe(epochs=1, batch_size=64, learning_rate=1e-5)
    data = replace(data, val=Split(data.val.images[:64], data.val.labels[:64]))
    model = models.transfer_model(backbones.vgg16(weights="tiny-imagenet"), 10)
    fit(model, replace(data, train=data.val), recipe)
    bare = dict(batch_size=64, verbose=0, validation_data=(data.val.images, data.val.labels))

    def bare_fit():
        training.compile_model(model, recipe, steps=-(-n // 64))
        model.fit(data.train.images, data.train.labels, **bare)

    times = best_in_turn(
        {
            "bare": bare_fit,
            "ours": lambda: fit(model, data, recipe),
        },
        rounds=3,
    )
    return {"training.fit throughput ÷ bare fit throughput": times["bare"] / times["ours"]}


def memory(n: int, rounds: int = 3) -> dict[str, float]:
    """How peak memory grows from n to 4 n images, beside the arrays that go in and come out; 2 would be one more copy.

    The median of several processes at either size: what TensorFlow takes besides differs from one to the next. And with
    few images the smaller process may not have reached what the network itself takes; that would look like growth.
    """
    code = (
        "import sys, tools.bench as bench\n"
        "data = bench.dataset(int(sys.argv[1]))\n"
        "kept = bench.features.extract(bench.backbones.vgg16(weights='tiny-imagenet'), data, progress=False)\n"
        "arrays = sum(s.images.nbytes for d in (data, kept) for s in (d.train, d.val, d.test))\n"
        "print(bench.runtime.peak_memory_mb() * 2**20, arrays)"
    )
    found = {1: [], 4: []}
    for k in [*found] * rounds:
        with tempfile.TemporaryDirectory() as empty:  # or the second round would find the features of the first
            own = {**os.environ, "TL_CACHE": empty}
            command = [sys.executable, "-c", code, str(k * n)]
            done = subprocess.run(command, capture_output=True, check=True, env=own)
        found[k].append([float(number) for number in done.stdout.split()[-2:]])
    (peak, arrays), (peak4, arrays4) = (np.median(numbers, axis=0) for numbers in found.values())
    return {"extraction: growth of peak memory ÷ of its arrays": (peak4 - peak) / (arrays4 - arrays)}


def linearity(n: int) -> dict[str, float]:
    """Seconds an image of features and head together, at n, 2 n and 4 n images."""
    backbone = backbones.vgg16(weights="tiny-imagenet")
    sets = {k: dataset(k * n) for k in (1, 2, 4)}
    times = best_in_turn({k: lambda k=k: keep_and_train(backbone, sets[k], 3) for k in sets}, rounds=3)
    return {f"seconds an image, {k} × images ÷ 1 ×": times[k] / k / times[1] for k in (2, 4)}


def loading() -> dict[str, float]:
    """The embedded weights from file to float32, SHA-256 checked: the best of three."""
    sha256 = packing.sums(backbones.EMBEDDED.parent)[backbones.EMBEDDED.name]
    times = best_in_turn({"load": lambda: packing.load(backbones.EMBEDDED, sha256)}, rounds=3)
    return {"source weights checked and loaded, in seconds": times["load"]}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=45_000, help="training images for the feature ratios")
    parser.add_argument("--fit-images", type=int, default=4_000, help="training images for the fit ratio")
    parser.add_argument("--size-images", type=int, default=1_000, help="images at 1 × for linearity")
    parser.add_argument("--memory-images", type=int, default=10_000, help="images at 1 × for memory")
    asked = parser.parse_args()
    print(f"{runtime.device()['name']}, {runtime.device()['cores']} cores, {runtime.versions()['backend']}")
    with tempfile.TemporaryDirectory() as empty:  # features kept by an earlier call would make this one look free
        os.environ["TL_CACHE"] = os.environ["TL_SCRATCH"] = empty
        parts = {
            kept_features: (asked.images, 10),
            fit_throughput: (asked.fit_images,),
            memory: (asked.memory_images,),
            linearity: (asked.size_images,),
            loading: (),
        }
        for part, sizes in parts.items():
            print(f"{part.__doc__.splitlines()[0]} ...", flush=True)
            for name, ratio in part(*sizes).items():
                print(judge(name, ratio), flush=True)


if __name__ == "__main__":
    main()
