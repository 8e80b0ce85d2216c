"""Plasticity injection (Nikishin et al. 2023): new modules learn beside old ones that stay as they are."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from plasticity_jax.errors import ConfigError

Tree = Any
Output = tuple[Array, Mapping[str, Array]]
OLD, DRAWN = "injected_old", "injected_drawn"  # among the statistics, which no optimiser touches


class Injected(nn.Module):
    """A network whose logits are f(live) + f(old) - f(drawn), where f has other weights in some of its last `modules`.

    Live ones are the parameters of the network, under its own names.  Old and drawn ones are zero until the remedy
    `plasticity_injection` moves the live ones to the old, and new ones to the live and to the drawn: the function is
    the same then, and what is learned afterwards is in new weights.  Gradients pass through all three to the modules
    before.  All three have the statistics of the batch in train mode, and running ones of their own.

    Features are those of the live network.  Modules before the first of `modules` are the same computation three times,
    of which a compiler keeps one.
    """

    network: nn.Module
    modules: tuple[str, ...]

    @nn.compact
    def __call__(self, images: Array, train: bool) -> Output:
        nn.share_scope(self, self.network)
        starting = self.is_initializing()
        before = {} if starting else self.variables.get("batch_stats", {})
        logits, features = self.network(images, train)
        params = self.variables["params"]
        stats = {name: leaf for name, leaf in self.variables.get("batch_stats", {}).items() if name not in (OLD, DRAWN)}
        held = [self.variable("batch_stats", name, zeros, params, stats, self.modules) for name in (OLD, DRAWN)]
        if starting:
            return logits, features
        running = {name: leaf for name, leaf in before.items() if name not in (OLD, DRAWN)}
        for sign, part in zip((1, -1), held, strict=True):
            other, changed = self._with(part.value, params, running, images, train)
            logits += sign * other
            if train:
                part.value = {**part.value, "stats": tail(changed, self.modules)}
        return logits, features

    def _with(self, part: Tree, params: Tree, stats: Tree, images: Array, train: bool) -> tuple[Array, Tree]:
        """Logits, and statistics after the batch, of the network with other weights in its last modules."""
        network = self.network.clone(parent=None, name=None)
        variables = {"params": {**params, **part["params"]}, "batch_stats": {**stats, **part["stats"]}}
        rngs = {"dropout": self.make_rng("dropout")} if self.has_rng("dropout") else {}
        (logits, _), changed = network.apply(variables, images, train, rngs=rngs, mutable=["batch_stats"])
        return logits, changed.get("batch_stats", {})


def tail(tree: Tree, modules: tuple[str, ...]) -> Tree:
    """Of a network's parameters or statistics, those of some of its modules."""
    return {name: leaf for name, leaf in tree.items() if name in modules}


def zeros(params: Tree, stats: Tree, modules: tuple[str, ...]) -> Tree:
    """What is held of a network into which nothing was injected.

    Raises:
      ConfigError: the network has no such module.
    """
    if absent := [name for name in modules if name not in params]:
        raise ConfigError(f"model.injected: the network has no module {absent[0]}; choose of {', '.join(params)}")
    return jax.tree.map(jnp.zeros_like, {"params": tail(params, modules), "stats": tail(stats, modules)})


def inject(params: Tree, stats: Tree, drawn: Tree) -> tuple[Tree, Tree]:
    """(params, stats) after the live modules have become old ones, with those of the parameters `drawn` in their place.

    A second injection is none: old weights are there already, and the network is returned as it is.
    """
    modules = tuple(stats[OLD]["params"])
    free = jnp.bool_(True)
    for leaf in jax.tree.leaves(stats[OLD]["params"]):
        free &= ~jnp.any(leaf)
    running = tail(stats, modules)
    new_params = {**params, **tail(drawn, modules)}
    new_stats = {
        **stats,
        OLD: {"params": tail(params, modules), "stats": running},
        DRAWN: {"params": tail(drawn, modules), "stats": running},
    }
    return jax.tree.map(lambda new, old: jnp.where(free, new, old), (new_params, new_stats), (params, stats))
