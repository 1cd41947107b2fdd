"""What moves in training and what does not, seen by really training a step."""

import keras
import numpy as np
import pytest

from tl_helpers import backbones, models, runtime


def small() -> keras.Model:
    """A backbone of two blocks with batch norm."""
    images = keras.Input((8, 8, 3))
    x = backbones.Preprocessing(("unit",), name="preprocessing")(images)
    for b in (1, 2):
        x = keras.layers.Conv2D(4, 3, name=f"block{b}_conv1")(x)
        x = keras.layers.BatchNormalization(name=f"block{b}_bn1")(x)
        x = keras.layers.Activation("relu", name=f"block{b}_relu1")(x)
    return keras.Model(images, keras.layers.GlobalAveragePooling2D(name="avg_pool")(x), name="small")


def step(model: keras.Model) -> list[str]:
    """Names of the weights that one step of training moves."""
    before = models.snapshot(model)
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (16, *model.input_shape[1:])), rng.integers(0, 3, 16)
    model.compile(keras.optimizers.SGD(0.1), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(images.astype(np.float32), labels, batch_size=16, verbose=0)
    return models.moved(model, before)


@pytest.fixture(autouse=True)
def seeded():
    runtime.set_seed(0)


def test_frozen_weights_stay_and_the_head_moves():
    model = models.freeze(models.transfer_model(small(), 3, hidden=5, dropout=0.1))
    assert step(model) == ["head_hidden/kernel", "head_hidden/bias", "head/kernel", "head/bias"]


def test_a_backbone_frozen_before_the_head_is_put_on():
    backbone = models.freeze(small())
    assert not backbone.trainable and not backbone.trainable_weights
    assert step(models.transfer_model(backbone, 3)) == ["head/kernel", "head/bias"]


def test_a_frozen_backbone_nested_in_a_model_of_ones_own():
    backbone = models.freeze(small())
    images = keras.Input((8, 8, 3))
    model = keras.Model(images, keras.layers.Dense(3, name="logits")(backbone(images)))
    assert step(model) == ["logits/kernel", "logits/bias"]


def test_unfreezing_a_block_spares_batch_norm_and_what_comes_before():
    model = models.unfreeze_from(models.freeze(models.transfer_model(small(), 3)), "block2")
    assert step(model) == ["block2_conv1/kernel", "block2_conv1/bias", "head/kernel", "head/bias"]


def test_frozen_again_after_unfreezing():
    backbone = small()
    model = models.transfer_model(backbone, 3)
    models.unfreeze_from(model, "block1")
    assert step(models.freeze(model)) == ["head/kernel", "head/bias"]


def test_from_scratch_everything_moves():
    model = models.transfer_model(small(), 3)
    expected = {
        name for name in models.snapshot(model) if not name.endswith("conv1/bias")
    }  # batch norm takes these away
    assert expected <= set(step(model))
    assert sum(name.endswith(("moving_mean", "moving_variance")) for name in expected) == 4


def test_a_frozen_batch_norm_works_as_in_inference():
    model = models.freeze(models.transfer_model(small(), 3))
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3)).astype(np.float32)
    training, inference = (keras.ops.convert_to_numpy(model(images, training=mode)) for mode in (True, False))
    np.testing.assert_allclose(training, inference, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "block", "last"), [("mobilenet-0.5", "conv_pw_13", "conv_pw_13"), ("vgg16", "block5", "block5_conv3")]
)
def test_unfreezing_real_backbones(name, block, last):
    model = models.transfer_model(backbones.build(name, weights=None), 10)
    models.unfreeze_from(models.freeze(model), block)
    training = [row["layer"] for row in models.trainable_report(model) if row["trainable"]]
    expected = {"mobilenet-0.5": ["conv_pw_13"], "vgg16": ["block5_conv1", "block5_conv2", "block5_conv3"]}[name]
    assert training == [*expected, "head", "total"] and last in training


def test_the_report_counts_weights():
    model = models.unfreeze_from(models.transfer_model(small(), 3), "block2_conv1")
    rows = {row["layer"]: row for row in models.trainable_report(model)}
    assert rows["block1_conv1"] == {"layer": "block1_conv1", "parameters": 3 * 3 * 3 * 4 + 4, "trainable": 0}
    assert rows["block2_conv1"]["trainable"] == rows["block2_conv1"]["parameters"] == 3 * 3 * 4 * 4 + 4
    assert rows["block2_bn1"] == {"layer": "block2_bn1", "parameters": 16, "trainable": 0}
    assert rows["total"]["parameters"] == model.count_params()
    assert rows["total"]["trainable"] == 148 + 15


def test_an_unknown_block_is_refused():
    with pytest.raises(
        ValueError, match=r"block must name a layer.*Received: 'block9'; its layers with weights: block1_conv1"
    ):
        models.unfreeze_from(small(), "block9")


def test_a_prefix_is_a_whole_word():
    model = backbones.build("mobilenet-0.5", weights=None)
    models.unfreeze_from(models.freeze(model), "conv_pw_1")
    assert model.get_layer("conv_pw_1").trainable and not model.get_layer("conv1").trainable


def test_a_snapshot_of_another_model_is_refused():
    with pytest.raises(ValueError, match="same model"):
        models.moved(small(), {"other/kernel": np.zeros(1)})


def test_a_snapshot_does_not_drop_weights_of_equal_names():
    images = keras.Input((8, 8, 3))
    other = small()
    other.name = "other"
    both = keras.Model(images, [small()(images), other(images)], name="both")
    with pytest.raises(
        ValueError, match="Received: both with two weights block1_conv1/kernel; take the snapshot of one"
    ):
        models.snapshot(both)
    one = small()  # the same layers met twice are no clash
    assert models.snapshot(keras.Model(images, [one(images), one(images)])).keys() == models.snapshot(one).keys()


@pytest.mark.parametrize(("shape", "parameters"), [(6, 6 * 4 + 4), ((6,), 6 * 4 + 4), ((2, 2, 6), 24 * 4 + 4)])
def test_heads_on_features(shape, parameters):
    model = models.head(shape, 4)
    assert model.count_params() == parameters and model.output_shape == (None, 4)
    assert model.layers[-1].activation is keras.activations.linear


def test_a_head_needs_an_output():
    with pytest.raises(ValueError, match="at least one output. Received: 0"):
        models.head(6, 0)


def test_the_same_seed_gives_the_same_head():
    heads = []
    for _ in range(2):
        runtime.set_seed(3)
        heads.append(models.head(6, 4, hidden=5).get_weights())
    for a, b in zip(*heads, strict=True):
        np.testing.assert_array_equal(a, b)
