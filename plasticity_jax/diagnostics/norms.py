"""Norms of the weights and of their distance from initialisation."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from plasticity_jax.models import parameters


def _by_module(name: str, params: Mapping[str, Any]) -> dict[str, Array]:
    """The L2 norm of all parameters as `name`, and of each top-level module as `name/module`."""
    return {name: parameters.norm(params)} | {f"{name}/{module}": parameters.norm(params[module]) for module in params}


def weight_norm(state: Any, batch: Mapping[str, Any]) -> dict[str, Array]:
    """|theta|, the L2 norm of the parameters; in total and for each module."""
    del batch
    return _by_module("weight_norm", state.params)


def distance_to_init(state: Any, batch: Mapping[str, Any]) -> dict[str, Array]:
    """|theta - theta_0|, the L2 distance from the initial parameters of the run; in total and for each module.

    A reset does not change theta_0.  Ash & Adams 2020 (appendix, figure 11) use the correlation instead.
    """
    return _by_module("distance_to_init", jax.tree.map(jnp.subtract, state.params, batch["initial"]))
