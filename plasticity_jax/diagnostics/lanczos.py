"""Eigenvalues of matrices that are known by their products with vectors, by the method of Lanczos (1950)."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from matfree import decomp

Tree = Any
Product = Callable[[Tree], Tree]


class Ritz(NamedTuple):
    """What k steps tell of a symmetric matrix.

    values: float32 [k], ascending; those at both ends are near the matrix's own eigenvalues.
    weights: float32 [k], which sum to 1: the density of eigenvalues as the start sees it (stochastic Lanczos
        quadrature, Golub & Welsch 1969).
    vectors: of unit length and orthogonal to each other, like the start with a leading axis [k].
    """

    values: Array
    weights: Array
    vectors: Tree


def lanczos(product: Product, start: Tree, depth: int) -> Ritz:
    """`depth` steps, or as many as the matrix has rows, from `start`; orthogonalised anew at each step.

    One product for each step, and the memory of two vectors.
    """
    depth = min(depth, size(start))
    found = decomp.tridiag_sym(depth, custom_vjp=False)(product, start)
    values, inner = jnp.linalg.eigh(found.J_small)
    vectors = jax.tree.map(lambda basis: jnp.tensordot(inner.T, basis, 1), found.Q_tall)
    return Ritz(values, jnp.square(inner[0]), vectors)


def project(basis: Tree, vector: Tree) -> Array:
    """The inner products, float32 [k], of a vector with each of a basis, leaves [k, ...]."""
    pairs = zip(jax.tree.leaves(basis), jax.tree.leaves(vector), strict=True)
    return jnp.sum(jnp.stack([jnp.reshape(b, (len(b), -1)) @ jnp.ravel(v) for b, v in pairs]), 0)


def signs(key: Array, like: Tree) -> Tree:
    """A random vector of ones and minus ones (Rademacher), for estimates of traces (Hutchinson 1989)."""
    leaves, structure = jax.tree.flatten(like)
    keys = jax.random.split(key, len(leaves))
    drawn = [jax.random.rademacher(k, leaf.shape, jnp.float32) for k, leaf in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(structure, drawn)


def size(tree: Tree) -> int:
    """How many numbers a tree has."""
    return sum(leaf.size for leaf in jax.tree.leaves(tree))
