"""The curvature of the loss: eigenvalues, trace, rank and spectrum of its Hessian and of its Gauss-Newton matrix.

Cost class: products of these matrices with vectors, each about two gradients of the whole probe: 80 for `curvature`,
160 for `spectrum`; memory of twice as many vectors as there are steps.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from plasticity_jax.diagnostics.lanczos import Product, lanczos, signs, size
from plasticity_jax.diagnostics.subject import Subject, dot

Tree = Any
DEPTH = 32  # steps of Lanczos for the eigenvalues
TRACES = 8  # random vectors for the trace
TOP = 10  # eigenvalues that are told
EPSILON = 0.01  # of the largest eigenvalue: what is smaller counts as nothing
NODES, VECTORS = 40, 2  # of the spectrum


def curvature(subject: Subject) -> dict[str, Array]:
    """The large eigenvalues of the Hessian and the Gauss-Newton matrix of the mean loss; all are scalars.

        hessian_eigenvalue/1 .. 10   the largest ones, by 32 steps of Lanczos: an outlier to its last digits, the tenth
                                     from below
        hessian_smallest             the smallest one: how far the loss curves downwards
        hessian_trace                by Hutchinson, with 8 random vectors
        hessian_rank                 how many eigenvalues are above 0.01 of the largest, by quadrature: what is said to
                                     collapse before a new task is learned badly (arXiv 2509.22335)
        relative_sharpness           the largest one times |w|^2, which does not change where BatchNorm makes the
                                     scale of the weights arbitrary

    And all but the last for `gauss_newton_`, whose eigenvalues are those of the Fisher matrix too.
    """
    found: dict[str, Array] = {}
    for name, product in _matrices(subject):
        ritz = lanczos(product, signs(jax.random.fold_in(subject.key, 0), subject.params), DEPTH)
        largest = ritz.values[::-1]
        found |= {f"{name}_eigenvalue/{i + 1}": largest[i] for i in range(min(TOP, len(largest)))}
        above = jnp.where(ritz.values > EPSILON * largest[0], ritz.weights, 0.0)
        found[f"{name}_smallest"] = ritz.values[0]
        found[f"{name}_rank"] = size(subject.params) * jnp.sum(above)
        found[f"{name}_trace"] = trace(product, jax.random.fold_in(subject.key, 1), subject.params)
    norm = dot(subject.params, subject.params)
    return found | {"relative_sharpness": found["hessian_eigenvalue/1"] * norm}


def spectrum(subject: Subject) -> dict[str, Array]:
    """The density of all eigenvalues, by stochastic Lanczos quadrature (Ghorbani et al. 2019, arXiv 1901.10159).

    `hessian_node/J` and `hessian_weight/J` (J from 0 to 79) are places on the axis of eigenvalues, and the share of
    all eigenvalues that lies about there: the density is the sum over J of weight times a bump at the node.  They are
    of two random vectors with 40 steps each.  The same for `gauss_newton_`.
    """
    found: dict[str, Array] = {}
    for name, product in _matrices(subject):
        for number in range(VECTORS):
            start = signs(jax.random.fold_in(subject.key, 2 + number), subject.params)
            ritz = lanczos(product, start, NODES)
            for j, (value, weight) in enumerate(zip(ritz.values, ritz.weights / VECTORS, strict=True)):
                place = number * len(ritz.values) + j
                found |= {f"{name}_node/{place}": value, f"{name}_weight/{place}": weight}
    return found


def trace(product: Product, key: Array, like: Tree) -> Array:
    """The trace of a matrix, by 8 random vectors one after another (Hutchinson 1989)."""

    def one(key: Array) -> Array:
        vector = signs(key, like)
        return dot(vector, product(vector))

    return jnp.mean(jax.lax.map(one, jax.random.split(key, TRACES)))


def _matrices(subject: Subject) -> Iterator[tuple[str, Product]]:
    kinds: dict[str, Callable[[Tree, Tree], Tree]] = {
        "hessian": subject.hessian,
        "gauss_newton": subject.gauss_newton,
    }
    for name, product in kinds.items():
        yield name, functools.partial(product, subject.params)
