"""Streams of tasks: one stage in which the labels, or the order of the pixels, are drawn anew for every task.

What a task is depends on the seed and the number of the task alone, so it is the same from any restart point, and the
hundredth task costs what the first one did.  The first task is drawn like every other.

    labels   each image has a label drawn uniformly from the classes, whatever it shows: memorising, and nothing to
             generalise ("random label MNIST" of Lyle et al. 2023 and Kumar et al. 2023)
    pixels   the pixels of all images change places alike ("permuted MNIST" of Goodfellow et al. 2013, Dohare et al.
             2024), those of test and validation images too; all channels of a pixel stay together
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

    key: uint32 [2], data of the key that tasks are drawn by.  steps: int32, updates of a task.
    classes: bool [K], of which labels are drawn; () where images keep theirs.
    pixels: bool, True where pixels change places; () where they stay.
    """

    key: Leaf
    steps: Leaf
    classes: Any = ()
    pixels: Any = ()


def tasks(tasks: spec.Tasks, seed: int, epoch_steps: int, classes: np.ndarray, trained: bool = True) -> Any:
    """The stream of a seed; () where nothing changes.

    Args:
      tasks: the config's.
      epoch_steps: updates of an epoch of the run's pool.
      classes: bool [K], those that are told apart.
      trained: whether it is about images that the run trains on, since only these have other labels.
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
    """int32: the task that the last of `step` updates was about; the first one before any update."""
    return jnp.maximum(step - 1, 0) // stream.steps


def order(stream: Tasks, task: Array | int, pixels: int) -> Array:
    """int32 [pixels]: for each place of an image of this task, the place that its pixel comes from."""
    return jax.random.permutation(jax.random.fold_in(_key(stream), task), pixels)


def moved(images: Array, order: Array) -> Array:
    """Images [B, H, W, C] with their pixels in an order [H * W]."""
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
    """Whether the pixels change places."""
    return bool(stream) and not isinstance(stream.pixels, tuple)


def _key(stream: Tasks) -> Array:
    return jax.random.wrap_key_data(stream.key)
