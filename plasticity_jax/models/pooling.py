"""Max-pooling whose gradient is fast on CPU and GPU."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from plasticity_jax import target
from plasticity_jax.models import products


def max_pool(x: Array, size: int, stride: int, pad: int) -> Array:
    """Max-pooling; the gradient goes to the first of equal values, as in PyTorch and `lax`.

    On CPU and GPU it is computed from shifted slices.  The gradient of `lax.reduce_window` is a scatter: it takes a
    fifth of a training step of a small network on CPU, and three times the memory on GPU.  But it can be differentiated
    again, so it is used inside `products.plain`.

    Args:
      x: images [N, H, W, C] of floats.
      size: side of the windows.
      stride: between the windows.
      pad: rows and columns of -inf around the image, fewer than `size`.

    Returns:
      [N, H', W', C].
    """
    if products.are_plain() or (target.backend() == "tpu" and not products.are_together()):
        window, strides, pads = (1, size, size, 1), (1, stride, stride, 1), ((0, 0), (pad, pad), (pad, pad), (0, 0))
        return lax.reduce_window(x, -jnp.inf, lax.max, window, strides, pads)
    return _max_pool(x, size, stride, pad)


def _windows(x: Array, size: int, stride: int, pad: int) -> list[Array]:
    """One array [N, H', W', C] for each position in the window, row by row: the values there in every window."""
    x = jnp.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)), constant_values=-jnp.inf)
    height, width = (side - size + 1 for side in x.shape[1:3])
    return [x[:, i : i + height : stride, j : j + width : stride] for i in range(size) for j in range(size)]


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def _max_pool(x: Array, size: int, stride: int, pad: int) -> Array:
    return functools.reduce(jnp.maximum, _windows(x, size, stride, pad))


def _max_pool_forward(x: Array, size: int, stride: int, pad: int) -> tuple[Array, Any]:
    y = _max_pool(x, size, stride, pad)
    return y, (x, y)


def _max_pool_backward(size: int, stride: int, pad: int, saved: tuple[Array, Array], dy: Array) -> tuple[Array]:
    x, y = saved
    zero = jnp.zeros((), dy.dtype)
    free = jnp.ones(y.shape, bool)  # windows whose gradient has not been assigned yet
    dx = jnp.zeros_like(x)
    for place, values in enumerate(_windows(x, size, stride, pad)):
        wins = free & (values == y)
        free &= ~wins
        starts = (place // size - pad, place % size - pad)
        edges = [
            (start, n - start - (m - 1) * stride - 1, stride - 1)
            for start, n, m in zip(starts, x.shape[1:3], y.shape[1:3], strict=True)
        ]
        dx += lax.pad(jnp.where(wins, dy, zero), zero, [(0, 0, 0), *edges, (0, 0, 0)])
    return (dx,)


_max_pool.defvjp(_max_pool_forward, _max_pool_backward)
