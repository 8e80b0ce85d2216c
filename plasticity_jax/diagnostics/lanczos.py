"""Eigenvalues of matrices given by matrix-vector products, by the method of Lanczos (1950)."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.flatten_util import ravel_pytree
from matfree import decomp

from plasticity_jax.diagnostics.subject import draw

Tree = Any
Product = Callable[[Tree], Tree]


class Ritz(NamedTuple):
    """Ritz values and vectors of a symmetric matrix after k steps.

    values: float32 [k], ascending; those at both ends approximate eigenvalues of the matrix.
    weights: float32 [k], with sum 1: the spectral density weighted by the start vector (stochastic Lanczos quadrature,
        Golub & Welsch 1969).
    vectors: orthonormal, float32 [k, n], each as one row of numbers, flattened like the parameters.
    """

    values: Array
    weights: Array
    vectors: Array


def lanczos(product: Product, start: Tree, depth: int) -> Ritz:
    """`depth` Lanczos steps from `start`, at most as many as the matrix has rows, with full reorthogonalisation.

    Costs one product per step, and memory of two vectors per step.
    """
    flat, unflatten = ravel_pytree(start)

    def multiply(vector: Array) -> Array:
        return ravel_pytree(product(unflatten(vector)))[0]

    decomposed = decomp.tridiag_sym(min(depth, len(flat)), custom_vjp=False)(multiply, flat)
    values, inner = jnp.linalg.eigh(decomposed.J_small)
    return Ritz(values, jnp.square(inner[0]), inner.T @ decomposed.Q_tall)


def signs(key: Array, like: Tree) -> Tree:
    """A random vector of +1 and -1 (Rademacher) like the tree `like`, for trace estimates (Hutchinson 1989)."""
    return draw(lambda key, shape: jax.random.rademacher(key, shape, jnp.float32), key, like)
