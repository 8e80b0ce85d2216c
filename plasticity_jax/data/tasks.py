"""Streams of tasks: one stage with new random labels, or a new permutation of the pixels, for every task.

A task depends only on the seed and its number, so it is the same after a restart, and all tasks cost the same.  The
first task is drawn like all others.

    labels   each image has a label drawn uniformly from the classes, independent of its content: networks memorise, and
             nothing generalises ("random label MNIST" of Lyle et al. 2023 and Kumar et al. 2023)
    pixels   the pixels of all images, including test and validation images, are permuted in the same way ("permuted
             MNIST" of Goodfellow et al. 2013, Dohare et al. 2024); the channels of a pixel stay together
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from plasticity_jax.config import spec
from plasticity_jax.data import batches

Leaf = Any


class Tasks(NamedTuple):
    """The stream of one run.

    key: uint32 [2], data of the random key of the tasks.  steps: int32, updates per task.
    classes: bool [K], the classes from which labels are drawn; () if images keep their labels.
    pixels: bool, True if pixels are permuted; () if not.
    """

    key: Leaf
    steps: Leaf
    classes: Any = ()
    pixels: Any = ()


def tasks(tasks: spec.Tasks, seed: int, epoch_steps: int, classes: np.ndarray, trained: bool = True) -> Any:
    """The stream of a seed; () if nothing changes.

    Args:
      tasks: from the config.
      epoch_steps: updates per epoch of the run's pool.
      classes: bool [K], the classes that the run distinguishes.
      trained: whether it is for training images, since only these get new labels.
    """
    if tasks.change == "none":
        return ()
    key = np.asarray(jax.random.key_data(batches.key(seed, "tasks")))
    steps = np.int32(tasks.epochs * epoch_steps)
    if tasks.change == "pixels":
        return Tasks(key, steps, pixels=np.True_)
    if tasks.change == "labels" and trained:
        return Tasks(key, steps, classes=classes)
    return ()


def learned(stream: Tasks, step: Array) -> Array:
    """int32: the task of the last of `step` updates; the first task before any update."""
    return jnp.maximum(step - 1, 0) // stream.steps


def order(stream: Tasks, task: Array | int, pixels: int) -> Array:
    """int32 [pixels]: for each position in an image of this task, the position from which its pixel is taken."""
    return jax.random.permutation(jax.random.fold_in(_key(stream), task), pixels)


def moved(images: Array, order: Array) -> Array:
    """Images [B, H, W, C] with their pixels permuted by an order [H * W]."""
    flat = images.reshape(len(images), -1, images.shape[-1])
    return flat[:, order].reshape(images.shape)


def labels(stream: Tasks, task: Array | int, indices: Array) -> Array:
    """int32 [B]: the labels in this task of the images at `indices`, int32 [B], of the data set."""
    key = jax.random.fold_in(_key(stream), task)

    def one(index: Array) -> Array:
        draws = jax.random.uniform(jax.random.fold_in(key, index), stream.classes.shape)
        return jnp.argmax(jnp.where(stream.classes, draws, -1.0)).astype(jnp.int32)

    return jax.vmap(one)(indices)


def seen(
    stream: Any, task: Array | int, images: Array, stored: Array, indices: Array, places: Array | None = None
) -> tuple[Array, Array]:
    """The images [B, H, W, C] and labels [B] of a task, given those `stored` in the data set at `indices`.

    `places` is the `order` of the task, if it was computed before.
    """
    if not stream:
        return images, stored
    if moves(stream):
        places = order(stream, task, images.shape[1] * images.shape[2]) if places is None else places
        images = moved(images, places)
    return images, stored if isinstance(stream.classes, tuple) else labels(stream, task, indices)


def moves(stream: Any) -> bool:
    """Whether the pixels are permuted."""
    return bool(stream) and not isinstance(stream.pixels, tuple)


def _key(stream: Tasks) -> Array:
    return jax.random.wrap_key_data(stream.key)
