"""BatchNorm with few GPU kernels, for many runs at once: one pass over the batch forward and one backward.

The derivative of `flax.linen.BatchNorm` sums over the batch four times in the backward pass alone.  The gradient
written by hand needs only two sums, computed together: of the gradient, and of its product with the normalised images
(Ioffe & Szegedy 2015, section 3).
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array, lax

from plasticity_jax import sharding

Saved = tuple[Array, Array, Array, Array]


class BatchNorm(nn.Module):
    """`flax.linen.BatchNorm` over all axes but the last: same parameters and statistics, equal results up to rounding.

    No gradient flows through the running statistics.
    """

    use_running_average: bool
    momentum: float
    epsilon: float
    dtype: Any
    scale_init: nn.initializers.Initializer = nn.initializers.ones

    @nn.compact
    def __call__(self, x: Array) -> Array:
        shape = (x.shape[-1],)
        mean = self.variable("batch_stats", "mean", jnp.zeros, shape, jnp.float32)
        var = self.variable("batch_stats", "var", jnp.ones, shape, jnp.float32)
        scale = self.param("scale", self.scale_init, shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, shape, jnp.float32)
        if self.use_running_average:
            y = (x.astype(jnp.float32) - mean.value) * (lax.rsqrt(var.value + self.epsilon) * scale) + bias
            return y.astype(self.dtype)
        y, *moments = normalise(x, scale, bias, self.epsilon)
        if not self.is_initializing():
            for kept, now in zip((mean, var), map(lax.stop_gradient, moments), strict=True):
                kept.value = self.momentum * kept.value + (1 - self.momentum) * now
        return y.astype(self.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def normalise(x: Array, scale: Array, bias: Array, epsilon: float) -> tuple[Array, Array, Array]:
    """Returns (normalised, scaled and shifted images like `x`, mean, variance); computes in float32.

    Args:
      x: [..., C].
      scale, bias: float32 [C].
      epsilon: added to the variance.
    """
    return _forward(x, scale, bias, epsilon)[0]


def _forward(x: Array, scale: Array, bias: Array, epsilon: float) -> tuple[tuple[Array, Array, Array], Saved]:
    images = x.astype(jnp.float32)
    count = x.size // x.shape[-1]
    total, squares = _sums(images, jnp.square(images))
    mean = total / count
    var = jnp.maximum(0.0, squares / count - jnp.square(mean))
    inverse = lax.rsqrt(var + epsilon)
    y = (images - mean) * (inverse * scale) + bias
    return (y.astype(x.dtype), mean, var), (x, scale, mean, inverse)


def _backward(epsilon: float, saved: Saved, slopes: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
    del epsilon
    x, scale, mean, inverse = saved
    dy, count = slopes[0].astype(jnp.float32), x.size // x.shape[-1]
    normal = (x.astype(jnp.float32) - mean) * inverse
    dbias, dscale = _sums(dy, dy * normal)
    dx = (inverse * scale) * (dy - dbias / count - normal * (dscale / count))
    return dx.astype(x.dtype), dscale, dbias


normalise.defvjp(_forward, _backward)


def _sums(a: Array, b: Array) -> tuple[Array, Array]:
    """Sums of both over all axes but the last, as one reduction: XLA for GPUs would make two kernels of two."""
    axes = tuple(range(a.ndim - 1))
    if sharding.ways() > 1:  # XLA sums over devices only for plain reductions
        return jnp.sum(a, axes), jnp.sum(b, axes)
    zero = jnp.zeros((), a.dtype)

    def add(left: tuple[Array, Array], right: tuple[Array, Array]) -> tuple[Array, Array]:
        return left[0] + right[0], left[1] + right[1]

    first, second = lax.reduce((a, b), (zero, zero), add, axes)
    return first, second
