"""A recipe's optimizer and schedule; and optimizers that treat a network's blocks differently.

The latter give each block a learning rate of its own, or pull it towards where it started.
Plain Keras 3: ``update_step`` is called once a variable on every backend (a subclass of a Keras optimizer never takes
PyTorch's path for all variables at once).
"""

from dataclasses import asdict

import keras
import numpy as np
from keras import ops
from keras.optimizers.schedules import LearningRateSchedule

from tl_helpers.recipes import Recipe

HEAD = "head"
SPARED = ("bias", "gamma", "beta")  # from decay towards zero, as in make_optimizer


def on_one_device(optimizer: keras.Optimizer) -> keras.Optimizer:
    """Let an optimizer sum its gradients over no other devices; returns it.

    One device has nothing to sum, and TensorFlow's sum would keep every model's graph and weights for ever.
    """
    optimizer._all_reduce_sum_gradients = list
    return optimizer


class LayerWise:
    """What ``layer_wise`` adds to a Keras optimizer; build it while the weights are where they start.

    Args:
        layer_decay: the learning rate of a block as a share of the block above it (Howard & Ruder, 2018).
        decay: decoupled weight decay, pulling towards zero (Loshchilov & Hutter, 2019).
        near_source: pull towards the start, for every weight outside the head (L2-SP; Li et al., 2018). Deviation
            from the paper: decoupled, so that Adam does not divide it by the gradients' size.
    """

    def __init__(self, learning_rate, *, layer_decay: float, decay: float, near_source: float, **options):
        super().__init__(learning_rate, **options)
        self.layer_decay, self.decay, self.near_source = layer_decay, decay, near_source

    def build(self, variables):
        if self.built:
            return
        super().build(variables)
        self.shares = shares([variable.path for variable in variables], self.layer_decay)
        self.pulls, self.starts = [], []
        for variable in variables:
            tied = self.near_source > 0 and _block(variable.path) != HEAD
            spared = not tied and variable.path.split("/")[-1] in SPARED
            self.pulls.append(self.near_source if tied else 0.0 if spared else self.decay)
            self.starts.append(self.add_variable_from_reference(variable, name="start") if tied else None)
            if tied:
                self.starts[-1].assign(ops.copy(ops.convert_to_tensor(variable)))  # JAX would share the memory

    def get_config(self):
        own = {"layer_decay": self.layer_decay, "decay": self.decay, "near_source": self.near_source}
        return {**super().get_config(), **own}

    def update_step(self, gradient, variable, learning_rate):
        i = self._get_variable_index(variable)
        rate = ops.cast(learning_rate, variable.dtype) * self.shares[i]
        if self.pulls[i]:
            away = variable if self.starts[i] is None else ops.subtract(variable, self.starts[i])
            self.assign_sub(variable, ops.multiply(away, self.pulls[i] * rate))
        super().update_step(gradient, variable, rate)


@keras.saving.register_keras_serializable("tl_helpers")
class LayerWiseAdam(LayerWise, keras.optimizers.Adam):
    """Adam with ``LayerWise``; with decay, AdamW."""


@keras.saving.register_keras_serializable("tl_helpers")
class LayerWiseSGD(LayerWise, keras.optimizers.SGD):
    """Momentum with ``LayerWise``."""


def layer_wise(recipe: Recipe, rate: "float | LearningRateSchedule") -> LayerWise:
    """The optimizer of a recipe with ``layer_decay`` or ``near_source``; ``rate`` is a number or a schedule."""
    own = {"layer_decay": recipe.layer_decay, "decay": recipe.weight_decay, "near_source": recipe.near_source}
    if recipe.optimizer == "sgd":
        return LayerWiseSGD(rate, momentum=0.9, nesterov=True, **own)
    return LayerWiseAdam(rate, **own)


def shares(paths: list[str], layer_decay: float) -> list[float]:
    """Each variable's share of the learning rate.

    Args:
        paths: of the variables in the model's order, such as ``block5_conv1/kernel``.
        layer_decay: factor from a block to the one below; a block is a layer name up to its first ``_``.
    Returns:
        1 for the last block (the head), ``layer_decay`` for the one below, and so on.
    """
    blocks = list(dict.fromkeys(_block(path) for path in paths))
    return [layer_decay ** (len(blocks) - 1 - blocks.index(_block(path))) for path in paths]


def _block(path: str) -> str:
    return path.split("/")[-2].split("_")[0] if "/" in path else path


def make_optimizer(recipe: Recipe, steps: int) -> keras.optimizers.Optimizer:
    """The Keras optimizer of a recipe; weight decay spares biases and batch norm."""
    flat = recipe.schedule == "constant" and not recipe.warmup
    rate = recipe.learning_rate if flat else Schedule(recipe, steps)
    if recipe.layer_decay != 1 or recipe.near_source:
        return layer_wise(recipe, rate)
    decay = recipe.weight_decay or None
    if recipe.optimizer == "sgd":
        optimizer = keras.optimizers.SGD(rate, momentum=0.9, nesterov=True, weight_decay=decay)
    elif recipe.optimizer == "adamw":
        optimizer = keras.optimizers.AdamW(rate, weight_decay=recipe.weight_decay)
    else:
        optimizer = keras.optimizers.Adam(rate, weight_decay=decay)
    if recipe.weight_decay:
        optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return optimizer


@keras.saving.register_keras_serializable("tl_helpers")
class Schedule(keras.optimizers.schedules.LearningRateSchedule):
    """``recipes.learning_rate_at`` as a Keras schedule (a test holds them equal).

    Args:
        recipe: a recipe, or its fields as a saved model keeps them.
        steps: length of the whole schedule.
    """

    def __init__(self, recipe: Recipe | dict, steps: int):
        if isinstance(recipe, dict):
            recipe = Recipe(**{**recipe, "stages": tuple(map(tuple, recipe["stages"]))})
        self.recipe, self.steps = recipe, steps

    def __call__(self, step):
        recipe = self.recipe
        step = ops.cast(step, "float32")
        up = recipe.warmup * self.steps
        share = ops.clip((step - up) / max(self.steps - up, 1), 0.0, 1.0)
        share = share if recipe.schedule == "cosine" else 0.0 * share
        down = recipe.learning_rate * 0.5 * (1 + ops.cos(np.pi * share))
        return ops.where(step < up, recipe.learning_rate * (step + 1) / (up + 1), down)

    def get_config(self):
        return {"recipe": asdict(self.recipe), "steps": self.steps}
