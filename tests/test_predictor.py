"""A model with its class names travels as one file, and answers on the command line."""

import io
import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from made_pictures import colour, encoded

from tl_helpers import __main__ as cli
from tl_helpers import predictor, runtime


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Red against blue by the mean colour: a model small enough for every test."""
    runtime.set_seed(0)
    images = keras.Input((None, None, 3))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 255)(images))
    model = keras.Model(images, keras.layers.Dense(2, name="head")(x))
    model.get_layer("head").set_weights([np.array([[-2.0, 2], [0, 0], [2, -2]], np.float32), np.zeros(2, np.float32)])
    path = tmp_path_factory.mktemp("model") / "my colours.keras"
    return predictor.save(model, path, ["blue", "röd"], pixels=8, fit="pad"), path


def test_a_reloaded_model_is_the_same(trained):
    saved, path = trained
    again = predictor.load(path)
    assert (again.class_names, again.pixels, again.fit) == (("blue", "röd"), 8, "pad")
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3)).astype(np.uint8)
    np.testing.assert_array_equal(again.probabilities(images), saved.probabilities(images))
    answer = again.predict(encoded(colour((200, 10, 10))))
    assert answer["top"][0]["class"] == "röd" and 0.9 < answer["top"][0]["probability"] <= 1
    assert sum(guess["probability"] for guess in answer["top"]) == pytest.approx(1)


def test_a_transfer_model_survives_saving(tmp_path):
    from tl_helpers import backbones, models

    model = models.transfer_model(backbones.vgg16(weights="tiny-imagenet"), 3)
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype(np.float32)
    predictor.save(model, tmp_path / "m.keras", ["a", "b", "c"])
    np.testing.assert_array_equal(
        predictor.load(tmp_path / "m.keras").model.predict_on_batch(images), model.predict_on_batch(images)
    )


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


# --- the command line


def test_predict_shows_a_table(trained, album, capsys):
    assert cli.main(["predict", str(trained[1]), str(album / "red" / "0.png"), str(album / "blue" / "1.png")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["picture", "1.", "(stated", "confidence)", "2."]
    assert "röd 9" in lines[1] and "0.png" in lines[1] and "blue 9" in lines[2]
    second = lines[0].index("2.")
    assert lines[1][second:].startswith("blue") and lines[2][second:].startswith("röd"), (
        "columns stand below each other"
    )


def test_predict_looks_a_pattern_up_where_the_shell_did_not(trained, album, capsys):
    assert cli.main(["predict", str(trained[1]), str(album / "blue" / "*.png"), "--json"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(list((album / "blue").glob("*.png"))) > 1


def test_predict_as_json_names_what_it_refused(trained, album, capsys):
    (album / "red" / "bad.png").write_bytes(b"x")
    call = ["predict", str(trained[1]), str(album / "red" / "bad.png"), str(album / "red" / "0.png")]
    assert cli.main([*call, "--json", "--top", "1"]) == 1
    told = capsys.readouterr()
    bad, good = map(json.loads, told.out.splitlines())
    assert "not a picture" in bad["error"] and "bad.png" in told.err
    assert [guess["class"] for guess in good["top"]] == ["röd"]


def test_predict_prints_each_picture_when_it_is_done(trained, album, capsys, monkeypatch):
    """Interrupted after two of three, the two stand there, and nothing promises to go on."""
    done, predict = [], predictor.Predictor.predict

    def slow(found, picture, top):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(picture)
        return predict(found, picture, top)

    monkeypatch.setattr(predictor.Predictor, "predict", slow)
    assert cli.main(["predict", str(trained[1]), *(str(album / "red" / f"{i}.png") for i in range(3))]) == 130
    told = capsys.readouterr()
    assert [line.split()[0] for line in told.out.splitlines()] == ["picture", *map(str, done)]
    assert "what is printed above is whole" in told.err and "go on" not in told.err


def test_predict_shows_its_progress_where_the_rows_go_into_a_file(trained, album, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert cli.main(["predict", str(trained[1]), *map(str, sorted((album / "red").iterdir()))]) == 0
    told = capsys.readouterr()
    assert "0/6" in told.err and len(told.out.splitlines()) == 7


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has file names that are no text")
@pytest.mark.parametrize("coding", ["ascii", "utf-8"])
def test_a_name_that_the_terminal_cannot_show_costs_no_row(trained, album, coding, monkeypatch):
    named = album / "red" / os.fsdecode(b"caf\xe9 \xc3\xa9.png")
    named.write_bytes((album / "red" / "0.png").read_bytes())
    for more in ([], ["--json"]):
        terminal = io.TextIOWrapper(io.BytesIO(), encoding=coding)
        monkeypatch.setattr(sys, "stdout", terminal)
        assert cli.main(["predict", str(trained[1]), str(named), str(album / "red" / "1.png"), *more]) == 0
        lines = terminal.buffer.getvalue().decode(coding).splitlines()
        assert len(lines) == (2 if more else 3) and "1.png" in lines[-1]
    assert json.loads(lines[0])["picture"] == str(named)


def test_predict_reports_a_missing_model_or_picture(trained, tmp_path, capsys):
    assert cli.main(["predict", str(tmp_path / "none.keras"), "a.png"]) == 1
    assert "error: no such model file" in capsys.readouterr().err
    assert cli.main(["predict", str(trained[1]), str(tmp_path / "none.png")]) == 1
    assert "none.png: cannot be read: No such file" in capsys.readouterr().err


def test_predict_works_as_a_program(trained, album):
    call = [sys.executable, "-m", "tl_helpers", "predict", str(trained[1]), str(album / "red" / "0.png")]
    done = subprocess.run(call, capture_output=True, text=True, encoding="utf-8", check=True)
    assert "röd" in done.stdout and done.stderr == ""


@pytest.mark.parametrize("name", ["predict", "serve"])
def test_help_says_how_to_call(name, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main([name, "--help"])
    assert ended.value.code == 0 and "a .keras file written by predictor.save" in capsys.readouterr().out


def test_pictures_must_have_the_size_of_the_models_input(tmp_path):
    model = keras.Sequential([keras.Input((16, 16, 3)), keras.layers.GlobalAveragePooling2D()])
    with pytest.raises(ValueError, match="side of the model's input, 16. Received: 32"):
        predictor.save(model, tmp_path / "m.keras", ["r", "g", "b"])
    assert not (tmp_path / "m.keras").exists()
