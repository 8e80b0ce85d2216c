"""Eigenvalues of matrices given by matrix-vector products, by the method of Lanczos (1950)."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from matfree import decomp

Tree = Any
Product = Callable[[Tree], Tree]


class Ritz(NamedTuple):
    """Ritz values and vectors of a symmetric matrix after k steps.

    values: float32 [k], ascending; those at both ends approximate eigenvalues of the matrix.
    weights: float32 [k], with sum 1: the spectral density weighted by the start vector (stochastic Lanczos quadrature,
        Golub & Welsch 1969).
    vectors: orthonormal, like the start with a leading axis [k].
    """

    values: Array
    weights: Array
    vectors: Tree


def lanczos(product: Product, start: Tree, depth: int) -> Ritz:
    """`depth` Lanczos steps from `start`, at most as many as the matrix has rows, with full reorthogonalisation.

    Costs one product per step, and memory of two vectors per step.
    """
    depth = min(depth, size(start))
    decomposed = decomp.tridiag_sym(depth, custom_vjp=False)(product, start)
    values, inner = jnp.linalg.eigh(decomposed.J_small)
    vectors = jax.tree.map(lambda basis: jnp.tensordot(inner.T, basis, 1), decomposed.Q_tall)
    return Ritz(values, jnp.square(inner[0]), vectors)


def project(basis: Tree, vector: Tree) -> Array:
    """The inner products, float32 [k], of a vector with the vectors of a basis, whose leaves are [k, ...]."""
    pairs = zip(jax.tree.leaves(basis), jax.tree.leaves(vector), strict=True)
    return jnp.sum(jnp.stack([jnp.reshape(b, (len(b), -1)) @ jnp.ravel(v) for b, v in pairs]), 0)


def signs(key: Array, like: Tree) -> Tree:
    """A random vector of +1 and -1 (Rademacher) like the tree `like`, for trace estimates (Hutchinson 1989)."""
    leaves, structure = jax.tree.flatten(like)
    keys = jax.random.split(key, len(leaves))
    drawn = [jax.random.rademacher(k, leaf.shape, jnp.float32) for k, leaf in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(structure, drawn)


def size(tree: Tree) -> int:
    """The total number of elements of a tree."""
    return sum(leaf.size for leaf in jax.tree.leaves(tree))
