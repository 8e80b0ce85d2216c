"""The effective rank of the features."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from plasticity_jax import target
from plasticity_jax.diagnostics.singular_values import singular_values


def effective_rank(state: Any, batch: Mapping[str, Any]) -> dict[str, Array]:
    """exp(-sum_k p_k log p_k) with p_k = sigma_k / sum_j sigma_j, of the penultimate features [B, D].

    sigma are the singular values of the uncentred features (Roy & Vetterli 2007, "The effective rank", section 2).  The
    result lies between 1 and min(B, D); it is 0 if all features are zero, for which the formula is undefined.

    Eigenvalues of the Gram matrix would not do: in float32 they lose singular values below 1e-3 of the largest.
    """
    del state
    features = batch["features"]["penultimate"].astype(jnp.float32)
    on_tpu = target.backend() == "tpu"
    sigma = singular_values(features) if on_tpu else jnp.linalg.svd(features, compute_uv=False)
    share = sigma / jnp.maximum(jnp.sum(sigma), jnp.finfo(jnp.float32).tiny)
    entropy = jnp.sum(jax.scipy.special.entr(share))  # entr(0) = 0
    return {"effective_rank": jnp.where(sigma[0] > 0, jnp.exp(entropy), 0.0)}
