"""Convolution and max-pooling whose gradients stay fast on CPU.

XLA's CPU backend brings convolutions into the form that its fast kernels take only at the top level of a program.
Inside a loop (`lax.map` over runs, `lax.scan` over steps) the gradients that autodiff writes fall back to naive
code, some twenty times slower.  Here the gradients are written in the fast form (NHWC images, HWIO kernels) from the
start; see https://github.com/jax-ml/jax/issues/12868.  On other backends these are the plain `lax` operations.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

Pads = tuple[tuple[int, int], ...]
LAYOUT = ("NHWC", "HWIO", "NHWC")


def conv_general_dilated(
    x: Array, kernel: Array, strides: Sequence[int], padding: str | Sequence[tuple[int, int]], **options: Any
) -> Array:
    """`lax.conv_general_dilated`, for `flax.linen.Conv(conv_general_dilated=...)`.

    Takes the written-out gradients for plain two-dimensional convolutions (no groups, no dilation) on CPU.

    Args:
      x: images [N, H, W, C].
      kernel: [h, w, C, O].
      strides: two numbers.
      padding: `SAME`, `VALID` or ((top, bottom), (left, right)).
      **options: what else `lax.conv_general_dilated` takes.

    Returns:
      [N, H', W', O].
    """
    if jax.default_backend() != "cpu" or not _is_plain(x, kernel, options):
        return lax.conv_general_dilated(x, kernel, strides, padding, **options)
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(x.shape[1:3], kernel.shape[:2], strides, padding)
    pads = tuple((int(low), int(high)) for low, high in padding)
    return _conv(x, kernel, tuple(strides), pads, options.get("precision"))


def _is_plain(x: Array, kernel: Array, options: dict[str, Any]) -> bool:
    layout = lax.conv_dimension_numbers(x.shape, kernel.shape, options.get("dimension_numbers"))
    dilations = [d for key in ("lhs_dilation", "rhs_dilation") for d in options.get(key) or ()]
    return (
        x.ndim == 4
        and layout == lax.conv_dimension_numbers(x.shape, kernel.shape, LAYOUT)
        and set(dilations) <= {1}
        and options.get("feature_group_count", 1) == options.get("batch_group_count", 1) == 1
        and options.get("preferred_element_type") is None
        and options.get("out_sharding") is None
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _conv(x: Array, kernel: Array, strides: tuple[int, ...], pads: Pads, precision: Any) -> Array:
    return lax.conv_general_dilated(x, kernel, strides, pads, dimension_numbers=LAYOUT, precision=precision)


def _conv_forward(x: Array, kernel: Array, strides: tuple[int, ...], pads: Pads, precision: Any) -> tuple[Array, Any]:
    return _conv(x, kernel, strides, pads, precision), (x, kernel)


def _conv_backward(
    strides: tuple[int, ...], pads: Pads, precision: Any, saved: tuple[Array, Array], dy: Array
) -> tuple[Array, Array]:
    x, kernel = saved
    sides = range(2)
    size, kernel_size = x.shape[1:3], kernel.shape[:2]
    reach = [(dy.shape[1 + i] - 1) * strides[i] + 1 for i in sides]  # of dy with the strides' gaps in it
    conv = functools.partial(lax.conv_general_dilated, dimension_numbers=LAYOUT, precision=precision)

    # XLA folds a bare transpose back into the convolution's layout, off the fast path; the barrier stops that.
    # One barrier for each operand: a shared one would keep an input gradient alive that nobody asked for.
    flipped = lax.optimization_barrier(kernel[::-1, ::-1].swapaxes(2, 3))
    before = [kernel_size[i] - 1 - pads[i][0] for i in sides]
    after = [size[i] + kernel_size[i] - 1 - reach[i] - before[i] for i in sides]
    dx = conv(dy, flipped, (1, 1), tuple(zip(before, after, strict=True)), lhs_dilation=strides)

    images = lax.optimization_barrier(x.transpose(3, 1, 2, 0))
    taps = lax.optimization_barrier(dy.transpose(1, 2, 0, 3))
    after = [kernel_size[i] + reach[i] - 1 - size[i] - pads[i][0] for i in sides]
    padding = tuple((pads[i][0], after[i]) for i in sides)
    dkernel = conv(images, taps, (1, 1), padding, rhs_dilation=strides).transpose(1, 2, 0, 3)
    return dx, dkernel


_conv.defvjp(_conv_forward, _conv_backward)


def max_pool(x: Array, size: int, stride: int, pad: int) -> Array:
    """The largest value in each window; the gradient goes to the first of equal values, as in PyTorch and `lax`.

    On CPU it is written with shifted slices: there the scatter that `lax.reduce_window` has for a gradient takes a
    fifth of a whole training step of a small network.

    Args:
      x: images [N, H, W, C] of floats.
      size: side of the windows.
      stride: between the windows.
      pad: rows and columns around the image that never win, fewer than `size`.

    Returns:
      [N, H', W', C].
    """
    if jax.default_backend() != "cpu":
        window, strides, pads = (1, size, size, 1), (1, stride, stride, 1), ((0, 0), (pad, pad), (pad, pad), (0, 0))
        return lax.reduce_window(x, -jnp.inf, lax.max, window, strides, pads)
    return _max_pool(x, size, stride, pad)


def _windows(x: Array, size: int, stride: int, pad: int) -> list[Array]:
    """One array for each place in the window, in reading order: what each window holds there."""
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
    free = jnp.ones(y.shape, bool)  # no earlier place has had the gradient
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
