"""Remedies after every so many steps: functions of (network, what is known now, numbers); another one is another in
`PERIODIC`.

The number `every`, of steps from one time to the next, belongs to all of them and is not given to the function.
"""

from collections.abc import Callable
from typing import Annotated

import jax.numpy as jnp
from jax import Array

from plasticity_jax.config.rules import real
from plasticity_jax.training.remedies.interface import Network, Now, Remedy
from plasticity_jax.training.remedies.replacement import replace_units

Share = Annotated[Array, real("[0, 1]")]


def redo(network: Network, now: Now, *, threshold: Annotated[Array, real("[0, inf)")]) -> Network:
    """ReDo: units whose score is at most `threshold` are replaced, with outgoing weights zero.

    Sokar et al. 2023 (arXiv 2302.12902), algorithm 1: the score is E|h| over the mean of E|h| in the layer (plus 1e-9),
    over the batch of this step in train mode, and over positions where the unit is a channel.  All scores are taken
    before any weight changes.  Their grids: threshold 0, 0.01 and 0.1, every 1e3, 1e4 and 1e5 steps.
    """
    chosen = {}
    for site in now.sites:
        level = now.activity[site.name]["level"] / now.examples
        chosen[site.name] = level / (jnp.mean(level) + 1e-9) <= threshold
    return replace_units(network, now.sites, chosen, now.fresh(now.key))


PERIODIC: dict[str, Callable[..., Network] | Remedy] = {
    "redo": redo,
}
