"""Max-pooling whose gradient is fast on CPU and GPU."""

import functools
import itertools
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
    """The gradient, computed apart for every remainder of the pixels' positions modulo the stride."""
    x, y = saved
    place, zero = _first_place(x, y, size, stride, pad), jnp.zeros((), dy.dtype)
    blocks = [-(-side // stride) for side in x.shape[1:3]]

    def of_pixels(row: int, column: int) -> Array:
        """The gradient of the pixels at row, row + stride, .. and column, column + stride, ..."""
        total = jnp.zeros((len(x), *blocks, x.shape[3]), dy.dtype)
        for i, j in itertools.product(range(size), repeat=2):
            (top, above), (left, before) = divmod(row + pad - i, stride), divmod(column + pad - j, stride)
            if not above and not before:  # (top, left) is the window that has the first of these pixels at (i, j)
                edges = [
                    (-first, n - m + first, 0) for first, n, m in zip((top, left), blocks, y.shape[1:3], strict=True)
                ]
                given = jnp.where(place == size * i + j, dy, zero)
                total += lax.pad(given, zero, [(0, 0, 0), *edges, (0, 0, 0)])
        return total

    rows = [jnp.stack([of_pixels(row, column) for column in range(stride)], 3) for row in range(stride)]
    dx = jnp.stack(rows, 2).reshape(len(x), *(n * stride for n in blocks), x.shape[3])
    return (dx[:, : x.shape[1], : x.shape[2]],)


def _first_place(x: Array, y: Array, size: int, stride: int, pad: int) -> Array:
    """The position in each window, row by row, of the first value that equals the maximum y; whole numbers like `y`.

    Products and sums, as XLA's CPU backend does not vectorise a chain of `where`: a quarter of the time.
    """
    place, before = jnp.zeros_like(y), jnp.ones_like(y)
    for values in _windows(x, size, stride, pad)[:-1]:
        before *= values != y
        place += before
    return place


_max_pool.defvjp(_max_pool_forward, _max_pool_backward)
