"""A saved model answers on the command line: a table or JSON, whatever the terminal can show."""

import io
import json
import os
import subprocess
import sys

import pytest
from local_predictor import trained

from tl_helpers import __main__ as cli
from tl_helpers import backbones, models, predictor

__all__ = ["trained"]  # a fixture


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


def test_a_fresh_process_opens_a_model_made_with_a_backbone_of_the_course(tmp_path, album):
    model = models.transfer_model(backbones.vgg16(weights=None), 2)
    predictor.save(model, tmp_path / "album.keras", ["cat", "dog"])
    call = [sys.executable, "-m", "tl_helpers", "predict", str(tmp_path / "album.keras"), str(album / "red" / "0.png")]
    done = subprocess.run(call, capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0 and "cat" in done.stdout and done.stderr == "", done.stderr


@pytest.mark.parametrize("name", ["predict", "serve"])
def test_help_says_how_to_call(name, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main([name, "--help"])
    assert ended.value.code == 0 and "a .keras file written by predictor.save" in capsys.readouterr().out
