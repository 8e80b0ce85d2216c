"""Stand-ins for data sets of known size, for work that depends only on sizes, such as compilation."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from plasticity_jax.data import datasets
from plasticity_jax.data.datasets import Dataset
from plasticity_jax.errors import DataError


@dataclasses.dataclass(frozen=True)
class Size:
    """Numbers of training and test images and classes; height, width and channels, or None if images differ in size."""

    train: int
    test: int
    image: tuple[int, int, int] | None
    classes: int


CIFAR, MNIST = (32, 32, 3), (28, 28, 1)
SIZES = {  # as TFDS has them
    "caltech101": Size(3_059, 6_085, None, 102),
    "caltech_birds2011": Size(5_994, 5_794, None, 200),
    "cifar10": Size(50_000, 10_000, CIFAR, 10),
    "cifar10_jpeg": Size(50_000, 10_000, CIFAR, 10),
    "cifar100": Size(50_000, 10_000, CIFAR, 100),
    "fashion_mnist": Size(60_000, 10_000, MNIST, 10),
    "imagenet2012": Size(1_281_167, 50_000, None, 1000),
    "imagenet_resized/64x64": Size(1_281_167, 50_000, (64, 64, 3), 1000),
    "kmnist": Size(60_000, 10_000, MNIST, 10),
    "mnist": Size(60_000, 10_000, MNIST, 10),
    "svhn_cropped": Size(73_257, 26_032, CIFAR, 10),
}


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
    """`datasets.load`, but black images with the classes in turn for sets whose sizes are known.

    They take no memory.

    Raises:
      DataError: as `datasets.load`, for a set that is read, and for images of many sizes.
    """
    parts = datasets.taken_apart(name, test_split)
    sizes = [SIZES.get(each.partition(":")[0]) for each, _ in parts]
    if not holdout and None not in sizes:
        return datasets.seen(_black(name, [size for size in sizes if size], resize), side)
    if len(parts) == 1:
        return datasets.load(name, data_dir, holdout, holdout_seed, test_split, resize, side, images)
    given = data_dir, holdout, holdout_seed
    loaded = [load(each, *given, split, resize, images=images) for each, split in parts]
    return datasets.seen(datasets.join(loaded), side)


def _black(name: str, sizes: Sequence[Size], resize: int) -> Dataset:
    """The data set or joined sets with black images, all of which share the memory of one pixel."""
    shape = (resize, resize, 3) if resize else sizes[0].image
    if shape is None or not resize and {size.image for size in sizes} != {shape}:
        raise DataError(f"data set {name}: images differ in size; config.resize=SIDE brings them to one")

    def black(count: int, *shape: int) -> np.ndarray:
        return np.broadcast_to(np.uint8(0), (count, *shape))

    def labels(count: int, size: Size) -> np.ndarray:
        return np.arange(count) % size.classes

    few = []
    for per_split, size in zip(name.split("+"), sizes, strict=True):
        split = black(size.classes, 1, 1, shape[-1]), labels(size.classes, size)  # one of each class
        few.append(datasets.from_arrays(per_split, *split, *split))
    whole = datasets.join(few) if len(few) > 1 else few[0]
    members = datasets.spans([(size.train, size.test, size.classes) for size in sizes])

    def all_of(counts: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        shifted = [labels(n, size) + span.classes[0] for n, size, span in zip(counts, sizes, members, strict=True)]
        return black(sum(counts), *shape), np.concatenate(shifted).astype(np.int32)

    train, test = all_of([size.train for size in sizes]), all_of([size.test for size in sizes])
    return dataclasses.replace(
        whole,
        version="of its size only",
        notes=(),
        members=members if len(few) > 1 else (),
        train_images=train[0],
        train_labels=train[1],
        test_images=test[0],
        test_labels=test[1],
    )
