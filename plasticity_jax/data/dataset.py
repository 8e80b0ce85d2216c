"""The record of a data set, and its construction from arrays, which it checks."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from plasticity_jax.data.contents import ARRAYS, Facts, facts
from plasticity_jax.data.labels import numbered
from plasticity_jax.data.records import Pixels
from plasticity_jax.data.subsets import Span
from plasticity_jax.errors import ConfigError, DataError


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """A whole data set; the arrays are read-only.

    train_images, test_images: uint8 [N, H, W, C], in memory or on disk.
    train_labels, test_labels: int32 [N] in 0..classes-1.
    mean, std: per channel, of the training images / 255.
    sha256: hex digest over the shapes and contents of the four arrays.
    probes: further test sets by name, as ranges (first, last + 1) of the test images.  They come last; the images
        before them are the main test set.
    members: the ranges of the data sets that were joined.
    notes: lines for the summary of a plan.
    side: height and width of the network's input, the centre of the images; 0 for the whole image.
    """

    name: str
    version: str
    train_images: Pixels
    train_labels: np.ndarray
    test_images: Pixels
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
        """Height, width and channels of the network's input."""
        height, width, channels = self.train_images.shape[1:]
        return self.side or height, self.side or width, channels

    @property
    def tests(self) -> int:
        """The number of images in the main test set."""
        return min((first for first, _ in self.probes.values()), default=len(self.test_labels))

    def span(self, member: int) -> Span:
        """The range of a member, counted from 1; 0 for the whole data set.

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


def dataset(
    name: str,
    version: str,
    arrays: Mapping[str, Any],
    classes: int | None,
    probes: Mapping[str, tuple[int, int]] | None = None,
    notes: tuple[str, ...] = (),
    counted: Facts | None = None,
) -> Dataset:
    """Validates arrays, normalises shapes and dtypes, and returns the data set.

    Args:
      classes: their number; None to count them from the labels.
      counted: mean, standard deviation and hash of the images if known; otherwise computed.

    Raises:
      DataError: the arrays do not form a data set that can be trained on.
    """
    arrays = {key: arrays[key] for key in ARRAYS}  # the digest depends on this order
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
        if isinstance(array, np.ndarray):
            arrays[key] = np.ascontiguousarray(array).view()
            arrays[key].setflags(write=False)
    if classes < 2:
        raise DataError(f"data set {name}: there is only one class; classification needs two")
    mean, std, sha256 = counted or facts(name, arrays)
    return Dataset(
        name=name,
        version=version,
        classes=classes,
        mean=mean,
        std=std,
        sha256=sha256,
        probes=dict(probes or {}),
        notes=(*notes, *more),
        **arrays,
    )
