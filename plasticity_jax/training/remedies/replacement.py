"""Replaces units: their weights, optimiser moments and counts, running statistics and memories of remedies."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from plasticity_jax.models import units
from plasticity_jax.models.units import Chosen, Site
from plasticity_jax.training.remedies.interface import Network

Tree = Any


def replace_units(network: Network, sites: tuple[Site, ...], chosen: Chosen, fresh: tuple[Tree, Tree]) -> Network:
    """The network with the chosen units re-initialised from `fresh`, and their outgoing weights zero.

    Incoming weights, biases, scale and offset of the normalisation and its running statistics become those of the fresh
    network.  A weight between two replaced units becomes zero.
    """
    into, out, running = units.masks(network.params, network.stats, sites, chosen)
    drawn = jax.tree.map(jnp.where, into, fresh[0], network.params)
    params = jax.tree.map(lambda hit, leaf: jnp.where(hit, 0, leaf), out, drawn)
    stats = jax.tree.map(jnp.where, running, fresh[1], network.stats)
    changed = jax.tree.map(jnp.logical_or, into, out)
    by_layer = {site.layer: chosen[site.name] for site in sites}
    hit = {name: by_layer.get(name, jnp.zeros(leaf.shape, bool)) for name, leaf in units.by_unit(params).items()}
    return renew(network._replace(params=params, stats=stats), changed, hit)


def renew(network: Network, changed: Tree, hit: dict[str, Array] | None = None) -> Network:
    """Resets moments, step counts and memories of replaced weights.

    Args:
      network: already with the new weights.
      changed: bools that broadcast to each parameter leaf: which weights are new.
      hit: bools like `units.by_unit`: which outputs of each layer are new units.
    """
    structure: Any = jax.tree.structure(network.params)
    vectors: Any = jax.tree.structure(hit)

    def belongs(part: Tree) -> bool:
        return jax.tree.structure(part) in (structure, vectors)

    def forget(part: Tree) -> Tree:
        if structure == jax.tree.structure(part):
            return jax.tree.map(lambda new, leaf: jnp.where(new, jnp.zeros_like(leaf), leaf), changed, part)
        return part

    def begin_again(part: Tree) -> Tree:
        if structure == jax.tree.structure(part):  # initial or slow weights: take over the new weights
            return jax.tree.map(jnp.where, changed, network.params, part)
        if hit is not None and vectors == jax.tree.structure(part):
            return jax.tree.map(_zero, hit, part)
        return part

    opt = jax.tree.map(forget, network.opt, is_leaf=belongs)
    memory = jax.tree.map(begin_again, network.memory, is_leaf=belongs)
    return network._replace(opt=opt, memory=memory)


def _zero(hit: Array, leaf: Array) -> Array:
    return jnp.where(hit.reshape(-1, *[1] * (leaf.ndim - 1)), jnp.zeros_like(leaf), leaf)
