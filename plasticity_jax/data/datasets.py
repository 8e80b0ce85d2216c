"""Image classification data sets as plain arrays: any prepared TFDS set, CIFAR, scikit-learn's digits, or your own.

    data = load("cifar10", "~/tensorflow_datasets")
    both = load("cifar10+cifar100", "~/tensorflow_datasets")       # 110 classes; a stage may use one of the two

TFDS sets are read through TFDS's random-access data source, without TensorFlow.  What is already on disk comes
first; nothing touches the network before that.  Neither this module nor a read imports jax.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from plasticity_jax.config import paths
from plasticity_jax.data import digits, synthetic, tfds
from plasticity_jax.data.labels import numbered
from plasticity_jax.data.subsets import Span
from plasticity_jax.errors import ConfigError, DataError

Made = tuple[dict[str, np.ndarray], int, tuple[str, ...]]  # the arrays, how many classes, and notes
ARRAYS = ("train_images", "train_labels", "test_images", "test_labels")
CHUNK = 5000  # images counted at once: bounds the memory held besides them
CACHE_FORMAT = 2
# CIFAR-10 as Hare & Tortoise, DASH and the public reproduction of the warm-start experiment normalise it.  The
# deviations are not those of all pixels (0.247, 0.243, 0.262), but staying with them keeps results comparable.
CIFAR10_MEAN, CIFAR10_STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)


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


def load(name: str, data_dir: str = "", holdout: float = 0.0, holdout_seed: int = 0) -> Dataset:
    """Load `digits`, `graded` or the TFDS set `name` (`NAME[/CONFIG][:VERSION]`) from `data_dir`; or several, as `A+B`.

    Joined sets keep their order; the classes of the second follow those of the first, and so on.  All are
    normalised as the first one is.

    Where a set has no test split, a share `holdout` of its training images, drawn by `holdout_seed`, is the test set.

    An empty `data_dir` means $TFDS_DATA_DIR, or ~/tensorflow_datasets; it may be the set itself.  A set that is not
    prepared there is an error, except for cifar10 and cifar100, which are then prepared (see `cifar`).  Decoded arrays
    are kept in $XDG_CACHE_HOME (or ~/.cache)/plasticity_jax/datasets, and read from there as long as the prepared files
    stay the same.

    Raises:
      DataError: not prepared, unreadable, no image classification set with the splits `train` and `test`, images of
        several sizes joined, or images to be held out where there is a test split.
    """
    if "+" in name:
        return join([load(each, data_dir, holdout, holdout_seed) for each in name.split("+")])
    if name in SOURCES:
        if holdout:
            raise DataError(f"data set {name} has a test set; set config.holdout=0")
        return SOURCES[name]()
    root = paths.given(data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").absolute()
    with tfds.quiet():
        builder = tfds.readable(tfds.find(name, root) or tfds.prepare(name, root))
        place = pathlib.Path(builder.data_path).resolve()
        files = [(path.name, path.stat()) for path in sorted(place.iterdir()) if path.is_file()]
        source = [str(place), [[file, stat.st_size, stat.st_mtime_ns] for file, stat in files]]
        full_name = "/".join([builder.name, *([builder.builder_config.name] if builder.builder_config else [])])
        held = (holdout, holdout_seed) if holdout else None
        made_of = [*source, held] if held else source
        return _cached(full_name, str(builder.version), made_of, lambda: tfds.read(builder, held))


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
    counts = [(len(part.train_labels), len(part.test_labels), part.classes) for part in parts]
    ends = np.cumsum([(0, 0, 0), *counts], axis=0).tolist()
    spans = tuple(Span(*zip(before, after, strict=True)) for before, after in zip(ends[:-1], ends[1:], strict=True))

    def put_together(key: str) -> np.ndarray:
        shifts = [span.classes[0] if key.endswith("labels") else 0 for span in spans]
        return np.concatenate([getattr(part, key) + shift for part, shift in zip(parts, shifts, strict=True)])

    arrays = {key: put_together(key) for key in ARRAYS}
    notes = tuple(f"{part.name}: {note}" for part in parts for note in part.notes)
    joined = _dataset(name, "+".join(part.version for part in parts), arrays, ends[-1][2], notes=notes)
    return dataclasses.replace(joined, mean=parts[0].mean, std=parts[0].std, members=spans)


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
    mean, std = _moments(name, arrays["train_images"])
    return Dataset(
        name=name,
        version=version,
        classes=classes,
        mean=mean,
        std=std,
        sha256=_digest(arrays),
        probes=dict(probes or {}),
        notes=(*notes, *more),
        **arrays,  # type: ignore[arg-type]
    )


def _moments(name: str, images: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    if name.startswith("cifar10") and not name.startswith("cifar100") and images.shape[-1] == 3:
        return CIFAR10_MEAN, CIFAR10_STD
    counts = np.zeros((images.shape[-1], 256), np.int64)  # exact, and without a float copy of all images
    for start in range(0, len(images), CHUNK):
        for channel, row in enumerate(counts):
            row += np.bincount(images[start : start + CHUNK, ..., channel].ravel(), minlength=256)
    weights, values = counts / counts.sum(axis=1, keepdims=True), np.arange(256) / 255
    mean = weights @ values
    std = np.sqrt(np.sum(weights * (values - mean[:, None]) ** 2, axis=1))
    return tuple(map(float, mean)), tuple(float(s) if s > 1e-12 else 1.0 for s in std)


def _digest(arrays: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for key in ARRAYS:
        digest.update(f"{key} {arrays[key].dtype} {arrays[key].shape}".encode())
        digest.update(np.ascontiguousarray(arrays[key]).data)
    return digest.hexdigest()


# ---- cache ----


def _cached(name: str, version: str, source: Any, make: Callable[[], Made]) -> Dataset:
    """`make`, or what it made last time if `source` (where the data lies and how it looks there) is the same.

    One file per set and place, replaced as a whole; whatever is wrong with it, the data are read afresh.
    """
    fingerprint = json.dumps([CACHE_FORMAT, name, version, source], allow_nan=False)
    place = source[0] if isinstance(source, list) else ""
    key = hashlib.sha256(json.dumps([name, version, place], allow_nan=False).encode()).hexdigest()[:16]
    path = _cache_dir() / f"{name.replace('/', '-')}-{version}-{key}.npz"
    with contextlib.suppress(Exception):  # absent, cut short, of another numpy, not readable: all the same
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as stored:
            arrays = {key: stored[key] for key in ARRAYS}
            if stored["fingerprint"].item() == fingerprint and stored["sha256"].item() == _digest(arrays):
                notes = tuple(stored["notes"].tolist())
                return _dataset(name, version, arrays, int(stored["classes"]), notes=notes)
    arrays, classes, notes = make()
    data = _dataset(name, version, arrays, classes, notes=notes)
    arrays = {key: getattr(data, key) for key in ARRAYS}
    described: dict[str, Any] = {"classes": data.classes, "notes": np.asarray(data.notes, str)}
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
        try:
            with os.fdopen(handle, "wb") as new:
                np.savez(new, fingerprint=fingerprint, sha256=data.sha256, **described, **arrays)
            os.replace(temporary, path)
        finally:
            pathlib.Path(temporary).unlink(missing_ok=True)
    return data


def _cache_dir() -> pathlib.Path:
    return pathlib.Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "plasticity_jax" / "datasets"
