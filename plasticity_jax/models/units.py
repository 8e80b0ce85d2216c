"""The units of a network: which parameters and statistics belong to each, and which layer reads it.

A unit is an output of a layer with a ReLU: a neuron of a perceptron, a channel of a convolution.  Its incoming weights
are a column of the layer's kernel, a bias, and scale, offset and running statistics of the normalisation; its outgoing
weights are rows of the next layer's kernel.

In residual networks only outputs of the inner convolutions of each block (one, or two in a bottleneck) are units; only
the next convolution of the block reads them.  All other channels are on the residual stream, which every later block
reads and adds to, so they belong to no single layer.  (Continual backprop's code for ResNets and Lyle et al. 2024 make
the same choice.)
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from plasticity_jax.models.injection import Injected
from plasticity_jax.models.mlp import MLP
from plasticity_jax.models.resnet import ResNet
from plasticity_jax.models.wide_resnet import WideResNet

Tree = Any
Chosen = Mapping[str, Array]  # bool [D] by the name of a site


class Site(NamedTuple):
    """The units of one layer, by paths of modules.

    name: of their activations in the network's features.
    layer: its kernel has one column (last axis) per unit.
    norm: the normalisation between the layer and its ReLU; empty for none.
    following: the next layer, whose kernel has one row (last axis but one) per unit; with CReLU two, first the rows of
        all positive halves, then those of all negative ones.
    """

    name: str
    layer: str
    norm: str
    following: str


def sites(model: nn.Module) -> tuple[Site, ...]:
    """The units of a network, layer by layer; a custom network has none unless it defines a method `units`."""
    if isinstance(model, Injected):
        return sites(model.network)
    if isinstance(model, MLP):
        layers = [f"layer{i}" for i in range(1, model.depth + 1)]
        return tuple(Site(a, a, "", b) for a, b in zip(layers, [*layers[1:], "head"], strict=False))
    if isinstance(model, ResNet):
        inner = {"inner": ("conv1", "norm1", "conv2")}
        if model.block == "bottleneck":
            inner = {f"inner{i}": (f"conv{i}", f"norm{i}", f"conv{i + 1}") for i in (1, 2)}
        return _inner(model.depths, inner, model.norm)
    if isinstance(model, WideResNet):
        return _inner((model.depth,) * 3, {"inner": ("conv1", "norm2", "conv2")}, model.norm)
    declared: Callable[[], tuple[Site, ...]] = getattr(model, "units", tuple)
    return declared()


def _inner(depths: tuple[int, ...], inner: Mapping[str, tuple[str, str, str]], norm: str) -> tuple[Site, ...]:
    """The sites of residual networks; `inner` gives (layer, norm, following layer) of each site in a block."""
    blocks = [f"module{k}/block{j}" for k, depth in enumerate(depths, start=2) for j in range(depth)]
    return tuple(
        Site(f"{block}/{name}", f"{block}/{layer}", "" if norm == "none" else f"{block}/{between}", f"{block}/{after}")
        for block in blocks
        for name, (layer, between, after) in inner.items()
    )


def by_unit(params: Tree) -> dict[str, Array]:
    """Zeros, float32 [D], by the path of each layer with D outputs, as memory of a remedy with a number per unit."""
    zeros: dict[str, Array] = {}
    for path, leaf in jax.tree.leaves_with_path(params):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if name.rpartition("/")[2] == "kernel":
            zeros[name.rpartition("/")[0]] = jnp.zeros(leaf.shape[-1], jnp.float32)
    return zeros


def at(tree: Tree, path: str) -> Tree:
    """The value at a path of a nested dictionary."""
    return functools.reduce(lambda inside, key: inside[key], path.split("/"), tree)


def activity(features: Mapping[str, Array], where: tuple[Site, ...], params: Tree) -> dict[str, dict[str, Array]]:
    """Sums over the examples of a batch, float32 [D] for each site.

    `level`: sum of the mean of |h| over positions (and over the two halves of CReLU).
    `fired`: number of examples in which the unit is above zero at any position.
    """
    sums = {}
    for site in where:
        units = at(params, site.layer)["kernel"].shape[-1]
        values = jax.lax.stop_gradient(features[site.name]).astype(jnp.float32)
        values = values.reshape(len(values), -1, units)  # positions, and halves
        sums[site.name] = {
            "level": jnp.sum(jnp.mean(jnp.abs(values), 1), 0),
            "fired": jnp.sum(jnp.any(values > 0, 1), 0, dtype=jnp.float32),
        }
    return sums


def outgoing(params: Tree, site: Site) -> Array:
    """The sum of the magnitudes of each unit's outgoing weights, [D]."""
    kernel = at(params, site.following)["kernel"]
    units = at(params, site.layer)["kernel"].shape[-1]
    by_row = jnp.sum(jnp.abs(kernel), axis=tuple(axis for axis in range(kernel.ndim) if axis != kernel.ndim - 2))
    return jnp.sum(by_row.reshape(-1, units), 0)


class Masks(NamedTuple):
    """Masks of the weights of chosen units: bools that broadcast to each leaf of parameters and statistics."""

    incoming: Tree
    outgoing: Tree
    stats: Tree


def masks(params: Tree, stats: Tree, where: tuple[Site, ...], chosen: Chosen) -> Masks:
    """The weights of the chosen units."""
    into: dict[str, Array] = {}
    out: dict[str, Array] = {}
    running: dict[str, Array] = {}
    for site in where:
        hit = chosen[site.name]
        into |= {f"{site.layer}/kernel": hit, f"{site.layer}/bias": hit}
        if site.norm:
            into |= {f"{site.norm}/scale": hit, f"{site.norm}/bias": hit}
            running |= {f"{site.norm}/mean": hit, f"{site.norm}/var": hit}
        rows = at(params, site.following)["kernel"].shape[-2]
        out[f"{site.following}/kernel"] = jnp.tile(hit, rows // len(hit))[:, None]

    def laid_out(by_path: Mapping[str, Array], tree: Tree) -> Tree:
        def one(path: Any, _: Any) -> Array:
            return by_path.get(jax.tree_util.keystr(path, simple=True, separator="/"), jnp.bool_(False))

        return jax.tree.map_with_path(one, tree)

    return Masks(laid_out(into, params), laid_out(out, params), laid_out(running, stats))
