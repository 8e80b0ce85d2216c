"""The tangent kernel of a network: how much a gradient step for one input changes the outputs for others.

Cost: for the kernel, 256 passes over 256 inputs; for the churn, one training step and two forward passes.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from plasticity_jax.diagnostics.subject import Part, Subject

Tree = Any
INPUTS = 256
EPSILON = 0.01  # eigenvalues below this fraction of the largest count as zero in the numerical rank


def kernel(subject: Subject) -> dict[str, Array]:
    """The empirical tangent kernel K_ij = <grad f(x_i), grad f(x_j)>; f is the sum of the K logits over sqrt(K).

    Of the first 256 images of the probe.  Because of the sum it is the pseudo tangent kernel of Mohamadi et al. 2023
    (arXiv 2206.12543); rank and condition follow Lyle et al. 2024 (arXiv 2402.18762).

        kernel_rank            exp of the entropy of the eigenvalues normalised by their sum
        kernel_numerical_rank  number of eigenvalues above 0.01 of the largest
        kernel_condition       the largest eigenvalue over the smallest, which is taken as at least 1e-6 of the largest
        churn                  change of the class probabilities of these images in the next training step: half the sum
                               of |p' - p| over classes, mean over images, most of which are not in that step's batch
        churn_share            fraction of these images whose predicted class changes
    """
    some = jax.tree.map(lambda leaf: leaf[:INPUTS], subject.probe)
    values = jnp.linalg.eigvalsh(tangent(subject, some))
    values = jnp.maximum(values, 0.0)
    share = values / jnp.sum(values)
    scalars = {
        "kernel_rank": jnp.exp(jnp.sum(jax.scipy.special.entr(share))),
        "kernel_numerical_rank": jnp.sum(values > EPSILON * values[-1], dtype=jnp.float32),
        "kernel_condition": values[-1] / jnp.maximum(values[0], 1e-6 * values[-1]),
    }
    return scalars | (_churn(subject, some) if subject.following else {})


def tangent(subject: Subject, some: Part) -> Array:
    """The kernel [B, B], computed row by row; images of weight 0 have rows and columns of zeros."""

    def outputs(params: Tree, part: Part) -> Array:
        logits = subject.logits(params, part)
        return part.weight * jnp.sum(logits, -1) / jnp.sqrt(logits.shape[-1])

    def row(number: Array) -> Array:
        one = jax.tree.map(lambda leaf: jnp.asarray(leaf)[number][None], some)
        slope = jax.grad(lambda params: outputs(params, one)[0])(subject.params)
        return jax.jvp(lambda params: outputs(params, some), (subject.params,), (slope,))[1]

    return jax.lax.map(row, jnp.arange(len(some.label)))


def _churn(subject: Subject, some: Part) -> dict[str, Array]:
    after = subject.following() if subject.following else subject
    before, later = (jax.nn.softmax(one.logits(one.params, some)) for one in (subject, after))
    count = jnp.sum(some.weight)
    moved = 0.5 * jnp.sum(jnp.abs(later - before), -1)
    turned = jnp.argmax(later, -1) != jnp.argmax(before, -1)
    return {"churn": some.weight @ moved / count, "churn_share": some.weight @ turned.astype(jnp.float32) / count}
