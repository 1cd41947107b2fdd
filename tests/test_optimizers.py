"""Tests of tl_helpers.optimizers and finetuning: what moves, how fast, and towards what."""

from dataclasses import replace

import keras
import numpy as np
import pytest

from tl_helpers import datasets, finetuning, models, optimizers, recipes, runtime, training

pytestmark = pytest.mark.usefixtures("training_folders")

FLAT = recipes.Recipe(epochs=1, batch_size=16, optimizer="sgd", learning_rate=0.01)


def build_backbone(seed=0):
    runtime.set_seed(seed)
    images = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, activation="relu", name="block1_conv1")(images)
    x = keras.layers.Conv2D(5, 3, activation="relu", name="block2_conv1")(x)
    return keras.Model(images, keras.layers.GlobalAveragePooling2D(name="avg_pool")(x))


def build(seed=0):
    return models.transfer_model(build_backbone(seed), 3)


def batch(n=16):
    rng = np.random.default_rng(0)
    return rng.uniform(-1, 1, (n, 8, 8, 3)).astype("float32"), rng.integers(0, 3, n)


def step(recipe, steps=1, model=None):
    """Kernels before and after some steps of a recipe."""
    model = build() if model is None else model
    before = models.snapshot(model)
    training.compile_model(model, recipe, steps=100)
    for _ in range(steps):
        model.train_on_batch(*batch())
    return before, models.snapshot(model)


def change(pair, name):
    return pair[1][name] - pair[0][name]


def test_shares_fall_from_the_head_downwards():
    paths = ["block1_conv1/kernel", "block1_conv2/kernel", "block2_conv1/bias", "head/kernel"]
    assert optimizers.shares(paths, 0.5) == [0.25, 0.25, 0.5, 1.0]


def test_one_rate_everywhere_is_the_plain_optimizer():
    assert not isinstance(training.make_optimizer(FLAT, 10), optimizers.LayerWise)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_layer_decay_scales_each_block_s_step(optimizer):
    recipe = replace(FLAT, optimizer=optimizer, learning_rate=0.05)
    plain, layered = step(recipe), step(replace(recipe, layer_decay=0.5))
    for name, share in {"head/kernel": 1, "block2_conv1/kernel": 0.5, "block1_conv1/kernel": 0.25}.items():
        assert np.allclose(change(layered, name), share * change(plain, name), rtol=1e-2, atol=1e-6), name


def test_decay_is_that_of_the_plain_optimizer_and_spares_biases():
    recipe = replace(FLAT, optimizer="adamw", weight_decay=0.5)
    plain, layered = step(recipe, 5), step(replace(recipe, layer_decay=1 - 1e-9), 5)
    for name in plain[1]:
        assert np.allclose(plain[1][name], layered[1][name], atol=1e-5), name


def test_near_source_holds_the_backbone_and_not_the_head():
    free, tied = (step(replace(FLAT, near_source=s), 30) for s in (1e-9, 50.0))
    for name in ("block1_conv1/kernel", "block2_conv1/kernel"):
        assert np.linalg.norm(change(tied, name)) < 0.9 * np.linalg.norm(change(free, name))
    assert np.linalg.norm(change(tied, "head/kernel")) > 0.5 * np.linalg.norm(change(free, "head/kernel"))


def test_near_source_pulls_back_to_the_start():
    model = build()
    before = models.snapshot(model)
    training.compile_model(model, replace(FLAT, near_source=20.0, learning_rate=0.01), steps=100)
    kernel = model.get_layer("block1_conv1").kernel
    kernel.assign(kernel + 1.0)
    for _ in range(100):
        model.train_on_batch(*batch())
    assert np.abs(models.snapshot(model)["block1_conv1/kernel"] - before["block1_conv1/kernel"]).max() < 0.1


def digits(n=60):
    images, labels = batch(n)
    split = datasets.Split(np.uint8(127 * images + 127), labels)
    return datasets.from_arrays("own", tuple(split), tuple(split), class_names=("a", "b", "c"))


def test_head_first_moves_the_head_alone():
    backbone = build_backbone()
    model = models.transfer_model(backbone, 3)
    before = models.snapshot(model)
    finetuning.head_first(model, backbone, digits(), seed=0, recipe=replace(recipes.HEAD, epochs=2))
    assert models.moved(model, before) == ["head/kernel", "head/bias"]


def test_head_first_looks_at_the_training_part_alone(monkeypatch):
    from tl_helpers import features

    seen, compute = [], features._compute
    monkeypatch.setattr(
        features, "_compute", lambda m, images, *rest: seen.append(len(images)) or compute(m, images, *rest)
    )
    backbone = build_backbone()
    finetuning.head_first(
        models.transfer_model(backbone, 3), backbone, digits(), seed=0, recipe=replace(recipes.HEAD, epochs=1)
    )
    assert seen == [1]


def test_near_features_starts_at_zero_and_holds_the_features():
    moved = {}
    for strength in (0.0, 100.0):
        backbone, teacher = build_backbone(), build_backbone()
        teacher.set_weights(backbone.get_weights())
        train, plain = finetuning.near_features(backbone, teacher, 3, strength)
        images, labels = batch()
        start = keras.ops.convert_to_numpy(backbone(images))
        first, second = (keras.ops.convert_to_numpy(m(images)) for m in (train, plain))
        assert np.allclose(first, second, atol=1e-5) and float(sum(train.losses)) < 1e-9
        training.compile_model(train, FLAT, steps=100)
        for _ in range(20):
            train.train_on_batch(images, labels)
        moved[strength] = np.abs(keras.ops.convert_to_numpy(backbone(images)) - start).mean()
    assert moved[100.0] < 0.5 * moved[0.0]


def test_distances_are_relative_and_leave_the_head_out():
    model = build()
    before = models.snapshot(model)
    kernel = model.get_layer("block2_conv1").kernel
    kernel.assign(1.5 * kernel)
    found = finetuning.distances(model, before)
    assert found.keys() == {"block1", "block2"}
    assert found["block1"] == 0 and found["block2"] == pytest.approx(0.5, rel=1e-5)
