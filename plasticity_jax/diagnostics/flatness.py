"""Sharpness of the loss around the weights, by measures that do not depend on the scale of the weights.

BatchNorm makes the scale of the weights before it arbitrary, and with it the eigenvalues of the Hessian.  A third such
measure, the largest eigenvalue times |w|^2, is `relative_sharpness` in `curvature`.

Cost: 5 gradients and 9 losses of the whole probe, as much as 8 gradients.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from plasticity_jax.diagnostics.subject import Subject, dot, draw
from plasticity_jax.models.products import differentiated_once

Tree = Any
RADIUS, ASCENTS = 0.5, 5  # of the adaptive sharpness
SHARE, DRAWS = 0.1, 8  # of the random directions


@differentiated_once()
def flatness(subject: Subject) -> dict[str, Array]:
    """Two increases of the mean loss; scalars.  BatchNorm uses the statistics of the unperturbed weights.

    adaptive_sharpness   the largest increase within |e / |w||_2 <= 0.5, divided elementwise (Kwon et al. 2021, "ASAM",
                         arXiv 2102.11600, equation 3), by five steps of projected gradient ascent, each to the
                         boundary; at least 0
    filter_rise          the mean increase over eight Gaussian directions, in which each filter (the column of a kernel
                         for one output) has a tenth of the norm of the network's filter, and parameters other than
                         kernels are not perturbed (Li et al. 2018, arXiv 1712.09913, section 4)
    """
    scale = jax.tree.map(jnp.abs, subject.params)
    keys = jax.random.split(subject.key, 1 + DRAWS)
    first = draw(jax.random.normal, keys[0], subject.params)

    def climb(point: Tree, number: Array) -> tuple[Tree, Array]:
        loss, slope = subject.slope(point)
        steepest = jax.tree.map(jnp.multiply, scale, slope)
        # At a minimum the gradient is zero, so the ascent starts in a random direction.
        rests = (number == 0) & (dot(steepest, steepest) <= 1e-12 * jnp.square(loss))
        ascent = jax.tree.map(lambda named, random: jnp.where(rests, random, named), steepest, first)
        return _border(subject.params, scale, ascent), loss

    top, climbed = jax.lax.scan(climb, subject.params, jnp.arange(ASCENTS))

    def loss_at(number: Array) -> Array:
        """At the end of the ascent for 0, beside the network for others."""
        drawn = draw(jax.random.normal, keys[number], subject.params)
        beside = jax.tree.map(_filtered, subject.params, drawn)
        return subject.loss(jax.tree.map(lambda a, b: jnp.where(number == 0, a, b), top, beside))

    highest, *around = jax.lax.map(loss_at, jnp.arange(1 + DRAWS))
    return {
        "adaptive_sharpness": jnp.maximum(jnp.max(climbed), highest) - climbed[0],
        "filter_rise": jnp.mean(jnp.stack(around)) - climbed[0],
    }


def _border(params: Tree, scale: Tree, direction: Tree) -> Tree:
    """The boundary point in a direction, which is given in units of the weights."""
    inverse = RADIUS / jnp.maximum(jnp.sqrt(dot(direction, direction)), jnp.finfo(jnp.float32).tiny)
    return jax.tree.map(lambda w, s, d: w + s * d * inverse, params, scale, direction)


def _filtered(weights: Array, drawn: Array) -> Array:
    """`weights` plus `drawn`, rescaled to a tenth of the weights' norm filter by filter."""
    if weights.ndim < 2:
        return weights
    axes = tuple(range(weights.ndim - 1))
    norms = [jnp.sqrt(jnp.sum(jnp.square(leaf), axes)) for leaf in (weights, drawn)]
    return weights + SHARE * drawn * norms[0] / norms[1]
