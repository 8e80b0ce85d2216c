"""How much the loss rises around the weights, by measures that do not depend on their scale.

BatchNorm makes the scale of the weights before it arbitrary, and with it the eigenvalues of the Hessian.  The third
such measure, the largest eigenvalue times |w|^2, is `relative_sharpness` of `curvature`.

Cost class: about ten gradients of the whole probe.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from plasticity_jax.diagnostics.subject import Subject, dot

Tree = Any
RADIUS, ASCENTS = 0.5, 5  # of the adaptive sharpness
SHARE, DRAWS = 0.1, 8  # of the random directions


def flatness(subject: Subject) -> dict[str, Array]:
    """Two rises of the mean loss; scalars.  The statistics of BatchNorm are those of the weights in the middle.

    adaptive_sharpness   the largest rise within |e / |w||_2 <= 0.5, division number by number (Kwon et al. 2021,
                         "ASAM", arXiv 2102.11600, equation 3), found by five steps of ascent, each to the point
                         of the border that the gradient names; never below 0
    filter_rise          the mean rise over eight Gaussian directions, in which each filter (the column of a kernel
                         that makes one output) has a tenth of the norm of that of the network, and all that is no
                         kernel rests (Li et al. 2018, arXiv 1712.09913, section 4)
    """
    here = subject.loss(subject.params)
    return {
        "adaptive_sharpness": jnp.maximum(_steepest(subject) - here, 0.0),
        "filter_rise": jnp.mean(jax.lax.map(lambda key: _beside(subject, key), _keys(subject, 1))) - here,
    }


def _keys(subject: Subject, number: int) -> Array:
    return jax.random.split(jax.random.fold_in(subject.key, number), DRAWS)


def _steepest(subject: Subject) -> Array:
    """The largest loss that the ascent meets."""
    scale = jax.tree.map(jnp.abs, subject.params)
    first = _normal(jax.random.fold_in(subject.key, 0), scale)

    def at(direction: Tree) -> Tree:
        inverse = RADIUS / jnp.maximum(jnp.sqrt(dot(direction, direction)), jnp.finfo(jnp.float32).tiny)
        return jax.tree.map(lambda w, s, d: w + s * d * inverse, subject.params, scale, direction)

    def ascend(point: Tree, _: None) -> tuple[Tree, Array]:
        slope = subject.gradient(point)
        after = at(jax.tree.map(jnp.multiply, scale, slope))
        return after, subject.loss(after)

    # The first gradient is that of the weights themselves, unless they are at a minimum.
    slope = jax.tree.map(jnp.multiply, scale, subject.gradient(subject.params))
    moves = dot(slope, slope) > 1e-12 * jnp.square(subject.loss(subject.params))
    start = at(jax.tree.map(lambda s, f: jnp.where(moves, s, f), slope, first))
    losses = jax.lax.scan(ascend, start, None, ASCENTS)[1]
    return jnp.maximum(jnp.max(losses), subject.loss(start))


def _beside(subject: Subject, key: Array) -> Array:
    """The loss in a random direction."""

    def filtered(weights: Array, drawn: Array) -> Array:
        if weights.ndim < 2:
            return weights
        axes = tuple(range(weights.ndim - 1))
        norms = [jnp.sqrt(jnp.sum(jnp.square(leaf), axes)) for leaf in (weights, drawn)]
        return weights + SHARE * drawn * norms[0] / norms[1]

    return subject.loss(jax.tree.map(filtered, subject.params, _normal(key, subject.params)))


def _normal(key: Array, like: Tree) -> Tree:
    leaves, structure = jax.tree.flatten(like)
    keys = jax.random.split(key, len(leaves))
    return jax.tree.unflatten(
        structure, [jax.random.normal(k, leaf.shape) for k, leaf in zip(keys, leaves, strict=True)]
    )
