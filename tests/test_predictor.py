"""A model with its class names travels as one file, and says when it is damaged or diverged."""

import json

import api_page
import keras
import numpy as np
import pytest
from local_predictor import trained
from made_pictures import colour, encoded, fill
from PIL import Image

from tl_helpers import __main__ as cli
from tl_helpers import backbones, models, picture_files, predictor, runtime

__all__ = ["trained"]  # a fixture


def test_a_reloaded_model_is_the_same(trained):
    saved, path = trained
    again = predictor.load(path)
    assert (again.class_names, again.pixels, again.fit) == (("blue", "röd"), 8, "pad")
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3)).astype(np.uint8)
    np.testing.assert_array_equal(again.probabilities(images), saved.probabilities(images))
    answer = again.predict(encoded(colour((200, 10, 10))))
    assert answer["top"][0]["class"] == "röd" and 0.9 < answer["top"][0]["probability"] <= 1
    assert sum(guess["probability"] for guess in answer["top"]) == pytest.approx(1)


@pytest.mark.parametrize("fit", picture_files.FITS)
def test_a_picture_is_read_as_the_training_pictures_were(tmp_path, fit):
    images = keras.Input((None, None, 3))
    model = keras.Model(images, keras.layers.GlobalMaxPooling2D()(keras.layers.Rescaling(1 / 50)(images)))
    wide = np.random.default_rng(0).integers(0, 120, (30, 90, 3)).astype(np.uint8)
    held = encoded(Image.fromarray(wide))
    saved = predictor.save(model, tmp_path / "m.keras", ["r", "g", "b"], pixels=8, fit=fit)
    image, notes = picture_files.read(held, pixels=8, fit=fit)
    expected = dict(zip("rgb", saved.probabilities(image[None])[0], strict=True))
    answer = saved.predict(held)
    assert {guess["class"]: guess["probability"] for guess in answer["top"]} == pytest.approx(expected)
    assert [guess["class"] for guess in answer["top"]] == sorted(expected, key=expected.get, reverse=True)
    assert answer["notes"] == notes and bool(notes) == (fit == "crop")


def test_a_transfer_model_survives_saving(tmp_path):
    model = models.transfer_model(backbones.vgg16(weights="tiny-imagenet"), 3)
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype(np.float32)
    predictor.save(model, tmp_path / "m.keras", ["a", "b", "c"])
    np.testing.assert_array_equal(
        predictor.load(tmp_path / "m.keras").model.predict_on_batch(images), model.predict_on_batch(images)
    )


def test_every_class_of_the_package_that_a_model_may_hold_is_known_to_load():
    """Keras finds a class only where its module is imported, and a fresh process imports what ``predictor`` does."""
    written = {p.stem for p in runtime.PACKAGE.glob("*.py") if "@keras.saving.register" in p.read_text("utf-8")}
    assert {f"tl_helpers.{name}" for name in written} == {c.__module__ for c in (predictor.Classes, *predictor.SAVED)}


@pytest.mark.parametrize("broken", [False, True])
def test_an_earlier_file_stays_until_the_new_one_is_whole(trained, tmp_path, monkeypatch, broken):
    saved, path = trained
    mine = tmp_path / "mine.keras"
    mine.write_bytes(path.read_bytes())
    whole = keras.Model.save

    def write(model, place):
        if not broken:
            return whole(model, place)
        place.write_bytes(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(keras.Model, "save", write)
    if broken:
        with pytest.raises(OSError, match="No space left"):
            predictor.save(saved.model, mine, ["x", "y"], pixels=8)
    else:
        predictor.save(saved.model, mine, ["x", "y"], pixels=8)
    assert predictor.load(mine).class_names == (("blue", "röd") if broken else ("x", "y"))
    assert list(tmp_path.iterdir()) == [mine]


def test_a_reloaded_model_may_be_saved_again(trained, tmp_path):
    saved, path = trained
    predictor.save(predictor.load(path).model, tmp_path / "again.keras", ["b", "r"], pixels=16)
    again = predictor.load(tmp_path / "again.keras")
    assert (again.class_names, again.pixels, len(again.model.layers)) == (("b", "r"), 16, len(saved.model.layers))
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3)).astype(np.uint8)
    np.testing.assert_array_equal(again.probabilities(images), saved.probabilities(images))


def test_a_layer_of_the_model_may_be_called_classes(tmp_path):
    images = keras.Input((8, 8, 3))
    x = keras.layers.GlobalAveragePooling2D(name="classes_1")(images)
    model = keras.Model(images, keras.layers.Dense(2, name="classes")(x))
    predictor.save(model, tmp_path / "m.keras", ["a", "b"], pixels=8)
    names = [layer.name for layer in predictor.load(tmp_path / "m.keras").model.layers]
    assert names[1:] == ["classes_1", "classes", "classes_2"]


def test_a_numpy_number_of_pixels_is_kept_as_a_plain_one(trained, tmp_path):
    saved = predictor.save(trained[0].model, tmp_path / "m.keras", ["a", "b"], pixels=np.int64(8))
    assert [type(found.pixels) for found in (saved, predictor.load(tmp_path / "m.keras"))] == [int, int]
    assert json.dumps(saved.pixels) == "8", "as an export writes it"
    for wrong in ({"pixels": 8.5}, {"pixels": 8, "fit": "stretch"}):
        with pytest.raises(ValueError, match="pixels a whole number of at least 1. Received"):
            predictor.save(trained[0].model, tmp_path / "wrong.keras", ["a", "b"], **wrong)
    assert not (tmp_path / "wrong.keras").exists()


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="a SavedModel needs TensorFlow")
def test_the_exported_model_gives_the_same_outputs(trained, tmp_path):
    saved, _ = trained
    for _ in range(2):  # an earlier export is replaced
        folder = predictor.export(saved, tmp_path / "exported")
    images = np.random.default_rng(1).integers(0, 256, (4, 8, 8, 3)).astype(np.float32)
    np.testing.assert_allclose(
        predictor.run_exported(folder, images), saved.model.predict_on_batch(images), rtol=1e-5, atol=1e-5
    )
    assert (folder / "class_names.txt").read_text(encoding="utf-8").split() == ["blue", "röd"]
    assert json.loads((folder / "reading.json").read_text(encoding="utf-8")) == {"pixels": 8, "fit": "pad"}
    assert {path.name for path in folder.iterdir()} <= predictor.EXPORTED
    (folder / "thesis.txt").write_text("precious")
    with pytest.raises(ValueError, match=r"an earlier export. Received: a folder with other files \(thesis.txt\)"):
        predictor.export(saved, folder)
    assert (folder / "thesis.txt").exists()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("precious")
    with pytest.raises(ValueError, match="must be empty, new, or an earlier export"):
        predictor.export(saved, tmp_path / "other")
    assert (tmp_path / "other" / "thesis.txt").exists()


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="a SavedModel needs TensorFlow")
def test_an_export_that_fails_leaves_the_earlier_one(trained, tmp_path, monkeypatch):
    saved, _ = trained
    folder = predictor.export(saved, tmp_path / "exported")
    before = sorted((path.name, path.stat().st_mtime_ns) for path in folder.iterdir())

    def broken(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(keras.Model, "export", broken)
    with pytest.raises(OSError, match="No space left"):
        predictor.export(saved, folder)
    assert sorted((path.name, path.stat().st_mtime_ns) for path in folder.iterdir()) == before
    assert list(tmp_path.iterdir()) == [folder]


def test_another_backend_says_how_to_export(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(RuntimeError, match="Received: jax.*KERAS_BACKEND=tensorflow"):
        predictor.export(trained[0], tmp_path / "x")


def test_wrong_model_files_are_named(trained, tmp_path):
    with pytest.raises(FileNotFoundError, match="no such model file"):
        predictor.load(tmp_path / "gone.keras")
    (tmp_path / "text.keras").write_text("text")
    with pytest.raises(ValueError, match="must be a .keras file written by predictor.save"):
        predictor.load(tmp_path / "text.keras")
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)]).save(tmp_path / "bare.keras")
    with pytest.raises(ValueError, match="without class names"):
        predictor.load(tmp_path / "bare.keras")
    with pytest.raises(ValueError, match="ends in .keras. Received: m.h5"):
        predictor.save(trained[0].model, tmp_path / "m.h5", ["a", "b"])
    with pytest.raises(ValueError, match="3 names for 2 outputs"):
        predictor.save(trained[0].model, tmp_path / "m.keras", ["a", "b", "c"])


def test_a_class_that_is_missing_is_named(tmp_path):
    class Unheard(keras.layers.Layer):
        def call(self, x):
            return x

    images = keras.Input((8, 8, 3))
    model = keras.Model(images, keras.layers.GlobalAveragePooling2D()(Unheard()(images)))
    predictor.save(model, tmp_path / "m.keras", ["r", "g", "b"], pixels=8)
    with pytest.raises(ValueError, match="Received: Could not locate class 'Unheard'.*imported") as caught:
        predictor.load(tmp_path / "m.keras")
    assert "config" not in str(caught.value) and "\n" not in str(caught.value)


def test_a_byte_changed_in_a_model_file_is_one_clear_error(trained, tmp_path):
    whole, damaged = trained[1].read_bytes(), tmp_path / "m.keras"
    version = whole.index(b"PK\1\2") + 6  # what a reader of the archive must know: zipfile answers NotImplementedError
    for place in (version, len(whole) // 2, len(whole) - 20):
        damaged.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        with pytest.raises(ValueError, match="m.keras must be a .keras file written by predictor.save. Received"):
            predictor.load(damaged)


@pytest.fixture
def diverged(trained, tmp_path):
    model = keras.models.clone_model(trained[0].model)
    model.set_weights([np.full_like(weight, np.nan) for weight in trained[0].model.get_weights()])
    path = tmp_path / "diverged.keras"
    return predictor.save(model, path, ["blue", "röd"], pixels=8), path


def test_a_diverged_model_says_so(diverged, album, capsys):
    for answer in (lambda f: f.predict(album / "red" / "0.png"), lambda f: f.probabilities(np.ones((2, 8, 8, 3)))):
        with pytest.raises(
            ValueError, match=r"the model gives no numbers \(NaN\): its training diverged; train it again"
        ):
            answer(diverged[0])
    for more in ([], ["--json"]):
        assert cli.main(["predict", str(diverged[1]), str(album / "red" / "0.png"), *more]) == 1
        told = capsys.readouterr()
        assert told.out == "" and told.err.startswith("error: the model gives no numbers (NaN)")


def test_pictures_must_have_the_size_of_the_models_input(tmp_path):
    model = keras.Sequential([keras.Input((16, 16, 3)), keras.layers.GlobalAveragePooling2D()])
    with pytest.raises(ValueError, match="side of the model's input, 16. Received: 32"):
        predictor.save(model, tmp_path / "m.keras", ["r", "g", "b"])
    assert not (tmp_path / "m.keras").exists()


def test_the_start_on_the_page_of_the_package_runs(tmp_path, monkeypatch, capsys):
    """From a folder of pictures to a model in a file, line by line as the page prints it."""
    monkeypatch.chdir(tmp_path)
    for name, rgb in {"red": (200, 0, 0), "green": (0, 200, 0)}.items():
        fill(tmp_path / "album" / name, rgb, 8)
    made = {}
    exec(api_page.START, made)
    assert "test_accuracy" in capsys.readouterr().out
    assert made["models"].trainable_report(made["model"])[-1]["trainable"] == 2 * 512 + 2, "only the head was trained"
    assert predictor.load(tmp_path / "album.keras").class_names == ("green", "red")
