"""Image classification data sets as plain arrays: prepared TFDS sets, CIFAR, scikit-learn's digits, or custom arrays.

    data = load("cifar10", "~/tensorflow_datasets")
    both = load("cifar10+cifar100", "~/tensorflow_datasets")       # 110 classes; a stage may use one of the two

TFDS sets are read through TFDS's random-access data source, without TensorFlow.  The network is used only for data that
are not on disk.  Neither this module nor reading imports jax.
"""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from plasticity_jax.config import paths
from plasticity_jax.data import cache, digits, synthetic, tfds
from plasticity_jax.data.cache import Made
from plasticity_jax.data.contents import ARRAYS
from plasticity_jax.data.dataset import Dataset, dataset
from plasticity_jax.data.records import Pixels, Records, concatenate
from plasticity_jax.data.subsets import Span
from plasticity_jax.errors import DataError


def load(
    name: str,
    data_dir: str = "",
    holdout: float = 0.0,
    holdout_seed: int = 0,
    test_split: str = "test",
    resize: int = 0,
    side: int = 0,
    images: str = "device",
) -> Dataset:
    """Loads `digits`, `graded` or the TFDS set `name` (`NAME[/CONFIG][:VERSION]`) from `data_dir`; or several, as
    `A+B`.

    Joined sets keep their order; the classes of the second follow those of the first, and so on.  All are normalised
    with the statistics of the first one.

    The test set of a TFDS set is its `test_split`; joined sets have one for all or one for each, as `validation+test`.
    A set without a test split uses a share `holdout` of the training images, drawn by `holdout_seed`.  Images are
    resized to `resize` pixels a side by `resize.fit`; 0 keeps their size, which must be the same for all.  The
    network's input is the centre of the images, `side` high and wide; 0 for the whole image.

    An empty `data_dir` means $TFDS_DATA_DIR, or ~/tensorflow_datasets; it may also be the directory of the set itself.
    A set that is not prepared there is an error, except for cifar10 and cifar100, which are then prepared (see
    `cifar`). Decoded arrays are cached in $XDG_CACHE_HOME (or ~/.cache)/plasticity_jax/datasets as long as the prepared
    files do not change.

    With `images="disk"` images stay in the prepared files (`Records`), and with "auto" if they do not fit in memory.
    All of them are read once to compute mean, standard deviation and fingerprint, which are cached like decoded arrays.

    Raises:
      DataError: the set is not prepared, unreadable, has no random access although images should stay on disk, or is no
        image classification set with the splits `train` and `test`; joined sets differ in image size; images are
        smaller than the network's input; or `holdout` is given for a set with a test split.
    """
    parts = [
        _load(member, data_dir, holdout, holdout_seed, split, resize, images)
        for member, split in taken_apart(name, test_split)
    ]
    return seen(join(parts) if len(parts) > 1 else parts[0], side)


def taken_apart(name: str, test_split: str) -> list[tuple[str, str]]:
    """The names of joined sets and their test splits.

    Raises:
      DataError: there are neither one test split nor one for each set.
    """
    names, tests = name.split("+"), test_split.split("+")
    if len(tests) not in (1, len(names)):
        raise DataError(f"config.test_split={test_split}: give one split, or one for each of {name}")
    return [(each, tests[i % len(tests)]) for i, each in enumerate(names)]


def seen(data: Dataset, side: int) -> Dataset:
    """The data set with the centre of its images, `side` high and wide, as the network's input; 0 for the whole image.

    Raises:
      DataError: the images are smaller.
    """
    height, width = data.train_images.shape[1:3]
    if side > min(height, width):
        raise DataError(f"config.image_size={side}: images of {data.name} are {height}x{width}; see config.resize")
    return dataclasses.replace(data, side=side)


def _load(
    name: str, data_dir: str, holdout: float, holdout_seed: int, test_split: str, resize: int, images: str
) -> Dataset:
    if name in SOURCES:
        if images == "disk":
            raise DataError(f"data set {name} is made in memory; set config.images=host")
        plain = {"holdout": (holdout, 0), "test_split": (test_split, "test"), "resize": (resize, 0)}
        for key, (value, only) in plain.items():
            if value != only:
                raise DataError(f"data set {name} has a test set, and images of one size; set config.{key}={only}")
        return SOURCES[name]()
    root = paths.given(data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").absolute()
    with tfds.quiet():
        builder = tfds.readable(tfds.find(name, root) or tfds.prepare(name, root))
        place = pathlib.Path(builder.data_path).resolve()
        files = [(path.name, path.stat()) for path in sorted(place.iterdir()) if path.is_file()]
        source = [str(place), [[file, stat.st_size, stat.st_mtime_ns] for file, stat in files]]
        full_name = "/".join([builder.name, *([builder.builder_config.name] if builder.builder_config else [])])
        held = (holdout, holdout_seed) if holdout else None
        made_of = (
            source + ([held] if held else []) + ([test_split, resize] if (test_split, resize) != ("test", 0) else [])
        )
        version, how = str(builder.version), (held, test_split, resize)
        if images == "disk" or (images == "auto" and tfds.is_too_large(builder, resize)):
            return _on_disk(full_name, version, made_of, functools.partial(tfds.read, builder, *how, on_disk=True))
        return _cached(full_name, version, made_of, lambda: tfds.read(builder, *how))


def _graded() -> Dataset:
    arrays, probes = synthetic.images()
    return dataset("graded", synthetic.VERSION, dict(zip(ARRAYS, arrays, strict=True)), synthetic.CLASSES, probes)


def _digits() -> Dataset:
    return _cached("digits", digits.VERSION, digits.source(), lambda: _named(*digits.images()))


SOURCES: dict[str, Callable[[], Dataset]] = {"digits": _digits, "graded": _graded}  # all other names are those of TFDS


def _named(arrays: Sequence[np.ndarray], classes: int) -> Made:
    return dict(zip(ARRAYS, arrays, strict=True)), classes, ()


def from_arrays(
    name: str,
    train_images: np.ndarray,
    train_labels: np.ndarray,
    test_images: np.ndarray,
    test_labels: np.ndarray,
    probes: Mapping[str, tuple[np.ndarray, np.ndarray]] | None = None,
) -> Dataset:
    """Makes a data set from arrays: images uint8 [N, H, W, C] or [N, H, W], labels 0..K-1 of K classes.

    Each class needs training images.  `probes` are further test sets (images, labels) by name; each evaluation of a
    network includes them, as `NAME_accuracy` and `NAME_loss`.

    Raises:
      DataError: a wrong type or shape, no images, numbers of images and labels that differ, or labels that are not
        0..K-1.
    """
    arrays = dict(zip(ARRAYS, map(np.asarray, (train_images, train_labels, test_images, test_labels)), strict=True))
    ranges: dict[str, tuple[int, int]] = {}
    for probe, (images, labels) in (probes or {}).items():
        if np.shape(images)[1:] != arrays["test_images"].shape[1:]:
            raise DataError(f"data set {name}, probe {probe}: images of another size than those of the test set")
        first = len(arrays["test_labels"])
        ranges[probe] = first, first + len(labels)
        arrays["test_images"] = np.concatenate([arrays["test_images"], images])
        arrays["test_labels"] = np.concatenate([arrays["test_labels"], labels])
    return dataset(name, "own", arrays, None, ranges)


def join(parts: Sequence[Dataset]) -> Dataset:
    """Several data sets as one; see `load`.

    Raises:
      DataError: image sizes differ, or a set has probes.
    """
    name, sizes = "+".join(part.name for part in parts), {part.train_images.shape[1:] for part in parts}
    if len(sizes) > 1:
        raise DataError(f"data set {name}: joined images must be of one size, not {' and '.join(map(str, sizes))}")
    if any(part.probes for part in parts):
        raise DataError(f"data set {name}: one that has further test sets cannot be joined")
    members = spans([(len(part.train_labels), len(part.test_labels), part.classes) for part in parts])

    def put_together(key: str) -> Pixels:
        if key.endswith("images"):
            return concatenate([getattr(part, key) for part in parts])
        return np.concatenate([getattr(part, key) + span.classes[0] for part, span in zip(parts, members, strict=True)])

    if len({isinstance(part.train_images, Records) for part in parts}) > 1:
        raise DataError(f"data set {name}: all must be stored alike; set config.images=host or disk")
    arrays = {key: put_together(key) for key in ARRAYS}
    notes = tuple(f"{part.name}: {note}" for part in parts for note in part.notes)
    version, classes = "+".join(part.version for part in parts), members[-1].classes[1]
    if isinstance(arrays["train_images"], Records):
        joined = _on_disk(name, version, [part.sha256 for part in parts], lambda labels: (arrays, classes, notes))
    else:
        joined = dataset(name, version, arrays, classes, notes=notes)
    return dataclasses.replace(joined, mean=parts[0].mean, std=parts[0].std, members=members)


def spans(counts: Sequence[tuple[int, int, int]]) -> tuple[Span, ...]:
    """The ranges of joined sets, from their numbers of training images, test images and classes."""
    ends = np.cumsum([(0, 0, 0), *counts], axis=0).tolist()
    return tuple(Span(*zip(before, after, strict=True)) for before, after in zip(ends[:-1], ends[1:], strict=True))


def _cached(name: str, version: str, source: Any, make: Callable[[], Made]) -> Dataset:
    """The result of `make`, or the cached one if `source` is the same."""
    where = cache.entry(name, version, source)
    stored = cache.read(where)
    arrays, classes, notes = stored or make()
    data = dataset(name, version, arrays, classes, notes=notes)
    if not stored:
        cache.write(where, {key: getattr(data, key) for key in ARRAYS}, data.sha256, data.classes, data.notes)
    return data


def _on_disk(name: str, version: str, source: Any, make: Callable[..., Made]) -> Dataset:
    """The data set of `make`, whose images stay on disk.

    Statistics over all images are cached, and valid as long as `source` is the same; `make` is called with the labels
    if they are cached.
    """
    where = cache.entry(f"{name}-on-disk", version, source, small=True)
    kept = cache.facts(where)
    if kept:
        labels, facts = kept
        arrays, classes, notes = make(labels=labels)
        return dataset(name, version, arrays, classes, notes=notes, counted=facts)
    arrays, classes, notes = make(labels=None)
    data = dataset(name, version, arrays, classes, notes=notes)
    labels = {key: arrays[key] for key in ARRAYS if key.endswith("labels")}
    cache.write_facts(where, labels, (data.mean, data.std, data.sha256))
    return data
