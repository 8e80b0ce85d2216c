"""Data sets of a known size that need not be at hand."""

import numpy as np
import pytest

from plasticity_jax.data import datasets, stand_ins
from plasticity_jax.errors import DataError


def test_a_known_set_has_its_size_and_its_classes():
    found = stand_ins.load("cifar10", "/nonexistent")
    assert found.train_images.shape == (50_000, 32, 32, 3) and found.test_images.shape == (10_000, 32, 32, 3)
    assert (found.train_images.dtype, found.classes, found.tests) == (np.uint8, 10, 10_000)
    assert np.bincount(found.train_labels).tolist() == [5_000] * 10
    assert (found.mean, found.std) == (datasets.CIFAR10_MEAN, datasets.CIFAR10_STD)


def test_sets_are_joined_as_ever(monkeypatch):
    small = {"a": stand_ins.Size(20, 4, (8, 8, 1), 3), "b": stand_ins.Size(10, 6, (8, 8, 1), 2)}
    monkeypatch.setattr(stand_ins, "SIZES", small)
    found = stand_ins.load("a+b:1.0.0")
    assert (len(found.train_labels), len(found.test_labels), found.classes, found.name) == (30, 10, 5, "a+b:1.0.0")
    assert found.span(2).classes == (3, 5)


def test_other_sets_are_read(tmp_path):
    assert stand_ins.load("digits").sha256 == datasets.load("digits").sha256
    with pytest.raises(DataError, match="no_such_set"):
        stand_ins.load("no_such_set", str(tmp_path))
    with pytest.raises(DataError):  # held out of what?
        stand_ins.load("digits", holdout=0.5)
