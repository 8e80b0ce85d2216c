"""Image classification data sets as plain arrays: any prepared TFDS set, CIFAR, scikit-learn's digits, or your own.

    data = load("cifar10", "~/tensorflow_datasets")
    both = load("cifar10+cifar100", "~/tensorflow_datasets")       # 110 classes; a stage may use one of the two

TFDS sets are read through TFDS's random-access data source, without TensorFlow.  What is already on disk comes
first; nothing touches the network before that.  Neither this module nor a read imports jax.
"""

import dataclasses
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from plasticity_jax.config import paths
from plasticity_jax.data import cache, digits, synthetic, tfds
from plasticity_jax.data.cache import Made
from plasticity_jax.data.contents import ARRAYS, digest, moments
from plasticity_jax.data.labels import numbered
from plasticity_jax.data.subsets import Span
from plasticity_jax.errors import ConfigError, DataError


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """A whole data set in memory; the arrays are read-only.

    train_images, test_images: uint8 [N, H, W, C].
    train_labels, test_labels: int32 [N] in 0..classes-1.
    mean, std: per channel, of the training images / 255.
    sha256: hex digest over the shapes and contents of the four arrays.
    probes: further test sets by name, as ranges (first, last + 1) of the test images; they come last, and the
        images before them are the test set proper.
    members: where each of several joined data sets lies.
    notes: what the plan says about it.
    side: height and width of the middle of the images, which is what networks see; 0 for all.
    """

    name: str
    version: str
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    sha256: str
    probes: Mapping[str, tuple[int, int]] = dataclasses.field(default_factory=dict)
    members: tuple[Span, ...] = ()
    notes: tuple[str, ...] = ()
    side: int = 0

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels that networks see."""
        height, width, channels = self.train_images.shape[1:]
        return self.side or height, self.side or width, channels

    @property
    def tests(self) -> int:
        """The number of images in the test set proper."""
        return min((first for first, _ in self.probes.values()), default=len(self.test_labels))

    def span(self, member: int) -> Span:
        """Where a member lies, counted from 1; 0 for all of the data set.

        Raises:
          ConfigError: there is no such member.
        """
        if not member:
            return Span((0, len(self.train_labels)), (0, self.tests), (0, self.classes))
        if member > len(self.members):
            raise ConfigError(
                f"data.member={member}: {self.name} joins {len(self.members)} data sets; config.dataset=A+B joins two"
            )
        return self.members[member - 1]


def load(
    name: str,
    data_dir: str = "",
    holdout: float = 0.0,
    holdout_seed: int = 0,
    test_split: str = "test",
    resize: int = 0,
    side: int = 0,
) -> Dataset:
    """Load `digits`, `graded` or the TFDS set `name` (`NAME[/CONFIG][:VERSION]`) from `data_dir`; or several, as `A+B`.

    Joined sets keep their order; the classes of the second follow those of the first, and so on.  All are
    normalised as the first one is.

    The test set of a TFDS set is its `test_split`; for joined sets that is one for all or one for each, as
    `validation+test`.  Where there is none, a share `holdout` of the training images, drawn by `holdout_seed`, is.
    Images are brought to `resize` pixels a side by `resize.fit`; 0 leaves them as they are, all of one size.
    Networks see the middle, `side` high and wide, of any images; 0 for all.

    An empty `data_dir` means $TFDS_DATA_DIR, or ~/tensorflow_datasets; it may be the set itself.  A set that is not
    prepared there is an error, except for cifar10 and cifar100, which are then prepared (see `cifar`).  Decoded arrays
    are kept in $XDG_CACHE_HOME (or ~/.cache)/plasticity_jax/datasets, and read from there as long as the prepared files
    stay the same.

    Raises:
      DataError: not prepared, unreadable, no image classification set with the splits `train` and `test`, images of
        several sizes joined, images smaller than what is to be seen of them, or images to be held out where there is a
        test split.
    """
    parts = [
        _load(each, data_dir, holdout, holdout_seed, split, resize) for each, split in taken_apart(name, test_split)
    ]
    return seen(join(parts) if len(parts) > 1 else parts[0], side)


def taken_apart(name: str, test_split: str) -> list[tuple[str, str]]:
    """The names of joined sets and their test splits.

    Raises:
      DataError: not one test split, nor one for each.
    """
    names, tests = name.split("+"), test_split.split("+")
    if len(tests) not in (1, len(names)):
        raise DataError(f"config.test_split={test_split}: give one split, or one for each of {name}")
    return [(each, tests[i % len(tests)]) for i, each in enumerate(names)]


def seen(data: Dataset, side: int) -> Dataset:
    """The data set of whose images networks see the middle, `side` high and wide; 0 for all.

    Raises:
      DataError: the images are smaller.
    """
    height, width = data.train_images.shape[1:3]
    if side > min(height, width):
        raise DataError(f"config.image_size={side}: images of {data.name} are {height}x{width}; see config.resize")
    return dataclasses.replace(data, side=side)


def _load(name: str, data_dir: str, holdout: float, holdout_seed: int, test_split: str, resize: int) -> Dataset:
    if name in SOURCES:
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
        return _cached(full_name, str(builder.version), made_of, lambda: tfds.read(builder, held, test_split, resize))


def _graded() -> Dataset:
    arrays, probes = synthetic.images()
    return _dataset("graded", synthetic.VERSION, dict(zip(ARRAYS, arrays, strict=True)), synthetic.CLASSES, probes)


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
    """Make a data set of own arrays: images uint8 [N, H, W, C] or [N, H, W], labels 0..K-1 of K classes.

    Each class has images to train on.  `probes` are further test sets (images, labels) by name;
    whenever a network is evaluated, it is evaluated on each, as `NAME_accuracy` and `NAME_loss`.

    Raises:
      DataError: a wrong type or shape, no images, as many labels as images are missing, or labels that
        are no 0..K-1.
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
    return _dataset(name, "own", arrays, None, ranges)


def join(parts: Sequence[Dataset]) -> Dataset:
    """Several data sets as one; see `load`.

    Raises:
      DataError: images of several sizes, or one with probes.
    """
    name, sizes = "+".join(part.name for part in parts), {part.train_images.shape[1:] for part in parts}
    if len(sizes) > 1:
        raise DataError(f"data set {name}: joined images must be of one size, not {' and '.join(map(str, sizes))}")
    if any(part.probes for part in parts):
        raise DataError(f"data set {name}: one that has further test sets cannot be joined")
    members = spans([(len(part.train_labels), len(part.test_labels), part.classes) for part in parts])

    def put_together(key: str) -> np.ndarray:
        if key.endswith("images"):
            return np.concatenate([getattr(part, key) for part in parts])
        return np.concatenate([getattr(part, key) + span.classes[0] for part, span in zip(parts, members, strict=True)])

    arrays = {key: put_together(key) for key in ARRAYS}
    notes = tuple(f"{part.name}: {note}" for part in parts for note in part.notes)
    joined = _dataset(name, "+".join(part.version for part in parts), arrays, members[-1].classes[1], notes=notes)
    return dataclasses.replace(joined, mean=parts[0].mean, std=parts[0].std, members=members)


def spans(counts: Sequence[tuple[int, int, int]]) -> tuple[Span, ...]:
    """Where each of several joined sets lies, by their images to train, images to test and classes."""
    ends = np.cumsum([(0, 0, 0), *counts], axis=0).tolist()
    return tuple(Span(*zip(before, after, strict=True)) for before, after in zip(ends[:-1], ends[1:], strict=True))


def _dataset(
    name: str,
    version: str,
    arrays: dict[str, np.ndarray],
    classes: int | None,
    probes: Mapping[str, tuple[int, int]] | None = None,
    notes: tuple[str, ...] = (),
) -> Dataset:
    """Validate, normalise shapes and types, and describe; `classes` None counts them from the labels."""
    arrays = {key: arrays[key] for key in ARRAYS}  # in this order, the digest depends on it
    for split in ("train", "test"):
        images, labels = arrays[f"{split}_images"], arrays[f"{split}_labels"]
        where = f"data set {name}, split {split}"
        if images.dtype != np.uint8:
            raise DataError(f"{where}: images are {images.dtype}; give uint8 in 0..255")
        if images.ndim not in (3, 4):
            raise DataError(f"{where}: images have shape {images.shape}; give [N, H, W, C] or [N, H, W]")
        if images.size == 0:
            raise DataError(f"{where}: there are no images (shape {images.shape})")
        if not np.issubdtype(labels.dtype, np.integer):
            raise DataError(f"{where}: labels are {labels.dtype}; give integers")
        if labels.shape != images.shape[:1]:
            raise DataError(f"{where}: labels have shape {labels.shape} for {len(images)} images; give one for each")
        highest = (2**16 if classes is None else classes) - 1
        if labels.min() < 0 or labels.max() > highest:
            raise DataError(f"{where}: labels span {labels.min()}..{labels.max()}; they must lie in 0..{highest}")
        arrays[f"{split}_images"] = images[..., None] if images.ndim == 3 else images
    train, test = arrays["train_images"].shape[1:], arrays["test_images"].shape[1:]
    if train != test:
        raise DataError(f"data set {name}: train images are {train} and test images {test}; they must agree")
    both = arrays["train_labels"], arrays["test_labels"]
    arrays["train_labels"], arrays["test_labels"], classes, more = numbered(f"data set {name}", *both, classes)
    for key, array in arrays.items():
        arrays[key] = np.ascontiguousarray(array).view()
        arrays[key].setflags(write=False)
    if classes < 2:
        raise DataError(f"data set {name}: there is only one class; classification needs two")
    mean, std = moments(name, arrays["train_images"])
    return Dataset(
        name=name,
        version=version,
        classes=classes,
        mean=mean,
        std=std,
        sha256=digest(arrays),
        probes=dict(probes or {}),
        notes=(*notes, *more),
        **arrays,  # type: ignore[arg-type]
    )


def _cached(name: str, version: str, source: Any, make: Callable[[], Made]) -> Dataset:
    """`make`, or what it made last time if `source` is the same."""
    where = cache.entry(name, version, source)
    stored = cache.read(where)
    arrays, classes, notes = stored or make()
    data = _dataset(name, version, arrays, classes, notes=notes)
    if not stored:
        cache.write(where, {key: getattr(data, key) for key in ARRAYS}, data.sha256, data.classes, data.notes)
    return data
