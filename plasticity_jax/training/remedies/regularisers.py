"""Remedies that add a term to the loss: functions of (what is seen, numbers); another one is another in `REGULARISERS`.

Each term is written as its paper has it; where released code differs, the docstring says which is followed.
"""

from collections.abc import Callable
from typing import Annotated, Any

import jax
import jax.numpy as jnp
from jax import Array

from plasticity_jax.config.rules import real
from plasticity_jax.training.remedies.interface import Begun, Network, Remedy, Seen

Tree = Any
Strength = Annotated[Array, real("[0, inf)")]


def l2_init(seen: Seen, *, strength: Strength) -> Array:
    """strength |theta - theta_0|^2 over all parameters: Kumar et al. 2023 (arXiv 2308.11958), section 4.

    There is no factor 1/2, as in the paper, so the gradient is 2 strength (theta - theta_0).  All parameters have their
    own theta_0, the normalisations' too.  The released code of Hare & Tortoise overwrites the sum in a loop, so that
    the last parameter alone is held; that is not followed.
    """
    return strength * _squares(jax.tree.map(jnp.subtract, seen.params, seen.memory))


def first_weights(network: Network, begun: Begun) -> Tree:
    """The first weights; of a unit that is replaced they become its new ones."""
    del network
    return begun.first


def _squares(tree: Tree) -> Array:
    return sum((jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(tree)), jnp.float32(0))


REGULARISERS: dict[str, Callable[..., Array] | Remedy] = {
    "l2_init": Remedy(l2_init, first_weights),
}
