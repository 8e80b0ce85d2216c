"""Data sets: what is read equals what was written, from every place, and every failure is one line."""

import functools
import importlib.metadata
import io
import json
import pathlib
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow_datasets as tfds
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from plasticity_jax.data import datasets, labels, resize
from plasticity_jax.data import tfds as prepared
from plasticity_jax.errors import DataError

CLASSES = 5


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Keeps the user's cache and the user's data sets out of the tests."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "default"))
    return tmp_path / "cache"


def write(
    root,
    seed=0,
    splits=(("train", 20), ("test", 10)),
    image=None,
    pictures=None,
    config=None,
    withheld=None,
    declared=CLASSES,
):
    """Prepare the TFDS set `tiny` in array_record format; returns {split: (images, labels)} in the written order."""
    image = image or tfds.features.Image(shape=(6, 7, 3))
    rng, wrote = np.random.default_rng(seed), {}
    for split, size in splits:
        drawn = pictures or list(rng.integers(0, 256, (size, 6, 7, 3), np.uint8))
        wrote[split] = (
            drawn,
            rng.permutation(np.arange(len(drawn)) % CLASSES) if split != withheld else [-1] * len(drawn),
        )

    class Tiny(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.2.3")
        BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=config)] if config else []
        pkg_dir_path = pathlib.Path(root)

        def _info(self):
            features = {"image": image, "label": tfds.features.ClassLabel(num_classes=declared)}
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features), disable_shuffling=True
            )

        def _split_generators(self, dl_manager):
            return {split: self._generate_examples(split) for split in wrote}

        def _generate_examples(self, split):
            for i, (picture, number) in enumerate(zip(*wrote[split], strict=True)):
                png = io.BytesIO()
                Image.fromarray(picture).save(png, "PNG")
                png.seek(0)
                yield i, {"image": png, "label": int(number)}

    Tiny(data_dir=str(root), file_format="array_record").download_and_prepare()
    return wrote


def assert_holds(data, wrote):
    np.testing.assert_array_equal(data.train_images, wrote["train"][0])
    np.testing.assert_array_equal(data.train_labels, wrote["train"][1])
    np.testing.assert_array_equal(data.test_images, wrote["test"][0])
    np.testing.assert_array_equal(data.test_labels, wrote["test"][1])


def refused(call, *parts):
    with pytest.raises(DataError) as caught:
        call()
    line = str(caught.value)
    assert "\n" not in line and len(line) < 600
    for part in parts:
        assert part in line
    return line


# ---- TFDS ----


def test_reads_what_was_prepared_as_tfds_itself_does(tmp_path):
    wrote = write(tmp_path / "data")
    data = datasets.load("tiny", str(tmp_path / "data"))
    assert_holds(data, wrote)
    source = tfds.data_source("tiny", split="train", data_dir=str(tmp_path / "data"))
    np.testing.assert_array_equal(data.train_images, [example["image"] for example in source])
    assert (data.name, data.version, data.classes) == ("tiny", "1.2.3", CLASSES)
    assert data.train_images.dtype == data.test_images.dtype == np.uint8
    assert data.train_labels.dtype == data.test_labels.dtype == np.int32
    assert data.mean == pytest.approx(data.train_images.reshape(-1, 3).mean(0) / 255)
    assert data.std == pytest.approx(data.train_images.reshape(-1, 3).std(0) / 255)


def test_reads_in_several_chunks(tmp_path, monkeypatch):
    wrote = write(tmp_path / "data")
    monkeypatch.setattr(prepared, "CHUNK", 7)
    assert_holds(datasets.load("tiny", str(tmp_path / "data")), wrote)


def test_default_directory_is_that_of_tfds(tmp_path, monkeypatch):
    wrote = write(tmp_path / "default")
    assert_holds(datasets.load("tiny", ""), wrote)
    monkeypatch.delenv("TFDS_DATA_DIR")
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "default").rename(tmp_path / "tensorflow_datasets")
    assert_holds(datasets.load("tiny", ""), wrote)
    assert_holds(datasets.load("tiny", "~/tensorflow_datasets"), wrote)


def test_version_and_config_can_be_named(tmp_path):
    wrote = write(tmp_path / "plain")
    assert_holds(datasets.load("tiny:1.2.3", str(tmp_path / "plain")), wrote)
    refused(lambda: datasets.load("tiny:9.0.0", str(tmp_path / "plain")), "tiny:9.0.0", str(tmp_path / "plain"))
    wrote = write(tmp_path / "data", config="small")
    data = datasets.load("tiny/small:1.2.3", str(tmp_path / "data"))
    assert_holds(data, wrote)
    assert data.name == "tiny/small"


def test_grey_images_keep_their_channel(tmp_path):
    pictures = list(np.random.default_rng(3).integers(0, 256, (8, 4, 4), np.uint8))
    write(tmp_path, image=tfds.features.Image(shape=(4, 4, 1)), pictures=pictures)
    data = datasets.load("tiny", str(tmp_path))
    np.testing.assert_array_equal(data.train_images[..., 0], pictures)
    assert len(data.mean) == len(data.std) == 1


@pytest.mark.long
def test_reading_needs_neither_tensorflow_nor_jax(tmp_path):
    write(tmp_path / "data")
    code = (
        "import sys; from plasticity_jax.data import datasets as d; d.load('digits', ''); "
        "assert 'tensorflow_datasets' not in sys.modules; "
        f"print(d.load('tiny', {str(tmp_path / 'data')!r}).classes); "
        "assert not {'jax', 'tensorflow'} & set(sys.modules), sorted(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, f"{CLASSES}\n"), done.stderr
    assert "Load dataset info" not in done.stderr


# ---- cache ----


def no_read(builder):
    raise AssertionError("the records were read")


def test_second_load_comes_from_the_cache(tmp_path, monkeypatch):
    wrote = write(tmp_path / "data")
    first = datasets.load("tiny", str(tmp_path / "data"))
    monkeypatch.setattr(prepared, "read", no_read)
    second = datasets.load("tiny", str(tmp_path / "data"))
    assert_holds(second, wrote)
    for field in ("name", "version", "classes", "mean", "std", "sha256"):
        assert getattr(first, field) == getattr(second, field)


def test_cache_never_answers_for_other_files(tmp_path, cache):
    first = write(tmp_path / "a", seed=1)
    other = write(tmp_path / "b", seed=2)
    assert_holds(datasets.load("tiny", str(tmp_path / "a")), first)
    assert_holds(datasets.load("tiny", str(tmp_path / "b")), other)
    shutil.rmtree(tmp_path / "a")
    changed = write(tmp_path / "a", seed=3)  # the same place, name and version
    assert_holds(datasets.load("tiny", str(tmp_path / "a")), changed)
    assert len(list((cache / "plasticity_jax" / "datasets").iterdir())) == 2  # one for each place


@pytest.mark.parametrize("damage", ["cut", "flip", "garbage", "empty"])
def test_damaged_cache_is_read_afresh_and_written_again(tmp_path, cache, monkeypatch, damage):
    wrote = write(tmp_path / "data")
    datasets.load("tiny", str(tmp_path / "data"))
    (file,) = (cache / "plasticity_jax" / "datasets").iterdir()
    content = file.read_bytes()
    middle = len(content) // 2
    flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
    file.write_bytes({"cut": content[:middle], "flip": flipped, "garbage": b"no zip", "empty": b""}[damage])
    assert_holds(datasets.load("tiny", str(tmp_path / "data")), wrote)
    monkeypatch.setattr(prepared, "read", no_read)
    assert_holds(datasets.load("tiny", str(tmp_path / "data")), wrote)


def test_cache_with_other_contents_is_read_afresh(tmp_path, cache):
    wrote = write(tmp_path / "data")
    datasets.load("tiny", str(tmp_path / "data"))
    (file,) = (cache / "plasticity_jax" / "datasets").iterdir()
    with np.load(file) as stored:
        contents = dict(stored)
    contents["train_labels"] = (contents["train_labels"] + 1) % CLASSES
    np.savez(file, **contents)
    assert_holds(datasets.load("tiny", str(tmp_path / "data")), wrote)


def test_cache_that_cannot_be_written_is_done_without(tmp_path, cache):
    wrote = write(tmp_path / "data")
    cache.write_text("a file where a directory should be")
    assert_holds(datasets.load("tiny", str(tmp_path / "data")), wrote)


# ---- what cannot be used ----


def test_what_is_not_prepared_fails_at_once_and_says_what_to_do(tmp_path):
    start = time.monotonic()
    refused(
        lambda: datasets.load("svhn_cropped", str(tmp_path)),
        f"tfds build svhn_cropped --file_format=array_record --data_dir={tmp_path}",
    )
    refused(
        lambda: datasets.load("cifar10_corrupted/brightness_1", str(tmp_path)), "build cifar10_corrupted/brightness_1 "
    )
    refused(lambda: datasets.load("mnist", str(tmp_path / "absent")), str(tmp_path / "absent"))
    refused(lambda: datasets.load("cifra10", ""), "cifra10", "nor known", str(tmp_path / "default"))
    for name in ("", "../x", "a b", "cifar10/", "tiny:1.x.y"):
        refused(lambda name=name: datasets.load(name, str(tmp_path)), repr(name))
    refused(lambda: datasets.load("huggingface:mnist", str(tmp_path)), "huggingface:mnist")
    assert time.monotonic() - start < 5


def test_missing_split(tmp_path):
    write(tmp_path, splits=(("train", 4), ("validation", 4)))
    refused(lambda: datasets.load("tiny", str(tmp_path)), "no split test", "validation", "holdout")


@pytest.mark.parametrize(
    ("features", "expected"),
    [
        ({"label": tfds.features.Scalar(np.int64)}, "label is no ClassLabel"),
        ({"image": tfds.features.Text()}, "image is no Image"),
    ],
)
def test_no_image_classification(tmp_path, features, expected):
    write(tmp_path)
    spec = tfds.features.FeaturesDict(
        {"image": tfds.features.Image(shape=(6, 7, 3)), "label": tfds.features.ClassLabel(num_classes=CLASSES)}
        | features
    )
    spec.save_config(str(tmp_path / "tiny" / "1.2.3"))
    refused(lambda: datasets.load("tiny", str(tmp_path)), expected)


def test_images_of_differing_sizes(tmp_path):
    pictures = [np.zeros((6, 7, 3), np.uint8), np.zeros((7, 6, 3), np.uint8)]
    write(tmp_path, image=tfds.features.Image(shape=(None, None, 3)), pictures=pictures)
    refused(lambda: datasets.load("tiny", str(tmp_path)), "differ in size", "(6, 7, 3) and (7, 6, 3)", "config.resize")


@pytest.mark.parametrize("cached", [False, True])
def test_images_of_differing_sizes_are_brought_to_one(tmp_path, monkeypatch, cached):
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (6 + i, 9 - i, 3), np.uint8) for i in range(5)]
    write(tmp_path, image=tfds.features.Image(shape=(None, None, 3)), pictures=pictures)
    load = functools.partial(datasets.load, "tiny", str(tmp_path))
    before = load(resize=5) if cached else None
    monkeypatch.setattr(prepared, "CHUNK", 20)  # several chunks
    data = load(resize=4)
    np.testing.assert_array_equal(data.train_images, [resize.fit(picture, 4) for picture in pictures])
    assert data.shape == (4, 4, 3) and (before is None or before.shape == (5, 5, 3))


def test_networks_see_the_middle(tmp_path):
    write(tmp_path)
    data = datasets.load("tiny", str(tmp_path), side=4)
    assert (data.shape, data.train_images.shape[1:]) == ((4, 4, 3), (6, 7, 3))
    refused(lambda: datasets.load("tiny", str(tmp_path), side=7), "config.image_size=7", "6x7")


def test_what_does_not_fit_into_the_memory_is_not_read(tmp_path, monkeypatch):
    write(tmp_path)
    memory = prepared.psutil.virtual_memory()
    monkeypatch.setattr(prepared.psutil, "virtual_memory", lambda: memory._replace(available=2500))
    refused(lambda: datasets.load("tiny", str(tmp_path)), "20 images of 6x7x3", "need 0.0 GB", "config.resize")
    monkeypatch.setattr(prepared.psutil, "virtual_memory", lambda: memory._replace(available=2520))
    assert len(datasets.load("tiny", str(tmp_path)).train_labels) == 20


def test_another_split_can_be_the_test_set(tmp_path):
    wrote = write(tmp_path, splits=(("train", 20), ("validation", 10), ("test", 10)))
    data = datasets.load("tiny", str(tmp_path), test_split="validation")
    assert_holds(data, wrote | {"test": wrote["validation"]})
    assert_holds(datasets.load("tiny", str(tmp_path)), wrote)
    both = datasets.load("tiny+tiny", str(tmp_path), test_split="validation+test")
    np.testing.assert_array_equal(both.test_images, [*wrote["validation"][0], *wrote["test"][0]])
    refused(lambda: datasets.load("tiny", str(tmp_path), test_split="dev"), "no split dev", "config.test_split")
    refused(
        lambda: datasets.load("tiny", test_split="test+test"), "config.test_split=test+test", "one for each of tiny"
    )
    refused(lambda: datasets.load("digits", resize=4), "digits", "set config.resize=0")


def test_images_of_sixteen_bits(tmp_path):
    pictures = [np.full((4, 4), 40000, np.uint16)] * 2
    write(tmp_path, image=tfds.features.Image(shape=(4, 4, 1), dtype=np.uint16), pictures=pictures)
    refused(lambda: datasets.load("tiny", str(tmp_path)), "uint16")


def test_labels_that_are_withheld(tmp_path):
    write(tmp_path, withheld="test")
    refused(lambda: datasets.load("tiny", str(tmp_path)), "split test", "labels span -1..-1", "0..4")


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "gone"])
def test_damaged_records(tmp_path, damage):
    write(tmp_path)
    (file,) = (tmp_path / "tiny" / "1.2.3").glob("*train.array_record*")
    content = file.read_bytes()
    at = content.find(b"IDAT") + 8  # inside the first image; the end of the file is padding
    if damage == "gone":
        file.unlink()
    else:
        flipped = content[:at] + bytes([content[at] ^ 255]) + content[at + 1 :]
        file.write_bytes({"cut": content[:at], "flip": flipped, "empty": b""}[damage])
    refused(lambda: datasets.load("tiny", str(tmp_path)), "tiny", "split train", "damaged", "prepare it again")


@pytest.mark.parametrize("file", ["dataset_info.json", "features.json"])
def test_damaged_description(tmp_path, file):
    write(tmp_path)
    (tmp_path / "tiny" / "1.2.3" / file).write_text('{"name": ')
    refused(lambda: datasets.load("tiny", str(tmp_path)), "tiny", str(tmp_path), "prepare it again")


def test_tfrecord_without_tensorflow(tmp_path, monkeypatch):
    write(tmp_path)
    info = tmp_path / "tiny" / "1.2.3" / "dataset_info.json"
    info.write_text(json.dumps(json.loads(info.read_text()) | {"fileFormat": "tfrecord"}))
    monkeypatch.setattr(prepared.importlib.util, "find_spec", lambda name: None)
    refused(lambda: datasets.load("tiny", str(tmp_path)), "tfrecord", "tensorflow-cpu", "--file_format=array_record")


# ---- labels ----


@given(
    st.lists(st.integers(0, 7), min_size=1, max_size=30),
    st.lists(st.integers(0, 7), min_size=1, max_size=10),
    st.booleans(),
)
@example([0, 2], [2], False)
def test_labels_are_numbered_without_gaps_or_refused(train, test, uncounted):
    train, test = np.asarray(train), np.asarray(test)
    trained, gaps = set(train.tolist()), set(range(max(*train, *test) + 1)) - set(train.tolist())
    bad = set(test.tolist()) - trained or (uncounted and gaps)
    try:
        first, second, classes, notes = labels.numbered("x", train, test, None if uncounted else 8)
    except DataError as error:
        assert bad and str(error).startswith("x: ") and "\n" not in str(error)
        return
    assert not bad and classes == len(trained) and set(first.tolist()) == set(range(classes))
    ranks = {label: rank for rank, label in enumerate(sorted(trained))}
    assert first.tolist() == [ranks[label] for label in train] and second.tolist() == [ranks[label] for label in test]
    assert bool(notes) == (not uncounted and classes < 8)


def test_declared_classes_without_images_are_left_out_and_told(tmp_path, monkeypatch):
    pictures = list(np.random.default_rng(3).integers(0, 256, (8, 6, 7, 3), np.uint8))
    write(tmp_path, pictures=pictures, declared=CLASSES + 3)
    for _ in range(2):  # from the records, and from the cache
        data = datasets.load("tiny", str(tmp_path))
        assert data.classes == CLASSES and data.train_labels.max() == CLASSES - 1
        assert data.notes == ("labels 5, 6, 7 of 8 classes without any image left out; those after them move up",)
        monkeypatch.setattr(prepared, "read", no_read)


# ---- where data lie, and sets without a test split ----


def test_a_directory_that_is_the_set_itself(tmp_path):
    wrote = write(tmp_path / "data")
    for place in ("tiny", "tiny/1.2.3"):
        assert_holds(datasets.load("tiny", str(tmp_path / "data" / place)), wrote)
    refused(lambda: datasets.load("tiny:2.0.0", str(tmp_path / "data" / "tiny" / "1.2.3")), "tiny:2.0.0")
    refused(lambda: datasets.load("mnist", str(tmp_path / "data" / "tiny")), "mnist")


def test_a_version_that_is_the_directory_is_the_one_that_is_read(tmp_path):
    old = write(tmp_path / "data")
    shutil.move(tmp_path / "data" / "tiny" / "1.2.3", tmp_path / "kept")
    write(tmp_path / "data", seed=1, config="small")
    shutil.move(tmp_path / "kept", tmp_path / "data" / "tiny" / "1.2.3")
    assert_holds(datasets.load("tiny", str(tmp_path / "data" / "tiny" / "1.2.3")), old)
    assert datasets.load("tiny/small", str(tmp_path / "data" / "tiny" / "small" / "1.2.3")).name == "tiny/small"


def test_a_set_without_a_test_split_holds_images_out(tmp_path):
    (images, answers) = write(tmp_path, splits=(("train", 40),))["train"]
    refused(lambda: datasets.load("tiny", str(tmp_path)), "no split test", "config.holdout=0.2")
    data, again = (datasets.load("tiny", str(tmp_path), 0.25, 7) for _ in range(2))
    assert (len(data.test_labels), len(data.train_labels)) == (10, 30) and data.sha256 == again.sha256
    assert (
        data.notes
        == again.notes
        == ("no test split: 10 of the 40 images of train are held out as one (holdout_seed=7)",)
    )
    pairs = [(*data.train_images, *data.test_images), (*data.train_labels, *data.test_labels)]
    assert sorted((bytes(i), int(n)) for i, n in zip(*pairs, strict=True)) == sorted(
        (bytes(i), int(n)) for i, n in zip(images, answers, strict=True)
    )
    assert datasets.load("tiny", str(tmp_path), 0.25, 8).sha256 != data.sha256
    refused(lambda: datasets.load("tiny", str(tmp_path), 0.001), "leaves one side empty")


def test_nothing_is_held_out_of_a_set_with_a_test_split(tmp_path):
    write(tmp_path)
    refused(lambda: datasets.load("tiny", str(tmp_path), 0.2), "has a split test", "config.holdout=0")
    refused(lambda: datasets.load("digits", "", 0.2), "digits", "config.holdout=0")


# ---- digits ----


def test_digits():
    data = datasets.load("digits", "")
    assert data.train_images.shape == (1297, 8, 8, 1) and data.test_images.shape == (500, 8, 8, 1)
    assert data.classes == 10 and data.train_images.max() == 255
    assert set(data.train_labels.tolist()) == set(data.test_labels.tolist()) == set(range(10))
    assert data.sha256 == "626b155585e72ab8c0f676c7c6b1990a2eb781dc8239e706f6232faa027c63ee"  # never changes


def test_digits_without_scikit_learn(monkeypatch):
    def absent(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", absent)
    refused(lambda: datasets.load("digits", ""), "pip install scikit-learn")


# ---- own arrays ----


def own(**changed):
    rng = np.random.default_rng(0)
    arrays = {
        "train_images": rng.integers(0, 256, (9, 4, 5, 3), np.uint8),
        "train_labels": np.arange(9) % 3,
        "test_images": rng.integers(0, 256, (6, 4, 5, 3), np.uint8),
        "test_labels": np.arange(6) % 3,
    } | changed
    return datasets.from_arrays("mine", **arrays)


def test_own_arrays():
    data = own()
    assert (data.name, data.version, data.classes) == ("mine", "own", 3)
    assert data.train_labels.dtype == np.int32
    for array in (data.train_images, data.train_labels, data.test_images, data.test_labels):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


def test_own_arrays_stay_the_owners():
    images = np.zeros((9, 4, 5, 3), np.uint8)
    own(train_images=images)
    images[0] = 1


def test_own_grey_images_get_a_channel():
    data = own(train_images=np.zeros((9, 4, 5), np.uint8), test_images=np.zeros((6, 4, 5, 1), np.uint8))
    assert data.train_images.shape == (9, 4, 5, 1) and data.test_images.shape == (6, 4, 5, 1)
    assert data.mean == (0.0,) and data.std == (1.0,)  # nothing to divide by


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"train_images": np.zeros((9, 4, 5, 3))}, "float64"),
        ({"train_images": np.zeros((9, 60), np.uint8)}, "(9, 60)"),
        ({"train_images": np.zeros((0, 4, 5, 3), np.uint8), "train_labels": np.zeros(0, int)}, "no images"),
        ({"test_images": np.zeros((6, 5, 4, 3), np.uint8)}, "must agree"),
        ({"test_labels": np.zeros(5, int)}, "(5,) for 6 images"),
        ({"test_labels": np.zeros((6, 1), int)}, "(6, 1) for 6 images"),
        ({"train_labels": np.zeros(9)}, "float64"),
        ({"train_labels": np.arange(9) - 1}, "-1..7"),
        ({"train_labels": np.arange(9) * 10**6}, "0..8000000"),
        ({"train_labels": 1 + np.arange(9), "test_labels": 1 + np.arange(6)}, "give the 9 classes the labels 0..8"),
        ({"train_labels": np.array([0, 1, 3] * 3), "test_labels": np.array([0, 1, 3] * 2)}, "has label 2; give the 3"),
        ({"test_labels": np.arange(6) % 4}, "test images have label 3, but no training image"),
        ({"train_labels": np.zeros(9, int), "test_labels": np.zeros(6, int)}, "one class"),
    ],
)
def test_own_arrays_that_cannot_be_used(changed, expected):
    refused(lambda: own(**changed), "mine", expected)


def test_digest_tells_contents_shapes_and_labels_apart():
    images, labels = np.zeros((9, 4, 5, 3), np.uint8), np.arange(9) % 3
    other = images.copy()
    other[8, 3, 4, 2] = 1
    turned = {"train_images": images.reshape(9, 5, 4, 3), "test_images": np.zeros((6, 5, 4, 3), np.uint8)}
    digests = [
        own(train_images=images).sha256,
        own(train_images=other).sha256,
        own(train_images=images, train_labels=labels[::-1]).sha256,
        own(**turned).sha256,
        own().sha256,
    ]
    assert len(set(digests)) == 5
    assert own().sha256 == own(train_labels=labels.astype(np.uint8)).sha256  # the same labels in another type


@pytest.mark.parametrize(
    ("name", "fixed"), [("cifar10", True), ("cifar10_jpeg", True), ("cifar100", False), ("x", False)]
)
def test_normalisation(name, fixed):
    data = own()
    data = datasets.from_arrays(name, data.train_images, data.train_labels, data.test_images, data.test_labels)
    pixels = data.train_images.reshape(-1, 3) / 255
    expected = ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)) if fixed else (pixels.mean(0), pixels.std(0))
    np.testing.assert_allclose((data.mean, data.std), expected, rtol=1e-12)


# ---- joined, and further test sets ----


def drawn(n, classes, seed, side=4):
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    return rng.integers(0, 256, (n, side, side, 1), np.uint8), labels


def small_set(name, n, classes, seed, side=4):
    return datasets.from_arrays(name, *drawn(n, classes, seed, side), *drawn(n // 2, classes, seed + 1, side))


def test_joined_sets_keep_their_images_and_shift_their_classes():
    a, b, c = small_set("a", 20, 4, 0), small_set("b", 12, 3, 2), small_set("c", 10, 2, 4)
    both = datasets.join([a, b, c])
    assert (both.name, both.classes, both.tests) == ("a+b+c", 9, 21) and (both.mean, both.std) == (a.mean, a.std)
    for part, span in zip((a, b, c), both.members, strict=True):
        train, test = slice(*span.train), slice(*span.test)
        assert np.array_equal(both.train_images[train], part.train_images)
        assert np.array_equal(both.test_images[test], part.test_images)
        assert np.array_equal(both.train_labels[train] - span.classes[0], part.train_labels)
        assert np.array_equal(both.test_labels[test] - span.classes[0], part.test_labels)
        assert span.classes[1] - span.classes[0] == part.classes
    assert both.span(0).train == (0, 42) and both.span(2) == both.members[1]
    assert len({each.sha256 for each in (a, b, c, both)}) == 4


def test_sets_are_joined_by_name(tmp_path):
    wrote = write(tmp_path)
    both = datasets.load("tiny+tiny", str(tmp_path))
    assert both.version == "1.2.3+1.2.3" and both.classes == 2 * CLASSES
    assert np.array_equal(both.train_images[20:], np.stack(wrote["train"][0]))


def test_sets_that_do_not_fit_together_are_refused():
    with pytest.raises(DataError, match="a.b: joined images must be of one size"):
        datasets.join([small_set("a", 8, 2, 0), small_set("b", 8, 2, 0, side=5)])
    with pytest.raises(DataError, match="further test sets cannot be joined"):
        datasets.join([datasets.load("graded"), datasets.load("graded")])


def test_further_test_sets_lie_behind_the_test_set():
    train, test, more = drawn(20, 4, 0), drawn(10, 4, 1), drawn(6, 4, 2)
    data = datasets.from_arrays("a", *train, *test, probes={"one": more, "two": test})
    assert data.tests == 10 and data.probes == {"one": (10, 16), "two": (16, 26)}
    assert np.array_equal(data.test_images[10:16], more[0]) and np.array_equal(data.test_labels[16:], test[1])
    with pytest.raises(DataError, match="probe one: images of another size"):
        datasets.from_arrays("a", *train, *test, probes={"one": drawn(6, 4, 2, side=3)})
