"""The networks: residual networks of any depth and width, multi-layer perceptrons and logistic regression.

Every model is called as `model.apply(variables, images, train)` with float32 images [B, H, W, C], already normalised,
and returns the logits, float32 [B, classes], and a dictionary of features: the output of every ReLU by its name, and
`penultimate`, float32 [B, D], what the head sees.

Initial values are those of `layers`.
"""

import functools
import re
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from plasticity_jax.config import spec
from plasticity_jax.errors import ConfigError
from plasticity_jax.models import layers, pooling
from plasticity_jax.models.wide_resnet import WideResNet

STEMS = ("cifar", "imagenet")
NORMS = ("batch", "layer", "group", "none")
DTYPES = ("auto", "float32", "bfloat16")

Output = tuple[Array, dict[str, Array]]


class Stem(nn.Module):
    """`cifar`: 3x3 convolution.  `imagenet`: 7x7 of stride 2, later 3x3 max-pooling of stride 2."""

    width: int
    stem: str
    norm: str
    dtype: Any

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        size, stride = (7, 2) if self.stem == "imagenet" else (3, 1)
        x = layers.conv(self.width, size, stride, self.norm, self.dtype, "conv")(x)
        return nn.relu(layers.norm(self.norm, self.width, train, self.dtype, "norm")(x))


class Block(nn.Module):
    """The basic block of He et al. 2016: two 3x3 convolutions, and a shortcut that is projected if the shape changes.

    Returns the outputs of its two ReLUs, the last first.
    """

    channels: int
    stride: int
    norm: str
    dtype: Any

    @nn.compact
    def __call__(self, x: Array, train: bool) -> tuple[Array, Array]:
        conv = functools.partial(layers.conv, self.channels, norm=self.norm, dtype=self.dtype)
        norm = functools.partial(layers.norm, self.norm, self.channels, train, self.dtype)
        inner = nn.relu(norm(name="norm1")(conv(3, self.stride, name="conv1")(x)))
        y = norm(name="norm2")(conv(3, 1, name="conv2")(inner))
        if self.stride != 1 or x.shape[-1] != self.channels:
            x = norm(name="norm_proj")(conv(1, self.stride, name="conv_proj")(x))
        return nn.relu(x + y), inner


class Stack(nn.Module):
    """`depth` blocks of equal channels, the first with the stride; features are named `blockJ` and `blockJ/inner`."""

    channels: int
    depth: int
    stride: int
    norm: str
    dtype: Any

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Output:
        features = {}
        for j in range(self.depth):
            name = f"block{j}"
            block = Block(self.channels, self.stride if j == 0 else 1, self.norm, self.dtype, name=name)
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

    @nn.compact
    def __call__(self, images: Array, train: bool) -> Output:
        x = Stem(self.width, self.stem, self.norm, self.dtype, name="stem")(images, train)
        features = {"stem": x}
        if self.stem == "imagenet":
            x = pooling.max_pool(x, 3, 2, 1)
        for k in range(4):
            name = f"module{k + 2}"
            stack = Stack(self.width * 2**k, self.depth, 1 if k == 0 else 2, self.norm, self.dtype, name=name)
            x, inside = stack(x, train)
            features |= {f"{name}/{key}": value for key, value in inside.items()}
        features["penultimate"] = jnp.mean(x.astype(jnp.float32), axis=(1, 2))
        return layers.dense(self.classes, x.shape[-1], jnp.float32, "head")(features["penultimate"]), features


class MLP(nn.Module):
    """`depth` hidden layers `layer1`, `layer2`, .. of `width` ReLUs and a dense `head` on flat images.

    Depth 2 and width 100 are the perceptron of Ash & Adams 2020; depth 0 is logistic regression.
    """

    classes: int
    depth: int
    width: int
    dtype: Any

    @nn.compact
    def __call__(self, images: Array, train: bool) -> Output:
        del train  # nothing here differs in training
        x = images.reshape(images.shape[0], -1)
        features = {}
        for i in range(1, self.depth + 1):
            x = nn.relu(layers.dense(self.width, x.shape[-1], self.dtype, f"layer{i}")(x))
            features[f"layer{i}"] = x
        features["penultimate"] = x.astype(jnp.float32)
        return layers.dense(self.classes, x.shape[-1], jnp.float32, "head")(features["penultimate"]), features


def resnet(model: spec.Model, classes: int) -> nn.Module:
    """A `ResNet`; uses every field of the model."""
    return _residual(ResNet, model, classes)


def wide_resnet(model: spec.Model, classes: int) -> nn.Module:
    """A `WideResNet`; uses every field of the model."""
    return _residual(WideResNet, model, classes)


def _residual(kind: Callable[..., nn.Module], model: spec.Model, classes: int) -> nn.Module:
    for field, choices in (("stem", STEMS), ("norm", NORMS)):
        _check(field, getattr(model, field), choices)
    return kind(classes, model.depth, model.width, model.stem, model.norm, jnp.dtype(compute_dtype(model.dtype)))


def mlp(model: spec.Model, classes: int) -> nn.Module:
    """An `MLP`; the model's stem and norm are not used."""
    return MLP(classes, model.depth, model.width, jnp.dtype(compute_dtype(model.dtype)))


def logistic(model: spec.Model, classes: int) -> nn.Module:
    """An `MLP` without hidden layers, always float32; of the model, only the name is used."""
    del model
    return MLP(classes, 0, 0, jnp.dtype("float32"))


def compute_dtype(dtype: str) -> str:
    """The type behind `auto`: bfloat16 on accelerators, whose fast units want it, float32 on CPU, where it is slow.

    Parameters, statistics, their updates and the head are float32 either way.
    """
    if dtype != "auto":
        return dtype
    return "float32" if jax.default_backend() == "cpu" else "bfloat16"


MODELS: dict[str, Callable[[spec.Model, int], nn.Module]] = {
    "resnet": resnet,
    "wide_resnet": wide_resnet,
    "mlp": mlp,
    "logistic": logistic,
}


def build(model: spec.Model, classes: int) -> nn.Module:
    """The network for so many classes.

    Raises:
      ConfigError: an unknown name, stem, norm or dtype, or a depth or width below 1.
    """
    _check("name", model.name, tuple(MODELS))
    _check("dtype", model.dtype, DTYPES)
    for field in ("depth", "width"):
        if getattr(model, field) < 1:
            raise ConfigError(f"model.{field}={getattr(model, field)}: must be 1 or more")
    return MODELS[model.name](model, classes)


def _check(field: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigError(f"model.{field}={value!r}: there is no such {field}; choose one of {list(choices)}")


def module_names(params: Mapping[str, Any]) -> tuple[str, ...]:
    """The top-level modules in the order in which the network runs.

    That is `stem`, `moduleK` or `layerK` by number, `head`.  Names of another sort, in a network of your own, keep
    their place in the mapping, between the numbered ones and the head.
    """

    def place(name: str) -> tuple[int, int]:
        number = re.fullmatch(r"(?:module|layer)(\d+)", name)
        if number:
            return 1, int(number[1])
        return {"stem": 0, "head": 3}.get(name, 2), 0

    return tuple(sorted(params, key=place))
