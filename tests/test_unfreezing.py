"""Each variant that the chapter on unfreezing trains takes one step, on a small network; most of them run only at full."""

import re
from types import SimpleNamespace

import keras
import matplotlib
import numpy as np
import pytest
from conftest import code_of

from tl_helpers import backbones, datasets, models, recipes, training
from tl_helpers.preprocessing import Preprocessing

CELLS = ("settings-a", "settings-b", "arms", "helpers", "variants", "near-and-dropout", "build-variant", "norm-run-a")
ARMS = (
    "plain",
    "near the source weights",
    "head first",
    "layer-wise rates",
    "pulled to zero",
    "near the source features",
    "no augmentation",
    "augmentation as layers",
    "no weight decay",
    "dropout",
    "early stopping",
    "layer-wise rates, 3 × the rate",
    "near the source weights, a tenth",
    "near the source features, a tenth",
    "three times the epochs",
    "early stopping, more patience",
)


def small_vgg16(weights="tiny-imagenet"):
    """VGG16's five blocks, with one convolution of four channels each."""
    images = keras.Input((32, 32, 3))
    x = Preprocessing(("caffe",), name="preprocessing")(images)
    for b in range(1, 6):
        x = keras.layers.Conv2D(4, 3, padding="same", activation="relu", name=f"block{b}_conv1")(x)
        x = keras.layers.MaxPooling2D(name=f"block{b}_pool")(x)
    return keras.Model(images, keras.layers.GlobalAveragePooling2D(name="avg_pool")(x))


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """What the chapter's cells define, on a small network and a few digits."""
    code = code_of("vgg16-cifar10/unfreezing.ipynb")
    with pytest.MonkeyPatch.context() as patch, matplotlib.rc_context():
        patch.setenv("TL_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(backbones, "vgg16", small_vgg16)
        digits = datasets.load("digits").shorten(val=10, test=10)
        plain = recipes.Recipe(epochs=2, batch_size=8, optimizer="adamw", weight_decay=0.01, flip=True, crop_padding=4)
        known = {"data": digits, "few": {0: digits.few(2, 0)}, "FLIP": True, "S": SimpleNamespace(epochs=2)}
        known |= {"plain": plain, "pull": 10.0}
        for name in CELLS:
            exec(compile(code[name], name, "exec"), known)
        yield known


def step(page, model, recipe):
    """The loss of one batch."""
    training.compile_model(model, recipe, steps=4)
    train = page["few"][0].train
    return float(model.train_on_batch(train.images[:8].astype("float32"), train.labels[:8], return_dict=True)["loss"])


def test_all_variants_are_known_here(page):
    assert page["ARMS"] == ARMS and set(page["RECIPES"]) < set(ARMS)


@pytest.mark.parametrize("arm", ARMS)
def test_a_variant_takes_a_step(page, arm):
    model, used = page["build"](arm, 0)
    before = models.snapshot(used)
    assert np.isfinite(step(page, model, page["RECIPES"].get(arm, page["plain"])))
    moved = {re.split("[_/]", name)[0] for name in models.moved(used, before)}
    assert moved >= {*(f"block{b}" for b in range(1, 6)), "head"}


@pytest.mark.parametrize("mode", ["training", "frozen"])
def test_batch_norm_moves_in_training_mode_only(page, mode):
    model = page["normed_model"](mode, 0)
    before = models.snapshot(model)
    assert np.isfinite(step(page, model, page["plain"]))
    moved = models.moved(model, before)
    assert any("_bn" in name for name in moved) == (mode == "training")
    assert any("conv" in name for name in moved)
