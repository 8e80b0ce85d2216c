"""Patches: a small class-specific pattern in the middle of an image, hard to see but easy to memorise.

After Li, Wei & Ma 2019 ("Towards explaining the regularization effect of initial large learning rate in training neural
networks", arXiv 1907.04595) as in their released code, from which the values in `configs/patterns.py` come.  All
patches share z ~ N(0, shared^2); class c has one or several v ~ U(-own, own).  A fixed share of the images has a patch,
which is drawn each time with a random sign s:

    with probability `alone`   the whole image is 0 except for the patch z + s * stretch * U(0, 1) * v
    otherwise                  the image keeps its content around the patch z + s * v

Since v and -v belong to one class, no linear classifier can use them.  Values are on the scale of normalised images.
z and v depend on the seed only; so do the images that are patched, and the draws of an evaluation.
"""

import zlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from plasticity_jax.config import spec

Leaf = Any


class Patches(NamedTuple):
    """The patches of one run, and the slots of its source with a patch.

    key: uint32 [2], data of the random key for evaluation.
    flags: bool [P].  only: bool, all images are 0 except for their patch.
    shared: float32 [s, s, C], z.  own: float32 [K, M, s, s, C], every v of each of K classes.
    alone, stretch: float32.
    """

    key: Leaf
    flags: Leaf
    only: Leaf
    shared: Leaf
    own: Leaf
    alone: Leaf
    stretch: Leaf


def patches(patch: spec.Patch, seed: int, classes: int, channels: int, flags: np.ndarray, only: bool) -> Patches:
    """The patches of a seed, in numpy; `flags` bool [P]."""
    generator, shape = _generator(seed, "patches"), (patch.size, patch.size, channels)
    shared = generator.normal(0.0, patch.shared, shape)
    apart = generator.uniform(-patch.own, patch.own, (classes, patch.patterns, *shape))
    return Patches(
        key=np.asarray([seed, zlib.crc32(b"patches")], np.uint32),
        flags=np.asarray(flags, np.bool_),
        only=np.bool_(only),
        shared=shared.astype(np.float32),
        own=apart.astype(np.float32),
        alone=np.float32(patch.alone),
        stretch=np.float32(patch.stretch),
    )


def carried(patch: spec.Patch, seed: int, images: int, split: str) -> np.ndarray:
    """bool [images]: which images of a split (`train` or `test`) have a patch."""
    return _generator(seed, f"patched {split}").random(images) < patch.share


def paste(p: Patches, k: Array, numbers: Array, slots: Array, images: Array, labels: Array) -> Array:
    """Normalised images float32 [B, H, W, C] of the source's `slots`, with the patches of those that have one.

    The draws for each image depend on the key and its entry of `numbers`, int32 [B].
    """
    patched = p.flags[slots]
    pattern, sign, u, stretch = jax.vmap(lambda number: _draw(p, jax.random.fold_in(k, number)))(numbers)
    alone = u < p.alone
    scale = jnp.where(alone, sign * p.stretch * stretch, sign)
    patch = p.shared + scale[:, None, None, None] * p.own[labels, pattern]
    kept = jnp.where((patched & alone | p.only)[:, None, None, None], 0.0, images)
    size = p.shared.shape[0]
    row, column = (int(side / 2 - size / 2) for side in images.shape[1:3])
    pasted = kept.at[:, row : row + size, column : column + size].set(patch)
    return jnp.where(patched[:, None, None, None], pasted, images)


def evaluation_key(p: Patches) -> Array:
    """The key of all evaluations, which makes them differ only in the network."""
    return jax.random.wrap_key_data(p.key)


def _draw(p: Patches, k: Array) -> tuple[Array, Array, Array, Array]:
    """(index of the pattern, its sign, two numbers in [0, 1))."""
    which, side, first, second = jax.random.split(k, 4)
    sign = jnp.where(jax.random.bernoulli(side), 1.0, -1.0)
    pattern = jax.random.randint(which, (), 0, p.own.shape[1])
    return pattern, sign, jax.random.uniform(first), jax.random.uniform(second)


def _generator(seed: int, purpose: str) -> np.random.Generator:
    return np.random.default_rng([seed, zlib.crc32(purpose.encode())])
