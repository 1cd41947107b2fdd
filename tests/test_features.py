"""Features kept on disk: right, found again, rebuilt when anything they depend on changes."""

import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest

from tl_helpers import backbones, datasets, features, models


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TL_CACHE", str(tmp_path))
    return tmp_path / "features"


@pytest.fixture
def passes(monkeypatch):
    """Counts images that really go through a model."""
    seen, compute = [], features._compute

    def counting(model, images, *args):
        seen.append(sum(map(len, images)))
        return compute(model, images, *args)

    monkeypatch.setattr(features, "_compute", counting)
    return seen


def backbone(steps=("caffe",), resolution=None) -> keras.Model:
    images = keras.Input((None, None, 3), name="images")
    x = backbones.Preprocessing(steps, resolution, smallest=4, name="preprocessing")(images)
    x = keras.layers.Conv2D(
        4, 3, activation="relu", name="block1_conv1", kernel_initializer=keras.initializers.GlorotUniform(1)
    )(x)
    x = keras.layers.Conv2D(
        6, 3, activation="relu", name="block2_conv1", kernel_initializer=keras.initializers.GlorotUniform(2)
    )(x)
    return keras.Model(images, keras.layers.GlobalAveragePooling2D()(x), name="small")


def data(sizes=(13, 4, 5), test=True) -> datasets.Dataset:
    rng = np.random.default_rng(0)
    train, val, held = (
        datasets.Split(rng.integers(0, 256, (n, 8, 8, 3)).astype(np.uint8), rng.integers(0, 3, n)) for n in sizes
    )
    return datasets.Dataset("random", "own", "0" * 64, train, val, held if test else None, ("a", "b", "c"), "none")


def test_features_equal_a_plain_prediction():
    model, of = backbone(), data()
    got = features.extract(model, of, batch_size=4, progress=False)
    for name in ("train", "val", "test"):
        split, expected = getattr(got, name), getattr(of, name)
        assert split.images.dtype == np.float32
        np.testing.assert_allclose(split.images, model.predict(expected.images, verbose=0), rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(split.labels, expected.labels)
    assert got.identity() == of.identity() and got.sizes() == of.sizes()


@pytest.mark.parametrize(
    ("side", "resolution", "size"), [(32, None, 512), (32, 64, 128), (224, None, 16), (8, None, 512)]
)
def test_larger_images_come_in_smaller_batches(side, resolution, size):
    assert features._batch_size(backbone(resolution=resolution), (9, side, side, 3)) == size


def test_the_second_call_computes_nothing(passes):
    model, of = backbone(), data()
    first = features.extract(model, of, progress=False)
    again = features.extract(backbone(), of, progress=False)  # a new model with other generated names, equal weights
    assert passes == [22]
    np.testing.assert_array_equal(first.val.images, again.val.images)


def test_a_subset_costs_only_its_own_part(passes):
    model, of = backbone(), data()
    features.extract(model, of, progress=False)
    few = of.few(1, seed=0)
    features.extract(model, few, progress=False)
    assert passes == [22, len(few.train)]


def test_frozen_or_not_the_features_are_the_same(passes):
    model, of = backbone(), data()
    features.extract(model, of, progress=False)
    features.extract(models.freeze(model), of, progress=False)
    assert passes == [22]


def test_a_data_set_without_a_test_split():
    assert features.extract(backbone(), data(test=False), progress=False).test is None


def test_a_changed_weight_image_preprocessing_or_resolution_is_noticed(passes):
    of = data()
    base = features.extract(backbone(), of, progress=False)
    model = backbone()
    kernel, bias = model.get_layer("block2_conv1").get_weights()
    model.get_layer("block2_conv1").set_weights([kernel, bias + 1e-3])
    assert not np.array_equal(features.extract(model, of, progress=False).val.images, base.val.images)
    features.extract(backbone(steps=("unit",)), of, progress=False)
    features.extract(backbone(resolution=12), of, progress=False)
    assert passes == [22, 22, 22, 22]
    of.train.images[0, 0, 0, 0] ^= 1
    features.extract(backbone(), of, progress=False)
    assert passes[4:] == [13]


def test_many_layers_in_one_pass(passes):
    model, of = backbone(), data()
    got = features.extract(model, of, layers=["block1_conv1", "block2_conv1"], batch_size=4, progress=False)
    assert list(got) == ["block1_conv1", "block2_conv1"] and passes == [22]
    inside = keras.Model(model.input, model.get_layer("block1_conv1").output)
    expected = inside.predict(of.val.images, verbose=0).mean((1, 2))
    np.testing.assert_allclose(got["block1_conv1"].val.images, expected, rtol=1e-5, atol=1e-4)
    features.extract(model, of, layers=["block2_conv1"], progress=False)
    assert passes == [22]


def test_a_layer_is_known_by_its_place_not_by_its_name():
    def named(first, second):
        images = keras.Input((None, None, 3))
        x = images
        for i, name in enumerate((first, second)):
            x = keras.layers.Conv2D(3, 3, name=name, kernel_initializer=keras.initializers.GlorotUniform(i))(x)
        return keras.Model(images, x)

    of = data()
    first = features.extract(named("a", "b"), of, layers=["a"], progress=False)["a"]
    second = features.extract(named("b", "a"), of, layers=["a"], progress=False)["a"]
    assert not np.array_equal(first.val.images, second.val.images)


def test_a_layer_named_after_its_function_does_not_hide_it():
    def with_function(kind):
        images = keras.Input((None, None, 3))
        x = keras.layers.Conv2D(3, 3, name="c", kernel_initializer=keras.initializers.GlorotUniform(0))(images)
        return keras.Model(images, keras.layers.Activation(kind, name=kind)(x))

    of = data()
    first, second = (features.extract(with_function(kind), of, progress=False) for kind in ("relu", "tanh"))
    assert first.val.images.max() > 1 >= second.val.images.max()


def test_an_unknown_layer_is_refused():
    with pytest.raises(ValueError, match="Received: 'block9'; it has images, preprocessing, block1_conv1"):
        features.extract(backbone(), data(), layers=["block9"], progress=False)


@pytest.mark.parametrize("fault", ["flipped", "cut", "empty", "other"])
def test_a_damaged_file_is_noticed_and_rebuilt(fault, cache, passes, capsys):
    model, of = backbone(), data()
    expected = features.extract(model, of, progress=False)
    for path in cache.iterdir():
        content = bytearray(path.read_bytes())
        if fault == "flipped":
            content[len(content) // 2] ^= 1
        path.write_bytes({"flipped": content, "cut": content[:-30], "empty": b"", "other": b"not features"}[fault])
    again = features.extract(model, of, progress=False)
    assert passes == [22, 22] and "damaged" in capsys.readouterr().err
    np.testing.assert_array_equal(again.train.images, expected.train.images)
    features.extract(model, of, progress=False)
    assert passes == [22, 22]


def test_nothing_half_written_stays(cache, monkeypatch):
    def full(file, **arrays):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.warns(UserWarning, match="cannot be kept.*No space left.*TL_CACHE"):
        got = features.extract(backbone(), data(), progress=False)
    assert got.train.images.shape == (13, 6) and list(cache.iterdir()) == []


def test_a_cache_folder_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("TL_CACHE", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match="cannot be kept"):
        assert features.extract(backbone(), data(), progress=False).train.images.shape == (13, 6)


def test_what_a_killed_process_left_is_removed(cache):
    import os

    cache.mkdir()
    old, new = cache / "old.part", cache / "new.part"
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (1, 1))
    features.extract(backbone(), data(), progress=False)
    assert not old.exists() and new.exists()


def test_wrong_images_are_refused():
    of = data()
    grey = datasets.Dataset(
        "grey", "own", "0" * 64, datasets.Split(of.train.images / 255.0, of.train.labels), of.val, None, (), ""
    )
    with pytest.raises(ValueError, match="looks like 0-1"):
        features.extract(backbone(), grey, progress=False)


def test_a_file_that_vanishes_while_it_is_opened_is_not_called_damaged(tmp_path, capsys, monkeypatch):
    path = tmp_path / "kept.npz"
    np.savez(path, features=np.zeros((3, 2), np.float32))
    load = np.load

    def vanishing(file, **how):
        path.unlink()  # another process, between two steps of this one
        return load(file, **how)

    monkeypatch.setattr(np, "load", vanishing)
    assert features._read(path, 3) is None and capsys.readouterr().err == ""


def test_two_processes_at_once(cache):
    code = textwrap.dedent("""
        import sys, threading
        sys.path.insert(0, "tests")
        import numpy as np
        import test_features as t
        from tl_helpers import features
        of, found = t.data((40, 9, 9)), []
        for round in range(8):
            for path in (features.runtime.cache_folder() / "features").glob("*.npz"):
                path.unlink(missing_ok=True)
            found.append(features.extract(t.backbone(), of, batch_size=16, progress=False).train.images)
        assert all(np.allclose(found[0], f) for f in found)
    """)
    from pathlib import Path

    root = Path(__file__).resolve().parents[1]
    running = [
        subprocess.Popen([sys.executable, "-c", code], cwd=root, stderr=subprocess.PIPE, text=True) for _ in range(2)
    ]
    for process in running:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
        assert "damaged" not in errors
    assert not list(cache.glob("*.part"))


def test_standardise_does_not_let_a_dead_feature_explode():
    rng = np.random.default_rng(0)
    train, other = (rng.normal(3, 2, (n, 4)).astype(np.float32) for n in (200, 50))
    train[:, 2], labels = 0.0, np.zeros(200, int)
    parts = datasets.Split(train, labels), datasets.Split(other, labels[:50]), None
    scaled = features.standardise(datasets.Dataset("made", "own", "0" * 64, *parts, ("a",), "none"))
    alive = scaled.train.images[:, [0, 1, 3]]
    np.testing.assert_allclose(alive.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(alive.std(0), 1, rtol=1e-5)
    assert np.abs(scaled.val.images[:, 2]).max() < 100 and scaled.test is None
