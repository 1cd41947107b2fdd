"""Folding batch norm and keeping weights at 8 bits."""

import keras
import numpy as np
import pytest

from tl_helpers import backbones, packing, runtime, source_model
from tl_helpers.downloads import DataRefused

BLOCKS = ((2, 4), (1, 8))


@pytest.fixture(scope="module")
def trained():
    """A small network with batch norm whose statistics and weights are all away from their first values."""
    runtime.set_seed(0)
    model = source_model.build_vgg16_bn(5, blocks=BLOCKS)
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if "_bn" in layer.name:
            gamma, beta, mean, variance = (rng.normal(size=w.shape) for w in layer.weights)
            layer.set_weights([gamma, beta, mean, variance**2 + 0.1])
    return model


def plain() -> keras.Model:
    """The same network without batch norm."""
    images = keras.Input((None, None, 3))
    x = backbones.Preprocessing(("caffe",), name="preprocessing")(images)
    for b, (count, channels) in enumerate(BLOCKS, 1):
        for i in range(1, count + 1):
            x = keras.layers.Conv2D(channels, 3, padding="same", activation="relu", name=f"block{b}_conv{i}")(x)
        x = keras.layers.MaxPooling2D()(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(images, keras.layers.Dense(5, name="head")(x))


def images(n: int = 6) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (n, 8, 8, 3)).astype(np.uint8)


def test_a_folded_model_gives_equal_outputs(trained):
    folded = plain()
    packing.assign(folded, packing.fold_model(trained))
    expected = trained.predict(images(), verbose=0)
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(
        folded.predict(images(), verbose=0), expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max()
    )


def test_the_folded_source_model_is_the_vgg16_of_keras():
    runtime.set_seed(0)
    trained = source_model.build_vgg16_bn(3)
    rng = np.random.default_rng(0)
    for layer in trained.layers:
        if "_bn" in layer.name:
            layer.set_weights([rng.uniform(0.5, 1.5, w.shape) for w in layer.weights])
    inside = keras.Model(trained.input, trained.get_layer("avg_pool").output)
    pixels = rng.integers(0, 256, (2, 32, 32, 3)).astype(np.uint8)
    expected = inside.predict(pixels, verbose=0)
    plain_vgg16 = backbones.vgg16(weights=None)
    packing.assign(plain_vgg16, packing.fold_model(trained))
    np.testing.assert_allclose(plain_vgg16.predict(pixels, verbose=0), expected, rtol=1e-4, atol=1e-4)
    assert expected.max() > 0.1


def test_folding_takes_in_a_bias_too():
    images_in = keras.Input((6, 6, 2))
    x = keras.layers.Conv2D(3, 3, name="block1_conv1", bias_initializer="ones")(images_in)
    model = keras.Model(images_in, keras.layers.BatchNormalization(name="block1_bn1")(x))
    model.get_layer("block1_bn1").set_weights([np.full(3, v, np.float32) for v in (2.0, 0.5, 0.3, 4.0)])
    convolution = keras.Sequential([keras.Input((6, 6, 2)), keras.layers.Conv2D(3, 3, name="block1_conv1")])
    packing.assign(convolution, packing.fold_model(model))
    x = np.random.default_rng(0).normal(size=(2, 6, 6, 2)).astype(np.float32)
    np.testing.assert_allclose(convolution.predict(x, verbose=0), model.predict(x, verbose=0), atol=1e-5)


def test_folding_by_hand():
    kernel, bias = packing.fold_batch_norm(
        np.ones((1, 1, 1, 2)),
        np.array([2.0, 1.0]),
        np.array([1.0, 0.0]),
        np.array([3.0, 0.0]),
        np.array([3.0, 0.0]),
        epsilon=1.0,
    )
    np.testing.assert_allclose(kernel.ravel(), [1.0, 1.0])
    np.testing.assert_allclose(bias, [-2.0, 0.0])
    with pytest.raises(ValueError, match=r"gamma must have shape \(2,\).*Received: \(3,\)"):
        packing.fold_batch_norm(np.ones((1, 1, 1, 2)), np.ones(3), np.ones(2), np.ones(2), np.ones(2), 1e-3)


def test_quantising_is_off_by_half_a_scale_at_most():
    kernel = np.random.default_rng(0).normal(size=(3, 3, 4, 6)).astype(np.float32) * np.array([1, 10, 0.1, 1, 1, 0])
    integers, scale = packing.quantize(kernel)
    assert integers.dtype == np.int8 and np.abs(integers.astype(int)).max() == 127 and scale.shape == (6,)
    assert (np.abs(packing.dequantize(integers, scale) - kernel) <= scale / 2 + 1e-7).all()
    again, _ = packing.quantize(packing.dequantize(integers, scale))
    np.testing.assert_array_equal(again, integers)


def test_packing_and_loading_again(trained, tmp_path):
    path = tmp_path / "small.npz"
    path.with_suffix(".md").write_text(
        "# Card\n<!-- facts: written by packing.pack -->\nold\n<!-- end of facts -->\nLimits\n"
    )
    sha256 = packing.pack(trained, path, ["a", "b", "c", "d", "e"], {"Training": "none"})
    weights, expected = packing.load(path), packing.fold_model(trained)
    assert list(weights["class_names"]) == ["a", "b", "c", "d", "e"]
    assert weights.keys() - {"class_names"} == expected.keys()
    for name, value in expected.items():
        assert weights[name].dtype == np.float32
        np.testing.assert_allclose(weights[name], value, atol=np.abs(value).max() / 250)
    assert packing.sums(tmp_path) == {"small.npz": sha256}
    card = path.with_suffix(".md").read_text()
    assert sha256 in card and "| Training | none |" in card and "old" not in card and card.endswith("Limits\n")
    assert packing.pack(trained, path, ["a", "b", "c", "d", "e"], {"Training": "none"}) == sha256
    assert sorted(p.name for p in tmp_path.iterdir()) == ["SHA256SUMS", "small.md", "small.npz"]


@pytest.mark.parametrize("fault", ["cut", "flipped", "missing", "unlisted"])
def test_a_damaged_file_is_refused(fault, tmp_path):
    path = tmp_path / "w.npz"
    sha256 = packing.save(path, {"head/kernel": np.ones((2, 3)), "head/bias": np.zeros(3)})
    content = path.read_bytes()
    if fault == "cut":
        path.write_bytes(content[:-10])
    elif fault == "flipped":
        path.write_bytes(content[:50] + bytes([content[50] ^ 1]) + content[51:])
    elif fault == "missing":
        path.unlink()
    else:
        (tmp_path / packing.SUMS).unlink()
    says = {
        "unlisted": "has no line in .*Received: no hash.*again",
        "missing": f"cannot be read.*Expected SHA-256 {sha256}.*again",
    }
    with pytest.raises(DataRefused, match=says.get(fault, f"damaged.*Expected SHA-256 {sha256}. Received: .*again")):
        packing.load(path)


def test_loading_names_the_weight_that_does_not_fit(trained, tmp_path):
    weights = packing.fold_model(trained)
    weights["head/kernel"] = weights["head/kernel"][:, :3]
    with pytest.raises(ValueError, match=r"head/kernel needs weights of shape \(8, 5\)\. Received: \(8, 3\)"):
        packing.assign(plain(), weights)
