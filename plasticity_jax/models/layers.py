"""The layers that all networks are built from.

Initial values, explicit because libraries differ: kernels of convolutions He normal with fan-out, not truncated, and
their biases zero; scale 1 and offset 0 in normalisations; kernels and biases of dense layers uniform in
+-1/sqrt(fan-in).  These are torchvision's; Flax's default is truncated normal with fan-in, and zero biases.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from plasticity_jax import sharding, target
from plasticity_jax.models import convolution, products
from plasticity_jax.models.batch_norm import BatchNorm

he_normal_fan_out = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
uniform_fan_in = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")  # within 1/sqrt(fan_in)


def dense(features: int, fan_in: int, dtype: Any, name: str) -> nn.Dense:
    def bias(key: Array, shape: tuple[int, ...], dtype: Any) -> Array:
        return jax.random.uniform(key, shape, dtype, -(fan_in**-0.5), fan_in**-0.5)

    return nn.Dense(
        features,
        dtype=dtype,
        kernel_init=uniform_fan_in,
        bias_init=bias,
        dot_general=_product,
        promote_dtype=sharding.keep_bias,
        name=name,
    )


def _product(x: Array, kernel: Array, *where: Any, **how: Any) -> Array:
    return sharding.weigh(lambda x, kernel: jax.lax.dot_general(x, kernel, *where, **how), x, kernel)


def conv(channels: int, size: int, stride: int, norm: str, dtype: Any, name: str) -> nn.Conv:
    """A convolution padded by size // 2 on every side, as in PyTorch (`SAME` is asymmetric at stride 2)."""
    return nn.Conv(
        channels,
        (size, size),
        (stride, stride),
        padding=[(size // 2, size // 2)] * 2,
        use_bias=norm == "none",
        dtype=dtype,
        kernel_init=he_normal_fan_out,
        conv_general_dilated=convolution.conv_general_dilated,
        promote_dtype=sharding.keep_bias,
        name=name,
    )


def _all(scale: float) -> nn.initializers.Initializer:
    return nn.initializers.ones if scale == 1.0 else nn.initializers.constant(scale)


def batch_norm(channels: int, train: bool, dtype: Any, name: str, scale: float) -> nn.Module:
    """BatchNorm with a momentum of 0.9 for its running statistics."""
    del channels
    few_kernels = products.are_together() or target.backend() == "gpu"
    kind = BatchNorm if few_kernels else nn.BatchNorm
    return kind(not train, momentum=0.9, epsilon=1e-5, dtype=dtype, name=name, scale_init=_all(scale))


def layer_norm(channels: int, train: bool, dtype: Any, name: str, scale: float) -> nn.Module:
    """GroupNorm with one group: each image over height, width and channels."""
    del channels, train
    return nn.GroupNorm(1, epsilon=1e-5, dtype=dtype, name=name, scale_init=_all(scale))


def group_norm(channels: int, train: bool, dtype: Any, name: str, scale: float) -> nn.Module:
    """GroupNorm with the largest number of groups, at most 32, that divides the channels and leaves two or more in
    each.

    A group of one channel would normalise a 1x1 map to zero.  A group of two keeps only the order of its two values
    there, and passes hardly any gradient: for narrow networks whose last maps are 1x1 use `layer`.
    """
    del train
    groups = max((g for g in range(1, min(32, channels // 2) + 1) if channels % g == 0), default=1)
    return nn.GroupNorm(groups, epsilon=1e-5, dtype=dtype, name=name, scale_init=_all(scale))


def no_norm(channels: int, train: bool, dtype: Any, name: str, scale: float) -> Callable[[Array], Array]:
    """The identity; convolutions then have biases."""
    del channels, train, dtype, name, scale
    return lambda x: x


NORMS: dict[str, Callable[..., Callable[[Array], Array]]] = {
    "batch": batch_norm,
    "layer": layer_norm,
    "group": group_norm,
    "none": no_norm,
}


def norm(kind: str, channels: int, train: bool, dtype: Any, name: str, scale: float = 1.0) -> Callable[[Array], Array]:
    """The normalisation called `kind`, with initial scale `scale`; parameters and statistics are always float32."""
    return NORMS[kind](channels, train, dtype, name, scale)


def crelu(x: Array) -> Array:
    """Concatenates relu(x) and relu(-x), so it doubles the channels (Abbas et al. 2023, arXiv 2303.07507)."""
    return jnp.concatenate([nn.relu(x), nn.relu(-x)], -1)


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {"relu": nn.relu, "leaky_relu": nn.leaky_relu, "crelu": crelu}


def on_stream(activation: str) -> Callable[[Array], Array]:
    """The activation on the residual stream: ReLU in place of CReLU, which would double the channels."""
    return ACTIVATIONS["relu" if activation == "crelu" else activation]


def drop(x: Array, rate: float, train: bool) -> Array:
    """Dropout in train mode, from the random stream `dropout`."""
    return nn.Dropout(rate, deterministic=not train)(x) if rate > 0 else x
