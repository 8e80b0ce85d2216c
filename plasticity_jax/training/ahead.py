"""Computes on the host which images the coming steps of ONE run read, so that not all images need be on the device.

The images follow from the random key of the stage and the number of the step.  `step.advance` calls the same functions.
Only keys and indices are computed here, no pixels are read.
"""

import functools
import hashlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from plasticity_jax import target
from plasticity_jax.config import spec
from plasticity_jax.data import batches
from plasticity_jax.data.batches import Source
from plasticity_jax.training import step
from plasticity_jax.training.inputs import Task

STEPS = 64  # steps whose draws one call computes


class Ahead:
    """The images of the steps of one run.  Runs with pools of equal length share the compiled functions.

    Must be constructed where jax's random number settings are the lab's; then it may be called from any thread.
    """

    def __init__(self, task: Task, stage: spec.Stage):
        """Takes the `task` of one run, in numpy except for its key."""
        self.steps, self.epoch_steps, self.batch = int(task.steps), int(task.epoch_steps), stage.batch_size
        self.key = np.asarray(jax.random.key_data(task.key))
        plain = task.source._replace(classes=(), patches=(), tasks=())
        self.source: Source = jax.tree.map(np.asarray, plain)
        self.size, self.refers = int(plain.size), bool(stage.remedies)
        self.draws, self.blends = bool(plain.replacement), bool(plain.replacement and plain.gamma > 0)
        self.orders: dict[int, np.ndarray] = {}
        self._order = _compiled(_order, self.source, self.batch)
        self._drawn = _compiled(_drawn, self.source, self.batch) if self.draws or self.refers else None

    @functools.cached_property
    def identity(self) -> Any:
        """A hashable value, equal for runs that read the same images in every step."""
        leaves = self.key, *jax.tree.leaves(self.source)
        return self.steps, self.epoch_steps, *(hashlib.sha256(leaf.tobytes()).digest() for leaf in leaves)

    @property
    def pool(self) -> np.ndarray:
        """int32: all images that the run trains on."""
        return self.source.indices[: self.size]

    @property
    def most(self) -> int:
        """The largest number of images that one step reads."""
        return self.batch * (1 + self.blends + self.refers)

    def looked_at(self, first: int, last: int) -> np.ndarray:
        """int32, ascending: the images that the steps `first` to `last` - 1 read; `last` may exceed the run's length.

        For a blended batch these are all candidates: the choice between them depends on a power, whose last bit differs
        between devices.
        """
        steps = np.arange(first, max(first, min(last, self.steps)), dtype=np.int32)
        slots = [np.zeros(0, np.int32)]
        if not self.draws:
            for epoch in np.unique(steps // self.epoch_steps).tolist():
                here = steps[steps // self.epoch_steps == epoch] % self.epoch_steps
                walked = here[:, None] * self.batch + np.arange(self.batch)
                slots.append(self._order_of(epoch)[walked % self.size].ravel())
        if self._drawn:
            for start in range(0, len(steps), STEPS):
                some = steps[start : start + STEPS]
                parts = self._drawn(self.key, np.resize(some, STEPS), self.source)
                whole, base, references = (np.asarray(part)[: len(some)].ravel() for part in parts)
                slots += [whole] * self.draws + [base] * self.blends + [references] * self.refers
        return np.unique(self.source.indices[np.concatenate(slots)])

    def _order_of(self, epoch: int) -> np.ndarray:
        if epoch not in self.orders:
            self.orders = {known: order for known, order in self.orders.items() if known == epoch - 1}
            self.orders[epoch] = np.asarray(self._order(self.key, np.int32(epoch), self.source))
        return self.orders[epoch]


def _order(data: jax.Array, number: jax.Array, source: Source, batch: int) -> jax.Array:
    """int32 [P]: the order of the images in an epoch, as slots of the pool."""
    key = jax.random.fold_in(jax.random.wrap_key_data(data), step.ORDER)
    return batches.permutations(key, number, 1, source)[0]


def _drawn(data: jax.Array, steps: jax.Array, source: Source, batch: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """int32 [STEPS, batch] each: slots drawn from the whole pool, from its biased part, and for remedies."""
    key = jax.random.wrap_key_data(data)
    drawing, referring = (jax.random.fold_in(key, use) for use in (step.BATCH, step.REFERENCE))

    def one(number: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        _, whole, base = batches.drawn(drawing, number, batch, source)
        return whole, base, batches.references(referring, number, batch, source)

    return jax.vmap(one)(steps)


def _compiled(fn: Callable[..., Any], source: Source, batch: int) -> Callable[..., Any]:
    """`fn` compiled for the host's CPU, so that it does not wait for a device that is training."""
    return _compiled_for(fn, len(source.indices), batch)


@functools.lru_cache(maxsize=32)
def _compiled_for(fn: Callable[..., Any], length: int, batch: int) -> Callable[..., Any]:
    def like(dtype: Any, *shape: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, dtype)

    whole, real, truth = like(jnp.int32), like(jnp.float32), like(jnp.bool_)
    slots = like(jnp.int32, length)
    source = Source(slots, slots, whole, whole, real, truth, truth)
    numbers = whole if fn is _order else like(jnp.int32, STEPS)
    with jax.default_device(target.host()):
        lowered = jax.jit(functools.partial(fn, batch=batch)).lower(like(jnp.uint32, 2), numbers, source)
        return lowered.compile()
