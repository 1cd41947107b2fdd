"""Real training on small networks."""

import weakref
from dataclasses import replace

import keras
import numpy as np
import pytest
from short_training import RECIPE, Digits, Part, build, fit

from tl_helpers import datasets, evaluation, results, runtime, training
from tl_helpers.recipes import Recipe

pytestmark = pytest.mark.usefixtures("training_folders")


@pytest.fixture
def data():
    return Digits()


def test_fit_learns_and_records_both_parts(data, tmp_path):
    model = build()
    recipe = Recipe(epochs=20, batch_size=32, learning_rate=5e-3)
    run = fit(model, data, recipe)
    found = evaluation.test(run, model, data)
    assert found["test_accuracy"] > 0.7
    low, high = found["test_accuracy_ci95"]
    assert low < found["test_accuracy"] < high
    assert len(run.history) == 20 and results.load("demo", folder=tmp_path / "runs")[0]["split"]["test"] == 200


def test_fit_takes_a_data_set_of_the_course():
    data = datasets.load("digits").few(5, seed=0).shorten(val=20, test=20)
    runtime.set_seed(0)
    model = keras.Sequential([keras.Input((32, 32, 3)), keras.layers.AveragePooling2D(8), keras.layers.Flatten()])
    model.add(keras.layers.Dense(10))
    evaluation.test(fit(model, data, replace(RECIPE, epochs=1)), model, data)
    (record,) = results.finished
    assert record["data"] == data.identity() and record["split"] == {"train": 50, "val": 20, "test": 20}
    assert record["metrics"]["test_accuracy"] in np.arange(21) / 20


def test_fit_never_touches_the_test_set(data):
    class Forbidden:
        def __getattr__(self, name):
            raise AssertionError("the test set was opened")

    data.test = Forbidden()
    fit(build(), data, replace(RECIPE, epochs=1))


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


@pytest.mark.parametrize("last", [keras.layers.Dense(10, activation="softmax"), keras.layers.Softmax()])
def test_a_softmax_at_the_end_is_refused(data, last):
    model = keras.Sequential([*build().layers, last])
    with pytest.raises(ValueError, match=f"must end in logits.*Received: a last layer '{last.name}' with a softmax"):
        fit(model, data)


def test_extra_does_not_change_the_recipe(data):
    with pytest.raises(ValueError, match="extra must not have fields of the recipe. Received: epochs, patience"):
        fit(build(), data, extra={"epochs": 99, "patience": 1, "blocks": 2})


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        (np.zeros((300, 3)), "as many numbers an example as the model has outputs"),
        (np.full(300, np.nan), "300 are NaN"),
    ],
)
def test_targets_that_do_not_fit_a_regression_are_refused(data, labels, told):
    data.train = Part(data.train.images, labels)
    model = keras.Sequential([keras.Input((8, 8, 1)), *build().layers, keras.layers.Dense(1)])
    with pytest.raises(ValueError, match=told):
        fit(model, data, replace(RECIPE, loss="regression"))


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


def test_patience_counts_epochs_since_the_best_and_the_schedule_is_as_long_as_all_of_them(data, monkeypatch):
    losses = iter([1.0, 0.8, 0.9, 0.85, 0.1])
    monkeypatch.setattr(training, "_one_epoch", lambda *_: {"loss": 1.0})
    monkeypatch.setattr(training, "_validate", lambda *_: {"val_loss": next(losses)})
    lengths, compiled = [], training.compile_model
    monkeypatch.setattr(
        training, "compile_model", lambda model, recipe, steps: lengths.append(steps) or compiled(model, recipe, steps)
    )
    run = fit(build(), data, replace(RECIPE, epochs=5, patience=2))
    assert [row["val_loss"] for row in run.history] == [1.0, 0.8, 0.9, 0.85]
    assert run.images_seen == 4 * 300 and lengths == [5 * 10], "300 images are ten batches of 32"


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
    with pytest.raises(ValueError, match="epochs add up to 4"):
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


def test_seed_epoch_and_place_decide_order_and_augmentation():
    """The images are all alike, so that a batch differs by its augmentation alone."""
    image = np.random.default_rng(0).integers(0, 256, (1, 8, 8, 3)).astype(np.uint8)
    alike = Part(np.repeat(image, 64, 0), np.zeros(64, int))

    def batch(seed, epoch, place=0):
        return training.Batches(alike, RECIPE, seed, epoch=epoch)[place][0]

    assert np.array_equal(batch(0, 0), batch(0, 0))
    assert not any(np.array_equal(batch(0, 0), other) for other in (batch(1, 0), batch(0, 1), batch(0, 0, 1)))
    first, second = (training.Batches(alike, RECIPE, seed).order for seed in (0, 1))
    assert not np.array_equal(first, second)


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
