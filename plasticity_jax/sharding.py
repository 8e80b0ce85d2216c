"""How the images of a batch are dealt out over the devices that its run has, and how what they make of it is summed."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype
from jax import Array
from jax.sharding import PartitionSpec

AXES = ("run", "batch")  # of the mesh of devices


def ways() -> int:
    """How many devices share the batch of the run that is traced."""
    return jax.sharding.get_abstract_mesh().shape.get(AXES[1], 1)


def split(batch: Array) -> Array:
    """Deal a batch (leading axis) out over the devices that its run has, if these are several."""
    if AXES[1] not in jax.sharding.get_abstract_mesh().axis_names:
        return batch
    return jax.lax.with_sharding_constraint(batch, PartitionSpec(AXES[1]))


def weigh(layer: Callable[[Array, Array], Array], x: Array, weights: Array) -> Array:
    """`layer(x, weights)`, which is linear in both, for a batch x [N, ..]; differentiable once, by reverse mode.

    Where devices share a batch in a type narrower than float32, they sum the gradients of the weights in float32.
    Left alone, XLA sums them in the type of the weights.
    """
    if ways() == 1 or x.dtype.itemsize >= 4:
        return layer(x, weights)
    return _weigh(layer, x, weights)


def keep_bias(*arrays: Array | None, dtype: Any = None, inexact: bool = True) -> list[Array | None]:
    """`flax.linen.dtypes.promote_dtype`; where devices share a batch the last, a bias, stays float32: see `weigh`."""
    promoted = promote_dtype(*arrays, dtype=dtype, inexact=inexact)
    return promoted if ways() == 1 else [*promoted[:-1], arrays[-1]]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _weigh(layer: Callable[[Array, Array], Array], x: Array, weights: Array) -> Array:
    return layer(x, weights)


def _forward(layer: Callable[[Array, Array], Array], x: Array, weights: Array) -> tuple[Array, Any]:
    return _weigh(layer, x, weights), (x, weights)


def _backward(layer: Callable[[Array, Array], Array], saved: tuple[Array, Array], dy: Array) -> tuple[Array, Array]:
    x, weights = saved
    (dx,) = jax.vjp(lambda x: layer(x, weights), x)[1](dy)

    def share(x: Array, weights: Array, dy: Array) -> Array:
        (partial,) = jax.vjp(lambda weights: layer(x, weights), weights)[1](dy)
        return jax.lax.psum(partial.astype(jnp.float32), AXES[1])

    dealt, whole = PartitionSpec(AXES[1]), PartitionSpec()
    summed = jax.shard_map(
        share, in_specs=(dealt, whole, dealt), out_specs=whole, axis_names={AXES[1]}, check_vma=False
    )
    return dx, summed(_filled(x), weights, _filled(dy)).astype(weights.dtype)


_weigh.defvjp(_forward, _backward)


def _filled(batch: Array) -> Array:
    """A batch padded with zeros to a multiple of the devices; they add nothing to a gradient."""
    missing = -len(batch) % ways()
    return jnp.pad(batch, ((0, missing), *((0, 0) for _ in batch.shape[1:]))) if missing else batch
