"""What arrays hold and what a network is made of, as short texts on which two processes agree."""

import hashlib
import json

import keras
import numpy as np


def of_arrays(*arrays: np.ndarray) -> str:
    """A digest (64 hex digits) of arrays of any shape: their shapes, number formats and bytes."""
    total = hashlib.sha256()
    for array in map(np.ascontiguousarray, arrays):
        total.update(f"{array.shape} {array.dtype};".encode())
        total.update(array.data if array.size else b"")
    return total.hexdigest()


def structure(model: keras.Model) -> str:
    """A network's layers, their settings and connections, without the layers' names, which may count up.

    A model that cannot say what it is made of (a subclass without ``get_config``) is told by its class and the shapes
    of its weights.
    """
    try:
        config = model.get_config()
        told = {"layers": config["layers"], "output": config.get("output_layers")}
    except (NotImplementedError, KeyError, TypeError, ValueError):
        told = {"class": type(model).__name__, "weights": [tuple(weight.shape) for weight in model.weights]}
    return json.dumps(_nameless(told, {}), sort_keys=True, default=str)


def _nameless(part, numbers: dict[str, str]):
    """The same with a layer's name replaced by the place at which it first appears; other names stay (``float32`` is one)."""
    if isinstance(part, list | tuple):
        return [_nameless(one, numbers) for one in part]
    if not isinstance(part, dict):
        return part
    part, config = dict(part), part.get("config")
    if "class_name" in part and isinstance(config, dict) and "name" in config and "Policy" not in part["class_name"]:
        number = numbers.setdefault(config["name"], f"#{len(numbers)}")
        part["config"] = config | {"name": number}
        part |= {"name": number} if "name" in part else {}
    return {
        key: _renamed(value, numbers) if key in _REFERENCES else _nameless(value, numbers)
        for key, value in part.items()
    }


_REFERENCES = ("keras_history", "input_layers", "output_layers", "output")


def _renamed(part, numbers: dict[str, str]):
    """A reference to layers, such as ``["conv", 0, 0]`` or a list of these."""
    if isinstance(part, list | tuple):
        return [_renamed(one, numbers) for one in part]
    return numbers.get(part, part) if isinstance(part, str) else part
