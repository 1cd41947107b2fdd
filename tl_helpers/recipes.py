"""Training recipes: what a run does, without its seed, its model or its data."""

import math
from dataclasses import asdict, dataclass, replace
from numbers import Integral, Real


@dataclass(frozen=True)
class Recipe:
    """Everything that decides how a model is trained; vary it with ``dataclasses.replace``.

    Attributes:
        epochs: passes over the training images.
        batch_size: images a step.
        optimizer: ``adam``, ``adamw`` or ``sgd`` (Nesterov momentum 0.9).
        learning_rate: its highest value.
        schedule: ``constant`` or ``cosine`` (down to zero), both after the warm-up.
        warmup: share of the steps spent going up to ``learning_rate`` on a straight line; with ``cosine``, one cycle.
        weight_decay: decoupled, as in AdamW (Loshchilov & Hutter, 2019); batch norm and biases are left out.
        layer_decay: learning rate of a block as a share of the block above it (the head has the whole rate); 1 for
            one rate everywhere. See ``optimizers``.
        near_source: pull of all weights but the head's towards where they started, decoupled like ``weight_decay``,
            whose place it takes there (L2-SP; Li et al., 2018); 0 is off.
        label_smoothing: share of the target spread evenly over all classes (Szegedy et al., 2016).
        crop_padding: random crops of an image padded by that many pixels; 0 is off.
        flip: mirror half of the images left to right.
        cutout: side in pixels of a square painted over at a random place (DeVries & Taylor, 2017); 0 is off.
        stages: progressive resizing, ((epochs, pixels), ...) with ``epochs`` epochs in all: the images of a stage are
            shrunk to that side, so that early epochs cost less; () trains at the images' own size throughout.
        loss: ``classification`` (integer labels, logits) or ``regression`` (mean squared error).
        monitor_best: end with the weights of the best validation epoch instead of the last.
        patience: stop after that many epochs without a better validation loss; None never stops.
    """

    epochs: int = 10
    batch_size: int = 64
    optimizer: str = "adam"
    learning_rate: float = 1e-3
    schedule: str = "constant"
    warmup: float = 0.0
    weight_decay: float = 0.0
    layer_decay: float = 1.0
    near_source: float = 0.0
    label_smoothing: float = 0.0
    crop_padding: int = 0
    flip: bool = False
    cutout: int = 0
    stages: tuple[tuple[int, int], ...] = ()
    loss: str = "classification"
    monitor_best: bool = False
    patience: int | None = None

    def __post_init__(self):
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}. Received: {getattr(self, name)!r}")
        for name, (fits, allowed) in _RANGES.items():
            value = getattr(self, name)
            number = isinstance(value, Real) and math.isfinite(value)
            if not (fits(value) if number else value is None and name == "patience"):
                raise ValueError(f"{name} must be {allowed}. Received: {value!r}")
        whole = all(isinstance(n, Integral) and n >= 1 for stage in self.stages for n in stage)
        if self.stages and not (whole and sum(epochs for epochs, _ in self.stages) == self.epochs):
            raise ValueError(
                f"stages must be pairs of whole numbers, (epochs, pixels), whose epochs add up to {self.epochs}. "
                f"Received: stages={self.stages}"
            )

    def as_dict(self) -> dict:
        """The recipe as a record keeps it."""
        return asdict(self)


_CHOICES = {
    "optimizer": ("adam", "adamw", "sgd"),
    "schedule": ("constant", "cosine"),
    "loss": ("classification", "regression"),
}

_RANGES = {
    "epochs": (lambda value: isinstance(value, Integral) and value >= 1, "a whole number, at least 1"),
    "batch_size": (lambda value: isinstance(value, Integral) and value >= 1, "a whole number, at least 1"),
    "learning_rate": (lambda value: value > 0, "above 0"),
    "warmup": (lambda value: 0 <= value <= 1, "from 0 to 1, a share of the steps"),
    "weight_decay": (lambda value: value >= 0, "at least 0"),
    "near_source": (lambda value: value >= 0, "at least 0"),
    "layer_decay": (lambda value: value > 0, "above 0"),
    "label_smoothing": (lambda value: 0 <= value < 1, "at least 0 and below 1"),
    "crop_padding": (lambda value: value >= 0, "at least 0"),
    "cutout": (lambda value: value >= 0, "at least 0"),
    "patience": (lambda value: value >= 1, "at least 1, or None"),
}


def learning_rate_at(recipe: Recipe, step: int, steps: int) -> float:
    """The learning rate at a step, 0 ≤ step < steps: the rule behind ``Recipe.schedule``.

    Cosine as in Loshchilov & Hutter (2017); one cycle after Smith & Topin (2018), with a cosine way down.
    """
    up = recipe.warmup * steps
    if step < up:
        return recipe.learning_rate * (step + 1) / (up + 1)
    if recipe.schedule == "constant":
        return recipe.learning_rate
    share = (step - up) / max(steps - up, 1)
    return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * min(share, 1.0)))


HEAD = Recipe(epochs=10, batch_size=64, optimizer="adam", learning_rate=1e-3)
"""A new head on kept features."""

FINE_TUNING = Recipe(
    epochs=10,
    batch_size=64,
    optimizer="adamw",
    learning_rate=1e-4,
    schedule="cosine",
    warmup=0.1,
    weight_decay=1e-2,
    flip=True,
    crop_padding=4,
)
"""All or part of a pretrained backbone, with its head."""

FROM_SCRATCH = Recipe(
    epochs=30,
    batch_size=64,
    optimizer="adamw",
    learning_rate=1e-3,
    schedule="cosine",
    warmup=0.1,
    weight_decay=5e-2,
    flip=True,
    crop_padding=4,
)
"""A network from random weights."""

SOURCE = Recipe(
    epochs=20,
    stages=((10, 16), (10, 32)),
    batch_size=128,
    optimizer="sgd",
    learning_rate=0.1,
    schedule="cosine",
    warmup=0.1,
    weight_decay=5e-3,
    label_smoothing=0.1,
    flip=True,
    crop_padding=4,
)
"""The source model on Tiny ImageNet; its decoupled decay of 5e-3 acts like an L2 term of 5e-4 under momentum 0.9."""

SOURCE_GPU = replace(SOURCE, epochs=60, stages=())
"""``SOURCE`` where epochs are cheap, that is, more of them, all at full size. Not yet run by this project."""

SOURCE_AGAIN = replace(SOURCE, epochs=12, stages=(), learning_rate=0.05, label_smoothing=0.0)
"""A second cycle from where ``SOURCE`` ended (a warm restart; Loshchilov & Hutter, 2017), without label smoothing, which
makes frozen features serve new tasks worse (Kornblith et al., 2021)."""
