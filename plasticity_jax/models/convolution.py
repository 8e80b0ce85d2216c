"""Convolutions that are fast on CPU: inside loops, with few channels and for small images.

XLA's CPU backend has good code for convolutions of NHWC images with HWIO kernels, but

- it converts other layouts to that form only at the top level of a program: inside a loop (`lax.map` over runs, a loop
  over steps) the gradients that autodiff produces run about twenty times slower
  (https://github.com/jax-ml/jax/issues/12868);
- it always computes 16 output channels at a time, however few there are;
- it treats a weight gradient as a convolution with a very large kernel (the gradients of the batch), which is read
  from memory again for each row of the small result.

So the forward pass and both gradients of a convolution are written out here in that layout, in shapes that suit this
code:

    matrix   results of a few pixels: one matrix product with the kernel written out as a matrix
    point    kernels of one pixel: one matrix product
    fold     few channels: adjacent columns of the result become channels of a wider kernel
    parts    weight gradients of large images: computed for parts of the batch that fit into the cache
    rows     weight gradients of small images: input channels placed side by side as one wide image

Other backends use `lax`, with the kernel cropped to the part that overlaps the image.  Many runs at once (all backends)
and gradients of gradients on CPU (`products.plain`) use `products`.
"""

import contextlib
import contextvars
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from plasticity_jax import sharding, target
from plasticity_jax.models import products
from plasticity_jax.models.products import Pads, Pair

LAYOUT = ("NHWC", "HWIO", "NHWC")

# Chosen by timing steps of ResNet-18 at widths 4 to 16 with both stems; the times hardly change around these values.
LANES = 16  # floats per vector instruction
MATRIX = 256  # largest number of rows and columns for `matrix`
NARROW = 8  # largest width of a result whose weight gradient is computed by `rows`
PART = 512 * 1024  # bytes of gradients in one part of a batch


def conv_general_dilated(
    x: Array, kernel: Array, strides: Sequence[int], padding: str | Sequence[Pair], **options: Any
) -> Array:
    """`lax.conv_general_dilated`, for `flax.linen.Conv(conv_general_dilated=...)`.

    Plain two-dimensional convolutions (no groups, no dilation) use the fast forms of this module on CPU, and those of
    `products` for many runs at once; these differ from `lax` only in the order of sums.

    Args:
      x: images [N, H, W, C].
      kernel: [h, w, C, O].
      strides: two numbers.
      padding: `SAME`, `VALID` or ((top, bottom), (left, right)).
      **options: other arguments of `lax.conv_general_dilated`.

    Returns:
      [N, H', W', O].
    """
    conv = functools.partial(_here, strides=tuple(strides), padding=padding, **options)
    if _seedwise.get():
        conv = functools.partial(_apart, conv)
    return sharding.weigh(conv, x, kernel)


def _here(x: Array, kernel: Array, strides: Sequence[int], padding: str | Sequence[Pair], **options: Any) -> Array:
    """The convolution in the fastest form for this backend."""
    if not _is_plain(x, kernel, options):
        return lax.conv_general_dilated(x, kernel, strides, padding, **options)
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(x.shape[1:3], kernel.shape[:2], strides, padding)
    (top, bottom), (left, right) = padding
    pads = ((int(top), int(bottom)), (int(left), int(right)))
    steps, precision = (strides[0], strides[1]), options.get("precision")
    if products.are_together() or (products.are_plain() and target.backend() == "cpu"):
        return products.convolve(x, kernel, steps, pads, precision)
    if target.backend() != "cpu":
        kernel, pads = products.cropped(x, kernel, steps, pads)
        return lax.conv_general_dilated(x, kernel, steps, pads, dimension_numbers=LAYOUT, precision=precision)
    if kernel.shape[:2] == (1, 1) and not any(map(any, pads)):
        return products.pointwise(x, kernel, steps, precision)
    out = products.shape_of_result(x, kernel, steps, pads)
    few = math.prod(out) <= 4 and math.prod(x.shape[1:3]) <= 16
    if few or max(math.prod(x.shape[1:]), math.prod(out) * kernel.shape[3]) <= MATRIX:
        return products.matrix(x, kernel, steps, pads, precision)
    return _conv(x, kernel, steps, pads, precision)


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
def _conv(x: Array, kernel: Array, strides: Pair, pads: Pads, precision: Any) -> Array:
    return _folded(x, kernel, strides, pads, precision)


def _conv_forward(x: Array, kernel: Array, strides: Pair, pads: Pads, precision: Any) -> tuple[Array, Any]:
    return _conv(x, kernel, strides, pads, precision), (x, kernel)


def _conv_backward(
    strides: Pair, pads: Pads, precision: Any, saved: tuple[Array, Array], dy: Array
) -> tuple[Array, Array]:
    x, kernel = saved
    by = _kernel_gradient_by_rows if dy.shape[2] <= NARROW else _kernel_gradient_by_parts
    return (
        _input_gradient(dy, kernel, x.shape, strides, pads, precision),
        by(x, dy, kernel.shape, strides, pads, precision),
    )


_conv.defvjp(_conv_forward, _conv_backward)


def _folded(x: Array, kernel: Array, strides: Pair, pads: Pads, precision: Any) -> Array:
    """The convolution; with few channels, `fold` adjacent columns of the result are computed as channels of one."""
    channels, width = kernel.shape[3], products.shape_of_result(x, kernel, strides, pads)[1]
    fold = LANES // channels if strides[1] == 1 else 1
    if 1 < fold and width % fold == 0:
        shifted = [jnp.pad(kernel, ((0, 0), (t, fold - 1 - t), (0, 0), (0, 0))) for t in range(fold)]
        kernel, strides = jnp.concatenate(shifted, -1), (strides[0], fold)
    y = lax.conv_general_dilated(x, kernel, strides, pads, dimension_numbers=LAYOUT, precision=precision)
    return y.reshape(*y.shape[:2], width, channels)


# Without a barrier XLA merges a transpose into the convolution's layout, which leaves the fast path.
# Each operand has its own barrier: a shared one would keep an unused input gradient alive.


def _input_gradient(
    dy: Array, kernel: Array, shape: tuple[int, ...], strides: Pair, pads: Pads, precision: Any
) -> Array:
    flipped = lax.optimization_barrier(kernel[::-1, ::-1].swapaxes(2, 3))
    edges = []
    for n, m, k, s, pad in zip(shape[1:3], dy.shape[1:3], kernel.shape[:2], strides, pads, strict=True):
        before = k - 1 - pad[0]
        edges.append((before, n + k - 2 - (m - 1) * s - before))
    if strides == (1, 1):
        return _folded(dy, flipped, strides, (edges[0], edges[1]), precision)
    return lax.conv_general_dilated(
        dy, flipped, (1, 1), edges, lhs_dilation=strides, dimension_numbers=LAYOUT, precision=precision
    )


def _edges(x: Array, dy: Array, shape: tuple[int, ...], strides: Pair, pads: Pads) -> list[Pair]:
    """Padding of x so that the gradients, dilated by the strides, fit at exactly `shape` positions."""
    sizes = zip(x.shape[1:3], dy.shape[1:3], shape[:2], strides, pads, strict=True)
    return [(pad[0], k + (m - 1) * s - n - pad[0]) for n, m, k, s, pad in sizes]


def _kernel_gradient_by_parts(
    x: Array, dy: Array, shape: tuple[int, ...], strides: Pair, pads: Pads, precision: Any
) -> Array:
    """Convolution of x as [C, H, W, N] with dy as [H', W', N, O], one part of the batch after another."""
    height, width, channels = dy.shape[1:]
    fold = 2 if 2 * channels <= LANES and width % 2 == 0 and strides[1] == 1 else 1

    def part(x: Array, dy: Array) -> Array:
        images = lax.optimization_barrier(x.transpose(3, 1, 2, 0))
        folded = dy.reshape(len(dy), height, width // fold, fold * channels)
        taps = lax.optimization_barrier(folded.transpose(1, 2, 0, 3))
        sums = lax.conv_general_dilated(
            images,
            taps,
            (1, 1),
            _edges(x, dy, shape, strides, pads),
            rhs_dilation=(strides[0], fold * strides[1]),
            dimension_numbers=LAYOUT,
            precision=precision,
        ).reshape(shape[2], shape[0], -1, fold, channels)
        return functools.reduce(jnp.add, [sums[:, :, t : t + shape[1], t] for t in range(fold)])

    wanted = max(1, dy.size * dy.dtype.itemsize // PART)
    count = max(n for n in range(1, wanted + 1) if len(x) % n == 0)
    pairs = zip(jnp.split(x, count), jnp.split(dy, count), strict=True)
    return functools.reduce(jnp.add, [part(*pair) for pair in pairs]).transpose(1, 2, 0, 3)


def _kernel_gradient_by_rows(
    x: Array, dy: Array, shape: tuple[int, ...], strides: Pair, pads: Pads, precision: Any
) -> Array:
    """One convolution of x as [1, H, C W, N] per kernel column; its stride W goes to the next channel."""
    edges = [(*edge, 0) for edge in _edges(x, dy, shape, strides, pads)]
    x = lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *edges, (0, 0, 0)])
    batch, height, width, channels = x.shape
    images = lax.optimization_barrier(x.transpose(1, 3, 2, 0).reshape(1, height, channels * width, batch))
    taps = lax.optimization_barrier(dy.transpose(1, 2, 0, 3))
    conv = functools.partial(
        lax.conv_general_dilated, rhs_dilation=strides, dimension_numbers=LAYOUT, precision=precision
    )
    columns = [conv(images, taps, (1, width), ((0, 0), (-j, j)))[0] for j in range(shape[1])]
    return jnp.stack(columns, 1)


_seedwise: contextvars.ContextVar[bool] = contextvars.ContextVar("seedwise", default=False)


@contextlib.contextmanager
def seedwise() -> Iterator[None]:
    """Context in which `vmap` over runs turns each convolution into a loop of convolutions of one run."""
    token = _seedwise.set(True)
    try:
        yield
    finally:
        _seedwise.reset(token)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _apart(conv: Callable[..., Array], x: Array, kernel: Array) -> Array:
    return _one_by_one(conv)(x, kernel)


def _apart_forward(conv: Callable[..., Array], x: Array, kernel: Array) -> tuple[Array, Any]:
    return _apart(conv, x, kernel), (x, kernel)


def _apart_backward(conv: Callable[..., Array], saved: tuple[Array, Array], dy: Array) -> tuple[Array, Array]:
    # Two loops, so that XLA removes one whose result is unused.
    dx = _one_by_one(lambda x, kernel, dy: jax.vjp(lambda x: conv(x, kernel), x)[1](dy)[0])
    dkernel = _one_by_one(lambda x, kernel, dy: jax.vjp(lambda kernel: conv(x, kernel), kernel)[1](dy)[0])
    return dx(*saved, dy), dkernel(*saved, dy)


_apart.defvjp(_apart_forward, _apart_backward)


def _one_by_one(fn: Callable[..., Array]) -> Callable[..., Array]:
    """`fn`, but `vmap` turns it into a loop."""
    mapped = jax.custom_batching.custom_vmap(fn)

    @mapped.def_vmap
    def rule(size: int, batched: Sequence[bool], *args: Array) -> tuple[Array, bool]:
        moving = [arg for arg, split in zip(args, batched, strict=True) if split]

        def one(moving: list[Array]) -> Array:
            left = iter(moving)
            return fn(*(next(left) if split else arg for arg, split in zip(args, batched, strict=True)))

        return lax.map(one, moving), True

    return mapped
