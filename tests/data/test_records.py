"""Images that stay on disk equal those read into memory, in any order."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plasticity_jax.data import datasets, tfds
from plasticity_jax.data.records import Records
from plasticity_jax.errors import DataError
from tests.support import prepared

CLASSES = [f"class{i}" for i in range(7)]
SIZES = ((16, 16), (20, 16), (17, 30))
WAYS = {
    "plain": {},
    "held out": {"holdout": 0.2, "test_split": "none"},
    "joined": {"name": "varied+varied"},
    "another test split": {"test_split": "validation"},
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    place = tmp_path_factory.mktemp("prepared")
    splits = {"train": (90, 0), "test": (30, 1), "validation": (20, 2)}
    sets = {split: prepared.noise(count, 7, SIZES, seed) for split, (count, seed) in splits.items()}
    prepared.write(place, "varied", sets, CLASSES)
    return place


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield patch


def load(root, images, name="varied", **fields):
    return datasets.load(name, str(root), resize=12, images=images, **fields)


@pytest.fixture(scope="module")
def both(root):
    return {way: [load(root, place, **fields) for place in ("host", "disk")] for way, fields in WAYS.items()}


@pytest.mark.parametrize("way", WAYS)
def test_all_that_is_known_of_them_is_the_same(both, way):
    memory, disk = both[way]
    assert isinstance(disk.train_images, Records) and isinstance(disk.test_images, Records)
    for name in ("sha256", "mean", "std", "classes", "shape", "tests", "members", "notes"):
        assert getattr(disk, name) == getattr(memory, name), name
    for split in ("train", "test"):
        np.testing.assert_array_equal(getattr(disk, f"{split}_labels"), getattr(memory, f"{split}_labels"))
        images = getattr(disk, f"{split}_images")
        assert (images.shape, images.nbytes, len(images)) == (
            (stored := getattr(memory, f"{split}_images")).shape,
            stored.nbytes,
            len(stored),
        )
        np.testing.assert_array_equal(images[:], stored)


@pytest.mark.parametrize("way", WAYS)
@given(st.lists(st.integers(0, 71), max_size=90))
def test_any_images_in_any_order(both, way, indices):
    memory, disk = both[way]
    chosen = np.asarray(indices, np.int32)
    np.testing.assert_array_equal(disk.train_images[chosen], memory.train_images[chosen])


def test_only_the_first_start_looks_at_all_of_them(root, both, monkeypatch):
    looked, real = [], Records.__getitem__
    monkeypatch.setattr(Records, "__getitem__", lambda self, chosen: looked.append(chosen) or real(self, chosen))
    monkeypatch.setattr(tfds, "_stack", None)
    for way, fields in WAYS.items():
        again = load(root, "disk", **fields)
        assert (again.sha256, again.mean) == (both[way][1].sha256, both[way][1].mean)
        np.testing.assert_array_equal(again.train_labels, both[way][1].train_labels)
    assert not looked


def test_images_that_memory_has_no_room_for_stay_on_disk(root, monkeypatch):
    assert isinstance(load(root, "auto").train_images, np.ndarray)
    most = (90 + 30 + 20) * 12 * 12 * 3

    class Memory:
        available = most

    monkeypatch.setattr(tfds.psutil, "virtual_memory", lambda: Memory)
    assert isinstance(load(root, "auto").train_images, np.ndarray)
    Memory.available = most - 1
    assert isinstance(load(root, "auto").train_images, Records)


def refused(call, *parts):
    with pytest.raises(DataError) as caught:
        call()
    line = str(caught.value)
    assert "\n" not in line and all(part in line for part in parts), line


def test_what_cannot_be_read_from_disk_is_refused_in_one_line(root, tmp_path, monkeypatch):
    refused(lambda: datasets.load("digits", images="disk"), "digits", "config.images=host")
    refused(lambda: datasets.load("varied", str(root), images="disk"), "differ in size", "config.resize=SIDE")
    other = {"train": prepared.noise(9, 7, SIZES[:1]), "test": prepared.noise(7, 7, SIZES[:1])}
    prepared.write(tmp_path, "lost", other, CLASSES)
    lost = datasets.load("lost", str(tmp_path), images="disk")
    (file,) = tmp_path.glob("lost/*/*train.array_record*")
    file.write_bytes(b"")
    refused(
        lambda: lost.train_images[np.arange(3)] if not file.unlink() else None,
        "lost",
        "split train",
        "prepare it again",
    )
