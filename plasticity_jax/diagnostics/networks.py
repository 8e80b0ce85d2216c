"""What is measured on one network beside its accuracy.

A diagnostic is a pure function `(state, batch) -> {name: float32 scalar}` of one run, which can be jitted and mapped
over runs.  `state` has `.params` (a nested dictionary) and `.stats`; `batch` holds a fixed probe of 512 images, seen in
eval mode.  There are two: of the run's training images and of its test images, both of the classes and the member that
its stage is about.  What looks at them is recorded twice, as `train_NAME` and `test_NAME`; what looks at weights alone
is recorded as `NAME`.  (`effective_rank` and `dormant_fraction` in older results are of test images of all classes.)

    image     float32 [B, H, W, C], normalised
    label     int32 [B]
    logits    float32 [B, classes]
    features  {name: [B, .., D]}, the outputs of the ReLUs, and `penultimate` [B, D]
    initial   the parameters at initialisation

Own diagnostics have the same form.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from plasticity_jax.models import parameters

TAU = 0.025  # units with a score up to this are dormant


def _by_module(name: str, params: Mapping[str, Any]) -> dict[str, Array]:
    """The L2 norm of all parameters as `name`, and of each top-level module as `name/module`."""
    return {name: parameters.norm(params)} | {f"{name}/{module}": parameters.norm(params[module]) for module in params}


def weight_norm(state: Any, batch: Mapping[str, Any]) -> dict[str, Array]:
    """|theta|, the L2 norm of the parameters; in total and for each module."""
    del batch
    return _by_module("weight_norm", state.params)


def distance_to_init(state: Any, batch: Mapping[str, Any]) -> dict[str, Array]:
    """|theta - theta_0|, the L2 distance from the initial parameters of the run; in total and for each module.

    A reset does not move theta_0.  Ash & Adams 2020 (appendix, figure 11) look at the correlation instead.
    """
    return _by_module("distance_to_init", jax.tree.map(jnp.subtract, state.params, batch["initial"]))


def effective_rank(state: Any, batch: Mapping[str, Any]) -> dict[str, Array]:
    """exp(-sum_k p_k log p_k) with p_k = sigma_k / sum_j sigma_j, of the penultimate features [B, D].

    sigma are the singular values, not centred (Roy & Vetterli 2007, "The effective rank", section 2).  Between 1 and
    min(B, D); features that are all zero, for which the formula says nothing, have rank 0.
    """
    del state
    features = batch["features"]["penultimate"].astype(jnp.float32)
    sigma = jnp.linalg.svd(features, compute_uv=False)
    share = sigma / jnp.maximum(jnp.sum(sigma), jnp.finfo(jnp.float32).tiny)
    entropy = jnp.sum(jax.scipy.special.entr(share))  # entr(0) = 0
    return {"effective_rank": jnp.where(sigma[0] > 0, jnp.exp(entropy), 0.0)}


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


DIAGNOSTICS: dict[str, Callable[[Any, Mapping[str, Any]], dict[str, Array]]] = {
    "weight_norm": weight_norm,
    "distance_to_init": distance_to_init,
    "effective_rank": effective_rank,
    "dormant_fraction": dormant_fraction,
}
