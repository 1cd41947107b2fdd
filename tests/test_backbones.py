"""Backbones: weights, preprocessing inside the model, refused pixels."""

from dataclasses import replace

import keras
import numpy as np
import pytest
from local_server import answer

from tl_helpers import (
    backbones,
    datasets,
    downloads,
    evaluation,
    models,
    packing,
    recipes,
    runtime,
    training,
    weight_files,
)

APPLICATIONS = {
    "vgg16": keras.applications.vgg16,
    "resnet50": keras.applications.resnet50,
    "mobilenet-1.0": keras.applications.mobilenet,
    "mobilenet-0.5": keras.applications.mobilenet,
}
REAL = runtime.data_folder()  # read before a test sets its own


def pixels(n: int = 3, side: int = 32) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, side, side, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def vgg16():
    return backbones.vgg16()


def test_pixels_in_a_wrong_range_are_refused_in_training_and_prediction(vgg16):
    model = models.transfer_model(vgg16, 10)
    data = datasets.load("digits").few(2, seed=0).shorten(val=20, test=20)
    scaled = replace(data, train=replace(data.train, images=(data.train.images / 255).astype(np.float32)))
    recipe = recipes.Recipe(epochs=1)
    with pytest.raises(ValueError, match="looks like 0-1"):
        training.fit(model, scaled, recipe, experiment="demo", arm="a", seed=0, progress=False)
    for wrong in (scaled.train.images, data.test.images.astype(np.float32) - 120, data.test.images[..., :1]):
        with pytest.raises(ValueError, match="0-255|RGB"):
            evaluation.logits(model, wrong)
    assert evaluation.logits(model, data.test.images[:2].astype(np.float32)).shape == (2, 10)


def test_a_model_inside_a_model_wants_pixels_too():
    images = keras.Input((None, None, 3))
    inner = keras.Model(images, backbones.Preprocessing(("tf",))(images))
    outer = keras.Sequential([keras.Input((8, 8, 3)), inner, keras.layers.GlobalAveragePooling2D()])
    with pytest.raises(ValueError, match="looks like 0-1"):
        evaluation.logits(outer, np.full((1, 8, 8, 3), 0.5, np.float32))


def test_enlarging_is_bilinear():
    ramp = np.repeat(np.array([[[0, 200]] * 2], np.uint8)[..., None], 3, -1)
    larger = keras.ops.convert_to_numpy(backbones.Preprocessing(("unit",), resolution=4)(ramp)) * 255
    np.testing.assert_allclose(larger[0, 0, :, 0], [0, 50, 150, 200], atol=1e-3)


@pytest.mark.parametrize("name", backbones.names())
def test_own_preprocessing_equals_keras_applications(name):
    expected = APPLICATIONS[name].preprocess_input(pixels().astype(np.float32))
    layer = backbones.Preprocessing((backbones.spec(name).mode,))
    np.testing.assert_allclose(keras.ops.convert_to_numpy(layer(pixels())), expected, atol=1e-5)


def test_torch_preprocessing_equals_keras_applications():
    expected = keras.applications.imagenet_utils.preprocess_input(pixels().astype(np.float32), mode="torch")
    got = keras.ops.convert_to_numpy(backbones.Preprocessing(("torch",))(pixels()))
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_the_deliberate_failures():
    unit = keras.ops.convert_to_numpy(backbones.Preprocessing(("unit",))(pixels()))
    np.testing.assert_allclose(unit, pixels() / 255.0, atol=1e-6)
    own = keras.applications.mobilenet.preprocess_input
    model = backbones.build("mobilenet-0.5", weights=None, preprocessing="twice")
    inside = keras.Model(model.input, model.get_layer("preprocessing").output)
    np.testing.assert_allclose(inside.predict(pixels(), verbose=0), own(pixels() / np.float32(255)), atol=1e-5)


@pytest.mark.parametrize("name", backbones.names())
def test_a_spec_holds_what_belongs_to_the_weights(name):
    of = backbones.spec(name)
    assert of.input_range == (0, 255) and of.paper and of.licence and of.smallest == 32
    for weights in of.weights.values():
        assert weights.licence and weights.file and weights.resolution >= 32
        assert weights.hash is None or weights.hash.split(":")[0] in ("sha256", "md5")


@pytest.mark.parametrize("name", ["vgg16", "mobilenet-0.5", "resnet50"])
def test_a_built_backbone_is_flat_and_gives_features_of_its_size(name):
    model = backbones.build(name, weights=None)
    assert model.output_shape == (None, backbones.spec(name).feature_size)
    assert not any(isinstance(layer, keras.Model) for layer in model.layers)
    last = {"vgg16": "block5_conv3", "mobilenet-0.5": "conv_pw_13", "resnet50": "conv5_block3_3_conv"}[name]
    assert model.get_layer(last).weights and model.get_layer("preprocessing").steps == (backbones.spec(name).mode,)
    assert backbones.weights_identity(model) is None


def test_the_embedded_weights_load(vgg16):
    listed = packing.sums(backbones.EMBEDDED.parent)[backbones.EMBEDDED.name]
    assert backbones.weights_identity(vgg16) == {"name": "tiny-imagenet", "sha256": listed}
    kept = packing.load(backbones.EMBEDDED)
    np.testing.assert_array_equal(vgg16.get_layer("block5_conv1").get_weights()[0], kept["block5_conv1/kernel"])
    features = vgg16.predict(pixels(), verbose=0)
    assert features.shape == (3, 512) and np.isfinite(features).all() and features.std(0).max() > 0
    assert backbones.EMBEDDED.stat().st_size <= 16e6


def test_the_embedded_model_is_plain_vgg16(vgg16):
    reference = keras.applications.VGG16(include_top=False, weights=None, input_shape=(32, 32, 3), pooling="avg")
    packing.assign(reference, packing.load(backbones.EMBEDDED))
    expected = reference.predict(keras.applications.vgg16.preprocess_input(pixels().astype(np.float32)), verbose=0)
    np.testing.assert_allclose(vgg16.predict(pixels(), verbose=0), expected, atol=1e-4)


def test_the_source_classifier_names_its_classes():
    model, class_names = backbones.source_classifier()
    assert model.output_shape == (None, 200) and len(set(class_names)) == 200 and "Egyptian cat" in class_names
    assert backbones.weights_identity(model)["name"] == "tiny-imagenet"


def test_resolution_is_part_of_the_model():
    model = backbones.build("mobilenet-0.5", weights=None, resolution=64, pooling=None)
    assert model.predict(pixels(side=20), verbose=0).shape == (3, 2, 2, 512)


def test_too_small_images_are_refused():
    model = backbones.build("mobilenet-0.5", weights=None)
    with pytest.raises(ValueError, match=r"at least 32 pixels a side\. Received: 16.*resolution"):
        model.predict(pixels(side=16), verbose=0)


def test_a_saved_model_loads_with_its_preprocessing(tmp_path):
    images = keras.Input((None, None, 3))
    x = backbones.Preprocessing(("unit", "caffe"), resolution=8, smallest=4, name="preprocessing")(images)
    model = keras.Model(images, keras.layers.Conv2D(2, 3)(x))
    model.save(tmp_path / "m.keras")
    again = keras.saving.load_model(tmp_path / "m.keras")
    assert again.get_layer("preprocessing").steps == ("unit", "caffe")
    np.testing.assert_allclose(
        again.predict(pixels(side=6), verbose=0), model.predict(pixels(side=6), verbose=0), atol=1e-6
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: backbones.build("vgg19"), "backbone must be one of vgg16, .*Received: 'vgg19'"),
        (
            lambda: backbones.build("vgg16", weights="cifar"),
            "weights must be one of 'tiny-imagenet', .*Received: 'cifar'",
        ),
        (lambda: backbones.build("vgg16", weights=None, pooling="mean"), "pooling must be one of"),
        (lambda: backbones.build("vgg16", weights=None, preprocessing="none"), "preprocessing must be one of"),
        (lambda: backbones.mobilenet(0.75, weights=None), "backbone must be one of .*mobilenet-0.75"),
        (lambda: backbones.Preprocessing(("cafe",)), "must be among .*cafe"),
    ],
)
def test_unknown_choices_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((4, 32, 32), np.uint8), "looks grey"),
        (np.zeros((4, 32, 32, 1), np.uint8), "looks grey"),
        (np.zeros((4, 3, 32, 32), np.uint8), "colours last"),
        (np.zeros((4, 100), np.float32), "must have shape"),
        (np.full((1, 2, 2, 3), 0.7, np.float32), "looks like 0-1"),
        (np.full((1, 2, 2, 3), -3.0), "leave preprocessing to the model"),
        (np.full((1, 2, 2, 3), 300), "must be 0-255. Received: 300"),
        (np.where(np.arange(12).reshape(1, 2, 2, 3), 100, 255.5), "must be 0-255. Received: 100 to 255.5"),
        (np.where(np.arange(12).reshape(1, 2, 2, 3), 100, -0.5), "must be 0-255. Received: -0.5 to 100"),
        (np.full((1, 2, 2, 3), np.nan), "NaN"),
        (np.full((1, 2, 2, 3), "a"), "must be numbers"),
    ],
)
def test_wrong_pixels_are_refused(images, message):
    with pytest.raises(ValueError, match=message):
        backbones.check_pixels(images)


@pytest.mark.parametrize(
    "images", [pixels(), pixels().astype(np.float32), pixels().astype(np.int64), np.zeros((1, 2, 2, 3))]
)
def test_right_pixels_pass(images):
    assert backbones.check_pixels(images) is images


def test_weights_that_are_not_at_hand(tmp_path, monkeypatch):
    monkeypatch.setenv("TL_DATA", str(tmp_path))
    with pytest.raises(downloads.DataUnavailable, match="mobilenet_0.5_imagenet.weights.h5 .*TL_DATA"):
        backbones.mobilenet(0.5, weights="imagenet-q8-folded")


def mobilenet_from(server, monkeypatch):
    """The published MobileNet 0.5, its address replaced by one of the local server."""
    of = backbones.spec("mobilenet-0.5")
    there = replace(of.weights["imagenet"], url=f"{server.url}/{of.weights['imagenet'].file}")
    monkeypatch.setitem(backbones._SPECS, "mobilenet-0.5", replace(of, weights={"imagenet": there}))
    return f"/{there.file}"


def mobilenet_file(folder):
    """A weight file in the form and under the name in which Keras publishes them; and its model, of random weights."""
    from keras.src.legacy.saving import legacy_h5_format

    h5py = pytest.importorskip("h5py")
    original = keras.applications.MobileNet(
        alpha=0.5, include_top=False, weights=None, input_shape=(32, 32, 3), pooling="avg"
    )
    path = folder / backbones.spec("mobilenet-0.5").weights["imagenet"].file
    with h5py.File(path, "w") as file:
        legacy_h5_format.save_weights_to_hdf5_group(file, original)
    return path, original


def test_published_weights_are_downloaded_whole_or_not_at_all(server, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("TL_DATA", raising=False)
    monkeypatch.setenv("TL_CACHE", str(tmp_path / "cache"))
    page, body = mobilenet_from(server, monkeypatch), mobilenet_file(tmp_path)[0].read_bytes()
    with pytest.raises(downloads.DataUnavailable, match="HTTP 404(.|\n)*mobilenet_5_0_224_tf_no_top.h5"):
        backbones.mobilenet(0.5)
    server.pages[page] = lambda handler: answer(handler, body[:5000], len(body))  # breaks off; no hash is published
    with pytest.raises(downloads.DataUnavailable, match="could not be downloaded"):
        backbones.mobilenet(0.5)
    assert [p for p in (tmp_path / "cache").rglob("*") if p.is_file()] == []
    server.pages[page] = body
    asked = len(server.asked)
    assert backbones.weights_identity(backbones.mobilenet(0.5)) == backbones.weights_identity(backbones.mobilenet(0.5))
    assert len(server.asked) == asked + 1, "the second time it comes from the cache"
    told = capsys.readouterr()
    assert told.out == "" and "non-commercial research" in told.err, (
        "terms are told before the download, outside the page"
    )


def test_official_weights_placed_by_hand(tmp_path, monkeypatch):
    path, original = mobilenet_file(tmp_path)
    assert path.name == "mobilenet_5_0_224_tf_no_top.h5"
    monkeypatch.setenv("TL_DATA", str(tmp_path))
    model = backbones.mobilenet(0.5)
    expected = original.predict(keras.applications.mobilenet.preprocess_input(pixels().astype(np.float32)), verbose=0)
    np.testing.assert_allclose(model.predict(pixels(), verbose=0), expected, atol=1e-5)
    assert backbones.weights_identity(model) == {"name": "imagenet", "sha256": downloads.digest(path)}
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(downloads.DataRefused, match="holds no weights"):
        backbones.mobilenet(0.5)


def test_no_byte_changed_in_a_weight_file_escapes_as_another_error(tmp_path):
    inputs = keras.Input((4,))
    model, path = keras.Model(inputs, keras.layers.Dense(3)(inputs)), tmp_path / "m.weights.h5"
    model.save_weights(path)
    whole, refused = path.read_bytes(), 0
    for place in [*range(100), *range(100, len(whole), 97)]:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        try:
            weight_files._load_file(model, path)
        except downloads.DataRefused as error:
            refused += "m.weights.h5 holds no weights for" in str(error)
    assert refused > 20


def test_a_wrong_file_placed_by_hand_is_refused(tmp_path, monkeypatch):
    (tmp_path / "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5").write_bytes(b"an error page")
    monkeypatch.setenv("TL_DATA", str(tmp_path))
    with pytest.raises(downloads.DataRefused, match="6d6bbae143d832006294945121d1f1fc.*Received"):
        backbones.vgg16(weights="imagenet")


def test_the_folded_mobilenet_loads(monkeypatch):
    if REAL is None or not (REAL / "mobilenet_0.5_imagenet.weights.h5").is_file():
        pytest.skip("mobilenet_0.5_imagenet.weights.h5 is not in TL_DATA")
    monkeypatch.setenv("TL_DATA", str(REAL))
    model = backbones.mobilenet(0.5, weights="imagenet-q8-folded")
    mean, variance = model.get_layer("conv_pw_13_bn").get_weights()[2:]
    assert not mean.any() and (variance == 1).all() and model.get_layer("conv_pw_13_bn").get_weights()[1].any()
    identity = backbones.weights_identity(model)
    assert identity["name"] == "imagenet-q8-folded" and identity["sha256"] == backbones.weights_hash(model)
