"""Ways to fine-tune gently: the head first, features kept near the source's; and how far the weights went."""

from dataclasses import replace

import keras
import numpy as np
from keras import layers, ops

from tl_helpers import features, models, training
from tl_helpers.batches import Batches
from tl_helpers.recipes import HEAD, Recipe
from tl_helpers.splits import Dataset


def head_first(
    model: keras.Model, backbone: keras.Model, data: Dataset, seed: int, recipe: Recipe = HEAD
) -> keras.Model:
    """Train the head alone before anything else moves (Kumar et al., 2022), on features that are computed once.

    Deviation from the paper: trained by steps instead of solved, and without augmentation.

    Args:
        model: ``models.transfer_model(backbone, ...)`` with a linear head.
        backbone: the backbone in it, not trained yet.
        data: a ``datasets.Dataset`` of images; only its training part is used.
        seed: decides the data order.
        recipe: how to train the head.
    Returns:
        The same model with the trained head; nothing else has moved.
    """
    kept = features.extract(backbone, replace(data, val=None, test=None), progress=False)
    head = models.head(kept.train.images.shape[1:], model.output.shape[-1])
    head.set_weights(model.get_layer(models.HEAD).get_weights())
    steps = -(-len(kept.train.labels) // recipe.batch_size)
    training.compile_model(head, recipe, steps=steps * recipe.epochs)
    for epoch in range(recipe.epochs):
        batches = Batches(kept.train, recipe, seed, epoch=epoch)
        for i in range(len(batches)):
            head.train_on_batch(*batches[i])
    model.get_layer(models.HEAD).set_weights(head.get_weights())
    return model


@keras.saving.register_keras_serializable("tl_helpers")
class FeatureLead(layers.Layer):
    """Adds strength times the mean squared distance of two features (n, d) to the loss; gives back the first."""

    def __init__(self, strength: float, **kwargs):
        super().__init__(**kwargs)
        self.strength = strength

    def call(self, moving, fixed):
        self.add_loss(self.strength * ops.mean(ops.square(moving - ops.stop_gradient(fixed))))
        return moving

    def get_config(self):
        return {**super().get_config(), "strength": self.strength}


def near_features(backbone: keras.Model, teacher: keras.Model, classes: int, strength: float, **head) -> tuple:
    """Fine-tuning with the features kept near those of a frozen teacher (distillation as in Romero et al., 2015).

    Args:
        backbone: pixels in, features (n, d) out; it moves.
        teacher: the same network with the source's weights; it is frozen.
        classes: number of logits.
        strength: weight of the mean squared distance, in the loss.
        head: options of ``models.head``.
    Returns:
        Two models that share backbone and head: the first, with the extra loss, to train; the second, plain, to use.
    """
    teacher.trainable = False
    plain = models.transfer_model(backbone, classes, **head)
    lead = FeatureLead(strength, name="feature_lead")(backbone.output, teacher(backbone.input, training=False))
    above = plain.layers[plain.layers.index(backbone.layers[-1]) + 1 :]
    logits = lead
    for layer in above:
        logits = layer(logits)
    return keras.Model(backbone.input, logits, name="near_features"), plain


def distances(model: keras.Model, before: dict[str, np.ndarray]) -> dict[str, float]:
    """How far each block's kernels moved, relative to their length.

    Args:
        model: after training.
        before: ``models.snapshot`` of the model before.
    Returns:
        Block (a layer's name up to its first ``_``) to ``|after - before| / |before|``; the head is left out.
    """
    after, lengths = models.snapshot(model), {}
    for name, start in before.items():
        layer, weight = name.rsplit("/", 1)
        block = layer.split("_")[0]
        if weight == "kernel" and block != models.HEAD:
            moved, length = lengths.get(block, (0.0, 0.0))
            lengths[block] = moved + np.sum((after[name] - start) ** 2), length + np.sum(start**2)
    return {block: float(np.sqrt(moved / length)) for block, (moved, length) in lengths.items()}
