"""Residual networks of any depth and width, with the norm after each convolution (He et al. 2016)."""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from plasticity_jax.config import spec
from plasticity_jax.models import layers, pooling
from plasticity_jax.models.precision import compute_dtype
from plasticity_jax.models.wide_resnet import WideResNet

STEMS = ("cifar", "imagenet")

Output = tuple[Array, dict[str, Array]]


class Stem(nn.Module):
    """`cifar`: 3x3 convolution.  `imagenet`: 7x7 of stride 2, later 3x3 max-pooling of stride 2."""

    width: int
    stem: str
    norm: str
    dtype: Any
    activation: str = "relu"

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        size, stride = (7, 2) if self.stem == "imagenet" else (3, 1)
        x = layers.conv(self.width, size, stride, self.norm, self.dtype, "conv")(x)
        return layers.on_stream(self.activation)(layers.norm(self.norm, self.width, train, self.dtype, "norm")(x))


class Block(nn.Module):
    """The basic block of He et al. 2016: two 3x3 convolutions, and a shortcut that is projected if the shape changes.

    Returns the outputs of its two ReLUs, the last first.
    """

    channels: int
    stride: int
    norm: str
    dtype: Any
    activation: str = "relu"
    dropout: float = 0.0

    @nn.compact
    def __call__(self, x: Array, train: bool) -> tuple[Array, Array]:
        conv = functools.partial(layers.conv, self.channels, norm=self.norm, dtype=self.dtype)
        norm = functools.partial(layers.norm, self.norm, self.channels, train, self.dtype)
        inner = layers.ACTIVATIONS[self.activation](norm(name="norm1")(conv(3, self.stride, name="conv1")(x)))
        y = norm(name="norm2")(conv(3, 1, name="conv2")(layers.drop(inner, self.dropout, train)))
        if self.stride != 1 or x.shape[-1] != self.channels:
            x = norm(name="norm_proj")(conv(1, self.stride, name="conv_proj")(x))
        return layers.on_stream(self.activation)(x + y), inner


class Stack(nn.Module):
    """`depth` blocks of equal channels, the first with the stride; features are named `blockJ` and `blockJ/inner`."""

    channels: int
    depth: int
    stride: int
    norm: str
    dtype: Any
    activation: str = "relu"
    dropout: float = 0.0

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Output:
        features = {}
        for j in range(self.depth):
            name = f"block{j}"
            stride, more = self.stride if j == 0 else 1, (self.activation, self.dropout)
            block = Block(self.channels, stride, self.norm, self.dtype, *more, name=name)
            x, features[f"{name}/inner"] = block(x, train)
            features[name] = x
        return x, features


class ResNet(nn.Module):
    """The family of Berariu et al. 2021, appendix A.4; depth 2 and width 64 make ResNet-18.

    `stem`, then `module2` to `module5` with `depth` basic blocks of width, 2, 4 and 8 times width channels, each but
    the first halving height and width, then the mean over positions and the dense `head`.  The modules are numbered as
    in A.5, where 1 is the stem and 6 the head.
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
    def __call__(self, images: Array, train: bool) -> Output:
        more = self.activation, self.dropout
        x = Stem(self.width, self.stem, self.norm, self.dtype, self.activation, name="stem")(images, train)
        features = {"stem": x}
        if self.stem == "imagenet":
            x = pooling.max_pool(x, 3, 2, 1)
        for k in range(4):
            name = f"module{k + 2}"
            stack = Stack(self.width * 2**k, self.depth, 1 if k == 0 else 2, self.norm, self.dtype, *more, name=name)
            x, inside = stack(x, train)
            features |= {f"{name}/{key}": value for key, value in inside.items()}
        features["penultimate"] = jnp.mean(x.astype(jnp.float32), axis=(1, 2))
        return layers.dense(self.classes, x.shape[-1], jnp.float32, "head")(features["penultimate"]), features


def resnet(model: spec.Model, classes: int) -> nn.Module:
    """A `ResNet`; uses every field of the model."""
    return _residual(ResNet, model, classes)


def wide_resnet(model: spec.Model, classes: int) -> nn.Module:
    """A `WideResNet`; uses every field of the model."""
    return _residual(WideResNet, model, classes)


def _residual(kind: Callable[..., nn.Module], model: spec.Model, classes: int) -> nn.Module:
    dtype = jnp.dtype(compute_dtype(model.dtype))
    more = model.activation, model.dropout
    return kind(classes, model.depth, model.width, model.stem, model.norm, dtype, *more)
