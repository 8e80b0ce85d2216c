"""Dormant units: the share that is hardly ever active."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from jax import Array

TAU = 0.025  # units with a score up to this are dormant


def dormant_fraction(state: Any, batch: Mapping[str, Any]) -> dict[str, Array]:
    """The share of units whose score s_i = E|h_i| / mean_k E|h_k| is at most 0.025, of all units of all ReLU layers.

    Sokar et al. 2023, "The dormant neuron phenomenon", section 3.  E runs over the examples, and for feature maps over
    the positions too, so that a channel is a unit; k over the units of the layer.  A layer that is zero everywhere
    is dormant altogether.
    """
    del state
    dormant = []
    for name, values in batch["features"].items():
        if name == "penultimate":  # no layer of its own: the last ReLU again, pooled
            continue
        activity = jnp.mean(jnp.abs(values.astype(jnp.float32)), axis=tuple(range(values.ndim - 1)))
        dormant.append(activity <= TAU * jnp.mean(activity))
    if not dormant:  # a network without ReLUs, such as logistic regression
        return {"dormant_fraction": jnp.zeros((), jnp.float32)}
    return {"dormant_fraction": jnp.mean(jnp.concatenate(dormant), dtype=jnp.float32)}
