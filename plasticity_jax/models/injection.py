"""Plasticity injection (Nikishin et al. 2023): new modules are trained beside frozen old ones."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from plasticity_jax.errors import ConfigError

Tree = Any
Output = tuple[Array, Mapping[str, Array]]
OLD, DRAWN = "injected_old", "injected_drawn"  # keys in `batch_stats`, which no optimiser updates


class Injected(nn.Module):
    """A network with logits f(live) + f(old) - f(drawn), where f uses different weights in the last `modules`.

    The live weights are the network's parameters, under their usual names.  The old and drawn weights are zero until
    the remedy `plasticity_injection` copies the live weights to the old, and new weights to the live and the drawn: the
    function is unchanged, and later training changes new weights only.  Gradients flow through all three networks to
    the modules before.  In train mode all three use batch statistics; each has running statistics of its own.

    The features are those of the live network.  The modules before `modules` are computed three times with equal
    weights, which XLA merges.
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
        """Logits, and statistics after the batch, of the network with the weights `part` in its last modules."""
        network = self.network.clone(parent=None, name=None)
        variables = {"params": {**params, **part["params"]}, "batch_stats": {**stats, **part["stats"]}}
        rngs = {"dropout": self.make_rng("dropout")} if self.has_rng("dropout") else {}
        (logits, _), changed = network.apply(variables, images, train, rngs=rngs, mutable=["batch_stats"])
        return logits, changed.get("batch_stats", {})


def tail(tree: Tree, modules: tuple[str, ...]) -> Tree:
    """The parameters or statistics of `modules` alone."""
    return {name: leaf for name, leaf in tree.items() if name in modules}


def zeros(params: Tree, stats: Tree, modules: tuple[str, ...]) -> Tree:
    """The old or drawn weights before an injection: zeros, with the shapes of `modules`.

    Raises:
      ConfigError: the network lacks one of `modules`.
    """
    if absent := [name for name in modules if name not in params]:
        raise ConfigError(f"model.injected: the network has no module {absent[0]}; choose of {', '.join(params)}")
    return jax.tree.map(jnp.zeros_like, {"params": tail(params, modules), "stats": tail(stats, modules)})


def inject(params: Tree, stats: Tree, drawn: Tree) -> tuple[Tree, Tree]:
    """Returns (params, stats) after the live modules became the old ones and were replaced by those of `drawn`.

    If the network has old weights already, it is returned unchanged.
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
