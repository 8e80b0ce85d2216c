"""Selects the training images of a stage, and their labels.

Everything here is a pure function of the recipe and the seed: all stages, branches and grid points of a seed share
one order of the images, so that pools of stages nest and runs are paired.
"""

import zlib
from typing import NamedTuple

import numpy as np

from plasticity_jax.config import spec
from plasticity_jax.errors import ConfigError


class Span(NamedTuple):
    """The range of one of several joined data sets: (first, last + 1) train image, test image and class."""

    train: tuple[int, int]
    test: tuple[int, int]
    classes: tuple[int, int]


class Pool(NamedTuple):
    """The training images of a stage.

    indices: int32 [n], distinct, into the training images.
    labels: int32 [n], their labels after label noise.
    base: for `blend`, the first `base` entries are the biased part; otherwise n.
    """

    indices: np.ndarray
    labels: np.ndarray
    base: int


def held_out(seed: int, n: int, validation_images: int) -> np.ndarray:
    """The validation images: int32 [validation_images] indices into the n training images, in no pool of this seed.

    Raises:
      ConfigError: no training images would be left, or a count or seed is negative.
    """
    if not 0 <= validation_images < n:
        raise ConfigError(f"validation_images={validation_images} of {n} training images; give 0..{n - 1}")
    return _generator(seed, "order").permutation(n)[:validation_images].astype(np.int32)


def everything(seed: int, n: int, train_images: int, validation_images: int) -> np.ndarray:
    """All images that a seed may train on, in its order: int32 [train_images], or with 0 all but the validation images.

    Raises:
      ConfigError: there are fewer images than requested, or a count or seed is negative.
    """
    held_out(seed, n, validation_images)
    if not 0 <= train_images <= n - validation_images:
        raise ConfigError(
            f"train_images={train_images} and validation_images={validation_images} exceed the {n} training images"
        )
    order = _generator(seed, "order").permutation(n)[validation_images:]
    return order[: train_images or n].astype(np.int32)


def told_apart(data: spec.Data, seed: int, span: Span) -> np.ndarray:
    """The classes that a run trains on and is tested on: int32 [k], ascending.

    `data.classes` is a range of the seed's random order of the classes, by which `arrivals` also groups them.  So (0,
    5) and (5, 10) are disjoint, and their classes differ between seeds.

    Raises:
      ConfigError: the range is empty or exceeds the number of classes.
    """
    first, last = span.classes
    chosen = _generator(seed, "classes").permutation(last - first)
    if data.classes:
        low, high = data.classes
        if not 0 <= low < high <= last - first:
            raise ConfigError(f"data.classes={data.classes}: give a range of the {last - first} classes, as (0, 5)")
        chosen = chosen[low:high]
    return first + np.sort(chosen).astype(np.int32)


def test_images(data: spec.Data, seed: int, labels: np.ndarray, span: Span, count: int) -> np.ndarray:
    """int32 indices: those of the first `count` (0: all) test images of the span that belong to the run's classes.

    Raises:
      ConfigError: there are none.
    """
    first, last = span.test
    indices = np.arange(first, min(last, first + count) if count else last, dtype=np.int32)
    indices = indices[np.isin(labels[indices], told_apart(data, seed, span))]
    if not len(indices):
        raise ConfigError(f"data.classes={data.classes}: none of the test images is of these classes; take more")
    return indices


def validation(data: spec.Data, seed: int, labels: np.ndarray, span: Span, count: int) -> np.ndarray:
    """int32 indices: those of the `count` validation images of the span that belong to the run's classes."""
    first, last = span.train
    indices = first + held_out(seed, last - first, count)
    return indices[np.isin(labels[indices], told_apart(data, seed, span))]


def pool(
    data: spec.Data,
    seed: int,
    labels: np.ndarray,
    classes: int,
    train_images: int = 0,
    validation_images: int = 0,
    span: Span | None = None,
) -> Pool:
    """The pool of one stage; `labels` int [N] are those of all training images.

    Only images in `span` and of the run's classes are considered.

    `random` (Berariu et al. 2021, section 2; Ash & Adams 2020): the first `fraction` of the seed's order, so pools
    nest. `split` (appendix A.3): see `arrivals`.  `blend` (A.2): everything, with the first `fraction` as the biased
    part.

    Label noise gives exactly `label_noise` of all images (rounded) a uniformly random other class.  The images and the
    classes depend on the seed only: the wrong labels of noise 0.2 are a subset of those of noise 0.4, in all stages.

    Raises:
      ConfigError: an unknown recipe, a value out of range, or a pool without images.
    """
    span = span or Span((0, len(labels)), (0, 0), (0, classes))
    first, last = span.train
    labels = np.asarray(labels, np.int32)[first:last] - span.classes[0]
    indices = everything(seed, len(labels), train_images, validation_images)
    chosen, classes = told_apart(data, seed, span) - span.classes[0], span.classes[1] - span.classes[0]
    indices = indices[np.isin(labels[indices], chosen)]
    noisy = _with_noise(labels, indices, chosen, seed, data.label_noise)
    if data.recipe == "random":
        indices = indices[: _share("fraction", data.fraction, len(indices))]
        base = len(indices)
    elif data.recipe == "split":
        if not 1 <= data.part <= data.splits:
            raise ConfigError(f"data.part={data.part} with data.splits={data.splits}; give 1..{data.splits}")
        indices = indices[arrivals(seed, labels[indices], classes, data.splits, data.uniform) <= data.part]
        base = len(indices)
    elif data.recipe == "blend":
        base = _share("fraction", data.fraction, len(indices))
    else:
        raise ConfigError(f"data.recipe={data.recipe!r} is unknown; choose one of random, split, blend")
    if base == 0:
        raise ConfigError(
            f"data.recipe={data.recipe}: no image is left of {len(labels)}; take a larger share or more train_images"
        )
    return Pool(indices=indices + first, labels=noisy[indices] + span.classes[0], base=base)


def arrivals(seed: int, labels: np.ndarray, classes: int, splits: int, uniform: float) -> np.ndarray:
    """int [n] in 1..splits: the part in which each image first appears (Berariu et al. 2021, appendix A.3).

    A random share r = `uniform` of the images is distributed evenly over the parts (D_u,i); the others arrive with the
    group C_i of their class.  Groups have as equal numbers of classes as possible, which are assigned at random.  Part
    i holds all images that arrived up to i, the last part holds everything.

    Raises:
      ConfigError: r out of range, or fewer classes than parts although some images come by class.
    """
    _share("uniform", uniform, len(labels))
    if splits < 1:
        raise ConfigError(f"data.splits={splits}; give at least 1")
    if uniform < 1 and splits > classes:
        raise ConfigError(
            f"data.splits={splits} is more than the {classes} classes; lower it, or set data.uniform to 1"
        )
    group = np.zeros(classes, np.int32)
    for i, members in enumerate(np.array_split(_generator(seed, "classes").permutation(classes), splits)):
        group[members] = i + 1
    arrival = group[labels]
    dealt = _generator(seed, "uniform").permutation(len(labels))[: round(uniform * len(labels))]
    for i, members in enumerate(np.array_split(dealt, splits)):
        arrival[members] = i + 1
    return arrival


def _with_noise(labels: np.ndarray, indices: np.ndarray, classes: np.ndarray, seed: int, noise: float) -> np.ndarray:
    """Labels with a fraction replaced by wrong ones, all among `classes` (ascending)."""
    count = _share("label_noise", noise, len(indices))
    if count and len(classes) < 2:
        raise ConfigError(f"data.label_noise={noise} needs a second class")
    generator = _generator(seed, "noise")
    rank, shift = generator.permutation(len(labels)), generator.integers(1, max(len(classes), 2), len(labels))
    wrong = indices[np.argsort(rank[indices])[:count]]
    noisy = labels.copy()
    noisy[wrong] = classes[(np.searchsorted(classes, labels[wrong]) + shift[wrong]) % len(classes)]
    return noisy


def _share(name: str, share: float, n: int) -> int:
    if not 0 <= share <= 1:
        raise ConfigError(f"data.{name}={share}; give a share in 0..1")
    return round(share * n)


def _generator(seed: int, purpose: str) -> np.random.Generator:
    if seed < 0:
        raise ConfigError(f"seed={seed}; give an integer, 0 or more")
    return np.random.default_rng([seed, zlib.crc32(purpose.encode())])
