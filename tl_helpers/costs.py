"""What a network costs: parameters, multiply-adds, memory, and images a second measured side by side.

Only convolutions and dense layers are counted; all else (pooling, ReLU, batch norm) is small beside them.
"""

import subprocess
import sys
import time
from collections.abc import Mapping

import keras
import numpy as np

BYTES = 4  # of a float32
_FREE = (keras.layers.BatchNormalization, keras.layers.Normalization)


def layer_costs(model: keras.Model, pixels: int = 32) -> list[dict]:
    """One row for each layer of a flat model, for one image.

    Args:
        model: images (N, height, width, 3) in.
        pixels: height and width of the images given to it; a model that resizes inside is counted as it computes.
    Returns:
        Dicts of ``layer``, ``shape`` (of its output, without the batch), ``parameters`` and ``multiply_adds``.
    Raises:
        ValueError: a model inside the model, or a layer with weights that is no convolution, dense layer or
            normalisation.
    """
    layers = [layer for layer in model.layers if not isinstance(layer, keras.layers.InputLayer)]
    if nested := [layer.name for layer in layers if isinstance(layer, keras.Model)]:
        raise ValueError(f"expected a flat model. Received: one with models as layers ({', '.join(nested)})")
    probe = keras.Model(model.input, [layer.output for layer in layers])
    found = keras.tree.flatten(probe.compute_output_spec(keras.KerasTensor((1, pixels, pixels, 3))))
    rows = []
    for layer, output in zip(layers, found, strict=True):
        shape = tuple(int(side) for side in output.shape[1:])
        parameters = int(sum(np.prod(weight.shape, dtype=np.int64) for weight in layer.weights))
        row = {"layer": layer.name, "shape": shape, "parameters": parameters}
        rows.append({**row, "multiply_adds": _multiply_adds(layer, shape)})
    return rows


def multiply_adds(model: keras.Model, pixels: int = 32) -> int:
    """Multiplications, each with its addition, for one image; arguments as in ``layer_costs``."""
    return sum(row["multiply_adds"] for row in layer_costs(model, pixels))


def feature_map_mb(model: keras.Model, pixels: int = 32, batch_size: int = 1) -> float:
    """MiB of every layer's output together, as training keeps them for the way back."""
    return sum(np.prod(row["shape"]) for row in layer_costs(model, pixels)) * batch_size * BYTES / 2**20


def images_per_second(models: Mapping[str, keras.Model], images: Mapping[str, np.ndarray], rounds: int = 3) -> dict:
    """Forward speed of several models, measured in turn, so that a busy machine disturbs all of them alike.

    Args:
        models: name to model.
        images: name to one batch (N, height, width, 3) for that model.
        rounds: how often each is measured; the quickest counts. One more comes first and is not measured.
    Returns:
        Name to images a second.
    """
    best = dict.fromkeys(models, np.inf)
    for turn in range(rounds + 1):
        for name, model in models.items():
            start = time.perf_counter()
            model.predict_on_batch(images[name])
            if turn:
                best[name] = min(best[name], time.perf_counter() - start)
    return {name: len(images[name]) / seconds for name, seconds in best.items()}


def peak_memory_mb(name: str, pixels: int, batch_size: int, training: bool = False) -> float | None:
    """Memory that a backbone adds to a fresh process that has Keras loaded and has computed something small.

    Args:
        name: of a backbone, built with random weights.
        pixels: height and width of the images.
        batch_size: images at a time.
        training: two steps of Adam instead of two forward passes.
    Returns:
        MiB, or None where the system does not tell.
    Raises:
        RuntimeError: the process failed.
    """
    code = _FRESH.format(name=name, pixels=pixels, batch_size=batch_size, training=training)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise RuntimeError(f"the process that measures memory failed ({last})")
    said = done.stdout.strip().splitlines()[-1]
    return None if said == "None" else float(said)


_FRESH = """
import keras, numpy as np
from tl_helpers import backbones, models, runtime
keras.layers.Dense(1)(np.ones((1, 1)))
before = runtime.peak_memory_mb()
model = backbones.build("{name}", weights=None)
images = np.zeros(({batch_size}, {pixels}, {pixels}, 3), "uint8")
if {training}:
    model = models.transfer_model(model, 10)
    model.compile("adam", loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
for _ in range(2):
    model.train_on_batch(images, np.zeros({batch_size}, "int32")) if {training} else model.predict_on_batch(images)
print(None if before is None else runtime.peak_memory_mb() - before)
"""


def _multiply_adds(layer, shape: tuple[int, ...]) -> int:
    """Each weight of a kernel is used once at every place of the output."""
    if isinstance(layer, (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)):
        channels_first = layer.data_format == "channels_first"
        places = shape[1:] if channels_first else shape[:2]
        return int(np.prod(layer.kernel.shape) * np.prod(places))
    if isinstance(layer, keras.layers.Dense):
        return int(np.prod(layer.kernel.shape) * np.prod(shape[:-1]))
    if layer.weights and not isinstance(layer, _FREE):
        raise ValueError(
            "only convolutions, dense layers and normalisations can be counted. "
            f"Received: {layer.name} ({type(layer).__name__})"
        )
    return 0
