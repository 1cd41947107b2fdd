"""Bands and runs made where more can be had than where the records were made."""

import json

from tl_helpers import bands, runtime


def run_of(weights: str, accuracy: float) -> str:
    about = {"experiment": "demo", "scale": "full", "arm": "own", "seed": 0, "metrics": {"test_accuracy": accuracy}}
    return json.dumps({**about, "pair": f"VGG16 from {weights}", "weights": {"name": weights, "sha256": "0"}}) + "\n"


def test_runs_from_downloaded_weights_need_no_band_in_a_folder(monkeypatch, tmp_path):
    package, here = tmp_path / "package", tmp_path / "here"
    for folder in (package, here):
        folder.mkdir()
    monkeypatch.setattr(runtime, "records_folder", lambda: package)
    (package / "demo.jsonl").write_text(run_of("tiny-imagenet", 0.6))
    bands.write(["demo"])
    (here / "demo.jsonl").write_text(run_of("tiny-imagenet", 0.6) + run_of("imagenet", 0.8))
    assert bands.check(here) == []
    (here / "demo.jsonl").write_text(run_of("another", 0.8))
    assert "no band" in bands.check(here)[0]
    (package / "demo.jsonl").write_text(run_of("imagenet", 0.8))
    assert "no band" in bands.check()[0], "records of one's own always need one"
    bands.write(["demo"])
    (here / "demo.jsonl").write_text(run_of("imagenet", 0.5))
    assert "outside" in bands.check(here)[0], "recorded once, it is judged"
