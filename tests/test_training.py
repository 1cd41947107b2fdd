"""Tests of tl_helpers.recipes, training and evaluation: real training on small networks."""

import weakref
from dataclasses import dataclass, replace

import keras
import numpy as np
import pytest
from sklearn.datasets import load_digits

from tl_helpers import checkpoints, evaluation, recipes, results, runtime, training
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
def test_an_interrupted_run_ends_as_the_uninterrupted_one(data, monkeypatch, stages):
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
    run = fit(resumed, data, recipe)
    assert len(run.history) == 4
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


def test_without_room_for_a_checkpoint_training_goes_on(data, monkeypatch, tmp_path):
    (tmp_path / "in the way").write_text("a file")
    monkeypatch.setattr(checkpoints, "SAVE_EVERY_SECONDS", 0.0)
    with pytest.warns(UserWarning, match="set TL_CACHE to a folder of yours"):
        run = fit(build(), data, checkpoint=tmp_path / "in the way" / "state.npz")
    assert len(run.history) == RECIPE.epochs


def test_one_hot_labels_are_refused(data):
    data.train = Part(data.train.images, np.eye(10)[data.train.labels])
    with pytest.raises(ValueError, match=r"integer labels of shape \(N,\).*argmax"):
        fit(build(), data)


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


def test_schedule_equals_its_rule():
    for recipe in (RECIPE, replace(RECIPE, schedule="constant"), replace(RECIPE, warmup=0.0)):
        schedule = training.Schedule(recipe, 50)
        for step in (0, 1, 4, 5, 20, 49):
            assert float(schedule(step)) == pytest.approx(recipes.learning_rate_at(recipe, step, 50), rel=1e-3)


def test_label_smoothing_equals_keras():
    logits = np.random.default_rng(0).normal(size=(6, 10)).astype("float32")
    labels = np.arange(6)
    expected = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1)(np.eye(10)[labels], logits)
    found = keras.ops.mean(training.cross_entropy(0.1)(labels, logits))
    assert float(found) == pytest.approx(float(expected), rel=1e-5)


def test_augment_keeps_shape_type_and_pixels():
    images = np.arange(4 * 8 * 8 * 3, dtype=np.uint8).reshape(4, 8, 8, 3)
    once = training.augment(images, RECIPE, np.random.default_rng(1))
    again = training.augment(images, RECIPE, np.random.default_rng(1))
    assert once.shape == images.shape and once.dtype == np.uint8
    np.testing.assert_array_equal(once, again)
    flipped = training.augment(images, replace(RECIPE, crop_padding=0), np.random.default_rng(0))
    assert all(np.array_equal(f, i) or np.array_equal(f, i[:, ::-1]) for f, i in zip(flipped, images, strict=True))
    assert not np.array_equal(flipped, images)


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


def test_shrinking_takes_means():
    images = np.arange(2 * 8 * 8 * 3, dtype=np.uint8).reshape(2, 8, 8, 3)
    expected = images.reshape(2, 4, 2, 4, 2, 3).mean((2, 4))
    np.testing.assert_allclose(training.shrink(images, 4), expected, atol=1e-3)
    assert training.shrink(images, None) is images and training.shrink(images, 8) is images


def test_order_is_a_new_permutation_each_epoch(data):
    first, second = (training.Batches(data.train, RECIPE, seed=3, epoch=epoch).order for epoch in (0, 1))
    assert sorted(first) == sorted(second) == list(range(300)) and not np.array_equal(first, second)


def test_unknown_choices_in_a_recipe_are_named():
    with pytest.raises(ValueError, match="optimizer must be one of adam, adamw, sgd. Received: 'adamx'"):
        Recipe(optimizer="adamx")


def test_paired_differences_are_judged_by_students_margin():
    assert evaluation.margin([0.01, 0.02, 0.03]) == pytest.approx(4.303 * 0.01 / 3**0.5, rel=1e-3)
    assert evaluation.verdict([0.05, 0.06, 0.055]) == ["+0.055 ± 0.012", "better"]
    assert evaluation.verdict([-0.05, -0.06, -0.055], "helps", "hurts")[1] == "hurts"
    assert evaluation.verdict([0.01, 0.02, 0.03])[1] == "not told apart"  # one sign, and yet within its margin
    assert evaluation.verdict([0.2]) == ["+0.200", "one seed cannot tell"]
    assert evaluation.verdict([]) == ["–", "not recorded yet"]


def test_models_of_earlier_runs_are_let_go(data):
    def large():
        layers = [keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(16000), keras.layers.Dense(10)]
        return keras.Sequential(layers)

    one_epoch = Recipe(epochs=1, batch_size=300)
    model = large()
    fit(model, data, one_epoch)
    earlier, model = weakref.ref(model), large()
    fit(model, data, one_epoch)
    assert earlier() is None
    # TensorFlow's own sum over devices would register a gradient for every graph, which keeps it and its weights for ever
    assert model.optimizer._all_reduce_sum_gradients([("gradient", "variable")]) == [("gradient", "variable")]


def test_metrics_agree_with_hand_counts():
    outputs = np.array([[2.0, 1.0, 0.0], [0.0, 1.0, 2.0], [0.0, 3.0, 0.0], [1.0, 0.5, 0.0]])
    labels = np.array([0, 1, 1, 2])
    assert evaluation.accuracy(outputs, labels) == 0.5
    assert evaluation.top_k_accuracy(outputs, labels, k=2) == 0.75
    by_hand = -np.log(np.exp(outputs)[range(4), labels] / np.exp(outputs).sum(1)).mean()
    assert evaluation.cross_entropy(outputs, labels) == pytest.approx(by_hand)
    with pytest.raises(ValueError, match="flatten labels"):
        evaluation.accuracy(outputs, labels[:, None])


def test_wilson_interval_known_value():
    low, high = evaluation.interval(8, 10)
    assert (low, high) == (pytest.approx(0.490, abs=1e-3), pytest.approx(0.943, abs=1e-3))


def test_calibration_error_is_zero_for_perfect_and_large_for_boastful():
    labels = np.zeros(100, int)
    sure = np.tile([20.0, 0.0], (100, 1))
    assert evaluation.calibration_error(sure, labels) < 1e-6
    assert evaluation.calibration_error(sure, np.ones(100, int)) > 0.99


def test_reliability_counts_every_answer_once():
    """Eight of ten answers at one half and two at certainty; of each kind half are right."""
    outputs = np.concatenate([np.zeros((8, 2)), np.tile([50.0, 0.0], (2, 1))])
    rows = evaluation.reliability(outputs, np.array([0, 1] * 5))
    assert np.allclose(rows, [[0.8, 0.5, 0.5], [0.2, 1.0, 0.5]])
    assert evaluation.calibration_error(outputs, np.array([0, 1] * 5)) == pytest.approx(0.1)


def test_an_epochs_numbers_are_means_over_all_examples(data):
    model = build()
    run = fit(model, data)
    outputs = model.predict(data.val.images, verbose=0)
    found = training._validate(model, data.val, None, batch_size=32)  # the last batch is a small one
    assert found["val_loss"] == pytest.approx(evaluation.cross_entropy(outputs, data.val.labels), rel=1e-5)
    assert found["val_accuracy"] == pytest.approx(evaluation.accuracy(outputs, data.val.labels))
    assert found["val_loss"] == pytest.approx(run.history[-1]["val_loss"], rel=1e-5)
    assert model.reset_metrics.__self__ is model  # the model's own again


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="the rule is about TensorFlow")
def test_a_long_training_of_dense_layers_is_compiled_by_xla():
    def jit(side, steps):
        model = build(side=side) if side else keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Conv2D(2, 3)])
        training.compile_model(model, Recipe(epochs=1), steps)
        return model.jit_compile

    short = jit(8, 4999)  # Keras's own choice, which depends on the machine
    assert jit(8, 5000) is True and jit(None, 5000) == jit(None, 4999) == short
