"""The fraction of dormant units, which are hardly ever active."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from jax import Array

TAU = 0.025  # units with a score up to this are dormant


def dormant_fraction(state: Any, batch: Mapping[str, Any]) -> dict[str, Array]:
    """The fraction of units in all ReLU layers whose score s_i = E|h_i| / mean_k E|h_k| is at most 0.025.

    Sokar et al. 2023, "The dormant neuron phenomenon", section 3.  E is the mean over examples, and for feature maps
    over positions too, so a channel is one unit; k runs over the units of the layer.  All units of a layer that is zero
    everywhere are dormant.
    """
    del state
    dormant = []
    for name, values in batch["features"].items():
        if name == "penultimate":  # not a layer, but the pooled output of the last ReLU
            continue
        activity = jnp.mean(jnp.abs(values.astype(jnp.float32)), axis=tuple(range(values.ndim - 1)))
        dormant.append(activity <= TAU * jnp.mean(activity))
    if not dormant:  # a network without ReLUs, such as logistic regression
        return {"dormant_fraction": jnp.zeros((), jnp.float32)}
    return {"dormant_fraction": jnp.mean(jnp.concatenate(dormant), dtype=jnp.float32)}
