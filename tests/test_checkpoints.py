"""Interrupted runs go on, and no checkpoint is taken for another's."""

import os
from dataclasses import replace
from unittest.mock import Mock

import keras
import numpy as np
import pytest
from short_training import RECIPE, Digits, build, fit

from tl_helpers import checkpoints, evaluation, results, runtime, training

pytestmark = pytest.mark.usefixtures("training_folders")


@pytest.fixture
def data():
    return Digits()


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


def test_a_damaged_checkpoint_starts_anew_and_a_finished_run_leaves_none(kept, data, tmp_path, capsys):
    kept(build())
    (path,) = (tmp_path / "cache" / "checkpoints").iterdir()
    path.write_bytes(b"half a file")
    model = build()
    run = kept(model)
    assert "starting this run anew" in capsys.readouterr().out and len(run.history) == 2
    evaluation.test(run, model, data)
    assert not path.exists()


@pytest.mark.parametrize("name", ["notes.csv", "features.npy", "objects.npz", "folder"])
def test_a_readers_own_file_is_never_removed(name, kept, tmp_path):
    path = tmp_path / name
    if name == "folder":
        path.mkdir()
    elif name == "features.npy":
        np.save(path, np.ones(3))
    elif name == "objects.npz":
        np.savez(path, a=np.array([{}], object))
    else:
        path.write_text("a,b\n1,2\n")
    before = path.is_dir() or path.read_bytes()
    with pytest.raises(ValueError, match="cannot be read as one .*; name another"):
        kept(build(), checkpoint=path)
    assert (path.is_dir() or path.read_bytes()) == before


def test_a_checkpoint_that_cannot_be_reached_is_kept(kept, monkeypatch, tmp_path):
    kept(build())
    (path,) = (tmp_path / "cache" / "checkpoints").iterdir()

    for error in (MemoryError, OSError):
        with monkeypatch.context() as patch:
            patch.setattr(checkpoints.np, "load", Mock(side_effect=error))
            with pytest.raises(error):
                kept(build())
    assert path.exists()


@pytest.fixture
def kept(data, monkeypatch):
    """Trains with a checkpoint after each epoch; the run is not finished, so its checkpoint stays."""
    monkeypatch.setattr(checkpoints, "SAVE_EVERY_SECONDS", 0.0)
    return lambda model, **more: fit(model, data, replace(RECIPE, epochs=2, monitor_best=True), **more)


def other():
    """A model of other shapes than ``build``'s, for the same data."""
    runtime.set_seed(0)
    return keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(10)])


def test_another_network_or_other_examples_under_the_same_name_start_anew(kept, data, capsys, tmp_path):
    kept(build())
    kept(other())
    kept(build(dropout=0.5))
    data.train.labels[:] = data.train.labels[::-1].copy()
    kept(build())
    assert "resuming" not in capsys.readouterr().out
    assert len(list((tmp_path / "cache" / "checkpoints").iterdir())) == 4
    kept(build(seed=5))
    assert "resuming demo / a / seed 0 after epoch 2 of 2" in capsys.readouterr().out


def test_a_record_names_every_commit_that_trained_it(kept, data, monkeypatch):
    codes = iter([{"commit": "a" * 40, "dirty": False}, {"commit": "b" * 40, "dirty": False}])
    monkeypatch.setattr(results, "_commit", lambda: next(codes))
    kept(build())
    model = build()
    evaluation.test(kept(model), model, data)
    (record,) = results.finished
    assert (record["commit"], record["commits_before"], record["dirty"]) == ("b" * 40, ["a" * 40], False)


def test_brain_floats_come_back(tmp_path, data):
    assert checkpoints._plain(keras.ops.convert_to_numpy(keras.ops.ones(3, "bfloat16"))).dtype == "float32"


def test_all_that_a_run_knows_comes_back_from_its_checkpoint(data, tmp_path):
    def state(seed):
        model = build(seed)
        training.compile_model(model, RECIPE, steps=40)
        return checkpoints.State(model, results.Run("demo", arm="a", seed=0), data, tmp_path / "state.npz")

    first, second = state(0), state(99)
    first.best, first.best_loss = [weight + 1 for weight in first.model.get_weights()], 0.5
    first.waited, first.stopped = 1, True
    first.run.history, first.run.seconds_before = [{"epoch": 1}], 100.0
    first.save()
    assert second.restore() == 1 and second.run.history == [{"epoch": 1}]
    assert (second.best_loss, second.waited, second.stopped) == (0.5, 1, True)
    assert second.run.elapsed() >= 100 and second.run.started == first.run.started
    second.finish()
    for weight, last in zip(second.model.get_weights(), first.model.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, last + 1, "a finished run has its best weights")


def test_a_named_checkpoint_of_another_run_is_refused(kept, tmp_path):
    path = tmp_path / "state.npz"
    kept(build(), checkpoint=path)
    before, model = path.read_bytes(), build(seed=1)
    weights = model.get_weights()
    with pytest.raises(
        ValueError, match=r"the state of demo / a / seed 0 \(another backbone\); remove it or name another"
    ):
        kept(model, checkpoint=path, backbone="vgg16")
    with pytest.raises(ValueError, match=r"\(another network\); remove it or name another"):
        kept(other(), checkpoint=path)
    assert all(np.array_equal(a, b) for a, b in zip(weights, model.get_weights(), strict=True))
    assert path.read_bytes() == before
    np.savez(path, thesis=np.ones(3))
    with pytest.raises(ValueError, match="holds no state of a run"):
        kept(build(), checkpoint=path)


ABOUT = {
    "experiment": "demo", "arm": "a", "seed": 0, "pair": "p", "recipe": {"epochs": 1}, "backbone": "vgg16",
    "weights": {"name": "w", "sha256": "0"}, "data": {"name": "d", "copy": "official", "sha256": "0"}, "split": {"train": 9},
}  # fmt: skip


@pytest.mark.parametrize(
    "other",
    [
        {"experiment": "other"}, {"arm": "b"}, {"seed": 1}, {"pair": "q"}, {"recipe": {"epochs": 2}},
        {"backbone": "resnet50"}, {"weights": {"name": "w", "sha256": "1"}}, {"split": {"train": 8}},
        {"data": {"name": "d", "copy": "rebuilt", "sha256": "1"}}, "versions", "device", "scale",
    ],
    ids=str,
)  # fmt: skip
def test_each_thing_that_decides_a_run_tells_its_record_and_its_checkpoint_apart(other, package_records, monkeypatch):
    def path(run):
        return checkpoints.default_path(checkpoints.key(run))

    monkeypatch.setenv("TL_RECORD", "1")
    monkeypatch.setattr(results, "_commit", lambda: {"commit": "abc", "dirty": False})
    first = results.Run(**ABOUT)
    kept_in = path(first)
    first.finish({"accuracy": 0.5})
    monkeypatch.setenv("TL_RESUME", "1")
    assert results.Run(**ABOUT).reuse() and path(results.Run(**ABOUT)) == kept_in
    if other == "versions":
        monkeypatch.setattr(runtime, "versions", lambda: {"keras": "4.0"})
    elif other == "device":
        monkeypatch.setattr(runtime, "device", lambda: {"kind": "gpu"})
    elif other == "scale":
        monkeypatch.setenv("TL_SCALE", "laptop")
    run = results.Run(**(ABOUT if isinstance(other, str) else ABOUT | other))
    assert not run.reuse()
    assert (path(run) == kept_in) == (other == "device"), "another device may go on from a checkpoint"


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
