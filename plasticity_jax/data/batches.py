"""Batches: which images a step uses, as pure functions of (key, step), so that runs can be resumed at any step.

Every key comes from `fold_in` of the seed, the name of its use and the step; nothing is threaded.
"""

import zlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

Array = jax.Array
Leaf = Any  # an array on the device, or in numpy before it is copied there


class Source(NamedTuple):
    """The source of one run's batches (one row of the run axis).

    indices: int32 [P], images of the pool, padded to the longest pool in the program.
    labels: int32 [P], their labels.
    size: int32, the number of valid entries.
    base: int32, the number of entries in the biased part that blending draws from.
    gamma: float32, the blending rate; 0 for no blending.
    replacement: bool, draw independently instead of going through a permutation.
    shuffle: bool, use a new permutation each epoch; without, the order of the slots.
    classes: bool [K], the classes used; () for all.
    patches: the `Patches` of the images; () for none.
    tasks: the stream of `Tasks`; () for a single task.
    """

    indices: Leaf
    labels: Leaf
    size: Leaf
    base: Leaf
    gamma: Leaf
    replacement: Leaf
    shuffle: Leaf
    classes: Any = ()
    patches: Any = ()
    tasks: Any = ()


def key(seed: int, *names: str) -> Array:
    """The random key of a seed for a named use, `fold_in` by the CRC-32 of each name."""
    k = jax.random.key(seed)
    for name in names:
        k = jax.random.fold_in(k, zlib.crc32(name.encode()))
    return k


def permutations(k: Array, first_epoch: Array, count: int, source: Source) -> Array:
    """int32 [count, P]: random orders of the first `size` slots for epochs first_epoch, first_epoch + 1, ..

    Slots beyond `size` sort to the end.  The draw for a slot does not depend on P, so the order of a pool does not
    change if it is padded to the length of longer ones.
    """
    slots = jnp.arange(source.indices.shape[0])

    def one(epoch: Array) -> Array:
        draws = jax.random.uniform(jax.random.fold_in(k, epoch), slots.shape)
        # No draw is negative, so their bits sort as they do, and the TPU compiler takes two thirds of the time.
        bits = jax.lax.bitcast_convert_type(jnp.where(slots < source.size, draws, 2.0), jnp.int32)
        order = jnp.argsort(bits).astype(jnp.int32)
        return jnp.where(source.shuffle, order, slots)

    return jax.vmap(one)(first_epoch + jnp.arange(count))


def batch_slots(k: Array, order: Array, step: Array, steps: Array, position: Array, size: int, source: Source) -> Array:
    """int32 [size]: the pool slots of one batch.

    Without replacement: the `position`-th batch of the epoch's `order`; the last batch of an epoch is filled up
    from the epoch's beginning, so that every batch is full and an epoch has ceil(pool / batch) steps.
    With replacement, and for blending (Berariu et al. 2021, appendix A.2): each slot is drawn uniformly from the
    whole pool with probability p = 1 - gamma^(50 step/steps), else uniformly from the first `base`.
    """
    walk = order[(position * size + jnp.arange(size)) % source.size]
    k_which, whole, base = drawn(k, step, size, source)
    biased = jax.random.uniform(k_which, (size,)) < source.gamma ** (50.0 * step / steps)
    blend = jnp.where((source.gamma > 0) & biased, base, whole)
    return jnp.where(source.replacement, blend, walk)


def drawn(k: Array, step: Array, size: int, source: Source) -> tuple[Array, Array, Array]:
    """A key, and int32 [size] candidate slots each from the whole pool and from its biased part; a batch uses one."""
    k_which, k_whole, k_base = jax.random.split(jax.random.fold_in(k, step), 3)
    whole = jax.random.randint(k_whole, (size,), 0, source.size)
    return k_which, whole, jax.random.randint(k_base, (size,), 0, source.base)


def references(k: Array, step: Array, size: int, source: Source) -> Array:
    """int32 [size]: slots of the pool for the reference images of remedies, drawn independently."""
    return jax.random.randint(jax.random.fold_in(k, step), (size,), 0, source.size)


def normalise(images: Array, mean: Array, std: Array) -> Array:
    """[B, H, W, C] with values up to 255 to float32 with the data set's mean and standard deviation per channel."""
    mean, std = (channel.reshape(1, 1, 1, -1) for channel in (mean, std))
    return (images.astype(jnp.float32) / 255.0 - mean) / std


def augment(k: Array, images: Array, pad: int = 4, flip: bool = True) -> Array:
    """Pads with zeros (black) and crops at random to the old size; `flip` mirrors with probability 1/2; [B, H, W, C].

    The crop does not depend on `flip`.
    """
    batch, height, width, channels = images.shape
    k_row, k_column, k_flip = jax.random.split(k, 3)
    rows = jax.random.randint(k_row, (batch,), 0, 2 * pad + 1)
    columns = jax.random.randint(k_column, (batch,), 0, 2 * pad + 1)
    padded = jnp.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    crop = jax.vmap(lambda image, r, c: jax.lax.dynamic_slice(image, (r, c, 0), (height, width, channels)))
    cropped = crop(padded, rows, columns)
    if not flip:
        return cropped
    mirrored = jax.random.bernoulli(k_flip, 0.5, (batch,))
    return jnp.where(mirrored[:, None, None, None], cropped[:, :, ::-1], cropped)
