"""The layers that all networks are made of.

Initial values, written out because libraries differ: convolutions He normal with fan-out, not truncated; biases of
convolutions zero; scale 1 and offset 0 of normalisations; kernel and bias of dense layers uniform within
1/sqrt(fan-in) of zero.  These are torchvision's, where Flax would take truncated normal with fan-in and zero biases.
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
    """A convolution padded by size // 2 on every side, as in PyTorch (`SAME` is lopsided at stride 2)."""
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
    """BatchNorm, which forgets a tenth of its running statistics at each step."""
    del channels
    few_kernels = products.are_together() or target.backend() == "gpu"
    kind = BatchNorm if few_kernels else nn.BatchNorm
    return kind(not train, momentum=0.9, epsilon=1e-5, dtype=dtype, name=name, scale_init=_all(scale))


def layer_norm(channels: int, train: bool, dtype: Any, name: str, scale: float) -> nn.Module:
    """GroupNorm with one group: each image over height, width and channels."""
    del channels, train
    return nn.GroupNorm(1, epsilon=1e-5, dtype=dtype, name=name, scale_init=_all(scale))


def group_norm(channels: int, train: bool, dtype: Any, name: str, scale: float) -> nn.Module:
    """GroupNorm with the most groups, 32 at most, that divide the channels and leave each two channels or more.

    With a single channel, the 1x1 maps of small images would be normalised to zero.  Of two channels there only their
    order is left, and next to no gradient passes: where the last maps are 1x1 and the network is narrow, take `layer`.
    """
    del train
    groups = max((g for g in range(1, min(32, channels // 2) + 1) if channels % g == 0), default=1)
    return nn.GroupNorm(groups, epsilon=1e-5, dtype=dtype, name=name, scale_init=_all(scale))


def no_norm(channels: int, train: bool, dtype: Any, name: str, scale: float) -> Callable[[Array], Array]:
    """Leaves everything as it is; convolutions have biases then."""
    del channels, train, dtype, name, scale
    return lambda x: x


NORMS: dict[str, Callable[..., Callable[[Array], Array]]] = {
    "batch": batch_norm,
    "layer": layer_norm,
    "group": group_norm,
    "none": no_norm,
}


def norm(kind: str, channels: int, train: bool, dtype: Any, name: str, scale: float = 1.0) -> Callable[[Array], Array]:
    """The normalisation called `kind`, whose scale begins at `scale`.

    Its parameters and statistics are float32 whatever `dtype` is.
    """
    return NORMS[kind](channels, train, dtype, name, scale)


def crelu(x: Array) -> Array:
    """The positive parts, and after them those of -x: twice the channels (Abbas et al. 2023, arXiv 2303.07507)."""
    return jnp.concatenate([nn.relu(x), nn.relu(-x)], -1)


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {"relu": nn.relu, "leaky_relu": nn.leaky_relu, "crelu": crelu}


def on_stream(activation: str) -> Callable[[Array], Array]:
    """The activation of a residual stream, whose channels are those of its sums: ReLU where CReLU is asked for."""
    return ACTIVATIONS["relu" if activation == "crelu" else activation]


def drop(x: Array, rate: float, train: bool) -> Array:
    """Dropout in training; the stream of random numbers is called `dropout`."""
    return nn.Dropout(rate, deterministic=not train)(x) if rate > 0 else x
