"""``fit``: train a model by a recipe, with progress, checkpoints and resume; opens a ``Run``."""

import contextlib
import gc
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import keras
import numpy as np
from tqdm import tqdm

from tl_helpers import checkpoints, fit_checks, optimizers, results
from tl_helpers.batches import Batches, augment, shrink
from tl_helpers.losses import cross_entropy
from tl_helpers.optimizers import Schedule, make_optimizer
from tl_helpers.recipes import Recipe
from tl_helpers.splits import Dataset

__all__ = [
    "Batches",
    "augment",
    "compile_model",
    "cross_entropy",
    "fit",
    "make_optimizer",
    "Schedule",
]


def fit(
    model: keras.Model,
    data: Dataset,
    recipe: Recipe,
    *,
    experiment: str,
    arm: str,
    seed: int,
    pair: str | None = None,
    backbone: str | None = None,
    weights: dict | None = None,
    extra: dict | None = None,
    checkpoint: Path | str | None = None,
    progress: bool = True,
) -> results.Run:
    """Train on ``data.train``, watch ``data.val``, never see ``data.test``.

    An interrupted call, made again, goes on from its last checkpoint and ends as if it had not been
    interrupted: weights, optimizer, schedule, data order and random layers are all restored.

    Args:
        model: a Keras model: images (pixels 0-255) or features in, logits (or regression outputs) out.
        data: a ``datasets.Dataset``.
        recipe: what to do.
        experiment, arm, pair: where the record belongs; runs compared with each other share a ``pair``.
        seed: decides the data order; seed the model yourself (``runtime.set_seed``) before building it.
        backbone, weights: what the model started from, for the record; None from scratch.
        extra: further fields for the record's recipe, such as which blocks were unfrozen; none of the recipe's own.
        checkpoint: a file to keep the state in (default: in the cache folder, named after the run);
            written at most once a minute, removed when the run is finished.
        progress: show a progress bar.
    Returns:
        The open ``Run``; ``run.history`` has one dict an epoch. ``evaluation.test`` completes it (``Run.finish`` after
        a regression). With ``TL_RESUME=1``
        a run that is recorded already is not trained: the ``Run`` is ``reused``, its history empty.
    Raises:
        ValueError: no examples to train or to validate on; labels do not fit the recipe's loss or the model's outputs;
            the model ends in a softmax, not in logits; ``extra`` has a field of the recipe;
            images do not fit the recipe's augmentation; the model does its preprocessing inside, and the images are
            not RGB pixels 0-255; or ``checkpoint`` names a file with something else in it.
        FloatingPointError: the loss, of training or validation, became NaN or infinite.
    """
    fit_checks.check(model, data, recipe)
    if twice := sorted(recipe.as_dict().keys() & (extra or {}).keys()):
        raise ValueError(f"extra must not have fields of the recipe. Received: {', '.join(twice)}; change the recipe")
    run = results.Run(
        experiment=experiment,
        arm=arm,
        seed=seed,
        pair=pair,
        recipe={**recipe.as_dict(), **(extra or {})},
        backbone=backbone,
        weights=weights,
        data=data.identity(),
        split=data.sizes(),
    )
    if not run.reuse():
        _train(model, data, recipe, run, checkpoint, progress)
    return run


def _train(model, data, recipe: Recipe, run: results.Run, checkpoint: Path | str | None, progress: bool) -> None:
    """The epochs of a run, from its last checkpoint on."""
    if model.built and model.count_params() > 1e6:
        gc.collect()  # models of earlier runs hang together in circles, which Python clears late: 200 MB a VGG16
    steps = -(-len(data.train.labels) // recipe.batch_size)
    compile_model(model, recipe, steps=steps * recipe.epochs)
    state = checkpoints.State(model, run, data, Path(checkpoint) if checkpoint else None)
    start = state.restore()
    if start:
        print(f"resuming {run.experiment} / {run.arm} / seed {run.seed} after epoch {start} of {recipe.epochs}")
    watch = _Watch(state, steps, progress)
    for epoch in range(start, recipe.epochs):
        if state.stopped:
            break
        pixels = _pixels_in(recipe, epoch)
        watch.begin()
        trained = _one_epoch(model, Batches(data.train, recipe, run.seed, pixels, epoch), watch)
        watch.end(trained, _validate(model, data.val, pixels))
    watch.bar.close()
    state.finish()
    run.when_finished(partial(checkpoints.forget, state.path))  # of the path alone: the state would keep the model
    run.images_seen = len(data.train.labels) * len(run.history)


def compile_model(model: keras.Model, recipe: Recipe, steps: int) -> None:
    """Compile a model by a recipe; ``steps`` is the length of the whole schedule."""
    optimizer = make_optimizer(recipe, steps)
    if getattr(model, "_distribute_strategy", None) is None:
        optimizers.on_one_device(optimizer)
    xla = _xla(model, steps)
    if recipe.loss == "regression":
        model.compile(optimizer, loss="mean_squared_error", metrics=["mean_absolute_error"], jit_compile=xla)
    else:
        loss = cross_entropy(recipe.label_smoothing)
        model.compile(optimizer, loss=loss, metrics=["accuracy"], jit_compile=xla)
    if isinstance(optimizer, optimizers.LayerWise):
        optimizer.build(model.trainable_variables)  # now, while they are where they start


def _xla(model: keras.Model, steps: int) -> "bool | str":
    """Keras's own choice, but XLA for a long training of dense layers on TensorFlow.

    Keras leaves XLA off where there is only a CPU, rightly for convolutions. A dense head's step becomes a quarter
    shorter, for a second or two of compiling.
    """
    dense = model.built and all(len(weight.shape) <= 2 for weight in model.weights)
    return True if keras.backend.backend() == "tensorflow" and dense and steps >= 5000 else "auto"


def _pixels_in(recipe: Recipe, epoch: int) -> int | None:
    """The images' side in this epoch (counted from 0); None is their own size."""
    for epochs, pixels in recipe.stages:
        if epoch < epochs:
            return pixels
        epoch -= epochs
    return None


def _one_epoch(model, batches: Batches, watch: "_Watch") -> dict:
    """Train on each batch once: the mean loss and metrics.

    Batch by batch instead of ``model.fit``, whose input pipeline on TensorFlow may idle for seconds at its end.
    """
    with _one_count(model):
        for i in range(len(batches)):
            found = model.train_on_batch(*batches[i], return_dict=True)
            watch.bar.update(1)
    return {name: float(value) for name, value in found.items()}


def _validate(model, split, pixels: int | None, batch_size: int = 256) -> dict:
    """The mean loss and metrics over a split, its images shrunk to ``pixels``."""
    with _one_count(model):
        for i in range(0, len(split.labels), batch_size):
            images, labels = shrink(split.images[i : i + batch_size], pixels), split.labels[i : i + batch_size]
            found = model.test_on_batch(images, labels, return_dict=True)
    return {f"val_{name}": float(value) for name, value in found.items()}


@contextlib.contextmanager
def _one_count(model) -> Iterator[None]:
    """Let the model's metrics run on over all batches within, as ``fit`` does.

    Keras since 3.15 begins them anew with every batch, which would cost a fifth of a small head's step.
    """
    model.reset_metrics()
    model.reset_metrics = lambda: None
    try:
        yield
    finally:
        del model.reset_metrics


class _Watch:
    """Progress, history, early stopping and checkpoints at the end of each epoch."""

    def __init__(self, state: checkpoints.State, steps: int, progress: bool):
        self.state = state
        run = state.run
        self.bar = tqdm(
            total=steps * run.recipe["epochs"],
            initial=steps * len(run.history),
            unit="batch",
            desc=f"{run.arm} seed {run.seed}",
            disable=not progress,
            mininterval=0.5,
            leave=False,
        )

    def begin(self) -> None:
        self.began = time.monotonic()

    def end(self, trained: dict, validated: dict) -> None:
        """Keep an epoch's numbers; raise if the loss is no number; stop or save where it is time to."""
        state, recipe = self.state, self.state.run.recipe
        row = {**trained, **validated}
        epoch = len(state.run.history) + 1
        lost = [f"{name} is {row[name]}" for name in ("loss", "val_loss") if not np.isfinite(row[name])]
        if lost:
            raise FloatingPointError(
                f"training diverged: the {' and the '.join(lost)} in epoch {epoch}. Expected finite numbers; "
                f"lower the learning rate (now {recipe['learning_rate']}) or check the images' range"
            )
        state.run.history.append({"epoch": epoch, **row, "seconds": time.monotonic() - self.began})
        self.bar.set_postfix({k: f"{row[k]:.3f}" for k in ("loss", "val_loss", "val_accuracy") if k in row})
        if row["val_loss"] < state.best_loss:
            state.best_loss, state.waited = row["val_loss"], 0
            if recipe["monitor_best"]:
                state.best = state.model.get_weights()
        else:
            state.waited += 1
        state.stopped = recipe["patience"] is not None and state.waited >= recipe["patience"]
        if time.monotonic() - state.saved_at > checkpoints.SAVE_EVERY_SECONDS:
            state.save()
