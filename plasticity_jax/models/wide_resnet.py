"""Wide residual networks: norm and ReLU before each convolution (Zagoruyko & Komodakis 2016, arXiv 1605.07146)."""

import functools
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from plasticity_jax.models import layers, pooling

Features = dict[str, Array]


class PreBlock(nn.Module):
    """Norm, ReLU and 3x3 convolution, twice; if the shape changes, the shortcut projects the first ReLU's output.

    Returns the sum of shortcut and residual, and the outputs of the two ReLUs by name.
    """

    channels: int
    stride: int
    norm: str
    dtype: Any
    activation: str = "relu"
    dropout: float = 0.0

    @nn.compact
    def __call__(self, x: Array, train: bool) -> tuple[Array, Features]:
        conv = functools.partial(layers.conv, self.channels, norm=self.norm, dtype=self.dtype)
        before = layers.on_stream(self.activation)(layers.norm(self.norm, x.shape[-1], train, self.dtype, "norm1")(x))
        y = conv(3, self.stride, name="conv1")(before)
        inner = layers.ACTIVATIONS[self.activation](
            layers.norm(self.norm, self.channels, train, self.dtype, "norm2")(y)
        )
        y = conv(3, 1, name="conv2")(layers.drop(inner, self.dropout, train))
        if self.stride != 1 or x.shape[-1] != self.channels:
            x = conv(1, self.stride, name="conv_proj")(before)
        return x + y, {"before": before, "inner": inner}


class PreStack(nn.Module):
    """`depth` blocks of equal channels, the first with the stride; features are `blockJ/before` and `blockJ/inner`."""

    channels: int
    depth: int
    stride: int
    norm: str
    dtype: Any
    activation: str = "relu"
    dropout: float = 0.0

    @nn.compact
    def __call__(self, x: Array, train: bool) -> tuple[Array, Features]:
        features: Features = {}
        for j in range(self.depth):
            stride, more = self.stride if j == 0 else 1, (self.activation, self.dropout)
            block = PreBlock(self.channels, stride, self.norm, self.dtype, *more, name=f"block{j}")
            x, inside = block(x, train)
            features |= {f"block{j}/{name}": value for name, value in inside.items()}
        return x, features


class WideResNet(nn.Module):
    """Pre-activation wide ResNet, as in Li, Wei & Ma 2019; depth 2 and width 16 k give WRN-16-k.

    `stem`, a convolution to 16 channels without a norm, then `module2` to `module4` with `depth` blocks of 1, 2 and 4
    times `width` channels, each but the first halving height and width, then `norm`, the mean over positions and the
    dense `head`.
    """

    classes: int
    depth: int
    width: int
    stem: str
    norm: str
    dtype: Any
    activation: str = "relu"
    dropout: float = 0.0

    @nn.compact
    def __call__(self, images: Array, train: bool) -> tuple[Array, Features]:
        size, stride = (7, 2) if self.stem == "imagenet" else (3, 1)
        x = layers.conv(16, size, stride, self.norm, self.dtype, "stem")(images)
        if self.stem == "imagenet":
            x = pooling.max_pool(x, 3, 2, 1)
        features: Features = {}
        for k in range(3):
            name = f"module{k + 2}"
            stride, more = 1 if k == 0 else 2, (self.activation, self.dropout)
            stack = PreStack(self.width * 2**k, self.depth, stride, self.norm, self.dtype, *more, name=name)
            x, inside = stack(x, train)
            features |= {f"{name}/{key}": value for key, value in inside.items()}
        x = layers.on_stream(self.activation)(layers.norm(self.norm, x.shape[-1], train, self.dtype, "norm")(x))
        features |= {"norm": x, "penultimate": jnp.mean(x.astype(jnp.float32), axis=(1, 2))}
        return layers.dense(self.classes, x.shape[-1], jnp.float32, "head")(features["penultimate"]), features
