"""Fraction of the gradient in the space of the Hessian's largest eigenvalues, and the stability of that space.

Cost: 40 products with the Hessian, about 80 gradients of the whole probe; the memory has twenty times the size of the
parameters.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.flatten_util import ravel_pytree

from plasticity_jax.diagnostics.lanczos import lanczos, signs
from plasticity_jax.diagnostics.subject import Part, Remembering, Subject, size

Tree = Any
DEPTH, TOP = 40, 10


def overlap(a: Tree, b: Tree) -> Array:
    """|A^T B|_F^2 / k of two bases of k orthonormal vectors, leaves [k, ...]: 1 for the same space."""
    flat, other = ([jnp.reshape(leaf, (len(leaf), -1)) for leaf in jax.tree.leaves(basis)] for basis in (a, b))
    inner = jnp.concatenate(flat, 1) @ jnp.concatenate(other, 1).T
    return jnp.sum(jnp.square(inner)) / len(inner)


def _measure(subject: Subject) -> tuple[dict[str, Array], Tree]:
    """Gur-Ari et al. 2018, "Gradient descent happens in a tiny subspace" (arXiv 1812.04754), sections 2 and 3.

    The space V is that of the ten largest eigenvalues of the Hessian of the mean loss.  Scalars:

        gradient_in_top       |V^T g|^2 / |g|^2, g the gradient of the mean loss
        top_overlap_first     |V^T V_0|_F^2 / 10, V_0 the space at the first measurement of the stage
        top_overlap_last      the same with the measurement before; both are NaN at the first measurement
    """
    start = signs(jax.random.fold_in(subject.key, 0), subject.params)
    ritz = lanczos(lambda vector: subject.hessian(subject.params, vector), start, DEPTH)
    flat, unflatten = ravel_pytree(subject.gradient(subject.params))
    inside = ritz.vectors[-TOP:] @ flat
    top = jax.vmap(unflatten)(ritz.vectors[-TOP:])
    scalars = {
        "gradient_in_top": jnp.dot(inside, inside) / jnp.dot(flat, flat),
        "top_overlap_first": overlap(top, subject.memory["first"]),
        "top_overlap_last": overlap(top, subject.memory["last"]),
    }
    first = jax.tree.map(lambda old, new: jnp.where(jnp.isnan(old), new, old), subject.memory["first"], top)
    return scalars, {"first": first, "last": top}


def _start(params: Tree, probe: Part) -> Tree:
    del probe
    count = min(TOP, DEPTH, size(params))
    space = jax.tree.map(lambda leaf: jnp.zeros((count, *leaf.shape), jnp.float32), params)
    return {"first": space, "last": space}


subspace = Remembering(_measure, _start)
