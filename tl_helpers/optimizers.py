"""Optimizers that treat a network's blocks differently: a learning rate for each, a pull towards where it started.

Plain Keras 3: ``update_step`` is called once a variable on every backend (a subclass of a Keras optimizer never takes
PyTorch's path for all variables at once).
"""

import keras
from keras import ops
from keras.optimizers.schedules import LearningRateSchedule

from tl_helpers.recipes import Recipe

HEAD = "head"
SPARED = ("bias", "gamma", "beta")  # from decay towards zero, as in training.make_optimizer


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
                self.starts[-1].assign(variable)

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
