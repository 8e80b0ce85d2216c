"""Splits the batch of a run over its devices, and sums the gradients of the devices in float32."""

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
    """The number of devices that share the batch of the run being traced."""
    return jax.sharding.get_abstract_mesh().shape.get(AXES[1], 1)


def split(batch: Array) -> Array:
    """Splits a batch (leading axis) over the devices of its run, if there are several."""
    if AXES[1] not in jax.sharding.get_abstract_mesh().axis_names:
        return batch
    return jax.lax.with_sharding_constraint(batch, PartitionSpec(AXES[1]))


def weigh(layer: Callable[[Array, Array], Array], x: Array, weights: Array) -> Array:
    """`layer(x, weights)`, linear in both arguments, for a batch x [N, ..]; differentiable once, in reverse mode.

    If devices share a batch of a dtype narrower than float32, the gradients of the weights are summed over devices in
    float32; XLA alone would sum them in the dtype of the weights.
    """
    if ways() == 1 or x.dtype.itemsize >= 4:
        return layer(x, weights)
    return _weigh(layer, x, weights)


def keep_bias(*arrays: Array | None, dtype: Any = None, inexact: bool = True) -> list[Array | None]:
    """flax's `promote_dtype`, but the last array, a bias, is not cast if devices share a batch; see `weigh`."""
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
    """A batch padded with zeros to a multiple of the number of devices; zeros do not change a gradient."""
    missing = -len(batch) % ways()
    return jnp.pad(batch, ((0, missing), *((0, 0) for _ in batch.shape[1:]))) if missing else batch
