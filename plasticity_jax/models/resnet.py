"""Residual networks of any depth and width, with the norm after each convolution (He et al. 2016)."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from plasticity_jax.config import spec
from plasticity_jax.errors import ConfigError
from plasticity_jax.models import layers, pooling
from plasticity_jax.models.precision import compute_dtype
from plasticity_jax.models.wide_resnet import WideResNet

STEMS = ("cifar", "imagenet")

Features = dict[str, Array]
Output = tuple[Array, Features]


class Stem(nn.Module):
    """`cifar`: a 3x3 convolution.  `imagenet`: 7x7 with stride 2; `ResNet` adds 3x3 max-pooling with stride 2."""

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
    """The basic block of He et al. 2016: two 3x3 convolutions, and a shortcut, projected if the shape changes.

    Returns the output of its last ReLU, and {`inner`: the output of the first}.  `scale` initialises the last norm.
    """

    channels: int
    stride: int
    norm: str
    dtype: Any
    activation: str = "relu"
    dropout: float = 0.0
    scale: float = 1.0

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Output:
        conv = functools.partial(layers.conv, self.channels, norm=self.norm, dtype=self.dtype)
        norm = functools.partial(layers.norm, self.norm, self.channels, train, self.dtype)
        inner = layers.ACTIVATIONS[self.activation](norm(name="norm1")(conv(3, self.stride, name="conv1")(x)))
        y = conv(3, 1, name="conv2")(layers.drop(inner, self.dropout, train))
        y = norm(name="norm2", scale=self.scale)(y)
        if self.stride != 1 or x.shape[-1] != self.channels:
            x = norm(name="norm_proj")(conv(1, self.stride, name="conv_proj")(x))
        return layers.on_stream(self.activation)(x + y), {"inner": inner}


class Bottleneck(nn.Module):
    """The bottleneck block: convolutions 1x1, 3x3 and 1x1, the last with four times the channels.

    The 3x3 convolution has the stride, as in torchvision; in He et al. 2016 the first one has it and skips three
    quarters of its input.  Returns the outputs of its ReLUs as `Block` does.
    """

    channels: int
    stride: int
    norm: str
    dtype: Any
    activation: str = "relu"
    dropout: float = 0.0
    scale: float = 1.0

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Output:
        wide = WIDER * self.channels
        conv = functools.partial(layers.conv, norm=self.norm, dtype=self.dtype)
        norm = functools.partial(layers.norm, self.norm, train=train, dtype=self.dtype)
        act, features, y = layers.ACTIVATIONS[self.activation], Features(), x
        for i, size, stride in ((1, 1, 1), (2, 3, self.stride)):
            y = conv(self.channels, size, stride, name=f"conv{i}")(y)
            features[f"inner{i}"] = act(norm(self.channels, name=f"norm{i}")(y))
            y = layers.drop(features[f"inner{i}"], self.dropout, train)
        y = norm(wide, name="norm3", scale=self.scale)(conv(wide, 1, 1, name="conv3")(y))
        if self.stride != 1 or x.shape[-1] != wide:
            x = norm(wide, name="norm_proj")(conv(wide, 1, self.stride, name="conv_proj")(x))
        return layers.on_stream(self.activation)(x + y), features


WIDER = 4  # channels after a bottleneck per channel inside
BLOCKS: dict[str, Callable[..., nn.Module]] = {"basic": Block, "bottleneck": Bottleneck}


class Stack(nn.Module):
    """`depth` blocks of equal channels, the first with the stride.

    Features are `blockJ` and `blockJ/inner`, or for bottlenecks `blockJ/inner1` and `blockJ/inner2`.
    """

    channels: int
    depth: int
    stride: int
    norm: str
    dtype: Any
    activation: str = "relu"
    dropout: float = 0.0
    block: str = "basic"
    scale: float = 1.0

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Output:
        features: Features = {}
        more = self.norm, self.dtype, self.activation, self.dropout, self.scale
        for j in range(self.depth):
            block = BLOCKS[self.block](self.channels, self.stride if j == 0 else 1, *more, name=f"block{j}")
            x, inside = block(x, train)
            features |= {f"block{j}/{name}": value for name, value in inside.items()} | {f"block{j}": x}
        return x, features


class ResNet(nn.Module):
    """Residual networks of four modules of blocks; depth 2 in each and width 64 give ResNet-18.

    `stem`, then `module2` to `module5` with `depths` blocks of 1, 2, 4 and 8 times `width` channels, each but the first
    halving height and width, then the mean over positions and the dense `head`.  The modules are numbered as in
    Berariu et al. 2021, A.5, where 1 is the stem and 6 the head.  With `zero_scale` the last norm of each block has
    initial scale zero, so that the block begins as its shortcut (Goyal et al. 2017, section 5.1).
    """

    classes: int
    depths: tuple[int, ...]
    width: int
    stem: str
    norm: str
    dtype: Any
    activation: str = "relu"
    dropout: float = 0.0
    block: str = "basic"
    zero_scale: bool = False

    @nn.compact
    def __call__(self, images: Array, train: bool) -> Output:
        more = self.norm, self.dtype, self.activation, self.dropout, self.block, 0.0 if self.zero_scale else 1.0
        x = Stem(self.width, self.stem, self.norm, self.dtype, self.activation, name="stem")(images, train)
        features = {"stem": x}
        if self.stem == "imagenet":
            x = pooling.max_pool(x, 3, 2, 1)
        for k, depth in enumerate(self.depths):
            name = f"module{k + 2}"
            x, inside = Stack(self.width * 2**k, depth, 1 if k == 0 else 2, *more, name=name)(x, train)
            features |= {f"{name}/{key}": value for key, value in inside.items()}
        features["penultimate"] = jnp.mean(x.astype(jnp.float32), axis=(1, 2))
        return layers.dense(self.classes, x.shape[-1], jnp.float32, "head")(features["penultimate"]), features


class Size(NamedTuple):
    """The kind of block, and the number of blocks in each module."""

    block: str
    depths: tuple[int, int, int, int]


SIZES = {  # He et al. 2016, table 1
    "resnet18": Size("basic", (2, 2, 2, 2)),
    "resnet34": Size("basic", (3, 4, 6, 3)),
    "resnet50": Size("bottleneck", (3, 4, 6, 3)),
    "resnet101": Size("bottleneck", (3, 4, 23, 3)),
    "resnet152": Size("bottleneck", (3, 8, 36, 3)),
}


def resnet(model: spec.Model, classes: int) -> nn.Module:
    """A `ResNet` of the `SIZES` of its name, or else of `depth` basic blocks per module (Berariu et al. 2021, A.4).

    Raises:
      ConfigError: `zero_scale` without a norm.
    """
    if model.zero_scale and model.norm == "none":
        raise ConfigError("model.zero_scale=True: there is no scale without a norm; set model.norm")
    size = SIZES.get(model.name, Size("basic", (model.depth,) * 4))
    dtype = jnp.dtype(compute_dtype(model.dtype))
    more = model.activation, model.dropout, size.block, model.zero_scale
    return ResNet(classes, size.depths, model.width, model.stem, model.norm, dtype, *more)


def wide_resnet(model: spec.Model, classes: int) -> nn.Module:
    """A `WideResNet`; ignores `zero_scale`."""
    dtype = jnp.dtype(compute_dtype(model.dtype))
    more = model.activation, model.dropout
    return WideResNet(classes, model.depth, model.width, model.stem, model.norm, dtype, *more)
