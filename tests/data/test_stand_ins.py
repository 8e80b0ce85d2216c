"""Stand-ins with the shapes of data sets that need not be downloaded."""

import numpy as np
import pytest

from plasticity_jax.data import contents, datasets, stand_ins
from plasticity_jax.errors import DataError


def test_a_known_set_has_its_size_and_its_classes():
    dataset = stand_ins.load("cifar10", "/nonexistent")
    assert dataset.train_images.shape == (50_000, 32, 32, 3) and dataset.test_images.shape == (10_000, 32, 32, 3)
    assert (dataset.train_images.dtype, dataset.classes, dataset.tests) == (np.uint8, 10, 10_000)
    assert np.bincount(dataset.train_labels).tolist() == [5_000] * 10
    assert (dataset.mean, dataset.std) == (contents.CIFAR10_MEAN, contents.CIFAR10_STD)


def test_sets_are_joined_as_ever(monkeypatch):
    small = {"a": stand_ins.Size(20, 4, (8, 8, 1), 3), "b": stand_ins.Size(10, 6, (8, 8, 1), 2)}
    monkeypatch.setattr(stand_ins, "SIZES", small)
    dataset = stand_ins.load("a+b:1.0.0")
    assert (len(dataset.train_labels), len(dataset.test_labels), dataset.classes, dataset.name) == (
        30,
        10,
        5,
        "a+b:1.0.0",
    )
    assert dataset.span(2).classes == (3, 5)


def test_imagenet_takes_no_memory_here():
    dataset = stand_ins.load("imagenet2012+caltech_birds2011", "", 0.0, 0, "validation+test", 256, 224)
    assert dataset.train_images.shape == (1_281_167 + 5_994, 256, 256, 3) and dataset.shape == (224, 224, 3)
    assert dataset.train_images.strides == (0, 0, 0, 0) and dataset.classes == 1200
    assert dataset.span(2).train == (1_281_167, 1_281_167 + 5_994) and dataset.span(2).classes == (1000, 1200)
    assert dataset.test_labels[50_000:].min() == 1000 and dataset.train_labels[:2].tolist() == [0, 1]
    with pytest.raises(DataError, match="imagenet2012: images differ in size; config.resize=SIDE"):
        stand_ins.load("imagenet2012")


def test_other_sets_are_read(tmp_path):
    assert stand_ins.load("digits").sha256 == datasets.load("digits").sha256
    with pytest.raises(DataError, match="no_such_set"):
        stand_ins.load("no_such_set", str(tmp_path))
    with pytest.raises(DataError):  # there is no training set to hold out from
        stand_ins.load("digits", holdout=0.5)
