"""Convolutions as matrix products, which `vmap` over runs turns into one batched product for all runs.

The alternative, a grouped convolution over runs, is slow on GPUs and by default not part of a CUDA graph; batched
matrix products are fast.  Two forms:

    matrix   images of a few pixels: the kernel written out as a matrix
    patches  all others: patches of the image (im2col) times the kernel

Only the part of a kernel that overlaps the image is used (`cropped`): for a 1x1 map one weight of nine.  Results equal
those of `lax` up to the order of sums.
"""

import contextlib
import contextvars
import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

Pair = tuple[int, int]
Pads = tuple[Pair, Pair]

FEW = 4  # largest number of pixels of a map for `matrix`
LARGE = 2**25  # bytes of one run's patches above which the backward pass recomputes them
EIGHT = 8  # matrix units sum over a multiple of this; otherwise XLA would copy all patches to pad them for cuBLAS

_together: contextvars.ContextVar[bool] = contextvars.ContextVar("together", default=False)


@contextlib.contextmanager
def together() -> Iterator[None]:
    """Context for tracing many runs at once: layers use the forms that are fastest under `vmap` on a GPU."""
    token = _together.set(True)
    try:
        yield
    finally:
        _together.reset(token)


def are_together() -> bool:
    """Whether tracing happens inside `together`."""
    return _together.get()


_plain: contextvars.ContextVar[bool] = contextvars.ContextVar("plain", default=False)
_once: contextvars.ContextVar[bool] = contextvars.ContextVar("once", default=False)


@contextlib.contextmanager
def plain() -> Iterator[None]:
    """Context in which layers can be differentiated repeatedly, in forward and reverse mode.

    They use plain operations there; the fast gradients for training allow only one reverse-mode derivative.
    """
    token = _plain.set(True)
    try:
        yield
    finally:
        _plain.reset(token)


@contextlib.contextmanager
def differentiated_once() -> Iterator[None]:
    """Context in which `plain` has no effect: for what takes one reverse-mode derivative, and nothing further."""
    token = _once.set(True)
    try:
        yield
    finally:
        _once.reset(token)


def are_plain() -> bool:
    """Whether tracing happens inside `plain`, and not inside `differentiated_once`."""
    return _plain.get() and not _once.get()


def shape_of_result(x: Array, kernel: Array, strides: Pair, pads: Pads) -> Pair:
    """Height and width of a convolution's result."""
    sizes = zip(x.shape[1:3], kernel.shape[:2], strides, pads, strict=True)
    height, width = ((n + sum(pad) - k) // s + 1 for n, k, s, pad in sizes)
    return height, width


def convolve(x: Array, kernel: Array, strides: Pair, pads: Pads, precision: Any) -> Array:
    """The convolution of images [N, H, W, C] with a kernel [h, w, C, O], as one matrix product."""
    kernel, pads = cropped(x, kernel, strides, pads)
    out = shape_of_result(x, kernel, strides, pads)
    if kernel.shape[:2] != (1, 1) and max(math.prod(x.shape[1:3]), math.prod(out)) <= FEW:
        return matrix(x, kernel, strides, pads, precision)
    return _patched(x, kernel, strides, pads, precision)


def cropped(x: Array, kernel: Array, strides: Pair, pads: Pads) -> tuple[Array, Pads]:
    """The part of a kernel that overlaps images of the shape of `x` at any position, and the padding that it needs."""
    starts, ends, edges = [], [], []
    sizes = zip(x.shape[1:3], kernel.shape[:2], strides, pads, shape_of_result(x, kernel, strides, pads), strict=True)
    for n, k, s, (before, after), places in sizes:
        start, end = max(0, before - (places - 1) * s), min(k, n + before)
        if start >= end:  # it overlaps padding only
            start, end = 0, k
        starts.append(start)
        ends.append(end)
        edges.append((before - start, after - (k - end)))
    return kernel[starts[0] : ends[0], starts[1] : ends[1]], (edges[0], edges[1])


def matrix(x: Array, kernel: Array, strides: Pair, pads: Pads, precision: Any) -> Array:
    """The convolution as [N, H W C] times [H W C, H' W' O]; its gradients are matrix products too."""
    out, columns = shape_of_result(x, kernel, strides, pads), []
    for place in ((i, j) for i in range(out[0]) for j in range(out[1])):
        starts = [s * p - pad[0] for s, p, pad in zip(strides, place, pads, strict=True)]
        edges = [(a, n - a - k, 0) for a, n, k in zip(starts, x.shape[1:3], kernel.shape[:2], strict=True)]
        columns.append(lax.pad(kernel, jnp.zeros((), kernel.dtype), [*edges, (0, 0, 0), (0, 0, 0)]))
    matrix = jnp.concatenate(columns, -1).reshape(-1, math.prod(out) * kernel.shape[3])
    return jnp.dot(x.reshape(len(x), -1), matrix, precision=precision).reshape(len(x), *out, kernel.shape[3])


def pointwise(x: Array, kernel: Array, strides: Pair, precision: Any) -> Array:
    """The convolution with a 1x1 kernel as [N H' W', C] times [C, O], whose gradients are matrix products too."""
    x = x[:, :: strides[0], :: strides[1]]
    return jnp.dot(x.reshape(-1, x.shape[3]), kernel[0, 0], precision=precision).reshape(*x.shape[:3], -1)


def _patched(x: Array, kernel: Array, strides: Pair, pads: Pads, precision: Any) -> Array:
    size, out = (kernel.shape[0], kernel.shape[1]), shape_of_result(x, kernel, strides, pads)

    def product(x: Array, rows: Array) -> Array:
        columns = patches(x, size, strides, pads)
        filled = jnp.pad(rows, ((0, columns.shape[1] - len(rows)), (0, 0)))
        return jnp.dot(columns, filled, precision=precision)

    count = len(x) * math.prod(out) * math.prod(size) * x.shape[3]
    if count * x.dtype.itemsize > LARGE:
        product = jax.checkpoint(product)
    return product(x, kernel.reshape(-1, kernel.shape[3])).reshape(len(x), *out, -1)


def patches(x: Array, size: Pair, strides: Pair, pads: Pads) -> Array:
    """The patches under a kernel of `size`, [N H' W', h w C padded by zeros], from slices and one concatenation."""
    edges = [(0, 0, 0), *((*pad, 0) for pad in pads), (0, 0, 0)]
    x = lax.pad(x, jnp.zeros((), x.dtype), edges)
    ends = [(n - k) // s * s + 1 for n, k, s in zip(x.shape[1:3], size, strides, strict=True)]
    taps = [
        x[:, i : i + ends[0] : strides[0], j : j + ends[1] : strides[1]] for i in range(size[0]) for j in range(size[1])
    ]
    missing = -len(taps) * x.shape[3] % EIGHT
    taps += [jnp.zeros((*taps[0].shape[:3], missing), x.dtype)] * (missing > 0)
    together = jnp.concatenate(taps, -1) if len(taps) > 1 else taps[0]
    # Without it XLA would fuse them into the product, and its GPU compiler (jaxlib 0.10.2) aborts on a failed check.
    return lax.optimization_barrier(together.reshape(-1, together.shape[-1]))
