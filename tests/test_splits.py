"""Splits: fixed, disjoint, stratified; fewer labels, fewer classes, a reader's own arrays."""

import dataclasses
import itertools

import numpy as np
import pytest
from local_server import sha256

from tl_helpers import datasets
from tl_helpers.downloads import DataRefused


def seen(split):
    """The pictures of a part, without their order."""
    return {image.tobytes() for image in split.images}


def test_digits_are_split_as_promised_and_never_change():
    data = datasets.load("digits")
    assert data.sizes() == {"train": 1097, "val": 300, "test": 400}
    assert data.identity() == {
        "name": "digits",
        "copy": "embedded",
        "sha256": "a12ceebeda07d9f7676c1b7bffad80ace03f24174c4bd8877eff489c425bab14",
    }
    assert data.train.images.dtype == np.uint8 and data.train.images.min() == 0 and data.train.images.max() == 255
    whole = np.bincount(np.concatenate([s.labels for s in (data.train, data.val, data.test)]))
    for split in (data.train, data.val, data.test):
        assert np.abs(np.bincount(split.labels) - whole * len(split) / 1797).max() < 1
    parts = [seen(split) for split in (data.train, data.val, data.test)]
    assert [len(part) for part in parts] == [1097, 300, 400], "no picture twice in a part"
    assert not any(one & other for one, other in itertools.combinations(parts, 2))
    assert sha256(data.test.images.tobytes())[:8] == "aaaf977a"


def test_the_cifar_split_is_stratified_disjoint_and_fixed():
    """In the spec's own split; each picture is its row number here."""
    rows, labels = np.arange(50_000, dtype="<i4")[:, None], np.repeat(np.arange(10), 5000)
    arrays = {"x_train": rows, "y_train": labels, "x_test": rows[:10], "y_test": labels[:10]}
    parts = datasets.spec("cifar10").split(arrays)
    assert np.bincount(parts["val"].labels).tolist() == [500] * 10
    assert sorted(np.concatenate([parts["train"].images, parts["val"].images]).ravel()) == list(range(50_000))
    found = sha256(parts["val"].images.tobytes())
    assert found == "a1122012ec82922db806d1175f057957480fe47eff787a5f81338379eb791e9a"
    np.testing.assert_array_equal(parts["test"].images, rows[:10])


def test_stratified_sets_take_the_sizes_asked_for():
    labels = np.random.default_rng(0).integers(0, 7, 501)
    sets = datasets.stratified(labels, [100, 33])
    assert [len(rows) for rows in sets] == [100, 33, 368]
    assert len(np.unique(np.concatenate(sets))) == 501


@pytest.mark.parametrize(
    ("labels", "sizes"), [([0, 1, 2], [1, 2]), (np.arange(10), [5, 5]), ([0, 0, 0, 1], [1, 1, 1, 1]), ([0, 1], [0, 2])]
)
def test_a_class_that_earlier_sets_emptied_leaves_its_place_to_others(labels, sizes):
    sets = datasets.stratified(np.array(labels), sizes)
    assert [len(rows) for rows in sets] == [*sizes, len(labels) - sum(sizes)]
    assert sorted(np.concatenate(sets)) == list(range(len(labels)))


def test_more_rows_than_there_are_cannot_be_drawn():
    for wrong in ([3, 2], [-1, 2]):
        with pytest.raises(ValueError, match="together at most 4.*Received"):
            datasets.stratified(np.array([0, 0, 1, 1]), wrong)


def test_loaded_arrays_cannot_be_changed_by_accident():
    data = datasets.load("digits")
    for array in (data.train.images, data.val.labels, data.test.images):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


def test_few_draws_as_many_of_each_class_by_the_seed():
    data = datasets.load("digits")
    ten = data.few(10, seed=0)
    assert np.bincount(ten.train.labels).tolist() == [10] * 10
    assert ten.sizes() == {"train": 100, "val": 300, "test": 400} and ten.identity() == data.identity()
    assert seen(data.few(10, seed=0).train) == seen(ten.train)
    assert seen(ten.train) < seen(data.few(50, seed=0).train), "for one seed, fewer labels are among the more"
    assert seen(data.few(10, seed=1).train) != seen(ten.train)
    for wrong in (0, -1, 5000):
        with pytest.raises(ValueError, match=f"labels_per_class must be from 1 to .*Received: {wrong}"):
            data.few(wrong, seed=0)


def test_few_names_a_class_that_train_does_not_hold():
    data = datasets.load("digits")
    without = dataclasses.replace(data, train=data.train.take(data.train.labels != 3))
    with pytest.raises(ValueError, match=r"Received: none of three; leave such classes out with only\(...\)"):
        without.few(10, seed=0)
    assert len(without.only([0, 1]).few(10, seed=0).train) == 20


def test_shorten_keeps_the_first_of_what_is_looked_at_and_all_to_train_on():
    data = datasets.load("digits")
    short = data.shorten(val=10, test=20)
    for part, count in (("val", 10), ("test", 20)):
        np.testing.assert_array_equal(getattr(short, part).images, getattr(data, part).images[:count])
        np.testing.assert_array_equal(getattr(short, part).labels, getattr(data, part).labels[:count])
    assert short.train is data.train and short.identity() == data.identity()
    assert data.shorten().sizes() == data.sizes() == data.shorten(val=9999, test=9999).sizes()
    assert dataclasses.replace(data, test=None).shorten(val=5, test=5).sizes() == {
        "train": 1097,
        "val": 5,
        "test": None,
    }


def test_only_keeps_classes_and_numbers_them_anew():
    data = datasets.load("digits")
    two = data.only(["seven", 1])
    assert two.class_names == ("seven", "one") and set(two.val.labels) == {0, 1}
    np.testing.assert_array_equal(two.test.images[two.test.labels == 0], data.test.images[data.test.labels == 7])
    assert sum(two.sizes().values()) == sum((s.labels % 6 == 1).sum() for s in (data.train, data.val, data.test))
    for wrong in ([], [1, "one"], [10], ["eleven"], [-1]):
        with pytest.raises(ValueError, match="Received"):
            data.only(wrong)


def test_a_split_flattens_columns_of_labels_and_wants_one_for_each_image():
    split = datasets.Split(np.zeros((4, 8, 8, 3), np.uint8), np.array([[1], [2], [3], [0]]))
    assert split.labels.shape == (4,) and split.labels.dtype == np.int32 and len(split) == 4
    images, labels = split.take(np.array([2, 0]))
    assert labels.tolist() == [3, 1] and images.shape == (2, 8, 8, 3)
    with pytest.raises(ValueError, match="Received: 4 images, 3 labels"):
        datasets.Split(np.zeros((4, 2)), np.zeros(3, int))


def test_own_arrays_become_a_data_set():
    labels = np.tile(np.arange(10), 10).astype(np.int32)
    images = np.random.default_rng(0).integers(0, 256, (100, 32, 32, 3), np.uint8)

    def make(x=images, y=labels, val=images[:5], test=None):
        return datasets.from_arrays("mine", (x, y), (val, labels[:5]), test, class_names=datasets.CIFAR10_CLASSES)

    data = make(y=labels[:, None])
    assert data.copy == "own" and data.test is None and data.sizes() == {"train": 100, "val": 5, "test": None}
    assert data.only(["cat"]).sizes()["test"] is None
    assert make().sha256 == data.sha256 != make(x=images ^ 1).sha256
    for wrong, says in [
        ({"x": images[..., :1]}, "Grey"),
        ({"x": images / 255}, "Floats"),
        ({"y": np.eye(10)[labels]}, "One-hot"),
        ({"y": labels + 1}, "from 0 to 9. Received: 1 to 10"),
        ({"val": images[:5, :28, :28]}, "val images must have the size of those in train, 32 x 32 .*28 x 28; resize"),
        ({"test": (images[:9, :16], labels[:9])}, "test images must have the size .*Received: 16 x 32"),
    ]:
        with pytest.raises(DataRefused, match=says):
            make(**wrong)
