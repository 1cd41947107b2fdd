"""Transfer models, heads, and what of them may move in training."""

import keras
import numpy as np

HEAD = "head"


def head(
    feature_shape: int | tuple[int, ...], outputs: int, *, hidden: int | None = None, dropout: float = 0.0
) -> keras.Model:
    """A head alone, for features that are computed once and kept.

    Args:
        feature_shape: of one example: d or (d,), or a feature map's (height, width, channels), which is flattened.
        outputs: number of logits, or of regression outputs.
        hidden: width of one hidden ReLU layer; None makes the head linear.
        dropout: share of its inputs dropped in training, before the last layer.
    Returns:
        Features (N, ...) in, linear outputs (N, outputs) out; no softmax.
    """
    shape = (feature_shape,) if isinstance(feature_shape, (int, np.integer)) else tuple(feature_shape)
    features = keras.Input(shape, name="features")
    return keras.Model(features, _head_on(features, outputs, hidden, dropout), name=HEAD)


def transfer_model(
    backbone: keras.Model, classes: int, *, hidden: int | None = None, dropout: float = 0.0
) -> keras.Model:
    """A backbone with a new head; the layers are the backbone's own, so what trains here moves there.

    Args:
        backbone: pixels in, features out (a feature map is flattened).
        classes: number of logits.
        hidden, dropout: as in ``head``.
    Returns:
        A flat model, pixels 0-255 in, logits (N, classes) out; every layer is reached by ``get_layer``.
    """
    outputs = _head_on(backbone.output, classes, hidden, dropout)
    return keras.Model(backbone.input, outputs, name=f"{backbone.name}_transfer")


def _head_on(x, outputs: int, hidden: int | None, dropout: float):
    if outputs < 1:
        raise ValueError(f"a head needs at least one output. Received: {outputs}")
    if len(x.shape) > 2:
        x = keras.layers.Flatten(name=f"{HEAD}_flatten")(x)
    if hidden is not None:
        x = keras.layers.Dense(hidden, activation="relu", name=f"{HEAD}_hidden")(x)
    if dropout:
        x = keras.layers.Dropout(dropout, name=f"{HEAD}_dropout")(x)
    return keras.layers.Dense(outputs, dtype="float32", name=HEAD)(x)


def with_flips(model: keras.Model) -> keras.Model:
    """A model whose logits are the mean over an image and its mirror image: flips at test time, at twice the cost."""
    images = keras.Input(model.input.shape[1:], name="images")
    return keras.Model(images, (model(images) + model(keras.ops.flip(images, axis=2))) / 2, name="with_flips")


def freeze(model: keras.Model) -> keras.Model:
    """Keep a backbone as it is: every layer but the head's (``head``, ``head_hidden`` ...) stops training.

    A frozen batch norm also stops updating its moving statistics: in Keras 3 it then works as in inference.
    Compile the model afterwards.

    Args:
        model: a backbone, or a ``transfer_model``.
    Returns:
        The same model.
    """
    model.trainable = True  # a switch set on the whole model would hide those of its layers
    found = _layers(model)
    for layer in found:
        layer.trainable = _in_head(layer)
    if not any(_in_head(layer) for layer in found):
        model.trainable = False
    return model


def unfreeze_from(model: keras.Model, block: str) -> keras.Model:
    """Let a block and everything after it train; all before stays frozen, and so does every batch norm.

    Batch norm keeps the statistics of the source images: new ones from small target batches harm fine-tuning.

    Args:
        model: a backbone, or a ``transfer_model``.
        block: a layer's name, or the part before ``_`` that a block's layers share, such as ``"block5"``.
    Returns:
        The same model; compile it afterwards.
    Raises:
        ValueError: no layer belongs to that block.
    """
    found = _layers(model)
    first = next(
        (i for i, layer in enumerate(found) if layer.name == block or layer.name.startswith(f"{block}_")), None
    )
    if first is None:
        raise ValueError(
            f"block must name a layer or a block of {model.name}. Received: {block!r}; its layers with weights: "
            f"{', '.join(layer.name for layer in found if layer.weights)}"
        )
    model.trainable = True
    for i, layer in enumerate(found):
        frozen_norm = isinstance(layer, keras.layers.BatchNormalization)
        layer.trainable = _in_head(layer) or (i >= first and not frozen_norm)
    return model


def trainable_report(model: keras.Model) -> list[dict]:
    """One row for each layer with weights, and a last one for the whole model.

    Returns:
        Dicts of ``layer``, ``parameters`` and ``trainable`` (how many of them train).
    """
    rows = [
        {"layer": layer.name, "parameters": _count(layer.weights), "trainable": _count(layer.trainable_weights)}
        for layer in _layers(model)
        if layer.weights
    ]
    return [
        *rows,
        {"layer": "total", "parameters": _count(model.weights), "trainable": _count(model.trainable_weights)},
    ]


def snapshot(model: keras.Model) -> dict[str, np.ndarray]:
    """A copy of every weight, moving statistics included: name (``"block5_conv1/kernel"``) to array.

    Raises:
        ValueError: two weights have one name, as in a model that holds two others with the same layer names.
    """
    return {name: np.array(keras.ops.convert_to_numpy(weight)) for name, weight in _named(model).items()}


def moved(model: keras.Model, before: dict[str, np.ndarray]) -> list[str]:
    """Names of the weights that are not exactly what they were in an earlier ``snapshot``.

    Raises:
        ValueError: the snapshot is of another model, or two weights have one name.
    """
    now = snapshot(model)
    if now.keys() != before.keys():
        differing = sorted(now.keys() ^ before.keys())
        raise ValueError(
            f"the snapshot must be of the same model. Received: one that differs in {', '.join(differing[:5])}"
        )
    return [name for name in now if not np.array_equal(now[name], before[name])]


def _named(model: keras.Model) -> dict:
    found = {}
    for layer in _layers(model):
        for weight in layer.weights:
            name = f"{layer.name}/{weight.name}"
            if found.setdefault(name, weight) is not weight:
                raise ValueError(
                    f"a snapshot needs a name of its own for every weight. Received: {model.name} with two weights "
                    f"{name}; take the snapshot of one of the models inside it, or give their layers other names"
                )
    return found


def _layers(model: keras.Model) -> list:
    """All layers in order, those of models inside the model included."""
    found = []
    for layer in model.layers:
        found += _layers(layer) if isinstance(layer, keras.Model) else [layer]
    return found


def _in_head(layer) -> bool:
    return layer.name == HEAD or layer.name.startswith(f"{HEAD}_")


def _count(weights) -> int:
    return int(sum(np.prod(weight.shape, dtype=np.int64) for weight in weights))
