"""Tests of tl_helpers.recipes, training and evaluation: real training on small networks."""

import os
import weakref
from dataclasses import dataclass, replace

import keras
import numpy as np
import pytest
from sklearn.datasets import load_digits

from tl_helpers import checkpoints, evaluation, results, runtime, training
from tl_helpers.recipes import Recipe


@dataclass(frozen=True)
class Part:
    images: np.ndarray
    labels: np.ndarray


class Digits:
    """The smallest thing with the interface of datasets.Dataset."""

    name = "digits"

    def __init__(self):
        x, y = load_digits(return_X_y=True)
        x = x.reshape(-1, 8, 8, 1).astype("float32")
        self.train, self.val, self.test = (
            Part(x[:300], y[:300]),
            Part(x[300:400], y[300:400]),
            Part(x[400:600], y[400:600]),
        )

    def identity(self):
        return {"name": "digits", "copy": "embedded", "sha256": "0" * 64}

    def sizes(self):
        return {"train": 300, "val": 100, "test": 200}


@pytest.fixture
def data():
    return Digits()


@pytest.fixture(autouse=True)
def folders(monkeypatch, tmp_path):
    monkeypatch.setenv("TL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TL_SCRATCH", str(tmp_path / "runs"))


def build(seed=0, dropout=0.3, side=8):
    runtime.set_seed(seed)
    layers = [
        keras.Input((side, side, 1)),
        keras.layers.Flatten() if side else keras.layers.GlobalAveragePooling2D(),
        keras.layers.Dense(32, activation="relu"),
        keras.layers.BatchNormalization(momentum=0.9),
        keras.layers.Dropout(dropout),
        keras.layers.Dense(10),
    ]
    return keras.Sequential(layers)


RECIPE = Recipe(
    epochs=4,
    batch_size=32,
    optimizer="adamw",
    learning_rate=3e-3,
    schedule="cosine",
    warmup=0.1,
    weight_decay=0.01,
    crop_padding=1,
    flip=True,
)


def fit(model, data, recipe=RECIPE, **more):
    return training.fit(model, data, recipe, experiment="demo", arm="a", seed=0, progress=False, **more)


def test_fit_learns_and_records_both_parts(data, tmp_path):
    model = build()
    recipe = Recipe(epochs=20, batch_size=32, learning_rate=5e-3)
    run = fit(model, data, recipe)
    found = evaluation.test(run, model, data)
    assert found["test_accuracy"] > 0.7
    low, high = found["test_accuracy_ci95"]
    assert low < found["test_accuracy"] < high
    assert len(run.history) == 20 and results.load("demo", folder=tmp_path / "runs")[0]["split"]["test"] == 200


def test_the_test_set_opens_once(data):
    model = build()
    run = fit(model, data, replace(RECIPE, epochs=1))
    evaluation.test(run, model, data)
    with pytest.raises(RuntimeError, match="opened once"):
        evaluation.test(run, model, data)


def test_fit_never_touches_the_test_set(data):
    class Forbidden:
        def __getattr__(self, name):
            raise AssertionError("the test set was opened")

    data.test = Forbidden()
    fit(build(), data, replace(RECIPE, epochs=1))


@pytest.mark.parametrize("stages", [(), ((1, 4), (3, 8))])
def test_an_interrupted_run_ends_as_the_uninterrupted_one(data, monkeypatch, capsys, stages):
    side = None if stages else 8
    whole = build(side=side)
    recipe = replace(RECIPE, stages=stages)
    expected = fit(whole, data, recipe)
    monkeypatch.setattr(checkpoints, "SAVE_EVERY_SECONDS", 0.0)

    class Interrupted(Exception):
        pass

    class Stopper(training._Watch):
        def end(self, trained, validated):
            super().end(trained, validated)
            if len(self.state.run.history) == 2:
                raise Interrupted

    with monkeypatch.context() as patch:
        patch.setattr(training, "_Watch", Stopper)
        with pytest.raises(Interrupted):
            fit(build(side=side), data, recipe)
    resumed = build(seed=99, side=side)  # other initial weights: everything must come from the checkpoint
    with monkeypatch.context() as patch:
        patch.setattr(results, "_commit", lambda: {"commit": "f" * 40, "dirty": True})
        run = fit(resumed, data, recipe)
    told = capsys.readouterr().out
    assert len(run.history) == 4 and "goes on with commit ffffffffff with uncommitted changes" in told
    for a, b in zip(whole.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5)
    assert run.history[-1]["val_loss"] == pytest.approx(expected.history[-1]["val_loss"], rel=1e-3)


def test_a_damaged_checkpoint_starts_anew_and_a_finished_run_leaves_none(data, tmp_path, capsys):
    path = tmp_path / "state.npz"
    path.write_bytes(b"half a file")
    model = build()
    run = fit(model, data, replace(RECIPE, epochs=1), checkpoint=path)
    assert "starting this run anew" in capsys.readouterr().out
    evaluation.test(run, model, data)
    assert not path.exists()


@pytest.fixture
def kept(data, monkeypatch):
    """Trains with a checkpoint after each epoch; the run is not finished, so its checkpoint stays."""
    monkeypatch.setattr(checkpoints, "SAVE_EVERY_SECONDS", 0.0)
    return lambda model, **more: fit(model, data, replace(RECIPE, epochs=2, monitor_best=True), **more)


def other():
    """A model of other shapes than ``build``'s, for the same data."""
    runtime.set_seed(0)
    return keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(10)])


def test_another_model_under_the_same_name_starts_anew(kept, capsys):
    kept(build())
    model = other()
    assert len(kept(model).history) == 2
    assert "holds the state of another model" in capsys.readouterr().out


def test_a_named_checkpoint_of_another_run_is_refused(kept, tmp_path):
    path = tmp_path / "state.npz"
    kept(build(), checkpoint=path)
    before, model = path.read_bytes(), build(seed=1)
    weights = model.get_weights()
    with pytest.raises(
        ValueError, match=r"the state of demo / a / seed 0 \(another backbone\); remove it or name another"
    ):
        kept(model, checkpoint=path, backbone="vgg16")
    with pytest.raises(ValueError, match="the state of another model .*; remove it or name another"):
        kept(other(), checkpoint=path)
    assert all(np.array_equal(a, b) for a, b in zip(weights, model.get_weights(), strict=True))
    assert path.read_bytes() == before
    np.savez(path, thesis=np.ones(3))
    with pytest.raises(ValueError, match="holds no state of a run"):
        kept(build(), checkpoint=path)


def test_backbone_and_versions_are_part_of_a_checkpoints_name(monkeypatch):
    def path(backbone):
        return checkpoints.default_path(results.Run("demo", "a", 0, backbone=backbone))

    first = path("vgg16")
    assert first == path("vgg16") != path("mobilenet-0.5")
    monkeypatch.setattr(runtime, "versions", lambda: {"keras": "4.0"})
    assert path("vgg16") != first


def test_half_written_checkpoints_of_killed_processes_are_removed(kept, tmp_path):
    folder = tmp_path / "cache" / "checkpoints"
    folder.mkdir(parents=True)
    old, new, foreign = folder / "x.npz.1.part", folder / "y.npz.2.part", tmp_path / "film.part"
    for path in (old, new, foreign):
        path.write_bytes(b"half")
    for path in (old, foreign):
        os.utime(path, (1, 1))
    kept(build())
    kept(build(), checkpoint=tmp_path / "state.npz")
    assert not old.exists() and new.exists() and foreign.exists()


def test_without_room_for_a_checkpoint_training_goes_on(data, monkeypatch, tmp_path):
    (tmp_path / "in the way").write_text("a file")
    monkeypatch.setattr(checkpoints, "SAVE_EVERY_SECONDS", 0.0)
    with pytest.warns(UserWarning, match="set TL_CACHE to a folder of yours"):
        run = fit(build(), data, checkpoint=tmp_path / "in the way" / "state.npz")
    assert len(run.history) == RECIPE.epochs


@pytest.mark.parametrize("part", ["train", "val"])
def test_a_part_without_examples_is_refused(data, part):
    held = getattr(data, part)
    setattr(data, part, Part(held.images[:0], held.labels[:0]))
    with pytest.raises(ValueError, match=f"data.{part} must hold at least one example"):
        fit(build(), data)


def test_one_hot_labels_are_refused(data):
    data.train = Part(data.train.images, np.eye(10)[data.train.labels])
    with pytest.raises(ValueError, match=r"integer labels of shape \(N,\).*argmax"):
        fit(build(), data)


@pytest.mark.parametrize("part", ["train", "val"])
@pytest.mark.parametrize("label", [-1, 10])
def test_labels_that_the_model_has_no_output_for_are_refused(data, part, label):
    held = getattr(data, part)
    setattr(data, part, Part(held.images, np.where(np.arange(len(held.labels)) == 3, label, held.labels)))
    with pytest.raises(ValueError, match=f"labels must be from 0 to 9.*Received: {part} labels from .*{label}"):
        fit(build(), data)


@pytest.mark.parametrize("asked", [{"crop_padding": 1}, {"flip": True}, {"cutout": 2}, {"stages": ((1, 4),)}])
def test_features_cannot_be_augmented(data, asked):
    data.train, data.val = (Part(p.images.reshape(-1, 64), p.labels) for p in (data.train, data.val))
    head = keras.Sequential([keras.Input((64,)), keras.layers.Dense(10)])
    with pytest.raises(
        ValueError, match=rf"{next(iter(asked))} need images .*Received: train images of shape \(300, 64\)"
    ):
        fit(head, data, Recipe(epochs=1, **asked))


def test_divergence_is_said_not_recorded(data, tmp_path):
    with pytest.raises(FloatingPointError, match="lower the learning rate"):
        fit(build(), data, Recipe(epochs=3, optimizer="sgd", learning_rate=1e20))
    assert not (tmp_path / "runs").exists()


def test_a_divergence_with_the_last_steps_is_seen_in_validation(data, monkeypatch):
    monkeypatch.setattr(training, "_validate", lambda *args: {"val_loss": float("nan"), "val_accuracy": 0.1})
    with pytest.raises(FloatingPointError, match="the val_loss is nan in epoch 1"):
        fit(build(), data, replace(RECIPE, epochs=1))


def test_early_stopping_and_best_weights(data):
    model = build()
    recipe = replace(
        RECIPE, epochs=30, learning_rate=0.3, schedule="constant", warmup=0.0, patience=2, monitor_best=True
    )
    run = fit(model, data, recipe)
    assert len(run.history) < 30
    best = min(row["val_loss"] for row in run.history)
    assert evaluation.validation_metrics(model, data)["val_loss"] == pytest.approx(best, rel=1e-3)


def test_stages_shrink_the_images_epoch_by_epoch(data):
    seen = []

    class Spy(keras.Sequential):
        def train_on_batch(self, x, *args, **kwargs):
            seen.append(x.shape[1])
            return super().train_on_batch(x, *args, **kwargs)

    keras.utils.set_random_seed(0)
    model = Spy([keras.Input((None, None, 1)), keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(10)])
    fit(model, data, replace(RECIPE, epochs=3, batch_size=300, stages=((2, 4), (1, 8))))
    assert seen == [4, 4, 8]
    with pytest.raises(ValueError, match="add up to epochs=4"):
        replace(RECIPE, stages=((2, 4),))


def test_fit_takes_vectors_of_features(data):
    flat = lambda part: Part(part.images.reshape(len(part.labels), -1), part.labels)  # noqa: E731
    data.train, data.val = flat(data.train), flat(data.val)
    runtime.set_seed(0)
    head = keras.Sequential([keras.Input((64,)), keras.layers.Dense(10)])
    run = fit(head, data, Recipe(epochs=5, batch_size=32, learning_rate=1e-2))
    assert run.history[-1]["val_accuracy"] > 0.5 and set(run.history[0]) >= {"loss", "accuracy", "val_loss", "seconds"}


def test_the_history_is_about_all_batches(data):
    """300 examples in validation are two batches, the second small: Keras's own numbers are the last batch's."""
    data.val = data.train
    model = build(dropout=0.0)
    run = fit(model, data, Recipe(epochs=1, batch_size=32, learning_rate=1e-5))
    now = evaluation.validation_metrics(model, data)
    assert run.history[0]["val_accuracy"] == pytest.approx(now["val_accuracy"], abs=1e-4)
    assert run.history[0]["val_loss"] == pytest.approx(now["val_loss"], rel=1e-3)
    assert abs(run.history[0]["accuracy"] * 300 - round(run.history[0]["accuracy"] * 300)) < 1e-2
    assert model.reset_metrics.__self__ is model  # the model's own again


def test_order_is_a_new_permutation_each_epoch(data):
    first, second = (training.Batches(data.train, RECIPE, seed=3, epoch=epoch).order for epoch in (0, 1))
    assert sorted(first) == sorted(second) == list(range(300)) and not np.array_equal(first, second)


def test_models_of_earlier_runs_are_let_go(data):
    def large():
        layers = [keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(16000), keras.layers.Dense(10)]
        return keras.Sequential(layers)

    one_epoch = Recipe(epochs=1, batch_size=300)
    model = large()
    run = fit(model, data, one_epoch)
    evaluation.test(run, model, data)
    earlier, model = weakref.ref(model), large()
    fit(model, data, one_epoch)
    assert earlier() is None and run.record is not None  # a run that is kept does not keep its model
    # TensorFlow's own sum over devices would register a gradient for every graph, which keeps it and its weights for ever
    assert model.optimizer._all_reduce_sum_gradients([("gradient", "variable")]) == [("gradient", "variable")]


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="the rule is about TensorFlow")
def test_a_long_training_of_dense_layers_is_compiled_by_xla():
    def jit(side, steps):
        model = build(side=side) if side else keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Conv2D(2, 3)])
        training.compile_model(model, Recipe(epochs=1), steps)
        return model.jit_compile

    short = jit(8, 4999)  # Keras's own choice, which depends on the machine
    assert jit(8, 5000) is True and jit(None, 5000) == jit(None, 4999) == short
